package checkpoint

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"
	"golang.org/x/sync/errgroup"
)

const (
	requestTimeout  = 5 * time.Second
	avoidFor        = 5 * time.Second // a coordinator that did not answer
	groupsAtOnce    = 100             // in one OffsetFetch
	commitsAtOnce   = 16              // requests under way
	fetchesAtOnce   = 8
	fetchManyGroups = 8 // the version of OffsetFetch that takes several groups (KIP-709)
	findManyGroups  = 4 // that of FindCoordinator (KIP-699)
)

// groups asks one cluster about its consumer groups. Only one of its methods
// runs at a time.
type groups struct {
	cluster GroupCluster

	mu           sync.Mutex // guards the fields below: the methods ask several brokers at once
	coordinators map[string]int32
	many         map[int32]bool // by broker: OffsetFetch takes several groups
	avoid        map[int32]time.Time
}

func newGroups(cluster GroupCluster) *groups {
	return &groups{cluster: cluster, coordinators: map[string]int32{}, many: map[int32]bool{}, avoid: map[int32]time.Time{}}
}

type topicPartition struct {
	topic     string
	partition int32
}

// committed is an offset with what was committed beside it.
type committed struct {
	offset   int64
	metadata string
}

// offsets is the answer about one group.
type offsets struct {
	at  map[topicPartition]committed
	err error
}

// groupListing is what a list says about a group. Its state is "" from brokers
// before Kafka 2.6.
type groupListing struct{ protocol, kind, state string }

// members says whether the group is known to have some.
func (l groupListing) members() bool { return l.state != "" && l.state != "Empty" && l.state != "Dead" }

// list returns all groups of the cluster. Brokers that do not answer are
// passed over; complete says that there were none, so that what is not listed
// does not exist.
func (g *groups) list(ctx context.Context) (all map[string]groupListing, complete bool, err error) {
	meta := kmsg.NewPtrMetadataRequest()
	meta.Topics = []kmsg.MetadataRequestTopic{} // none: it is about the brokers
	resp, err := ask[*kmsg.MetadataResponse](ctx, func(ctx context.Context) (kmsg.Response, error) { return g.cluster.Request(ctx, meta) })
	if err != nil {
		return nil, false, fmt.Errorf("list groups: %w", err)
	}
	var (
		each  errgroup.Group
		mu    sync.Mutex // guards what follows
		fault error
	)
	all = make(map[string]groupListing)
	each.SetLimit(fetchesAtOnce)
	for _, broker := range resp.Brokers {
		each.Go(func() error {
			list, err := ask[*kmsg.ListGroupsResponse](ctx, func(ctx context.Context) (kmsg.Response, error) {
				return g.cluster.RequestBroker(ctx, broker.NodeID, kmsg.NewPtrListGroupsRequest())
			})
			if err == nil {
				err = kerr.ErrorForCode(list.ErrorCode)
			}
			mu.Lock()
			defer mu.Unlock()
			if err != nil {
				fault = fmt.Errorf("list groups of broker %d: %w", broker.NodeID, err)
				return nil
			}
			for _, l := range list.Groups {
				all[l.Group] = groupListing{protocol: l.ProtocolType, kind: l.GroupType, state: l.GroupState}
			}
			return nil
		})
	}
	_ = each.Wait() // none returns one
	return all, fault == nil, fault
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
		req := kmsg.NewPtrFindCoordinatorRequest()
		req.CoordinatorKey, req.CoordinatorKeys = unknown[0], unknown
		resp, err := ask[*kmsg.FindCoordinatorResponse](ctx, func(ctx context.Context) (kmsg.Response, error) { return g.cluster.Request(ctx, req) })
		if err != nil {
			for _, name := range unknown {
				faults[name] = fmt.Errorf("find coordinator: %w", err)
			}
			break
		}
		found := resp.Coordinators
		if resp.Version < findManyGroups {
			found = []kmsg.FindCoordinatorResponseCoordinator{{Key: unknown[0], NodeID: resp.NodeID, ErrorCode: resp.ErrorCode}}
			unknown = unknown[1:]
		} else {
			unknown = nil
		}
		g.mu.Lock()
		for _, c := range found {
			if err := kerr.ErrorForCode(c.ErrorCode); err != nil {
				faults[c.Key] = fmt.Errorf("find coordinator: %w", err)
				continue
			}
			g.coordinators[c.Key] = c.NodeID
			by[c.NodeID] = append(by[c.NodeID], c.Key)
		}
		g.mu.Unlock()
	}
	return by, faults
}

