package coordinator

import (
	"cmp"
	"maps"
	"math"
	"slices"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
)

// TxnStatus is where a transactional id stands; the numbers are those of
// Kafka's records.
type TxnStatus int8

// The states, with Kafka's names (String). Kafka's PrepareEpochFence is a
// moment inside a call here and never a state.
const (
	TxnEmpty          TxnStatus = iota // a producer has the id, no transaction yet
	TxnOngoing                         // partitions were added
	TxnPrepareCommit                   // decided; markers are being written
	TxnPrepareAbort                    // decided; markers are being written
	TxnCompleteCommit                  // all markers are written
	TxnCompleteAbort                   // all markers are written
	TxnDead                            // expired, about to be forgotten
)

// String is the name that DescribeTransactions and ListTransactions show.
func (s TxnStatus) String() string {
	switch s {
	case TxnEmpty:
		return "Empty"
	case TxnOngoing:
		return "Ongoing"
	case TxnPrepareCommit:
		return "PrepareCommit"
	case TxnPrepareAbort:
		return "PrepareAbort"
	case TxnCompleteCommit:
		return "CompleteCommit"
	case TxnCompleteAbort:
		return "CompleteAbort"
	case TxnDead:
	}
	return "Dead"
}

// decided tells that the outcome is in the log and the markers are not all written.
func (s TxnStatus) decided() bool { return s == TxnPrepareCommit || s == TxnPrepareAbort }

// TopicPartition names a partition.
type TopicPartition struct {
	Topic     string
	Partition int32
}

// Marker is what ends a transaction in a partition. Its producer epoch is the
// one that a producer must have from then on.
type Marker struct {
	ProducerID int64
	Epoch      int16
	Version    int16 // of the transaction; from 2 on the epoch is above that of the transaction's records
	Commit     bool

	CoordinatorEpoch int32 // leader epoch of the partition of __transaction_state that decided; the broker fills it in
}

// The transaction versions of KIP-890. The node finalizes version 2; a client
// that speaks an older dialect is served in that.
const (
	TransactionVersion0 = 0 // partitions are added by their own request, the epoch stays
	TransactionVersion2 = 2 // partitions are added by writing to them, the epoch grows with each transaction
)

const (
	noProducerID    = -1
	noProducerEpoch = -1
	// lastTxnEpoch is the last epoch that a client is given; the one above it is
	// kept for the coordinator, which must always be able to fence.
	lastTxnEpoch = math.MaxInt16 - 1
)

// txnState is all that the log says of a transactional id. A value is never
// changed once it is a Transaction's: the next one takes its place.
type txnState struct {
	status     TxnStatus
	producerID int64
	previousID int64 // the producer id before the last change of it
	nextID     int64 // the producer id that this transaction's end brings, -1: the same
	epoch      int16 // -1: no producer was given one yet
	lastEpoch  int16 // the epoch before the last bump that the producer itself asked for; not in the log
	timeout    int32 // ms
	version    int16 // of the client that moved it here
	partitions map[TopicPartition]bool
	started    int64 // ms, -1: no transaction
	updated    int64 // ms
}

// Transaction is one transactional id. It is a pure state machine: not safe for
// concurrent use, no goroutine, no clock, no I/O. Rules are those of Kafka's
// TransactionCoordinator and TransactionMetadata (4.x).
//
// A change of state is an Append; it holds when that is durable. While one is
// on its way every other request is told CONCURRENT_TRANSACTIONS. When the
// outcome of a transaction is durable its producer is answered and Mark is
// asked for; Marked tells that every partition has its marker, and the last
// Append says so in the log. A transaction that a restart finds decided is
// marked again, which harms nothing.
type Transaction struct {
	id       string
	settings *TransactionSettings

	state   txnState
	pending *txnState // on its way to the log, nil: none
	retryAt time.Time // when a completion that could not be written is tried again; zero: not
	gone    bool      // its tombstone is durable

	lastAppend uint64
	appends    map[uint64]func(code int16, now time.Time)
	out        []Effect
}

// NewTransaction is a transactional id without history, to which producerID
// belongs. settings is read, never changed.
func NewTransaction(id string, producerID int64, settings *TransactionSettings, now time.Time) *Transaction {
	return &Transaction{
		id: id, settings: settings,
		state: txnState{
			status: TxnEmpty, producerID: producerID, previousID: noProducerID, nextID: noProducerID,
			epoch: noProducerEpoch, lastEpoch: noProducerEpoch, started: -1, updated: now.UnixMilli(),
		},
		appends: make(map[uint64]func(int16, time.Time)),
	}
}

// ID is the transactional id.
func (t *Transaction) ID() string { return t.id }

// Status is where the id stands.
func (t *Transaction) Status() TxnStatus { return t.state.status }

// Gone tells that the id expired, durably: forget it.
func (t *Transaction) Gone() bool { return t.gone }

// Vacant tells that nothing is known of the id, in memory or in the log.
func (t *Transaction) Vacant() bool {
	return t.state.epoch == noProducerEpoch && t.pending == nil
}

// Partitions is how many partitions the transaction has, or is about to have.
func (t *Transaction) Partitions() int {
	if t.pending != nil {
		return max(len(t.state.partitions), len(t.pending.partitions))
	}
	return len(t.state.partitions)
}

// TxnResult answers a request to a Transaction. ProducerID and Epoch are -1
// unless the request asks for them and Code is 0.
type TxnResult struct {
	Code       int16
	ProducerID int64
	Epoch      int16
}

func txnCode(code int16) TxnResult { return TxnResult{code, noProducerID, noProducerEpoch} }

// Settled ends the wait of a ticket.
type Settled struct {
	Ticket Ticket
	Result TxnResult
}

