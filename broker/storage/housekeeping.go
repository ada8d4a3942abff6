package storage

import (
	"context"
	"log/slog"
	"os"
	"path/filepath"
	"sync"
	"time"
)

// expiryInterval is how often silent producers are forgotten, Kafka's
// producer.id.expiration.check.interval.ms.
const expiryInterval = 10 * time.Minute

// checkpointDelay is how long a roll waits for others before the checkpoints are
// written.
const checkpointDelay = time.Second

// keepHouse checkpoints, expires and deletes until ctx ends. Its faults are
// logged: they cost time after a crash, or disk, never records.
func (s *Store) keepHouse(ctx context.Context) error {
	checkpoints := time.NewTicker(s.o.CheckpointInterval)
	defer checkpoints.Stop()
	retention := time.NewTicker(s.o.RetentionInterval)
	defer retention.Stop()
	expiry := time.NewTicker(expiryInterval)
	defer expiry.Stop()
	trash := time.NewTicker(10 * time.Second)
	defer trash.Stop()
	var soon <-chan time.Time // set while a checkpoint was asked for
	s.trash.empty(s.o, false) // what an earlier life left
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-checkpoints.C:
			s.logged("write checkpoints", s.checkpoint())
		case <-s.checkpointDue:
			if soon == nil {
				soon = time.After(checkpointDelay) // many logs roll at about the same time
			}
		case <-soon:
			soon = nil
			s.logged("write checkpoints", s.checkpoint())
		case <-retention.C:
			s.Expire()
		case <-expiry.C:
			s.expireProducers()
		case <-trash.C:
			s.trash.empty(s.o, false)
		}
	}
}

func (s *Store) logged(what string, err error) {
	if err != nil {
		s.o.Logger.Warn("housekeeping fails", slog.String("task", what), slog.String("error", err.Error()))
	}
}

// wantCheckpoint asks for a checkpoint soon.
func (s *Store) wantCheckpoint() {
	select {
	case s.checkpointDue <- struct{}{}:
	default:
	}
}

// checkpoint writes how far each log is on disk and where it starts. A recovery
// point that is too low costs time after a crash; one that is too high would
// hide damage, so that it is made durable before a log that was cut goes on.
func (s *Store) checkpoint() (err error) {
	s.pointMu.Lock()
	defer s.pointMu.Unlock()
	if s.stale.Swap(false) { // before the look at the logs
		s.startsMoved.Add(1)
		defer func() {
			if err != nil {
				s.stale.Store(true)
			}
		}()
	}
	points := make(map[Partition]int64)
	for _, l := range s.Logs() {
		points[l.name] = l.synced.Load()
	}
	if err := writeFile(s.o.FS, filepath.Join(s.o.Dir, recoveryPointFile), encodeOffsets(points), true); err != nil {
		return err
	}
	return s.saveStarts()
}

// saveStarts makes all log starts durable that were moved before the call. Many
// callers share one write.
func (s *Store) saveStarts() error {
	wanted := s.startsMoved.Load()
	s.startMu.Lock()
	defer s.startMu.Unlock()
	if s.startsSaved >= wanted {
		return nil
	}
	moved := s.startsMoved.Load()
	starts := make(map[Partition]int64)
	for _, l := range s.Logs() {
		if start := l.start.Load(); start > (*l.segments.Load())[0].base {
			starts[l.name] = start
		}
	}
	if err := writeFile(s.o.FS, filepath.Join(s.o.Dir, logStartFile), encodeOffsets(starts), true); err != nil {
		return err
	}
	if err := s.o.FS.SyncDir(s.o.Dir); err != nil {
		return err
	}
	s.startsSaved = moved
	return nil
}

func (s *Store) expireProducers() {
	before := s.o.Now().Add(-s.o.ProducerExpiry).UnixMilli()
	for _, l := range s.Logs() {
		l.mu.Lock()
		l.producers.expire(before)
		l.mu.Unlock()
	}
}

// trash holds files and directories until their time has come.
type trash struct {
	mu    sync.Mutex // guards items
	items []trashItem
}

type trashItem struct {
	path string
	due  time.Time
}

func (t *trash) add(path string, due time.Time) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.items = append(t.items, trashItem{path, due})
}

// empty removes what is due, or everything. What cannot be removed is tried
// again at the next start.
func (t *trash) empty(o Options, all bool) {
	now := o.Now()
	t.mu.Lock()
	var due []trashItem
	rest := t.items[:0]
	for _, item := range t.items {
		if all || !item.due.After(now) {
			due = append(due, item)
		} else {
			rest = append(rest, item)
		}
	}
	t.items = rest
	t.mu.Unlock()
	for _, item := range due {
		if err := os.RemoveAll(item.path); err != nil {
			o.Logger.Warn("cannot remove a deleted file", slog.String("path", item.path), slog.String("error", err.Error()))
		}
	}
}
