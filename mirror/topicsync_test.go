package mirror

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"kmirror/checkpoint"
	"kmirror/internal/kafka"
	"kmirror/topology"
)

// syncing is a topicSync between two fake clusters, driven by hand.
type syncing struct {
	*topicSync
	t          *testing.T
	east, west *kfake.Cluster
	incidents  *journal
	known      []checkpoint.TopicPair
	accepts    string
}

func newSyncing(t *testing.T, edit func(*topology.Flow)) *syncing {
	t.Helper()
	y := &syncing{t: t}
	cluster := func(name string) (*kfake.Cluster, *kafka.Cluster) {
		fake, err := kfake.NewCluster(kfake.ClusterID(name), kfake.NumBrokers(1))
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(fake.Close)
		c, err := kafka.New(&topology.Cluster{Name: name, Bootstrap: fake.ListenAddrs()}, kafka.Options{ClientID: "test"})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = c.Close() })
		return fake, c
	}
	east, source := cluster("east")
	west, target := cluster("west")
	y.east, y.west = east, west
	flow := flowOf(t, edit)
	cfg := func() *topology.Flow { return flow }
	y.incidents = newJournal("", "test", nil, slog.New(slog.DiscardHandler))
	y.topicSync = &topicSync{
		flow: cfg, source: source, target: target, discovery: newDiscovery(cfg, source, target, slog.New(slog.DiscardHandler)),
		incidents: y.incidents, log: slog.New(slog.DiscardHandler), ready: func() bool { return true },
		pairs:    func(context.Context, string) ([]checkpoint.TopicPair, error) { return y.known, nil },
		accepted: func(_ partitionID, kind string) bool { return kind == y.accepts },
		present:  map[string]*topicPair{}, gone: map[string]*absence{}, settled: map[string]string{}, problems: map[string]string{},
	}
	return y
}

// round looks and keeps step once, as if it were so much later.
func (y *syncing) round(later time.Duration) {
	y.t.Helper()
	w, err := y.discovery.look(y.t.Context())
	if err != nil {
		y.t.Fatal(err)
	}
	y.topics(y.t.Context(), w)
	if w, err = y.discovery.look(y.t.Context()); err != nil {
		y.t.Fatal(err)
	}
	y.missing(y.t.Context(), w, time.Now().Add(later))
	y.configs(y.t.Context(), w)
}

func (y *syncing) admin(c *kfake.Cluster) *kadm.Client {
	y.t.Helper()
	cl, err := kgo.NewClient(kgo.SeedBrokers(c.ListenAddrs()...))
	if err != nil {
		y.t.Fatal(err)
	}
	y.t.Cleanup(cl.Close)
	return kadm.NewClient(cl)
}

func (y *syncing) create(c *kfake.Cluster, topic string, partitions int32, configs map[string]string) {
	y.t.Helper()
	if err := c.CreateTopic(topic, partitions, configs); err != nil {
		y.t.Fatal(err)
	}
}

func (y *syncing) drop(c *kfake.Cluster, topic string) {
	y.t.Helper()
	if _, err := y.admin(c).DeleteTopic(y.t.Context(), topic); err != nil {
		y.t.Fatal(err)
	}
}

func (y *syncing) has(c *kfake.Cluster, topic string) bool {
	y.t.Helper()
	topics, err := y.admin(c).ListTopics(y.t.Context(), topic)
	if err != nil {
		y.t.Fatal(err)
	}
	return topics.Has(topic)
}

func (y *syncing) set(c *kfake.Cluster, topic, name, value string) {
	y.t.Helper()
	if _, err := y.admin(c).AlterTopicConfigs(y.t.Context(), []kadm.AlterConfig{{Op: kadm.SetConfig, Name: name, Value: &value}}, topic); err != nil {
		y.t.Fatal(err)
	}
}

func (y *syncing) get(c *kfake.Cluster, topic, name string) string {
	y.t.Helper()
	all, err := y.admin(c).DescribeTopicConfigs(y.t.Context(), topic)
	if err != nil {
		y.t.Fatal(err)
	}
	for _, config := range all[0].Configs {
		if config.Key == name {
			return config.MaybeValue()
		}
	}
	return ""
}

// kinds are those of the incidents since the last call.
func (y *syncing) told(kinds ...string) {
	y.t.Helper()
	var got []string
	for _, i := range y.incidents.since(0) {
		got = append(got, i.Kind)
	}
	if !slices.Equal(got, kinds) {
		y.t.Errorf("incidents %v, want %v: %+v", got, kinds, y.incidents.since(0))
	}
}

