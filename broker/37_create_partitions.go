package broker

import (
	"context"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"

	"kmirror/broker/replica"
)

// CreatePartitions: v0-3
//
// Behavior: lets topics grow. A count that is not above the present one is
// INVALID_PARTITIONS. The node's own topics keep their number: groups are found
// by it.
//
// Version notes:
//   - v2: flexible
func (n *Node) createPartitions(ctx context.Context, r *request, req *kmsg.CreatePartitionsRequest) (kmsg.Response, error) {
	resp := kmsg.NewPtrCreatePartitionsResponse()
	times := make(map[string]int, len(req.Topics))
	for i := range req.Topics {
		times[req.Topics[i].Topic]++
	}
	for i := range req.Topics {
		t := &req.Topics[i]
		if times[t.Topic] == 0 {
			continue // answered already
		}
		rt := kmsg.NewCreatePartitionsResponseTopic()
		rt.Topic = t.Topic
		var err error
		switch {
		case times[t.Topic] > 1:
			err = refuse(kerr.InvalidRequest, "Duplicate topic name.")
		case replica.Internal(t.Topic) && n.image().Topic(t.Topic) != nil:
			err = refuse(kerr.PolicyViolation, "The number of partitions of an internal topic cannot change.")
		default:
			var assignment [][]int32
			for _, a := range t.Assignment {
				assignment = append(assignment, append([]int32{}, a.Replicas...))
			}
			_, err = n.controller.CreatePartitions(ctx, t.Topic, t.Count, assignment, req.ValidateOnly)
		}
		times[t.Topic] = 0
		rt.ErrorCode, rt.ErrorMessage = r.failMessage(err)
		resp.Topics = append(resp.Topics, rt)
	}
	return resp, nil
}
