package checkpoint_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/twmb/franz-go/pkg/kmsg"

	"kmirror/checkpoint"
	"kmirror/internal/kafka"
	"kmirror/internal/wire"
)

// crowd is a cluster with a great many groups, each with one offset on one
// partition of a topic, in a few bytes a group. It notes what it is asked.
type crowd struct {
	topic   string
	brokers int32
	pad     string // of names

	mu      sync.Mutex // guards the fields below
	offsets []int64    // by the number in a group's name; -1: nothing
	members map[int]bool
	places  []int64 // by the number, upstream: what was written down last; -1: nothing

	requests   map[int16]int
	mostGroups map[int16]int // in one request
	mostBytes  int           // of names in one request
	mostListed int           // groups in one answer
}

func newCrowd(topic string, groups int, at int64) *crowd {
	c := &crowd{topic: topic, brokers: 3, offsets: make([]int64, groups), members: map[int]bool{}, requests: map[int16]int{}, mostGroups: map[int16]int{}}
	for i := range c.offsets {
		c.offsets[i] = at
		c.places = append(c.places, -1)
	}
	return c
}

func crowdName(i int, pad string) string {
	return fmt.Sprintf("group-%07d-of-a-name-as-long-as-they-usually-are", i) + pad
}

func crowdNumber(name string) int {
	n, err := strconv.Atoi(name[len("group-") : len("group-")+7])
	if err != nil {
		panic(err)
	}
	return n
}

func (c *crowd) asked(key int16, names ...string) {
	size := 0
	for _, name := range names {
		size += len(name)
	}
	c.mostBytes = max(c.mostBytes, size)
	c.mostGroups[key] = max(c.mostGroups[key], len(names))
}

// reset forgets what was asked.
func (c *crowd) reset() {
	c.mu.Lock()
	defer c.mu.Unlock()
	clear(c.requests)
}

func (c *crowd) count() (n int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, each := range c.requests {
		n += each
	}
	return n
}

// at counts the groups that stand at an offset.
func (c *crowd) at(offset int64) (n int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, at := range c.offsets {
		if at == offset {
			n++
		}
	}
	return n
}

func (c *crowd) offset(i int) int64 {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.offsets[i]
}

func (c *crowd) set(i int, offset int64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.offsets[i] = offset
}

func (c *crowd) Request(ctx context.Context, req kmsg.Request) (kmsg.Response, error) {
	return c.RequestBroker(ctx, 1, req)
}

func (c *crowd) RequestBroker(ctx context.Context, broker int32, req kmsg.Request) (kmsg.Response, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.requests[req.Key()]++
	resp := req.ResponseKind()
	resp.SetVersion(req.MaxVersion())
	switch req := req.(type) {
	case *kmsg.MetadataRequest:
		resp := resp.(*kmsg.MetadataResponse)
		for id := range c.brokers {
			resp.Brokers = append(resp.Brokers, kmsg.MetadataResponseBroker{NodeID: id + 1})
		}
	case *kmsg.FindCoordinatorRequest:
		resp := resp.(*kmsg.FindCoordinatorResponse)
		c.asked(req.Key(), req.CoordinatorKeys...)
		for _, key := range req.CoordinatorKeys {
			resp.Coordinators = append(resp.Coordinators, kmsg.FindCoordinatorResponseCoordinator{Key: key, NodeID: 1 + int32(crowdNumber(key))%c.brokers})
		}
	case *kmsg.ListGroupsRequest:
		c.list(broker, req, resp.(*kmsg.ListGroupsResponse))
	case *kmsg.OffsetFetchRequest:
		resp := resp.(*kmsg.OffsetFetchResponse)
		var names []string
		for _, asked := range req.Groups {
			names = append(names, asked.Group)
			one := kmsg.OffsetFetchResponseGroup{Group: asked.Group}
			if at := c.offsets[crowdNumber(asked.Group)]; at >= 0 {
				one.Topics = []kmsg.OffsetFetchResponseGroupTopic{{Topic: c.topic, Partitions: []kmsg.OffsetFetchResponseGroupTopicPartition{{Offset: at, LeaderEpoch: -1}}}}
			}
			resp.Groups = append(resp.Groups, one)
		}
		c.asked(req.Key(), names...)
	case *kmsg.OffsetCommitRequest:
		resp := resp.(*kmsg.OffsetCommitResponse)
		c.offsets[crowdNumber(req.Group)] = req.Topics[0].Partitions[0].Offset
		resp.Topics = []kmsg.OffsetCommitResponseTopic{{Topic: c.topic, Partitions: []kmsg.OffsetCommitResponseTopicPartition{{}}}}
	default:
		panic(fmt.Sprintf("nobody answers %T", req))
	}
	return resp, nil
}

