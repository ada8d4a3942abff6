package broker

import (
	"context"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"
)

// DeleteRecords: v0-2
//
// Behavior: moves the log start offset; -1 means the high watermark. A topic
// whose cleanup.policy lacks delete is POLICY_VIOLATION, an internal one
// INVALID_TOPIC_EXCEPTION, an offset beyond the high watermark
// OFFSET_OUT_OF_RANGE; one below the log start changes nothing.
//
// Version notes:
//   - v2: flexible
func (n *Node) deleteRecords(_ context.Context, r *request, req *kmsg.DeleteRecordsRequest) (kmsg.Response, error) {
	resp := kmsg.NewPtrDeleteRecordsResponse()
	for i := range req.Topics {
		t := &req.Topics[i]
		rt := kmsg.NewDeleteRecordsResponseTopic()
		rt.Topic = t.Topic
		for _, p := range t.Partitions {
			rp := kmsg.NewDeleteRecordsResponseTopicPartition()
			rp.Partition, rp.LowWatermark = p.Partition, -1
			low, err := n.deleteBefore(t.Topic, p.Partition, p.Offset)
			if err != nil {
				rp.ErrorCode = r.fail(err)
			} else {
				rp.LowWatermark = low
			}
			rt.Partitions = append(rt.Partitions, rp)
		}
		resp.Topics = append(resp.Topics, rt)
	}
	return resp, nil
}

func (n *Node) deleteBefore(topicName string, partition int32, offset int64) (low int64, err error) {
	topic, err := n.topicFor(false, topicName, [16]byte{})
	if err != nil {
		return 0, err
	}
	if topic.Internal {
		return 0, refuse(kerr.InvalidTopicException, "")
	}
	log, _, err := n.leading(topic, partition)
	if err != nil {
		return 0, err
	}
	if !log.Config().Delete {
		return 0, refuse(kerr.PolicyViolation, "")
	}
	high := log.HighWatermark()
	if offset == -1 {
		offset = high
	}
	if offset < 0 || offset > high {
		return 0, refuse(kerr.OffsetOutOfRange, "")
	}
	if offset > log.Start() {
		if err := log.DeleteBefore(offset); err != nil {
			return 0, err
		}
	}
	return log.Start(), nil
}
