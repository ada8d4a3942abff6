// Package verify proves that a flow's source and target hold the same records,
// or names the first place where they do not.
//
// It reads both logs side by side and compares bytes. The offset map says where
// in the target each source offset should stand; what is found there has to be
// the very record. What must hold for a partition, in the range that was fixed
// when it began:
//
//  1. Every record that the map pairs is equal on both sides: key, value,
//     headers and timestamp (the timestamp is not, where the target stamps
//     records by itself).
//  2. Every record that a consumer of the source sees, and that the flow does not
//     leave out (filters, dead letters, what came from the other side), is in the
//     map. One that is not is missing.
//  3. Every target record that a producer of this flow wrote is in the map. One
//     that is not stands twice, or nobody knows why it is there. Records of
//     others are counted and no fault.
//
// The map is a claim, not a witness: a wrong entry shows as a difference. What
// retention, DeleteRecords or compaction took on either side, before or meanwhile,
// can no longer be compared; it is counted as gone and is no fault. So mirroring,
// producing and cleaning may go on.
//
// Batches that are identical behind their header are compared as they stand;
// others are opened. Both sides' checksums are verified. What was compared is
// folded into a digest (XXH64): as long as nothing differs it is that of both
// sides.
//
// Decisions (what to compare, what a missing partner means, what to sample) are
// pure; [Prepare], [Run] and [Store] touch the outside. Memory is bounded by the
// partitions read at once, and by what is known of those of one turn (see [Course]). The package
// writes to no cluster and does not know how the user is told.
package verify

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"

	"kmirror/internal/kafka"
)

// Log is what is read of a cluster while it is compared; *kafka.Cluster is one.
// It is used from several goroutines at once.
type Log interface {
	// Fetch reads raw batches of one partition from an offset on.
	Fetch(ctx context.Context, topic string, partition int32, offset int64, maxBytes int32, readCommitted bool, maxWait time.Duration) (kafka.FetchResult, error)
	// ListOffset answers -1 with the end of the log and -2 with its start.
	ListOffset(ctx context.Context, topic string, partition int32, timestamp int64) (int64, error)
}

// Options say how to compare.
type Options struct {
	Source, Target Log
	Parallel       int   // partitions at once; 0: 4
	FetchBytes     int32 // asked for at once, on each side; 0: 4 MiB. A partition holds at most six times as much
	Throttle       int64 // bytes per second read from both sides together; 0: no limit
	Show           bool  // put the bytes that differ into the report
	Canonical      bool  // open every batch, so that digests do not depend on batching and compression
}

// Meter counts while Run runs. Safe for concurrent use.
type Meter struct {
	Offsets     atomic.Int64 // source offsets dealt with, of all ranges
	Bytes       atomic.Int64 // read from both sides
	Differences atomic.Int64
}

const (
	defaultParallel   = 4
	defaultFetchBytes = 4 << 20
	inflateLimit      = 256 << 20 // of one batch that has to be opened
)

// Run compares all jobs, each in order, several at once. It returns when all are
// done or ctx ends. What a partition's trouble is (no leader, an unreadable log)
// stands in its job; then the others go on. The error is that of ctx alone.
func Run(ctx context.Context, o Options, jobs []*Job, meter *Meter) error {
	if o.Parallel <= 0 {
		o.Parallel = defaultParallel
	}
	if o.FetchBytes <= 0 {
		o.FetchBytes = defaultFetchBytes
	}
	pace := newPace(o.Throttle)
	all := errgroup.Group{}
	all.SetLimit(o.Parallel)
	for _, j := range jobs {
		if ctx.Err() != nil {
			break
		}
		all.Go(func() error {
			j.run(ctx, o, pace, meter)
			return nil
		})
	}
	_ = all.Wait() // every outcome is in its job
	return context.Cause(ctx)
}

// run compares what is left of the job's ranges.
func (j *Job) run(ctx context.Context, o Options, pace *pace, meter *Meter) {
	for i := range j.ranges() {
		if ctx.Err() != nil {
			return
		}
		r := j.rangeAt(i)
		if r.Done {
			continue
		}
		if err := j.compare(ctx, o, i, r, pace, meter); err != nil {
			if ctx.Err() == nil {
				j.fail(err)
			}
			return
		}
	}
}

// compare compares one range, from where it stands.
func (j *Job) compare(ctx context.Context, o Options, i int, r Range, pace *pace, meter *Meter) error {
	ctx, cancel := context.WithCancel(ctx)
	readers := errgroup.Group{}
	defer func() { _ = readers.Wait() }() // a reader's error came through its channel
	defer cancel()
	read := func(log Log, topic string, from, to int64, committed, compacts bool) *cursor {
		rd := &reader{
			log: log, topic: topic, partition: j.Number, next: from, end: to, committed: committed, compacts: compacts,
			bytes: o.FetchBytes, pace: pace, meter: meter, out: make(chan haul, 1),
		}
		if committed {
			rd.loops = j.Loops
		}
		readers.Go(func() error { rd.run(ctx); return nil })
		return &cursor{in: rd.out, next: from, end: to, logEnd: -1}
	}
	c := newComparison(&j.Partition, r)
	c.show, c.canonical = o.Show, o.Canonical
	c.src = read(o.Source, j.Topic, c.r.Next, c.r.To, true, j.SourceCompacts)
	c.dst = read(o.Target, j.TargetTopic, c.r.TargetNext, c.r.TargetTo, false, j.TargetCompacts)

	next, differences, saved := r.Next, r.Tally.Differences, time.Now()
	note := func() {
		now := max(next, min(c.src.next, c.r.To))
		meter.Offsets.Add(now - next)
		meter.Differences.Add(c.r.Tally.Differences - differences)
		next, differences = now, c.r.Tally.Differences
	}
	for {
		done, err := c.step(ctx)
		if err != nil {
			note()
			return fmt.Errorf("%s/%d from source offset %d: %w", j.Topic, j.Number, next, err)
		}
		if done {
			c.finish()
			note()
			j.set(i, c.snapshot())
			return nil
		}
		if time.Since(saved) > 100*time.Millisecond && c.settled() {
			saved = time.Now()
			note()
			j.set(i, c.snapshot())
		}
	}
}

// errEnded is the end of a cursor.
var errEnded = errors.New("end of the range")
