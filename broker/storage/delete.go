package storage

import (
	"fmt"
	"path/filepath"
)

// Delete takes a partition away at once and removes its files in the
// background. Readers that hold a Slice keep it. Deleting what is not there is
// no error.
func (s *Store) Delete(topic string, partition int32) error {
	l := s.Log(topic, partition)
	if l == nil {
		return nil
	}
	renamed, err := l.remove()
	if err != nil {
		return storageError(err, "delete %s", l.name)
	}
	if renamed == "" {
		return nil // somebody else did
	}
	l.wake()
	s.nextRound()
	s.trash.add(renamed, s.o.Now().Add(l.Config().FileDeleteDelay))
	if err := s.o.FS.SyncDir(s.o.Dir); err != nil {
		return storageError(err, "delete %s", l.name)
	}
	return nil
}

// remove renames the directory, takes the log from its store and makes it
// refuse everything.
func (l *Log) remove() (renamed string, err error) {
	l.flushMu.Lock()
	defer l.flushMu.Unlock()
	l.mu.Lock()
	defer l.mu.Unlock()
	s := l.store
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.logs[l.name] != l {
		return "", nil
	}
	name, unique := l.name.String(), fmt.Sprintf(".%x-delete", NewID())
	renamed = filepath.Join(s.o.Dir, name[:min(len(name), 255-len(unique))]+unique)
	if err := s.o.FS.Rename(l.dir, renamed); err != nil {
		return "", err
	}
	delete(s.logs, l.name)
	s.stale.Store(true)
	gone := storageError(ErrClosed, "%s was deleted", l.name)
	l.broken.Store(gone)
	for _, h := range l.pending {
		h.release()
	}
	l.pending, l.active.pending = nil, false
	for _, seg := range *l.segments.Load() {
		seg.abandon()
	}
	return renamed, nil
}
