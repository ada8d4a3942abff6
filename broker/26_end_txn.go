package broker

import (
	"context"

	"github.com/twmb/franz-go/pkg/kmsg"

	"kmirror/broker/coordinator"
)

// EndTxn: v0-5
//
// Behavior: answers when the outcome is durable; the markers follow, and until
// all are written the next request on the transactional id is told
// CONCURRENT_TRANSACTIONS. The same request once more is answered as the first.
//
// Version notes:
//   - v2: PRODUCER_FENCED, INVALID_PRODUCER_EPOCH before
//   - v3: flexible
//   - v4: TRANSACTION_ABORTABLE (KIP-890), which is never the answer to this
//   - v5: transaction version 2: the epoch grows with every transaction, and
//     the answer holds the producer id and epoch of the next one
func (n *Node) endTxn(ctx context.Context, r *request, req *kmsg.EndTxnRequest) (kmsg.Response, error) {
	resp := kmsg.NewPtrEndTxnResponse()
	version := int16(coordinator.TransactionVersion0)
	if r.Version >= 5 {
		version = coordinator.TransactionVersion2
	}
	got := n.transactions.EndTxn(ctx, req.TransactionalID, req.ProducerID, req.ProducerEpoch, req.Commit, version)
	resp.ErrorCode = r.note(fencedCode(got.Code, r.Version >= 2))
	resp.ProducerID, resp.ProducerEpoch = got.ProducerID, got.Epoch
	return resp, nil
}
