package mirror

import (
	"time"

	"kmirror/internal/wire"
)

// sit gives the lane its seat at the appenders of its target.
func (l *lane) sit(seat *appending) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.seat = seat
}

// board lets the lane flow at an appender, or wait there with it.
func (l *lane) board(at *appender, blocked string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.sender, l.blocked, l.retryAt, l.refusals = at, blocked, time.Time{}, 0
	l.probing = true
	l.offered = false // what another appender still has in its queue is passed over there
	if blocked != "" {
		l.rest()
	}
	l.offer()
	l.beckon()
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
	if l.turned+l.flying > l.queue.len() { // of some in flight the lane was closed over
		l.forgotten = true
	}
	for i := l.turned; i < min(l.turned+l.flying, l.queue.len()); i++ {
		l.queue.at(i).doubtful = true
	}
	l.flying, l.turned, l.rewinding, l.probing = 0, 0, false, true
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
		l.offer()
		l.beckon()
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
	for n := l.queue.len(); n > l.flying; n = l.queue.len() {
		e := l.queue.at(n - 1)
		if e.sent || e.anchored {
			break
		}
		sequence, source := e.sequence, e.pieces.first.source
		l.clear(n - 1)
		l.nextSequence, l.fetch, l.nextSource = sequence, source, source
		l.passed = true // to be asked for again
	}
	l.move(l.flying)
}

// move gives the queue from the n-th batch on bytes of its own. Called with mu held.
func (l *lane) move(n int) {
	for i := n; i < l.queue.len(); i++ {
		if e := l.queue.at(i); !e.slab.own {
			e.relocate()
		}
	}
}

// compact gives what was not sent yet bytes of its own where it is the last
// little that keeps a large fetch response in memory.
func (l *lane) compact(now time.Time) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for i := l.flying; i < l.queue.len(); i++ {
		if e := l.queue.at(i); e.slab.sparse(now) {
			e.relocate()
		}
	}
}

// relocate copies the batch into a slab of its own.
func (e *entry) relocate() {
	shared, size := e.slab, e.batch.Size()
	e.slab = shared.budget.own(size)
	e.batch = append(wire.Batch(nil), e.batch...)
	shared.release(size)
}

// clear drops the queue from the n-th batch on. Called with mu held.
func (l *lane) clear(n int) {
	for i := n; i < l.queue.len(); i++ {
		e := l.queue.at(i)
		size := e.batch.Size()
		l.forgotten = l.forgotten || e.doubtful
		l.bytes -= int64(size)
		e.slab.release(size)
	}
	l.queue.cut(n)
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
