package storage_test

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/twmb/franz-go/pkg/kerr"
	"pgregory.net/rapid"

	"kmirror/broker/storage"
	"kmirror/internal/wire"
)

// modelBatch is an appended batch as the model remembers it.
type modelBatch struct {
	base     int64
	values   []string
	producer int64 // -1 for none
	sequence int32
	epoch    int32 // of the leader
	time     int64
}

func (b modelBatch) end() int64 { return b.base + int64(len(b.values)) }

// machine holds a log against a model of it: a list of batches. Crashes keep
// what was acknowledged and any part of what was not.
type machine struct {
	t       *rapid.T
	root    string
	n       int // directories used
	fs      *faultFS
	store   *storage.Store
	log     *storage.Log
	clock   int64
	fsync   storage.Fsync
	config  storage.LogConfig
	batches []modelBatch // all that may be in the log, in order
	start   int64
	acked   int64 // offsets below it must survive
	epoch   int32
	next    map[int64]int32 // producer to its next sequence
	serial  int
}

func (m *machine) open(dir string) {
	var err error
	m.store, err = storage.Open(storage.Options{
		Dir: dir, NodeID: 1, Fsync: m.fsync, FS: m.fs, OpenFiles: 2, IndexBytes: 600,
		Now: func() time.Time { return time.UnixMilli(m.clock) },
	})
	if err != nil {
		m.t.Fatalf("open: %v", err)
	}
	if m.log, err = m.store.Create("orders", topicID, 0, m.config); err != nil {
		m.t.Fatalf("create: %v", err)
	}
}

func (m *machine) end() int64 {
	if n := len(m.batches); n > 0 {
		return max(m.batches[n-1].end(), m.start)
	}
	return m.start
}

func (m *machine) append(t *rapid.T) {
	m.clock += rapid.Int64Range(0, 1000).Draw(t, "tick")
	b := modelBatch{base: m.end(), producer: -1, epoch: m.epoch, time: m.clock}
	for range rapid.IntRange(1, 4).Draw(t, "records") {
		m.serial++
		b.values = append(b.values, fmt.Sprintf("v%d", m.serial))
	}
	o := wire.Plain(wire.Codec(rapid.IntRange(0, 4).Draw(t, "codec")))
	if rapid.Bool().Draw(t, "idempotent") {
		b.producer = rapid.Int64Range(0, 2).Draw(t, "producer")
		b.sequence = m.next[b.producer]
		o.ProducerID, o.ProducerEpoch, o.BaseSequence = b.producer, 0, b.sequence
	}
	r, err := m.log.Append(batchOf(t, o, values(b.time, b.values...)...), m.epoch, storage.AppendOptions{FromClient: true})
	if err != nil {
		t.Fatalf("append: %v", err)
	}
	if r.BaseOffset != b.base || r.LastOffset != b.end()-1 || r.Duplicate {
		t.Fatalf("appended at %+v, want %d", r, b.base)
	}
	if b.producer >= 0 {
		m.next[b.producer] = b.sequence + int32(len(b.values))
	}
	m.batches = append(m.batches, b)
}

// again sends one of the last five batches of a producer a second time.
func (m *machine) again(t *rapid.T) {
	producer := rapid.Int64Range(0, 2).Draw(t, "producer")
	var own []modelBatch
	for _, b := range m.batches {
		if b.producer == producer && b.base >= m.start {
			own = append(own, b)
		}
	}
	if len(own) == 0 {
		t.Skip()
	}
	b := own[len(own)-1-rapid.IntRange(0, min(4, len(own)-1)).Draw(t, "back")]
	o := wire.Plain(wire.CodecNone)
	o.ProducerID, o.ProducerEpoch, o.BaseSequence = producer, 0, b.sequence
	r, err := m.log.Append(batchOf(t, o, values(b.time, b.values...)...), m.epoch, storage.AppendOptions{FromClient: true})
	if err != nil || !r.Duplicate || r.BaseOffset != b.base {
		t.Fatalf("sequence %d of producer %d again: %+v, %v; want offset %d", b.sequence, producer, r, err, b.base)
	}
}

func (m *machine) sync(t *rapid.T) {
	if m.end() == m.start {
		t.Skip()
	}
	if err := m.log.WaitDurable(t.Context(), m.end()-1); err != nil {
		t.Fatalf("wait: %v", err)
	}
	if m.fsync == storage.FsyncBatch {
		m.acked = m.end()
	}
}

func (m *machine) newEpoch(*rapid.T) { m.epoch++ }

