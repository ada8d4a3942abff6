package mirror

import (
	"sync"
	"time"

	"kmirror/checkpoint"
)

// inFlight bounds the requests of one connection and so of one lane in flight: the
// broker knows a producer's last five batches and answers a repeated one with
// its first offset.
const inFlight = 5

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
	former    []formerTopic // incarnations of its topic that are gone
	faults    chan error    // capacity 1: the first fault of the attempt
	events    chan struct{} // capacity 1: something was resolved

	mu sync.Mutex // guards the fields below
	// Invariant: 0 <= flying <= inFlight, flying <= len(queue): the first flying entries are sent and not answered.
	queue        entries
	flying       int
	turned       int                 // of the window, how many were refused already: the answer that comes next is that of the entry there
	sender       *appender           // where the lane flows, or has flown last
	seat         *appending          // the lane's at its appender
	offered      bool                // the seat is in its appender's queue
	intake       *fetching           // the lane's at its fetcher
	limit        int64               // what may wait here, as the fetcher said last
	passed       bool                // left out of the last fetch, for want of room or in trouble: to be offered there again
	telling      int                 // acknowledgements resolved here and not yet recorded
	bytes        int64               // of the queue
	fetch        int64               // the source offset to ask for next
	nextSource   int64               // the offset that the next sequence carries without a new step
	steps        []checkpoint.Step   // see landmarks
	nextSequence int32               // below 2^31: see lastSequence
	gates        uint64              // gates given out
	opened       uint64              // gates opened: the ledger is written up to here
	early        map[uint64]struct{} // gates beyond that were written before their turn
	shutSince    time.Time           // since when a gate that was given out has been waiting; zero when none does
	acked        int64               // all source offsets below are in the target, or dropped
	told         int64               // what settled returned last
	targetEnd    int64               // after the last acknowledged record; -1 unknown
	targetStart  int64               // where the target's log begins, as it was said last; -1 unknown
	startAt      time.Time           // when that was
	probing      bool                // one request in flight until the first acknowledgement (KAFKA-14359)
	sentAt       time.Time           // when something was sent last
	freshAt      int64               // by the wall clock, in milliseconds: the target knew our producer then
	forgotten    bool                // a batch was given up of which nobody knows what became of it
	backlog      bool                // far behind: others go first
	rewinding    bool                // an error was answered: nothing is sent until all in flight is resolved
	closed       bool                // no more is taken in nor sent; what is in flight is still resolved
	abandoned    bool                // nobody wants to know what becomes of what is in flight
	unsure       bool                // whose the next batch is has to be found out: nothing is taken in
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
	inflate      int              // of the last limits
	maxBatch     int              // the same
	runs         []checkpoint.Run // what ack returned last
}

// probeAfter is how long a lane may be idle before it probes again: half of how
// long a broker remembers a producer (producer.id.expiration.ms). One that has
// forgotten takes any sequence, and the second of two requests in a row for the
// first.
const probeAfter = 12 * time.Hour

// origin is where a tenure begins.
type origin struct {
	source    int64 // position
	targetEnd int64 // the target partition's end as it was read; -1 unknown
}

func newLane(key checkpoint.Key, target string, targetID [16]byte, producer int64, epoch int16, from origin, limits func() ladderLimits) *lane {
	return &lane{
		key: key, target: target, targetID: targetID, partition: key.Partition,
		producer: producer, epoch: epoch, limits: limits,
		fetch: from.source, nextSource: from.source, acked: from.source, targetEnd: from.targetEnd, targetStart: -1,
		faults: make(chan error, 1), events: make(chan struct{}, 1),
		probing: true, freshAt: time.Now().UnixMilli(), sourceEnd: -1,
		steps: []checkpoint.Step{{Source: from.source}},
		stats: newLaneStats(),
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
// that others could use. One that is not hungry says so at its fetcher's when
// that has changed.
func (l *lane) wants() (offset int64, a appetite) { return l.wantsUpTo(laneBytes) }

// wantsUpTo is wants with a limit to what may wait in the lane, in bytes.
func (l *lane) wantsUpTo(limit int64) (offset int64, a appetite) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.limit = limit
	switch {
	case l.closed || l.blocked != "" || l.troubled || l.unsure || l.nextSequence >= lastSequence:
		l.passed = true
		return l.fetch, resting
	case l.bytes >= limit || l.queue.len() >= laneEntries:
		l.passed = true
		return l.fetch, full
	}
	l.passed = false
	return l.fetch, hungry
}

// laneEntries bounds the batches of a lane where they are very small.
const laneEntries = 1 << 14

// lastSequence is where an epoch takes no more: a new one begins long before
// the sequence wraps at 2^31, so that a sequence has one meaning in its epoch.
const lastSequence = 1 << 30

// spent says that the epoch has used up its sequences and all is resolved.
func (l *lane) spent() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.nextSequence >= lastSequence && l.queue.len() == 0
}

