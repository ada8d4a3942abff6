package coordinator

import (
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"
)

// OffsetFetch shows durable commits that count; an offset of -1 is none. With
// RequireStable a partition for which a transaction that is not over has a
// commit is UNSTABLE_OFFSET_COMMIT (KIP-447). A null topic list
// asks for all (v2). A group that does not exist has no commits, which is no
// error. From v10 on the caller has put in the names for topic ids, and puts the
// ids into the answer of a request for all topics. (key 9, v0-10)
//
// Version notes:
//   - v2: null topics, an error code for the group
//   - v5: leader epochs (KIP-320)
//   - v7: RequireStable (KIP-447)
//   - v8: several groups (KIP-709)
func (c *Coordinator) OffsetFetch(req *kmsg.OffsetFetchRequest) *kmsg.OffsetFetchResponse {
	resp := req.ResponseKind().(*kmsg.OffsetFetchResponse)
	if req.Version >= 8 {
		for i := range req.Groups {
			rg := &req.Groups[i]
			resp.Groups = append(resp.Groups, c.fetch(rg.Group, rg.Topics, rg.Topics == nil, req.RequireStable))
		}
		return resp
	}
	one := make([]kmsg.OffsetFetchRequestGroupTopic, 0, len(req.Topics))
	for i := range req.Topics {
		t := kmsg.NewOffsetFetchRequestGroupTopic()
		t.Topic, t.Partitions = req.Topics[i].Topic, req.Topics[i].Partitions
		one = append(one, t)
	}
	got := c.fetch(req.Group, one, req.Topics == nil && req.Version >= 2, req.RequireStable)
	resp.ErrorCode = got.ErrorCode
	if got.ErrorCode != 0 && req.Version < 2 { // no place for it but the partitions
		got.Topics = failFetch(one, got.ErrorCode)
	}
	for i := range got.Topics {
		gt := &got.Topics[i]
		t := kmsg.NewOffsetFetchResponseTopic()
		t.Topic = gt.Topic
		for j := range gt.Partitions {
			gp := &gt.Partitions[j]
			p := kmsg.NewOffsetFetchResponseTopicPartition()
			p.Partition, p.Offset, p.LeaderEpoch, p.Metadata, p.ErrorCode = gp.Partition, gp.Offset, gp.LeaderEpoch, gp.Metadata, gp.ErrorCode
			t.Partitions = append(t.Partitions, p)
		}
		resp.Topics = append(resp.Topics, t)
	}
	return resp
}

func (c *Coordinator) fetch(group string, topics []kmsg.OffsetFetchRequestGroupTopic, all, stable bool) kmsg.OffsetFetchResponseGroup {
	out := kmsg.NewOffsetFetchResponseGroup()
	out.Group = group
	s := c.shardOf(group)
	s.mu.Lock()
	defer s.mu.Unlock()
	if out.ErrorCode = s.ready(); out.ErrorCode != 0 {
		return out
	}
	var g *Group
	if e := s.groups[group]; e != nil {
		g = e.group
	}
	show := func(name string, id [16]byte, partitions []int32) {
		t := kmsg.NewOffsetFetchResponseGroupTopic()
		t.Topic, t.TopicID = name, id
		for _, p := range partitions {
			committed := CommittedOffset{Offset: -1, LeaderEpoch: -1}
			rp := kmsg.NewOffsetFetchResponseGroupTopicPartition()
			switch {
			case g == nil:
			case stable && g.unstable(topicPartition{name, p}):
				rp.ErrorCode = kerr.UnstableOffsetCommit.Code
			default:
				committed, _ = g.Committed(name, p)
			}
			rp.Partition, rp.Offset, rp.LeaderEpoch, rp.Metadata = p, committed.Offset, committed.LeaderEpoch, &committed.Metadata
			t.Partitions = append(t.Partitions, rp)
		}
		out.Topics = append(out.Topics, t)
	}
	if all {
		if g != nil {
			g.CommittedPartitions(func(topic string, partitions []int32) { show(topic, [16]byte{}, partitions) })
		}
		return out
	}
	for i := range topics {
		show(topics[i].Topic, topics[i].TopicID, topics[i].Partitions)
	}
	return out
}

func failFetch(topics []kmsg.OffsetFetchRequestGroupTopic, code int16) (out []kmsg.OffsetFetchResponseGroupTopic) {
	for i := range topics {
		t := kmsg.NewOffsetFetchResponseGroupTopic()
		t.Topic, t.TopicID = topics[i].Topic, topics[i].TopicID
		for _, p := range topics[i].Partitions {
			rp := kmsg.NewOffsetFetchResponseGroupTopicPartition()
			rp.Partition, rp.Offset, rp.LeaderEpoch, rp.Metadata, rp.ErrorCode = p, -1, -1, new(""), code
			t.Partitions = append(t.Partitions, rp)
		}
		out = append(out, t)
	}
	return out
}
