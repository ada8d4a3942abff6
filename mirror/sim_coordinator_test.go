package mirror

import (
	"cmp"
	"slices"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"

	"kmirror/internal/kafka"
)

// simCoordinator is Kafka's transaction coordinator, as far as empty
// transactions go (TransactionCoordinator, TransactionMetadata of 4.1).
type simCoordinator struct {
	v2     bool // transaction version 2: EndTxn takes a new epoch (KIP-890)
	nextID int64
	txns   map[string]*simTxn
	due    []*simMark // markers that are not written yet
}

type simTxn struct {
	id         string
	producer   kafka.Producer
	lastEpoch  int16
	status     simStatus
	partitions map[kafka.TopicPartition]bool
	left       int // markers not written yet
	since      time.Time
}

type simStatus int

const (
	simEmpty simStatus = iota
	simOngoing
	simPrepareAbort
	simCompleteAbort
)

type simMark struct {
	txn      *simTxn // nil: a repetition
	at       kafka.TopicPartition
	producer kafka.Producer
	base     int64 // where it was appended; it is written when it is replicated
	epoch    int32 // of the leader then; -1: not appended
}

func newSimCoordinator(v2 bool) *simCoordinator {
	return &simCoordinator{v2: v2, nextID: 1000, txns: map[string]*simTxn{}}
}

func (c *simCoordinator) fresh() int64 {
	c.nextID++
	return c.nextID
}

// expire forgets an id that nobody has asked for in a long time.
func (c *simCoordinator) expire(id string) {
	if t := c.txns[id]; t != nil && (t.status == simEmpty || t.status == simCompleteAbort) {
		delete(c.txns, id)
	}
}

func (c *simCoordinator) init(id string, expected kafka.Producer) (kafka.Producer, error) {
	t := c.txns[id]
	if t == nil {
		t = &simTxn{id: id, producer: kafka.Producer{ID: c.fresh(), Epoch: 0}, lastEpoch: -1, partitions: map[kafka.TopicPartition]bool{}}
		c.txns[id] = t
		return t.producer, nil
	}
	expects := expected != kafka.NoProducer
	switch {
	case expects && expected.ID != t.producer.ID:
		return kafka.NoProducer, kerr.ProducerFenced
	case t.status == simPrepareAbort:
		return kafka.NoProducer, kerr.ConcurrentTransactions
	case t.status == simOngoing:
		c.abort(t)
		return kafka.NoProducer, kerr.ConcurrentTransactions
	case !expects:
		t.producer.Epoch, t.lastEpoch = t.producer.Epoch+1, -1
	case expected.Epoch == t.producer.Epoch:
		t.producer.Epoch, t.lastEpoch = t.producer.Epoch+1, t.producer.Epoch
	case expected.Epoch == t.lastEpoch: // asked before; the answer was lost
	default:
		return kafka.NoProducer, kerr.ProducerFenced
	}
	t.status = simEmpty
	return t.producer, nil
}

// abort ends a transaction with an epoch that its producer does not have.
func (c *simCoordinator) abort(t *simTxn) {
	t.producer.Epoch, t.lastEpoch = t.producer.Epoch+1, -1
	c.decide(t)
}

func (c *simCoordinator) add(id string, who kafka.Producer, partitions []kafka.TopicPartition) error {
	t := c.txns[id]
	switch {
	case t == nil || t.producer.ID != who.ID:
		return kerr.InvalidProducerIDMapping
	case t.producer.Epoch != who.Epoch:
		return kerr.ProducerFenced
	case t.status == simPrepareAbort:
		return kerr.ConcurrentTransactions
	}
	if t.status != simOngoing {
		t.since = time.Now()
	}
	t.status = simOngoing
	for _, p := range partitions {
		t.partitions[p] = true
	}
	return nil
}

func (c *simCoordinator) end(id string, who kafka.Producer) (kafka.Producer, error) {
	t := c.txns[id]
	if t == nil || t.producer.ID != who.ID {
		return kafka.NoProducer, kerr.InvalidProducerIDMapping
	}
	if !c.v2 {
		switch {
		case t.producer.Epoch != who.Epoch:
			return kafka.NoProducer, kerr.ProducerFenced
		case t.status == simOngoing:
			c.decide(t)
			return who, nil
		case t.status == simPrepareAbort:
			return kafka.NoProducer, kerr.ConcurrentTransactions
		case t.status == simCompleteAbort:
			return who, nil
		}
		return kafka.NoProducer, kerr.InvalidTxnState
	}
	again := t.producer.Epoch == who.Epoch+1
	switch {
	case t.status == simOngoing && t.producer.Epoch == who.Epoch, t.status == simEmpty && t.producer.Epoch == who.Epoch:
		t.lastEpoch, t.producer.Epoch = t.producer.Epoch, t.producer.Epoch+1
		c.decide(t)
		return t.producer, nil
	case t.status == simPrepareAbort && again:
		return kafka.NoProducer, kerr.ConcurrentTransactions
	case t.status == simCompleteAbort && again:
		return t.producer, nil
	}
	return kafka.NoProducer, kerr.ProducerFenced
}

// decide makes the markers due.
func (c *simCoordinator) decide(t *simTxn) {
	t.status = simPrepareAbort
	partitions := make([]kafka.TopicPartition, 0, len(t.partitions))
	for p := range t.partitions {
		partitions = append(partitions, p)
	}
	clear(t.partitions)
	slices.SortFunc(partitions, func(a, b kafka.TopicPartition) int {
		return cmp.Or(cmp.Compare(a.Topic, b.Topic), cmp.Compare(a.Partition, b.Partition))
	})
	t.left = len(partitions)
	for _, p := range partitions {
		c.due = append(c.due, &simMark{t, p, t.producer, -1, -1})
	}
	if t.left == 0 {
		t.status = simCompleteAbort
	}
}

// write writes the i-th marker that is due; repeat leaves it due once more.
func (c *simCoordinator) write(i int, log *simLog, repeat bool) {
	m := c.due[i]
	if !log.leader {
		return
	}
	if m.epoch != log.epoch {
		m.epoch, m.base = log.epoch, log.end
		log.mark(m.producer)
		return
	}
	if log.end > m.base && log.hw <= m.base {
		return
	}
	m.epoch = -1
	if m.txn != nil {
		if m.txn.left--; m.txn.left == 0 {
			m.txn.status = simCompleteAbort
		}
		m.txn = nil
	}
	if !repeat {
		c.due = slices.Delete(c.due, i, i+1)
	}
}
