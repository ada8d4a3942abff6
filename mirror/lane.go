package mirror

import (
	"sync"
	"time"

	"kmirror/checkpoint"
	"kmirror/internal/wire"
)

// laneBytes is how much may wait in one lane before its partition is left out
// of the next fetch, so that a slow one never holds up others on its broker.
const laneBytes = 4 << 20

// inFlight bounds the requests of one connection and so of one lane in flight: the
// broker knows a producer's last five batches and answers a repeated one with
// its first offset.
const inFlight = 5

// entry is one batch in a lane. From its first sending until it is resolved its
// bytes do not change: a retry is the same batch.
type entry struct {
	prepared
	slab     *slab // what the bytes are a slice of; nil when they are our own
	sequence int32
	gate     uint64 // sendable once the ledger has acknowledged up to this gate
	anchored bool   // the ledger has a step for it, so it may not be read and numbered anew in this epoch
	sent     bool   // at least once: the target may have it, so its bytes stay as they are
}

// lane is the queue of one partition in one tenure, between the fetcher that
// fills it and the appender that empties it. It is a state machine without
// I/O: it numbers batches, opens the gate as the ledger answers, keeps the
// window of unacknowledged ones and rewinds it.
//
// The order of a lane is the order of source offsets, and sequences are given
// in that order, once.
type lane struct {
	// constant after newLane
	key       checkpoint.Key
	target    string // topic
	targetID  [16]byte
	partition int32
	producer  int64
	epoch     int16
	limits    func() ladderLimits

	mu sync.Mutex // guards the fields below
	// Invariant: 0 <= flying <= inFlight, flying <= len(queue): the first flying entries are sent and not answered.
	queue        []entry
	flying       int
	bytes        int64  // of the queue
	fetch        int64  // the source offset to ask for next
	nextSource   int64  // the offset that the next sequence carries without a new step
	nextSequence int32  // below 2^31: see lastSequence
	gates        uint64 // gates given out
	opened       uint64 // gates opened: the ledger is written up to here
	acked        int64  // all source offsets below are in the target, or dropped
	told         int64  // what settled returned last
	targetEnd    int64  // after the last acknowledged record; -1 unknown
	probing      bool   // one request in flight until the first acknowledgement (KAFKA-14359)
	rewinding    bool   // an error was answered: nothing is sent until all in flight is resolved
	closed       bool   // no more is taken in; what is in flight is still resolved
	blocked      string // why nothing is sent at present; "" when it flows
	retryAt      time.Time
	sourceEnd    int64 // as the last fetch told; -1 unknown
	behindSince  time.Time
	lastStamp    int64 // greatest record timestamp acknowledged
	stats        laneStats
}

// laneStats counts since the tenure began. Guarded by lane.mu.
type laneStats struct {
	records, bytes uint64
	modes          map[modeReason]uint64 // batches
	dropped        map[string]uint64     // offsets, by reason
	strangers      uint64                // records of others found between ours
}

type modeReason struct {
	mode   mode
	reason string
}

// origin is where a tenure begins.
type origin struct {
	source    int64 // position
	targetEnd int64 // the target partition's end as it was read; -1 unknown
}

func newLane(key checkpoint.Key, target string, targetID [16]byte, producer int64, epoch int16, from origin, limits func() ladderLimits) *lane {
	return &lane{
		key: key, target: target, targetID: targetID, partition: key.Partition,
		producer: producer, epoch: epoch, limits: limits,
		fetch: from.source, nextSource: from.source, acked: from.source, targetEnd: from.targetEnd,
		probing: true, sourceEnd: -1,
		stats: laneStats{modes: map[modeReason]uint64{}, dropped: map[string]uint64{}},
	}
}

// wants says from which source offset the lane would take more, and whether it
// has room now.
func (l *lane) wants() (offset int64, ok bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.fetch, !l.closed && l.blocked == "" && l.bytes < laneBytes && l.nextSequence < lastSequence
}

