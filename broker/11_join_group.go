package broker

import (
	"context"

	"github.com/twmb/franz-go/pkg/kmsg"
)

// JoinGroup: v0-9
//
// Behavior: parks until the join phase of the group ends. The rules are the
// coordinator's (broker/coordinator).
//
// Version notes:
//   - v1: rebalance timeout
//   - v4: a member without an id is given one and told to come again (KIP-394)
//   - v5: static members (KIP-345)
//   - v6: flexible
//   - v7: protocol type in the response (KIP-559)
//   - v8: reason (KIP-800)
//   - v9: SkipAssignment for a static leader (KIP-814)
func (n *Node) joinGroup(ctx context.Context, r *request, req *kmsg.JoinGroupRequest) (kmsg.Response, error) {
	if _, err := n.ensureInternal(ctx, offsetsTopic); err != nil {
		resp := kmsg.NewPtrJoinGroupResponse()
		resp.Generation, resp.MemberID = -1, req.MemberID
		resp.ErrorCode = r.fail(err)
		return resp, nil
	}
	resp := n.groups.JoinGroup(ctx, req, r.client())
	r.note(resp.ErrorCode)
	return resp, nil
}
