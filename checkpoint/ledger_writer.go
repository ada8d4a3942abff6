package checkpoint

import (
	"context"
	"errors"
	"log/slog"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"kmirror/internal/wire"
)

// ErrStopped is what a write gets that comes after Run has ended.
var ErrStopped = errors.New("the ledger writer has stopped")

// LedgerWriter writes anchors ahead of the batches that need them, with group
// commit: whatever has gathered for a partition of MapTopic while the write
// before was under way leaves as one batch. A write is tried again until Run's
// ctx ends. Safe for concurrent use.
type LedgerWriter struct {
	target Appender
	log    *slog.Logger
	lines  [MapPartitions]ledgerLine
}

// ledgerLine is what waits for one partition of MapTopic.
type ledgerLine struct {
	wake    chan struct{} // capacity 1: there is work
	anchors atomic.Int64  // handed over

	mu      sync.Mutex // guards the fields below
	waiting []ledgerEntry
	stopped bool
}

type ledgerEntry struct {
	record wire.Record
	write  *ledgerWrite
}

// ledgerWrite is one call of Write: done is called when left comes to 0.
type ledgerWrite struct {
	left   atomic.Int64
	failed atomic.Pointer[error]
	done   func(error)
}

// NewLedgerWriter makes a writer; Run starts it.
func NewLedgerWriter(target Appender, log *slog.Logger) *LedgerWriter {
	w := &LedgerWriter{target: target, log: log}
	for i := range w.lines {
		w.lines[i].wake = make(chan struct{}, 1)
	}
	return w
}

// Write hands over anchors, which may be of several partitions, and returns at
// once. done is called exactly once: with nil when all of them have been
// acknowledged, else with an error when Run ends (some may be in the topic all
// the same). It is called without any lock held, from a goroutine of Run, or,
// when Run has ended or there is nothing to write, before Write returns. It
// must not block: it holds up the writes behind it.
func (w *LedgerWriter) Write(anchors []Anchor, done func(error)) {
	var byPartition [MapPartitions][]wire.Record
	for _, a := range anchors {
		p := a.MapPartition()
		for steps := range slices.Chunk(a.Steps, maxSteps) {
			part := a
			part.Steps = steps
			byPartition[p] = append(byPartition[p], EncodeAnchor(part))
			w.lines[p].anchors.Add(1)
		}
	}
	w.write(byPartition, done)
}

// Anchors counts the records that Write divided its anchors into, for one partition
// of MapTopic.
func (w *LedgerWriter) Anchors(mapPartition int32) int64 { return w.lines[mapPartition].anchors.Load() }

// Put is Write for other records that go to one partition of MapTopic: who owns
// what, which topics belong together. Their order is kept.
func (w *LedgerWriter) Put(mapPartition int32, records []wire.Record, done func(error)) {
	var byPartition [MapPartitions][]wire.Record
	byPartition[mapPartition] = records
	w.write(byPartition, done)
}

func (w *LedgerWriter) write(records [MapPartitions][]wire.Record, done func(error)) {
	write := &ledgerWrite{done: done}
	var byPartition [MapPartitions][]ledgerEntry
	n, now := int64(0), time.Now().UnixMilli()
	for p, recs := range records {
		for _, rec := range recs {
			rec.Timestamp = now
			byPartition[p] = append(byPartition[p], ledgerEntry{record: rec, write: write})
			n++
		}
	}
	write.left.Store(n + 1) // one for this call, so that done is not called in its midst
	for p, entries := range byPartition {
		if len(entries) > 0 && !w.lines[p].add(entries) {
			write.settle(len(entries), ErrStopped)
		}
	}
	write.settle(1, nil)
}

func (l *ledgerLine) add(entries []ledgerEntry) bool {
	l.mu.Lock()
	stopped := l.stopped
	if !stopped {
		l.waiting = append(l.waiting, entries...)
	}
	l.mu.Unlock()
	if stopped {
		return false
	}
	select {
	case l.wake <- struct{}{}:
	default:
	}
	return true
}

func (l *ledgerLine) take() []ledgerEntry {
	l.mu.Lock()
	defer l.mu.Unlock()
	entries := l.waiting
	l.waiting = nil
	return entries
}

// stop refuses what comes from now on and returns what still waits.
func (l *ledgerLine) stop() []ledgerEntry {
	l.mu.Lock()
	l.stopped = true
	l.mu.Unlock()
	return l.take()
}

// settle counts n records as dealt with.
func (w *ledgerWrite) settle(n int, err error) {
	if err != nil {
		w.failed.CompareAndSwap(nil, &err)
	}
	if w.left.Add(-int64(n)) == 0 {
		if err := w.failed.Load(); err != nil {
			w.done(*err)
		} else {
			w.done(nil)
		}
	}
}

// Run writes until ctx ends, and returns nil. What then has not been
// acknowledged fails with the cause of ctx.
func (w *LedgerWriter) Run(ctx context.Context) error {
	var all sync.WaitGroup
	for p := range w.lines {
		all.Go(func() { w.run(ctx, int32(p)) })
	}
	all.Wait()
	return nil
}

func (w *LedgerWriter) run(ctx context.Context, partition int32) {
	line := &w.lines[partition]
	again := retry{log: w.log.With(slog.Int("map_partition", int(partition))), what: "write to the ledger"}
	var entries []ledgerEntry
	defer func() {
		for _, e := range append(entries, line.stop()...) {
			e.write.settle(1, context.Cause(ctx))
		}
	}()
	for ctx.Err() == nil {
		select {
		case <-line.wake:
		case <-ctx.Done():
			return
		}
		entries = line.take()
		for len(entries) > 0 && ctx.Err() == nil {
			records := make([]wire.Record, len(entries))
			for i, e := range entries {
				records[i] = e.record
			}
			err := appendAll(ctx, w.target, MapTopic, partition, records, func(n int) {
				for _, e := range entries[:n] {
					e.write.settle(1, nil)
				}
				entries = entries[n:]
			})
			switch {
			case err == nil:
				again.success()
			case ctx.Err() == nil:
				again.failure(ctx, err)
			}
		}
	}
}