// lastSequence is where an epoch takes no more: a new one begins long before
// the sequence wraps at 2^31, so that a sequence has one meaning in its epoch.
const lastSequence = 1 << 30

// spent says that the epoch has used up its sequences and all is resolved.
func (l *lane) spent() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.nextSequence >= lastSequence && len(l.queue) == 0
}

// take queues what the ladder made of a fetch response that was asked for at
// offset asked. It returns the ledger steps that must be written before the
// new batches may leave, and the gate that their acknowledgement opens. The
// slab is retained for each batch that is a slice of it.
//
// A response that no longer fits (the lane rewound or closed meanwhile) is
// ignored as a whole.
func (l *lane) take(asked int64, c climbed, s *slab, sourceEnd int64) (steps []checkpoint.Step, gate uint64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.sourceEnd = sourceEnd
	if l.closed || asked != l.fetch {
		return nil, 0
	}
	for _, d := range c.dropped {
		if d.reason != reasonBehind {
			l.stats.dropped[d.reason] += uint64(d.records)
		}
	}
	first := len(l.queue)
	for _, p := range c.batches {
		e := entry{prepared: p, sequence: l.nextSequence}
		for _, pc := range p.pieces {
			if pc.source != l.nextSource {
				steps = append(steps, checkpoint.Step{Sequence: l.nextSequence, Source: pc.source})
				e.anchored = true
			}
			l.nextSequence += pc.count
			l.nextSource = pc.source + int64(pc.count)
		}
		if !p.owned {
			s.retain()
			e.slab = s
		}
		p.batch.Rewrite(wire.HeaderEdit{
			ProducerID: l.producer, ProducerEpoch: l.epoch, BaseSequence: e.sequence, ClearTransactional: true,
		})
		l.bytes += int64(p.batch.Size())
		l.queue = append(l.queue, e)
	}
	l.fetch = c.next
	if len(steps) > 0 {
		l.gates++
		gate = l.gates
	}
	for i := first; i < len(l.queue); i++ {
		l.queue[i].gate = l.gates
	}
	if len(l.queue) == 0 {
		l.acked = l.fetch // everything up to here was dropped
	}
	l.markBehind()
	return steps, gate
}

// open says that the ledger is written up to gate.
func (l *lane) open(gate uint64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.opened = max(l.opened, gate)
}

// sendable returns the next batch to send, if there is one that may leave now,
// and counts it as in flight.
func (l *lane) sendable(now time.Time) (entry, bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if !l.ready(now) {
		return entry{}, false
	}
	l.queue[l.flying].sent = true
	e := l.queue[l.flying]
	l.flying++
	return e, true
}

// ready is called with mu held.
func (l *lane) ready(now time.Time) bool {
	if l.flying == len(l.queue) || l.flying >= inFlight || l.rewinding || l.blocked != "" || now.Before(l.retryAt) {
		return false
	}
	if l.probing && l.flying > 0 {
		return false
	}
	return l.queue[l.flying].gate <= l.opened
}

// waiting says when a lane that is not ready will be by itself; zero is never.
func (l *lane) waiting(now time.Time) time.Duration {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.flying < len(l.queue) && now.Before(l.retryAt) {
		return l.retryAt.Sub(now)
	}
	return 0
}

// ack resolves the oldest batch in flight: it stands at target offset base. It
// returns the runs learned, and how many foreign offsets lie between the
// previous record of ours and this one.
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
	l.probing = false
	l.retryAt = time.Time{}
	if len(l.queue) == 0 {
		l.acked = l.fetch
	}
	l.markBehind()
	return runs, foreign, true
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
		l.rewinding = false
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
	l.rewinding = true
	if retryAt.After(l.retryAt) {
		l.retryAt = retryAt
	}
	l.flying--
	if l.flying == 0 {
		l.rewinding = false
		l.probing = true
	}
}

// rewound says whether an earlier answer of this window was a refusal, so that
// an out-of-order answer is its consequence and not a fault of its own.
func (l *lane) rewound() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.rewinding
}

