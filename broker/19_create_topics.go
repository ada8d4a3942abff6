package broker

import (
	"context"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"

	"kmirror/broker/replica"
)

// CreateTopics: v2-7
//
// Behavior: creates each topic on its own, durably and with its logs, before
// the response leaves. A name given twice is INVALID_REQUEST for that name.
// Partition count and replication factor -1 mean the broker's defaults. The
// node's own topics are made by the node, with the partitions it needs.
//
// Version notes:
//   - v4: -1 for the defaults (KIP-464)
//   - v5: flexible; partitions, replication and configs in the response (KIP-525)
//   - v7: topic id in the response (KIP-516)
func (n *Node) createTopics(ctx context.Context, r *request, req *kmsg.CreateTopicsRequest) (kmsg.Response, error) {
	resp := kmsg.NewPtrCreateTopicsResponse()
	times := make(map[string]int, len(req.Topics))
	for i := range req.Topics {
		times[req.Topics[i].Topic]++
	}
	for i := range req.Topics {
		t := &req.Topics[i]
		if times[t.Topic] == 0 {
			continue // answered already
		}
		rt := kmsg.NewCreateTopicsResponseTopic()
		rt.Topic, rt.NumPartitions, rt.ReplicationFactor = t.Topic, -1, -1
		var topic *replica.Topic
		var err error
		switch {
		case times[t.Topic] > 1:
			err = refuse(kerr.InvalidRequest, "Duplicate topic name.")
		case t.Topic == metadataTopic:
			err = refuse(kerr.InvalidRequest, "Creation of internal topic "+metadataTopic+" is prohibited.")
		case replica.Internal(t.Topic) && n.image().Topic(t.Topic) == nil:
			err = refuse(kerr.PolicyViolation, "The node creates its internal topics itself when it needs them.")
		default:
			topic, err = n.createOne(ctx, t, req.ValidateOnly)
		}
		times[t.Topic] = 0
		if err != nil {
			rt.ErrorCode, rt.ErrorMessage = r.failMessage(err)
			resp.Topics = append(resp.Topics, rt)
			continue
		}
		rt.TopicID, rt.NumPartitions, rt.ReplicationFactor = topic.ID, int32(len(topic.Partitions)), int16(len(topic.Partitions[0].Replicas))
		if r.Version >= 5 {
			rt.Configs = n.createdConfigs(topic)
		}
		resp.Topics = append(resp.Topics, rt)
	}
	return resp, nil
}

func (n *Node) createOne(ctx context.Context, t *kmsg.CreateTopicsRequestTopic, validateOnly bool) (*replica.Topic, error) {
	spec := replica.TopicSpec{Name: t.Topic, Partitions: t.NumPartitions, ReplicationFactor: t.ReplicationFactor}
	if len(t.ReplicaAssignment) > 0 {
		spec.Assignment = make([][]int32, len(t.ReplicaAssignment))
		for _, a := range t.ReplicaAssignment {
			switch {
			case a.Partition < 0 || int(a.Partition) >= len(spec.Assignment):
				return nil, refuse(kerr.InvalidReplicaAssignment, "partitions should be a consecutive 0-based integer sequence")
			case spec.Assignment[a.Partition] != nil:
				return nil, refuse(kerr.InvalidReplicaAssignment, "Found multiple manual partition assignments for one partition")
			}
			spec.Assignment[a.Partition] = append([]int32{}, a.Replicas...)
		}
	}
	for _, c := range t.Configs {
		if spec.Configs == nil {
			spec.Configs = make(map[string]*string, len(t.Configs))
		}
		if _, twice := spec.Configs[c.Name]; twice {
			return nil, refuse(kerr.InvalidRequest, "Duplicate config name: "+c.Name)
		}
		spec.Configs[c.Name] = c.Value
	}
	return n.controller.CreateTopic(ctx, spec, validateOnly)
}
