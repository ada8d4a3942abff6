package storage

import (
	"context"
	"errors"
	"log/slog"
	"math"
	"os"
	"slices"

	"github.com/twmb/franz-go/pkg/kerr"

	"kmirror/internal/wire"
)

// AppendOptions say where a batch comes from.
type AppendOptions struct {
	FromClient   bool  // the rules for producers apply; else the batch is the broker's own
	Verified     Guard // of BeginVerification: the first batch of a transaction needs it
	InflateLimit int   // bytes that a compressed batch may unpack to, default 256 MiB
}

func (o AppendOptions) inflate() int {
	if o.InflateLimit > 0 {
		return o.InflateLimit
	}
	return defaultInflate
}

// AppendResult says where a batch stands.
type AppendResult struct {
	BaseOffset    int64
	LastOffset    int64
	LogAppendTime int64 // Unix milliseconds; -1 when the producer's timestamps were kept
	LogStart      int64
	Duplicate     bool // the batch was there already, at the offsets given
}

// Append validates one batch of format 2 and writes it at the end of the log.
// It rewrites base offset and leader epoch, and timestamps where the topic says
// so, in the caller's buffer, also when it fails later; the buffer is not kept.
// The batch is readable and acknowledged only once WaitDurable has passed its
// last offset.
//
// The first batch of a transaction needs AppendOptions.Verified, else it is
// refused with INVALID_TXN_STATE. Markers go through AppendMarker.
//
// Every refusal is an *Error with Kafka's code for the partition.
func (l *Log) Append(b wire.Batch, leaderEpoch int32, o AppendOptions) (AppendResult, error) {
	none := AppendResult{BaseOffset: -1, LastOffset: -1, LogAppendTime: -1, LogStart: l.start.Load()}
	cfg := l.config.Load()
	now := l.store.o.Now().UnixMilli()
	b, err := l.prepare(b, cfg, now, o)
	if err != nil {
		return none, err
	}

	l.mu.Lock()
	defer l.mu.Unlock()
	if err := l.writable(leaderEpoch); err != nil {
		return none, err
	}
	if b.ProducerID() >= 0 {
		from := fromCoordinator
		if o.FromClient {
			from = fromClient
		}
		again, refusal := l.producers.check(b, from, o.Verified, l.name)
		if refusal != nil {
			return none, refusal
		}
		if again != nil {
			return AppendResult{
				BaseOffset: again.lastOffset - int64(again.offsetDelta), LastOffset: again.lastOffset,
				LogAppendTime: again.timestamp, LogStart: l.start.Load(), Duplicate: true,
			}, nil
		}
	}
	if err := l.place(b, leaderEpoch, cfg, now); err != nil {
		return none, err
	}
	if l.producers.add(b, now) && l.unstable.Load() == math.MaxInt64 {
		l.unstable.Store(b.BaseOffset()) // before the end moves
	}
	l.account(b, cfg)

	base := b.BaseOffset()
	result := AppendResult{BaseOffset: base, LastOffset: b.LastOffset(), LogAppendTime: -1, LogStart: l.start.Load()}
	if cfg.LogAppendTime {
		result.LogAppendTime = now
	}
	return result, nil
}

// writable says why an append in that leader epoch cannot be; mu is held.
func (l *Log) writable(leaderEpoch int32) error {
	if e := l.broken.Load(); e != nil {
		return e
	}
	if latest := l.LastEpoch(); leaderEpoch < latest {
		return refuse(kerr.FencedLeaderEpoch, "append to %s in leader epoch %d, but %d has begun", l.name, leaderEpoch, latest)
	}
	return nil
}

// raise moves the high watermark; mu is held. The transactions go first, so that
// whoever waited for a marker finds its transaction decided.
func (l *Log) raise(offset, base, pos int64) {
	if len(l.producers.decided) > 0 {
		l.producers.settle(offset)
		l.unstable.Store(l.producers.firstUnstable())
	}
	l.unsafe.Store(len(l.producers.decided) > 0)
	l.high.set(offset, base, pos)
	l.wake()
}

// place gives b its offset and leader epoch and writes it at the end of the log,
// in a new segment when that is due; mu is held.
func (l *Log) place(b wire.Batch, leaderEpoch int32, cfg *LogConfig, now int64) error {
	if l.rollDue(b, cfg, now) {
		if err := l.roll(); err != nil {
			return err
		}
	}
	if err := l.assignEpoch(leaderEpoch); err != nil {
		return err
	}
	base := l.end.offset.Load()
	if base > 1<<62 {
		return refuse(kerr.KafkaStorageError, "append to %s: offsets are used up", l.name)
	}
	b.SetBaseOffset(base)
	b.SetLeaderEpoch(leaderEpoch)
	return l.write(b)
}

// write puts b behind the active segment's bytes; mu is held. When it fails
// nothing of b remains.
func (l *Log) write(b wire.Batch) error {
	s := l.active
	h, err := s.acquire()
	if err != nil {
		return storageError(err, "append to %s: open the segment", l.name)
	}
	defer h.release()
	size := s.size.Load()
	if _, err := h.file.WriteAt(b, size); err != nil {
		if cutErr := h.file.Truncate(size); cutErr != nil {
			e := storageError(errors.Join(err, cutErr), "append to %s: torn bytes cannot be cut off", l.name)
			l.breakDown(e)
			return e
		}
		if isFull(err) {
			return storageError(err, "append to %s: the disk is full; nothing was written, make room and it goes on", l.name)
		}
		e := storageError(err, "append to %s", l.name)
		l.breakDown(e)
		return e
	}
	if !s.pending && l.store.o.Fsync != FsyncNever && h.retain() {
		s.pending = true
		l.pending = append(l.pending, h)
	}
	return nil
}

