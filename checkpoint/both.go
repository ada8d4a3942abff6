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
// again; if there is none, the answer is exact.
//
// Where all of ours that is known to be mirrored has been read, the next one of
// ours may be there already all the same: our map is written behind, and may be
// older than theirs. But it was produced here behind the copies of all of theirs
// that were read, so it was appended there behind those.

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
	open := a.Shortfall > 0 || b.Shortfall > 0
	if end, _ := theirs.to(math.MaxInt64); b.Slack == 0 && b.Offset == end.Offset {
		open = true
		// All of theirs that came here is read: the next one there is one that their
		// flow has not dealt with.
		if through, ok := theirs.through(); ok && through >= b.Offset {
			b = Translation{Offset: through, Exact: true}
		}
	}
	read, ok := theirs.behind(offset)
	if !ok {
		return Translation{Offset: -1}, false
	}
	if end, _ := ours.to(math.MaxInt64); a.Offset == end.Offset {
		open = true
		a.Offset = max(a.Offset, read)
	}
	// Does anything that was read stand at or behind the answer?
	answer, again := a, read > a.Offset
	if b.Offset < a.Offset {
		next, known := ours.from(b.Offset)
		end, _ := ours.from(math.MaxInt64)
		answer, again = b, !known || next.Offset < offset && next.Offset < end.Offset
	}
	exact := (a.Exact || a.Before) && (b.Exact || b.Shortfall > 0 || b.Before) && a.Slack == 0 && b.Slack == 0 && !again
	return Translation{
		Offset: answer.Offset, Exact: exact, Slack: answer.Slack, Before: answer.Before,
		Shortfall: a.Shortfall, // beyond the end of their map stands what was produced here: no loss
		Open:      open,
	}, true
}