// take queues what the ladder made of a fetch response that was asked for at
// offset asked. It returns the ledger steps that must be written before the
// new batches may leave, and the gate that opens when these and the letters of
// the response are acknowledged; zero where there are neither. The slab is
// retained for each batch that is a slice of it.
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
	l.inflate, l.maxBatch = c.limits.inflate, c.limits.maxBatch
	for _, d := range c.dropped {
		if d.reason != reasonBehind {
			l.stats.dropped[d.reason] += uint64(d.records)
		}
	}
	first := l.queue.len()
	for i := range c.batches {
		e := entry{prepared: c.batches[i], sequence: l.nextSequence, sources: 1}
		for j := range e.pieces.len() {
			pc := e.pieces.at(j)
			if pc.source != l.nextSource {
				steps = append(steps, checkpoint.Step{Sequence: l.nextSequence, Source: pc.source})
				e.anchored = true
			}
			l.nextSequence += pc.count
			l.nextSource = pc.end()
		}
		size := e.batch.Size()
		if e.owned {
			e.slab = s.budget.own(size)
		} else {
			s.retain(size)
			e.slab = s
		}
		l.bytes += int64(size)
		l.queue.push(e)
	}
	l.mark(steps)
	l.fetch = c.next
	if len(steps) > 0 || len(c.letters) > 0 {
		if l.gates == l.opened {
			l.shutSince = time.Now()
		}
		l.gates++
		gate = l.gates
	}
	for i := first; i < l.queue.len(); i++ {
		l.queue.at(i).gate = l.gates
	}
	l.arrived()
	l.markBehind()
	l.offer()
	return steps, gate
}

// arrived moves the position to what is asked for next where nothing is queued
// and nothing waits for the ledger: everything up to there was dropped. Called
// with mu held.
func (l *lane) arrived() {
	if l.queue.len() == 0 && l.gates == l.opened {
		l.acked = l.fetch
	}
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

// open says that what a gate waits for is written. A gate opens only after
// those before it: two fetchers may have taken steps for one lane while the
// source leader moved.
func (l *lane) open(gate uint64) {
	if settled := l.unlock(gate); settled != nil {
		settled()
	}
}

// unlock is open; it returns whom to tell that the position may have moved.
func (l *lane) unlock(gate uint64) (settled func()) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if gate <= l.opened {
		return nil
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
		l.arrived()
		if l.queue.len() == 0 && l.intake != nil {
			settled = l.intake.settled
		}
	}
	l.offer()
	return settled
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

// stand gives the lane its place at the fetchers of its source.
func (l *lane) stand(x *fetching) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.intake = x
}

// settled returns the source offset below which everything is dealt with, if
// that is news and lies beyond the last record in the target: nothing is queued
// and what came last was dropped. With news, recorded must follow. While something
// else is being recorded there is no news: whoever does that asks again afterwards,
// or the map would learn of the hole before it learns of the record in front of it.
func (l *lane) settled() (source int64, news bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closed || l.queue.len() > 0 || l.telling > 0 || l.acked <= l.nextSource || l.acked <= l.told {
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
	return l.queue.len() > 0
}

// clean says that all that was ever sent has been acknowledged, or refused in a
// way that leaves no doubt: nothing of this epoch can land any more, and the
// next one needs no marker before it.
func (l *lane) clean() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.flying > 0 || l.forgotten {
		return false
	}
	for i := range l.queue.len() {
		if l.queue.at(i).doubtful {
			return false
		}
	}
	return true
}

// offer puts the lane into its appender's queue if it has something that may
// leave, now or after a pause. Called with mu held, after whatever may have
// changed that.
func (l *lane) offer() {
	if l.offered || l.seat == nil || l.sender == nil || !l.ready() {
		return
	}
	l.offered = true
	l.sender.roster.offer(l.seat)
}

// beckon tells the fetcher that passed the lane over that it has room again:
// half of what it may hold, so that it is worth a request. Called with mu held.
func (l *lane) beckon() {
	if !l.passed || l.intake == nil || l.closed || l.blocked != "" || l.troubled || l.unsure || l.bytes > l.limit/2 {
		return
	}
	l.passed = false
	l.intake.again()
}

// behind says whether the lane is far behind, so that others go first.
func (l *lane) behind() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.backlog
}

// setBehind changes that.
func (l *lane) setBehind(is bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.backlog = is
}
