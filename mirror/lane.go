package mirror

import (
	"maps"
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
	slab     *slab // what the bytes belong to
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
//
// A lane flows at one appender at a time. What it has in flight is that
// appender's to resolve, answer by answer or all at once when the connection is
// lost, whatever has become of the tenure meanwhile: nobody else gives the
// memory of a batch in flight away or counts it as resolved.
type lane struct {
	// constant after newLane
	key       checkpoint.Key
	target    string // topic
	targetID  [16]byte
	partition int32
	producer  int64
	epoch     int16
	limits    func() ladderLimits
	faults    chan error    // capacity 1: the first fault of the attempt
	events    chan struct{} // capacity 1: something was resolved

	mu sync.Mutex // guards the fields below
	// Invariant: 0 <= flying <= inFlight, flying <= len(queue): the first flying entries are sent and not answered.
	queue        []entry
	flying       int
	sender       *appender           // where the lane flows, or has flown last
	telling      int                 // acknowledgements resolved here and not yet recorded
	bytes        int64               // of the queue
	fetch        int64               // the source offset to ask for next
	nextSource   int64               // the offset that the next sequence carries without a new step
	nextSequence int32               // below 2^31: see lastSequence
	gates        uint64              // gates given out
	opened       uint64              // gates opened: the ledger is written up to here
	early        map[uint64]struct{} // gates beyond that were written before their turn
	shutSince    time.Time           // since when a gate that was given out has been waiting; zero when none does
	acked        int64               // all source offsets below are in the target, or dropped
	told         int64               // what settled returned last
	targetEnd    int64               // after the last acknowledged record; -1 unknown
	probing      bool                // one request in flight until the first acknowledgement (KAFKA-14359)
	rewinding    bool                // an error was answered: nothing is sent until all in flight is resolved
	closed       bool                // no more is taken in nor sent; what is in flight is still resolved
	abandoned    bool                // nobody wants to know what becomes of what is in flight
	troubled     bool                // refused, and not acknowledged since: nothing is taken in
	blocked      string              // why nothing is sent at present; "" when it flows
	retryAt      time.Time
	refusals     int    // in a row
	refusal      string // why, the last time
	sourceEnd    int64  // as the last fetch told; -1 unknown
	behindSince  time.Time
	sourceFault  string // why the source gives nothing; "" while it answers
	faultSince   time.Time
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
		faults: make(chan error, 1), events: make(chan struct{}, 1),
		probing: true, sourceEnd: -1,
		stats: laneStats{modes: map[modeReason]uint64{}, dropped: map[string]uint64{}},
	}
}

// fault ends the attempt that the lane belongs to.
func (l *lane) fault(err error) {
	select {
	case l.faults <- err:
	default:
	}
}

// appetite says whether a lane would take more.
type appetite int

const (
	hungry  appetite = iota // now
	full                    // as soon as something is acknowledged
	resting                 // not before its trouble has passed
)

// wants says from which source offset the lane would take more, and whether it
// has room now. A lane in trouble takes nothing, so that it holds no memory
// that others could use.
func (l *lane) wants() (offset int64, a appetite) {
	l.mu.Lock()
	defer l.mu.Unlock()
	switch {
	case l.closed || l.blocked != "" || l.troubled || l.nextSequence >= lastSequence:
		return l.fetch, resting
	case l.bytes >= laneBytes:
		return l.fetch, full
	}
	return l.fetch, hungry
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
	l.sourceEnd, l.sourceFault = sourceEnd, ""
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
		if p.owned {
			e.slab = s.budget.own(p.batch.Size())
		} else {
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
		if l.gates == l.opened {
			l.shutSince = time.Now()
		}
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

// barren takes note of a fetch response that held nothing for the lane.
func (l *lane) barren(sourceEnd int64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.sourceEnd, l.sourceFault = sourceEnd, ""
	l.markBehind()
}

// unread takes note that the source cannot be read at present.
func (l *lane) unread(why string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.sourceFault == "" {
		l.faultSince = time.Now()
	}
	l.sourceFault = why
}

// open says that the steps behind a gate are in the ledger. A gate opens only
// after those before it: two fetchers may have taken steps for one lane while
// the source leader moved.
func (l *lane) open(gate uint64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if gate <= l.opened {
		return
	}
	if l.early == nil {
		l.early = map[uint64]struct{}{}
	}
	for l.early[gate] = struct{}{}; ; l.shutSince = time.Now() {
		if _, ok := l.early[l.opened+1]; !ok {
			break
		}
		l.opened++
		delete(l.early, l.opened)
	}
	if l.opened == l.gates {
		l.shutSince = time.Time{}
	}
}

// shut says for how long the ledger has not answered.
func (l *lane) shut(now time.Time) time.Duration {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.shutSince.IsZero() {
		return 0
	}
	return now.Sub(l.shutSince)
}

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

// settled returns the source offset below which everything is dealt with, if
// that is news and lies beyond the last record in the target: nothing is queued
// and what came last was dropped. With news, recorded must follow.
func (l *lane) settled() (source int64, news bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closed || len(l.queue) > 0 || l.acked <= l.nextSource || l.acked <= l.told {
		return 0, false
	}
	l.told = l.acked
	l.telling++
	return l.told, true
}

// idle says whether nothing is in flight, and everything that was is recorded.
func (l *lane) idle() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.flying == 0 && l.telling == 0
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
	if p.blocked == "" && l.refusals >= toldRefusals {
		p.blocked = l.refusal
	}
	if p.blocked == "" && l.sourceFault != "" && now.Sub(l.faultSince) > toldFault {
		p.blocked = l.sourceFault
	}
	p.stats = laneStats{
		records: l.stats.records, bytes: l.stats.bytes, strangers: l.stats.strangers,
		modes: make(map[modeReason]uint64, len(l.stats.modes)), dropped: make(map[string]uint64, len(l.stats.dropped)),
	}
	maps.Copy(p.stats.modes, l.stats.modes)
	maps.Copy(p.stats.dropped, l.stats.dropped)
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
