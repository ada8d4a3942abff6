package broker

import (
	"context"
	"math"
	"strings"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"

	"kmirror/broker/replica"
)

// Metadata: v0-13
//
// Behavior: describes brokers and topics from the image, without a lock. A
// topic that does not exist is created when the request and
// auto.create.topics.enable both allow it, and is then in this very response;
// Kafka would answer once with an error first. Asking for all topics creates
// none. Without an authorizer everybody may do everything, which is what the
// authorized operations say when they are asked for.
//
// Version notes:
//   - v0: an empty list means all topics; from v1 on null does
//   - v1: controller id, rack, internal flag
//   - v2: cluster id
//   - v4: the client says whether topics may be created (KIP-204)
//   - v5: offline replicas
//   - v7: leader epochs (KIP-320)
//   - v8: authorized operations (KIP-430); those of the cluster left again with v11
//   - v9: flexible
//   - v10: topic ids in the response (KIP-516)
//   - v12: topics may be asked for by id
//   - v13: top-level error code (KIP-1102)

// Operations that an authorizer would know, as bits (KIP-430).
const (
	noOperations      = math.MinInt32 // not asked for
	topicOperations   = 1<<3 | 1<<4 | 1<<5 | 1<<6 | 1<<7 | 1<<8 | 1<<10 | 1<<11
	clusterOperations = 1<<5 | 1<<7 | 1<<8 | 1<<9 | 1<<10 | 1<<11 | 1<<12
)

func (n *Node) metadata(ctx context.Context, r *request, req *kmsg.MetadataRequest) (kmsg.Response, error) {
	resp := kmsg.NewPtrMetadataResponse()
	b := kmsg.NewMetadataResponseBroker()
	b.NodeID, b.Host, b.Port = n.id, n.host, n.port
	resp.Brokers = append(resp.Brokers, b)
	resp.ClusterID = &n.clusterID
	resp.ControllerID = n.id
	resp.AuthorizedOperations = noOperations
	if req.IncludeClusterAuthorizedOperations {
		resp.AuthorizedOperations = clusterOperations
	}
	operations := int32(noOperations)
	if req.IncludeTopicAuthorizedOperations {
		operations = topicOperations
	}

	if req.Topics == nil || r.Version == 0 && len(req.Topics) == 0 {
		image := n.image()
		resp.Topics = make([]kmsg.MetadataResponseTopic, 0, len(image.Topics()))
		for _, t := range image.Topics() {
			resp.Topics = append(resp.Topics, describeTopic(t, operations))
		}
		return resp, nil
	}

	resp.Topics = make([]kmsg.MetadataResponseTopic, 0, len(req.Topics))
	// What is asked for twice is answered once: the response stays in proportion
	// to the cluster, whatever the request.
	seen := make(map[partitionKey]bool, len(req.Topics))
	for i := range req.Topics {
		rt := &req.Topics[i]
		if r.Version < 12 && (rt.Topic == nil || rt.TopicID != [16]byte{}) {
			resp.Topics = append(resp.Topics, missingTopic(rt, r.note(kerr.InvalidRequest.Code)))
			continue
		}
		key := partitionKey{id: rt.TopicID}
		if rt.Topic != nil {
			key = partitionKey{topic: *rt.Topic}
		}
		if seen[key] {
			continue
		}
		seen[key] = true
		if rt.Topic == nil {
			t := n.image().TopicByID(rt.TopicID)
			if t == nil {
				resp.Topics = append(resp.Topics, missingTopic(rt, r.note(kerr.UnknownTopicID.Code)))
				continue
			}
			resp.Topics = append(resp.Topics, describeTopic(t, operations))
			continue
		}
		name := *rt.Topic
		t, err := n.topicOrCreate(ctx, name, (r.Version < 4 || req.AllowAutoTopicCreation) && n.autoCreate())
		if err != nil {
			resp.Topics = append(resp.Topics, missingTopic(rt, r.fail(err)))
			continue
		}
		resp.Topics = append(resp.Topics, describeTopic(t, operations))
	}
	return resp, nil
}

// topicOrCreate finds a topic and, if create says so, makes it with the
// broker's defaults when it is missing.
func (n *Node) topicOrCreate(ctx context.Context, name string, create bool) (*replica.Topic, error) {
	if t := n.image().Topic(name); t != nil {
		return t, nil
	}
	if err := replica.ValidateTopicName(name); err != nil {
		return nil, err
	}
	if !create {
		return nil, refuse(kerr.UnknownTopicOrPartition, "")
	}
	if replica.Internal(name) {
		return n.ensureInternal(ctx, name)
	}
	return n.createTopic(ctx, strings.Clone(name))
}

func missingTopic(rt *kmsg.MetadataRequestTopic, code int16) kmsg.MetadataResponseTopic {
	t := kmsg.NewMetadataResponseTopic()
	t.ErrorCode, t.Topic, t.TopicID = code, rt.Topic, rt.TopicID
	t.AuthorizedOperations = noOperations
	if rt.Topic != nil {
		t.IsInternal = replica.Internal(*rt.Topic)
	}
	return t
}

func describeTopic(topic *replica.Topic, operations int32) kmsg.MetadataResponseTopic {
	t := kmsg.NewMetadataResponseTopic()
	t.Topic, t.TopicID, t.IsInternal, t.AuthorizedOperations = &topic.Name, topic.ID, topic.Internal, operations
	t.Partitions = make([]kmsg.MetadataResponseTopicPartition, len(topic.Partitions))
	for i := range topic.Partitions {
		p := &topic.Partitions[i]
		rp := &t.Partitions[i]
		rp.Default()
		rp.Partition, rp.Leader, rp.LeaderEpoch = int32(i), p.Leader, p.LeaderEpoch
		rp.Replicas, rp.ISR, rp.OfflineReplicas = p.Replicas, p.ISR, []int32{}
		if p.Leader < 0 {
			rp.ErrorCode = kerr.LeaderNotAvailable.Code
		}
	}
	return t
}
