package verify

import (
	"bytes"
	"context"
	"fmt"

	"kmirror/internal/wire"
)

// comparison joins the two sides of a range by the map: each record with its
// counterpart, each that has none with the reason why.
type comparison struct {
	p         *Partition
	r         Range
	src, dst  *cursor
	sums      *folding
	show      bool
	canonical bool
	carried   int64 // bytes that the range had before

	pending []candidate // see lookFor
	stamped bool        // the target stamps records by itself, as far as was seen in the present loose stretch
}

func newComparison(p *Partition, r Range) *comparison {
	return &comparison{p: p, r: r, sums: newFolding(r.Digest), carried: r.Tally.Bytes}
}

// step deals with the next record or batch of one side, or of both. done: there
// is no more.
func (c *comparison) step(ctx context.Context) (done bool, err error) {
	s, more, err := c.src.look(ctx)
	if err != nil {
		return false, err
	}
	t, there, err := c.dst.look(ctx)
	if err != nil {
		return false, err
	}
	c.unreadable()
	if len(c.pending) > 0 && (!more || !c.p.loosely(c.p.bySource(s)) || c.p.maps(s)) {
		c.surplus(len(c.pending))
	}
	if !there {
		if !more {
			return true, nil
		}
		return false, c.alone(ctx, s)
	}
	m, mapped := c.p.counterpart(t)
	i := c.p.byTarget(t)
	switch {
	case !mapped && more && c.p.loosely(i) && s < c.p.Runs[i].Source:
		err = c.alone(ctx, s)
	case !mapped:
		c.unmapped(t)
	case !more || s > m:
		err = c.extra(m, t)
	case s < m:
		err = c.alone(ctx, s)
	default:
		err = c.pair(s, t)
	}
	return false, err
}

// pair compares the records that the map pairs, or the batches as they stand.
func (c *comparison) pair(s, t int64) error {
	a, wholeA := c.src.whole()
	b, wholeB := c.dst.whole()
	if wholeA && wholeB && !c.canonical && c.inOneRun(t, int64(a.NumRecords())) && identical(a, b) {
		c.sums.batch(a)
		c.r.Tally.Records += int64(a.NumRecords())
		c.r.Tally.Batches++
		c.src.leave()
		c.dst.leave()
		return nil
	}
	stamped := c.dst.pieces[0].stamped
	source, err := c.src.record()
	if err != nil {
		return err
	}
	target, err := c.dst.record()
	if err != nil {
		return err
	}
	c.r.Tally.Records++
	if equal(source, target, stamped) {
		c.sums.same(source, stamped)
	} else {
		d := changed(source, target, stamped, c.show)
		c.differ(d, 1)
		c.sums.differing(source, target, stamped)
	}
	c.src.advance(s)
	c.dst.advance(t)
	return nil
}

// inOneRun says whether n target offsets from t on are paired without a break.
func (c *comparison) inOneRun(t, n int64) bool {
	run := c.p.Runs[c.p.byTarget(t)]
	return run.Target+run.Count-t >= n
}

// identical says whether two batches hold the same records, without opening
// them: only what a mirror changes in a header differs. False means: not known.
func identical(source, target wire.Batch) bool {
	return len(source) == len(target) &&
		source.NumRecords() == target.NumRecords() &&
		source.Codec() == target.Codec() &&
		source.BaseTimestamp() == target.BaseTimestamp() &&
		!source.IsLogAppendTime() && !source.HasDeleteHorizon() && !target.HasDeleteHorizon() &&
		bytes.Equal(source[wire.BatchHeaderSize:], target[wire.BatchHeaderSize:])
}

