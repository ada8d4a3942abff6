package broker

import (
	"context"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"
)

// FindCoordinator: v0-6
//
// Behavior: this node coordinates every group and every transactional id.
// Asking creates __consumer_offsets or __transaction_state when it is missing.
// Share groups are refused with INVALID_REQUEST.
//
// Version notes:
//   - v1: key type, error message
//   - v3: flexible
//   - v4: several keys at once (KIP-699)
//   - v6: share groups (KIP-932)

const (
	coordinatorOfGroup       = 0
	coordinatorOfTransaction = 1
)

func (n *Node) findCoordinator(ctx context.Context, r *request, req *kmsg.FindCoordinatorRequest) (kmsg.Response, error) {
	resp := kmsg.NewPtrFindCoordinatorResponse()
	err := n.coordinates(ctx, req.CoordinatorType)
	if r.Version < 4 {
		resp.NodeID, resp.Host, resp.Port = n.id, n.host, n.port
		if err != nil {
			resp.ErrorCode, resp.ErrorMessage = r.failMessage(err)
			resp.NodeID, resp.Host, resp.Port = -1, "", -1
		}
		return resp, nil
	}
	for _, key := range req.CoordinatorKeys {
		c := kmsg.NewFindCoordinatorResponseCoordinator()
		c.Key, c.NodeID, c.Host, c.Port = key, n.id, n.host, n.port
		if err != nil {
			c.ErrorCode, c.ErrorMessage = r.failMessage(err)
			c.NodeID, c.Host, c.Port = -1, "", -1
		}
		resp.Coordinators = append(resp.Coordinators, c)
	}
	return resp, nil
}

// coordinates reports why this node does not coordinate keys of a type.
func (n *Node) coordinates(ctx context.Context, keyType int8) error {
	switch keyType {
	case coordinatorOfGroup:
		_, err := n.ensureInternal(ctx, offsetsTopic)
		return err
	case coordinatorOfTransaction:
		_, err := n.ensureInternal(ctx, transactionsTopic)
		return err
	}
	return refuse(kerr.InvalidRequest, "this cluster has no share groups")
}
