package broker_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/IBM/sarama"
	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"

	"kmirror/broker"
)

func newKgo(t testing.TB, node *broker.Node, opts ...kgo.Opt) *kgo.Client {
	t.Helper()
	c, err := kgo.NewClient(append([]kgo.Opt{kgo.SeedBrokers(node.Addr())}, opts...)...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	return c
}

func TestFranzGo(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), 60*time.Second)
	defer cancel()
	node := start(t)
	admin := kadm.NewClient(newKgo(t, node))
	if _, err := admin.CreateTopic(ctx, 4, 1, nil, "t"); err != nil {
		t.Fatal(err)
	}
	for _, tc := range []struct {
		name string
		opts []kgo.Opt
	}{
		{"idempotent", nil},
		{"plain", []kgo.Opt{kgo.DisableIdempotentWrite(), kgo.RequiredAcks(kgo.LeaderAck())}},
		{"zstd", []kgo.Opt{kgo.ProducerBatchCompression(kgo.ZstdCompression())}},
	} {
		producer := newKgo(t, node, tc.opts...)
		for i := range 1000 {
			producer.Produce(ctx, &kgo.Record{Topic: "t", Key: fmt.Append(nil, i%50), Value: fmt.Appendf(nil, "%s-%d", tc.name, i)}, func(_ *kgo.Record, err error) {
				if err != nil {
					t.Errorf("%s: %v", tc.name, err)
				}
			})
		}
		if err := producer.Flush(ctx); err != nil {
			t.Fatal(err)
		}
	}
	// Two members share the topic; one leaves, the other reads on.
	var mu sync.Mutex
	seen := make(map[string]int)
	total := func() int {
		mu.Lock()
		defer mu.Unlock()
		return len(seen)
	}
	read := func(c *kgo.Client, until int) {
		for total() < until && ctx.Err() == nil {
			poll, done := context.WithTimeout(ctx, time.Second) // the other may have read the last record
			fetches := c.PollFetches(poll)
			done()
			fetches.EachError(func(topic string, p int32, err error) {
				if ctx.Err() == nil && !errors.Is(err, context.DeadlineExceeded) {
					t.Errorf("fetch %s/%d: %v", topic, p, err)
				}
			})
			mu.Lock()
			fetches.EachRecord(func(r *kgo.Record) { seen[string(r.Value)]++ })
			mu.Unlock()
			if err := c.CommitUncommittedOffsets(ctx); err != nil && ctx.Err() == nil {
				t.Errorf("commit: %v", err)
			}
			c.AllowRebalance()
		}
	}
	member := func() *kgo.Client {
		return newKgo(t, node, kgo.ConsumerGroup("g"), kgo.ConsumeTopics("t"), kgo.DisableAutoCommit(), kgo.BlockRebalanceOnPoll(),
			kgo.Balancers(kgo.CooperativeStickyBalancer()), kgo.SessionTimeout(10*time.Second))
	}
	first, second := member(), member()
	var readers sync.WaitGroup
	readers.Go(func() {
		read(first, 1000)
		first.Close()
	})
	readers.Go(func() { read(second, 3000) })
	readers.Wait()
	if total() != 3000 {
		t.Errorf("%d of 3000 records were read", total())
	}
	groups, err := admin.DescribeGroups(ctx, "g")
	for err == nil && groups["g"].State != "Stable" { // the other takes over what the first one had
		groups, err = admin.DescribeGroups(ctx, "g")
	}
	if err != nil || groups["g"].Protocol != "cooperative-sticky" {
		t.Errorf("describe: %v, protocol %q", err, groups["g"].Protocol)
	}
	lag, err := admin.Lag(ctx, "g")
	if err != nil || lag["g"].Lag.Total() != 0 {
		t.Errorf("lag: %v, %v", err, lag["g"].Lag.Total())
	}
	offsets, err := admin.ListEndOffsets(ctx, "t")
	if err != nil {
		t.Fatal(err)
	}
	var end int64
	offsets.Each(func(o kadm.ListedOffset) { end += o.Offset })
	if end != 3000 {
		t.Errorf("end offsets add up to %d", end)
	}
}

func TestSarama(t *testing.T) {
	node := start(t)
	cfg := sarama.NewConfig()
	cfg.Version = sarama.MaxVersion
	cfg.Producer.Return.Successes = true
	cfg.Producer.RequiredAcks = sarama.WaitForAll
	cfg.Producer.Idempotent, cfg.Net.MaxOpenRequests = true, 1
	cfg.Consumer.Offsets.Initial = sarama.OffsetOldest
	admin, err := sarama.NewClusterAdmin([]string{node.Addr()}, cfg)
	if err != nil {
		t.Fatal(err)
	}
	defer admin.Close()
	if err := admin.CreateTopic("t", &sarama.TopicDetail{NumPartitions: 2, ReplicationFactor: 1}, false); err != nil {
		t.Fatal(err)
	}
	producer, err := sarama.NewSyncProducer([]string{node.Addr()}, cfg)
	if err != nil {
		t.Fatal(err)
	}
	defer producer.Close()
	var want []string
	for i := range 100 {
		value := fmt.Sprint("v", i)
		want = append(want, value)
		if _, _, err := producer.SendMessage(&sarama.ProducerMessage{Topic: "t", Value: sarama.StringEncoder(value)}); err != nil {
			t.Fatal(err)
		}
	}
	group, err := sarama.NewConsumerGroup([]string{node.Addr()}, "g", cfg)
	if err != nil {
		t.Fatal(err)
	}
	defer group.Close()
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	reader := &saramaReader{want: len(want), done: cancel}
	if err := group.Consume(ctx, []string{"t"}, reader); err != nil {
		t.Fatal(err)
	}
	slices.Sort(want)
	slices.Sort(reader.got)
	if !slices.Equal(reader.got, want) {
		t.Errorf("read %d records, want %d", len(reader.got), len(want))
	}
	configs, err := admin.DescribeConfig(sarama.ConfigResource{Type: sarama.TopicResource, Name: "t"}) //nolint:staticcheck // what programs use today
	if err != nil || len(configs) < 20 {
		t.Errorf("describe config: %d entries, %v", len(configs), err)
	}
	listed, err := admin.ListConsumerGroupOffsets("g", map[string][]int32{"t": {0, 1}})
	if err != nil {
		t.Fatal(err)
	}
	if sum := listed.GetBlock("t", 0).Offset + listed.GetBlock("t", 1).Offset; sum != 100 {
		t.Errorf("committed offsets add up to %d", sum)
	}
}

type saramaReader struct {
	mu   sync.Mutex
	got  []string
	want int
	done func()
}

func (*saramaReader) Setup(sarama.ConsumerGroupSession) error   { return nil }
func (*saramaReader) Cleanup(sarama.ConsumerGroupSession) error { return nil }
func (r *saramaReader) ConsumeClaim(s sarama.ConsumerGroupSession, claim sarama.ConsumerGroupClaim) error {
	for m := range claim.Messages() {
		s.MarkMessage(m, "")
		r.mu.Lock()
		r.got = append(r.got, string(m.Value))
		if len(r.got) == r.want {
			r.done()
		}
		r.mu.Unlock()
	}
	return nil
}
