package broker

import (
	"context"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"

	"kmirror/broker/coordinator"
)

// AddOffsetsToTxn: v0-4
//
// Behavior: adds the partition of __consumer_offsets that keeps a group to a
// transaction. Producers of transaction version 2 do not ask: TxnOffsetCommit
// implies it.
//
// Version notes:
//   - v2: PRODUCER_FENCED, INVALID_PRODUCER_EPOCH before
//   - v3: flexible
//   - v4: TRANSACTION_ABORTABLE (KIP-890), which is never the answer to this
func (n *Node) addOffsetsToTxn(ctx context.Context, r *request, req *kmsg.AddOffsetsToTxnRequest) (kmsg.Response, error) {
	resp := kmsg.NewPtrAddOffsetsToTxnResponse()
	if _, err := n.ensureInternal(ctx, offsetsTopic); err != nil {
		resp.ErrorCode = r.fail(refuse(kerr.CoordinatorNotAvailable, err.Error()))
		return resp, nil
	}
	code := n.transactions.AddPartitions(ctx, req.TransactionalID, req.ProducerID, req.ProducerEpoch,
		[]coordinator.TopicPartition{n.offsetsPartition(req.Group)}, coordinator.TransactionVersion0)
	resp.ErrorCode = r.note(fencedCode(code, r.Version >= 2))
	return resp, nil
}

// offsetsPartition is the partition of __consumer_offsets that keeps a group.
func (n *Node) offsetsPartition(group string) coordinator.TopicPartition {
	return coordinator.TopicPartition{Topic: offsetsTopic, Partition: n.groups.Partition(group)}
}
