package broker

import (
	"context"

	"github.com/twmb/franz-go/pkg/kmsg"
)

// SyncGroup: v0-5
//
// Behavior: parks until the leader has assigned and the assignment is durable.
//
// Version notes:
//   - v3: static members (KIP-345)
//   - v4: flexible
//   - v5: protocol type and name in request and response (KIP-559)
func (n *Node) syncGroup(ctx context.Context, r *request, req *kmsg.SyncGroupRequest) (kmsg.Response, error) {
	resp := n.groups.SyncGroup(ctx, req)
	r.note(resp.ErrorCode)
	return resp, nil
}
