package mirror

import (
	"time"

	"kmirror/checkpoint"
	"kmirror/internal/wire"
)

// sendable returns the next batch to send, if there is one that may leave now,
// and counts it as in flight. Small ones that wait together leave as one. If
// there is none, wait is after how long that will change by itself; zero is
// never.
func (l *lane) sendable(now time.Time) (e entry, ok bool, wait time.Duration) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.offered = false
	if !l.ready() {
		return entry{}, false, 0
	}
	if now.Before(l.retryAt) {
		return entry{}, false, l.retryAt.Sub(now)
	}
	if l.flying == 0 && !l.sentAt.IsZero() && now.Sub(l.sentAt) > probeAfter {
		l.probing = true
	}
	head := l.queue.at(l.flying)
	if head.sent && now.UnixMilli()-l.freshAt > probeAfter.Milliseconds() { // the target may have forgotten that it has it
		l.fault(&doubtError{"the target has acknowledged nothing for so long that it may have forgotten this producer"})
		return entry{}, false, 0
	}
	if head.doubtful && head.batch.MaxTimestamp() < now.Add(-probeAfter).UnixMilli() {
		// A broker counts a producer's age by the records that it wrote (KAFKA-6817): of
		// old ones it may have forgotten within minutes that it has them.
		l.fault(&doubtError{"what became of a batch of old records is not known, and the target may have forgotten its producer"})
		return entry{}, false, 0
	}
	if !head.sent {
		head = l.merge(l.flying)
		if head.mode != modeMerge {
			head.batch.Rewrite(l.numbered(head.sequence))
		}
		head.sent, head.sentAt = true, now.UnixMilli()
	}
	l.sentAt = now
	l.flying++
	l.offer()
	return *head, true, 0
}

// numbered is what our producer writes into the header of a batch.
func (l *lane) numbered(sequence int32) wire.HeaderEdit {
	return wire.HeaderEdit{ProducerID: l.producer, ProducerEpoch: l.epoch, BaseSequence: sequence, ClearTransactional: true}
}

// ready says whether there is a batch that may leave, but for a pause. Called
// with mu held.
func (l *lane) ready() bool {
	if l.closed || l.flying == l.queue.len() || l.flying >= inFlight || l.rewinding || l.blocked != "" {
		return false
	}
	if l.probing && l.flying > 0 {
		return false
	}
	return l.queue.at(l.flying).gate <= l.opened
}

// ack resolves the oldest batch in flight: it stands at target offset base. It
// returns the runs learned, and how many foreign offsets lie between the
// previous record of ours and this one. The runs are good until the next call.
// The lane is not idle before recorded.
//
// A base below what was acknowledged before means that the target lost records:
// the caller ends the tenure (ok is false, nothing is resolved).
func (l *lane) ack(base int64) (runs []checkpoint.Run, foreign int64, ok bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if base < 0 || l.targetEnd >= 0 && base < l.targetEnd {
		return nil, 0, false
	}
	if l.targetEnd >= 0 {
		foreign = base - l.targetEnd
	}
	e := l.queue.at(0)
	at := base
	runs = l.runs[:0]
	for i := range e.pieces.len() {
		p := e.pieces.at(i)
		runs = append(runs, checkpoint.Run{Source: p.source, Target: at, Count: int64(p.count)})
		at += int64(p.count)
		l.acked = p.end()
	}
	if l.runs = runs; cap(runs) > 1<<10 {
		l.runs = nil
	}
	l.targetEnd = at
	l.passBy(e.sequence)
	l.stats.records += uint64(e.count)
	l.stats.bytes += uint64(e.batch.Size())
	l.stats.modes[modeReason{e.mode, e.reason}] += uint64(e.sources)
	l.lastStamp = max(l.lastStamp, e.batch.MaxTimestamp())
	l.freshAt = e.sentAt // a process may have been asleep since: what is told now was so then
	l.pop()
	l.telling++
	l.probing, l.troubled = false, false
	l.retryAt, l.refusals = time.Time{}, 0
	l.arrived()
	l.markBehind()
	l.offer()
	l.beckon()
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
	e := l.queue.at(0)
	size := e.batch.Size()
	l.bytes -= int64(size)
	e.slab.release(size) // the batch is memory of the slab, so this comes last
	l.queue.pop()
	l.flying--
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
	l.turned++
	if l.flying == 0 {
		l.rewinding, l.turned = false, 0
		l.probing = true
		l.rest()
		l.offer()
		l.beckon()
	}
}

// doubt says of the batch whose answer has come that the answer does not tell
// whether it was appended. To be called before refuse or orphan, which count it
// as answered.
func (l *lane) doubt() {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.abandoned || l.turned >= l.queue.len() {
		l.forgotten = true
		return
	}
	l.queue.at(l.turned).doubtful = true
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

// pauses says for how long the lane still waits after a refusal.
func (l *lane) pauses(now time.Time) time.Duration {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.retryAt.Sub(now)
}

// depart says whether nothing is in flight, so that the lane can flow elsewhere.
// If not, it is offered again when that may have changed.
func (l *lane) depart() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.offered = false
	return l.flying == 0
}

// rewound says whether an earlier answer of this window was a refusal, so that
// an out-of-order answer is its consequence and not a fault of its own.
func (l *lane) rewound() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.rewinding
}
