package storage

import (
	"math"
	"slices"

	"github.com/twmb/franz-go/pkg/kerr"

	"kmirror/internal/wire"
)

// window is how many batches of a producer are remembered, Kafka's
// ProducerStateEntry.NUM_BATCHES_TO_RETAIN: a producer has at most five
// requests in flight.
const window = 5

// maxProducers bounds the memory that invented producer ids can take in one
// log; beyond it those that were silent longest are forgotten. Those with an open
// transaction are never: their coordinator knows them.
const maxProducers = 200_000

// written is a batch that a producer has in the log.
type written struct {
	lastSequence int32
	offsetDelta  int32
	lastOffset   int64
	timestamp    int64
}

func (w written) firstSequence() int32 {
	return int32((int64(w.lastSequence) - int64(w.offsetDelta)) & math.MaxInt32)
}

// same says whether both are one batch; the time of a snapshot's is its
// producer's, which a marker moves.
func (w written) same(other written) bool {
	other.timestamp = w.timestamp
	return w == other
}

// producer is what a log remembers of one producer id.
type producer struct {
	epoch            int16
	n                int8 // batches in recent, oldest first
	coordinatorEpoch int32
	recent           [window]written
	timestamp        int64 // of the last batch
	transactionFirst int64 // first offset of the open transaction, -1 for none
	seen             int64 // when the log last heard from it, Unix milliseconds by our clock
}

func (p *producer) lastSequence() int32 {
	if p.n == 0 {
		return -1
	}
	return p.recent[p.n-1].lastSequence
}

func (p *producer) push(w written) {
	if p.n == window {
		copy(p.recent[:], p.recent[1:])
		p.n--
	}
	p.recent[p.n] = w
	p.n++
}

// openTransaction is one that has records in the log and no marker.
type openTransaction struct{ first, producer int64 }

// decidedTransaction is one whose marker may still be lost: it stands at or
// above the high watermark.
type decidedTransaction struct{ first, marker int64 }

// abortedTransaction is an entry of a transaction index: a transaction with its
// first offset, its marker's, and the last stable offset after that marker.
type abortedTransaction struct{ producer, first, last, stable int64 }

// origin says which rules of Kafka's an append is held to.
type origin int8

const (
	fromClient origin = iota
	fromCoordinator
)

// producers are the idempotent and transactional producers of one log. Its
// methods decide and remember only; its owner serialises them.
type producers struct {
	byID      map[int64]*producer
	ongoing   []openTransaction    // ascending by first offset
	decided   []decidedTransaction // ascending by marker
	verifying map[int64]*verification
	guards    uint64 // the last Guard given out
}

func newProducers() *producers {
	return &producers{byID: make(map[int64]*producer), verifying: make(map[int64]*verification)}
}

// check decides on a data batch of a producer (KIP-98, KIP-890): the batch that
// it repeats, or a refusal, or neither when it is to be appended.
func (ps *producers) check(b wire.Batch, from origin, verified Guard, where Partition) (*written, *Error) {
	id, epoch, first := b.ProducerID(), b.ProducerEpoch(), b.BaseSequence()
	p := ps.byID[id]
	if from == fromClient && p != nil && p.n > 0 && epoch == p.epoch {
		last := b.LastSequence()
		for i := range p.n {
			if w := &p.recent[i]; w.lastSequence == last && w.firstSequence() == first {
				return w, nil
			}
		}
	}
	v := ps.verifying[id]
	if b.IsTransactional() && !ps.isOngoing(id, epoch) && (v == nil || v.guard != verified) {
		return nil, refuse(kerr.InvalidTxnState, "producer %d epoch %d on %s: the batch was not part of an ongoing transaction", id, epoch, where)
	}
	if p != nil && epoch < p.epoch {
		return nil, refuse(kerr.InvalidProducerEpoch, "producer %d on %s: epoch %d is older than %d", id, where, epoch, p.epoch)
	}
	if from == fromClient {
		if refusal := checkSequence(p, v, b, where); refusal != nil {
			return nil, refusal
		}
	}
	if p != nil && p.transactionFirst >= 0 && !b.IsTransactional() {
		return nil, refuse(kerr.InvalidTxnState, "producer %d on %s: a batch outside of the transaction that began at %d", id, where, p.transactionFirst)
	}
	return nil, nil
}