// extra is a target record whose counterpart the source does not show.
func (c *comparison) extra(m, t int64) error {
	switch {
	case m < c.src.logStart, c.src.passedOver(m), c.p.SourceCompacts:
		c.r.Tally.Gone++
		c.dst.advance(t)
		return nil
	}
	d := Difference{Kind: Extra, SourceOffset: m, TargetOffset: t}
	d.Detail = "the target's record carries this source offset, where the source has no record that consumers see"
	if c.src.logEnd >= 0 && m >= c.src.logEnd {
		d.Detail = fmt.Sprintf("the source ends at %d and had been mirrored further: it lost its newest records, or is another topic of the same name", c.src.logEnd)
	}
	target, err := c.dst.record()
	if err != nil {
		return err
	}
	c.differ(d, 1)
	c.sums.differing(nil, target, c.dst.pieces[0].stamped)
	c.dst.advance(t)
	return nil
}

// alone is a source record that has no counterpart, or one that the target does
// not show.
func (c *comparison) alone(ctx context.Context, s int64) error {
	i := c.p.bySource(s)
	if c.p.maps(s) {
		return c.absent(s, c.p.place(s))
	}
	if c.src.pieces[0].loops {
		n := int64(1)
		if b, ok := c.src.whole(); ok && (i == len(c.p.Runs) || b.LastOffset() < c.p.Runs[i].Source) {
			n = int64(b.NumRecords())
			c.src.leave()
		} else {
			c.src.advance(s)
		}
		c.r.Tally.LeftOut += n
		return nil
	}
	source, err := c.src.record()
	if err != nil {
		return err
	}
	if c.p.Filter != nil && c.p.Filter.Drops(source.Key, headersOf(source)) {
		c.r.Tally.LeftOut++
		c.src.advance(s)
		return nil
	}
	if c.p.Letters != nil {
		aside, err := c.p.Letters(ctx, s)
		if err != nil {
			return err
		}
		if aside {
			c.r.Tally.SetAside++
			c.src.advance(s)
			return nil
		}
	}
	if c.p.loosely(i) {
		found, err := c.lookFor(ctx, s, &c.p.Runs[i])
		if err != nil || found {
			return err
		}
		if before := c.p.Runs[i-1]; c.p.TargetCompacts || before.Target+before.Count < c.dst.logStart || len(c.dst.corrupt) > 0 {
			c.r.Tally.Gone++
			c.src.advance(s)
			return nil
		}
	}
	d := Difference{
		Kind: Missing, SourceOffset: s, TargetOffset: -1,
		Detail: fmt.Sprintf("the record is not in the target: the map passes it over (it would stand before target offset %d)", c.p.place(s)),
	}
	if doubt := c.src.pieces[0].doubt; doubt != nil {
		d.Detail += fmt.Sprintf("; it may be one that the flow leaves out: %v", doubt)
	}
	c.differ(d, 1)
	c.sums.differing(source, nil, false)
	c.src.advance(s)
	return nil
}

// absent is a source record that should stand at target offset t, where the
// target shows none.
func (c *comparison) absent(s, t int64) error {
	if t < c.dst.logStart || c.dst.passedOver(t) || c.p.TargetCompacts {
		c.r.Tally.Gone++
		c.src.advance(s)
		return nil
	}
	source, err := c.src.record()
	if err != nil {
		return err
	}
	d := Difference{Kind: Missing, SourceOffset: s, TargetOffset: t, Detail: "the record is not in the target: by the map it stands at this target offset, where there is none"}
	if c.dst.logEnd >= 0 && t >= c.dst.logEnd {
		d.Detail = fmt.Sprintf("the record is not in the target: by the map it stands at this target offset, and the target ends at %d", c.dst.logEnd)
	}
	c.differ(d, 1)
	c.sums.differing(source, nil, false)
	c.src.advance(s)
	return nil
}

func headersOf(r *wire.Record) func(yield func(string, []byte) bool) {
	return func(yield func(string, []byte) bool) {
		for _, h := range r.Headers {
			if !yield(h.Key, h.Value) {
				return
			}
		}
	}
}

