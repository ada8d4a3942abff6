package storage

import (
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"kmirror/internal/wire"
)

// What a crash can leave, and the way out of each:
//
//  1. Bytes behind the last whole batch of the active segment (a torn write, or
//     pages that never reached the disk): cut at the first batch that is not
//     whole, has a wrong checksum, or does not follow the one before.
//  2. Such a batch in an older segment that was sealed but not synced: cut
//     there, and every later segment goes, since offsets have no holes.
//  3. Index files that are missing, short or wrong: rebuilt from the batches.
//  4. A producer snapshot that is missing or wrong: an older one is taken, or
//     none, and the batches from there on are read again.
//  5. A transaction index that is missing, short or of another time: made anew
//     from the batches, together with the producers. Those below the recovery
//     point were durable before the segment after them was made; one that is
//     wrong nevertheless is made anew when somebody reads it.
//  6. A leader epoch that began but wrote nothing: forgotten.
//  7. Files set aside for deletion, and half-written temporary ones: removed.
//
// Segments wholly below the recovery point are trusted; the rest is read.

// loadFacts are what the directory's checkpoints say about a log.
type loadFacts struct {
	clean bool  // the last life ended in order
	point int64 // recovery point
	start int64 // log start
}

// partitionFiles are what stands in a partition's directory.
type partitionFiles struct {
	segments  []*segment
	snapshots []int64        // ascending
	aborts    map[int64]bool // base offsets of the segments with a transaction index
}

func (s *Store) loadLog(name Partition, dir string, facts loadFacts) (*Log, error) {
	files, err := s.listPartition(dir)
	if err != nil {
		return nil, err
	}
	l := s.newLog(name, dir)
	if err := l.loadID(); err != nil {
		return nil, err
	}
	es, epochsKnown := l.loadEpochs()
	if len(files.segments) == 0 {
		seg, err := s.createSegment(dir, facts.start)
		if err != nil {
			return nil, err
		}
		files.segments = []*segment{seg}
	}
	r := recovery{log: l, segments: files.segments, epochs: es, epochsKnown: epochsKnown, end: files.segments[0].base}
	if err := r.run(facts); err != nil {
		return nil, err
	}
	if facts.start > r.end { // the log was cut below its start
		l.logger().Warn("the log ends below its start and begins anew", slog.Int64("end", r.end), slog.Int64("start", facts.start))
		for _, seg := range r.segments {
			if err := removeSegmentFiles(s.o.FS, seg); err != nil {
				return nil, err
			}
		}
		seg, err := s.createSegment(dir, facts.start)
		if err != nil {
			return nil, err
		}
		r.segments, r.end, r.epochs, r.trusted = []*segment{seg}, facts.start, nil, facts.start
	}
	l.publish(r.segments)
	l.start.Store(max(facts.start, r.segments[0].base))
	l.end.set(r.end, l.active.base, l.active.size.Load())
	l.high.set(r.end, l.active.base, l.active.size.Load())
	l.synced.Store(r.end)
	kept := r.epochs.before(r.end).from(l.start.Load())
	l.epochs.Store(&kept)
	if !slices.Equal(kept, es) {
		if err := l.saveEpochs(kept); err != nil {
			return nil, err
		}
	}
	if err := l.loadProducers(files.snapshots, r.trusted); err != nil {
		return nil, err
	}
	return l, nil
}

func (s *Store) listPartition(dir string) (files partitionFiles, err error) {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return files, err
	}
	files.aborts = make(map[int64]bool)
	for _, entry := range entries {
		name := entry.Name()
		if suffix := filepath.Ext(name); suffix == deletedSuffix || suffix == ".tmp" || suffix == ".cleaned" {
			if err := s.o.FS.Remove(filepath.Join(dir, name)); err != nil {
				return files, err
			}
			continue
		}
		base, suffix, ok := strings.Cut(name, ".")
		offset, err := strconv.ParseInt(base, 10, 64)
		if !ok || len(base) != 20 || err != nil || offset < 0 {
			continue // a checkpoint, or nothing of ours
		}
		switch "." + suffix {
		case txnSuffix:
			files.aborts[offset] = true
		case snapshotSuffix:
			files.snapshots = append(files.snapshots, offset)
		case logSuffix:
			info, err := entry.Info()
			if err != nil {
				return files, err
			}
			seg := newSegment(s, dir, offset)
			seg.size.Store(info.Size())
			seg.created = info.ModTime().UnixMilli()
			seg.sealed.Store(true)
			files.segments = append(files.segments, seg)
		}
	}
	for _, seg := range files.segments {
		seg.aborts.Store(files.aborts[seg.base])
	}
	// ReadDir sorts by name, and 20 digits sort as numbers.
	return files, nil
}

