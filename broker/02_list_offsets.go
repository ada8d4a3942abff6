package broker

import (
	"context"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"
)

// ListOffsets: v1-11
//
// Behavior: the offset of a point in time, or one of the special ones: -1
// latest (the high watermark; the last stable offset for read_committed), -2 earliest, -3 the record with the largest
// timestamp, -4 earliest local (the earliest: nothing is tiered), -5 last
// tiered and -6 earliest pending upload (none: -1). A time beyond the last
// record answers offset -1 and timestamp -1. A partition asked for twice is
// INVALID_REQUEST.
//
// Version notes:
//   - v2: isolation level (KIP-98)
//   - v4: leader epochs (KIP-320)
//   - v6: flexible
//   - v7: -3 (KIP-734)
//   - v8: -4 (KIP-405)
//   - v9: -5 (KIP-1005)
//   - v11: -6 (KIP-1023)

// Special timestamps of ListOffsets.
const (
	latestTimestamp          = -1
	earliestTimestamp        = -2
	maxTimestamp             = -3
	earliestLocalTimestamp   = -4
	latestTieredTimestamp    = -5
	earliestPendingTimestamp = -6
)

// oldestListOffsets is the first version that knows a special timestamp.
func oldestListOffsets(timestamp int64) int16 {
	switch timestamp {
	case maxTimestamp:
		return 7
	case earliestLocalTimestamp:
		return 8
	case latestTieredTimestamp:
		return 9
	case earliestPendingTimestamp:
		return 11
	}
	return 1
}

func (n *Node) listOffsets(_ context.Context, r *request, req *kmsg.ListOffsetsRequest) (kmsg.Response, error) {
	resp := kmsg.NewPtrListOffsetsResponse()
	twice := make(map[partitionKey]bool)
	for i := range req.Topics {
		t := &req.Topics[i]
		for j := range t.Partitions {
			key := partitionKey{topic: t.Topic, partition: t.Partitions[j].Partition}
			_, seen := twice[key]
			twice[key] = seen
		}
	}
	for i := range req.Topics {
		t := &req.Topics[i]
		rt := kmsg.NewListOffsetsResponseTopic()
		rt.Topic = t.Topic
		for j := range t.Partitions {
			p := &t.Partitions[j]
			rp := kmsg.NewListOffsetsResponseTopicPartition()
			rp.Partition, rp.Timestamp, rp.Offset, rp.LeaderEpoch = p.Partition, -1, -1, -1
			var err error
			if twice[partitionKey{topic: t.Topic, partition: p.Partition}] {
				err = refuse(kerr.InvalidRequest, "")
			} else {
				err = n.listOffset(req.Version, req.IsolationLevel == readCommitted, t.Topic, p, &rp)
			}
			rp.ErrorCode = r.fail(err)
			rt.Partitions = append(rt.Partitions, rp)
		}
		resp.Topics = append(resp.Topics, rt)
	}
	return resp, nil
}

func (n *Node) listOffset(version int16, committed bool, topicName string, p *kmsg.ListOffsetsRequestTopicPartition, rp *kmsg.ListOffsetsResponseTopicPartition) error {
	topic, err := n.topicFor(false, topicName, [16]byte{})
	if err != nil {
		return err
	}
	log, epoch, err := n.leading(topic, p.Partition)
	if err != nil {
		return err
	}
	if err := checkEpoch(p.CurrentLeaderEpoch, epoch); err != nil {
		return err
	}
	if p.Timestamp < 0 && (version < oldestListOffsets(p.Timestamp) || p.Timestamp < earliestPendingTimestamp) {
		return refuse(kerr.UnsupportedVersion, "")
	}
	end := log.HighWatermark()
	if committed {
		end = log.LastStableOffset()
	}
	switch p.Timestamp {
	case latestTimestamp:
		rp.Offset, rp.LeaderEpoch = end, epoch
	case earliestTimestamp, earliestLocalTimestamp:
		rp.Offset = log.Start()
		rp.LeaderEpoch = log.EpochAt(rp.Offset)
	case latestTieredTimestamp, earliestPendingTimestamp:
	case maxTimestamp:
		offset, timestamp, found, err := log.MaxTimestamp()
		if err != nil {
			return err
		}
		if found && offset < end {
			rp.Offset, rp.Timestamp, rp.LeaderEpoch = offset, timestamp, log.EpochAt(offset)
		}
	default:
		offset, timestamp, found, err := log.OffsetForTime(p.Timestamp)
		if err != nil {
			return err
		}
		if found && offset < end {
			rp.Offset, rp.Timestamp, rp.LeaderEpoch = offset, timestamp, log.EpochAt(offset)
		}
	}
	return nil
}
