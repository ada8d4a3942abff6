package storage

import (
	"context"
	"errors"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"

	"golang.org/x/sync/errgroup"
)

// Store is a data directory and the logs in it.
type Store struct {
	o    Options
	meta meta
	lock *os.File

	files     clock // open segment files
	indexes   clock // offset indexes of sealed segments
	walkers   *sync.Pool
	checks    *sync.Pool
	inflation *inflation
	copies    *sync.Pool

	running atomic.Bool // the flusher runs

	mu     sync.RWMutex // guards the fields below
	logs   map[Partition]*Log
	closed bool

	kick    chan struct{} // capacity 1: dirty is not empty
	dirtyMu sync.Mutex    // guards dirty
	dirty   []*Log

	flushMu sync.Mutex // one round at a time; guards clean
	clean   []*Log     // the other buffer of dirty

	roundMu   sync.Mutex // guards roundDone
	roundDone chan struct{}

	checkpointDue chan struct{} // capacity 1
	stale         atomic.Bool   // the checkpoints name partitions that are no more
	pointMu       sync.Mutex    // one write of the recovery points at a time
	startMu       sync.Mutex    // one write of the log starts at a time
	startsMoved   atomic.Int64
	startsSaved   int64 // guarded by startMu: the count of moves that are durable

	trash trash
}

// Open takes the directory for this process, loads all logs and repairs those
// that an unclean end left behind. An empty or missing directory becomes a new
// store. When the directory cannot be used the error is a *DirError.
//
// The logs begin with DefaultLogConfig; set theirs before Run.
func Open(o Options) (*Store, error) {
	o.setDefaults()
	lock, err := lockDir(o.Dir)
	if err != nil {
		return nil, err
	}
	s := &Store{
		o: o, lock: lock,
		files:         clock{limit: int64(o.OpenFiles)},
		indexes:       clock{limit: o.IndexBytes},
		walkers:       newWalkers(),
		checks:        newRecordChecks(),
		inflation:     newInflation(),
		copies:        newCopies(),
		logs:          make(map[Partition]*Log),
		kick:          make(chan struct{}, 1),
		roundDone:     make(chan struct{}),
		checkpointDue: make(chan struct{}, 1),
	}
	s.startsMoved.Store(1) // the file is not there yet, or names what was
	if s.meta, err = openMeta(o); err == nil {
		err = s.load()
	}
	if err != nil {
		_ = lock.Close() // the error says why nothing was opened
		return nil, err
	}
	return s, nil
}

// ClusterID is the id that the directory bears.
func (s *Store) ClusterID() string { return s.meta.clusterID }

// DirectoryID is the random id of the directory itself (directory.id).
func (s *Store) DirectoryID() string { return s.meta.directoryID }

// Dir is the data directory.
func (s *Store) Dir() string { return s.o.Dir }

// Log returns the log of a partition, nil when there is none.
func (s *Store) Log(topic string, partition int32) *Log {
	s.mu.RLock()
	defer s.mu.RUnlock()
	return s.logs[Partition{topic, partition}]
}

// Logs are all logs, by topic and partition.
func (s *Store) Logs() []*Log {
	s.mu.RLock()
	logs := make([]*Log, 0, len(s.logs))
	for _, l := range s.logs {
		logs = append(logs, l)
	}
	s.mu.RUnlock()
	slices.SortFunc(logs, func(a, b *Log) int {
		if c := strings.Compare(a.name.Topic, b.name.Topic); c != 0 {
			return c
		}
		return int(a.name.ID) - int(b.name.ID)
	})
	return logs
}

// Create makes the log of a partition, or returns the one that is there when
// it belongs to the same topic id.
func (s *Store) Create(topic string, id [16]byte, partition int32, cfg LogConfig) (*Log, error) {
	name := Partition{topic, partition}
	if err := name.check(); err != nil {
		return nil, err
	}
	s.mu.Lock()
	for s.stale.Load() {
		s.mu.Unlock()
		if err := s.checkpoint(); err != nil {
			return nil, storageError(err, "create %s: forget the checkpoints of deleted partitions", name)
		}
		s.mu.Lock()
	}
	defer s.mu.Unlock()
	if s.closed {
		return nil, storageError(ErrClosed, "create %s", name)
	}
	if l := s.logs[name]; l != nil {
		if l.TopicID() == ([16]byte{}) && id != ([16]byte{}) {
			if err := writeFile(s.o.FS, filepath.Join(l.dir, partitionFile), encodePartition(id), true); err != nil {
				return nil, storageError(err, "write the topic id of %s", name)
			}
			l.id.Store(&id)
		}
		if l.TopicID() != id {
			return nil, storageError(nil, "create %s: its directory belongs to topic id %s, not %s", name, EncodeID(l.TopicID()), EncodeID(id))
		}
		l.SetConfig(cfg)
		return l, nil
	}
	dir := filepath.Join(s.o.Dir, name.String())
	l, err := s.createLog(name, id, dir)
	if err != nil {
		_ = os.RemoveAll(dir) // made here, and of no use
		return nil, storageError(err, "create %s", name)
	}
	l.SetConfig(cfg)
	s.logs[name] = l
	return l, nil
}