// TestSyncTargetDeleted: a target topic that was deleted is made anew, or with
// target_deleted: stop waits for the operator's word; one that never was is made.
func TestSyncTargetDeleted(t *testing.T) {
	for _, policy := range []topology.TargetGone{topology.TargetGoneRecreate, topology.TargetGoneStop} {
		t.Run(string(policy), func(t *testing.T) {
			y := newSyncing(t, func(f *topology.Flow) { f.Policies.TargetDeleted = policy })
			y.create(y.east, "orders", 2, nil)
			y.round(0)
			if !y.has(y.west, "east.orders") {
				t.Fatal("it was not created")
			}
			y.known = []checkpoint.TopicPair{{SourceTopic: "orders", TargetTopic: "east.orders"}}
			y.drop(y.west, "east.orders")
			y.round(0)
			stop := policy == topology.TargetGoneStop
			if got := y.has(y.west, "east.orders"); got == stop {
				t.Errorf("it is there: %v", got)
			}
			if !stop {
				y.told() // the tenures tell: each fills its partition again
				return
			}
			y.told(KindTargetDeleted)
			if got := y.problem("orders"); !strings.Contains(got, "deleted") || !strings.Contains(got, "--accept target-deleted") {
				t.Errorf("the status says %q", got)
			}
			y.accepts = KindTargetDeleted
			y.round(0)
			if !y.has(y.west, "east.orders") || y.problem("orders") != "" {
				t.Errorf("accepted, and still: %q", y.problem("orders"))
			}
		})
	}
}

// TestSyncSourceDeleted: the copy of a deleted topic stays unless asked for
// otherwise, and then goes only after a while and only if it is the one that was
// mirrored into. A topic that comes back, or is only hidden, is not deleted.
func TestSyncSourceDeleted(t *testing.T) {
	remove := func(f *topology.Flow) { f.Policies.TopicDeleted = topology.DeletedDelete }
	begin := func(t *testing.T, edit func(*topology.Flow)) *syncing {
		t.Helper()
		y := newSyncing(t, edit)
		y.create(y.east, "orders", 2, nil)
		y.round(0)
		y.round(0)
		y.drop(y.east, "orders")
		return y
	}
	t.Run("keep", func(t *testing.T) {
		y := begin(t, nil)
		y.round(0)
		y.round(time.Hour)
		y.told(KindSourceDeleted)
		if !y.has(y.west, "east.orders") {
			t.Error("nobody asked for its deletion")
		}
	})
	t.Run("delete", func(t *testing.T) {
		y := begin(t, remove)
		y.round(0)
		y.round(deleteAfter / 2)
		if !y.has(y.west, "east.orders") {
			t.Fatal("deleted at once")
		}
		y.round(deleteAfter + time.Second)
		if y.has(y.west, "east.orders") {
			t.Error("not deleted")
		}
		y.told(KindSourceDeleted, KindSourceDeleted)
	})
	t.Run("it comes back", func(t *testing.T) {
		y := begin(t, remove)
		y.round(0)
		y.create(y.east, "orders", 2, nil)
		y.round(time.Hour)
		if !y.has(y.west, "east.orders") {
			t.Error("deleted")
		}
	})
	t.Run("another copy by now", func(t *testing.T) {
		y := begin(t, remove)
		y.round(0)
		y.drop(y.west, "east.orders")
		y.create(y.west, "east.orders", 1, nil)
		y.round(time.Hour)
		if !y.has(y.west, "east.orders") {
			t.Error("somebody else's topic was deleted")
		}
	})
	t.Run("hidden", func(t *testing.T) {
		y := newSyncing(t, remove)
		y.create(y.east, "orders", 2, nil)
		y.round(0)
		y.round(0)
		y.east.ControlKey(int16(kmsg.Metadata), func(r kmsg.Request) (kmsg.Response, error, bool) { // as without DESCRIBE
			y.east.KeepControl()
			req := r.(*kmsg.MetadataRequest)
			resp := req.ResponseKind().(*kmsg.MetadataResponse)
			b := kmsg.NewMetadataResponseBroker()
			b.Host, b.Port = hostPort(t, y.east.ListenAddrs()[0])
			resp.Brokers, resp.ClusterID = append(resp.Brokers, b), new("east")
			for _, asked := range req.Topics {
				topic := kmsg.NewMetadataResponseTopic()
				topic.Topic, topic.ErrorCode = asked.Topic, kerr.TopicAuthorizationFailed.Code
				resp.Topics = append(resp.Topics, topic)
			}
			return resp, nil, true
		})
		y.round(0)
		y.round(time.Hour)
		y.told(KindAuthorization)
		if !y.has(y.west, "east.orders") {
			t.Error("the copy of a hidden topic was deleted")
		}
	})
}

