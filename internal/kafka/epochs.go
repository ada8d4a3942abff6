package kafka

import (
	"context"
	"errors"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"
)

// EpochEnd returns the offset at which a leader epoch of a partition ends in the
// log of its present leader: who has read further read what was lost in an
// unclean election (OffsetForLeaderEpoch, KIP-101, KIP-320). It is not ok where
// the broker does not know.
func (c *Cluster) EpochEnd(ctx context.Context, topic string, partition, epoch int32) (end int64, ok bool, err error) {
	resp, err := as[*kmsg.OffsetForLeaderEpochResponse](c.RequestLeader(ctx, topic, partition, func(*Topic) kmsg.Request {
		req := kmsg.NewPtrOffsetForLeaderEpochRequest()
		req.ReplicaID = -1
		rt := kmsg.NewOffsetForLeaderEpochRequestTopic()
		rt.Topic = topic
		rp := kmsg.NewOffsetForLeaderEpochRequestTopicPartition()
		rp.Partition, rp.CurrentLeaderEpoch, rp.LeaderEpoch = partition, -1, epoch
		rt.Partitions = append(rt.Partitions, rp)
		req.Topics = append(req.Topics, rt)
		return req
	}))
	if err != nil {
		return -1, false, err
	}
	if len(resp.Topics) != 1 || len(resp.Topics[0].Partitions) != 1 {
		return -1, false, c.errorf(errors.New("the response lacks the partition"), "ask for the end of leader epoch %d of %s/%d", epoch, topic, partition)
	}
	p := resp.Topics[0].Partitions[0]
	if err := kerr.ErrorForCode(p.ErrorCode); err != nil {
		return -1, false, c.errorf(err, "ask for the end of leader epoch %d of %s/%d", epoch, topic, partition)
	}
	return p.EndOffset, p.EndOffset >= 0, nil
}

// LeaderEpoch returns the epoch of the present leader of a partition, by its own
// word; -1 where it does not tell (before Kafka 2.1).
func (c *Cluster) LeaderEpoch(ctx context.Context, topic string, partition int32) (int32, error) {
	resp, err := as[*kmsg.ListOffsetsResponse](c.RequestLeader(ctx, topic, partition, func(t *Topic) kmsg.Request {
		req := kmsg.NewPtrListOffsetsRequest()
		req.ReplicaID = -1
		rt := kmsg.NewListOffsetsRequestTopic()
		rt.Topic = topic
		rp := kmsg.NewListOffsetsRequestTopicPartition()
		rp.Partition, rp.Timestamp, rp.CurrentLeaderEpoch = partition, Latest, t.Partitions[partition].LeaderEpoch
		rt.Partitions = append(rt.Partitions, rp)
		req.Topics = append(req.Topics, rt)
		return req
	}))
	if err != nil {
		return -1, err
	}
	if len(resp.Topics) != 1 || len(resp.Topics[0].Partitions) != 1 {
		return -1, c.errorf(errors.New("the response lacks the partition"), "ask for the leader epoch of %s/%d", topic, partition)
	}
	p := resp.Topics[0].Partitions[0]
	if err := kerr.ErrorForCode(p.ErrorCode); err != nil {
		return -1, c.errorf(err, "ask for the leader epoch of %s/%d", topic, partition)
	}
	return p.LeaderEpoch, nil
}
