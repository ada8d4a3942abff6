package coordinator

import (
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
)

// TxnInit is what a producer asks for with InitProducerId. ProducerID and Epoch
// are what it believes to have (KIP-360), both -1 when it begins.
type TxnInit struct {
	TimeoutMillis int32
	ProducerID    int64
	Epoch         int16
}

// WantsID tells that a request may need a producer id that nobody was ever
// given: the epochs of the present one are used up.
func (t *Transaction) WantsID() bool { return t.state.epoch >= lastTxnEpoch }

// Init gives the producer an epoch above all that were given for the id before,
// which fences whoever had those. A transaction that is under way is aborted
// first, with an epoch that nobody gets: the producer is told
// CONCURRENT_TRANSACTIONS and asks again. fresh is a producer id of nobody's, -1
// when there is none at hand.
func (t *Transaction) Init(ticket Ticket, req TxnInit, fresh int64, now time.Time) []Effect {
	s := &t.state
	expects := req.ProducerID != noProducerID
	mine := !expects || s.epoch == noProducerEpoch || req.ProducerID == s.producerID ||
		req.ProducerID == s.previousID && req.Epoch >= lastTxnEpoch
	switch {
	case t.pending != nil:
		t.settle(ticket, txnCode(kerr.ConcurrentTransactions.Code))
	case !mine:
		t.settle(ticket, txnCode(kerr.ProducerFenced.Code))
	case s.status.decided():
		t.settle(ticket, txnCode(kerr.ConcurrentTransactions.Code))
	case s.status == TxnOngoing:
		t.fence(now, func(code int16) {
			if code == 0 {
				code = kerr.ConcurrentTransactions.Code
			}
			t.settle(ticket, txnCode(code))
		})
	default:
		t.begin(ticket, req, expects, fresh, now)
	}
	return t.take()
}

// begin gives out the next epoch, or the first of another producer id when
// those of the present one are used up.
func (t *Transaction) begin(ticket Ticket, req TxnInit, expects bool, fresh int64, now time.Time) {
	s := &t.state
	next := *s
	next.status, next.timeout, next.partitions = TxnEmpty, req.TimeoutMillis, nil
	next.started, next.updated = -1, now.UnixMilli()
	next.nextID = noProducerID
	switch {
	case s.epoch >= lastTxnEpoch && (!expects || req.Epoch == s.epoch):
		if fresh < 0 {
			t.settle(ticket, txnCode(kerr.CoordinatorNotAvailable.Code))
			return
		}
		next.producerID, next.epoch, next.lastEpoch = fresh, 0, noProducerEpoch
		if expects {
			next.lastEpoch = s.epoch
		}
	case !expects:
		next.epoch, next.lastEpoch = s.epoch+1, noProducerEpoch
	case s.epoch == noProducerEpoch || req.Epoch == s.epoch:
		next.epoch, next.lastEpoch = s.epoch+1, s.epoch
	case req.Epoch == s.lastEpoch: // asked before; the answer was lost
	default:
		t.settle(ticket, txnCode(kerr.ProducerFenced.Code))
		return
	}
	t.append(next, now, func(code int16, _ time.Time) {
		r := txnCode(code)
		if code == 0 {
			r.ProducerID, r.Epoch = t.state.producerID, t.state.epoch
		}
		t.settle(ticket, r)
	})
}