// detach is called when the connection that carried the window is gone, or the
// target leader has moved: nothing is in flight any more as far as we can know,
// and all of it will be sent again. The queue gives back what memory it can:
// batches that were never sent and have no step in the ledger are read again
// later, the others get bytes of their own.
func (l *lane) detach(why string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.flying, l.rewinding, l.probing = 0, false, true
	l.blocked = why
	for n := len(l.queue); n > 0; n = len(l.queue) {
		e := l.queue[n-1]
		if e.sent || e.anchored {
			break
		}
		e.slab.drop()
		l.bytes -= int64(e.batch.Size())
		l.queue[n-1] = entry{}
		l.queue = l.queue[:n-1]
		l.nextSequence = e.sequence
		l.fetch = e.pieces[0].source
		l.nextSource = l.fetch
	}
	for i := range l.queue {
		if e := &l.queue[i]; e.slab != nil {
			e.batch = append(wire.Batch(nil), e.batch...)
			e.slab.drop()
			e.slab = nil
		}
	}
}

// attach lets a detached lane flow again.
func (l *lane) attach() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.blocked = ""
}

// close stops the intake and forgets what was not sent. What is in flight stays
// until it is resolved or abandoned.
func (l *lane) close() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.closed = true
	for i := l.flying; i < len(l.queue); i++ {
		l.queue[i].slab.drop()
		l.bytes -= int64(l.queue[i].batch.Size())
		l.queue[i] = entry{}
	}
	l.queue = l.queue[:l.flying]
}

// abandon forgets what is in flight too: nothing more will be heard of it.
func (l *lane) abandon() {
	l.close()
	l.mu.Lock()
	defer l.mu.Unlock()
	for i := range l.queue {
		l.queue[i].slab.drop()
	}
	l.queue, l.flying, l.bytes = nil, 0, 0
}

// settled returns the source offset below which everything is dealt with, if
// that is news and lies beyond the last record in the target: nothing is queued
// and what came last was dropped.
func (l *lane) settled() (source int64, news bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(l.queue) > 0 || l.acked <= l.nextSource || l.acked <= l.told {
		return 0, false
	}
	l.told = l.acked
	return l.told, true
}

// idle says whether nothing is in flight.
func (l *lane) idle() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.flying == 0
}

// pending says whether anything is queued.
func (l *lane) pending() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return len(l.queue) > 0
}

// markBehind keeps the moment since which the lane is behind. Called with mu held.
func (l *lane) markBehind() {
	switch {
	case l.sourceEnd <= l.acked:
		l.behindSince = time.Time{}
	case l.behindSince.IsZero():
		l.behindSince = time.Now()
	}
}

// progress is what a lane shows.
type progress struct {
	position, sourceEnd, targetEnd, lag int64
	lagSeconds                          float64
	blocked                             string
	stats                               laneStats
}

func (l *lane) progress(now time.Time) progress {
	l.mu.Lock()
	defer l.mu.Unlock()
	p := progress{position: l.acked, sourceEnd: l.sourceEnd, targetEnd: l.targetEnd, blocked: l.blocked}
	p.stats = laneStats{
		records: l.stats.records, bytes: l.stats.bytes, strangers: l.stats.strangers,
		modes: make(map[modeReason]uint64, len(l.stats.modes)), dropped: make(map[string]uint64, len(l.stats.dropped)),
	}
	for k, v := range l.stats.modes {
		p.stats.modes[k] = v
	}
	for k, v := range l.stats.dropped {
		p.stats.dropped[k] = v
	}
	if l.sourceEnd > l.acked {
		p.lag = l.sourceEnd - l.acked
		p.lagSeconds = now.Sub(l.behindSince).Seconds()
		if len(l.queue) > 0 { // the oldest record not yet there tells how far behind the content is
			if stamp := l.queue[0].batch.BaseTimestamp(); stamp > 0 {
				p.lagSeconds = max(p.lagSeconds, now.Sub(time.UnixMilli(stamp)).Seconds())
			}
		}
	}
	return p
}
