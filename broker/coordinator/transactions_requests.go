package coordinator

import (
	"context"
	"slices"
	"strings"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"
)

// InitProducerID gives the producer of a transactional id its producer id and
// epoch. The id must not be empty. (key 22, v0-5).
func (c *Transactions) InitProducerID(ctx context.Context, id string, req TxnInit) TxnResult {
	timeout := time.Duration(req.TimeoutMillis) * time.Millisecond
	if timeout <= 0 || timeout > c.settings.MaxTimeout {
		return txnCode(kerr.InvalidTransactionTimeout.Code)
	}
	id = strings.Clone(id)
	fresh, code := c.freshID(ctx, id, true)
	if code != 0 {
		return txnCode(code)
	}
	s := c.shards[c.Partition(id)]
	s.mu.Lock()
	if code := s.ready(); code != 0 {
		s.mu.Unlock()
		return txnCode(code)
	}
	e := s.ids[id]
	switch {
	case e == nil && c.ids.Load()+idWeight(id) > int64(c.settings.MaxIDs):
		s.mu.Unlock()
		return txnCode(kerr.PolicyViolation.Code)
	case e == nil && fresh < 0: // it expired a moment ago
		s.mu.Unlock()
		return txnCode(kerr.ConcurrentTransactions.Code)
	case e == nil:
		e = &txnEntry{txn: NewTransaction(id, fresh, &c.settings, time.Now())}
		s.ids[id] = e
		c.ids.Add(idWeight(id))
	}
	return c.wait(ctx, s, e, func(t *Transaction, ticket Ticket, now time.Time) []Effect {
		return t.Init(ticket, req, fresh, now)
	})
}

// freshID is a producer id of nobody's if the request on id may need one, else
// -1. It comes before the request, because a lock cannot be held over it; one
// that is not used is lost, and there are many.
func (c *Transactions) freshID(ctx context.Context, id string, create bool) (fresh int64, code int16) {
	s := c.shards[c.Partition(id)]
	s.mu.Lock()
	code = s.ready()
	e := s.ids[id]
	need := e == nil && create || e != nil && e.txn.WantsID()
	s.mu.Unlock()
	if code != 0 || !need {
		return noProducerID, code
	}
	fresh, err := c.log.NewProducerID(ctx)
	if err != nil {
		return noProducerID, errCode(err)
	}
	return fresh, 0
}

// AddPartitions adds partitions that exist to a transaction, and begins it if
// there is none. (key 24 without verification, key 25, and what implies them.)
func (c *Transactions) AddPartitions(ctx context.Context, id string, producerID int64, epoch int16, partitions []TopicPartition, version int16) int16 {
	if id == "" {
		return kerr.InvalidRequest.Code
	}
	if c.partitions.Load()+int64(len(partitions)) > c.settings.TotalPartitions {
		return kerr.PolicyViolation.Code
	}
	return c.await(ctx, id, kerr.InvalidProducerIDMapping.Code, func(t *Transaction, ticket Ticket, now time.Time) []Effect {
		return t.Add(ticket, producerID, epoch, partitions, version, now)
	}).Code
}

// VerifyPartitions tells whether a transaction has partitions: a code for all,
// or those that it has not. It never waits. (key 24 with verification.)
func (c *Transactions) VerifyPartitions(id string, producerID int64, epoch int16, partitions []TopicPartition) (code int16, missing []TopicPartition) {
	if id == "" {
		return kerr.InvalidRequest.Code, nil
	}
	s := c.shards[c.Partition(id)]
	s.mu.Lock()
	defer s.mu.Unlock()
	if code := s.ready(); code != 0 {
		return code, nil
	}
	e := s.ids[id]
	if e == nil {
		return kerr.InvalidProducerIDMapping.Code, nil
	}
	return e.txn.Verify(producerID, epoch, partitions)
}

