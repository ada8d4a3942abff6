package storage

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"slices"
	"sort"
	"sync/atomic"

	"github.com/twmb/franz-go/pkg/kerr"
)

// The transaction index: the aborted transactions whose markers stand in the
// segment, with the last stable offset after each, which says how far a reader
// has to look. There is no file where there was no abort.
//
//	0         2             10             18            26                   34
//	+---------+-------------+--------------+-------------+--------------------+
//	| version | producer id | first offset | last offset | last stable offset |
//	+---------+-------------+--------------+-------------+--------------------+
//	version 0; ascending by last offset, which is the marker's
//
// The active segment's stands in memory and is written, durably, before the next
// one begins and at an orderly end. What a crash takes is read again from the
// batches, together with the producers (see recover.go).
const (
	txnEntrySize = 34
	txnVersion   = 0
)

func encodeAborted(entries []abortedTransaction) []byte {
	out := make([]byte, 0, len(entries)*txnEntrySize)
	for _, t := range entries {
		out = binary.BigEndian.AppendUint16(out, txnVersion)
		out = binary.BigEndian.AppendUint64(out, uint64(t.producer))
		out = binary.BigEndian.AppendUint64(out, uint64(t.first))
		out = binary.BigEndian.AppendUint64(out, uint64(t.last))
		out = binary.BigEndian.AppendUint64(out, uint64(t.stable))
	}
	return out
}

// decodeAborted reads the transaction index of a segment that begins at base.
// Every contradiction is an error, since the index can be rebuilt.
func decodeAborted(content []byte, base int64) ([]abortedTransaction, error) {
	if len(content)%txnEntrySize != 0 {
		return nil, fmt.Errorf("transaction index of %d bytes", len(content))
	}
	entries := make([]abortedTransaction, len(content)/txnEntrySize)
	last := base - 1
	for i := range entries {
		e := content[i*txnEntrySize:]
		if v := binary.BigEndian.Uint16(e); v != txnVersion {
			return nil, fmt.Errorf("transaction index: entry %d of version %d", i, v)
		}
		t := abortedTransaction{
			producer: int64(binary.BigEndian.Uint64(e[2:])),
			first:    int64(binary.BigEndian.Uint64(e[10:])),
			last:     int64(binary.BigEndian.Uint64(e[18:])),
			stable:   int64(binary.BigEndian.Uint64(e[26:])),
		}
		if t.producer < 0 || t.first < 0 || t.first >= t.last || t.last <= last || t.stable < 0 || t.stable > t.last+1 {
			return nil, fmt.Errorf("transaction index: entry %d (producer %d from %d to %d, stable %d) contradicts itself, the one before or the base %d",
				i, t.producer, t.first, t.last, t.stable, base)
		}
		entries[i], last = t, t.last
	}
	return entries, nil
}

// abortedList is a transaction index in memory; never changed once published.
type abortedList struct {
	entries []abortedTransaction
	hot     atomic.Bool
	of      *segment // set when cached
}

func (x *abortedList) weight() int64 { return int64(len(x.entries))*txnEntrySize + 128 }
func (x *abortedList) takeHot() bool { return x.hot.Swap(false) }
func (x *abortedList) dead() bool    { return x.of.aborted.Load() != x }

// drop forgets the index of a sealed segment; the active one's is never cached.
func (x *abortedList) drop() { x.of.aborted.CompareAndSwap(x, nil) }

// noteAborted adds a transaction to the active segment's index; Log.mu is held.
func (s *segment) noteAborted(t abortedTransaction) {
	// Readers of the list before look at the entries up to its length only.
	s.aborted.Store(&abortedList{entries: append(s.aborted.Load().entries, t)})
	s.aborts.Store(true)
}

// saveAborted makes the file of the active segment's index, durably; Log.mu is
// held.
func (s *segment) saveAborted() error {
	entries, fsys := s.aborted.Load().entries, s.store.o.FS
	if len(entries) == 0 {
		if err := fsys.Remove(s.path(txnSuffix)); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
		return nil
	}
	if err := writeFile(fsys, s.path(txnSuffix), encodeAborted(entries), true); err != nil {
		return err
	}
	return fsys.SyncDir(s.dir)
}

// abortedOf returns a segment's index, read or rebuilt when need be.
func (l *Log) abortedOf(s *segment) ([]abortedTransaction, error) {
	if x := s.aborted.Load(); x != nil {
		if s.sealed.Load() && !x.hot.Load() {
			x.hot.Store(true)
		}
		return x.entries, nil
	}
	if !s.aborts.Load() {
		return nil, nil
	}
	entries, err := l.readAborted(s)
	if s.gone.Load() {
		return nil, errGone // and the file with it
	}
	if err != nil {
		return nil, err
	}
	x := &abortedList{entries: entries, of: s}
	if s.aborted.CompareAndSwap(nil, x) {
		l.store.indexes.add(x)
	}
	return entries, nil
}

