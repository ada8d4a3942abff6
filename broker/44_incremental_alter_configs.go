package broker

import (
	"context"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"

	"kmirror/broker/replica"
)

// IncrementalAlterConfigs: v0-1
//
// Behavior: sets, deletes, appends to and subtracts from settings of topics and
// brokers, each resource all or nothing (KIP-339). A resource given twice is
// INVALID_REQUEST.
//
// Version notes:
//   - v1: flexible
func (n *Node) incrementalAlterConfigs(ctx context.Context, r *request, req *kmsg.IncrementalAlterConfigsRequest) (kmsg.Response, error) {
	resp := kmsg.NewPtrIncrementalAlterConfigsResponse()
	times := make(map[resource]int, len(req.Resources))
	for i := range req.Resources {
		times[resource{req.Resources[i].ResourceType, req.Resources[i].ResourceName}]++
	}
	for i := range req.Resources {
		rr := &req.Resources[i]
		changes := make([]replica.ConfigChange, 0, len(rr.Configs))
		for _, c := range rr.Configs {
			changes = append(changes, replica.ConfigChange{Name: c.Name, Op: replica.Op(c.Op), Value: c.Value})
		}
		at := resource{rr.ResourceType, rr.ResourceName}
		if times[at] == 0 {
			continue // answered already
		}
		res := kmsg.NewIncrementalAlterConfigsResponseResource()
		res.ResourceType, res.ResourceName = rr.ResourceType, rr.ResourceName
		var err error
		if times[at] > 1 {
			err = refuse(kerr.InvalidRequest, "Each resource must appear at most once.")
		} else {
			err = n.alter(at,
				func(topic string) error { return n.controller.AlterTopicConfigs(ctx, topic, changes, req.ValidateOnly) },
				func(broker int32) error {
					return n.controller.AlterBrokerConfigs(ctx, broker, changes, req.ValidateOnly)
				})
		}
		times[at] = 0
		res.ErrorCode, res.ErrorMessage = r.failMessage(err)
		resp.Resources = append(resp.Resources, res)
	}
	return resp, nil
}

// resource names what has settings.
type resource struct {
	kind kmsg.ConfigResourceType
	name string
}

// alter calls the function for the kind of resource.
func (n *Node) alter(at resource, topic func(string) error, broker func(int32) error) error {
	switch at.kind {
	case kmsg.ConfigResourceTypeTopic:
		if err := replica.ValidateTopicName(at.name); err != nil {
			return err
		}
		return topic(at.name)
	case kmsg.ConfigResourceTypeBroker:
		id, err := n.brokerResource(at.name)
		if err != nil {
			return err
		}
		return broker(id)
	default:
		return unknownResource(at.kind)
	}
}
