package coordinator

import (
	"math"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
)

// completionRetry is when a completion that could not be written is tried again.
const completionRetry = time.Second

// End decides the transaction. The answer leaves when the outcome is durable,
// before the markers are written. Under transaction version 2 it holds the
// producer id and epoch of the next transaction; fresh is a producer id of
// nobody's for the case that the epochs are used up, -1 when none is at hand.
func (t *Transaction) End(ticket Ticket, producerID int64, epoch int16, commit bool, version int16, fresh int64, now time.Time) []Effect {
	var code int16
	var again, empty bool
	if version >= TransactionVersion2 {
		code, again, empty = t.checkEnd(producerID, epoch, commit)
	} else {
		code, again = t.checkOldEnd(producerID, epoch, commit)
	}
	switch {
	case code != 0:
		t.settle(ticket, txnCode(code))
	case again:
		t.settle(ticket, TxnResult{0, t.state.producerID, t.state.epoch})
	default:
		t.decide(ticket, commit, version, fresh, empty, now)
	}
	return t.take()
}

// checkOldEnd looks at an EndTxn of version 4 or less, whose epoch stays: a
// request that repeats the last one (again) has the epoch of that.
func (t *Transaction) checkOldEnd(producerID int64, epoch int16, commit bool) (code int16, again bool) {
	s := &t.state
	switch {
	case s.producerID != producerID:
		return kerr.InvalidProducerIDMapping.Code, false
	case s.epoch != epoch || epoch < 0:
		return kerr.ProducerFenced.Code, false
	case t.pending != nil:
		return kerr.ConcurrentTransactions.Code, false
	}
	switch s.status {
	case TxnOngoing:
		return 0, false
	case TxnCompleteCommit, TxnPrepareCommit:
		if !commit {
			return kerr.InvalidTxnState.Code, false
		}
	case TxnCompleteAbort, TxnPrepareAbort:
		if commit {
			return kerr.InvalidTxnState.Code, false
		}
	case TxnEmpty, TxnDead:
		return kerr.InvalidTxnState.Code, false
	}
	if s.status.decided() {
		return kerr.ConcurrentTransactions.Code, false
	}
	return 0, true
}

// checkEnd looks at an EndTxn under transaction version 2: one that repeats the
// last (again) has the epoch before, for each one makes it grow. An abort needs
// no partitions (empty): it may be that the producer does not know whether its
// write, which adds the partition, was taken.
func (t *Transaction) checkEnd(producerID int64, epoch int16, commit bool) (code int16, again, empty bool) {
	s := &t.state
	overflown := s.previousID == producerID && epoch == lastTxnEpoch && s.epoch == 0
	again = int(s.epoch) == int(epoch)+1 || overflown
	valid := false
	switch s.status {
	case TxnOngoing, TxnEmpty, TxnDead:
		valid = epoch == s.epoch
	case TxnPrepareCommit, TxnPrepareAbort:
		valid = int(s.epoch) == int(epoch)+1
	case TxnCompleteCommit, TxnCompleteAbort:
		valid = again || epoch == s.epoch
	}
	switch {
	case t.pending != nil: // first: the producer may know an epoch that is on its way to the log
		return kerr.ConcurrentTransactions.Code, false, false
	case s.producerID != producerID && !overflown:
		return kerr.InvalidProducerIDMapping.Code, false, false
	case !valid || s.epoch < 0:
		return kerr.ProducerFenced.Code, false, false
	}
	bad := kerr.InvalidTxnState.Code
	switch s.status {
	case TxnOngoing:
		return 0, false, false
	case TxnEmpty:
		if commit {
			return bad, false, false
		}
		return 0, false, true
	case TxnCompleteCommit:
		if commit == again { // the same once more, or an abort of what is new
			return 0, again, true
		}
		return bad, false, false
	case TxnCompleteAbort:
		if commit {
			return bad, false, false
		}
		return 0, again, true
	case TxnPrepareCommit, TxnPrepareAbort:
		if commit == (s.status == TxnPrepareCommit) {
			return kerr.ConcurrentTransactions.Code, false, false
		}
		return bad, false, false
	case TxnDead:
	}
	return bad, false, false
}

// decide writes the outcome. empty means that no partition was added, so that
// the transaction begins now.
func (t *Transaction) decide(ticket Ticket, commit bool, version int16, fresh int64, empty bool, now time.Time) {
	s := &t.state
	next := *s
	next.status, next.version, next.updated = TxnPrepareAbort, version, now.UnixMilli()
	if commit {
		next.status = TxnPrepareCommit
	}
	next.nextID = noProducerID
	if version >= TransactionVersion2 {
		if s.epoch >= lastTxnEpoch {
			if fresh < 0 {
				t.settle(ticket, txnCode(kerr.CoordinatorNotAvailable.Code))
				return
			}
			next.nextID = fresh
		}
		next.lastEpoch, next.epoch = s.epoch, above(s.epoch)
	}
	if empty {
		next.partitions, next.started = nil, now.UnixMilli()
	}
	t.append(next, now, func(code int16, now time.Time) {
		r := txnCode(code)
		if code == 0 {
			t.mark(now)
			r.ProducerID, r.Epoch = t.pending.producerID, t.pending.epoch
		}
		t.settle(ticket, r)
	})
}

// fence aborts an ongoing transaction with an epoch that its producer does not
// have and that nobody is given.
func (t *Transaction) fence(now time.Time, done func(code int16)) {
	s := &t.state
	next := *s
	next.status, next.version, next.updated = TxnPrepareAbort, TransactionVersion2, now.UnixMilli()
	next.nextID = noProducerID
	next.epoch, next.lastEpoch = above(s.epoch), s.epoch
	t.append(next, now, func(code int16, now time.Time) {
		if code == 0 {
			t.mark(now)
		}
		done(code)
	})
}

// above is the next epoch; the last one of all stays.
func above(epoch int16) int16 {
	if epoch == math.MaxInt16 {
		return epoch
	}
	return epoch + 1
}

// completed is the state that follows when every marker is written.
func (t *Transaction) completed(now time.Time) txnState {
	next := t.state
	next.status = TxnCompleteAbort
	if t.state.status == TxnPrepareCommit {
		next.status = TxnCompleteCommit
	}
	if t.state.nextID != noProducerID {
		next.producerID, next.epoch = t.state.nextID, 0
	}
	next.nextID, next.partitions, next.updated = noProducerID, nil, now.UnixMilli()
	return next
}

// mark asks for the markers of a decided transaction.
func (t *Transaction) mark(now time.Time) {
	next := t.completed(now)
	t.pending = &next
	t.out = append(t.out, Mark{
		Marker: Marker{
			ProducerID: t.state.producerID, Epoch: t.state.epoch, Version: t.state.version, Commit: t.state.status == TxnPrepareCommit,
		},
		Partitions: sortedPartitions(t.state.partitions),
	})
}

// Marked tells that every partition of Mark has its marker, or is gone.
func (t *Transaction) Marked(now time.Time) []Effect {
	if t.state.status.decided() && len(t.appends) == 0 {
		t.complete(now)
	}
	return t.take()
}

// complete writes that all markers are written.
func (t *Transaction) complete(now time.Time) {
	next := t.completed(now)
	t.append(next, now, func(code int16, now time.Time) {
		if code != 0 { // the markers stand; only the word of it is missing
			t.pending = &next
			t.retryAt = now.Add(completionRetry)
		}
	})
}
