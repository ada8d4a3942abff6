package broker

import (
	"context"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"

	"kmirror/broker/coordinator"
)

// AddPartitionsToTxn: v0-5
//
// Behavior: adds partitions to a transaction, all of them or none. If one does
// not exist it is UNKNOWN_TOPIC_OR_PARTITION and the others are
// OPERATION_NOT_ATTEMPTED. A partition that is not in a transaction that is
// only verified is TRANSACTION_ABORTABLE.
//
// Version notes:
//   - v2: PRODUCER_FENCED, INVALID_PRODUCER_EPOCH before
//   - v3: flexible; the newest that clients send
//   - v4: from brokers: several transactions, and whether they are only verified (KIP-890)
//   - v5: from brokers whose producer speaks transaction version 2
func (n *Node) addPartitionsToTxn(ctx context.Context, r *request, req *kmsg.AddPartitionsToTxnRequest) (kmsg.Response, error) {
	resp := kmsg.NewPtrAddPartitionsToTxnResponse()
	if r.Version < 4 {
		txn := kmsg.NewAddPartitionsToTxnRequestTransaction()
		txn.TransactionalID, txn.ProducerID, txn.ProducerEpoch = req.TransactionalID, req.ProducerID, req.ProducerEpoch
		for _, t := range req.Topics {
			rt := kmsg.NewAddPartitionsToTxnRequestTransactionTopic()
			rt.Topic, rt.Partitions = t.Topic, t.Partitions
			txn.Topics = append(txn.Topics, rt)
		}
		codes := n.addToTransaction(ctx, r, &txn)
		for _, t := range req.Topics {
			rt := kmsg.NewAddPartitionsToTxnResponseTopic()
			rt.Topic = t.Topic
			for _, p := range t.Partitions {
				rp := kmsg.NewAddPartitionsToTxnResponseTopicPartition()
				rp.Partition, rp.ErrorCode = p, codes(t.Topic, p)
				rt.Partitions = append(rt.Partitions, rp)
			}
			resp.Topics = append(resp.Topics, rt)
		}
		return resp, nil
	}
	for i := range req.Transactions {
		txn := &req.Transactions[i]
		codes := n.addToTransaction(ctx, r, txn)
		rx := kmsg.NewAddPartitionsToTxnResponseTransaction()
		rx.TransactionalID = txn.TransactionalID
		for _, t := range txn.Topics {
			rt := kmsg.NewAddPartitionsToTxnResponseTransactionTopic()
			rt.Topic = t.Topic
			for _, p := range t.Partitions {
				rp := kmsg.NewAddPartitionsToTxnResponseTransactionTopicPartition()
				rp.Partition, rp.ErrorCode = p, codes(t.Topic, p)
				rt.Partitions = append(rt.Partitions, rp)
			}
			rx.Topics = append(rx.Topics, rt)
		}
		resp.Transactions = append(resp.Transactions, rx)
	}
	return resp, nil
}

// addToTransaction adds or verifies the partitions of one transaction and tells
// the code for each.
func (n *Node) addToTransaction(ctx context.Context, r *request, txn *kmsg.AddPartitionsToTxnRequestTransaction) func(topic string, partition int32) int16 {
	image := n.image()
	exists := func(topic string, partition int32) bool {
		t := image.Topic(topic)
		return t != nil && partition >= 0 && int(partition) < len(t.Partitions)
	}
	all := true
	var partitions []coordinator.TopicPartition
	for _, t := range txn.Topics {
		name := t.Topic
		if known := image.Topic(name); known != nil {
			name = known.Name // ours, so that the coordinator does not keep the request
		}
		for _, p := range t.Partitions {
			partitions = append(partitions, coordinator.TopicPartition{Topic: name, Partition: p})
			all = all && exists(name, p)
		}
	}
	if !all {
		return func(topic string, partition int32) int16 {
			if exists(topic, partition) {
				return r.note(kerr.OperationNotAttempted.Code)
			}
			return r.note(kerr.UnknownTopicOrPartition.Code)
		}
	}
	if r.Version >= 4 && txn.VerifyOnly {
		code, missing := n.transactions.VerifyPartitions(txn.TransactionalID, txn.ProducerID, txn.ProducerEpoch, partitions)
		lacks := make(map[coordinator.TopicPartition]bool, len(missing))
		for _, tp := range missing {
			lacks[tp] = true
		}
		return func(topic string, partition int32) int16 {
			if lacks[coordinator.TopicPartition{Topic: topic, Partition: partition}] {
				return r.note(kerr.TransactionAbortable.Code)
			}
			return r.note(code)
		}
	}
	version := int16(coordinator.TransactionVersion0)
	if r.Version >= 5 {
		version = coordinator.TransactionVersion2
	}
	code := n.transactions.AddPartitions(ctx, txn.TransactionalID, txn.ProducerID, txn.ProducerEpoch, partitions, version)
	code = fencedCode(code, r.Version >= 2)
	return func(string, int32) int16 { return r.note(code) }
}