// loadID reads the topic id. Without a good one it stays zero, and the next
// Create of the partition gives it one.
func (l *Log) loadID() error {
	content, err := os.ReadFile(filepath.Join(l.dir, partitionFile))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if err == nil {
		var id [16]byte
		if id, err = decodePartition(content); err == nil {
			l.id.Store(&id)
			return nil
		}
	}
	l.logger().Warn("the topic id is unknown", slog.String("file", filepath.Join(l.dir, partitionFile)), slog.String("error", err.Error()))
	return nil
}

// loadEpochs reads the leader epochs; known is false when they must be taken
// from the batches.
func (l *Log) loadEpochs() (es epochs, known bool) {
	content, err := os.ReadFile(filepath.Join(l.dir, epochsFile))
	if err == nil {
		es, err = decodeEpochs(content)
	}
	if err != nil {
		if !errors.Is(err, fs.ErrNotExist) {
			l.logger().Warn("rebuilding the leader epochs", slog.String("error", err.Error()))
		}
		return nil, false
	}
	return es, true
}

// recovery finds out where a log ends.
type recovery struct {
	log         *Log
	segments    []*segment
	epochs      epochs
	epochsKnown bool
	end         int64 // offset after the last good batch
	trusted     int64 // what stands beside the batches counts for segments below
}

func (r *recovery) run(facts loadFacts) error {
	r.trusted = trustAll
	last := len(r.segments) - 1
	first := last // the first that is not trusted
	if facts.clean {
		ok, err := r.trustActive(r.segments[last])
		if ok || err != nil {
			return err
		}
		r.log.logger().Warn("the log was closed in order, but its end is damaged", slog.Any("segment", r.segments[last].path(logSuffix)))
	} else {
		for first > 0 && r.segments[first].base > facts.point {
			first--
		}
	}
	r.trusted = r.segments[first].base
	for i := first; i <= last; i++ {
		seg := r.segments[i]
		if i > first && seg.base != r.end {
			return r.removeFrom(i, fmt.Sprintf("segment %d does not follow the end %d", seg.base, r.end))
		}
		whole, err := r.verifySegment(seg, i == last)
		if err != nil {
			return err
		}
		if !whole && i < last {
			return r.removeFrom(i+1, "the segment before them is damaged")
		}
	}
	return nil
}

// trustActive takes the last segment of a log that was closed in order as its
// index says, and looks at its last batches only. It says no when anything
// there is not as it was left.
func (r *recovery) trustActive(seg *segment) (ok bool, err error) {
	seg.sealed.Store(false)
	h, err := seg.acquire()
	if err != nil {
		return false, err
	}
	defer h.release()
	size := seg.size.Load()
	var aborted []abortedTransaction
	if seg.aborts.Load() {
		content, err := os.ReadFile(seg.path(txnSuffix))
		if err == nil {
			aborted, err = decodeAborted(content, seg.base)
		}
		if err != nil {
			return false, nil // the caller verifies instead
		}
	}
	seg.aborted.Store(&abortedList{entries: aborted})
	if size == 0 {
		seg.index.Store(newSparseIndex(nil))
		seg.timesRead = true
		r.end = seg.base
		return true, nil
	}
	var entries []indexEntry
	var times []timeEntry
	content, err := os.ReadFile(seg.path(indexSuffix))
	if err == nil {
		entries, err = decodeIndex(content, size)
	}
	if err == nil {
		content, err = os.ReadFile(seg.path(timesSuffix))
	}
	if err == nil {
		times, err = decodeTimes(content)
	}
	if err != nil {
		return false, nil // the caller verifies instead
	}
	w := &walker{buf: make([]byte, walkBytes)}
	w.reset(h.file, size)
	pos := int64(0)
	if n := len(entries); n > 0 {
		pos = int64(entries[n-1].pos)
	}
	r.end = seg.base
	largest := int64(-1)
	err = w.eachHeader(pos, func(at int64, header wire.Batch) error {
		if n := len(entries); n > 0 && at == pos && header.LastOffset() != seg.base+int64(entries[n-1].rel) ||
			at == 0 && header.BaseOffset() != seg.base ||
			at > pos && header.BaseOffset() != r.end {
			return errFound
		}
		r.end = header.LastOffset() + 1
		largest = max(largest, header.MaxTimestamp())
		return nil
	})
	n := len(times)
	if err != nil || n == 0 && largest >= 0 || n > 0 && (largest > times[n-1].timestamp || seg.base+int64(times[n-1].rel) >= r.end) {
		return false, nil // the caller verifies instead
	}
	if header, err := w.header(0); err == nil {
		seg.firstTime = header.MaxTimestamp()
	}
	seg.index.Store(newSparseIndex(entries))
	seg.times, seg.timesRead = times, true
	if n > 0 {
		seg.maxTime, seg.maxRel = times[n-1].timestamp, times[n-1].rel
	}
	return true, nil
}

