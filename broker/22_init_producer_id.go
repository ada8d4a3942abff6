package broker

import (
	"context"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"
)

// InitProducerId: v0-5
//
// Behavior: hands out producer ids to idempotent producers, epoch 0 each. An
// empty transactional id is INVALID_REQUEST, as in Kafka; any other is refused
// with TRANSACTIONAL_ID_AUTHORIZATION_FAILED: this cluster has no transactions,
// and that is the one code that every client takes as final.
//
// Version notes:
//   - v2: flexible
//   - v3: the producer's current id and epoch (KIP-360); without a transactional id Kafka ignores them, too
//   - v4: PRODUCER_FENCED (KIP-588)
func (n *Node) initProducerID(ctx context.Context, r *request, req *kmsg.InitProducerIDRequest) (kmsg.Response, error) {
	resp := kmsg.NewPtrInitProducerIDResponse()
	resp.ProducerID, resp.ProducerEpoch = -1, -1
	switch {
	case req.TransactionalID != nil && *req.TransactionalID == "":
		resp.ErrorCode = r.note(kerr.InvalidRequest.Code)
		return resp, nil
	case req.TransactionalID != nil:
		resp.ErrorCode = r.fail(n.noTransactions(r))
		return resp, nil
	}
	id, err := n.nextProducerID(ctx)
	if err != nil {
		resp.ErrorCode = r.fail(err)
		return resp, nil
	}
	resp.ProducerID, resp.ProducerEpoch = id, 0
	return resp, nil
}

// noTransactions refuses a transactional id, and says so in the log because the
// code alone would mislead.
func (n *Node) noTransactions(r *request) error {
	n.complaints.log(n.logger, "a producer asked for transactions, which this cluster does not have", r.conn.remote, nil)
	return refuse(kerr.TransactionalIDAuthorizationFailed, "this cluster has no transactions")
}