// unmapped is a target record that the map does not know: a stranger's, or one
// of ours too much.
func (c *comparison) unmapped(t int64) {
	n, whole := int64(1), false
	b := c.dst.pieces[0].batch
	if batch, ok := c.dst.whole(); ok {
		if i := c.p.byTarget(t); i == len(c.p.Runs) || batch.LastOffset() < c.p.Runs[i].Target {
			n, whole = int64(batch.NumRecords()), true
		}
	}
	if c.ours(b) {
		c.differ(c.unexplained(b, t), n)
	} else {
		c.r.Tally.Strangers += n
	}
	if whole {
		c.dst.leave()
	} else {
		c.dst.advance(t)
	}
}

// ours says whether a batch of the target is this flow's.
func (c *comparison) ours(b wire.Batch) bool {
	return b != nil && b.ProducerID() >= 0 && c.p.Owns != nil && c.p.Owns(b.ProducerID(), b.ProducerEpoch())
}

func (c *comparison) unexplained(b wire.Batch, t int64) Difference {
	d := Difference{Kind: Unexplained, SourceOffset: -1, TargetOffset: t, Detail: "this flow wrote the record, and its map does not know it"}
	if c.p.Carries == nil || b.BaseSequence() < 0 {
		return d
	}
	sequence := int32((int64(b.BaseSequence()) + t - b.BaseOffset()) & (1<<31 - 1))
	source, ok := c.p.Carries(b.ProducerID(), b.ProducerEpoch(), sequence)
	if !ok {
		return d
	}
	d.SourceOffset = source
	if c.p.maps(source) {
		d.Detail = fmt.Sprintf("the record stands twice: by the map this source offset is target offset %d", c.p.place(source))
	}
	return d
}

// unreadable takes note of batches whose checksum is wrong.
func (c *comparison) unreadable() {
	for _, at := range []struct {
		*cursor
		target bool
	}{{c.src, false}, {c.dst, true}} {
		for i := range at.corrupt {
			u := &at.corrupt[i]
			if u.told {
				continue
			}
			u.told = true
			d := Difference{Kind: Corrupt, SourceOffset: u.first, TargetOffset: -1, Detail: fmt.Sprintf("a corrupt batch in the source, offsets %d to %d: %v", u.first, u.last, u.err)}
			if at.target {
				d.SourceOffset, d.TargetOffset = -1, u.first
				if m, ok := c.p.counterpart(u.first); ok {
					d.SourceOffset = m
				}
				d.Detail = fmt.Sprintf("a corrupt batch in the target, offsets %d to %d: %v", u.first, u.last, u.err)
			}
			c.r.Tally.Corrupt++
			c.differ(d, 1)
		}
	}
}

// differ counts n differences and keeps the first.
func (c *comparison) differ(d Difference, n int64) {
	c.r.Tally.Differences += n
	c.sums.part(d.Kind)
	if c.r.First == nil {
		d.Topic, d.Partition, d.TargetTopic = c.p.Topic, c.p.Number, c.p.TargetTopic
		c.r.First = &d
	}
}

// settled says whether all that is known can be put into a Range: no batch was
// passed over whose counterpart is still to come.
func (c *comparison) settled() bool {
	if len(c.pending) > 0 {
		return false
	}
	for _, u := range c.src.corrupt {
		if c.p.place(u.last+1) > c.dst.next {
			return false
		}
	}
	for _, u := range c.dst.corrupt {
		if m, ok := c.p.counterpart(u.last); ok && m >= c.src.next {
			return false
		}
	}
	return true
}

// snapshot is the range as it stands.
func (c *comparison) snapshot() Range {
	r := c.r
	if r.Done {
		r.Digest = c.sums.digest(false)
		return r
	}
	r.Next, r.TargetNext = c.src.next, c.dst.next
	r.Tally.Bytes = c.carried + c.src.passed
	r.Digest = c.sums.digest(true)
	return r
}

// finish ends the range.
func (c *comparison) finish() {
	c.r.Tally.Bytes = c.carried + c.src.passed
	c.src.next, c.dst.next = c.r.To, c.r.TargetTo // what is left holds nothing
	c.r.Done, c.r.Next, c.r.TargetNext = true, c.r.To, c.r.TargetTo
}
