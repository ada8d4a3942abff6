package mirror

import (
	"time"

	"kmirror/checkpoint"
)

// sendable returns the next batch to send, if there is one that may leave now,
// and counts it as in flight. If there is none, wait is after how long that will
// change by itself; zero is never.
func (l *lane) sendable(now time.Time) (e entry, ok bool, wait time.Duration) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if !l.ready(now) {
		if l.flying < len(l.queue) && now.Before(l.retryAt) {
			wait = l.retryAt.Sub(now)
		}
		return entry{}, false, wait
	}
	l.queue[l.flying].sent = true
	e = l.queue[l.flying]
	l.flying++
	return e, true, 0
}

// ready is called with mu held.
func (l *lane) ready(now time.Time) bool {
	if l.closed || l.flying == len(l.queue) || l.flying >= inFlight || l.rewinding || l.blocked != "" || now.Before(l.retryAt) {
		return false
	}
	if l.probing && l.flying > 0 {
		return false
	}
	return l.queue[l.flying].gate <= l.opened
}

// ack resolves the oldest batch in flight: it stands at target offset base. It
// returns the runs learned, and how many foreign offsets lie between the
// previous record of ours and this one. The lane is not idle before told.
//
// A base below what was acknowledged before means that the target lost records:
// the caller ends the tenure (ok is false, nothing is resolved).
func (l *lane) ack(base int64) (runs []checkpoint.Run, foreign int64, ok bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.targetEnd >= 0 && base < l.targetEnd {
		return nil, 0, false
	}
	if l.targetEnd >= 0 {
		foreign = base - l.targetEnd
	}
	e := l.queue[0]
	at := base
	for _, p := range e.pieces {
		runs = append(runs, checkpoint.Run{Source: p.source, Target: at, Count: int64(p.count)})
		at += int64(p.count)
	}
	l.targetEnd = at
	l.acked = e.pieces[len(e.pieces)-1].source + int64(e.pieces[len(e.pieces)-1].count)
	l.stats.records += uint64(e.count)
	l.stats.bytes += uint64(e.batch.Size())
	l.stats.modes[modeReason{e.mode, e.reason}]++
	l.lastStamp = max(l.lastStamp, e.batch.MaxTimestamp())
	l.pop()
	l.telling++
	l.probing, l.troubled = false, false
	l.retryAt, l.refusals = time.Time{}, 0
	if len(l.queue) == 0 {
		l.acked = l.fetch
	}
	l.markBehind()
	return runs, foreign, true
}

// recorded ends what ack began: what it returned is written where it belongs.
func (l *lane) recorded() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.telling--
}

// pop removes the head. Called with mu held.
func (l *lane) pop() {
	e := l.queue[0]
	l.bytes -= int64(e.batch.Size())
	e.slab.drop() // the batch is memory of the slab, so this comes last
	l.queue[0] = entry{}
	l.queue = l.queue[1:]
	l.flying--
	if len(l.queue) == 0 {
		l.queue = nil // let the backing array go
	}
	if l.flying == 0 {
		l.rewinding = false
	}
}

// refuse resolves one answer of the window as an error that a later attempt
// may not meet. The first refusal turns the window back: the rest in flight is
// awaited (those answers follow from the first), then everything is sent again
// from the first unacknowledged batch with the same bytes.
func (l *lane) refuse(retryAt time.Time) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.rewinding, l.troubled = true, true
	if retryAt.After(l.retryAt) {
		l.retryAt = retryAt
	}
	l.flying--
	if l.flying == 0 {
		l.rewinding = false
		l.probing = true
		l.rest()
	}
}

// refuseLater is refuse, with a pause that grows from refusal to refusal.
func (l *lane) refuseLater(now time.Time, why string) {
	l.mu.Lock()
	l.refusal = why
	pause := refusedPause << min(l.refusals, 5)
	l.refusals++
	l.mu.Unlock()
	l.refuse(now.Add(jitter(pause)))
}

// refusedPause is before the first repetition of a batch that was refused; the
// longest one is 32 times as long.
const (
	refusedPause = 100 * time.Millisecond
	toldFault    = time.Second // a source that gives nothing for less is no trouble worth telling
	toldRefusals = 3           // fewer in a row are no trouble worth telling: leaders move
)

// orphan resolves one answer of a lane that was abandoned, and says whether it
// was.
func (l *lane) orphan() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if !l.abandoned {
		return false
	}
	if l.flying--; l.flying == 0 {
		l.clear(0)
	}
	return true
}

// rewound says whether an earlier answer of this window was a refusal, so that
// an out-of-order answer is its consequence and not a fault of its own.
func (l *lane) rewound() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.rewinding
}
