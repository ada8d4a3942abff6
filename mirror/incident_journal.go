package mirror

import (
	"bufio"
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

const (
	journalKept   = 1000            // incidents in memory
	journalBytes  = 4 << 20         // of one file; two are kept
	journalRepeat = time.Hour       // within which the same incident is counted
	journalRecall = 5 * time.Second // after which a count that grew is written
	detailBytes   = 4 << 10         // of one text
)

// journal keeps incidents: the newest in memory, and all that two files hold on
// disk, one JSON object a line. A file is only ever appended to; a line with the
// ID of an earlier one is that incident with its new count. When a file is full
// it becomes the older one.
//
// A disk that fails costs the lines it did not take, never an incident in
// memory, and nobody who records one waits for it.
type journal struct {
	path     string // "": in memory only
	instance string
	log      *slog.Logger
	total    *prometheus.CounterVec // by flow and kind
	now      func() time.Time

	wake chan struct{} // capacity 1

	mu      sync.Mutex // guards the fields below
	kept    []Incident // by ID, at most journalKept
	newest  uint64
	same    map[sameness]uint64 // the last incident of its sort
	unsaved map[uint64]struct{} // new ones
	grown   map[uint64]struct{} // ones that occurred again
}

// sameness is what incidents that are counted as one have in common.
type sameness struct {
	flow, topic  string
	partition    int32
	kind, detail string
}

func newJournal(dir, instance string, total *prometheus.CounterVec, log *slog.Logger) *journal {
	j := &journal{
		instance: instance, log: log, total: total, now: time.Now, wake: make(chan struct{}, 1),
		same: map[sameness]uint64{}, unsaved: map[uint64]struct{}{}, grown: map[uint64]struct{}{},
	}
	if dir != "" {
		j.path = filepath.Join(dir, "incidents.jsonl")
	}
	return j
}

// of is the journal of one flow.
func (j *journal) of(flow string) Journal { return flowJournal{j, flow} }

type flowJournal struct {
	*journal
	flow string
}

func (j flowJournal) Record(i Incident) {
	i.Flow = cmp.Or(i.Flow, j.flow)
	j.journal.Record(i)
}

// Record takes an incident. It does not wait for the disk.
func (j *journal) Record(i Incident) {
	i.Detail, i.Action = cut(i.Detail), cut(i.Action)
	now := j.now()
	sort := sameness{i.Flow, i.Topic, i.Partition, i.Kind, i.Detail}
	j.mu.Lock()
	defer j.mu.Unlock()
	if j.total != nil {
		j.total.WithLabelValues(i.Flow, i.Kind).Inc()
	}
	if id, ok := j.same[sort]; ok {
		if old := j.find(id); old != nil && now.Sub(old.Last) < journalRepeat {
			old.Times++
			old.Last = now
			j.grown[id] = struct{}{}
			poke(j.wake)
			return
		}
	}
	j.newest++
	i.ID, i.Times = j.newest, 1
	i.Instance = cmp.Or(i.Instance, j.instance)
	if i.Time.IsZero() {
		i.Time = now
	}
	i.Last = i.Time
	j.same[sort] = i.ID
	j.unsaved[i.ID] = struct{}{}
	j.keep(i)
	poke(j.wake)
}

// keep adds the newest incident, and forgets the oldest. Called with mu held.
func (j *journal) keep(i Incident) {
	j.kept = append(j.kept, i)
	if len(j.kept) <= journalKept {
		return
	}
	old := j.kept[0]
	sort := sameness{old.Flow, old.Topic, old.Partition, old.Kind, old.Detail}
	if j.same[sort] == old.ID {
		delete(j.same, sort)
	}
	delete(j.unsaved, old.ID)
	delete(j.grown, old.ID)
	j.kept = slices.Delete(j.kept, 0, 1)
}

// find is called with mu held.
func (j *journal) find(id uint64) *Incident {
	at, ok := slices.BinarySearchFunc(j.kept, id, func(i Incident, id uint64) int { return cmp.Compare(i.ID, id) })
	if !ok {
		return nil
	}
	return &j.kept[at]
}

// since returns the incidents with a greater ID, oldest first.
func (j *journal) since(id uint64) []Incident {
	j.mu.Lock()
	defer j.mu.Unlock()
	at, _ := slices.BinarySearchFunc(j.kept, id+1, func(i Incident, id uint64) int { return cmp.Compare(i.ID, id) })
	return slices.Clone(j.kept[at:])
}

// Run writes what is recorded until ctx ends, and then what is left. [journal.load] comes first.
func (j *journal) Run(ctx context.Context) {
	if j.path == "" {
		<-ctx.Done()
		return
	}
	retry := backoff{base: time.Second, limit: time.Minute}
	recall := time.NewTimer(journalRecall)
	defer recall.Stop()
	for ctx.Err() == nil {
		again := false
		select {
		case <-j.wake:
		case <-recall.C:
			again = true
			recall.Reset(journalRecall)
		case <-ctx.Done():
			continue
		}
		if err := j.save(again); err != nil {
			if retry.failures == 0 {
				j.log.Error("write incidents", slog.String("path", j.path), slog.Any("error", err))
			}
			retry.sleep(ctx)
			poke(j.wake)
			continue
		}
		retry.reset()
	}
	if err := j.save(true); err != nil {
		j.log.Error("write incidents", slog.String("path", j.path), slog.Any("error", err))
	}
}

// save appends what is not in the file yet: the new ones, and with all also
// those whose count grew.
func (j *journal) save(all bool) error {
	j.mu.Lock()
	var lines []Incident
	for _, i := range j.kept {
		_, unsaved := j.unsaved[i.ID]
		_, grown := j.grown[i.ID]
		if unsaved || grown && all {
			lines = append(lines, i)
		}
	}
	j.mu.Unlock()
	if len(lines) == 0 {
		return nil
	}
	if err := j.append(lines); err != nil {
		return err
	}
	j.mu.Lock()
	defer j.mu.Unlock()
	for _, i := range lines {
		delete(j.unsaved, i.ID)
		if now := j.find(i.ID); now == nil || now.Times == i.Times {
			delete(j.grown, i.ID)
		}
	}
	return nil
}

func (j *journal) append(lines []Incident) error {
	if err := os.MkdirAll(filepath.Dir(j.path), 0o755); err != nil {
		return err
	}
	file, err := os.OpenFile(j.path, os.O_RDWR|os.O_CREATE|os.O_APPEND, 0o644)
	if err != nil {
		return err
	}
	defer file.Close() //nolint:errcheck // Sync tells
	info, err := file.Stat()
	if err != nil {
		return err
	}
	var out bytes.Buffer
	if size := info.Size(); size > 0 { // a line that a crash cut stays one line
		last := []byte{0}
		if _, err := file.ReadAt(last, size-1); err != nil {
			return err
		}
		if last[0] != '\n' {
			out.WriteByte('\n')
		}
	}
	encoder := json.NewEncoder(&out)
	encoder.SetEscapeHTML(false)
	for _, i := range lines {
		if err := encoder.Encode(i); err != nil {
			return err
		}
	}
	if _, err := file.Write(out.Bytes()); err != nil {
		return err
	}
	if err := file.Sync(); err != nil {
		return err
	}
	if info.Size()+int64(out.Len()) >= journalBytes {
		return os.Rename(j.path, j.older())
	}
	return nil
}

func (j *journal) older() string { return filepath.Join(filepath.Dir(j.path), "incidents.1.jsonl") }

// load reads back what the files hold. A line that cannot be read, as a crash
// leaves one, is told and left out.
func (j *journal) load() error {
	if j.path == "" {
		return nil
	}
	j.mu.Lock()
	defer j.mu.Unlock()
	bad := 0
	for _, path := range []string{j.older(), j.path} {
		file, err := os.Open(path)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return fmt.Errorf("read incidents: %w", err)
		}
		err = j.read(file, &bad)
		file.Close() //nolint:errcheck,gosec // it was only read
		if err != nil {
			return fmt.Errorf("read incidents of %s: %w", path, err)
		}
	}
	if bad > 0 {
		j.log.Warn("incidents: lines that cannot be read are left out", slog.String("path", j.path), slog.Int("lines", bad))
	}
	for _, i := range j.kept {
		j.same[sameness{i.Flow, i.Topic, i.Partition, i.Kind, i.Detail}] = i.ID
	}
	return nil
}

// read is called with mu held.
func (j *journal) read(file *os.File, bad *int) error {
	if info, err := file.Stat(); err == nil && info.Size() > 2*journalBytes { // not as we leave it: its end will do
		if _, err := file.Seek(-2*journalBytes, io.SeekEnd); err != nil {
			return err
		}
	}
	lines := bufio.NewReaderSize(file, 64<<10)
	for {
		line, err := lines.ReadBytes('\n')
		if len(bytes.TrimSpace(line)) > 0 {
			var i Incident
			if json.Unmarshal(line, &i) != nil || i.ID == 0 {
				*bad++
			} else if old := j.find(i.ID); old != nil {
				*old = i
			} else if i.ID > j.newest {
				j.newest = i.ID
				j.keep(i)
			}
		}
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
	}
}

// cut bounds a text.
func cut(text string) string {
	if len(text) <= detailBytes {
		return text
	}
	return text[:detailBytes-3] + "..."
}
