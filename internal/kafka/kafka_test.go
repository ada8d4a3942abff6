package kafka_test

import (
	"context"
	"errors"
	"fmt"
	"net"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"kmirror/internal/kafka"
	"kmirror/internal/wire"
	"kmirror/topology"
)

// start starts a fake cluster and a client of it.
func start(t *testing.T, options ...kfake.Opt) (*kfake.Cluster, *kafka.Cluster) {
	t.Helper()
	fake, err := kfake.NewCluster(options...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(fake.Close)
	return fake, client(t, &topology.Cluster{Name: "west", Bootstrap: fake.ListenAddrs()})
}

func client(t *testing.T, at *topology.Cluster) *kafka.Cluster {
	t.Helper()
	c, err := kafka.New(at, kafka.Options{ClientID: "kmirror-test"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	return c
}

func records(values ...string) []wire.Record {
	var all []wire.Record
	for i, v := range values {
		all = append(all, wire.Record{Timestamp: 1_700_000_000_000 + int64(i), Key: []byte("k"), Value: []byte(v)})
	}
	return all
}

func mustAppend(t *testing.T, c *kafka.Cluster, topic string, partition int32, values ...string) int64 {
	t.Helper()
	base, err := c.Append(t.Context(), topic, partition, records(values...))
	if err != nil {
		t.Fatal(err)
	}
	return base
}

func TestMetadata(t *testing.T) {
	_, c := start(t, kfake.NumBrokers(3), kfake.SeedTopics(4, "orders", "users"), kfake.ClusterID("cluster-1"), kfake.AllowAutoTopicCreation())
	m, err := c.Metadata(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if m.ClusterID != "cluster-1" || len(m.Brokers) != 3 || len(m.Topics) != 2 || m.Brokers[m.Controller] == "" {
		t.Errorf("metadata: %+v", m)
	}
	orders := m.Topics["orders"]
	if orders == nil || orders.Err != nil || len(orders.Partitions) != 4 || orders.ID == [16]byte{} {
		t.Fatalf("orders: %+v", orders)
	}
	for i, p := range orders.Partitions {
		if p.ID != int32(i) || p.Err != nil || m.Brokers[p.Leader] == "" || !slices.Contains(p.Replicas, p.Leader) {
			t.Errorf("partition %d: %+v", i, p)
		}
	}
	m, err = c.Metadata(t.Context(), "orders", "nobody")
	if err != nil || len(m.Topics) != 2 || !errors.Is(m.Topics["nobody"].Err, kerr.UnknownTopicOrPartition) {
		t.Errorf("an unknown topic: %+v, %v", m, err)
	}
	if m, err = c.Metadata(t.Context()); err != nil || len(m.Topics) != 2 {
		t.Errorf("asking for a topic created it: %d topics, %v", len(m.Topics), err)
	}
	if c.Name() != "west" {
		t.Errorf("name %q", c.Name())
	}
}

// deadAddress is one where nobody listens.
func deadAddress(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().String()
}

func TestUnreachableSaysWhatWasTried(t *testing.T) {
	dead := []string{deadAddress(t), deadAddress(t)}
	c := client(t, &topology.Cluster{Name: "west", Bootstrap: dead})
	_, metadata := c.Metadata(t.Context())
	_, fetch := c.Fetch(t.Context(), "orders", 3, 17, 1000, false, 0)
	_, group := c.RequestGroup(t.Context(), "readers", kmsg.NewPtrOffsetFetchRequest())
	_, list := c.ListOffset(t.Context(), "orders", 3, kafka.Latest)
	_, admin := c.Admin(t.Context())
	_, connect := c.Connect(t.Context(), 1)
	create := c.CreateTopic(t.Context(), "orders", 1, 1, nil)
	for name, err := range map[string]error{"metadata": metadata, "fetch orders/3 at 17": fetch, "OffsetFetch of group readers": group, "list offset of orders/3": list, "open sarama client": admin, "connect to broker 1": connect, "create topic orders": create} {
		var e *kafka.UnreachableError
		if !errors.As(err, &e) || e.Cluster != "west" || len(e.Tried) != 2 {
			t.Errorf("%s: %v, want *UnreachableError with two addresses", name, err)
			continue
		}
		for _, part := range append([]string{"cluster west", name, "refused"}, dead...) {
			if !strings.Contains(err.Error(), part) {
				t.Errorf("%q does not say %q", err, part)
			}
		}
		if n := strings.Count(err.Error(), dead[0]); n > 2 { // ours, and that of net.OpError
			t.Errorf("%q says the address %d times", err, n)
		}
	}
	ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
	defer cancel()
	if _, err := c.Append(ctx, "orders", 0, records("a")); !errors.Is(err, context.DeadlineExceeded) || !strings.Contains(err.Error(), "refused") {
		t.Errorf("Append at the end of its time: %v", err)
	}
	if err := c.Follow(ctx, "orders", 0, 0, nil, nil); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("Follow at the end of its time: %v", err)
	}
}

func TestABootstrapAddressMayBeDead(t *testing.T) {
	fake, _ := start(t, kfake.NumBrokers(1), kfake.SeedTopics(1, "orders"))
	c := client(t, &topology.Cluster{Name: "west", Bootstrap: append([]string{deadAddress(t)}, fake.ListenAddrs()...)})
	if m, err := c.Metadata(t.Context()); err != nil || len(m.Topics) != 1 {
		t.Errorf("metadata: %v", err)
	}
}

func TestABrokenConnectionIsTriedAgain(t *testing.T) {
	fake, c := start(t, kfake.NumBrokers(2), kfake.SeedTopics(1, "orders"))
	if _, err := c.Metadata(t.Context()); err != nil {
		t.Fatal(err)
	}
	var broken atomic.Int32
	drop := func(key int16, times int32) {
		broken.Store(0)
		fake.ControlKey(key, func(kmsg.Request) (kmsg.Response, error, bool) {
			if broken.Add(1) <= times {
				fake.KeepControl()
				return nil, errors.New("the line is cut"), true
			}
			return nil, nil, false
		})
	}
	drop(3, 1)
	if _, err := c.Metadata(t.Context()); err != nil || broken.Load() == 0 {
		t.Errorf("metadata: %v after %d breaks", err, broken.Load())
	}
	drop(60, 2)
	if _, err := c.RequestBroker(t.Context(), 0, kmsg.NewPtrDescribeClusterRequest()); err != nil || broken.Load() == 0 {
		t.Errorf("RequestBroker: %v after %d breaks", err, broken.Load())
	}
	drop(1, 2)
	if _, err := c.Fetch(t.Context(), "orders", 0, 0, 1000, false, 0); err != nil || broken.Load() == 0 {
		t.Errorf("Fetch: %v after %d breaks", err, broken.Load())
	}
}

func TestAppendAndReadFollowTheLeader(t *testing.T) {
	fake, c := start(t, kfake.NumBrokers(3), kfake.SeedTopics(2, "orders"))
	var want []string
	for i := range 9 {
		if i%3 == 1 {
			if err := fake.MoveTopicPartition("orders", 1, (fake.LeaderFor("orders", 1)+1)%3); err != nil {
				t.Fatal(err)
			}
		}
		values := []string{fmt.Sprint("a", i), fmt.Sprint("b", i)}
		if base := mustAppend(t, c, "orders", 1, values...); base != int64(2*i) {
			t.Fatalf("batch %d at %d", i, base)
		}
		want = append(want, values...)
		var got []string
		next, err := c.Read(t.Context(), "orders", 1, 0, func(r wire.Record) error {
			if r.Offset != int64(len(got)) {
				t.Errorf("offset %d, want %d", r.Offset, len(got))
			}
			got = append(got, string(r.Value))
			return nil
		})
		if err != nil || next != int64(len(want)) {
			t.Fatalf("read up to %d, %v", next, err)
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Fatalf("read (-want +got):\n%s", diff)
		}
	}
	if next, err := c.Read(t.Context(), "orders", 0, 0, nil); err != nil || next != 0 {
		t.Errorf("an empty partition: %d, %v", next, err)
	}
	var tail []int64
	if next, err := c.Read(t.Context(), "orders", 1, 15, func(r wire.Record) error { tail = append(tail, r.Offset); return nil }); err != nil || next != 18 || len(tail) != 3 || tail[0] != 15 {
		t.Errorf("from the middle of a batch: %v, %d, %v", tail, next, err)
	}
	stop := errors.New("enough")
	if next, err := c.Read(t.Context(), "orders", 1, 0, func(r wire.Record) error {
		if r.Offset == 3 {
			return stop
		}
		return nil
	}); !errors.Is(err, stop) || next != 3 {
		t.Errorf("fn's error: %d, %v", next, err)
	}
	if _, err := c.Read(t.Context(), "orders", 1, 100, nil); !errors.Is(err, kerr.OffsetOutOfRange) || !strings.Contains(err.Error(), "orders/1 at 100") {
		t.Errorf("beyond the end: %v", err)
	}
	if err := fake.DeleteRecords("orders", 1, 5); err != nil {
		t.Fatal(err)
	}
	first := int64(-1)
	if _, err := c.Read(t.Context(), "orders", 1, 0, func(r wire.Record) error {
		if first < 0 {
			first = r.Offset
		}
		return nil
	}); err != nil || first != 5 {
		t.Errorf("before the start of the log: begins at %d, %v", first, err)
	}
}

func TestFollow(t *testing.T) {
	fake, c := start(t, kfake.NumBrokers(2), kfake.SeedTopics(1, "orders"))
	mustAppend(t, c, "orders", 0, "1", "2")
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	got, caught, done := make(chan string, 10), make(chan struct{}), make(chan error, 1)
	go func() {
		done <- c.Follow(ctx, "orders", 0, 1, func() { close(caught) }, func(r wire.Record) error {
			got <- string(r.Value)
			return nil
		})
	}()
	expect := func(want string) {
		t.Helper()
		select {
		case v := <-got:
			if v != want {
				t.Fatalf("got %q, want %q", v, want)
			}
		case <-time.After(10 * time.Second):
			t.Fatalf("%q did not come", want)
		}
	}
	expect("2")
	<-caught
	mustAppend(t, c, "orders", 0, "3")
	expect("3")
	if err := fake.MoveTopicPartition("orders", 0, 1-fake.LeaderFor("orders", 0)); err != nil {
		t.Fatal(err)
	}
	mustAppend(t, c, "orders", 0, "4")
	expect("4")
	cancel()
	if err := <-done; !errors.Is(err, context.Canceled) {
		t.Errorf("Follow ended with %v", err)
	}
	stop := errors.New("enough")
	if err := c.Follow(t.Context(), "orders", 0, 0, nil, func(wire.Record) error { return stop }); !errors.Is(err, stop) {
		t.Errorf("fn's error: %v", err)
	}
}

func TestReadSkipsMarkersAndReadsWhatOthersWrote(t *testing.T) {
	fake, c := start(t, kfake.NumBrokers(1), kfake.SeedTopics(1, "orders"))
	p, err := kgo.NewClient(kgo.SeedBrokers(fake.ListenAddrs()...), kgo.DefaultProduceTopic("orders"), kgo.TransactionalID("tx"), kgo.ProducerBatchCompression(kgo.ZstdCompression()))
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	for _, commit := range []kgo.TransactionEndTry{kgo.TryCommit, kgo.TryAbort, kgo.TryCommit} {
		if err := p.BeginTransaction(); err != nil {
			t.Fatal(err)
		}
		if err := p.ProduceSync(t.Context(), kgo.StringRecord("x")).FirstErr(); err != nil {
			t.Fatal(err)
		}
		if err := p.EndTransaction(t.Context(), commit); err != nil {
			t.Fatal(err)
		}
	}
	var got []int64
	next, err := c.Read(t.Context(), "orders", 0, 0, func(r wire.Record) error { got = append(got, r.Offset); return nil })
	if err != nil || next != 6 || !slices.Equal(got, []int64{0, 2, 4}) {
		t.Errorf("offsets %v up to %d, %v", got, next, err)
	}
	f, err := c.Fetch(t.Context(), "orders", 0, 0, 1<<20, true, 0)
	if err != nil || f.Err != nil || len(f.Aborted) != 1 || f.Aborted[0].FirstOffset != 2 || f.HighWatermark != 6 || f.LastStable != 6 || f.LogStart != 0 {
		t.Errorf("fetch of committed records: %+v, %v", f, err)
	}
}

func TestFetchReportsThePartitionsError(t *testing.T) {
	_, c := start(t, kfake.NumBrokers(1), kfake.SeedTopics(1, "orders"))
	if f, err := c.Fetch(t.Context(), "orders", 0, 99, 1000, false, 0); err != nil || !errors.Is(f.Err, kerr.OffsetOutOfRange) {
		t.Errorf("beyond the end: %+v, %v", f, err)
	}
	start := time.Now()
	if _, err := c.Fetch(t.Context(), "nobody", 0, 0, 1000, false, 0); !errors.Is(err, kerr.UnknownTopicOrPartition) || !strings.Contains(err.Error(), "fetch nobody/0 at 0") {
		t.Errorf("an unknown topic: %v", err)
	}
	if took := time.Since(start); took > 6*time.Second {
		t.Errorf("an unknown topic took %s", took)
	}
	if _, err := c.Fetch(t.Context(), "orders", 7, 0, 1000, false, 0); !errors.Is(err, kerr.UnknownTopicOrPartition) {
		t.Errorf("an unknown partition: %v", err)
	}
}

func TestListOffsets(t *testing.T) {
	fake, c := start(t, kfake.NumBrokers(3), kfake.SeedTopics(3, "orders", "users"))
	for p := range int32(3) {
		mustAppend(t, c, "orders", p, "1", "2", "3")
	}
	if err := fake.DeleteRecords("orders", 1, 1); err != nil {
		t.Fatal(err)
	}
	ask := map[string][]int32{"orders": {0, 1, 2}, "users": {0}}
	for name, tc := range map[string]struct {
		timestamp int64
		want      map[string]map[int32]int64
	}{
		"latest":   {kafka.Latest, map[string]map[int32]int64{"orders": {0: 3, 1: 3, 2: 3}, "users": {0: 0}}},
		"earliest": {kafka.Earliest, map[string]map[int32]int64{"orders": {0: 0, 1: 1, 2: 0}, "users": {0: 0}}},
		"a time":   {1_700_000_000_001, map[string]map[int32]int64{"orders": {0: 1, 1: 1, 2: 1}, "users": {0: -1}}},
	} {
		fake.ShufflePartitionLeaders()
		got, err := c.ListOffsets(t.Context(), ask, tc.timestamp)
		if err != nil {
			t.Errorf("%s: %v", name, err)
		}
		if diff := cmp.Diff(tc.want, got); diff != "" {
			t.Errorf("%s (-want +got):\n%s", name, diff)
		}
	}
	got, err := c.ListOffsets(t.Context(), map[string][]int32{"orders": {0}, "nobody": {0}}, kafka.Latest)
	if !errors.Is(err, kerr.UnknownTopicOrPartition) || !strings.Contains(err.Error(), "nobody/0") || got["orders"][0] != 3 {
		t.Errorf("one of two: %v, %v", got, err)
	}
	if offset, err := c.ListOffset(t.Context(), "orders", 2, kafka.Latest); err != nil || offset != 3 {
		t.Errorf("ListOffset: %d, %v", offset, err)
	}
}

func TestRequestLeader(t *testing.T) {
	fake, c := start(t, kfake.NumBrokers(3), kfake.SeedTopics(1, "orders"))
	mustAppend(t, c, "orders", 0, "a")
	if err := fake.MoveTopicPartition("orders", 0, (fake.LeaderFor("orders", 0)+1)%3); err != nil {
		t.Fatal(err)
	}
	resp, err := c.RequestLeader(t.Context(), "orders", 0, func(topic *kafka.Topic) kmsg.Request {
		req := kmsg.NewPtrListOffsetsRequest()
		rt := kmsg.NewListOffsetsRequestTopic()
		rt.Topic = topic.Name
		rp := kmsg.NewListOffsetsRequestTopicPartition()
		rp.Timestamp = -1
		rt.Partitions = append(rt.Partitions, rp)
		req.Topics = append(req.Topics, rt)
		return req
	})
	if err != nil || resp.(*kmsg.ListOffsetsResponse).Topics[0].Partitions[0].Offset != 1 {
		t.Errorf("%+v, %v", resp, err)
	}
}

func TestTopics(t *testing.T) {
	_, c := start(t, kfake.NumBrokers(3))
	ctx := t.Context()
	if err := c.CreateTopic(ctx, "orders", 2, 3, map[string]string{"retention.ms": "1000", "cleanup.policy": "compact"}); err != nil {
		t.Fatal(err)
	}
	if err := c.CreateTopic(ctx, "orders", 2, 3, nil); !errors.Is(err, kerr.TopicAlreadyExists) || !strings.Contains(err.Error(), "cluster west: create topic orders") {
		t.Errorf("the same again: %v", err)
	}
	if err := c.CreatePartitions(ctx, "orders", 5); err != nil {
		t.Errorf("CreatePartitions: %v", err)
	}
	if err := c.CreatePartitions(ctx, "orders", 3); !errors.Is(err, kerr.InvalidPartitions) {
		t.Errorf("fewer partitions: %v", err)
	}
	if m, err := c.Metadata(ctx, "orders"); err != nil || len(m.Topics["orders"].Partitions) != 5 {
		t.Errorf("metadata: %v", err)
	}
	if err := c.AlterTopicConfigs(ctx, "orders", map[string]string{"max.message.bytes": "2000000"}, []string{"retention.ms"}); err != nil {
		t.Errorf("AlterTopicConfigs: %v", err)
	}
	if err := c.AlterTopicConfigs(ctx, "nobody", map[string]string{"retention.ms": "1"}, nil); !errors.Is(err, kerr.UnknownTopicOrPartition) {
		t.Errorf("AlterTopicConfigs of an unknown topic: %v", err)
	}
	configs, err := c.TopicConfigs(ctx, []string{"orders", "nobody"})
	if !errors.Is(err, kerr.UnknownTopicOrPartition) || !strings.Contains(err.Error(), "nobody") {
		t.Errorf("TopicConfigs: %v", err)
	}
	orders := configs["orders"]
	if orders["max.message.bytes"].Value != "2000000" || orders["max.message.bytes"].Default ||
		orders["cleanup.policy"].Value != "compact" || !orders["retention.ms"].Default {
		t.Errorf("configs: %+v", orders)
	}
}

func TestEnsureInternalTopic(t *testing.T) {
	_, c := start(t, kfake.NumBrokers(4))
	errs := make(chan error, 4)
	for range 4 { // instances that start together
		go func() {
			errs <- c.EnsureInternalTopic(t.Context(), "__kmirror_x", 8, map[string]string{"cleanup.policy": "compact"})
		}()
	}
	for range 4 {
		if err := <-errs; err != nil {
			t.Error(err)
		}
	}
	m, err := c.Metadata(t.Context(), "__kmirror_x")
	if err != nil {
		t.Fatal(err)
	}
	x := m.Topics["__kmirror_x"]
	if len(x.Partitions) != 8 || len(x.Partitions[0].Replicas) != 3 {
		t.Errorf("%+v", x)
	}
	configs, err := c.TopicConfigs(t.Context(), []string{"__kmirror_x"})
	if err != nil || configs["__kmirror_x"]["min.insync.replicas"].Value != "2" || configs["__kmirror_x"]["cleanup.policy"].Value != "compact" {
		t.Errorf("configs %+v, %v", configs, err)
	}
	if err := c.EnsureInternalTopic(t.Context(), "__kmirror_x", 9, nil); err == nil || !strings.Contains(err.Error(), "__kmirror_x") {
		t.Errorf("another number of partitions: %v", err)
	}
	_, one := start(t, kfake.NumBrokers(1))
	if err := one.EnsureInternalTopic(t.Context(), "__kmirror_x", 2, nil); err != nil {
		t.Errorf("on one broker: %v", err)
	}
}

func TestConnectIsTheCallersOwn(t *testing.T) {
	_, c := start(t, kfake.NumBrokers(2))
	conn, err := c.Connect(t.Context(), 1)
	if err != nil {
		t.Fatal(err)
	}
	_ = c.Close()
	if _, err := conn.Do(t.Context(), kmsg.NewPtrMetadataRequest()); err != nil {
		t.Errorf("after Close of the cluster: %v", err)
	}
	_ = conn.Close()
	if _, err := c.Metadata(t.Context()); err == nil {
		t.Error("a closed cluster answers")
	}
}

func TestConnectToABrokerThatIsNotThere(t *testing.T) {
	_, c := start(t, kfake.NumBrokers(1))
	if _, err := c.Connect(t.Context(), 77); !errors.Is(err, kerr.BrokerNotAvailable) || !strings.Contains(err.Error(), "broker 77") {
		t.Errorf("got %v", err)
	}
}

func TestSaramaIsSharedAndReopened(t *testing.T) {
	_, c := start(t, kfake.NumBrokers(2), kfake.SeedTopics(2, "orders"))
	admin, err := c.Admin(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	topics, err := admin.ListTopics()
	if err != nil || topics["orders"].NumPartitions != 2 {
		t.Errorf("topics %v, %v", topics, err)
	}
	one, err := c.Client(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if two, err := c.Client(t.Context()); err != nil || one != two {
		t.Errorf("another client: %v", err)
	}
	if err := one.Close(); err != nil {
		t.Fatal(err)
	}
	if three, err := c.Client(t.Context()); err != nil || three.Closed() {
		t.Errorf("after it was closed: %v", err)
	}
	_ = c.Close()
	if _, err := c.Client(t.Context()); err == nil {
		t.Error("a closed cluster has a client")
	}
}

// The leader says which of its epochs it is.
func TestLeaderEpoch(t *testing.T) {
	fake, c := start(t, kfake.NumBrokers(3), kfake.SeedTopics(1, "orders"))
	mustAppend(t, c, "orders", 0, "1")
	before, err := c.LeaderEpoch(t.Context(), "orders", 0)
	if err != nil {
		t.Fatal(err)
	}
	fake.ShufflePartitionLeaders()
	after, err := c.LeaderEpoch(t.Context(), "orders", 0)
	if err != nil || after <= before {
		t.Errorf("epoch %d, then %d, %v", before, after, err)
	}
	if _, err := c.LeaderEpoch(t.Context(), "nobody", 0); !errors.Is(err, kerr.UnknownTopicOrPartition) {
		t.Errorf("an unknown topic: %v", err)
	}
}