func (l *Log) readAborted(s *segment) ([]abortedTransaction, error) {
	content, err := os.ReadFile(s.path(txnSuffix))
	var entries []abortedTransaction
	if err == nil {
		entries, err = decodeAborted(content, s.base)
	}
	if err == nil || s.gone.Load() {
		return entries, nil
	}
	entries, buildErr := l.rebuildAborted(s)
	if buildErr != nil {
		return nil, buildErr
	}
	l.logger().Warn("rebuilt a transaction index", slog.String("segment", s.path(logSuffix)), slog.String("reason", err.Error()))
	if err := writeFile(l.store.o.FS, s.path(txnSuffix), encodeAborted(entries), true); err != nil {
		l.logger().Warn("cannot save a transaction index; it will be rebuilt again", slog.String("error", err.Error()))
	}
	return entries, nil
}

// rebuildAborted makes the index of a sealed segment anew, from the producers as
// they stood where it begins.
func (l *Log) rebuildAborted(s *segment) (entries []abortedTransaction, err error) {
	segments := *l.segments.Load()
	i := slices.Index(segments, s)
	if i < 0 {
		return nil, errGone
	}
	ps, from := newProducers(), segments[0].base
	for _, before := range slices.Backward(segments[:i+1]) {
		content, err := os.ReadFile(l.snapshotPath(before.base))
		if err != nil {
			continue
		}
		if known, err := decodeSnapshot(content, 0); err == nil {
			ps, from = known, before.base
			break
		}
	}
	err = l.replay(segments[:i+1], from, ps, 0, func(t abortedTransaction) {
		if t.last >= s.base {
			entries = append(entries, t)
		}
	})
	return entries, err
}

// AbortedTransactions returns the aborted transactions with records in the
// offsets from (inclusive) to to (exclusive), ascending by their markers. All of
// them are there when to is not above a last stable offset that was read before.
// It is an *Error with OFFSET_OUT_OF_RANGE when retention has overtaken from.
func (l *Log) AbortedTransactions(from, to int64) (found []AbortedTransaction, err error) {
	for {
		found, err = l.abortedBetween(from, to)
		if start := l.start.Load(); from < start {
			return nil, refuse(kerr.OffsetOutOfRange, "%s begins at %d, not %d", l.name, start, from)
		}
		switch {
		case err == nil:
			return found, nil
		case errors.Is(err, errGone) && l.broken.Load() == nil:
			continue // the log start has moved by now
		}
		if e := l.broken.Load(); e != nil {
			return nil, e
		}
		return nil, storageError(err, "look for aborted transactions in %s", l.name)
	}
}

func (l *Log) abortedBetween(from, to int64) (found []AbortedTransaction, err error) {
	segments := *l.segments.Load()
	first := max(sort.Search(len(segments), func(i int) bool { return segments[i].base > from })-1, 0)
	for _, s := range segments[first:] {
		entries, err := l.abortedOf(s)
		if err != nil {
			return nil, err
		}
		skip := sort.Search(len(entries), func(i int) bool { return entries[i].last >= from })
		for _, t := range entries[skip:] {
			if t.first < to {
				found = append(found, AbortedTransaction{ProducerID: t.producer, FirstOffset: t.first})
			}
			if t.stable >= to {
				return found, nil // all that began before is decided by here
			}
		}
	}
	return found, nil
}

// ReadCommitted is Read for isolation level read_committed: up to the last
// stable offset, together with the aborted transactions whose records may be
// among what it returns.
func (l *Log) ReadCommitted(offset int64, maxBytes int, minOne bool) (Slice, []AbortedTransaction, error) {
	stable := l.LastStableOffset()
	slice, err := l.Read(offset, maxBytes, minOne, stable)
	if err != nil || slice.Len == 0 {
		return slice, nil, err
	}
	aborted, err := l.AbortedTransactions(offset, slice.bound(stable))
	if err != nil {
		slice.Release()
		return Slice{}, nil, err
	}
	return slice, aborted, nil
}

// bound is an offset that none of the Slice's records reaches; limit is one,
// too.
func (s *Slice) bound(limit int64) int64 {
	of := s.handle.of
	x := of.index.Load()
	if x == nil {
		return limit
	}
	entries := x.all()
	i := sort.Search(len(entries), func(i int) bool { return int64(entries[i].pos) >= s.Pos+int64(s.Len) })
	if i == len(entries) {
		return limit
	}
	return min(limit, of.base+int64(entries[i].rel))
}
