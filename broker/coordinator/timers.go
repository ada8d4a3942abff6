package coordinator

import (
	"container/heap"
	"sync"
	"time"
)

// timerQueue holds when the machines of shards S want their next Tick. An entry may come too
// early, since heartbeats only move deadlines back; the machine then just asks
// again. Wake has a value when the head may have changed.
type timerQueue[S comparable] struct {
	wake chan struct{} // capacity 1

	mu    sync.Mutex
	items alarms[S] // guarded by mu
}

type alarm[S comparable] struct {
	at    time.Time
	shard S
	id    string // of the machine
}

func newTimerQueue[S comparable]() *timerQueue[S] {
	return &timerQueue[S]{wake: make(chan struct{}, 1)}
}

func (q *timerQueue[S]) add(a alarm[S]) {
	q.mu.Lock()
	heap.Push(&q.items, a)
	first := q.items[0] == a
	q.mu.Unlock()
	if first {
		select {
		case q.wake <- struct{}{}:
		default:
		}
	}
}

func (q *timerQueue[S]) next() (time.Time, bool) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if len(q.items) == 0 {
		return time.Time{}, false
	}
	return q.items[0].at, true
}

// due takes out everything up to now.
func (q *timerQueue[S]) due(now time.Time) (out []alarm[S]) {
	q.mu.Lock()
	defer q.mu.Unlock()
	for len(q.items) > 0 && !q.items[0].at.After(now) {
		out = append(out, heap.Pop(&q.items).(alarm[S]))
	}
	return out
}

type alarms[S comparable] []alarm[S]

func (a alarms[S]) Len() int           { return len(a) }
func (a alarms[S]) Less(i, j int) bool { return a[i].at.Before(a[j].at) }
func (a alarms[S]) Swap(i, j int)      { a[i], a[j] = a[j], a[i] }
func (a *alarms[S]) Push(x any)        { *a = append(*a, x.(alarm[S])) }
func (a *alarms[S]) Pop() any {
	last := (*a)[len(*a)-1]
	(*a)[len(*a)-1] = alarm[S]{}
	*a = (*a)[:len(*a)-1]
	return last
}
