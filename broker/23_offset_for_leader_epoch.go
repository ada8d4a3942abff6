package broker

import (
	"context"

	"github.com/twmb/franz-go/pkg/kmsg"
)

// OffsetForLeaderEpoch: v2-4
//
// Behavior: where the records of a leader epoch end: of the largest epoch at or
// below the one asked for, the start of the next. The latest epoch ends at the
// end of the log, for consumers as for followers; an epoch above it is
// undefined (-1, -1).
//
// Version notes:
//   - v2: current leader epoch (KIP-320)
//   - v3: replica id
//   - v4: flexible
func (n *Node) offsetForLeaderEpoch(_ context.Context, r *request, req *kmsg.OffsetForLeaderEpochRequest) (kmsg.Response, error) {
	resp := kmsg.NewPtrOffsetForLeaderEpochResponse()
	for i := range req.Topics {
		t := &req.Topics[i]
		rt := kmsg.NewOffsetForLeaderEpochResponseTopic()
		rt.Topic = t.Topic
		for _, p := range t.Partitions {
			rp := kmsg.NewOffsetForLeaderEpochResponseTopicPartition()
			rp.Partition, rp.LeaderEpoch, rp.EndOffset = p.Partition, -1, -1
			if err := n.epochEnd(t.Topic, &p, &rp); err != nil {
				rp.ErrorCode = r.fail(err)
			}
			rt.Partitions = append(rt.Partitions, rp)
		}
		resp.Topics = append(resp.Topics, rt)
	}
	return resp, nil
}

func (n *Node) epochEnd(topicName string, p *kmsg.OffsetForLeaderEpochRequestTopicPartition, rp *kmsg.OffsetForLeaderEpochResponseTopicPartition) error {
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
	if p.LeaderEpoch == epoch {
		rp.LeaderEpoch, rp.EndOffset = epoch, log.End()
		return nil
	}
	rp.LeaderEpoch, rp.EndOffset = log.EpochEnd(p.LeaderEpoch)
	return nil
}