func (c *crowd) list(broker int32, req *kmsg.ListGroupsRequest, resp *kmsg.ListGroupsResponse) {
	for i, at := range c.offsets {
		if at < 0 || 1+int32(i)%c.brokers != broker || len(req.StatesFilter) > 0 && !c.members[i] {
			continue
		}
		one := kmsg.ListGroupsResponseGroup{Group: crowdName(i, c.pad), ProtocolType: "consumer", GroupState: "Empty", GroupType: "classic"}
		if c.members[i] {
			one.GroupState = "Stable"
		}
		resp.Groups = append(resp.Groups, one)
	}
	c.mostListed = max(c.mostListed, len(resp.Groups))
}

func (c *crowd) Append(_ context.Context, _ string, _ int32, records []wire.Record) (int64, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, rec := range records {
		said, err := checkpoint.DecodeCheckpoint(rec)
		if err != nil {
			return 0, err
		}
		c.places[crowdNumber(said.Group)] = said.Upstream
	}
	return 0, nil
}

// Read returns what was written down, as MirrorMaker 2 would have.
func (c *crowd) Read(_ context.Context, _ string, _ int32, _ int64, fn func(wire.Record) error) (int64, error) {
	for i, at := range c.places {
		if at < 0 {
			continue
		}
		said := checkpoint.Checkpoint{Group: crowdName(i, c.pad), Topic: c.topic, Upstream: at, Downstream: c.offset(i)}
		if err := fn(checkpoint.EncodeCheckpoint(said)); err != nil {
			return 0, err
		}
	}
	return int64(len(c.places)), nil
}

func (c *crowd) ListOffset(context.Context, string, int32, int64) (int64, error) { return 0, nil }

func (c *crowd) Fetch(context.Context, string, int32, int64, int32, bool, time.Duration) (kafka.FetchResult, error) {
	return kafka.FetchResult{}, nil
}

func (c *crowd) EnsureInternalTopic(context.Context, string, int32, map[string]string) error {
	return nil
}

func (c *crowd) TopicConfigs(context.Context, []string) (map[string]map[string]kafka.ConfigEntry, error) {
	return nil, errors.New("nobody knows")
}

func (c *crowd) AlterTopicConfigs(context.Context, string, map[string]string, []string) error {
	return nil
}

// requestsEach returns how many requests a second the crowd gets for a while.
func (c *crowd) requestsEach(span time.Duration) float64 {
	c.reset()
	time.Sleep(span)
	return float64(c.count()) / span.Seconds()
}

