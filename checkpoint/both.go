package checkpoint

import "math"

// A topic that two sites write and mirror to each other under one name (identity
// naming both ways) has its records on both sides, in different orders: those
// produced here come first here, those produced there come first there. Each
// direction's map knows the place of its own. Who stands at an offset here has
// read everything before it; there, that is all records of our map up to one
// place and all records of theirs up to another.
//
//	here    a1 a2 b1 a3 |b2 a4            read: a1 a2 b1 a3
//	there   b1 a1 b2 a2 a3 a4             our next unread is a4 (5), theirs is b2 (2)
//
// The answer is the lower of the two: everything unread lies at or beyond it, so
// nothing is skipped. What was read and lies beyond it (a2 and a3 above) is read
// again; if there is none, the answer is exact. Where all of ours that is mirrored
// has been read, theirs alone is the answer: what of ours is still to come there
// comes behind everything.

// joint translates an offset of one side of a shared partition to the other.
// Ours is the map of what was produced on the side that is asked from, theirs
// that of what was produced on the other, both asked from that side. It is not
// ok unless both are known: without one of them nobody can tell where its first
// unread record stands.
func joint(ours, theirs lookup, offset int64) (Translation, bool) {
	a, ok := ours.to(offset)
	if !ok {
		return Translation{Offset: -1}, false
	}
	b, ok := theirs.to(offset)
	if !ok {
		return Translation{Offset: -1}, false
	}
	if end, _ := theirs.to(math.MaxInt64); b.Slack == 0 && b.Offset == end.Offset {
		// All of theirs that came here is read: the next one there is one that their
		// flow has not dealt with.
		if through, ok := theirs.through(); ok && through >= b.Offset {
			b = Translation{Offset: through, Exact: true}
		}
	}
	answer, other, bound := a, theirs, b
	if end, _ := ours.to(math.MaxInt64); b.Offset < a.Offset || a.Offset == end.Offset {
		answer, other, bound = b, ours, a
	}
	// Of the other map's records those before bound are read. Is there one of
	// them at or behind the answer?
	exact := (a.Exact || a.Before) && (b.Exact || b.Shortfall > 0 || b.Before) && a.Slack == 0 && b.Slack == 0
	if exact && bound.Offset > answer.Offset {
		next, known := other.from(answer.Offset)
		exact = known && next.Offset >= offset
	}
	return Translation{
		Offset: answer.Offset, Exact: exact, Slack: answer.Slack, Before: answer.Before,
		Shortfall: a.Shortfall, // beyond the end of their map stands what was produced here: no loss
	}, true
}
