package broker

import (
	"context"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"
)

// DescribeCluster: v0-2
//
// Behavior: the brokers of the cluster. Controllers are not reachable through
// this listener: asking for them is MISMATCHED_ENDPOINT_TYPE, as from any
// broker of Kafka.
//
// Version notes:
//   - v1: endpoint type (KIP-919)
//   - v2: fenced brokers (KIP-1073); there are none
func (n *Node) describeCluster(_ context.Context, r *request, req *kmsg.DescribeClusterRequest) (kmsg.Response, error) {
	resp := kmsg.NewPtrDescribeClusterResponse()
	resp.EndpointType = 1
	resp.ClusterAuthorizedOperations = noOperations
	if r.Version >= 1 && req.EndpointType != 1 {
		resp.ErrorCode, resp.ErrorMessage = r.failMessage(refuse(kerr.MismatchedEndpointType, "The request was sent to an endpoint of the wrong type."))
		if req.EndpointType != 2 {
			resp.ErrorCode, resp.ErrorMessage = r.failMessage(refuse(kerr.UnsupportedEndpointType, "The requested endpoint type is not supported."))
		}
		return resp, nil
	}
	if req.IncludeClusterAuthorizedOperations {
		resp.ClusterAuthorizedOperations = clusterOperations
	}
	resp.ClusterID, resp.ControllerID = n.clusterID, n.id
	b := kmsg.NewDescribeClusterResponseBroker()
	b.NodeID, b.Host, b.Port = n.id, n.host, n.port
	resp.Brokers = append(resp.Brokers, b)
	return resp, nil
}
