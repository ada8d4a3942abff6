package broker

import (
	"context"
	"slices"
	"strings"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"

	"kmirror/broker/replica"
)

// DescribeTopicPartitions: v0
//
// Behavior: like Metadata, but sorted by name and cut into pages of partitions
// (KIP-966). No topics means all of them. The cursor names the topic and
// partition to go on with; if that topic is gone, the next one. It never
// creates a topic.

// maxDescribedPartitions bounds a page (max.request.partition.size.limit).
const maxDescribedPartitions = 2000

func (n *Node) describeTopicPartitions(_ context.Context, r *request, req *kmsg.DescribeTopicPartitionsRequest) (kmsg.Response, error) {
	resp := kmsg.NewPtrDescribeTopicPartitionsResponse()
	image := n.image()
	var names []string
	if len(req.Topics) == 0 {
		for _, t := range image.Topics() {
			names = append(names, t.Name)
		}
	} else {
		for _, t := range req.Topics {
			names = append(names, t.Topic)
		}
	}
	slices.Sort(names)
	names = slices.Compact(names)
	from := int32(0)
	if c := req.Cursor; c != nil {
		if c.Partition < 0 {
			for _, name := range names {
				rt := kmsg.NewDescribeTopicPartitionsResponseTopic()
				rt.Topic, rt.AuthorizedOperations, rt.ErrorCode = &name, noOperations, r.note(kerr.InvalidRequest.Code)
				resp.Topics = append(resp.Topics, rt)
			}
			return resp, nil
		}
		at, found := slices.BinarySearchFunc(names, c.Topic, strings.Compare)
		names = names[at:]
		if found {
			from = c.Partition
		}
	}
	left := min(max(req.ResponsePartitionLimit, 1), maxDescribedPartitions)
	for _, name := range names {
		if left == 0 {
			resp.NextCursor = &kmsg.DescribeTopicPartitionsResponseNextCursor{Topic: name}
			break
		}
		t := image.Topic(name)
		if t == nil {
			rt := kmsg.NewDescribeTopicPartitionsResponseTopic()
			rt.Topic, rt.AuthorizedOperations = &name, noOperations
			rt.ErrorCode = kerr.UnknownTopicOrPartition.Code
			if err := replica.ValidateTopicName(name); err != nil {
				rt.ErrorCode = kerr.InvalidTopicException.Code
			}
			r.note(rt.ErrorCode)
			resp.Topics = append(resp.Topics, rt)
			continue
		}
		past := min(int32(len(t.Partitions)), from+left)
		resp.Topics = append(resp.Topics, describePage(t, from, past))
		left -= max(past-from, 0)
		if past < int32(len(t.Partitions)) {
			resp.NextCursor = &kmsg.DescribeTopicPartitionsResponseNextCursor{Topic: name, Partition: past}
			break
		}
		from = 0
	}
	return resp, nil
}

func describePage(t *replica.Topic, from, past int32) kmsg.DescribeTopicPartitionsResponseTopic {
	rt := kmsg.NewDescribeTopicPartitionsResponseTopic()
	rt.Topic, rt.TopicID, rt.IsInternal, rt.AuthorizedOperations = &t.Name, t.ID, t.Internal, topicOperations
	for i := from; i < past; i++ {
		p := &t.Partitions[i]
		rp := kmsg.NewDescribeTopicPartitionsResponseTopicPartition()
		rp.Partition, rp.LeaderID, rp.LeaderEpoch = i, p.Leader, p.LeaderEpoch
		rp.Replicas, rp.ISR = p.Replicas, p.ISR
		rp.EligibleLeaderReplicas, rp.LastKnownELR, rp.OfflineReplicas = []int32{}, []int32{}, []int32{}
		if p.Leader < 0 {
			rp.ErrorCode = kerr.LeaderNotAvailable.Code
		}
		rt.Partitions = append(rt.Partitions, rp)
	}
	return rt
}
