package storage

import (
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"sync/atomic"

	"kmirror/internal/wire"
)

// Suffixes of the files in a partition's directory.
const (
	logSuffix      = ".log"
	indexSuffix    = ".index"
	timesSuffix    = ".timeindex"
	snapshotSuffix = ".snapshot"
	txnSuffix      = ".txnindex"
	deletedSuffix  = ".deleted"
)

// segmentSuffixes are the files that go with a segment.
func segmentSuffixes() []string {
	return []string{logSuffix, indexSuffix, timesSuffix, txnSuffix, snapshotSuffix}
}

// segment is one log file and its indexes. The last segment of a log is active:
// its log appends to it, its indexes stay in memory. The others are sealed and
// do not change; their files and indexes are opened when somebody needs them.
type segment struct {
	store *Store
	dir   string
	base  int64 // the file's name; the first offset that may stand in it
	size  atomic.Int64

	// The active segment's, guarded by Log.mu.
	sinceIndexed int   // bytes since the last index entry
	created      int64 // Unix milliseconds
	firstTime    int64 // largest timestamp of the first batch, -1 before it
	pending      bool  // its handle is in Log.pending

	handle atomic.Pointer[handle]
	index  atomic.Pointer[sparseIndex]

	aborted atomic.Pointer[abortedList] // never nil while active
	aborts  atomic.Bool                 // a transaction index is not empty

	gone   atomic.Bool // files deleted
	sealed atomic.Bool

	mu sync.Mutex // held while file or indexes are opened

	timeMu    sync.Mutex // guards the fields below
	times     []timeEntry
	timesRead bool
	maxTime   int64 // largest timestamp, -1 for none
	maxRel    uint32
}

func newSegment(s *Store, dir string, base int64) *segment {
	return &segment{store: s, dir: dir, base: base, maxTime: -1, firstTime: -1}
}

func (s *segment) path(suffix string) string {
	return filepath.Join(s.dir, fmt.Sprintf("%020d%s", s.base, suffix))
}

// acquire returns the open file, to be released by the caller; errGone when the
// segment was deleted.
func (s *segment) acquire() (*handle, error) {
	if h := s.handle.Load(); h != nil && h.retain() {
		return h, nil
	}
	h, fresh, err := s.open(os.O_RDWR)
	if fresh {
		s.store.files.add(h)
	}
	return h, err
}

func (s *segment) open(flag int) (h *handle, fresh bool, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.gone.Load() {
		return nil, false, errGone
	}
	if h := s.handle.Load(); h != nil && h.retain() {
		return h, false, nil
	}
	f, err := s.store.o.FS.OpenFile(s.path(logSuffix), flag, 0o644)
	if err != nil {
		return nil, false, err
	}
	h = &handle{file: f, of: s}
	h.refs.Store(2)
	s.handle.Store(h)
	return h, true, nil
}

// abandon makes the segment unreachable; files are the caller's matter.
func (s *segment) abandon() {
	s.mu.Lock()
	s.gone.Store(true)
	h := s.handle.Swap(nil)
	s.mu.Unlock()
	s.index.Store(nil)
	s.aborted.Store(nil)
	if h != nil {
		h.release()
	}
}

// offsets returns the offset index, read or rebuilt from file when need be.
func (s *segment) offsets(file io.ReaderAt) (*sparseIndex, error) {
	if x := s.index.Load(); x != nil {
		if s.sealed.Load() && !x.hot.Load() {
			x.hot.Store(true)
		}
		return x, nil
	}
	x, fresh, err := s.loadOffsets(file)
	if fresh {
		s.store.indexes.add(x)
	}
	return x, err
}

func (s *segment) loadOffsets(file io.ReaderAt) (x *sparseIndex, fresh bool, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if x := s.index.Load(); x != nil {
		return x, false, nil
	}
	size := s.size.Load()
	content, err := os.ReadFile(s.path(indexSuffix))
	var entries []indexEntry
	if err == nil {
		entries, err = decodeIndex(content, size)
	}
	if err != nil {
		built, buildErr := s.rebuild(file)
		if buildErr != nil {
			return nil, false, buildErr
		}
		s.store.o.Logger.Warn("rebuilt a segment's indexes", slog.String("segment", s.path(logSuffix)), slog.String("reason", err.Error()))
		entries = built
	}
	x = newSparseIndex(entries)
	x.of = s
	s.index.Store(x)
	return x, true, nil
}

