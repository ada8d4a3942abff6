package mirror

import (
	"context"
	"errors"
	"fmt"
	"time"

	"kmirror/checkpoint"
	"kmirror/internal/kafka"
	"kmirror/internal/wire"
)

// partitionReader is all that positions ask of a cluster; *kafka.Cluster has it.
type partitionReader interface {
	Fetch(ctx context.Context, topic string, partition int32, offset int64, maxBytes int32, readCommitted bool, maxWait time.Duration) (kafka.FetchResult, error)
	ListOffset(ctx context.Context, topic string, partition int32, timestamp int64) (int64, error)
}

const (
	atLatest   = -1 // ListOffsets
	atEarliest = -2
	scanBytes  = 1 << 20
)

// standing is what a target partition says about itself: which of its batches
// are ours, and so where the source stands in it.
type standing struct {
	end     int64            // the target's high watermark, up to which it was read
	last    wire.Batch       // the last batch of ours, if one is left
	carries []checkpoint.Run // what last carries
	lost    int64            // target offsets that the map knew and the target no longer has; 0 normally
	doubled []checkpoint.Run // what was in the target already when it was appended; none normally
}

// stand reads where a target partition stands: the map as it is persisted,
// then every batch header from its end to the high watermark. A batch is ours
// if the ledger knows its producer id and epoch; its sequence says which source
// offsets it carries.
//
// The map known is changed: what it says about offsets beyond the target's end
// (the target lost its tail) is cut off, and what the target holds beyond it is
// added.
func stand(ctx context.Context, target partitionReader, topic string, partition int32, ledger *checkpoint.Ledger, known *checkpoint.Runs) (standing, error) {
	var st standing
	start, err := target.ListOffset(ctx, topic, partition, atEarliest)
	if err != nil {
		return st, fmt.Errorf("read the start of %s/%d: %w", topic, partition, err)
	}
	if st.end, err = target.ListOffset(ctx, topic, partition, atLatest); err != nil {
		return st, fmt.Errorf("read the end of %s/%d: %w", topic, partition, err)
	}
	from := start
	if _, mapped, ok := known.End(); ok {
		if mapped > st.end {
			st.lost = mapped - st.end
			known.CutTarget(st.end)
			_, mapped, _ = known.End()
		}
		from = max(from, mapped-1) // the last batch of ours is wanted for the seam
	}
	err = scan(ctx, target, topic, partition, from, st.end, nil, func(b wire.Batch) error {
		runs, err := ledger.Runs(b)
		if err != nil || len(runs) == 0 {
			return err
		}
		st.last, st.carries = append(st.last[:0], b...), runs
		_, err = checkpoint.Complete(ledger, known, func(yield func(wire.Batch, error) bool) { yield(b, nil) })
		if order := (*checkpoint.OrderError)(nil); errors.As(err, &order) {
			st.doubled = append(st.doubled, order.Run)
			return nil
		}
		return err
	})
	return st, err
}

// nextSource is the source offset after the last record of ours that the target
// holds, by the completed map; not ok while nothing was ever mirrored.
func nextSource(known *checkpoint.Runs) (next int64, ok bool) {
	known.All(func(checkpoint.Run) bool { ok = true; return false })
	if ok {
		next, _, _ = known.End()
	}
	return next, ok
}

// scan reads the batches of a partition from an offset to an end, in order.
// Messages from before format 2 go to legacy, if that is not nil. It ends early
// where compaction or markers took what stood before the end.
func scan(ctx context.Context, from partitionReader, topic string, partition int32, offset, end int64, legacy func([]wire.Record), fn func(wire.Batch) error) error {
	size := int32(scanBytes)
	for offset < end {
		res, err := from.Fetch(ctx, topic, partition, offset, size, false, 0)
		if err == nil {
			err = res.Err
		}
		if err != nil {
			return fmt.Errorf("read %s/%d at %d: %w", topic, partition, offset, err)
		}
		next := offset
		for rest := res.Records; len(rest) > 0; {
			b, after, err := wire.NextBatch(rest)
			if errors.Is(err, wire.ErrPartialBatch) {
				break
			}
			if errors.Is(err, wire.ErrLegacyMagic) {
				old, _, after, err := wire.DecodeLegacy(rest, inflateLimit)
				if err != nil {
					return fmt.Errorf("read %s/%d at %d: %w", topic, partition, next, err)
				}
				if len(old) == 0 {
					break
				}
				if legacy != nil {
					legacy(old)
				}
				next, rest = old[len(old)-1].Offset+1, after
				continue
			}
			if err != nil {
				return fmt.Errorf("read %s/%d at %d: %w", topic, partition, next, err)
			}
			rest = after
			if b.LastOffset() < offset {
				continue
			}
			if b.BaseOffset() >= end {
				return nil
			}
			if err := fn(b); err != nil {
				return fmt.Errorf("read %s/%d at %d: %w", topic, partition, b.BaseOffset(), err)
			}
			next = b.LastOffset() + 1
		}
		if next == offset {
			if len(res.Records) >= int(size) { // one batch larger than asked for, from a broker that cuts it
				if size > maxScanBytes/2 {
					return fmt.Errorf("read %s/%d at %d: no whole batch in %d bytes", topic, partition, offset, size)
				}
				size *= 2
				continue
			}
			return nil // nothing up to the end: compaction or markers took it
		}
		offset = next
	}
	return nil
}

const (
	maxScanBytes = 256 << 20
	inflateLimit = 256 << 20 // of one batch that has to be opened
)
