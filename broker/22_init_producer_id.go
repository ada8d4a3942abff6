package broker

import (
	"context"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"

	"kmirror/broker/coordinator"
)

// InitProducerId: v0-5
//
// Behavior: without a transactional id, a producer id of nobody's with epoch 0.
// With one, the id's producer with the next epoch, which fences whoever had the
// one before. A transaction that is under way is aborted first; the answer is
// CONCURRENT_TRANSACTIONS until its markers are written, and clients ask again.
// An empty transactional id is INVALID_REQUEST.
//
// Version notes:
//   - v2: flexible
//   - v3: the producer's current id and epoch (KIP-360); without a transactional id Kafka ignores them, too
//   - v4: PRODUCER_FENCED (KIP-588), INVALID_PRODUCER_EPOCH before
//   - v5: TRANSACTION_ABORTABLE (KIP-890), which is never the answer to this
func (n *Node) initProducerID(ctx context.Context, r *request, req *kmsg.InitProducerIDRequest) (kmsg.Response, error) {
	resp := kmsg.NewPtrInitProducerIDResponse()
	resp.ProducerID, resp.ProducerEpoch = -1, -1
	expected := coordinator.TxnInit{TimeoutMillis: req.TransactionTimeoutMillis, ProducerID: -1, Epoch: -1}
	if r.Version >= 3 {
		expected.ProducerID, expected.Epoch = req.ProducerID, req.ProducerEpoch
	}
	switch {
	case (expected.ProducerID == -1) != (expected.Epoch == -1), req.TransactionalID != nil && *req.TransactionalID == "":
		resp.ErrorCode = r.note(kerr.InvalidRequest.Code)
	case req.TransactionalID != nil:
		got := n.transactions.InitProducerID(ctx, *req.TransactionalID, expected)
		resp.ProducerID, resp.ProducerEpoch = got.ProducerID, got.Epoch
		resp.ErrorCode = r.note(fencedCode(got.Code, r.Version >= 4))
	default:
		id, err := n.nextProducerID(ctx)
		if err != nil {
			resp.ErrorCode = r.fail(err)
			return resp, nil
		}
		resp.ProducerID, resp.ProducerEpoch = id, 0
	}
	return resp, nil
}

// fencedCode is a coordinator's answer for a client that may be too old to know
// PRODUCER_FENCED.
func fencedCode(code int16, knows bool) int16 {
	if code == kerr.ProducerFenced.Code && !knows {
		return kerr.InvalidProducerEpoch.Code
	}
	return code
}
