package broker

import (
	"context"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"

	"kmirror/broker/replica"
)

// DeleteTopics: v1-6
//
// Behavior: deletes topics by name or id. With delete.topic.enable=false
// everything is TOPIC_DELETION_DISABLED. The node's own topics stay
// (POLICY_VIOLATION): groups would be lost.
//
// Version notes:
//   - v3: TOPIC_DELETION_DISABLED; INVALID_REQUEST before
//   - v4: flexible
//   - v5: error message
//   - v6: topics by id (KIP-516); a topic named both ways or neither is INVALID_REQUEST
func (n *Node) deleteTopics(ctx context.Context, r *request, req *kmsg.DeleteTopicsRequest) (kmsg.Response, error) {
	resp := kmsg.NewPtrDeleteTopicsResponse()
	topics := req.Topics
	if r.Version < 6 {
		for i := range req.TopicNames {
			t := kmsg.NewDeleteTopicsRequestTopic()
			t.Topic = &req.TopicNames[i]
			topics = append(topics, t)
		}
	}
	enabled := n.controller.Settings(n.id).Bool("delete.topic.enable")
	seen := make(map[string]bool)
	seenID := make(map[[16]byte]bool)
	for _, t := range topics {
		rt := kmsg.NewDeleteTopicsResponseTopic()
		rt.Topic, rt.TopicID = t.Topic, t.TopicID
		var deleted *replica.Topic
		var err error
		switch {
		case !enabled && r.Version < 3:
			err = refuse(kerr.InvalidRequest, "Topic deletion is disabled.")
		case !enabled:
			err = refuse(kerr.TopicDeletionDisabled, "")
		case t.Topic != nil && t.TopicID != [16]byte{}:
			err = refuse(kerr.InvalidRequest, "You may not specify both topic name and topic id.")
		case t.Topic == nil && t.TopicID == [16]byte{}:
			err = refuse(kerr.InvalidRequest, "Neither topic name nor id were specified.")
		case t.Topic != nil && seen[*t.Topic]:
			err = refuse(kerr.InvalidRequest, "Duplicate topic name.")
		case t.Topic == nil && seenID[t.TopicID]:
			err = refuse(kerr.InvalidRequest, "Duplicate topic id.")
		case t.Topic != nil:
			seen[*t.Topic] = true
			if replica.Internal(*t.Topic) && n.image().Topic(*t.Topic) != nil {
				err = refuse(kerr.PolicyViolation, "The node needs this internal topic.")
				break
			}
			deleted, err = n.controller.DeleteTopic(ctx, *t.Topic)
		default:
			seenID[t.TopicID] = true
			if known := n.image().TopicByID(t.TopicID); known != nil && known.Internal {
				err = refuse(kerr.PolicyViolation, "The node needs this internal topic.")
				break
			}
			deleted, err = n.controller.DeleteTopicByID(ctx, t.TopicID)
		}
		rt.ErrorCode, rt.ErrorMessage = r.failMessage(err)
		if err == nil {
			rt.Topic, rt.TopicID = &deleted.Name, deleted.ID
		}
		resp.Topics = append(resp.Topics, rt)
	}
	return resp, nil
}