// rebuild makes both indexes anew from the batches and writes them.
func (s *segment) rebuild(file io.ReaderAt) ([]indexEntry, error) {
	b := indexBuilder{base: s.base, interval: DefaultLogConfig().IndexIntervalBytes, maxTime: -1}
	w := s.store.walkers.Get().(*walker)
	defer s.store.walkers.Put(w)
	w.reset(file, s.size.Load())
	err := w.eachHeader(0, func(pos int64, h wire.Batch) error {
		b.add(pos, h)
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("index %s: %w", s.path(logSuffix), err)
	}
	b.finish()
	s.timeMu.Lock()
	s.times, s.timesRead, s.maxTime, s.maxRel = b.times, true, b.maxTime, b.maxRel
	s.timeMu.Unlock()
	s.writeIndexes(b.offsets, b.times)
	return b.offsets, nil
}

// writeIndexes saves both indexes. They are not needed to be right, only to be
// quick, so that a fault is a warning.
func (s *segment) writeIndexes(offsets []indexEntry, times []timeEntry) {
	fsys := s.store.o.FS
	for suffix, content := range map[string][]byte{indexSuffix: encodeIndex(offsets), timesSuffix: encodeTimes(times)} {
		if err := writeFile(fsys, s.path(suffix), content, false); err != nil {
			s.store.o.Logger.Warn("cannot save an index; it will be rebuilt", slog.String("file", s.path(suffix)), slog.String("error", err.Error()))
		}
	}
}

// indexBuilder computes what Kafka's LogSegment.append would have indexed.
type indexBuilder struct {
	base     int64
	interval int
	offsets  []indexEntry
	times    []timeEntry
	maxTime  int64
	maxRel   uint32
	since    int
}

func (b *indexBuilder) add(pos int64, h wire.Batch) {
	rel := uint32(h.LastOffset() - b.base)
	if t := h.MaxTimestamp(); t > b.maxTime {
		b.maxTime, b.maxRel = t, rel
	}
	if b.since > b.interval {
		b.offsets = append(b.offsets, indexEntry{rel, uint32(pos)})
		b.times = appendTime(b.times, b.maxTime, b.maxRel)
		b.since = 0
	}
	b.since += h.Size()
}

func (b *indexBuilder) finish() { b.times = appendTime(b.times, b.maxTime, b.maxRel) }

// appendTime adds an entry unless it brings nothing new.
func appendTime(times []timeEntry, timestamp int64, rel uint32) []timeEntry {
	if timestamp < 0 || len(times) > 0 && timestamp <= times[len(times)-1].timestamp {
		return times
	}
	return append(times, timeEntry{timestamp, rel})
}

// timeIndex returns the time index and the largest timestamp with the relative
// last offset of its batch. The slice is not changed by anybody afterwards.
func (s *segment) timeIndex() (times []timeEntry, maxTime int64, maxRel uint32, err error) {
	s.timeMu.Lock()
	if s.timesRead {
		defer s.timeMu.Unlock()
		return slices.Clip(s.times), s.maxTime, s.maxRel, nil
	}
	s.timeMu.Unlock()

	content, err := os.ReadFile(s.path(timesSuffix))
	if err == nil {
		times, err = decodeTimes(content)
	}
	if err != nil || len(times) == 0 {
		h, err := s.acquire()
		if err != nil {
			return nil, -1, 0, err
		}
		defer h.release()
		s.mu.Lock()
		defer s.mu.Unlock()
		if _, err := s.rebuild(h.file); err != nil {
			return nil, -1, 0, err
		}
		s.timeMu.Lock()
		defer s.timeMu.Unlock()
		return s.times, s.maxTime, s.maxRel, nil
	}
	last := times[len(times)-1]
	s.timeMu.Lock()
	defer s.timeMu.Unlock()
	s.times, s.timesRead, s.maxTime, s.maxRel = times, true, last.timestamp, last.rel
	return times, last.timestamp, last.rel, nil
}

// find returns where the first batch begins that ends at or after offset, and
// its header (valid until w is used again). ok is false when none does before
// the position bound.
func (s *segment) find(w *walker, file io.ReaderAt, offset, bound int64) (pos int64, h wire.Batch, ok bool, err error) {
	x, err := s.offsets(file)
	if err != nil {
		return 0, nil, false, err
	}
	w.reset(file, bound)
	if e, found := x.lookup(uint32(max(offset-s.base, 0))); found && int64(e.pos) < bound {
		pos = int64(e.pos)
		h, err := w.header(pos)
		if err != nil || h.LastOffset() != s.base+int64(e.rel) {
			if err := s.distrustIndex(file, x); err != nil {
				return 0, nil, false, err
			}
			pos = 0
		}
	}
	for {
		h, err := w.header(pos)
		switch {
		case errors.Is(err, io.EOF):
			return 0, nil, false, nil
		case err != nil:
			return 0, nil, false, fmt.Errorf("segment %s: %w", s.path(logSuffix), err)
		case h.LastOffset() >= offset:
			return pos, h, true, nil
		}
		pos += int64(h.Size())
	}
}

// distrustIndex replaces an index that a sealed segment's batches belie.
func (s *segment) distrustIndex(file io.ReaderAt, x *sparseIndex) error {
	if !s.sealed.Load() {
		return nil // that of the active segment was made here, from what was appended
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.index.Load() != x {
		return nil
	}
	entries, err := s.rebuild(file)
	if err != nil {
		return err
	}
	s.store.o.Logger.Warn("replaced an index that does not fit its segment", slog.String("segment", s.path(logSuffix)))
	fresh := newSparseIndex(entries)
	fresh.of = s
	s.index.Store(fresh)
	return nil
}

// modified is when the file was last written, Unix milliseconds.
func (s *segment) modified() int64 {
	info, err := os.Stat(s.path(logSuffix))
	if err != nil {
		return s.store.o.Now().UnixMilli() // unknown counts as new
	}
	return info.ModTime().UnixMilli()
}
