package broker

import (
	"context"
	"slices"
	"strings"

	"github.com/twmb/franz-go/pkg/kmsg"
)

// OffsetFetch: v1-10
//
// Behavior: durable commits, those of a transaction once it is committed. With
// RequireStable a partition with a commit of a transaction that is not over is
// UNSTABLE_OFFSET_COMMIT. A group or
// a partition without a commit answers -1, which is no error. A group given
// twice is answered once.
//
// Version notes:
//   - v2: a null list means everything the group has committed
//   - v5: leader epoch (KIP-320)
//   - v6: flexible
//   - v7: RequireStable (KIP-447)
//   - v8: several groups at once (KIP-709)
//   - v9: member id and epoch of KIP-848 groups, which are not offered
//   - v10: topics by id
func (n *Node) offsetFetch(_ context.Context, r *request, req *kmsg.OffsetFetchRequest) (kmsg.Response, error) {
	seen := make(map[string]bool, len(req.Groups))
	req.Groups = slices.DeleteFunc(req.Groups, func(g kmsg.OffsetFetchRequestGroup) bool {
		was := seen[g.Group]
		seen[g.Group] = true
		return was
	})
	if r.Version < 10 {
		resp := n.groups.OffsetFetch(req)
		r.note(resp.ErrorCode)
		for i := range resp.Groups {
			r.note(resp.Groups[i].ErrorCode)
		}
		return resp, nil
	}
	image := n.image()
	unknown := make([][]kmsg.OffsetFetchResponseGroupTopic, len(req.Groups))
	for i := range req.Groups {
		g := &req.Groups[i]
		if g.Topics == nil {
			continue
		}
		known := g.Topics[:0]
		for _, t := range g.Topics {
			topic, err := n.topicFor(true, "", t.TopicID)
			if err == nil {
				t.Topic = topic.Name
				known = append(known, t)
				continue
			}
			rt := kmsg.NewOffsetFetchResponseGroupTopic()
			rt.TopicID = t.TopicID
			for _, p := range t.Partitions {
				rp := kmsg.NewOffsetFetchResponseGroupTopicPartition()
				rp.Partition, rp.Offset, rp.LeaderEpoch, rp.Metadata = p, -1, -1, new("")
				rp.ErrorCode = r.fail(err)
				rt.Partitions = append(rt.Partitions, rp)
			}
			unknown[i] = append(unknown[i], rt)
		}
		g.Topics = known
	}
	resp := n.groups.OffsetFetch(req)
	for i := range resp.Groups {
		g := &resp.Groups[i]
		r.note(g.ErrorCode)
		kept := g.Topics[:0]
		for _, t := range g.Topics { // of all topics: those that were deleted meanwhile have no id
			if t.TopicID == [16]byte{} {
				topic := image.Topic(t.Topic)
				if topic == nil {
					continue
				}
				t.TopicID = topic.ID
			}
			kept = append(kept, t)
		}
		g.Topics = append(kept, unknown[i]...)
	}
	return resp, nil
}

// javaHost is a client's address as Java prints it and groups show it.
func javaHost(remote string) string {
	if i := strings.LastIndexByte(remote, ':'); i >= 0 {
		remote = remote[:i]
	}
	return "/" + strings.Trim(remote, "[]")
}
