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
	unsettled    bool                // something that was sent was given up without an acknowledgement
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
