package verify

import (
	"context"
	"slices"

	"github.com/cespare/xxhash/v2"

	"kmirror/checkpoint"
	"kmirror/internal/wire"
)

// Where a run of the map is loose (it was thinned, or learned from MirrorMaker
// 2's syncs), what follows up to the next run is mirrored, but the map does not
// say which target offset each record has. There the source's records are looked
// for among the target's, in order: target records that fit none count as others'.

// window bounds how many target records a source record is looked for among,
// and so how many of others may stand in a row.
const window = 4096

// candidate is a target record of a loose stretch that fits no source record yet.
type candidate struct {
	offset int64
	sum    uint64
	owned  bool
	batch  wire.Batch // its header, if owned: many of these wait, and batches may be large
}

// loosely is the stretch before the i-th run, if the map knows it roughly only.
func (p *Partition) loosely(i int) bool {
	return i > 0 && i < len(p.Runs) && p.Runs[i-1].Loose
}

// lookFor looks for the source record at s among the target records that stand
// before the i-th run.
func (c *comparison) lookFor(ctx context.Context, s int64, next *checkpoint.Run) (found bool, err error) {
	source, err := c.src.record()
	if err != nil {
		return false, err
	}
	sums := map[bool]uint64{} // by whether the target stamps records
	sum := func(stamped bool) uint64 {
		if _, ok := sums[stamped]; !ok {
			c.sums.buf = appendRecord(c.sums.buf[:0], source, stamped)
			sums[stamped] = xxhash.Sum64(c.sums.buf)
		}
		return sums[stamped]
	}
	for i := 0; ; i++ {
		if i == len(c.pending) {
			if i == window {
				return false, nil
			}
			more, err := c.draw(ctx, next)
			if err != nil || !more {
				return false, err
			}
		}
		if c.pending[i].sum != sum(c.stamped) {
			continue
		}
		c.surplus(i)
		c.pending = c.pending[1:]
		c.r.Tally.Records++
		c.r.Tally.Approximate++
		c.sums.same(source, c.stamped)
		c.src.advance(s)
		return true, nil
	}
}

// draw takes one more target record of the stretch before next.
func (c *comparison) draw(ctx context.Context, next *checkpoint.Run) (bool, error) {
	t, there, err := c.dst.look(ctx)
	if err != nil || !there || t >= next.Target {
		return false, err
	}
	at := c.dst.pieces[0]
	c.stamped = at.stamped
	target, err := c.dst.record()
	if err != nil {
		return false, err
	}
	c.sums.buf = appendRecord(c.sums.buf[:0], target, at.stamped)
	k := candidate{offset: t, sum: xxhash.Sum64(c.sums.buf)}
	if c.ours(at.batch) {
		k.owned, k.batch = true, slices.Clone(at.batch[:wire.BatchHeaderSize])
	}
	c.pending = append(c.pending, k)
	c.dst.advance(t)
	return true, nil
}

// surplus gives up on the first n candidates: they fit nothing.
func (c *comparison) surplus(n int) {
	for _, k := range c.pending[:n] {
		if k.owned {
			c.differ(c.unexplained(k.batch, k.offset), 1)
		} else {
			c.r.Tally.Strangers++
		}
	}
	c.pending = c.pending[n:]
}
