package broker

import (
	"context"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"
)

// AlterConfigs: v0-2
//
// Behavior: replaces all settings of a resource at once, the old way; what is
// not named goes back to its default. A resource given twice is INVALID_REQUEST.
//
// Version notes:
//   - v2: flexible
func (n *Node) alterConfigs(ctx context.Context, r *request, req *kmsg.AlterConfigsRequest) (kmsg.Response, error) {
	resp := kmsg.NewPtrAlterConfigsResponse()
	times := make(map[resource]int, len(req.Resources))
	for i := range req.Resources {
		times[resource{req.Resources[i].ResourceType, req.Resources[i].ResourceName}]++
	}
	for i := range req.Resources {
		rr := &req.Resources[i]
		at := resource{rr.ResourceType, rr.ResourceName}
		if times[at] == 0 {
			continue // answered already
		}
		res := kmsg.NewAlterConfigsResponseResource()
		res.ResourceType, res.ResourceName = rr.ResourceType, rr.ResourceName
		configs := make(map[string]*string, len(rr.Configs))
		for _, c := range rr.Configs {
			configs[c.Name] = c.Value
		}
		var err error
		switch {
		case times[at] > 1:
			err = refuse(kerr.InvalidRequest, "Each resource must appear at most once.")
		case len(configs) < len(rr.Configs):
			err = refuse(kerr.InvalidRequest, "Error due to duplicate config keys")
		default:
			err = n.alter(at,
				func(topic string) error {
					return n.controller.ReplaceTopicConfigs(ctx, topic, configs, req.ValidateOnly)
				},
				func(broker int32) error {
					return n.controller.ReplaceBrokerConfigs(ctx, broker, configs, req.ValidateOnly)
				})
		}
		times[at] = 0
		res.ErrorCode, res.ErrorMessage = r.failMessage(err)
		resp.Resources = append(resp.Resources, res)
	}
	return resp, nil
}
