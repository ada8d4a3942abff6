package mirror

import (
	"sync"
)

// roster is who stands at one connection, on either side of a lane: the lanes
// that are fetched over it or produced over it, and, in the order in which they
// said so, those that have something to be done. Whoever serves the connection
// looks at these and not at all, so that ten thousand idle partitions cost it
// nothing.
//
// Its lock is a leaf: a lane calls it with its own held.
type roster[S member] struct {
	wake chan struct{} // capacity 1: look at the roster

	mu      sync.Mutex // guards the fields below
	members map[*lane]S
	ready   []S
	head    int
}

type member interface {
	comparable
	of() *lane
}

func newRoster[S member]() roster[S] {
	return roster[S]{wake: make(chan struct{}, 1), members: map[*lane]S{}}
}

func (r *roster[S]) enter(s S) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.members[s.of()] = s
}

// leave takes a lane off; what it has in the queue is passed over.
func (r *roster[S]) leave(l *lane) (s S, ok bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	s, ok = r.members[l]
	delete(r.members, l)
	return s, ok
}

// offer puts a member into the queue. It does not wake: whoever offers many
// wakes once.
func (r *roster[S]) offer(s S) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.head > 0 && len(r.ready) == cap(r.ready) {
		n := copy(r.ready, r.ready[r.head:])
		clear(r.ready[n:])
		r.ready, r.head = r.ready[:n], 0
	}
	r.ready = append(r.ready, s)
}

// next takes the first of the queue.
func (r *roster[S]) next() (s S, ok bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.head == len(r.ready) {
		if r.ready = r.ready[:0]; cap(r.ready) > 1<<12 {
			r.ready = nil
		}
		r.head = 0
		return s, false
	}
	var none S
	s, r.ready[r.head] = r.ready[r.head], none
	r.head++
	return s, true
}

// waiting is how many are in the queue.
func (r *roster[S]) waiting() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return len(r.ready) - r.head
}

// has says whether s is still a member.
func (r *roster[S]) has(s S) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.members[s.of()] == s
}

// busy says whether there is anybody.
func (r *roster[S]) busy() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return len(r.members) > 0
}

// all returns the members, in no order.
func (r *roster[S]) all() []S {
	r.mu.Lock()
	defer r.mu.Unlock()
	all := make([]S, 0, len(r.members))
	for _, s := range r.members {
		all = append(all, s)
	}
	return all
}

// rouse wakes whoever serves the connection if there is anything to do.
func (r *roster[S]) rouse() {
	if r.waiting() > 0 {
		poke(r.wake)
	}
}

// poke signals "there is work"; the work stands elsewhere.
func poke(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}
