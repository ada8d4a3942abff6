package broker

import (
	"context"

	"github.com/twmb/franz-go/pkg/kmsg"
)

// DescribeGroups: v0-6
//
// Behavior: state, protocol and members of classic groups. A group that does
// not exist is Dead.
//
// Version notes:
//   - v3: authorized operations (KIP-430)
//   - v4: static members (KIP-345)
//   - v5: flexible
//   - v6: error message; a group that does not exist is GROUP_ID_NOT_FOUND (KIP-1043)
func (n *Node) describeGroups(_ context.Context, r *request, req *kmsg.DescribeGroupsRequest) (kmsg.Response, error) {
	resp := n.groups.DescribeGroups(req)
	for i := range resp.Groups {
		r.note(resp.Groups[i].ErrorCode)
	}
	return resp, nil
}
