package storage

import "slices"

// Waiter is woken when one of the logs that it watches moves: high watermark,
// log start, failure or deletion. A wake-up is a hint, not an event: look again.
type Waiter struct {
	C chan struct{} // capacity 1
}

// NewWaiter makes a Waiter that watches nothing yet.
func NewWaiter() *Waiter { return &Waiter{C: make(chan struct{}, 1)} }

// Watch wakes w from now on. Look at the log again after Watch, before waiting.
func (l *Log) Watch(w *Waiter) {
	l.watchMu.Lock()
	defer l.watchMu.Unlock()
	l.watchers = append(l.watchers, w)
	l.watched.Store(int32(len(l.watchers)))
}

// Unwatch undoes one Watch of w.
func (l *Log) Unwatch(w *Waiter) {
	l.watchMu.Lock()
	defer l.watchMu.Unlock()
	if i := slices.Index(l.watchers, w); i >= 0 {
		last := len(l.watchers) - 1
		l.watchers[i], l.watchers[last] = l.watchers[last], nil
		l.watchers = l.watchers[:last]
	}
	l.watched.Store(int32(len(l.watchers)))
}

func (l *Log) wake() {
	if l.watched.Load() == 0 {
		return
	}
	l.watchMu.Lock()
	defer l.watchMu.Unlock()
	for _, w := range l.watchers {
		select {
		case w.C <- struct{}{}:
		default: // it has a wake-up waiting
		}
	}
}
