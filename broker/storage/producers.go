package storage

import (
	"math"

	"github.com/twmb/franz-go/pkg/kerr"

	"kmirror/internal/wire"
)

// window is how many batches of a producer are remembered, Kafka's
// ProducerStateEntry.NUM_BATCHES_TO_RETAIN: a producer has at most five
// requests in flight.
const window = 5

// maxProducers bounds the memory that invented producer ids can take in one
// log; beyond it those that were silent longest are forgotten.
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

// producers are the idempotent producers of one log. Its methods decide and
// remember only; its owner serialises them.
type producers map[int64]*producer

// check decides on a data batch of a producer (KIP-98): the batch that it
// repeats, or a refusal, or neither when it is to be appended.
func (ps producers) check(b wire.Batch, where Partition) (*written, *Error) {
	p := ps[b.ProducerID()]
	if p == nil {
		return nil, nil // all it wrote may have been deleted: any first sequence will do
	}
	epoch, first := b.ProducerEpoch(), b.BaseSequence()
	if p.n > 0 && epoch == p.epoch {
		last := b.LastSequence()
		for i := int(p.n) - 1; i >= 0; i-- {
			if w := &p.recent[i]; w.lastSequence == last && w.firstSequence() == first {
				return w, nil
			}
		}
	}
	switch {
	case epoch < p.epoch:
		return nil, refuse(kerr.InvalidProducerEpoch, "producer %d on %s: epoch %d is older than %d", b.ProducerID(), where, epoch, p.epoch)
	case epoch > p.epoch && first != 0 && p.epoch >= 0:
		return nil, refuse(kerr.OutOfOrderSequenceNumber, "producer %d on %s: new epoch %d begins at sequence %d, not 0 (last epoch %d)",
			b.ProducerID(), where, epoch, first, p.epoch)
	case epoch == p.epoch && first != next(p.lastSequence()):
		return nil, refuse(kerr.OutOfOrderSequenceNumber, "producer %d epoch %d on %s: sequence %d after %d",
			b.ProducerID(), epoch, where, first, p.lastSequence())
	}
	return nil, nil
}

// next is the sequence after s; they go from 2^31-1 to 0.
func next(s int32) int32 { return int32((int64(s) + 1) & math.MaxInt32) }

// add remembers a batch that stands in the log at its base offset.
func (ps producers) add(b wire.Batch, now int64) {
	id := b.ProducerID()
	if id < 0 {
		return
	}
	p := ps[id]
	if p == nil {
		if len(ps) >= maxProducers {
			ps.forgetSilent()
		}
		p = &producer{epoch: b.ProducerEpoch(), coordinatorEpoch: -1, transactionFirst: -1}
		ps[id] = p
	}
	if p.epoch != b.ProducerEpoch() {
		p.epoch, p.n = b.ProducerEpoch(), 0
	}
	p.seen, p.timestamp = now, b.MaxTimestamp()
	if b.IsControl() { // a marker ends the transaction and takes no sequence
		p.transactionFirst = -1
		return
	}
	if b.IsTransactional() && p.transactionFirst < 0 {
		p.transactionFirst = b.BaseOffset()
	}
	p.push(written{lastSequence: b.LastSequence(), offsetDelta: b.LastOffsetDelta(), lastOffset: b.LastOffset(), timestamp: b.MaxTimestamp()})
}

// expire forgets producers that were silent since before the time given, unless
// a transaction of theirs is open.
func (ps producers) expire(before int64) {
	for id, p := range ps {
		if p.transactionFirst < 0 && p.seen < before {
			delete(ps, id)
		}
	}
}

// forgetSilent forgets about half: those silent for longer than the average.
func (ps producers) forgetSilent() {
	var oldest, newest int64 = math.MaxInt64, 0
	for _, p := range ps {
		oldest, newest = min(oldest, p.seen), max(newest, p.seen)
	}
	ps.expire(oldest + (newest-oldest)/2 + 1)
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