// account makes everything that the log knows about itself include b, which
// stands in the file and which its producer remembers; mu is held.
func (l *Log) account(b wire.Batch, cfg *LogConfig) {
	s := l.active
	pos := s.size.Load()
	rel := uint32(b.LastOffset() - s.base)
	s.note(b, pos, rel, cfg.IndexIntervalBytes)
	s.size.Store(pos + int64(len(b)))
	end := b.LastOffset() + 1
	l.end.set(end, s.base, pos+int64(len(b)))
	switch l.store.o.Fsync {
	case FsyncBatch:
		l.store.markDirty(l)
	case FsyncInterval:
		l.store.markDirty(l)
		l.raise(end, s.base, pos+int64(len(b)))
	case FsyncNever:
		l.raise(end, s.base, pos+int64(len(b)))
	}
}

// note indexes a batch that begins at pos.
func (s *segment) note(b wire.Batch, pos int64, rel uint32, interval int) {
	if s.firstTime < 0 && pos == 0 {
		s.firstTime = b.MaxTimestamp()
	}
	due := s.sinceIndexed > interval
	if t := b.MaxTimestamp(); due || t > s.maxTime {
		s.timeMu.Lock()
		if t > s.maxTime {
			s.maxTime, s.maxRel = t, rel
		}
		if due {
			s.times = appendTime(s.times, s.maxTime, s.maxRel)
		}
		s.timeMu.Unlock()
	}
	if due {
		s.index.Load().append(indexEntry{rel, uint32(pos)})
		s.sinceIndexed = 0
	}
	s.sinceIndexed += b.Size()
}

// rollDue says whether b must go to a new segment; mu is held.
func (l *Log) rollDue(b wire.Batch, cfg *LogConfig, now int64) bool {
	s := l.active
	size := s.size.Load()
	if size == 0 {
		return false
	}
	waited := now - s.created
	if s.firstTime >= 0 {
		waited = b.MaxTimestamp() - s.firstTime
	}
	return size > int64(cfg.SegmentBytes)-int64(len(b)) ||
		waited > cfg.SegmentMillis ||
		s.index.Load().len() >= cfg.SegmentIndexBytes/indexEntrySize ||
		len(s.times) >= cfg.SegmentIndexBytes/timeEntrySize-1 || // written under mu only; one is kept for the seal
		l.end.offset.Load()+int64(b.LastOffsetDelta())-s.base > 1<<31-1
}

// roll seals the active segment and begins the next at the end of the log; mu
// is held. When it fails the log is as it was.
func (l *Log) roll() error {
	end := l.end.offset.Load()
	old := l.active
	if err := old.saveAborted(); err != nil { // first, for without it readers would take aborted records for committed
		return storageError(err, "save the transaction index of segment %d of %s", old.base, l.name)
	}
	fresh, err := l.store.createSegment(l.dir, end)
	if err != nil {
		return storageError(err, "begin segment %d of %s", end, l.name)
	}
	if l.store.o.Fsync == FsyncNever { // else it is pending, or on disk
		if h, err := old.acquire(); err == nil {
			l.pending = append(l.pending, h)
		} else {
			l.logger().Warn("cannot open a segment to sync it", slog.String("error", err.Error()))
		}
	}
	old.pending = false
	l.seal(old)
	l.saveSnapshot(end, l.producers)
	l.dirMoved = true
	segments := *l.segments.Load()
	l.publish(append(slices.Clip(segments), fresh))
	l.end.set(end, end, 0)
	if l.store.o.Fsync != FsyncBatch {
		l.high.set(end, end, 0)
	}
	l.store.markDirty(l)
	l.store.wantCheckpoint()
	return nil
}

// seal ends a segment's time as the active one.
func (l *Log) seal(s *segment) {
	s.timeMu.Lock()
	s.times = appendTime(s.times, s.maxTime, s.maxRel)
	times := s.times
	s.timeMu.Unlock()
	x := s.index.Load()
	s.writeIndexes(x.all(), times)
	x.of = s
	aborted := &abortedList{entries: s.aborted.Load().entries, of: s}
	s.aborted.Store(aborted)
	s.sealed.Store(true)
	l.store.indexes.add(x)
	if len(aborted.entries) > 0 {
		l.store.indexes.add(aborted)
	}
}

// saveSnapshot writes the producers as they stand at offset. Without it a
// restart reads more of the log, no harm beyond that.
func (l *Log) saveSnapshot(offset int64, ps *producers) {
	if err := writeFile(l.store.o.FS, l.snapshotPath(offset), encodeSnapshot(ps), false); err != nil {
		l.logger().Warn("cannot save a producer snapshot", slog.Int64("offset", offset), slog.String("error", err.Error()))
	}
}

// createSegment makes the files of an empty active segment.
func (s *Store) createSegment(dir string, base int64) (*segment, error) {
	seg := newSegment(s, dir, base)
	seg.created = s.o.Now().UnixMilli()
	seg.index.Store(newSparseIndex(nil))
	seg.timesRead = true
	seg.aborted.Store(&abortedList{})
	h, _, err := seg.open(os.O_RDWR | os.O_CREATE | os.O_TRUNC)
	if err != nil {
		return nil, err
	}
	s.files.add(h)
	h.release()
	return seg, nil
}

// WaitDurable returns once the record at offset stands below the high
// watermark, or why it never will (*Error), or the error of ctx.
func (l *Log) WaitDurable(ctx context.Context, offset int64) error {
	for {
		round := l.store.round()
		if l.high.offset.Load() > offset {
			return nil
		}
		if e := l.broken.Load(); e != nil {
			return e
		}
		if !l.store.running.Load() && l.high.offset.Load() < l.end.offset.Load() {
			l.flush()
			continue
		}
		select {
		case <-round:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}
