package broker

import (
	"context"
	"regexp"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"
)

// ListTransactions: v0-2
//
// Behavior: all transactional ids of this node, which are all there are,
// filtered by state and producer id (KIP-664). States that do not exist are
// named in the answer.
//
// Version notes:
//   - v1: transactions that run for longer than a duration (KIP-994)
//   - v2: ids that a pattern (RE2) matches as a whole (KIP-1152); a bad one is INVALID_REGULAR_EXPRESSION
func (n *Node) listTransactions(_ context.Context, r *request, req *kmsg.ListTransactionsRequest) (kmsg.Response, error) {
	matches := func(string) bool { return true }
	if r.Version >= 2 && req.TransactionalIDPattern != nil && *req.TransactionalIDPattern != "" {
		pattern, err := regexp.Compile(`^(?:` + *req.TransactionalIDPattern + `)$`)
		if err != nil {
			resp := kmsg.NewPtrListTransactionsResponse()
			resp.ErrorCode = r.fail(refuse(kerr.InvalidRegularExpression, err.Error()))
			return resp, nil
		}
		matches = pattern.MatchString
	}
	resp := n.transactions.List(req, matches)
	r.note(resp.ErrorCode)
	return resp, nil
}
