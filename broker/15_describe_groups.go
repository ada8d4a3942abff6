package broker

import (
	"context"
	"slices"

	"github.com/twmb/franz-go/pkg/kmsg"
)

// DescribeGroups: v0-6
//
// Behavior: state, protocol and members of classic groups. A group that does
// not exist is Dead; one given twice is described once.
//
// Version notes:
//   - v3: authorized operations (KIP-430)
//   - v4: static members (KIP-345)
//   - v5: flexible
//   - v6: error message; a group that does not exist is GROUP_ID_NOT_FOUND (KIP-1043)
func (n *Node) describeGroups(_ context.Context, r *request, req *kmsg.DescribeGroupsRequest) (kmsg.Response, error) {
	req.Groups = distinct(req.Groups)
	resp := n.groups.DescribeGroups(req)
	for i := range resp.Groups {
		r.note(resp.Groups[i].ErrorCode)
	}
	return resp, nil
}

// distinct drops what came before, in order.
func distinct(names []string) []string {
	seen := make(map[string]bool, len(names))
	return slices.DeleteFunc(names, func(name string) bool {
		was := seen[name]
		seen[name] = true
		return was
	})
}
