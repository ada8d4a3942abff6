package mirror

import (
	"context"
	"errors"
	"fmt"

	"kmirror/checkpoint"
	"kmirror/internal/mm2"
)

// comparison is one partition whose copy is compared with its source.
type comparison struct {
	heir           *mm2Heir
	id             partitionID
	syncs          *mm2.Syncs
	source, target logReader
	start, end     int64 // of the target's log
}

const (
	mm2Anchors = 8   // offset syncs that are tried, the newest first
	mm2Before  = 200 // source offsets before an anchor that an attempt may have begun at
)

// place finds where the copy ends. Its errors are those of reading, *undecidedError,
// and an incident's.
func (c *comparison) place(ctx context.Context, stored int64) (mm2.Place, error) {
	first, end, err := ends(ctx, c.source.from, c.id.Topic, c.id.Partition)
	if err != nil {
		return mm2.Place{}, err
	}
	place, err := c.compare(ctx, stored, first)
	var mismatch *mm2.MismatchError
	var alike *mm2.AmbiguousError
	var limit *tailLimitError
	if err == nil || !errors.As(err, &mismatch) && !errors.As(err, &alike) && !errors.As(err, &limit) {
		return place, err
	}
	place = mm2.Place{Next: stored + 1}
	if place.Next >= first { // is there anything that could be copied twice?
		more := false
		read := c.source.read(ctx, place.Next, end, func(x mm2.Record) bool {
			more = more || !x.Aborted
			return !more
		})
		if read != nil || !more {
			return place, read
		}
	}
	if place.Next < first && end == first { // nor is there here
		return mm2.Place{Next: first}, nil
	}
	in := about(c.id, KindTakeoverUnproven, fmt.Sprintf("where MirrorMaker 2 stopped copying %s/%d cannot be proven: it stored %d, and %v", c.id.Topic, c.id.Partition, stored, err), "")
	in.SourceOffset, in.TargetOffset = stored+1, c.end
	if alike != nil {
		in.Count = alike.Highest - alike.Lowest
	}
	return place, c.heir.decide(c.id, false, in)
}

// compare tries what can anchor the comparison, one after the other.
func (c *comparison) compare(ctx context.Context, stored, first int64) (place mm2.Place, err error) {
	tried := 0
	err = &mm2.MismatchError{Target: c.start, What: "there is nothing to compare"}
	var stop error
	c.syncs.Newest(func(anchor mm2.Pair) bool {
		if anchor.Source < first || anchor.Target < c.start || anchor.Target >= c.end {
			return anchor.Target >= c.start
		}
		var found error
		if place, found = c.anchored(ctx, anchor, stored, first); found == nil {
			err = nil
			return false
		}
		if !answers(found) {
			stop = found
			return false
		}
		if tried == 0 {
			err = found
		}
		tried++
		return tried < mm2Anchors
	})
	if stop != nil || err == nil {
		return place, stop
	}
	for window := int64(1000); ; window *= 16 {
		from, back := max(c.start, c.end-window), max(first, stored+1-window)
		var found error
		if place, found = c.window(ctx, from, back, stored); found == nil {
			return place, nil
		}
		if !answers(found) {
			return place, found
		}
		if tried == 0 {
			err = found
		}
		if from == c.start && back == first || window >= mm2TailRecords {
			return mm2.Place{}, err
		}
	}
}

// answers says that an error is about the logs, and not about reading them.
func answers(err error) bool {
	var mismatch *mm2.MismatchError
	var alike *mm2.AmbiguousError
	var limit *tailLimitError
	return errors.As(err, &mismatch) || errors.As(err, &alike) || errors.As(err, &limit)
}

// anchored compares from an offset sync on.
func (c *comparison) anchored(ctx context.Context, anchor mm2.Pair, stored, first int64) (mm2.Place, error) {
	t := mm2.Tail{Stored: stored, Anchor: -1}
	var err error
	if t.Target, err = c.target.target(ctx, anchor.Target, c.end); err != nil {
		return mm2.Place{}, err
	}
	if len(t.Target) == 0 || t.Target[0].Offset != anchor.Target {
		return mm2.Place{}, &mm2.MismatchError{Target: anchor.Target, First: true, What: "the record of the offset sync is gone"}
	}
	from := max(first, min(anchor.Source, stored+1)-mm2Before)
	if t.Source, err = c.source.source(ctx, from, max(stored, anchor.Source), len(t.Target)); err != nil {
		return mm2.Place{}, err
	}
	for i := range t.Source {
		if t.Source[i].Offset == anchor.Source {
			t.Anchor = i
		}
	}
	if t.Anchor < 0 {
		return mm2.Place{}, &mm2.MismatchError{Target: anchor.Target, First: true, What: fmt.Sprintf("source offset %d, of which it should be the copy, is gone", anchor.Source)}
	}
	return mm2.Align(t)
}