func (m *machine) fullDisk(t *rapid.T) {
	m.fs.room.Store(rapid.Int64Range(0, 60).Draw(t, "room"))
	_, err := m.log.Append(batchOf(t, plainOptions(), values(m.clock, "lost")...), m.epoch, storage.AppendOptions{FromClient: true})
	m.fs.room.Store(-1)
	if codeOf(err) != kerr.KafkaStorageError.Code {
		t.Fatalf("append to a full disk: %v", err)
	}
}

func (m *machine) deleteBefore(t *rapid.T) {
	high := m.log.HighWatermark()
	if high <= m.start {
		t.Skip()
	}
	offset := rapid.Int64Range(m.start, high).Draw(t, "offset")
	if err := m.log.DeleteBefore(offset); err != nil {
		t.Fatalf("delete before %d: %v", offset, err)
	}
	m.start = offset
	m.acked = max(m.acked, offset)
	m.forget()
}

// forget drops batches that the log may have dropped and relearns its start.
func (m *machine) forget() {
	if start := m.log.Start(); start > m.start {
		m.start = start
	}
}

func (m *machine) retention(t *rapid.T) {
	m.clock += rapid.Int64Range(0, 20_000).Draw(t, "tick")
	before := m.log.Start()
	m.store.Expire()
	start := m.log.Start()
	if start < before || start > m.log.HighWatermark() {
		t.Fatalf("retention moved the start from %d to %d, high watermark %d", before, start, m.log.HighWatermark())
	}
	for _, b := range m.batches {
		if b.base >= before && b.base < start && m.clock-b.time <= m.config.RetentionMillis && m.log.Size() < m.config.RetentionBytes {
			t.Fatalf("retention took offset %d of time %d at %d", b.base, b.time, m.clock)
		}
	}
	m.forget()
}

func (m *machine) truncate(t *rapid.T) {
	if m.end() == m.start {
		t.Skip()
	}
	offset := rapid.Int64Range(m.start, m.end()).Draw(t, "offset")
	if err := m.log.Truncate(offset); err != nil {
		t.Fatalf("truncate: %v", err)
	}
	m.lose(t)
}

// lose takes from the model what the log does not have any more, which must be
// whole batches.
func (m *machine) lose(t *rapid.T) {
	end := m.log.End()
	m.start = m.log.Start()
	// A log whose end was lost below its start goes on at its start.
	for n := len(m.batches); n > 0 && (m.batches[n-1].base >= end || m.batches[n-1].end() > end && m.start == end); n-- {
		m.batches = m.batches[:n-1]
	}
	if n := len(m.batches); n > 0 && m.batches[n-1].end() > end && m.batches[n-1].end() > m.start {
		t.Fatalf("the log ends at %d, within a batch from %d to %d", end, m.batches[n-1].base, m.batches[n-1].end())
	}
	if n := len(m.batches); n > 0 && m.batches[n-1].end() < end && m.start < end {
		t.Fatalf("the log ends at %d, the batches at %d", end, m.batches[n-1].end())
	}
	m.acked = min(m.acked, end)
	m.next = map[int64]int32{}
	for _, b := range m.batches {
		if b.producer >= 0 {
			m.next[b.producer] = b.sequence + int32(len(b.values))
		}
	}
}

// reopen closes in order and opens again.
func (m *machine) reopen(t *rapid.T) {
	dir, end, start := m.store.Dir(), m.log.End(), m.log.Start()
	if err := m.store.Close(); err != nil {
		t.Fatalf("close: %v", err)
	}
	m.open(dir)
	if m.log.End() != end || m.log.Start() != start {
		t.Fatalf("closed with %d to %d, opened with %d to %d", start, end, m.log.Start(), m.log.End())
	}
	m.acked = end
}

