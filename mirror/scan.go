package mirror

import (
	"context"
	"errors"
	"fmt"
	"time"

	"kmirror/internal/kafka"
	"kmirror/internal/wire"
)

const (
	scanBytes    = 1 << 20
	maxScanBytes = 256 << 20
	inflateLimit = 256 << 20 // of one batch that has to be opened

	emptyBefore = 20 // fetches without anything below the end, before that is believed
	emptyWait   = 100 * time.Millisecond
)

// fetches are the fetches of one who reads a log up to an end that he knows.
type fetches struct {
	from      partitionReader
	topic     string
	partition int32
	committed bool // only what is committed

	size  int32 // asked for
	at    int64
	empty int // in a row, all at the same offset
}

// next fetches from an offset on.
func (f *fetches) next(ctx context.Context, offset int64) (kafka.FetchResult, error) {
	if offset != f.at {
		f.at, f.empty = offset, 0
	}
	f.size = max(f.size, scanBytes)
	wait := time.Duration(0)
	if f.empty > 0 {
		wait = emptyWait
	}
	res, err := f.from.Fetch(ctx, f.topic, f.partition, offset, f.size, f.committed, wait)
	if err == nil {
		err = res.Err
	}
	if err != nil {
		return res, fmt.Errorf("read %s/%d at %d: %w", f.topic, f.partition, offset, err)
	}
	return res, nil
}

// again says whether to ask once more, where an answer held no whole batch from the
// offset on. A broker that holds its client to a quota answers with nothing, though
// the log goes on: who took that for the end would mirror what follows twice. Only
// when it stays so has compaction, or have markers, taken what stood there.
func (f *fetches) again(res kafka.FetchResult, offset int64) (bool, error) {
	readable := res.HighWatermark
	if f.committed && res.LastStable >= 0 {
		readable = min(readable, res.LastStable)
	}
	switch {
	case len(res.Records) >= int(f.size): // one batch larger than asked for, from a broker that cuts it
		if f.size > maxScanBytes/2 {
			return false, fmt.Errorf("read %s/%d at %d: no whole batch in %d bytes", f.topic, f.partition, offset, f.size)
		}
		f.size *= 2
		return true, nil
	case offset < readable && f.empty < emptyBefore:
		f.empty++
		return true, nil
	default:
		return false, nil
	}
}

// scan reads the batches of a partition from an offset to an end, in order.
// Messages from before format 2 are passed over. It ends early
// where compaction or markers took what stood before the end.
func scan(ctx context.Context, from partitionReader, topic string, partition int32, offset, end int64, fn func(wire.Batch) error) error {
	f := fetches{from: from, topic: topic, partition: partition}
	for offset < end {
		res, err := f.next(ctx, offset)
		if err != nil {
			return err
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
			if again, err := f.again(res, offset); err != nil || !again {
				return err
			}
		}
		offset = next
	}
	return nil
}
