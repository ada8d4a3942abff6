package broker

import (
	"context"

	"github.com/twmb/franz-go/pkg/kmsg"
)

// DeleteGroups: v0-2
//
// Behavior: deletes groups without members, and their offsets.
//
// Version notes:
//   - v2: flexible
func (n *Node) deleteGroups(ctx context.Context, r *request, req *kmsg.DeleteGroupsRequest) (kmsg.Response, error) {
	resp := n.groups.DeleteGroups(ctx, req)
	for i := range resp.Groups {
		r.note(resp.Groups[i].ErrorCode)
	}
	return resp, nil
}
