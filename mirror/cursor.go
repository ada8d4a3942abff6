package mirror

import (
	"context"
	"errors"
	"fmt"

	"kmirror/internal/wire"
)

// cursor looks up records of a log. Asked for one offset after another it reads the
// log once, and holds no more of it than one answer; it may be asked to go back.
type cursor struct {
	fetches
	end int64 // where reading ends

	since int64   // from here to the stretch there is nothing
	now   stretch // the one that was found last; before the first its end is behind since
	rest  []byte  // what follows it in the last answer
	over  int64   // an offset at or behind which there is nothing; 0: not known
}

// stretch is one batch of a log, or messages from before there were batches.
type stretch struct {
	first, last int64
	batch       wire.Batch    // nil: messages
	records     []wire.Record // of a batch: when open was called
	opened      bool
}

func newCursor(from partitionReader, topic string, partition int32, end int64) *cursor {
	return &cursor{fetches: fetches{from: from, topic: topic, partition: partition}, end: end, now: stretch{first: 0, last: -1}}
}

// at returns what holds an offset, or the first that stands behind it; nil where
// nothing does.
func (c *cursor) at(ctx context.Context, offset int64) (*stretch, error) {
	if c.over > 0 && offset >= c.over {
		return nil, nil
	}
	if offset >= c.since && offset <= c.now.last {
		return &c.now, nil
	}
	next := c.now.last + 1
	if offset < next { // back
		c.rest, next = nil, offset
	}
	c.since = offset
	for {
		found, err := c.parse(offset, &next)
		if err != nil || found {
			return &c.now, err
		}
		next = max(next, offset)
		if next >= c.end {
			c.over, c.rest, c.now = offset, nil, stretch{first: offset, last: offset - 1}
			return nil, nil
		}
		res, err := c.next(ctx, next)
		if err != nil {
			return nil, err
		}
		c.rest = res.Records
		if _, _, err := wire.NextBatch(c.rest); !errors.Is(err, wire.ErrPartialBatch) {
			continue
		}
		again, err := c.again(res, next)
		if err != nil {
			return nil, err
		}
		if !again {
			c.end = min(c.end, next)
		}
	}
}

// parse takes what is left of the last answer apart up to the stretch that holds the
// offset, or follows it; next is moved on behind what was passed over.
func (c *cursor) parse(offset int64, next *int64) (found bool, err error) {
	for len(c.rest) > 0 {
		b, after, err := wire.NextBatch(c.rest)
		s := stretch{batch: b}
		switch {
		case errors.Is(err, wire.ErrPartialBatch):
			c.rest = nil
			return false, nil
		case errors.Is(err, wire.ErrLegacyMagic):
			if s.records, _, after, err = wire.DecodeLegacy(c.rest, inflateLimit); err != nil {
				return false, fmt.Errorf("read %s/%d at %d: %w", c.topic, c.partition, *next, err)
			}
			if len(s.records) == 0 {
				c.rest = nil
				return false, nil
			}
			s.batch, s.opened = nil, true
			s.first, s.last = s.records[0].Offset, s.records[len(s.records)-1].Offset
		case err != nil:
			return false, fmt.Errorf("read %s/%d at %d: %w", c.topic, c.partition, *next, err)
		default:
			s.first, s.last = b.BaseOffset(), b.LastOffset()
		}
		c.rest, *next = after, max(*next, s.last+1)
		if s.last >= offset {
			c.now = s
			return true, nil
		}
	}
	return false, nil
}

// open returns the records of the stretch.
func (s *stretch) open() ([]wire.Record, error) {
	if s.opened {
		return s.records, nil
	}
	var err error
	if s.batch.NumRecords() > 0 {
		if err = s.batch.CheckCRC(); err == nil {
			s.records, err = s.batch.Records(inflateLimit)
		}
		if err != nil {
			return nil, fmt.Errorf("open the batch at %d: %w", s.first, err)
		}
	}
	s.opened = true
	return s.records, nil
}
