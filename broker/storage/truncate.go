package storage

import (
	"os"
	"slices"
	"sort"
	"strconv"
	"strings"

	"kmirror/internal/wire"
)

// Truncate cuts the log so that it ends at offset, or at the start of the batch
// that holds it, and forgets producers and epochs of what is gone. It is for
// records that were never below the high watermark of a cluster; an offset at
// or above End changes nothing.
func (l *Log) Truncate(offset int64) error {
	if offset >= l.End() {
		return nil
	}
	if err := l.cutTo(offset); err != nil {
		return err
	}
	if err := l.store.checkpoint(); err != nil {
		e := storageError(err, "truncate %s at %d: save the recovery point", l.name, offset)
		l.breakDown(e)
		return e
	}
	return nil
}

func (l *Log) cutTo(offset int64) error {
	l.flushMu.Lock()
	defer l.flushMu.Unlock()
	l.mu.Lock()
	defer l.mu.Unlock()
	if e := l.broken.Load(); e != nil {
		return e
	}
	if offset >= l.End() {
		return nil
	}
	if err := l.truncate(max(offset, l.start.Load())); err != nil {
		e := storageError(err, "truncate %s at %d", l.name, offset)
		l.breakDown(e) // nobody knows what remains
		return e
	}
	return nil
}

// truncate is Truncate; flushMu and mu are held.
func (l *Log) truncate(offset int64) error {
	segments := *l.segments.Load()
	keep := len(segments)
	for keep > 1 && segments[keep-1].base >= offset {
		keep--
	}
	last := segments[keep-1]
	h, err := last.acquire()
	if err != nil {
		return err
	}
	defer h.release()
	b := indexBuilder{base: last.base, interval: l.config.Load().IndexIntervalBytes, maxTime: -1}
	w := &walker{buf: make([]byte, walkBytes)}
	w.reset(h.file, last.size.Load())
	end, size := last.base, int64(0)
	if err := w.eachHeader(0, func(pos int64, header wire.Batch) error {
		if end != last.base && header.BaseOffset() < end || header.LastOffset() >= offset || size != pos {
			return nil // behind the cut
		}
		b.add(pos, header)
		end, size = header.LastOffset()+1, pos+int64(header.Size())
		return nil
	}); err != nil {
		return err
	}

	aborted, err := l.abortedOf(last)
	if err != nil {
		return err
	}
	behind := sort.Search(len(aborted), func(i int) bool { return aborted[i].last >= end })

	if start := l.start.Load(); end < start { // the batch before holds the start
		return l.beginAnew(start)
	}

	// Readers see the end move before bytes go.
	l.end.set(end, last.base, size)
	if l.high.offset.Load() >= end {
		l.high.set(end, last.base, size)
	}
	removed := slices.Clone(segments[keep:])
	slices.Reverse(removed) // so that a crash leaves no hole
	last.sealed.Store(false)
	last.pending = false
	last.sinceIndexed = b.since
	last.size.Store(size)
	last.index.Store(newSparseIndex(b.offsets))
	last.aborted.Store(&abortedList{entries: aborted[:behind:behind]})
	last.aborts.Store(behind > 0)
	last.timeMu.Lock()
	last.times, last.timesRead, last.maxTime, last.maxRel = b.times, true, b.maxTime, b.maxRel
	last.timeMu.Unlock()
	l.publish(segments[:keep:keep])
	l.removeSegments(removed)
	if err := h.file.Truncate(size); err != nil {
		return err
	}
	if err := h.file.Datasync(); err != nil {
		return err
	}
	l.synced.Store(min(l.synced.Load(), end))
	return l.forgetFrom(end)
}

// beginAnew empties the log, which goes on at offset; flushMu and mu are held.
func (l *Log) beginAnew(offset int64) error {
	l.removeSegments(*l.segments.Load())
	fresh, err := l.store.createSegment(l.dir, offset)
	if err != nil {
		return err
	}
	l.publish([]*segment{fresh})
	l.end.set(offset, offset, 0)
	l.high.set(offset, offset, 0)
	l.synced.Store(offset)
	return l.forgetFrom(offset)
}

// forgetFrom takes epochs and producers back to what they were at end.
func (l *Log) forgetFrom(end int64) error {
	if es := (*l.epochs.Load()).before(end); len(es) < len(*l.epochs.Load()) {
		if err := l.saveEpochs(es); err != nil {
			return err
		}
	}
	l.wake()
	return l.loadProducers(l.listSnapshots(), trustAll)
}

func (l *Log) listSnapshots() (offsets []int64) {
	entries, err := os.ReadDir(l.dir)
	if err != nil {
		return nil // then the batches themselves are read
	}
	for _, entry := range entries {
		base, found := strings.CutSuffix(entry.Name(), snapshotSuffix)
		if offset, err := strconv.ParseInt(base, 10, 64); found && err == nil {
			offsets = append(offsets, offset)
		}
	}
	return offsets
}
