package coordinator

import (
	"container/heap"
	"sync"
	"time"
)

// timerQueue holds when groups want their next Tick. An entry may come too
// early, since heartbeats only move deadlines back; the group then just asks
// again. Wake has a value when the head may have changed.
type timerQueue struct {
	wake chan struct{} // capacity 1

	mu    sync.Mutex
	items alarms // guarded by mu
}

type alarm struct {
	at    time.Time
	shard *shard
	group string
}

func newTimerQueue() *timerQueue { return &timerQueue{wake: make(chan struct{}, 1)} }

func (q *timerQueue) add(a alarm) {
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

func (q *timerQueue) next() (time.Time, bool) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if len(q.items) == 0 {
		return time.Time{}, false
	}
	return q.items[0].at, true
}

// due takes out everything up to now.
func (q *timerQueue) due(now time.Time) (out []alarm) {
	q.mu.Lock()
	defer q.mu.Unlock()
	for len(q.items) > 0 && !q.items[0].at.After(now) {
		out = append(out, heap.Pop(&q.items).(alarm))
	}
	return out
}

type alarms []alarm

func (a alarms) Len() int           { return len(a) }
func (a alarms) Less(i, j int) bool { return a[i].at.Before(a[j].at) }
func (a alarms) Swap(i, j int)      { a[i], a[j] = a[j], a[i] }
func (a *alarms) Push(x any)        { *a = append(*a, x.(alarm)) }
func (a *alarms) Pop() any {
	last := (*a)[len(*a)-1]
	(*a)[len(*a)-1] = alarm{}
	*a = (*a)[:len(*a)-1]
	return last
}
