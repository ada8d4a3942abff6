package verify

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"

	"kmirror/internal/wire"
)

// cursor walks the records of one side that consumers see, in order.
type cursor struct {
	in   <-chan haul
	next int64 // everything before was dealt with
	end  int64 // offsets from here on are not looked at

	pieces  []piece       // read and not yet walked, the present one first
	records []wire.Record // of the present piece, once it was opened
	opened  bool
	i       int // the present record

	inflated []byte // see inflate

	logStart int64 // -1: not told
	logEnd   int64 // where the log ended before it reached end; -1: it has not
	passed   int64 // bytes of the pieces walked

	corrupt []unreadable
}

// unreadable is a batch that was passed over.
type unreadable struct {
	first, last int64
	err         error
	told        bool
}

func (u unreadable) holds(offset int64) bool { return u.first <= offset && offset <= u.last }

// maxUnreadable bounds how many are remembered; with more of them something is
// wrong with the log as a whole.
const maxUnreadable = 1000

// look is peek, with the end as no error.
func (c *cursor) look(ctx context.Context) (offset int64, more bool, err error) {
	offset, err = c.peek(ctx)
	if errors.Is(err, errEnded) {
		return 0, false, nil
	}
	return offset, err == nil, err
}

// peek is the offset of the next record. The error is errEnded at the end.
func (c *cursor) peek(ctx context.Context) (int64, error) {
	for {
		if len(c.pieces) == 0 {
			if err := c.pull(ctx); err != nil {
				return 0, err
			}
			continue
		}
		p := &c.pieces[0]
		if p.last < c.next {
			c.leave()
			continue
		}
		if p.first >= c.end {
			return 0, errEnded
		}
		switch {
		case p.corrupt != nil:
			if len(c.corrupt) == maxUnreadable {
				return 0, fmt.Errorf("more than %d batches are corrupt: %w", maxUnreadable, p.corrupt)
			}
			c.corrupt = append(c.corrupt, unreadable{first: p.first, last: p.last, err: p.corrupt})
			c.leave()
			continue
		case p.hidden || p.batch != nil && p.batch.NumRecords() == 0:
			c.leave()
			continue
		case !c.opened && c.contiguous(p):
			return max(p.first, c.next), c.within(max(p.first, c.next))
		}
		if err := c.open(); err != nil {
			return 0, err
		}
		if c.i == len(c.records) {
			c.leave()
			continue
		}
		offset := c.records[c.i].Offset
		return offset, c.within(offset)
	}
}

func (c *cursor) within(offset int64) error {
	if offset >= c.end {
		return errEnded
	}
	return nil
}

func (c *cursor) contiguous(p *piece) bool {
	return p.batch != nil && int64(p.batch.LastOffsetDelta())+1 == int64(p.batch.NumRecords())
}

// pull takes the next haul.
func (c *cursor) pull(ctx context.Context) error {
	if c.next >= c.end || c.logEnd >= 0 {
		return errEnded
	}
	select {
	case h, more := <-c.in:
		switch {
		case h.err != nil && len(h.pieces) == 0:
			return h.err
		case !more && ctx.Err() != nil:
			return context.Cause(ctx)
		case !more:
			return errEnded
		}
		c.pieces = h.pieces
		c.logStart = max(c.logStart, h.logStart)
		if h.ended {
			c.logEnd = h.next
		}
		if h.err != nil { // after what was still good
			c.in = failed(h.err)
		}
		if len(h.pieces) == 0 {
			c.next = max(c.next, h.next)
		}
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

func failed(err error) <-chan haul {
	out := make(chan haul, 1)
	out <- haul{err: err}
	close(out)
	return out
}

// open decodes the present piece and stands at its first record from next on.
func (c *cursor) open() error {
	if c.opened {
		return nil
	}
	p := &c.pieces[0]
	c.records = p.records
	if p.batch != nil {
		plain, err := c.inflate(p.batch)
		if err == nil {
			c.records, err = plain.Records(inflateLimit)
		}
		if err != nil {
			return fmt.Errorf("batch at %d: %w", p.first, err)
		}
	}
	c.opened = true
	c.i, _ = slices.BinarySearchFunc(c.records, c.next, func(r wire.Record, next int64) int { return cmp.Compare(r.Offset, next) })
	return nil
}

// inflate is a batch without compression, in memory that is good until the next
// one: a codec may ask for much more of it than it fills.
func (c *cursor) inflate(b wire.Batch) (wire.Batch, error) {
	if b.Codec() == wire.CodecNone {
		return b, nil
	}
	out, err := wire.Decompress(append(c.inflated[:0], b[:wire.BatchHeaderSize]...), b.Codec(), b[wire.BatchHeaderSize:], inflateLimit)
	if err != nil {
		return nil, err
	}
	c.inflated = out
	const codec = 22 // the lower byte of the attributes
	out[codec] &^= 0x07
	return wire.Batch(out), nil
}

// record is the record that peek found.
func (c *cursor) record() (*wire.Record, error) {
	if err := c.open(); err != nil {
		return nil, err
	}
	return &c.records[c.i], nil
}

// advance goes behind the record that peek found.
func (c *cursor) advance(offset int64) {
	c.next = offset + 1
	if c.opened {
		c.i++
	}
}

// whole is the present batch if nothing of it was walked and all of it is wanted.
func (c *cursor) whole() (wire.Batch, bool) {
	p := &c.pieces[0]
	if c.opened || !c.contiguous(p) || p.first < c.next || p.last >= c.end {
		return nil, false
	}
	return p.batch, true
}

// leave goes behind the present piece.
func (c *cursor) leave() {
	p := &c.pieces[0]
	c.passed += p.size
	c.next = max(c.next, p.last+1)
	c.pieces[0] = piece{}
	c.pieces = c.pieces[1:]
	c.records, c.opened, c.i = nil, false, 0
}

// passedOver says whether a batch at an offset was unreadable.
func (c *cursor) passedOver(offset int64) bool {
	return slices.ContainsFunc(c.corrupt, func(u unreadable) bool { return u.holds(offset) })
}
