package checkpoint

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"
)

const (
	requestTimeout = 5 * time.Second
	avoidFor       = 5 * time.Second // a coordinator that did not answer
	brokersFor     = 30 * time.Second
	keysAtOnce     = 1000 // in one FindCoordinator
	nameBytes      = 512 << 10
	findManyGroups = 4 // the version of FindCoordinator that takes several groups (KIP-699)
)

// groups asks one cluster about its consumer groups. Only one of its methods
// runs at a time. What a broker says about groups that nobody asked for is
// passed over; what it leaves out is an error of the group.
type groups struct {
	cluster GroupCluster

	mu           sync.Mutex // guards the fields below: the methods ask several brokers at once
	coordinators map[string]int32
	many         map[int32]bool // by broker: OffsetFetch takes several groups
	avoid        map[int32]time.Time
	each         float64 // offsets in the answer about one group, as of late
	brokers      []int32
	brokersAt    time.Time // when brokers were asked for
}

func newGroups(cluster GroupCluster) *groups {
	return &groups{cluster: cluster, coordinators: map[string]int32{}, many: map[int32]bool{}, avoid: map[int32]time.Time{}}
}

// ask does a request with a deadline of its own.
func ask[R kmsg.Response](ctx context.Context, do func(context.Context) (kmsg.Response, error)) (R, error) {
	ctx, cancel := context.WithTimeout(ctx, requestTimeout)
	defer cancel()
	var none R
	resp, err := do(ctx)
	if err != nil {
		return none, err
	}
	as, ok := resp.(R)
	if !ok {
		return none, fmt.Errorf("unexpected response %T", resp)
	}
	return as, nil
}

// locate finds the coordinators of groups and divides them. Groups whose
// coordinator is not to be had just now are missing from the answer; why is in
// faults.
func (g *groups) locate(ctx context.Context, names []string) (by map[int32][]string, faults map[string]error) {
	by, faults = make(map[int32][]string), make(map[string]error)
	var unknown []string
	now := time.Now()
	g.mu.Lock()
	for _, name := range names {
		broker, ok := g.coordinators[name]
		switch {
		case !ok:
			unknown = append(unknown, name)
		case now.Before(g.avoid[broker]):
			faults[name] = fmt.Errorf("broker %d does not answer", broker)
		default:
			by[broker] = append(by[broker], name)
		}
	}
	g.mu.Unlock()
	for len(unknown) > 0 {
		n := atMost(unknown, keysAtOnce)
		answered, err := g.find(ctx, unknown[:n], by, faults)
		if err != nil {
			for _, name := range unknown {
				faults[name] = fmt.Errorf("find coordinator: %w", err)
			}
			break
		}
		unknown = unknown[answered:]
	}
	return by, faults
}

// atMost returns how many of the names go into one request: at most n, and not
// more than nameBytes of them unless one alone is longer.
func atMost(names []string, n int) int {
	size := 0
	for i, name := range names[:min(n, len(names))] {
		if size += len(name); size > nameBytes && i > 0 {
			return i
		}
	}
	return min(n, len(names))
}

// find asks for the coordinators of groups, and returns about how many of them
// the answer was: an old broker takes one.
func (g *groups) find(ctx context.Context, names []string, by map[int32][]string, faults map[string]error) (answered int, err error) {
	req := kmsg.NewPtrFindCoordinatorRequest()
	req.CoordinatorKey, req.CoordinatorKeys = names[0], names
	resp, err := ask[*kmsg.FindCoordinatorResponse](ctx, func(ctx context.Context) (kmsg.Response, error) { return g.cluster.Request(ctx, req) })
	if err != nil {
		return 0, err
	}
	found := resp.Coordinators
	if resp.Version < findManyGroups {
		found = []kmsg.FindCoordinatorResponseCoordinator{{Key: names[0], NodeID: resp.NodeID, ErrorCode: resp.ErrorCode}}
		names = names[:1]
	}
	asked := make(map[string]string, len(names)) // as we have them: a name is in memory once
	for _, name := range names {
		asked[name] = name
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	for _, c := range found {
		name, ok := asked[c.Key]
		if !ok {
			continue
		}
		delete(asked, name)
		if err := kerr.ErrorForCode(c.ErrorCode); err != nil {
			faults[name] = fmt.Errorf("find coordinator: %w", err)
			continue
		}
		g.coordinators[name] = c.NodeID
		by[c.NodeID] = append(by[c.NodeID], name)
	}
	for name := range asked {
		faults[name] = errors.New("find coordinator: no answer about the group")
	}
	return len(names), nil
}

// moved forgets the coordinator of a group when an error says that it is
// another one now.
func (g *groups) moved(group string, err error) {
	if errors.Is(err, kerr.NotCoordinator) || errors.Is(err, kerr.CoordinatorNotAvailable) {
		g.forget(group)
	}
}

// forget lets go of what is known about a group.
func (g *groups) forget(group string) {
	g.mu.Lock()
	delete(g.coordinators, group)
	g.mu.Unlock()
}

// unanswered notes that a broker failed us: its groups are looked for anew,
// and it is left alone for a while.
func (g *groups) unanswered(broker int32) {
	g.mu.Lock()
	defer g.mu.Unlock()
	for group, at := range g.coordinators {
		if at == broker {
			delete(g.coordinators, group)
		}
	}
	g.brokersAt = time.Time{}
	g.avoid[broker] = time.Now().Add(avoidFor)
}

func (g *groups) avoided(broker int32) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	return time.Now().Before(g.avoid[broker])
}