// moved forgets the coordinator of a group when an error says that it is
// another one now.
func (g *groups) moved(group string, err error) {
	if errors.Is(err, kerr.NotCoordinator) || errors.Is(err, kerr.CoordinatorNotAvailable) {
		g.mu.Lock()
		delete(g.coordinators, group)
		g.mu.Unlock()
	}
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
	g.avoid[broker] = time.Now().Add(avoidFor)
}

// fetch returns all offsets of each group, or an error for it.
func (g *groups) fetch(ctx context.Context, names []string) map[string]offsets {
	all := make(map[string]offsets, len(names))
	by, faults := g.locate(ctx, names)
	for name, err := range faults {
		all[name] = offsets{err: err}
	}
	var (
		each errgroup.Group
		mu   sync.Mutex // guards all
	)
	each.SetLimit(fetchesAtOnce)
	for broker, names := range by {
		each.Go(func() error {
			for len(names) > 0 {
				n := 1
				if g.takesMany(broker) {
					n = min(len(names), groupsAtOnce)
				}
				answers := g.fetchAt(ctx, broker, names[:n])
				mu.Lock()
				maps.Copy(all, answers)
				mu.Unlock()
				names = names[n:]
			}
			return nil
		})
	}
	_ = each.Wait() // none returns one
	for name, answer := range all {
		g.moved(name, answer.err)
	}
	return all
}

func (g *groups) takesMany(broker int32) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.many[broker]
}

func (g *groups) avoided(broker int32) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	return time.Now().Before(g.avoid[broker])
}

// fetchAt asks one coordinator about groups: several only where it is known
// to take them.
func (g *groups) fetchAt(ctx context.Context, broker int32, names []string) map[string]offsets {
	answers := make(map[string]offsets, len(names))
	fail := func(err error) map[string]offsets {
		for _, name := range names {
			answers[name] = offsets{err: fmt.Errorf("fetch offsets: %w", err)}
		}
		return answers
	}
	if g.avoided(broker) {
		return fail(fmt.Errorf("broker %d does not answer", broker))
	}
	req := kmsg.NewPtrOffsetFetchRequest()
	req.Group = names[0] // for versions that take one; no topics: all of them
	for _, name := range names {
		one := kmsg.NewOffsetFetchRequestGroup()
		one.Group = name
		req.Groups = append(req.Groups, one)
	}
	resp, err := ask[*kmsg.OffsetFetchResponse](ctx, func(ctx context.Context) (kmsg.Response, error) {
		return g.cluster.RequestBroker(ctx, broker, req)
	})
	if err != nil {
		if ctx.Err() == nil {
			g.unanswered(broker)
		}
		return fail(err)
	}
	if resp.Version < fetchManyGroups {
		one := kmsg.OffsetFetchResponseGroup{Group: names[0], ErrorCode: resp.ErrorCode}
		for _, t := range resp.Topics {
			group := kmsg.OffsetFetchResponseGroupTopic{Topic: t.Topic}
			for _, p := range t.Partitions {
				group.Partitions = append(group.Partitions, kmsg.OffsetFetchResponseGroupTopicPartition{
					Partition: p.Partition, Offset: p.Offset, Metadata: p.Metadata, ErrorCode: p.ErrorCode,
				})
			}
			one.Topics = append(one.Topics, group)
		}
		resp.Groups = []kmsg.OffsetFetchResponseGroup{one}
	} else {
		g.mu.Lock()
		g.many[broker] = true
		g.mu.Unlock()
	}
	for _, one := range resp.Groups {
		answers[one.Group] = readOffsets(one)
	}
	for _, name := range names {
		if _, ok := answers[name]; !ok {
			answers[name] = offsets{err: errors.New("fetch offsets: no answer about the group")}
		}
	}
	return answers
}

// readOffsets leaves out partitions without an offset.
func readOffsets(g kmsg.OffsetFetchResponseGroup) offsets {
	if err := kerr.ErrorForCode(g.ErrorCode); err != nil && !errors.Is(err, kerr.GroupIDNotFound) {
		return offsets{err: fmt.Errorf("fetch offsets: %w", err)}
	}
	o := offsets{at: make(map[topicPartition]committed)}
	for _, t := range g.Topics {
		for _, p := range t.Partitions {
			if err := kerr.ErrorForCode(p.ErrorCode); err != nil {
				return offsets{err: fmt.Errorf("fetch offsets of %s/%d: %w", t.Topic, p.Partition, err)}
			}
			if p.Offset < 0 {
				continue
			}
			c := committed{offset: p.Offset}
			if p.Metadata != nil {
				c.metadata = *p.Metadata
			}
			o.at[topicPartition{t.Topic, p.Partition}] = c
		}
	}
	return o
}

// errMembers says that a commit was refused because the group has members.
var errMembers = errors.New("the group has members")

