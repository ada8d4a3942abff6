package broker

import (
	"context"

	"github.com/twmb/franz-go/pkg/kmsg"
)

// ListGroups: v0-5
//
// Behavior: every group of the cluster, for this node coordinates them all.
//
// Version notes:
//   - v3: flexible
//   - v4: filter by state (KIP-518)
//   - v5: filter by type (KIP-848); all groups are classic
func (n *Node) listGroups(_ context.Context, r *request, req *kmsg.ListGroupsRequest) (kmsg.Response, error) {
	resp := n.groups.ListGroups(req)
	r.note(resp.ErrorCode)
	return resp, nil
}