// EndTxn commits or aborts a transaction and answers when that is durable; the
// markers follow. (key 26, v0-5; version is the transaction version, 2 from v5 on).
func (c *Transactions) EndTxn(ctx context.Context, id string, producerID int64, epoch int16, commit bool, version int16) TxnResult {
	if id == "" {
		return txnCode(kerr.InvalidRequest.Code)
	}
	fresh := int64(noProducerID)
	if version >= TransactionVersion2 {
		var code int16
		if fresh, code = c.freshID(ctx, id, false); code != 0 {
			return txnCode(code)
		}
	}
	return c.await(ctx, id, kerr.InvalidProducerIDMapping.Code, func(t *Transaction, ticket Ticket, now time.Time) []Effect {
		return t.End(ticket, producerID, epoch, commit, version, fresh, now)
	})
}

// Describe shows one transactional id. (key 65, v0).
func (c *Transactions) Describe(id string) kmsg.DescribeTransactionsResponseTransactionState {
	r := kmsg.NewDescribeTransactionsResponseTransactionState()
	r.TransactionalID, r.ProducerID = id, 0
	if id == "" {
		r.ErrorCode = kerr.InvalidRequest.Code
		return r
	}
	s := c.shards[c.Partition(id)]
	s.mu.Lock()
	defer s.mu.Unlock()
	if r.ErrorCode = s.ready(); r.ErrorCode != 0 {
		return r
	}
	e := s.ids[id]
	if e == nil || e.txn.Vacant() {
		r.ErrorCode = kerr.TransactionalIDNotFound.Code
		return r
	}
	state := &e.txn.state
	r.State, r.TimeoutMillis, r.StartTimestamp = state.status.String(), state.timeout, state.started
	r.ProducerID, r.ProducerEpoch = state.producerID, state.epoch
	for _, tp := range sortedPartitions(state.partitions) {
		if n := len(r.Topics); n == 0 || r.Topics[n-1].Topic != tp.Topic {
			rt := kmsg.NewDescribeTransactionsResponseTransactionStateTopic()
			rt.Topic = tp.Topic
			r.Topics = append(r.Topics, rt)
		}
		last := &r.Topics[len(r.Topics)-1]
		last.Partitions = append(last.Partitions, tp.Partition)
	}
	return r
}

// List lists all transactional ids, sorted, filtered by state, producer id, how
// long the transaction runs (v1) and pattern (v2). (key 66, v0-2).
func (c *Transactions) List(req *kmsg.ListTransactionsRequest, matches func(id string) bool) *kmsg.ListTransactionsResponse {
	resp := req.ResponseKind().(*kmsg.ListTransactionsResponse)
	for _, name := range req.StateFilters {
		if !slices.ContainsFunc(txnStatuses(), func(s TxnStatus) bool { return s.String() == name }) && name != "PrepareEpochFence" {
			resp.UnknownStateFilters = append(resp.UnknownStateFilters, name)
		}
	}
	now := time.Now().UnixMilli()
	for _, s := range c.shards {
		s.mu.Lock()
		code := s.ready()
		for id, e := range s.ids {
			state := &e.txn.state
			switch {
			case e.txn.Vacant(), state.status == TxnDead,
				len(req.StateFilters) > 0 && !slices.Contains(req.StateFilters, state.status.String()),
				len(req.ProducerIDFilters) > 0 && !slices.Contains(req.ProducerIDFilters, state.producerID),
				req.Version >= 1 && req.DurationFilterMillis >= 0 && now-state.started <= req.DurationFilterMillis,
				!matches(id):
				continue
			}
			l := kmsg.NewListTransactionsResponseTransactionState()
			l.TransactionalID, l.ProducerID, l.TransactionState = id, state.producerID, state.status.String()
			resp.TransactionStates = append(resp.TransactionStates, l)
		}
		s.mu.Unlock()
		if code != 0 {
			resp.ErrorCode, resp.TransactionStates = code, nil
			return resp
		}
	}
	slices.SortFunc(resp.TransactionStates, func(a, b kmsg.ListTransactionsResponseTransactionState) int {
		return strings.Compare(a.TransactionalID, b.TransactionalID)
	})
	return resp
}

func txnStatuses() []TxnStatus {
	return []TxnStatus{TxnEmpty, TxnOngoing, TxnPrepareCommit, TxnPrepareAbort, TxnCompleteCommit, TxnCompleteAbort, TxnDead}
}
