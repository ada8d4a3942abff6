package storage

import (
	"log/slog"
	"slices"

	"github.com/twmb/franz-go/pkg/kerr"
)

// Expire applies retention to every log now, as Run does every
// RetentionInterval.
func (s *Store) Expire() {
	for _, l := range s.Logs() {
		if err := l.expire(); err != nil {
			l.logger().Warn("retention fails", slog.String("error", err.Error()))
		}
	}
}

// expire deletes the oldest segments that the log's limits no longer cover, in
// Kafka's order: below the log start, over the size, over the time. Only what
// stands wholly below the high watermark goes, and an empty active segment
// stays.
func (l *Log) expire() error {
	cfg := l.config.Load()
	now := l.store.o.Now().UnixMilli()
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.broken.Load() != nil {
		return nil // a log that cannot be written is left as it is
	}
	segments := *l.segments.Load()
	n, err := l.expired(segments, cfg, now)
	if n == 0 {
		return err
	}
	if n == len(segments) {
		if err := l.roll(); err != nil {
			return err
		}
	}
	if rollErr := l.dropOldest(n); rollErr != nil {
		return rollErr
	}
	return err
}

// expired counts the segments from the oldest on that may go; mu is held.
func (l *Log) expired(segments []*segment, cfg *LogConfig, now int64) (n int, err error) {
	high, start := l.HighWatermark(), l.Start()
	end := func(i int) int64 {
		if i+1 < len(segments) {
			return segments[i+1].base
		}
		return l.End()
	}
	removable := func(i int) bool {
		return i < len(segments) && end(i) <= high && segments[i].size.Load() > 0
	}
	for removable(n) && end(n) <= start {
		n++
	}
	if !cfg.Delete {
		return n, nil
	}
	if cfg.RetentionBytes >= 0 {
		excess := -cfg.RetentionBytes
		for _, s := range segments[n:] {
			excess += s.size.Load()
		}
		for removable(n) && excess >= segments[n].size.Load() {
			excess -= segments[n].size.Load()
			n++
		}
	}
	if cfg.RetentionMillis >= 0 {
		for removable(n) {
			_, newest, _, err := segments[n].timeIndex()
			if err != nil {
				return n, err
			}
			if newest < 0 { // no record has a timestamp
				newest = segments[n].modified()
			}
			if now-newest <= cfg.RetentionMillis {
				break
			}
			n++
		}
	}
	return n, nil
}

// dropOldest takes the n oldest of the segments away; mu is held, and more than
// n are there.
func (l *Log) dropOldest(n int) error {
	segments := *l.segments.Load()
	dropped, kept := segments[:n], segments[n:]
	start := max(l.start.Load(), kept[0].base)
	l.start.Store(start) // before the files go: a reader without a file looks here
	l.publish(slices.Clip(kept))
	l.removeSegments(dropped)
	l.wake()
	if es := (*l.epochs.Load()).from(start); len(es) > 0 && len(*l.epochs.Load()) > 0 && es[0] != (*l.epochs.Load())[0] {
		return l.saveEpochs(es)
	}
	return nil
}

// removeSegments sets the files aside for removal; mu is held and no reader
// finds them any more.
func (l *Log) removeSegments(segments []*segment) {
	due := l.store.o.Now().Add(l.config.Load().FileDeleteDelay)
	for _, s := range segments {
		s.abandon()
		for _, suffix := range segmentSuffixes() {
			path := s.path(suffix)
			if err := l.store.o.FS.Rename(path, path+deletedSuffix); err == nil {
				l.store.trash.add(path+deletedSuffix, due)
			} else if suffix == logSuffix {
				l.logger().Warn("cannot set a segment aside", slog.String("path", path), slog.String("error", err.Error()))
			}
		}
	}
	l.dirMoved = true
	l.store.markDirty(l)
}

// DeleteBefore moves the log start up to offset and makes that durable
// (DeleteRecords). Segments wholly below it are deleted. An offset above the
// high watermark is OFFSET_OUT_OF_RANGE, a topic that is only compacted is
// POLICY_VIOLATION; below the log start there is nothing to do.
func (l *Log) DeleteBefore(offset int64) error {
	if cfg := l.config.Load(); cfg.Compact && !cfg.Delete {
		return refuse(kerr.PolicyViolation, "%s: records of a topic that is only compacted cannot be deleted", l.name)
	}
	if err := l.moveStart(offset); err != nil {
		return err
	}
	if err := l.store.saveStarts(); err != nil {
		return storageError(err, "save the log start of %s", l.name)
	}
	if err := l.expire(); err != nil {
		l.logger().Warn("retention fails", slog.String("error", err.Error()))
	}
	return nil
}

func (l *Log) moveStart(offset int64) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if e := l.broken.Load(); e != nil {
		return e
	}
	if high := l.HighWatermark(); offset < 0 || offset > high {
		return refuse(kerr.OffsetOutOfRange, "%s cannot begin at %d: its high watermark is %d", l.name, offset, high)
	}
	if offset > l.start.Load() {
		l.start.Store(offset)
		l.store.startsMoved.Add(1)
		l.wake()
	}
	return nil
}
