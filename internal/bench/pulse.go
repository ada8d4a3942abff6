package bench

import (
	"context"
	"encoding/binary"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"

	"kmirror/internal/kafka"
	"kmirror/internal/wire"
)

// Pulse is a steady load of small batches whose records are timed one by one.
//
// Record n is due at start + n/rate, whatever became of those before it, and
// its latency counts from then to the moment when a reader at the target has
// it. The producer sends what is due at once (linger 0) with a few requests
// under way; when it cannot keep up, what is due meanwhile shares a batch, as
// with any Kafka producer, and the wait counts.
type Pulse struct {
	Rate       int           // records per second, over all partitions
	Size       int           // bytes of a value, 16 at least
	Warm       time.Duration // at first; not counted
	Length     time.Duration // counted
	Partitions int32
	// Counted is called when the counting begins; nil: nobody listens.
	Counted func()
	// Step hears how much time has passed.
	Step func(elapsed time.Duration)
}

const (
	// pulsing is how many requests of a pulse are under way at most.
	pulsing = 5
	// pulseBatch is how large a batch becomes at most when records wait, in bytes.
	pulseBatch = 64 << 10
	// reached is how long the last record is waited for.
	reached = 30 * time.Second
)

// Run writes the pulse to the topic of one cluster and reads it from its copy
// in another, which may be the same one for the time that the way itself takes.
// Both topics are there and have as many partitions as the pulse.
func (p Pulse) Run(ctx context.Context, source *kafka.Cluster, topic string, target *kafka.Cluster, mirrored string) (Latency, error) {
	total := int(float64(p.Rate) * (p.Warm + p.Length).Seconds())
	uncounted := int(float64(p.Rate) * p.Warm.Seconds())
	readers, err := newTail(ctx, target, mirrored)
	if err != nil {
		return Latency{}, err
	}
	free := make(chan *producer, pulsing)
	for range pulsing {
		one, err := connectLeaders(ctx, source, topic)
		if err != nil {
			return Latency{}, err
		}
		defer one.close()
		free <- one
	}
	run := &pulse{Pulse: p, total: total, free: free, start: time.Now().Add(50 * time.Millisecond), seen: make([]atomic.Int64, total), all: make(chan struct{})}
	run.left.Store(int64(total))
	g, ctx := errgroup.WithContext(ctx)
	reading, stopReading := context.WithCancel(ctx)
	defer stopReading()
	g.Go(func() error { return readers.run(reading, run.arrived) })
	g.Go(func() error {
		defer stopReading()
		if err := run.write(ctx, uncounted); err != nil {
			return err
		}
		select {
		case <-run.all:
			return nil
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-time.After(reached):
			return fmt.Errorf("%d of %d records are not in %s %v after the last was written", run.left.Load(), total, mirrored, reached)
		}
	})
	if err := g.Wait(); err != nil {
		return Latency{}, err
	}
	samples := make([]time.Duration, 0, total-uncounted)
	for n := uncounted; n < total; n++ {
		samples = append(samples, time.Duration(run.seen[n].Load())-run.due(n))
	}
	latency := quantiles(samples)
	latency.Late = run.late
	return latency, nil
}

// pulse is one run of a Pulse. Times are nanoseconds after start.
type pulse struct {
	Pulse
	total int
	free  chan *producer // those with nothing under way
	start time.Time
	late  time.Duration // owned by write

	seen []atomic.Int64 // by record, when it arrived; 0: not yet
	left atomic.Int64   // how many have not arrived
	all  chan struct{}  // closed when none is left
}

func (p *pulse) due(n int) time.Duration {
	return time.Duration(float64(n) * float64(time.Second) / float64(p.Rate))
}

// arrived notes a batch that the target gave out.
func (p *pulse) arrived(records []wire.Record, at time.Time) {
	for i := range records {
		if len(records[i].Value) < 16 || len(records[i].Key) != 0 {
			continue // not of this pulse
		}
		n := binary.BigEndian.Uint64(records[i].Value)
		run := binary.BigEndian.Uint64(records[i].Value[8:])
		if run != uint64(p.start.UnixNano()) || n >= uint64(p.total) {
			continue
		}
		if p.seen[n].CompareAndSwap(0, int64(at.Sub(p.start))) && p.left.Add(-1) == 0 {
			close(p.all)
		}
	}
}

// write sends each record when it is due.
func (p *pulse) write(ctx context.Context, uncounted int) error {
	var failed atomic.Pointer[error]
	var sending sync.WaitGroup
	defer sending.Wait() // before the producers are closed
	defer steady()()
	announced := p.Counted == nil
	for next := 0; next < p.total; {
		sleepUntil(p.start.Add(p.due(next)))
		var one *producer
		select {
		case one = <-p.free:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
		if err := failed.Load(); err != nil {
			return *err
		}
		now := time.Since(p.start)
		p.late = max(p.late, now-p.due(next))
		if !announced && next >= uncounted {
			announced = true
			p.Counted()
		}
		first := next
		for next < p.total && p.due(next) <= now && (next-first)*p.Size < pulseBatch*int(p.Partitions) {
			next++
		}
		if p.Step != nil && next%max(1, p.Rate/4) < next-first {
			p.Step(now)
		}
		batches, err := p.batches(first, max(next, first+1))
		if err != nil {
			return err
		}
		next = max(next, first+1)
		for partition, batch := range batches {
			one.add(partition, batch)
		}
		sending.Go(func() {
			if err := one.sendAll(ctx); err != nil {
				failed.CompareAndSwap(nil, &err)
			}
			p.free <- one
		})
	}
	sending.Wait()
	if err := failed.Load(); err != nil {
		return *err
	}
	return nil
}

// batches makes a batch for each partition that the records [first, end) go to,
// by turns.
func (p *pulse) batches(first, end int) (map[int32][]byte, error) {
	records := map[int32][]wire.Record{}
	for n := first; n < end; n++ {
		value := make([]byte, max(16, p.Size))
		binary.BigEndian.PutUint64(value, uint64(n))
		binary.BigEndian.PutUint64(value[8:], uint64(p.start.UnixNano()))
		partition := int32(n % int(p.Partitions))
		at := p.start.Add(p.due(n)).UnixMilli()
		records[partition] = append(records[partition], wire.Record{Offset: int64(len(records[partition])), Timestamp: at, Value: value})
	}
	batches := make(map[int32][]byte, len(records))
	for partition, of := range records {
		batch, err := wire.EncodeBatch(nil, of, wire.Plain(wire.CodecNone))
		if err != nil {
			return nil, fmt.Errorf("make a batch of the pulse: %w", err)
		}
		batches[partition] = batch
	}
	return batches, nil
}
