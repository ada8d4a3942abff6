package broker

import (
	"context"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"
)

// OffsetCommit: v2-10
//
// Behavior: partitions that do not exist are UNKNOWN_TOPIC_OR_PARTITION (from
// v10 on, topics by an unknown id are UNKNOWN_TOPIC_ID); the others go to the
// group, which answers when they are durable.
//
// Version notes:
//   - v5: no retention time any more (KIP-211)
//   - v6: leader epoch (KIP-320)
//   - v7: static members (KIP-345)
//   - v8: flexible
//   - v9: KIP-848 errors; such groups are not offered
//   - v10: topics by id (KIP-848)
func (n *Node) offsetCommit(ctx context.Context, r *request, req *kmsg.OffsetCommitRequest) (kmsg.Response, error) {
	var refused []kmsg.OffsetCommitResponseTopic
	known := req.Topics[:0]
	for i := range req.Topics {
		t := req.Topics[i]
		topic, err := n.topicFor(r.Version >= 10, t.Topic, t.TopicID)
		if err == nil {
			t.Topic = topic.Name
		}
		rt := kmsg.NewOffsetCommitResponseTopic()
		rt.Topic, rt.TopicID = t.Topic, t.TopicID
		exist := t.Partitions[:0]
		for _, p := range t.Partitions {
			if err == nil && p.Partition >= 0 && int(p.Partition) < len(topic.Partitions) {
				exist = append(exist, p)
				continue
			}
			rp := kmsg.NewOffsetCommitResponseTopicPartition()
			rp.Partition, rp.ErrorCode = p.Partition, kerr.UnknownTopicOrPartition.Code
			if err != nil {
				rp.ErrorCode, _ = errorCode(err)
			}
			r.note(rp.ErrorCode)
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
	if len(known) == 0 {
		resp := kmsg.NewPtrOffsetCommitResponse()
		resp.Topics = refused
		return resp, nil
	}
	resp := n.groups.OffsetCommit(ctx, req)
	for i := range resp.Topics {
		for j := range resp.Topics[i].Partitions {
			r.note(resp.Topics[i].Partitions[j].ErrorCode)
		}
	}
	for _, t := range refused { // one entry per topic: Java's client keeps only the last
		if have := findCommitTopic(resp, &t); have != nil {
			have.Partitions = append(have.Partitions, t.Partitions...)
		} else {
			resp.Topics = append(resp.Topics, t)
		}
	}
	return resp, nil
}

func findCommitTopic(resp *kmsg.OffsetCommitResponse, t *kmsg.OffsetCommitResponseTopic) *kmsg.OffsetCommitResponseTopic {
	for i := range resp.Topics {
		if resp.Topics[i].Topic == t.Topic && resp.Topics[i].TopicID == t.TopicID {
			return &resp.Topics[i]
		}
	}
	return nil
}
