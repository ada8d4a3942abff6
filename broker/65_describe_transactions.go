package broker

import (
	"context"

	"github.com/twmb/franz-go/pkg/kmsg"
)

// DescribeTransactions: v0
//
// Behavior: where transactional ids stand, with the partitions of an open
// transaction (KIP-664). An unknown id is TRANSACTIONAL_ID_NOT_FOUND.
func (n *Node) describeTransactions(_ context.Context, r *request, req *kmsg.DescribeTransactionsRequest) (kmsg.Response, error) {
	resp := kmsg.NewPtrDescribeTransactionsResponse()
	for _, id := range req.TransactionalIDs {
		state := n.transactions.Describe(id)
		r.note(state.ErrorCode)
		resp.TransactionStates = append(resp.TransactionStates, state)
	}
	return resp, nil
}