func hostPort(t *testing.T, addr string) (host string, port int32) {
	t.Helper()
	at := strings.LastIndexByte(addr, ':')
	if _, err := fmt.Sscan(addr[at+1:], &port); err != nil {
		t.Fatal(err)
	}
	return addr[:at], port
}

// TestSyncConfigDrift: configs that other hands changed are repaired and told,
// or only told; a change at the source is carried over and no incident.
func TestSyncConfigDrift(t *testing.T) {
	for _, policy := range []topology.Drift{topology.DriftRepair, topology.DriftReport} {
		t.Run(string(policy), func(t *testing.T) {
			y := newSyncing(t, func(f *topology.Flow) { f.Policies.ConfigDrift = policy })
			y.create(y.east, "orders", 1, map[string]string{"retention.ms": "1000000"})
			y.round(0)
			y.round(0)
			y.told()
			if policy == topology.DriftRepair {
				y.set(y.east, "orders", "retention.ms", "2000000")
				y.round(0)
				y.round(0)
				y.told()
			}
			want := y.get(y.west, "east.orders", "retention.ms")
			y.set(y.west, "east.orders", "retention.ms", "5")
			y.round(0)
			y.told(KindConfigDrift)
			if policy == topology.DriftReport {
				want = "5"
			}
			if got := y.get(y.west, "east.orders", "retention.ms"); got != want {
				t.Errorf("retention.ms is %s, want %s", got, want)
			}
			if p := y.problem("orders"); p != "" {
				t.Errorf("reported as a problem: %s", p)
			}
		})
	}
}

// TestSyncRaisedLimit: a limit that was raised for a large record is not put
// back, whoever leads by now; one below the source's is raised as ever.
func TestSyncRaisedLimit(t *testing.T) {
	for _, tt := range []struct {
		policy             topology.TooLarge
		source, was, after string
	}{
		{topology.TooLargeRaise, "1000", "5000", "5000"},
		{topology.TooLargeRaise, "9000", "5000", "9000"},
		{topology.TooLargeRaise, "", "5000", "5000"},
		{topology.TooLargePark, "1000", "5000", "1000"},
	} {
		t.Run(fmt.Sprintf("%s %s", tt.policy, tt.source), func(t *testing.T) {
			y := newSyncing(t, func(f *topology.Flow) { f.Policies.RecordTooLarge = tt.policy })
			configs := map[string]string{}
			if tt.source != "" {
				configs[maxMessageBytes] = tt.source
			}
			y.create(y.east, "orders", 1, configs)
			y.create(y.west, "east.orders", 1, map[string]string{maxMessageBytes: tt.was})
			y.round(0)
			if got := y.get(y.west, "east.orders", maxMessageBytes); got != tt.after {
				t.Errorf("%s is %s, want %s", maxMessageBytes, got, tt.after)
			}
		})
	}
}

// TestSyncPartitionMissing: partitions that cannot be added are an incident, and
// the rest goes on.
func TestSyncPartitionMissing(t *testing.T) {
	y := newSyncing(t, nil)
	y.create(y.east, "orders", 3, nil)
	y.create(y.west, "east.orders", 1, nil)
	y.west.ControlKey(int16(kmsg.CreatePartitions), func(r kmsg.Request) (kmsg.Response, error, bool) {
		resp := r.ResponseKind().(*kmsg.CreatePartitionsResponse)
		topic := kmsg.NewCreatePartitionsResponseTopic()
		topic.Topic, topic.ErrorCode = "east.orders", kerr.TopicAuthorizationFailed.Code
		resp.Topics = append(resp.Topics, topic)
		return resp, nil, true
	})
	y.round(0)
	y.told(KindTargetPartitionMissing)
	if got := y.incidents.since(0)[0]; got.Count != 2 || got.Partition != -1 {
		t.Errorf("%+v", got)
	}
	if p := y.problem("orders"); !strings.Contains(p, "TOPIC_AUTHORIZATION_FAILED") {
		t.Errorf("the status says %q", p)
	}
	y.round(0) // given back
	if p := y.problem("orders"); p != "" {
		t.Error(p)
	}
	y.round(0)
	w, err := y.discovery.look(t.Context())
	if err != nil || len(w.byName["orders"].target.Partitions) != 3 {
		t.Errorf("%v", errors.Join(err))
	}
}