// window compares the target from an offset on with the source from another on.
func (c *comparison) window(ctx context.Context, from, back, stored int64) (mm2.Place, error) {
	t := mm2.Tail{Stored: stored, Anchor: -1}
	var err error
	if t.Target, err = c.target.target(ctx, from, c.end); err != nil {
		return mm2.Place{}, err
	}
	if len(t.Target) == 0 {
		return mm2.Place{}, &mm2.MismatchError{Target: from, First: true, What: "the target holds nothing there"}
	}
	if t.Source, err = c.source.source(ctx, back, stored, len(t.Target)); err != nil {
		return mm2.Place{}, err
	}
	if len(t.Source) == 0 {
		return mm2.Place{}, &mm2.MismatchError{Target: from, First: true, What: "the source holds nothing to compare it with"}
	}
	return mm2.Align(t)
}

// bequeath fills the empty map with what is known of MirrorMaker 2's copy: the start of
// the target's log, the offset syncs that lie before what was compared, what was
// compared, and where it ends.
//
// Between syncs nothing is known, so they are loose: an offset there is translated to
// the place behind the sync before it, which is MirrorMaker 2's own rule (offset + 1).
func (c *comparison) bequeath(ctx context.Context, runs *checkpoint.Runs, place mm2.Place) error {
	upTo := mm2.Pair{Source: place.Next, Target: c.end}
	if len(place.Pairs) > 0 {
		upTo = place.Pairs[0]
	}
	known := c.syncs.Below(upTo.Source, upTo.Target)
	gone := mm2.Pair{Source: -1} // the newest sync whose record the target no longer has
	for len(known) > 0 && known[0].Target < c.start {
		gone, known = known[0], known[1:]
	}
	next := upTo
	if len(known) > 0 {
		next = known[0]
	}
	base, ok, err := c.base(ctx, gone.Source, next)
	if err != nil {
		return err
	}
	add := func(run checkpoint.Run) {
		if err == nil {
			err = runs.Add(run)
		}
	}
	if ok {
		add(checkpoint.Run{Source: base.Source, Target: base.Target, Count: 1, Loose: true})
	}
	for _, p := range known {
		add(checkpoint.Run{Source: p.Source, Target: p.Target, Count: 1, Loose: true})
	}
	for i := 0; i < len(place.Pairs); {
		run := checkpoint.Run{Source: place.Pairs[i].Source, Target: place.Pairs[i].Target}
		for ; i < len(place.Pairs) && place.Pairs[i].Source-run.Source == run.Count && place.Pairs[i].Target-run.Target == run.Count; i++ {
			run.Count++
		}
		run.Loose = i == len(place.Pairs) // what MirrorMaker 2 doubled may follow
		add(run)
	}
	if err != nil {
		return fmt.Errorf("take MirrorMaker 2's offset syncs into the map: %w", err)
	}
	runs.Begin(place.Next, c.end)
	return nil
}

// mm2Base bounds the source records among which that of the target's first is looked for.
const mm2Base = 10_000

// base is a place at the start of the target's log, if something lies there before the
// first place that is known: without it, that would seem not to be in the target. It is
// not ok where there is nothing.
//
// Where retention has been at both logs, whatever the source still has is sent to the
// start of the target's log, and the other way round. Else the source record is looked
// for that the target's first one is a copy of. Where it is not found, the last source
// offset before the known place stands for it: a group before it is sent to the start of
// the log, and skips nothing.
func (c *comparison) base(ctx context.Context, after int64, before mm2.Pair) (mm2.Pair, bool, error) {
	var first *mm2.Record
	err := c.target.read(ctx, c.start, min(c.end, before.Target), func(x mm2.Record) bool {
		if !x.Aborted {
			first = &x
		}
		return first == nil
	})
	if err != nil || first == nil || before.Source == 0 {
		return mm2.Pair{}, false, c.explain(err)
	}
	start, err := c.source.from.ListOffset(ctx, c.id.Topic, c.id.Partition, atEarliest)
	if err != nil {
		return mm2.Pair{}, false, fmt.Errorf("read the start of %s/%d: %w", c.id.Topic, c.id.Partition, err)
	}
	if start > 0 && start <= before.Source && c.start > 0 {
		return mm2.Pair{Source: start - 1, Target: c.start - 1}, true, nil
	}
	base := mm2.Pair{Source: before.Source - 1, Target: first.Offset}
	found, alike, seen := int64(-1), 0, 0
	err = c.source.read(ctx, max(start, after+1), before.Source, func(x mm2.Record) bool {
		if first.Copies(x) {
			found = x.Offset
			alike++
		}
		seen++
		return seen < mm2Base
	})
	if err != nil {
		return base, false, err
	}
	if alike == 1 && seen < mm2Base {
		base.Source = found
	}
	return base, true, nil
}
