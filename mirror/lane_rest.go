package mirror

import (
	"slices"
	"time"

	"kmirror/internal/wire"
)

// board lets the lane flow at an appender, or wait there with it.
func (l *lane) board(at *appender, blocked string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.sender, l.blocked, l.retryAt, l.refusals = at, blocked, time.Time{}, 0
	if blocked != "" {
		l.rest()
	}
}

// detach is called by an appender when the connection that carried the window
// is gone: nothing is in flight any more as far as we can know, and all of it
// will be sent again. A lane that flows elsewhere meanwhile stays as it is.
func (l *lane) detach(from *appender, why string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.sender != from {
		return
	}
	l.flying, l.rewinding, l.probing = 0, false, true
	l.blocked = why
	l.rest()
}

// suspend stops the lane, but for what is in flight: that is still resolved.
func (l *lane) suspend(why string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.blocked = why
}

// hush suspends a lane at the wish of its appender, which sends nothing at the
// moment: what is in flight gets bytes of its own too.
func (l *lane) hush(at *appender, why string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.sender != at {
		return
	}
	l.blocked = why
	l.rest()
	l.move(0)
}

// attach lets a lane flow again that an appender has stopped.
func (l *lane) attach(at *appender) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.sender == at {
		l.blocked = ""
	}
}

// rest gives back what memory the queue can do without: batches that were never
// sent and have no step in the ledger are read again later, the others that are
// not in flight get bytes of their own, so that a few of them do not keep whole
// fetch responses. Called with mu held.
func (l *lane) rest() {
	if l.closed {
		l.clear(l.flying)
		return
	}
	for n := len(l.queue); n > l.flying; n = len(l.queue) {
		e := l.queue[n-1]
		if e.sent || e.anchored {
			break
		}
		l.clear(n - 1)
		l.nextSequence = e.sequence
		l.fetch = e.pieces[0].source
		l.nextSource = l.fetch
	}
	l.move(l.flying)
}

// move gives the queue from the n-th batch on bytes of its own. Called with mu held.
func (l *lane) move(n int) {
	for i := n; i < len(l.queue); i++ {
		e := &l.queue[i]
		if e.slab.own {
			continue
		}
		shared := e.slab
		e.batch = append(wire.Batch(nil), e.batch...)
		e.slab = shared.budget.own(e.batch.Size())
		shared.drop()
	}
}

// clear drops the queue from the n-th batch on. Called with mu held.
func (l *lane) clear(n int) {
	for i := n; i < len(l.queue); i++ {
		l.unsettled = l.unsettled || l.queue[i].sent
		l.bytes -= int64(l.queue[i].batch.Size())
		l.queue[i].slab.drop()
		l.queue[i] = entry{}
	}
	if l.queue = l.queue[:n]; n == 0 {
		l.queue = nil
	}
}

// close stops the intake and the sending, and forgets what is not in flight.
// What is in flight stays until it is resolved.
func (l *lane) close() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.closed = true
	l.clear(l.flying)
}

// abandon closes the lane and says that nobody waits for what is in flight:
// its answers, should they come, mean nothing any more.
func (l *lane) abandon() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.closed, l.abandoned = true, true
	l.clear(l.flying)
}

// clean says that nothing that was ever sent is without an acknowledgement. Only
// then can nothing of it land any more, so that the next epoch needs no marker: a
// refusal is no proof, a deposed leader's least of all.
func (l *lane) clean() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return !l.unsettled && !slices.ContainsFunc(l.queue, func(e entry) bool { return e.sent })
}