// crash copies the directory as it is, cuts or spoils what was not
// acknowledged, and opens the copy.
func (m *machine) crash(t *rapid.T) {
	m.n++
	dir := filepath.Join(m.root, fmt.Sprint(m.n))
	if err := os.CopyFS(dir, os.DirFS(m.store.Dir())); err != nil {
		t.Fatal(err)
	}
	logs, _ := filepath.Glob(filepath.Join(dir, "orders-0", "*.log"))
	file := logs[rapid.IntRange(0, len(logs)-1).Draw(t, "file")]
	content, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	safe := m.safeBytes(content)
	if safe < len(content) {
		at := rapid.IntRange(safe, len(content)-1).Draw(t, "at")
		switch rapid.SampledFrom([]string{"keep", "cut", "flip", "zeros"}).Draw(t, "harm") {
		case "cut":
			content = content[:at]
		case "flip":
			content[at] ^= 1 << rapid.IntRange(0, 7).Draw(t, "bit")
		case "zeros":
			clear(content[at:])
		}
		if err := os.WriteFile(file, content, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	for _, pattern := range []string{"*.index", "*.timeindex", "*.snapshot"} {
		if found, _ := filepath.Glob(filepath.Join(dir, "orders-0", pattern)); len(found) > 0 && rapid.Bool().Draw(t, "lose "+pattern) {
			if err := os.Remove(found[rapid.IntRange(0, len(found)-1).Draw(t, "which")]); err != nil {
				t.Fatal(err)
			}
		}
	}
	old := m.store
	m.open(dir)
	_ = old.Close()
	if m.log.End() < m.acked {
		t.Fatalf("acknowledged to %d, but after the crash the log ends at %d", m.acked, m.log.End())
	}
	m.lose(t)
	m.acked = m.log.End() // recovery synced it
}

// safeBytes is how much of a segment file was acknowledged.
func (m *machine) safeBytes(content []byte) int {
	pos := 0
	for rest := content; len(rest) > 0; {
		b, after, err := wire.NextBatch(rest)
		if err != nil || b.LastOffset() >= m.acked {
			break
		}
		pos += len(b)
		rest = after
	}
	return pos
}

// check compares all that can be read with the model.
func (m *machine) check(t *rapid.T) {
	if m.log.End() != m.end() || m.log.Start() != m.start {
		t.Fatalf("the log has %d to %d, the model %d to %d", m.log.Start(), m.log.End(), m.start, m.end())
	}
	if high := m.log.HighWatermark(); high > m.log.End() || high < m.acked {
		t.Fatalf("high watermark %d, end %d, acknowledged %d", high, m.log.End(), m.acked)
	}
	var want []string
	for _, b := range m.batches {
		for i, v := range b.values {
			if b.base+int64(i) >= m.start {
				want = append(want, v)
			}
		}
	}
	got, err := tryReadAll(m.log, m.start)
	if err != nil {
		t.Fatalf("read: %v", err)
	}
	if !cmp.Equal(got, want) {
		t.Fatalf("read %q, want %q", got, want)
	}
	if len(m.batches) > 0 {
		b := m.batches[rapid.IntRange(0, len(m.batches)-1).Draw(t, "batch")]
		if b.base >= m.start && m.log.EpochAt(b.base) != b.epoch {
			t.Fatalf("epoch at %d is %d, want %d", b.base, m.log.EpochAt(b.base), b.epoch)
		}
		first := int64(-1)
		for _, other := range m.batches {
			if other.end() > m.start && other.time >= b.time && other.end() <= m.log.HighWatermark() {
				first = max(other.base, m.start)
				break
			}
		}
		if offset, _, found, err := m.log.OffsetForTime(b.time); err != nil || found != (first >= 0) || found && offset != first {
			t.Fatalf("time %d: offset %d, %v, %v; want %d", b.time, offset, found, err, first)
		}
	}
}

// TestAgainstModel plays random histories.
func TestAgainstModel(t *testing.T) {
	for name, fsync := range map[string]storage.Fsync{"batch": storage.FsyncBatch, "never": storage.FsyncNever} {
		t.Run(name, func(t *testing.T) {
			root := quickDir(t)
			runs := 0
			rapid.Check(t, func(rt *rapid.T) {
				runs++
				m := &machine{t: rt, root: filepath.Join(root, fmt.Sprint(runs)), fs: newFaultFS(), clock: now, fsync: fsync, next: map[int64]int32{}, config: storage.DefaultLogConfig()}
				m.fs.lazy = true
				m.config.SegmentBytes = rapid.IntRange(200, 1500).Draw(rt, "segment bytes")
				m.config.IndexIntervalBytes = rapid.IntRange(0, 300).Draw(rt, "index interval")
				m.config.RetentionMillis = 20_000
				m.config.RetentionBytes = 1 << 30
				m.open(filepath.Join(m.root, "0"))
				defer func() {
					_ = m.store.Close()
					_ = os.RemoveAll(m.root)
				}()
				rt.Repeat(map[string]func(*rapid.T){
					"append": m.append, "append2": m.append, "append3": m.append, "again": m.again, "sync": m.sync, "new epoch": m.newEpoch,
					"full disk": m.fullDisk, "delete before": m.deleteBefore, "retention": m.retention, "truncate": m.truncate,
					"reopen": m.reopen, "crash": m.crash, "": m.check,
				})
			})
		})
	}
}
