package broker

import (
	"context"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"

	"kmirror/broker/replica"
)

// DescribeConfigs: v1-4
//
// Behavior: settings of topics and of this broker with where their values come
// from. The resource "" of type broker shows what was set for all brokers. A
// null list of names means all; unknown names are left out. Resources of other
// types are INVALID_REQUEST. A resource given twice is described once.
//
// Version notes:
//   - v1: source and synonyms
//   - v3: type and documentation (KIP-569)
//   - v4: flexible
func (n *Node) describeConfigs(_ context.Context, r *request, req *kmsg.DescribeConfigsRequest) (kmsg.Response, error) {
	resp := kmsg.NewPtrDescribeConfigsResponse()
	seen := make(map[resource]bool, len(req.Resources))
	for i := range req.Resources {
		rr := &req.Resources[i]
		at := resource{rr.ResourceType, rr.ResourceName}
		if seen[at] {
			continue
		}
		seen[at] = true
		res := kmsg.NewDescribeConfigsResponseResource()
		res.ResourceType, res.ResourceName = rr.ResourceType, rr.ResourceName
		entries, err := n.settingsOf(rr)
		res.ErrorCode, res.ErrorMessage = r.failMessage(err)
		for _, e := range entries {
			c := kmsg.NewDescribeConfigsResponseResourceConfig()
			c.Name, c.Value, c.ReadOnly = e.Name, e.Value, e.ReadOnly
			c.Source, c.ConfigType = kmsg.ConfigSource(e.Source), kmsg.ConfigType(e.Type)
			c.IsDefault = e.Source == replica.FromDefault
			if req.IncludeSynonyms {
				for _, s := range e.Synonyms {
					syn := kmsg.NewDescribeConfigsResponseResourceConfigConfigSynonym()
					syn.Name, syn.Value, syn.Source = s.Name, s.Value, kmsg.ConfigSource(s.Source)
					c.ConfigSynonyms = append(c.ConfigSynonyms, syn)
				}
			}
			if req.IncludeDocumentation && e.Doc != "" {
				c.Documentation = &e.Doc
			}
			res.Configs = append(res.Configs, c)
		}
		resp.Resources = append(resp.Resources, res)
	}
	return resp, nil
}

func (n *Node) settingsOf(r *kmsg.DescribeConfigsRequestResource) ([]replica.ConfigEntry, error) {
	switch r.ResourceType {
	case kmsg.ConfigResourceTypeTopic:
		if err := replica.ValidateTopicName(r.ResourceName); err != nil {
			return nil, err
		}
		t := n.image().Topic(r.ResourceName)
		if t == nil {
			return nil, refuse(kerr.UnknownTopicOrPartition, "")
		}
		return replica.DescribeTopic(t.Configs, n.controller.Settings(n.id), r.ConfigNames), nil
	case kmsg.ConfigResourceTypeBroker:
		id, err := n.brokerResource(r.ResourceName)
		if err != nil {
			return nil, err
		}
		if id == replica.AnyBroker {
			var set []replica.ConfigEntry
			s := replica.Settings{Cluster: n.image().BrokerConfigs(replica.AnyBroker)}
			for _, e := range replica.DescribeBroker(s, r.ConfigNames) {
				if _, ok := s.Cluster[e.Name]; ok {
					set = append(set, e)
				}
			}
			return set, nil
		}
		return replica.DescribeBroker(n.controller.Settings(n.id), r.ConfigNames), nil
	default:
		return nil, unknownResource(r.ResourceType)
	}
}
