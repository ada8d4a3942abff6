package kafka_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kmsg"

	"kmirror/internal/kafka"
	"kmirror/internal/wire"
)

func value(s string) []wire.Record { return []wire.Record{{Value: []byte(s), Timestamp: 1}} }

func values(t *testing.T, c *kafka.Cluster, topic string) (all []string) {
	t.Helper()
	if _, err := c.Read(t.Context(), topic, 0, 0, func(r wire.Record) error {
		all = append(all, string(r.Value))
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	return all
}

// A batch whose answer was lost, and whose caller has given up, is in the log
// once, before what follows.
func TestAWriterWritesOnce(t *testing.T) {
	fake, c := start(t, kfake.NumBrokers(1), kfake.SeedTopics(1, "ledger"))
	who, err := c.InitProducer(t.Context(), "kmirror.test", kafka.NoProducer)
	if err != nil {
		t.Fatal(err)
	}
	w := kafka.NewWriter(c, who, nil)
	if _, err := w.Append(t.Context(), "ledger", 0, value("a")); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	fake.ControlKey(int16(kmsg.Produce), func(req kmsg.Request) (kmsg.Response, error, bool) {
		fake.DropControl()
		cancel()
		resp, _ := req.ResponseKind().(*kmsg.ProduceResponse)
		return resp, errors.New("the connection is lost"), true
	})
	if _, err := w.Append(ctx, "ledger", 0, value("b")); err == nil {
		t.Fatal("an append whose answer was lost succeeded")
	}
	if _, err := w.Append(t.Context(), "ledger", 0, value("c")); err != nil {
		t.Fatal(err)
	}
	if got := values(t, c, "ledger"); !slices.Equal(got, []string{"a", "b", "c"}) {
		t.Errorf("the log holds %v", got)
	}
}

// What the topic refuses as a whole takes no sequence.
func TestARefusalTakesNoSequence(t *testing.T) {
	fake, c := start(t, kfake.NumBrokers(1), kfake.SeedTopics(1, "ledger"))
	who, err := c.InitProducer(t.Context(), "kmirror.test", kafka.NoProducer)
	if err != nil {
		t.Fatal(err)
	}
	w := kafka.NewWriter(c, who, nil)
	fake.ControlKey(int16(kmsg.Produce), func(req kmsg.Request) (kmsg.Response, error, bool) {
		fake.DropControl()
		resp, _ := req.ResponseKind().(*kmsg.ProduceResponse)
		for _, t := range req.(*kmsg.ProduceRequest).Topics {
			rt := kmsg.NewProduceResponseTopic()
			rt.Topic, rt.TopicID = t.Topic, t.TopicID
			rp := kmsg.NewProduceResponseTopicPartition()
			rp.ErrorCode = kerr.MessageTooLarge.Code
			rt.Partitions = append(rt.Partitions, rp)
			resp.Topics = append(resp.Topics, rt)
		}
		return resp, nil, true
	})
	if _, err := w.Append(t.Context(), "ledger", 0, value("large")); !errors.Is(err, kerr.MessageTooLarge) {
		t.Fatalf("got %v", err)
	}
	if _, err := w.Append(t.Context(), "ledger", 0, value("small")); err != nil {
		t.Fatal(err)
	}
}

// A lease that has ended is asked before the request leaves.
func TestAWriterAsks(t *testing.T) {
	_, c := start(t, kfake.NumBrokers(1), kfake.SeedTopics(1, "ledger"))
	who, err := c.InitProducer(t.Context(), "kmirror.test", kafka.NoProducer)
	if err != nil {
		t.Fatal(err)
	}
	over := errors.New("the lease is over")
	if _, err := kafka.NewWriter(c, who, func() error { return over }).Append(t.Context(), "ledger", 0, value("late")); !errors.Is(err, over) {
		t.Fatalf("got %v", err)
	}
	if got := values(t, c, "ledger"); len(got) > 0 {
		t.Errorf("the log holds %v", got)
	}
}

// nextEpoch waits until the transaction before has ended.
func nextEpoch(t *testing.T, c *kafka.Cluster, id string, current kafka.Producer) (kafka.Producer, error) {
	for {
		p, err := c.InitProducer(t.Context(), id, current)
		if !errors.Is(err, kerr.ConcurrentTransactions) || t.Context().Err() != nil {
			return p, err
		}
	}
}

// fencing is the story of an owner that is fenced while it still writes. (kfake
// lets an old epoch have a new one, and fences without a marker: not for it.)
func fencing(t *testing.T, c *kafka.Cluster, topic string) {
	ctx := t.Context()
	id := fmt.Sprint("kmirror.", topic)
	first, err := c.InitProducer(ctx, id, kafka.NoProducer)
	if err != nil {
		t.Fatal(err)
	}
	w := kafka.NewWriter(c, first, nil)
	if _, err := w.Append(ctx, topic, 0, value("before")); err != nil {
		t.Fatal(err)
	}
	second, err := c.InitProducer(ctx, id, kafka.NoProducer)
	if err != nil || second.ID != first.ID || second.Epoch <= first.Epoch {
		t.Fatalf("%v after %v, %v", second, first, err)
	}
	if _, err := w.Append(ctx, topic, 0, value("still")); err != nil {
		t.Fatal(err) // only the marker ends what an old epoch may do
	}
	want := []string{"before", "still", "after"}
	parts := []kafka.TopicPartition{{Topic: topic, Partition: 0}, {Topic: topic, Partition: 99}}
	refused, err := c.AddPartitions(ctx, id, second, parts)
	if err != nil || !errors.Is(refused[parts[1]], kerr.UnknownTopicOrPartition) || len(refused) != 1 {
		t.Fatalf("refused %v, %v", refused, err)
	}
	if refused, err := c.AddPartitions(ctx, id, second, parts[:1]); err != nil || len(refused) > 0 {
		t.Fatalf("refused %v, %v", refused, err)
	}
	third, err := c.EndTransaction(ctx, id, second, false)
	if err != nil || third.ID != first.ID || third.Epoch < second.Epoch {
		t.Fatalf("%v after %v, %v", third, second, err)
	}
	deadline := time.Now().Add(10 * time.Second)
	for end := int64(0); end < int64(len(want)); {
		if end, err = c.ListOffset(ctx, topic, 0, kafka.Latest); err != nil || time.Now().After(deadline) {
			t.Fatalf("the marker does not come: end %d, %v", end, err)
		}
	}
	var fenced *kafka.FencedError
	if _, err := w.Append(ctx, topic, 0, value("never")); !errors.As(err, &fenced) {
		t.Fatalf("a fenced writer: %v", err)
	}
	_, err = nextEpoch(t, c, id, first)
	if !errors.Is(err, kerr.ProducerFenced) && !errors.Is(err, kerr.InvalidProducerEpoch) {
		t.Errorf("an old epoch asks for a new one: %v", err)
	}
	again, err := nextEpoch(t, c, id, third)
	if err != nil || again.Epoch <= second.Epoch {
		t.Fatalf("%v after %v, %v", again, third, err)
	}
	if _, err := kafka.NewWriter(c, again, nil).Append(ctx, topic, 0, value("after")); err != nil {
		t.Fatal(err)
	}
	if got := values(t, c, topic); !slices.Equal(got, want) {
		t.Errorf("the log holds %v", got)
	}
	last, err := c.LastSequences(ctx, topic, 0)
	if err != nil || last[again] != 0 {
		t.Errorf("last sequences %v, %v", last, err)
	}
}