// Mark asks for a marker in every one of the partitions; one call of
// Transaction.Marked follows when all are durable or gone.
type Mark struct {
	Marker     Marker
	Partitions []TopicPartition
}

func (Settled) effect() {}
func (Mark) effect()    {}

// settle ends the wait of a ticket; 0 is none.
func (t *Transaction) settle(ticket Ticket, r TxnResult) {
	if ticket != 0 {
		t.out = append(t.out, Settled{ticket, r})
	}
}

// take hands out the effects gathered since the last call.
func (t *Transaction) take() []Effect {
	out := t.out
	t.out = nil
	return out
}

// append asks for the record of next and runs done when its fate is known. The
// state is next's if that is good.
func (t *Transaction) append(next txnState, now time.Time, done func(code int16, now time.Time)) {
	next.previousID = t.state.producerID
	t.pending = &next
	t.lastAppend++
	t.appends[t.lastAppend] = func(code int16, now time.Time) {
		t.pending = nil
		if code == 0 {
			t.state = next
		}
		done(code, now)
	}
	t.out = append(t.out, Append{ID: t.lastAppend, Records: t.records(&next, now)})
}

// Appended tells that an Append is durable (code 0) or has failed with a Kafka
// error code.
func (t *Transaction) Appended(id uint64, code int16, now time.Time) []Effect {
	done, ok := t.appends[id]
	if !ok {
		return nil
	}
	delete(t.appends, id)
	done(code, now)
	return t.take()
}

// Verify tells for a producer's partitions whether the transaction has them: a
// code for all of them, or the partitions that it has not. The append checks
// once more that the epoch still holds, so a change on its way does not matter.
func (t *Transaction) Verify(producerID int64, epoch int16, partitions []TopicPartition) (code int16, missing []TopicPartition) {
	s := &t.state
	switch {
	case s.producerID != producerID:
		return kerr.InvalidProducerIDMapping.Code, nil
	case s.epoch != epoch || epoch < 0:
		return kerr.ProducerFenced.Code, nil
	case s.status.decided():
		return kerr.ConcurrentTransactions.Code, nil
	}
	for _, tp := range partitions {
		if !s.partitions[tp] {
			missing = append(missing, tp)
		}
	}
	return 0, missing
}

// Add adds partitions to the transaction and begins it if there is none. From
// the answer on, the outcome will reach them.
func (t *Transaction) Add(ticket Ticket, producerID int64, epoch int16, partitions []TopicPartition, version int16, now time.Time) []Effect {
	s := &t.state
	var code int16
	all := true
	for _, tp := range partitions {
		all = all && s.partitions[tp]
	}
	switch {
	case t.pending != nil: // first, so that a change on its way holds before the rest is looked at
		code = kerr.ConcurrentTransactions.Code
	case s.producerID != producerID:
		code = kerr.InvalidProducerIDMapping.Code
	case s.epoch != epoch || epoch < 0:
		code = kerr.ProducerFenced.Code
	case s.status.decided():
		code = kerr.ConcurrentTransactions.Code
	case s.status == TxnOngoing && all:
		t.settle(ticket, txnCode(0))
		return t.take()
	case len(s.partitions)+len(partitions) > t.settings.MaxPartitions:
		code = kerr.PolicyViolation.Code
	}
	if code != 0 {
		t.settle(ticket, txnCode(code))
		return t.take()
	}
	next := *s
	next.status, next.updated, next.version = TxnOngoing, now.UnixMilli(), version
	if s.status != TxnOngoing {
		next.started = now.UnixMilli()
	}
	next.partitions = make(map[TopicPartition]bool, len(s.partitions)+len(partitions))
	maps.Copy(next.partitions, s.partitions)
	for _, tp := range partitions {
		next.partitions[tp] = true
	}
	t.append(next, now, func(code int16, _ time.Time) { t.settle(ticket, txnCode(code)) })
	return t.take()
}

// Next is the earliest deadline that Tick waits for; ok is false when there is none.
func (t *Transaction) Next() (at time.Time, ok bool) {
	if !t.retryAt.IsZero() {
		return t.retryAt, true
	}
	if s := &t.state; s.status == TxnOngoing && t.pending == nil {
		return time.UnixMilli(s.started + int64(s.timeout) + 1), true
	}
	return time.Time{}, false
}

// Tick aborts a transaction that took longer than its producer said, with an
// epoch that fences that producer, and tries again what could not be written.
func (t *Transaction) Tick(now time.Time) []Effect {
	s := &t.state
	switch {
	case !t.retryAt.IsZero():
		if !now.Before(t.retryAt) {
			t.retryAt = time.Time{}
			t.complete(now)
		}
	case s.status == TxnOngoing && t.pending == nil && s.started+int64(s.timeout) < now.UnixMilli():
		t.fence(now, func(int16) {})
	}
	return t.take()
}

// Expire forgets an id that nobody used for the expiration time of
// transactional ids.
func (t *Transaction) Expire(now time.Time) []Effect {
	s := &t.state
	if t.pending != nil || s.status == TxnOngoing || s.status.decided() || s.status == TxnDead ||
		s.updated > now.UnixMilli()-t.settings.Expiration.Milliseconds() {
		return nil
	}
	next := *s
	next.status, next.partitions = TxnDead, nil
	t.append(next, now, func(code int16, _ time.Time) { t.gone = code == 0 })
	return t.take()
}

// sortedPartitions are the partitions of a transaction in an order of their own.
func sortedPartitions(set map[TopicPartition]bool) []TopicPartition {
	return slices.SortedFunc(maps.Keys(set), func(a, b TopicPartition) int {
		return cmp.Or(cmp.Compare(a.Topic, b.Topic), cmp.Compare(a.Partition, b.Partition))
	})
}