// However many groups there are (30 000 here; KMIRROR_GROUPS of them), the source gets
// few requests a second, none of which asks about many groups, and a group takes about
// a kilobyte. Who is at work does not wait for the others, not even at first.
func TestACrowdOfGroups(t *testing.T) {
	groups := 30_000
	if raceDetector {
		groups = 5_000
	}
	if n, err := strconv.Atoi(os.Getenv("KMIRROR_GROUPS")); err == nil {
		groups = n
	}
	synctest.Test(t, func(t *testing.T) {
		maps := newMapped(100)
		there := func(offset int64) int64 {
			at, _ := maps.Translate("", "", 0, offset)
			return at.Offset
		}
		east, west := newCrowd("orders", groups, 50), newCrowd("east.orders", groups, -1)
		for i := range 10 {
			east.members[i*groups/10] = true
		}
		routes := checkpoint.Routes{Forward: checkpoint.Route{Flow: flowEastWest(t), Maps: maps}}
		for life := range 2 {
			synctest.Wait()
			before := heap()
			syncer := checkpoint.NewSyncer(routes, east, west, quiet())
			began := time.Now()
			east.reset()
			stop := start(t, syncer.Run)
			at := int64(50 + life) // two places, one after the other
			time.Sleep(1500 * time.Millisecond)
			synctest.Wait()
			for i := range 10 {
				if n := i * groups / 10; west.offset(n) != there(at) {
					t.Errorf("life %d: group %d, which has members, stands at %d after 1.5 s", life, n, west.offset(n))
				}
			}
			for west.at(there(at)) < groups {
				if time.Since(began) > time.Hour {
					t.Fatalf("only %d groups follow", west.at(there(at)))
				}
				time.Sleep(500 * time.Millisecond)
			}
			took := time.Since(began)
			time.Sleep(time.Second)
			first := float64(east.count()) / (took + time.Second).Seconds()
			synctest.Wait()
			seen, most := 0, int64(0)
			for g := range syncer.Each() {
				if seen++; g.State != string(checkpoint.InStep) {
					t.Fatalf("got %+v", g)
				}
				if seen == groups/2 {
					most = heap() - before
				}
			}
			each := (heap() - before) / int64(groups)
			if beside := most - each*int64(groups); seen != groups || beside > 4<<20+16*int64(groups) {
				t.Errorf("%d groups are told of, with %d bytes meanwhile", seen, beside)
			}
			time.Sleep(10 * time.Second)
			rest := east.requestsEach(20 * time.Second)
			t.Logf("life %d: %d groups, all looked at after %v with %.0f requests a second to the source, %.0f at rest; %d bytes a group; most groups in a request: %v, %d bytes of names",
				life, groups, took.Round(100*time.Millisecond), first, rest, each, east.mostGroups, east.mostBytes)
			if first > 40 || rest > 20 {
				t.Errorf("%.1f requests a second at first, %.1f at rest", first, rest)
			}
			if each > 1300 && !raceDetector {
				t.Errorf("%d bytes a group", each)
			}
			if limit := time.Duration(groups/9000+2) * time.Second; took > limit {
				t.Errorf("all looked at after %v, want %v", took, limit)
			}
			stop()
			runtime.KeepAlive(syncer)
			for i := range groups {
				east.set(i, at+1)
			}
		}
		for key, n := range east.mostGroups {
			if n > 1000 {
				t.Errorf("%d groups in one request of kind %d", n, key)
			}
		}
	})
}

// Names may be long: what bounds a request then is its size.
func TestRequestsAboutLongNames(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const groups = 300
		maps := newMapped(100)
		east, west := newCrowd("orders", groups, 50), newCrowd("east.orders", groups, -1)
		east.pad = strings.Repeat("n", 30_000)
		routes := checkpoint.Routes{Forward: checkpoint.Route{Flow: flowEastWest(t), Maps: maps}}
		stop := start(t, checkpoint.NewSyncer(routes, east, west, quiet()).Run)
		time.Sleep(10 * time.Second)
		synctest.Wait()
		there, _ := maps.Translate("", "", 0, 50)
		if n := west.at(there.Offset); n != groups {
			t.Errorf("%d groups follow, want %d", n, groups)
		}
		if most := max(east.mostBytes, west.mostBytes); most > 512<<10 {
			t.Errorf("%d bytes of names in one request", most)
		}
		stop()
	})
}
