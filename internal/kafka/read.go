package kafka

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"

	"kmirror/internal/wire"
)

const (
	readBytes   = 4 << 20 // of one fetch
	followWait  = time.Second
	emptyBefore = 10 // fetches without anything below the high watermark, before that is a fault
)

// Read hands the records of a partition to fn, from an offset on up to the high
// watermark that was seen first, and returns the offset behind the last. An
// offset before the start of the log begins at that start; one beyond the end
// is OFFSET_OUT_OF_RANGE. Markers are skipped, records of aborted transactions
// are not. Every batch's checksum is verified. A record's bytes are the
// receiver's to keep. fn's error ends the reading and is returned as it is.
// Retries are those of Fetch.
func (c *Cluster) Read(ctx context.Context, topic string, partition int32, from int64, fn func(wire.Record) error) (next int64, err error) {
	r := reader{cluster: c, topic: topic, partition: partition, next: from, end: -1, fn: fn}
	for r.end < 0 || r.next < r.end {
		if err := r.step(ctx, 0); err != nil {
			return r.next, err
		}
	}
	return r.next, nil
}

// Follow hands the records of a partition to fn, from an offset on, until ctx
// ends (then it returns the cause) or fn fails. caughtUp is called once, when
// the end of the log is reached for the first time; nil: not. The rest is as in
// Read, but it outlasts every temporary fault, an unreachable cluster included.
func (c *Cluster) Follow(ctx context.Context, topic string, partition int32, from int64, caughtUp func(), fn func(wire.Record) error) error {
	r := reader{cluster: c, topic: topic, partition: partition, next: from, end: -1, fn: fn, newest: true}
	wait := time.Duration(0)
	var pause backoff
	for {
		err := r.step(ctx, wait)
		switch {
		case ctx.Err() != nil:
			return context.Cause(ctx)
		case r.stopped || err != nil && !temporary(ctx, err):
			return err
		case err != nil:
			if pause.tries == 0 {
				c.log.Warn("following is interrupted, trying again", slog.String("topic", topic), slog.Int("partition", int(partition)), slog.Any("error", err))
			}
			if err := pause.wait(ctx); err != nil {
				return err
			}
			continue
		}
		pause.reset()
		if wait == 0 && r.next >= r.end {
			wait = followWait
			if caughtUp != nil {
				caughtUp()
			}
		}
	}
}

// reader reads one partition step by step.
type reader struct {
	cluster   *Cluster
	topic     string
	partition int32
	fn        func(wire.Record) error
	newest    bool // follow the high watermark

	next    int64
	end     int64 // the high watermark; -1: not seen yet
	empty   int   // fetches without anything, one after another
	stopped bool  // fn failed
}

// step does one fetch.
func (r *reader) step(ctx context.Context, wait time.Duration) error {
	if r.empty > 0 {
		wait = max(wait, 100*time.Millisecond)
	}
	c := r.cluster
	got, err := c.Fetch(ctx, r.topic, r.partition, max(0, r.next), readBytes, false, wait)
	switch {
	case err != nil:
		return err
	case errors.Is(got.Err, kerr.OffsetOutOfRange):
		return r.relocate(ctx)
	case got.Err != nil:
		return c.errorf(got.Err, "read %s/%d at %d", r.topic, r.partition, r.next)
	}
	if r.end < 0 || r.newest {
		r.end = got.HighWatermark
	}
	before := r.next
	if err := r.decode(got.Records); err != nil {
		return err
	}
	if r.next > before || r.next >= r.end {
		r.empty = 0
		return nil
	}
	if r.empty++; r.empty == emptyBefore {
		return c.errorf(errors.New("the broker returns nothing there"), "read %s/%d at %d, below its high watermark %d", r.topic, r.partition, r.next, r.end)
	}
	return nil
}

// relocate goes to the start of the log when the offset is before it.
func (r *reader) relocate(ctx context.Context) error {
	c := r.cluster
	start, err := c.ListOffset(ctx, r.topic, r.partition, Earliest)
	if err != nil {
		return err
	}
	if r.next >= start {
		return c.errorf(kerr.OffsetOutOfRange, "read %s/%d at %d", r.topic, r.partition, r.next)
	}
	c.log.Debug("reading begins at the start of the log", slog.String("topic", r.topic), slog.Int("partition", int(r.partition)),
		slog.Int64("offset", r.next), slog.Int64("start", start))
	r.next = start
	return nil
}

// decode hands over the records of raw batches and moves next behind them.
func (r *reader) decode(raw []byte) error {
	for len(raw) > 0 {
		if !r.newest && r.end >= 0 && r.next >= r.end {
			return nil
		}
		b, rest, err := wire.NextBatch(raw)
		switch {
		case errors.Is(err, wire.ErrLegacyMagic):
			rest, err = r.legacy(raw)
		case err == nil:
			err = r.batch(b)
		}
		switch {
		case errors.Is(err, wire.ErrPartialBatch):
			return nil
		case r.stopped:
			return err
		case err != nil:
			return r.cluster.errorf(err, "read %s/%d at %d", r.topic, r.partition, r.next)
		}
		raw = rest
	}
	return nil
}

func (r *reader) batch(b wire.Batch) error {
	if b.LastOffset() < r.next {
		return nil
	}
	if err := b.CheckCRC(); err != nil {
		return err
	}
	if !b.IsControl() {
		records, err := b.Records(r.cluster.options.InflateLimit)
		if err != nil {
			return err
		}
		if err := r.deliver(records); err != nil {
			return err
		}
	}
	r.next = b.LastOffset() + 1
	if !r.newest && r.end >= 0 {
		r.next = min(r.next, r.end)
	}
	return nil
}

func (r *reader) legacy(raw []byte) (rest []byte, err error) {
	records, _, rest, err := wire.DecodeLegacy(raw, r.cluster.options.InflateLimit)
	if err != nil {
		return nil, err
	}
	if len(rest) >= len(raw) {
		return nil, fmt.Errorf("message set of %d bytes: no progress", len(raw))
	}
	return rest, r.deliver(records)
}

// deliver hands over the records from next on.
func (r *reader) deliver(records []wire.Record) error {
	for i := range records {
		if records[i].Offset < r.next {
			continue
		}
		if !r.newest && r.end >= 0 && records[i].Offset >= r.end {
			return nil
		}
		if err := r.fn(records[i]); err != nil {
			r.stopped = true
			return err
		}
		r.next = records[i].Offset + 1
	}
	return nil
}
