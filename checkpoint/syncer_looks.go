package checkpoint

import "time"

const (
	// offsetsPerSecond bounds how many offsets are looked at, so that looking
	// costs the source a few requests a second and a small part of a core
	// whatever the number of groups: a thousand groups of a hundred partitions
	// are looked at once a second, a handful at every round.
	offsetsPerSecond = 200_000
	groupCost        = 20              // of a group beside its offsets, in offsets
	hotFor           = 5 * time.Second // after a change
	coldShare        = 0.2             // of the budget, at least, if there is not enough for all
)

// looks says whose turn it is to be looked at. Groups that have members, changed
// of late, or of which something is due come first; the others share what is
// left, the one that waits longest first. To follow __consumer_offsets instead
// would cost less still, but managed clusters let nobody read it, and its format
// is the broker's own. All methods are called with the syncer's mu held.
type looks struct {
	hot, cold queue
	tickets   uint64
	last      time.Time
}

// queue is first in, first out. An item whose group has another ticket by now
// is void.
type queue struct {
	items []queued
	head  int
}

type queued struct {
	g      *group
	ticket uint64
}

func (q *queue) push(g *group) { q.items = append(q.items, queued{g, g.ticket}) }

func (q *queue) len() int { return len(q.items) - q.head }

// pop returns nil for an item that is void.
func (q *queue) pop() *group {
	item := q.items[q.head]
	q.items[q.head] = queued{}
	if q.head++; q.head > 1024 && q.head > len(q.items)/2 {
		q.items = append(q.items[:0], q.items[q.head:]...)
		q.head = 0
	}
	if item.ticket != item.g.ticket {
		return nil
	}
	return item.g
}

// add puts a group in line, anew if it stands there already.
func (l *looks) add(g *group, hot bool) {
	l.tickets++
	g.ticket = l.tickets
	if hot {
		l.hot.push(g)
	} else {
		l.cold.push(g)
	}
}

// drop takes a group out of the line.
func (l *looks) drop(g *group) { g.ticket = 0 }

// choose returns whose turn it is. They are out of the line then.
func (l *looks) choose(now time.Time) (chosen []*group) {
	since := defaultInterval
	if !l.last.IsZero() {
		since = min(2*time.Second, max(leastPause, now.Sub(l.last)))
	}
	l.last = now
	budget := int(offsetsPerSecond * since.Seconds())
	reserve := int(coldShare * float64(budget))
	take := func(q *queue, n, floor int) (left int) {
		for ; n > 0 && budget > floor; n-- {
			if g := q.pop(); g != nil {
				chosen = append(chosen, g)
				budget -= groupCost + g.size
			}
		}
		return n
	}
	hot, cold := l.hot.len(), l.cold.len()
	hot = take(&l.hot, hot, reserve)
	take(&l.cold, cold, 0)
	take(&l.hot, hot, 0)
	for _, g := range chosen {
		l.drop(g)
	}
	return chosen
}

// hot is whether a group is looked at before others.
func (g *group) hot(now time.Time) bool {
	return g.busy || g.active && g.carry || g.dirty || now.UnixNano()-g.changed < int64(hotFor) || g.due()
}

func (g *group) due() bool {
	for _, p := range g.parts {
		if p.due {
			return true
		}
	}
	return false
}
