package checkpoint

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"time"
	"unique"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"
	"golang.org/x/sync/errgroup"
)

// groupListing is what a list says about a group. There may be a million of them,
// so they keep nothing of the answer.
type groupListing struct {
	state string // "" from brokers before Kafka 2.6
	other bool   // it is none of consumers, or keeps its offsets otherwise
}

// newListing reads one entry of a list. What uses the group protocol for something
// else than consumers (Connect's workers) has no offsets as they commit them, those of
// share groups (KIP-932) and streams groups are kept otherwise. Brokers before 3.8 do
// not say the type.
func newListing(l *kmsg.ListGroupsResponseGroup) groupListing {
	return groupListing{
		state: unique.Make(l.GroupState).Value(),
		other: l.ProtocolType != "" && l.ProtocolType != "consumer" || l.GroupType == "share" || l.GroupType == "streams",
	}
}

// members says whether the group is known to have some.
func (l groupListing) members() bool { return l.state != "" && l.state != "Empty" && l.state != "Dead" }

// consumers says whether the group has offsets as consumers commit them.
func (l groupListing) consumers() bool { return !l.other }

// statesWithMembers are those of classic and of KIP-848's groups.
func statesWithMembers() []string {
	return []string{"PreparingRebalance", "CompletingRebalance", "Stable", "Assigning", "Reconciling"}
}

// UnlistedError says that brokers did not list their groups: beside it stands what
// the others listed, and what else there is nobody knows.
type UnlistedError struct {
	Brokers []int32 // that did not answer, or refused
	Err     error   // of one of them
}

func (e *UnlistedError) Error() string {
	return fmt.Sprintf("not all groups are known, for brokers %v did not list theirs: %v", e.Brokers, e.Err)
}

func (e *UnlistedError) Unwrap() error { return e.Err }

// list returns all groups of the cluster, or those in one of the states (a
// broker before Kafka 2.6 lists all of them all the same). With an *UnlistedError
// it is what some brokers listed; with any other error it is nothing.
func (g *groups) list(ctx context.Context, states []string) (all map[string]groupListing, err error) {
	brokers, err := g.everyBroker(ctx)
	if err != nil {
		return nil, fmt.Errorf("list groups: %w", err)
	}
	var (
		each  errgroup.Group
		mu    sync.Mutex // guards what follows
		fault UnlistedError
	)
	all = make(map[string]groupListing)
	each.SetLimit(fetchesAtOnce)
	for _, broker := range brokers {
		each.Go(func() error {
			list, err := ask[*kmsg.ListGroupsResponse](ctx, func(ctx context.Context) (kmsg.Response, error) {
				req := kmsg.NewPtrListGroupsRequest()
				req.StatesFilter = states
				return g.cluster.RequestBroker(ctx, broker, req)
			})
			if err == nil {
				err = kerr.ErrorForCode(list.ErrorCode)
			}
			mu.Lock()
			defer mu.Unlock()
			if err != nil {
				fault.Brokers, fault.Err = append(fault.Brokers, broker), fmt.Errorf("list groups of broker %d: %w", broker, err)
				return nil
			}
			for i := range list.Groups {
				all[list.Groups[i].Group] = newListing(&list.Groups[i])
			}
			return nil
		})
	}
	_ = each.Wait() // none returns one
	if fault.Err == nil {
		return all, nil
	}
	g.mu.Lock()
	g.brokersAt = time.Time{}
	g.mu.Unlock()
	if len(fault.Brokers) == len(brokers) {
		return nil, fault.Err
	}
	slices.Sort(fault.Brokers)
	return all, &fault
}

// everyBroker returns the brokers of the cluster, asked for twice a minute.
func (g *groups) everyBroker(ctx context.Context) ([]int32, error) {
	g.mu.Lock()
	brokers, fresh := g.brokers, time.Since(g.brokersAt) < brokersFor
	g.mu.Unlock()
	if fresh {
		return brokers, nil
	}
	meta := kmsg.NewPtrMetadataRequest()
	meta.Topics = []kmsg.MetadataRequestTopic{} // none: it is about the brokers
	resp, err := ask[*kmsg.MetadataResponse](ctx, func(ctx context.Context) (kmsg.Response, error) { return g.cluster.Request(ctx, meta) })
	if err != nil {
		return nil, err
	}
	brokers = nil
	for _, b := range resp.Brokers {
		brokers = append(brokers, b.NodeID)
	}
	g.mu.Lock()
	g.brokers, g.brokersAt = brokers, time.Now()
	g.mu.Unlock()
	return brokers, nil
}
