package storage

import (
	"fmt"
	"log/slog"
	"path/filepath"
	"sync"
	"sync/atomic"
)

// Log is the log of one partition. Its methods may be called concurrently;
// appends take turns.
type Log struct {
	store *Store
	name  Partition
	dir   string

	id     atomic.Pointer[[16]byte]
	config atomic.Pointer[LogConfig]
	epochs atomic.Pointer[epochs]
	broken atomic.Pointer[Error] // why the log takes no more appends, nil while it does
	queued atomic.Bool           // stands in Store.dirty

	// Invariant: start <= high.offset <= end.offset, and synced <= end.offset.
	start  atomic.Int64
	high   mark // set by flush under FsyncBatch, else by Append
	end    mark // set under mu
	synced atomic.Int64

	// Set under mu. Whoever compares them with high reads high first.
	unstable atomic.Int64 // where the first transaction begins that is not safely decided, else the largest number
	unsafe   atomic.Bool  // markers stand at or above the high watermark

	segments atomic.Pointer[[]*segment] // ascending; a published slice is never changed

	flushMu sync.Mutex // held while the log is flushed or cut

	mu        sync.Mutex // guards the fields below, and every change of the log
	active    *segment
	producers *producers
	pending   []*handle // files with bytes that no fdatasync has covered
	spare     []*handle // the other buffer of pending
	dirMoved  bool      // files were made whose names are not durable yet

	watched  atomic.Int32
	watchMu  sync.Mutex // guards watchers
	watchers []*Waiter
}

// Partition is the name of the log.
func (l *Log) Partition() Partition { return l.name }

// Topic is the name of the log's topic.
func (l *Log) Topic() string { return l.name.Topic }

// TopicID is the id of the topic, zero when none was ever written.
func (l *Log) TopicID() [16]byte { return *l.id.Load() }

// Dir is the log's directory.
func (l *Log) Dir() string { return l.dir }

// Start is the first offset that can be read.
func (l *Log) Start() int64 { return l.start.Load() }

// End is the offset that the next record gets.
func (l *Log) End() int64 { return l.end.offset.Load() }

// HighWatermark is the offset up to which records are safe to show: what
// fdatasync has covered under FsyncBatch, else End.
func (l *Log) HighWatermark() int64 { return l.high.offset.Load() }

// RecoveryPoint is the offset up to which the log is known to be on disk.
func (l *Log) RecoveryPoint() int64 { return l.synced.Load() }

// Config is the configuration in force.
func (l *Log) Config() LogConfig { return *l.config.Load() }

// SetConfig changes the configuration from the next append or sweep on.
func (l *Log) SetConfig(c LogConfig) {
	c = c.sane()
	l.config.Store(&c)
}

// Err is why the log takes no appends any more, nil while it does.
func (l *Log) Err() error {
	if e := l.broken.Load(); e != nil {
		return e
	}
	return nil
}

// Size is the size of all segments in bytes.
func (l *Log) Size() (total int64) {
	for _, s := range *l.segments.Load() {
		total += s.size.Load()
	}
	return total
}

// Segments is the number of segment files.
func (l *Log) Segments() int { return len(*l.segments.Load()) }

// LastEpoch is the latest leader epoch, -1 for none.
func (l *Log) LastEpoch() int32 { return (*l.epochs.Load()).latest() }

// EpochAt is the leader epoch that the record at offset was appended in, -1 for
// unknown.
func (l *Log) EpochAt(offset int64) int32 { return (*l.epochs.Load()).at(offset) }

// EpochEnd answers OffsetForLeaderEpoch: the largest epoch not above the one
// asked for and the offset where it ended, -1 and -1 when unknown.
func (l *Log) EpochEnd(epoch int32) (int32, int64) {
	return (*l.epochs.Load()).end(epoch, l.End())
}

// AssignEpoch begins a leader epoch at the end of the log, durably. An epoch
// that is not above the latest changes nothing.
func (l *Log) AssignEpoch(epoch int32) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if e := l.broken.Load(); e != nil {
		return e
	}
	return l.assignEpoch(epoch)
}

// assignEpoch is AssignEpoch; mu is held.
func (l *Log) assignEpoch(epoch int32) error {
	es := *l.epochs.Load()
	if epoch <= es.latest() {
		return nil
	}
	return l.saveEpochs(es.with(epoch, l.End()))
}

// saveEpochs makes es durable and then the log's; mu is held.
func (l *Log) saveEpochs(es epochs) error {
	if err := writeFile(l.store.o.FS, filepath.Join(l.dir, epochsFile), es.encode(), true); err != nil {
		return storageError(err, "write the leader epochs of %s", l.name)
	}
	l.dirMoved = true
	l.epochs.Store(&es)
	return nil
}

// Producers are the idempotent producers that the log remembers.
func (l *Log) Producers() []ProducerInfo {
	l.mu.Lock()
	defer l.mu.Unlock()
	infos := make([]ProducerInfo, 0, len(l.producers.byID))
	for id, p := range l.producers.byID {
		infos = append(infos, ProducerInfo{
			ID: id, Epoch: p.epoch, LastSequence: p.lastSequence(), LastTimestamp: p.timestamp,
			CoordinatorEpoch: p.coordinatorEpoch, TransactionFirst: p.transactionFirst,
		})
	}
	return infos
}

// breakDown makes the log read-only for the cause given. The first cause stays.
func (l *Log) breakDown(err *Error) {
	if l.broken.CompareAndSwap(nil, err) {
		l.logger().Error("log is read-only until restart", slog.String("error", err.Error()))
		l.store.nextRound()
	}
	l.wake()
}

func (l *Log) logger() *slog.Logger {
	return l.store.o.Logger.With(slog.String("topic", l.name.Topic), slog.Int("partition", int(l.name.ID)))
}

// publish makes segments the log's; mu is held.
func (l *Log) publish(segments []*segment) {
	l.segments.Store(&segments)
	l.active = segments[len(segments)-1]
}

// snapshotPath is the file of the producer snapshot at offset.
func (l *Log) snapshotPath(offset int64) string {
	return filepath.Join(l.dir, fmt.Sprintf("%020d%s", offset, snapshotSuffix))
}
