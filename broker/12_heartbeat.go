package broker

import (
	"context"

	"github.com/twmb/franz-go/pkg/kmsg"
)

// Heartbeat: v0-4
//
// Behavior: keeps a member of a classic group alive and tells it of a rebalance.
//
// Version notes:
//   - v3: static members (KIP-345)
//   - v4: flexible
func (n *Node) heartbeat(_ context.Context, r *request, req *kmsg.HeartbeatRequest) (kmsg.Response, error) {
	resp := n.groups.Heartbeat(req)
	r.note(resp.ErrorCode)
	return resp, nil
}
