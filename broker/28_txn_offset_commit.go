package broker

import (
	"context"
	"errors"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"

	"kmirror/broker/coordinator"
)

// TxnOffsetCommit: v0-5
//
// Behavior: commits a group's offsets as part of a producer's transaction: they
// count when it is committed. The transaction must have the group's partition
// of __consumer_offsets. Partitions that do not exist are
// UNKNOWN_TOPIC_OR_PARTITION; the others go to the group.
//
// Version notes:
//   - v2: leader epoch; COORDINATOR_NOT_AVAILABLE instead of COORDINATOR_LOAD_IN_PROGRESS before (KAFKA-7296)
//   - v3: flexible; member and generation (KIP-447)
//   - v4: TRANSACTION_ABORTABLE (KIP-890), INVALID_TXN_STATE before
//   - v5: adds the group's partition to the transaction (KIP-890)
func (n *Node) txnOffsetCommit(ctx context.Context, r *request, req *kmsg.TxnOffsetCommitRequest) (kmsg.Response, error) {
	var refused []kmsg.TxnOffsetCommitResponseTopic
	known := req.Topics[:0]
	for i := range req.Topics {
		t := req.Topics[i]
		topic := n.image().Topic(t.Topic)
		rt := kmsg.NewTxnOffsetCommitResponseTopic()
		rt.Topic = t.Topic
		exist := t.Partitions[:0]
		for _, p := range t.Partitions {
			if topic != nil && p.Partition >= 0 && int(p.Partition) < len(topic.Partitions) {
				exist = append(exist, p)
				continue
			}
			rp := kmsg.NewTxnOffsetCommitResponseTopicPartition()
			rp.Partition, rp.ErrorCode = p.Partition, r.note(kerr.UnknownTopicOrPartition.Code)
			rt.Partitions = append(rt.Partitions, rp)
		}
		if len(rt.Partitions) > 0 {
			refused = append(refused, rt)
		}
		if t.Partitions = exist; len(exist) > 0 {
			known = append(known, t)
		}
	}
	req.Topics = known
	resp := kmsg.NewPtrTxnOffsetCommitResponse()
	if len(known) > 0 {
		producer, err := n.joinOffsets(ctx, req)
		if err == nil {
			resp = n.groups.TxnOffsetCommit(ctx, req, producer)
		} else {
			coordinator.FailTxnCommit(req, resp, r.fail(err))
		}
	}
	for i := range resp.Topics {
		for j := range resp.Topics[i].Partitions {
			p := &resp.Topics[i].Partitions[j]
			if r.Version < 2 && p.ErrorCode == kerr.CoordinatorLoadInProgress.Code {
				p.ErrorCode = kerr.CoordinatorNotAvailable.Code
			}
			r.note(p.ErrorCode)
		}
	}
	for _, t := range refused { // one entry per topic: Java's client keeps only the last
		have := -1
		for i := range resp.Topics {
			if resp.Topics[i].Topic == t.Topic {
				have = i
			}
		}
		if have < 0 {
			resp.Topics = append(resp.Topics, t)
		} else {
			resp.Topics[have].Partitions = append(resp.Topics[have].Partitions, t.Partitions...)
		}
	}
	return resp, nil
}

// joinOffsets sees to it that the producer's transaction reaches the group's
// partition of __consumer_offsets.
func (n *Node) joinOffsets(ctx context.Context, req *kmsg.TxnOffsetCommitRequest) (coordinator.TxnProducer, error) {
	producer := coordinator.TxnProducer{ID: req.ProducerID, Epoch: req.ProducerEpoch}
	tp := n.offsetsPartition(req.Group)
	log, _, err := internalLog{n, offsetsTopic}.open(ctx, tp.Partition)
	if err != nil {
		return producer, err
	}
	j := &joining{log: log, partition: tp, id: req.ProducerID, epoch: req.ProducerEpoch}
	n.join(ctx, req.TransactionalID, []*joining{j}, dialect{adds: req.Version >= 5, knows: req.Version >= 4})
	if errors.Is(j.err, kerr.NotCoordinator) || errors.Is(j.err, kerr.CoordinatorNotAvailable) { // it is the group's coordinator that was asked
		j.err = kerr.CoordinatorLoadInProgress
	}
	producer.Verified = j.guard
	return producer, j.err
}
