package checkpoint

import (
	"kmirror/internal/wire"
)

// MapTopic is compacted: what nobody needs any more has to be deleted by somebody.
// That is done by whoever holds the partition, and by nobody else, under the identity
// by which he can be ended: his deletions come after all that his predecessors wrote,
// and are refused once a successor has ended him.
//
// What may go, and why nobody misses it:
//
//   - Full blocks of the map that end at or below the start of the target's log. No
//     offset there can be read. The block in which the log begins stays, and the open
//     one, so that the map is never empty and the highest generation never lost. A
//     block goes only with those of lower generations that it voids (see Filed).
//   - Anchors that concern only what stands before the log's start, by the map as it
//     is in the topic (see Ledger.Past). The position is the later of tail and map:
//     batches behind the end of the map keep their anchors, and so does the last
//     batch before it. Where an epoch or the first one began is asked for only while
//     the map is empty, and then nothing goes.
//   - Of more than 100 000 steps the older half, though their batches still stand in
//     the target (a compacted topic never loses them). Verifying the map after an
//     unclean election ends where the ledger begins; if the log was cut off before
//     that, the position is in doubt and the partition stops.
//   - Of more than 100 000 runs all but about half, below the lowest offset that a
//     group of the flow stands on, on either side (see Loaded.Thin). They leave loose
//     runs: nothing is skipped, some records might be read again.
//   - Anchors of epochs that wrote nothing, when the next epoch begins there (see
//     Ledger.Idle): whoever begins it has seen the whole tail.
//   - What is left of a topic that was deleted and made anew on both sides, a week
//     after (see Forget, which also says what nobody deletes, and why).
//
// The decision is made from the topic as it was read once, so it holds whatever is
// added meanwhile: the start of a log only grows, the map's end only grows, and what
// is cut off or begun anew comes under a higher generation or another topic's key. A
// crash between any two of the records, which are written in their order, leaves a
// shorter ledger whose oldest part is gone, and a map that says the same: the next
// pass finds the rest.

// Limits bound what is kept of a partition.
type Limits struct {
	Runs  int // of the offset map, above which it is thinned
	Steps int // of the ledger
}

// DefaultLimits are 100 000 runs (3 MB in memory) and steps of each partition.
func DefaultLimits() Limits { return Limits{Runs: 100_000, Steps: 100_000} }

// maxChores bounds the records of one pass over a partition.
const maxChores = 50_000

// Needs is what is known of the two sides of a partition.
type Needs struct {
	LogStart int64 // where the target's log begins; -1 not known
	Lowest   int64 // the lowest source offset that a group may still ask for; -1 not known
}

// Chores is what can be done for a partition: Records are to be written in their
// order, and a part of them only from its beginning.
type Chores struct {
	Records []wire.Record
	Thinned int // records that replace others
	Blocks  int // deleted
	Anchors int // deleted
}

// Housekeep decides what of a partition can go. The Loaded is of the one who holds
// the partition, and is used up.
func Housekeep(k Key, l Loaded, needs Needs, limits Limits) Chores {
	var c Chores
	end, _, _ := l.Runs.End()
	some := false
	l.Runs.All(func(Run) bool { some = true; return false })
	if !some {
		return c
	}
	past := int64(-1)
	if needs.LogStart > 0 {
		past = l.Runs.Backward(needs.LogStart).Offset
	}
	if l.Ledger.Len() > limits.Steps {
		if recent, ok := l.Ledger.Recent(max(1, limits.Steps/2)); ok {
			past = max(past, recent)
		}
	}
	if l.Runs.Len() > limits.Runs && needs.Lowest >= 0 {
		write, gone := l.Thin(k, needs.Lowest, max(1, limits.Runs/2))
		if len(gone) == 0 { // it has been thinned as far as it may
			write = nil
		}
		for _, b := range write {
			c.add(EncodeBlock(b), &c.Thinned)
		}
		for _, b := range gone {
			c.add(EncodeDeleted(b), &c.Blocks)
		}
		l.Filed.Add(write...)
		l.Filed.Remove(gone...)
	}
	if needs.LogStart > 0 {
		for _, b := range l.Filed.Below(k, needs.LogStart) {
			c.add(EncodeDeleted(b), &c.Blocks)
		}
	}
	if past >= 0 {
		for _, a := range l.Ledger.Past(min(past, end)) {
			a.Key = k
			c.add(EncodeDeleted(a), &c.Anchors)
		}
	}
	return c
}

func (c *Chores) add(rec wire.Record, count *int) {
	if len(c.Records) < maxChores {
		c.Records = append(c.Records, rec)
		*count++
	}
}