// checkSequence holds a client's batch against the producer p and its
// verification v, either nil when there is none.
func checkSequence(p *producer, v *verification, b wire.Batch, where Partition) *Error {
	id, epoch, first := b.ProducerID(), b.ProducerEpoch(), b.BaseSequence()
	switch {
	case v != nil && v.bumps && first != 0 && (p == nil || p.n == 0):
		return refuse(kerr.OutOfOrderSequenceNumber, "producer %d epoch %d on %s: sequence %d where a transaction begins, not 0", id, epoch, where, first)
	case v != nil && first > v.lowest:
		return refuse(kerr.OutOfOrderSequenceNumber, "producer %d epoch %d on %s: sequence %d while %d is still to come", id, epoch, where, first, v.lowest)
	case p == nil:
		return nil // all it wrote may have been deleted: any first sequence will do
	case epoch > p.epoch && first != 0 && p.epoch >= 0:
		return refuse(kerr.OutOfOrderSequenceNumber, "producer %d on %s: new epoch %d begins at sequence %d, not 0 (last epoch %d)", id, where, epoch, first, p.epoch)
	case epoch == p.epoch && first != next(p.lastSequence()):
		return refuse(kerr.OutOfOrderSequenceNumber, "producer %d epoch %d on %s: sequence %d after %d", id, epoch, where, first, p.lastSequence())
	}
	return nil
}

// next is the sequence after s; they go from 2^31-1 to 0.
func next(s int32) int32 { return int32((int64(s) + 1) & math.MaxInt32) }

// checkMarker decides whether m may be written.
func (ps *producers) checkMarker(m Marker, where Partition) *Error {
	if m.ProducerID < 0 || m.Epoch < 0 {
		return refuse(kerr.InvalidRecord, "marker for producer %d epoch %d on %s: there is none", m.ProducerID, m.Epoch, where)
	}
	p := ps.byID[m.ProducerID]
	if p == nil {
		return nil
	}
	// A marker of version 2 that is repeated, because its coordinator never saw
	// the answer, bears the epoch that it gave the producer (KAFKA-19999).
	again := m.Epoch == p.epoch && p.transactionFirst < 0
	if m.Epoch < p.epoch || m.TransactionVersion >= 2 && m.Epoch == p.epoch && !again {
		return refuse(kerr.InvalidProducerEpoch, "marker for producer %d on %s: epoch %d after %d (transaction version %d)",
			m.ProducerID, where, m.Epoch, p.epoch, m.TransactionVersion)
	}
	if m.CoordinatorEpoch < p.coordinatorEpoch {
		return refuse(kerr.TransactionCoordinatorFenced, "marker for producer %d on %s: coordinator epoch %d, but %d has begun",
			m.ProducerID, where, m.CoordinatorEpoch, p.coordinatorEpoch)
	}
	return nil
}

// of returns the producer with an id, made when it is not there, in that epoch.
func (ps *producers) of(id int64, epoch int16) *producer {
	p := ps.byID[id]
	if p == nil {
		if len(ps.byID) >= maxProducers {
			ps.forgetSilent()
		}
		p = &producer{epoch: epoch, coordinatorEpoch: -1, transactionFirst: -1}
		ps.byID[id] = p
	}
	if p.epoch != epoch {
		p.epoch, p.n = epoch, 0
	}
	return p
}

// add remembers a data batch that stands in the log at its base offset, and says
// whether it began a transaction.
func (ps *producers) add(b wire.Batch, now int64) (began bool) {
	id := b.ProducerID()
	if id < 0 {
		return false
	}
	p := ps.of(id, b.ProducerEpoch())
	p.seen, p.timestamp = now, b.MaxTimestamp()
	if b.IsTransactional() {
		delete(ps.verifying, id) // what it guarded has begun
		if p.transactionFirst < 0 {
			began = true
			p.transactionFirst = b.BaseOffset()
			ps.ongoing = append(ps.ongoing, openTransaction{first: b.BaseOffset(), producer: id})
		}
	}
	p.push(written{lastSequence: b.LastSequence(), offsetDelta: b.LastOffsetDelta(), lastOffset: b.LastOffset(), timestamp: b.MaxTimestamp()})
	return began
}