func (s *Store) createLog(name Partition, id [16]byte, dir string) (*Log, error) {
	if err := os.Mkdir(dir, 0o755); err != nil {
		return nil, err
	}
	if err := writeFile(s.o.FS, filepath.Join(dir, partitionFile), encodePartition(id), s.o.Fsync == FsyncBatch); err != nil {
		return nil, err
	}
	seg, err := s.createSegment(dir, 0)
	if err != nil {
		return nil, err
	}
	l := s.newLog(name, dir)
	l.id.Store(&id)
	l.publish([]*segment{seg})
	if s.o.Fsync == FsyncBatch {
		if err := s.o.FS.SyncDir(dir); err != nil {
			return nil, err
		}
		if err := s.o.FS.SyncDir(s.o.Dir); err != nil {
			return nil, err
		}
	}
	return l, nil
}

func (s *Store) newLog(name Partition, dir string) *Log {
	l := &Log{store: s, name: name, dir: dir, producers: newProducers()}
	l.id.Store(&[16]byte{})
	l.epochs.Store(&epochs{})
	l.unstable.Store(math.MaxInt64)
	l.SetConfig(DefaultLogConfig())
	return l
}

// Run flushes, checkpoints and applies retention until ctx ends. Without it
// WaitDurable syncs by itself and nothing expires.
func (s *Store) Run(ctx context.Context) error {
	g, ctx := errgroup.WithContext(ctx)
	s.running.Store(true)
	defer s.nextRound() // let waiters see that they are on their own
	defer s.running.Store(false)
	g.Go(func() error { return s.flushLoop(ctx) })
	g.Go(func() error { return s.keepHouse(ctx) })
	return g.Wait()
}

// Close ends an orderly life: everything is synced, indexes and snapshots are
// saved, and the next Open need not look for damage. Run must have returned.
func (s *Store) Close() error {
	s.mu.Lock()
	if s.closed {
		s.mu.Unlock()
		return nil
	}
	s.closed = true
	s.mu.Unlock()
	var faults []error
	for _, l := range s.Logs() {
		if err := l.close(); err != nil {
			faults = append(faults, err)
		}
	}
	s.nextRound() // nobody will move the high watermark any more
	faults = append(faults, s.checkpoint())
	s.trash.empty(s.o, true)
	err := errors.Join(faults...)
	if err == nil {
		err = writeFile(s.o.FS, filepath.Join(s.o.Dir, cleanShutdownFile), encodeCleanShutdown(), true)
	}
	if err == nil {
		err = s.o.FS.SyncDir(s.o.Dir)
	}
	if closeErr := s.lock.Close(); err == nil {
		err = closeErr
	}
	if err != nil {
		return fmt.Errorf("close %s: %w", s.o.Dir, err)
	}
	return nil
}

func (l *Log) close() error {
	l.mu.Lock()
	if !l.active.pending && l.End() > l.synced.Load() { // FsyncNever leaves that to this moment
		if h, err := l.active.acquire(); err == nil {
			l.pending = append(l.pending, h)
		}
	}
	l.mu.Unlock()
	before := l.End()
	l.flush()
	err := l.Err()
	if err == nil && l.synced.Load() < before {
		l.synced.Store(before) // FsyncNever counts sealed segments only
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if err == nil {
		l.active.timeMu.Lock()
		times := appendTime(slices.Clip(l.active.times), l.active.maxTime, l.active.maxRel)
		l.active.timeMu.Unlock()
		l.active.writeIndexes(l.active.index.Load().all(), times)
		l.saveSnapshot(l.End(), l.producers)
		if saveErr := l.active.saveAborted(); saveErr != nil {
			err = storageError(saveErr, "save the transaction index of %s", l.name)
		}
	}
	l.broken.CompareAndSwap(nil, storageError(ErrClosed, "%s", l.name))
	for _, seg := range *l.segments.Load() {
		seg.abandon()
	}
	l.wake()
	return err
}
