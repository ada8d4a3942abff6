package broker

import (
	"context"

	"github.com/twmb/franz-go/pkg/kmsg"
)

// LeaveGroup: v0-5
//
// Behavior: takes members out of a group, which rebalances.
//
// Version notes:
//   - v3: several members at once, static ones by instance id (KIP-345)
//   - v4: flexible
//   - v5: reason (KIP-800)
func (n *Node) leaveGroup(ctx context.Context, r *request, req *kmsg.LeaveGroupRequest) (kmsg.Response, error) {
	resp := n.groups.LeaveGroup(ctx, req)
	r.note(resp.ErrorCode)
	for i := range resp.Members {
		r.note(resp.Members[i].ErrorCode)
	}
	return resp, nil
}
