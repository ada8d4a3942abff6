package storage

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"math"
	"os"
	"slices"

	"kmirror/internal/wire"
)

// tailBytes is how much of the log's end is read for the producers' recent
// batches, of which a snapshot has only the last.
const tailBytes = 8 << 20

// trustAll is the offset up to which what stands beside the batches counts,
// where nothing was damaged.
const trustAll = math.MaxInt64

// loadProducers finds the newest good snapshot at or below the log's end, and
// reads from the batches what it does not hold. Transaction indexes and snapshots
// from the offset trusted on are made anew. The log is not published yet, or its
// mu is held.
func (l *Log) loadProducers(snapshots []int64, trusted int64) error {
	now := l.store.o.Now().UnixMilli()
	before := l.producers
	ps, from, err := l.loadSnapshot(snapshots, trusted, now)
	if err != nil {
		return err
	}
	ps.guards = before.guards // none of those given out is given again
	for _, d := range before.decided {
		if d.marker < from {
			ps.decided = append(ps.decided, d)
		}
	}
	segments := *l.segments.Load()
	for i, s := range segments {
		if i+1 < len(segments) && segments[i+1].base <= from {
			continue
		}
		if s.base > trusted {
			l.saveSnapshot(s.base, ps)
		}
		var aborted []abortedTransaction
		if err := l.replay(segments[:i+1], max(from, s.base), ps, now, func(t abortedTransaction) { aborted = append(aborted, t) }); err != nil {
			return err
		}
		if s.base < trusted {
			continue
		}
		s.aborted.Store(&abortedList{entries: aborted})
		s.aborts.Store(len(aborted) > 0)
		if s != l.active {
			if err := s.saveAborted(); err != nil {
				return err
			}
			s.aborted.Store(nil) // to be read when it is needed
		}
	}
	high := l.high.offset.Load()
	ps.settle(high)
	l.producers = ps
	l.unstable.Store(ps.firstUnstable())
	l.unsafe.Store(len(ps.decided) > 0)
	return nil
}

// loadSnapshot returns the producers at the offset from, which is not above
// trusted, and removes the snapshots that are of no use any more.
func (l *Log) loadSnapshot(snapshots []int64, trusted, now int64) (ps *producers, from int64, err error) {
	end, segments := l.End(), *l.segments.Load()
	ps, from = newProducers(), segments[0].base
	found := false
	for _, offset := range slices.Backward(snapshots) {
		path := l.snapshotPath(offset)
		ofSegment := slices.ContainsFunc(segments, func(s *segment) bool { return s.base == offset })
		// One below the first segment does not know what was deleted since.
		useful := offset <= min(end, trusted) && offset >= segments[0].base && (ofSegment || !found)
		if !useful {
			if err := l.store.o.FS.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
				return nil, 0, err
			}
			continue
		}
		if found {
			continue
		}
		content, err := os.ReadFile(path)
		var known *producers
		if err == nil {
			known, err = decodeSnapshot(content, now)
		}
		if err != nil {
			l.logger().Warn("ignoring a producer snapshot", slog.String("file", path), slog.String("error", err.Error()))
			_ = l.store.o.FS.Remove(path) // or it is found bad again
			continue
		}
		ps, from, found = known, offset, true
	}
	if found {
		err = l.recallRecent(ps, from)
	}
	return ps, from, err
}

// replay makes ps remember the batches of segments from offset on, and hands
// over every transaction that they aborted.
func (l *Log) replay(segments []*segment, offset int64, ps *producers, now int64, aborted func(abortedTransaction)) error {
	return eachBatch(segments, offset, func(file io.ReaderAt, pos int64, h wire.Batch) error {
		if h.ProducerID() < 0 {
			return nil
		}
		if !h.IsControl() {
			ps.add(h, now)
			return nil
		}
		if h.Size() > maxControlBatch {
			return fmt.Errorf("control batch of %d bytes at position %d", h.Size(), pos)
		}
		b, err := readBatch(file, pos, h.Size())
		if err != nil {
			return err
		}
		m, ends, err := decodeMarker(b)
		if err != nil {
			l.logger().Warn("ignoring a control batch", slog.String("error", err.Error()))
		}
		if !ends {
			return nil
		}
		if t, ended := ps.end(m, b.BaseOffset(), b.MaxTimestamp(), now); ended && !m.Commit {
			aborted(t)
		}
		return nil
	})
}

// recallRecent completes the producers, whose last batch a snapshot at offset
// named, by the batches before it, as far as they stand in the log's tail.
func (l *Log) recallRecent(ps *producers, offset int64) error {
	if len(ps.byID) == 0 {
		return nil
	}
	seen := newProducers()
	err := eachBatch(*l.segments.Load(), l.tailStart(), func(_ io.ReaderAt, _ int64, h wire.Batch) error {
		switch {
		case h.BaseOffset() >= offset || h.ProducerID() < 0:
		case h.IsControl():
			seen.of(h.ProducerID(), h.ProducerEpoch())
		default:
			seen.add(h, 0)
		}
		return nil
	})
	if err != nil {
		return err
	}
	for id, p := range ps.byID {
		tail := seen.byID[id]
		if tail != nil && p.n > 0 && tail.n > 0 && tail.epoch == p.epoch && tail.recent[tail.n-1].same(p.recent[p.n-1]) {
			p.n, p.recent = tail.n, tail.recent
		}
	}
	return nil
}

// tailStart is the offset of a batch about tailBytes before the end.
func (l *Log) tailStart() int64 {
	segments := *l.segments.Load()
	i, room := len(segments)-1, int64(tailBytes)
	for i > 0 && room >= segments[i].size.Load()+segments[i-1].size.Load() {
		room -= segments[i].size.Load()
		i--
	}
	seg := segments[i]
	size, x := seg.size.Load(), seg.index.Load()
	if size <= room || x == nil {
		return seg.base
	}
	// Within the last segment, which alone is larger than that.
	for _, e := range x.all() {
		if int64(e.pos) >= size-room {
			return seg.base + int64(e.rel)
		}
	}
	return seg.base
}

// eachBatch hands the headers of all batches from the one that holds offset on
// to fn, with where they stand.
func eachBatch(segments []*segment, offset int64, fn func(file io.ReaderAt, pos int64, h wire.Batch) error) error {
	for i, seg := range segments {
		if i+1 < len(segments) && segments[i+1].base <= offset || seg.size.Load() == 0 {
			continue
		}
		h, err := seg.acquire()
		if err != nil {
			return err
		}
		w := &walker{buf: make([]byte, walkBytes)}
		pos, _, ok, err := seg.find(w, h.file, offset, seg.size.Load())
		if err == nil && ok {
			err = w.eachHeader(pos, func(pos int64, header wire.Batch) error { return fn(h.file, pos, header) })
		}
		h.release()
		if err != nil {
			return fmt.Errorf("segment %s: %w", seg.path(logSuffix), err)
		}
	}
	return nil
}
