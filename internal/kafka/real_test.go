package kafka_test

import (
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kmsg"

	"kmirror/internal/kafka"
	"kmirror/internal/wire"
	"kmirror/topology"
)

// TestRealKafka runs against the brokers in KMIRROR_KAFKA (host:port,...), and
// with SASL against KMIRROR_KAFKA_SASL, where a user "mirror" has the password
// of these tests by every mechanism.
func TestRealKafka(t *testing.T) {
	if os.Getenv("KMIRROR_KAFKA") == "" {
		t.Skip("KMIRROR_KAFKA names no brokers")
	}
	clusters := map[string]*topology.Cluster{"plain": {Name: "real", Bootstrap: strings.Split(os.Getenv("KMIRROR_KAFKA"), ",")}}
	if sasl := os.Getenv("KMIRROR_KAFKA_SASL"); sasl != "" {
		for _, mechanism := range []string{topology.MechanismPlain, topology.MechanismScram256, topology.MechanismScram512} {
			clusters[mechanism] = &topology.Cluster{
				Name: "real", Bootstrap: strings.Split(sasl, ","),
				SASL: &topology.SASL{Mechanism: mechanism, User: "mirror", Password: topology.NewSecret(password)},
			}
		}
	}
	for name, at := range clusters {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			story(t, client(t, at), fmt.Sprintf("story-%s-%d", name, time.Now().UnixNano()))
		})
	}
}

// story makes a topic, writes, reads, follows, commits and describes.
func story(t *testing.T, c *kafka.Cluster, topic string) {
	ctx := t.Context()
	if err := c.EnsureInternalTopic(ctx, topic, 2, map[string]string{"cleanup.policy": "compact"}); err != nil {
		t.Fatal(err)
	}
	began := time.Now()
	for i := range 20 {
		if base := mustAppend(t, c, topic, 1, fmt.Sprint("a", i), fmt.Sprint("b", i)); base != int64(2*i) {
			t.Fatalf("batch %d at %d", i, base)
		}
	}
	t.Logf("20 appends in %s", time.Since(began))
	if os.Getenv("KMIRROR_KAFKA_SASL") != "" {
		time.Sleep(5 * time.Second) // past the end of a short SASL session: idle connections are void
	}
	n := 0
	next, err := c.Read(ctx, topic, 1, 0, func(r wire.Record) error {
		if want := fmt.Sprint(string("ab"[n%2]), n/2); string(r.Value) != want || r.Offset != int64(n) {
			t.Errorf("record %d: %q at %d", n, r.Value, r.Offset)
		}
		n++
		return nil
	})
	if err != nil || next != 40 || n != 40 {
		t.Fatalf("read %d up to %d, %v", n, next, err)
	}
	if got, err := c.ListOffsets(ctx, map[string][]int32{topic: {0, 1}}, kafka.Latest); err != nil || got[topic][1] != 40 || got[topic][0] != 0 {
		t.Errorf("offsets %v, %v", got, err)
	}
	if _, err := c.RequestGroup(ctx, topic, commit(topic, topic, 7)); err != nil {
		t.Errorf("commit: %v", err)
	}
	fetch := kmsg.NewPtrOffsetFetchRequest()
	fetch.Group = topic
	fetch.Groups = []kmsg.OffsetFetchRequestGroup{{Group: topic, MemberEpoch: -1}}
	resp, err := c.RequestGroup(ctx, topic, fetch)
	if err != nil {
		t.Fatal(err)
	}
	if g := resp.(*kmsg.OffsetFetchResponse).Groups[0]; len(g.Topics) != 1 || g.Topics[0].Partitions[0].Offset != 7 {
		t.Errorf("committed: %+v", g)
	}
	if err := c.AlterTopicConfigs(ctx, topic, map[string]string{"retention.ms": "123456"}, nil); err != nil {
		t.Error(err)
	}
	if err := c.CreatePartitions(ctx, topic, 3); err != nil {
		t.Error(err)
	}
	configs, err := c.TopicConfigs(ctx, []string{topic})
	if err != nil || configs[topic]["retention.ms"].Value != "123456" || configs[topic]["retention.ms"].Default || !configs[topic]["segment.bytes"].Default {
		t.Errorf("configs: %v", err)
	}
	if err := c.EnsureInternalTopic(ctx, topic+"-fenced", 1, nil); err != nil {
		t.Fatal(err)
	}
	fencing(t, c, topic+"-fenced")
	admin, err := c.Admin(ctx)
	if err != nil {
		t.Fatal(err)
	}
	if described, err := admin.DescribeTopics([]string{topic}); err != nil || len(described) != 1 || len(described[0].Partitions) != 3 {
		t.Errorf("sarama: %v", err)
	}
	if _, err := admin.ListConsumerGroupOffsets(topic, nil); err != nil {
		t.Errorf("sarama offsets: %v", err)
	}
	if err := admin.DeleteTopic(topic); err != nil {
		t.Error(err)
	}
}
