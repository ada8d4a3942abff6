package storage

import (
	"context"
	"sync"
	"time"
)

// flushers is how many logs are synced at once: the file system joins their
// journal commits.
const flushers = 16

// markDirty puts l on the list for the next round.
func (s *Store) markDirty(l *Log) {
	if l.queued.Load() || !l.queued.CompareAndSwap(false, true) {
		return
	}
	s.dirtyMu.Lock()
	s.dirty = append(s.dirty, l)
	s.dirtyMu.Unlock()
	select {
	case s.kick <- struct{}{}:
	default: // a round is due already
	}
}

// round is closed when the flush round after now is over.
func (s *Store) round() <-chan struct{} {
	s.roundMu.Lock()
	defer s.roundMu.Unlock()
	return s.roundDone
}

func (s *Store) nextRound() {
	s.roundMu.Lock()
	defer s.roundMu.Unlock()
	close(s.roundDone)
	s.roundDone = make(chan struct{})
}

// flushLoop runs rounds for as long as ctx lives, at once when something is
// dirty, or every FsyncInterval; and a last one.
func (s *Store) flushLoop(ctx context.Context) error {
	var tick <-chan time.Time
	kick := s.kick
	if s.o.Fsync == FsyncInterval {
		ticker := time.NewTicker(s.o.FsyncInterval)
		defer ticker.Stop()
		tick, kick = ticker.C, nil
	}
	for {
		select {
		case <-ctx.Done():
			s.flushRound()
			return nil
		case <-kick:
		case <-tick:
		}
		s.flushRound()
	}
}

// flushRound syncs every dirty log and then lets all waiters look again.
func (s *Store) flushRound() {
	s.flushMu.Lock()
	defer s.flushMu.Unlock()
	s.dirtyMu.Lock()
	logs := s.dirty
	s.dirty = s.clean[:0]
	s.dirtyMu.Unlock()
	s.clean = logs

	if len(logs) == 1 {
		logs[0].flush()
	} else {
		s.flushAll(logs)
	}
	clear(logs)
	s.nextRound()
}

func (s *Store) flushAll(logs []*Log) {
	var wait sync.WaitGroup
	slots := make(chan struct{}, flushers)
	for _, l := range logs {
		slots <- struct{}{}
		wait.Go(func() {
			l.flush()
			<-slots
		})
	}
	wait.Wait()
}

// flush forces everything appended so far to disk and, under FsyncBatch, moves
// the high watermark there. A fault makes the log read-only: after a failed
// sync the kernel may have dropped the bytes and call the next one a success.
func (l *Log) flush() {
	l.flushMu.Lock()
	defer l.flushMu.Unlock()
	l.queued.Store(false) // before the look at the end: what comes later asks anew
	if l.broken.Load() != nil {
		return
	}
	l.mu.Lock()
	offset, base, pos := l.end.get()
	if l.store.o.Fsync == FsyncNever {
		offset = base // only sealed segments
	}
	files, dirMoved := l.pending, l.dirMoved
	l.pending, l.dirMoved = l.spare[:0], false
	l.active.pending = false
	l.mu.Unlock()

	var fault error
	for _, h := range files {
		if fault == nil {
			fault = h.file.Datasync()
		}
		h.release()
	}
	if fault == nil && dirMoved {
		fault = l.store.o.FS.SyncDir(l.dir)
	}
	clear(files)
	l.spare = files
	if fault != nil {
		l.breakDown(storageError(fault, "sync %s: acknowledged records end at %d, the %d after it may be lost; check the disk, then restart",
			l.name, l.synced.Load(), offset-l.synced.Load()))
		return
	}
	if offset > l.synced.Load() {
		l.synced.Store(offset)
	}
	if l.store.o.Fsync == FsyncBatch && offset > l.high.offset.Load() {
		if l.unsafe.Load() { // set before offset was taken, if a marker stands below it
			l.mu.Lock()
			l.raise(offset, base, pos)
			l.mu.Unlock()
		} else {
			l.high.set(offset, base, pos)
			l.wake()
		}
	} else if l.store.o.Fsync == FsyncBatch {
		l.high.set(offset, base, pos) // the same offset may stand in a new segment
	}
}