// end remembers a marker that stands in the log at offset. The transaction that
// it ended is returned, ok when there was one here.
func (ps *producers) end(m Marker, offset, timestamp, now int64) (t abortedTransaction, ok bool) {
	p := ps.of(m.ProducerID, m.Epoch)
	p.seen, p.timestamp, p.coordinatorEpoch = now, timestamp, m.CoordinatorEpoch
	delete(ps.verifying, m.ProducerID)
	if p.transactionFirst < 0 {
		return t, false
	}
	t = abortedTransaction{producer: m.ProducerID, first: p.transactionFirst, last: offset, stable: offset + 1}
	p.transactionFirst = -1
	ps.ongoing = slices.DeleteFunc(ps.ongoing, func(o openTransaction) bool { return o.first == t.first })
	if len(ps.ongoing) > 0 {
		t.stable = ps.ongoing[0].first
	}
	ps.decided = append(ps.decided, decidedTransaction{first: t.first, marker: offset})
	return t, true
}

// settle forgets the decided transactions whose marker stands below high.
func (ps *producers) settle(high int64) {
	n := 0
	for n < len(ps.decided) && ps.decided[n].marker < high {
		n++
	}
	ps.decided = slices.Delete(ps.decided, 0, n)
}

// firstUnstable is the first offset of a transaction that is open, or not safely
// decided; the largest number when there is none.
func (ps *producers) firstUnstable() int64 {
	first := int64(math.MaxInt64)
	if len(ps.ongoing) > 0 {
		first = ps.ongoing[0].first
	}
	for _, d := range ps.decided {
		first = min(first, d.first)
	}
	return first
}

func (ps *producers) isOngoing(id int64, epoch int16) bool {
	p := ps.byID[id]
	return p != nil && p.transactionFirst >= 0 && p.epoch == epoch
}

// verification is a transaction that is being verified with its coordinator.
type verification struct {
	guard  Guard
	began  int64 // Unix milliseconds
	epoch  int16
	lowest int32 // the lowest sequence that waits: a higher one that came first would bar it for ever
	bumps  bool
}

// verify begins the verification of a batch, or joins the one that is under way.
func (ps *producers) verify(id int64, epoch int16, sequence int32, bumps bool, now int64, where Partition) (g Guard, needed bool, refusal *Error) {
	if p := ps.byID[id]; p != nil && epoch < p.epoch {
		return g, false, refuse(kerr.InvalidProducerEpoch, "producer %d on %s: epoch %d is older than %d", id, where, epoch, p.epoch)
	}
	if ps.isOngoing(id, epoch) {
		return g, false, nil
	}
	v := ps.verifying[id]
	switch {
	case v == nil:
		if len(ps.verifying) >= maxProducers {
			ps.forgetVerifying()
		}
		ps.guards++
		v = &verification{guard: Guard{ps.guards}, began: now, epoch: epoch, lowest: sequence, bumps: bumps}
		ps.verifying[id] = v
	case epoch > v.epoch:
		v.epoch, v.lowest = epoch, sequence
	case epoch == v.epoch:
		v.lowest = min(v.lowest, sequence)
	}
	return v.guard, true, nil
}

// expire forgets producers that were silent since before the time given, unless
// a transaction of theirs is open, and verifications that never ended.
func (ps *producers) expire(before int64) {
	ps.expireSilent(before)
	for id, v := range ps.verifying {
		if v.began < before {
			delete(ps.verifying, id)
		}
	}
}

func (ps *producers) expireSilent(before int64) {
	for id, p := range ps.byID {
		if p.transactionFirst < 0 && p.seen < before {
			delete(ps.byID, id)
		}
	}
}

// forgetSilent forgets about half: those silent for longer than the average.
func (ps *producers) forgetSilent() {
	var oldest, newest int64 = math.MaxInt64, 0
	for _, p := range ps.byID {
		oldest, newest = min(oldest, p.seen), max(newest, p.seen)
	}
	ps.expireSilent(oldest + (newest-oldest)/2 + 1)
}

// forgetVerifying forgets about half of the verifications, those that take
// longest. Whoever waits for one of them is told that its batch belongs to no
// transaction.
func (ps *producers) forgetVerifying() {
	var oldest, newest int64 = math.MaxInt64, 0
	for _, v := range ps.verifying {
		oldest, newest = min(oldest, v.began), max(newest, v.began)
	}
	for id, v := range ps.verifying {
		if v.began <= oldest+(newest-oldest)/2 {
			delete(ps.verifying, id)
		}
	}
}

// ProducerInfo is what DescribeProducers tells of a producer.
type ProducerInfo struct {
	ID               int64
	Epoch            int16
	LastSequence     int32
	LastTimestamp    int64 // Unix milliseconds
	CoordinatorEpoch int32
	TransactionFirst int64 // first offset of the open transaction, -1 for none
}
