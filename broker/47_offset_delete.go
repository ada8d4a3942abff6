package broker

import (
	"context"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"
)

// OffsetDelete: v0
//
// Behavior: deletes committed offsets of topics that no member of the group
// subscribes to (KIP-496). Partitions that do not exist are
// UNKNOWN_TOPIC_OR_PARTITION; an error of the group leaves no entries.
func (n *Node) offsetDelete(ctx context.Context, r *request, req *kmsg.OffsetDeleteRequest) (kmsg.Response, error) {
	var refused []kmsg.OffsetDeleteResponseTopic
	known := req.Topics[:0]
	for _, t := range req.Topics {
		topic := n.image().Topic(t.Topic)
		rt := kmsg.NewOffsetDeleteResponseTopic()
		rt.Topic = t.Topic
		exist := t.Partitions[:0]
		for _, p := range t.Partitions {
			if topic != nil && p.Partition >= 0 && int(p.Partition) < len(topic.Partitions) {
				exist = append(exist, p)
				continue
			}
			rp := kmsg.NewOffsetDeleteResponseTopicPartition()
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
	resp := n.groups.OffsetDelete(ctx, req)
	if r.note(resp.ErrorCode) == 0 {
		resp.Topics = append(resp.Topics, refused...)
	}
	return resp, nil
}