// outcome is what became of a commit: an error for the group, or for single
// partitions. Unsure: it may have been carried out all the same.
type outcome struct {
	err    error
	failed map[topicPartition]error
	unsure bool
}

// commit commits offsets for many groups, several at once.
func (g *groups) commit(ctx context.Context, due map[string]map[topicPartition]committed) map[string]outcome {
	all := make(map[string]outcome, len(due))
	names := make([]string, 0, len(due))
	for name := range due {
		names = append(names, name)
	}
	by, faults := g.locate(ctx, names)
	for name, err := range faults {
		all[name] = outcome{err: err}
	}
	var (
		each errgroup.Group
		mu   sync.Mutex // guards all
	)
	each.SetLimit(commitsAtOnce)
	for broker, names := range by {
		for _, name := range names {
			each.Go(func() error {
				result := g.commitAt(ctx, broker, name, due[name])
				mu.Lock()
				defer mu.Unlock()
				all[name] = result
				return nil
			})
		}
	}
	_ = each.Wait() // none returns one
	for name, result := range all {
		g.moved(name, result.err)
	}
	return all
}

// commitAt commits as somebody outside the group, which a group with members
// refuses. The leader epoch of the source's commit means nothing to the target
// and is left out.
func (g *groups) commitAt(ctx context.Context, broker int32, group string, due map[topicPartition]committed) outcome {
	if g.avoided(broker) {
		return outcome{err: fmt.Errorf("commit offsets: broker %d does not answer", broker)}
	}
	resp, err := ask[*kmsg.OffsetCommitResponse](ctx, func(ctx context.Context) (kmsg.Response, error) {
		return g.cluster.RequestBroker(ctx, broker, commitRequest(group, due))
	})
	if err != nil {
		if ctx.Err() == nil {
			g.unanswered(broker)
		}
		return outcome{err: fmt.Errorf("commit offsets: %w", err), unsure: true}
	}
	result := outcome{failed: make(map[topicPartition]error)}
	tooLarge := make(map[topicPartition]committed)
	for _, t := range resp.Topics {
		for _, p := range t.Partitions {
			at := topicPartition{t.Topic, p.Partition}
			err := kerr.ErrorForCode(p.ErrorCode)
			switch {
			case err == nil:
			case errors.Is(err, kerr.UnknownMemberID), errors.Is(err, kerr.IllegalGeneration), errors.Is(err, kerr.RebalanceInProgress), errors.Is(err, kerr.StaleMemberEpoch):
				return outcome{err: errMembers}
			case errors.Is(err, kerr.OffsetMetadataTooLarge) && due[at].metadata != "":
				tooLarge[at] = committed{offset: due[at].offset}
			case errors.Is(err, kerr.NotCoordinator), errors.Is(err, kerr.CoordinatorNotAvailable), errors.Is(err, kerr.CoordinatorLoadInProgress), errors.Is(err, kerr.GroupAuthorizationFailed):
				return outcome{err: fmt.Errorf("commit offsets: %w", err)}
			default:
				result.failed[at] = fmt.Errorf("commit offset of %s/%d: %w", at.topic, at.partition, err)
			}
		}
	}
	if len(tooLarge) == 0 {
		return result
	}
	rest := g.commitAt(ctx, broker, group, tooLarge) // the target allows less metadata: offsets matter more
	maps.Copy(result.failed, rest.failed)
	if rest.err != nil {
		for at := range tooLarge {
			result.failed[at] = rest.err
		}
		result.unsure = rest.unsure
	}
	return result
}

func commitRequest(group string, due map[topicPartition]committed) *kmsg.OffsetCommitRequest {
	req := kmsg.NewPtrOffsetCommitRequest() // generation -1 and no member
	req.Group = group
	topics := make(map[string][]kmsg.OffsetCommitRequestTopicPartition)
	for at, c := range due {
		p := kmsg.NewOffsetCommitRequestTopicPartition()
		p.Partition, p.Offset, p.LeaderEpoch, p.Metadata = at.partition, c.offset, -1, new(c.metadata)
		topics[at.topic] = append(topics[at.topic], p)
	}
	for name, partitions := range topics {
		slices.SortFunc(partitions, func(a, b kmsg.OffsetCommitRequestTopicPartition) int { return int(a.Partition - b.Partition) })
		t := kmsg.NewOffsetCommitRequestTopic()
		t.Topic, t.Partitions = name, partitions
		req.Topics = append(req.Topics, t)
	}
	slices.SortFunc(req.Topics, func(a, b kmsg.OffsetCommitRequestTopic) int {
		if a.Topic < b.Topic {
			return -1
		}
		return 1
	})
	return req
}