// verifySegment reads all of a segment, cuts it at the first bad batch, and
// makes its indexes. whole is false when it cut.
func (r *recovery) verifySegment(seg *segment, active bool) (whole bool, err error) {
	h, err := seg.acquire()
	if err != nil {
		return false, err
	}
	defer h.release()
	size := seg.size.Load()
	r.end = seg.base
	b := indexBuilder{base: seg.base, interval: DefaultLogConfig().IndexIntervalBytes, maxTime: -1}
	good, fault := verify(h.file, size, func(pos int64, header wire.Batch) error {
		if err := r.follows(seg, header); err != nil {
			return err
		}
		if pos == 0 {
			seg.firstTime = header.MaxTimestamp()
		}
		b.add(pos, header)
		r.end = header.LastOffset() + 1
		return nil
	})
	var bad *batchFault
	if fault != nil && !errors.As(fault, &bad) {
		return false, fault
	}
	if good < size {
		r.log.logger().Warn("cutting the log at its first bad batch", slog.String("segment", seg.path(logSuffix)), slog.Int64("position", good), slog.Int64("bytes_cut", size-good), slog.Int64("end", r.end), slog.String("reason", fault.Error()))
		if err := h.file.Truncate(good); err != nil {
			return false, err
		}
	}
	if size > 0 { // what was found may be in the page cache only
		if err := h.file.Datasync(); err != nil {
			return false, err
		}
	}
	seg.size.Store(good)
	seg.times, seg.timesRead, seg.maxTime, seg.maxRel = b.times, true, b.maxTime, b.maxRel
	seg.sinceIndexed = b.since
	if active || good < size {
		seg.sealed.Store(false)
		seg.index.Store(newSparseIndex(b.offsets))
		return good == size, nil
	}
	b.finish()
	seg.times = b.times
	seg.writeIndexes(b.offsets, b.times)
	return true, nil
}

// follows says whether a batch with a right checksum can stand at r.end. The
// checksum does not cover base offset and leader epoch, so they are held
// against what must be: no holes, and the epoch that the checkpoint names.
func (r *recovery) follows(seg *segment, h wire.Batch) error {
	if h.BaseOffset() != r.end {
		return fmt.Errorf("base offset %d, not %d", h.BaseOffset(), r.end)
	}
	if h.LastOffset()-seg.base > 1<<31-1 {
		return fmt.Errorf("offset %d is too far from the segment's base", h.LastOffset())
	}
	if !r.epochsKnown {
		if h.LeaderEpoch() < r.epochs.latest() {
			return fmt.Errorf("leader epoch %d after %d", h.LeaderEpoch(), r.epochs.latest())
		}
		if h.LeaderEpoch() > r.epochs.latest() {
			r.epochs = r.epochs.with(h.LeaderEpoch(), h.BaseOffset())
		}
		return nil
	}
	if want := r.epochs.at(h.BaseOffset()); want != h.LeaderEpoch() && (want >= 0 || len(r.epochs) == 0) {
		return fmt.Errorf("leader epoch %d, not %d", h.LeaderEpoch(), want)
	}
	return nil
}

// removeFrom deletes the segments from i on; the one before becomes active.
func (r *recovery) removeFrom(i int, reason string) error {
	for _, seg := range r.segments[i:] {
		r.log.logger().Warn("removing a segment", slog.String("segment", seg.path(logSuffix)), slog.Int64("bytes", seg.size.Load()), slog.String("reason", reason))
		if err := removeSegmentFiles(r.log.store.o.FS, seg); err != nil {
			return err
		}
	}
	r.segments = r.segments[:i]
	last := r.segments[i-1]
	if last.sealed.Load() { // it is whole; append to it again
		last.sealed.Store(false)
		h, err := last.acquire()
		if err != nil {
			return err
		}
		defer h.release()
		if _, _, err := last.loadOffsets(h.file); err != nil { // and keep it out of the cache
			return err
		}
	}
	return nil
}

// removeSegmentFiles deletes a segment's files at once.
func removeSegmentFiles(fsys FS, seg *segment) error {
	seg.abandon()
	for _, suffix := range segmentSuffixes() {
		if err := fsys.Remove(seg.path(suffix)); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	return nil
}
