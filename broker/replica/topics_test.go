package replica_test

import (
	"context"
	"errors"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/twmb/franz-go/pkg/kerr"

	"kmirror/broker/replica"
)

// is tells whether err carries a Kafka error; nil wants none.
func is(err error, want *kerr.Error) bool {
	if want == nil {
		return err == nil
	}
	var got *kerr.Error
	return errors.As(err, &got) && got.Code == want.Code
}

func TestCreateTopic(t *testing.T) {
	str := func(s string) *string { return &s }
	c := open(t, newMemLog(), 0)
	for _, test := range []struct {
		name string
		spec replica.TopicSpec
		want *kerr.Error
	}{
		{"plain", replica.TopicSpec{Name: "orders", Partitions: 3, ReplicationFactor: 2}, nil},
		{"again", replica.TopicSpec{Name: "orders", Partitions: 3, ReplicationFactor: 2}, kerr.TopicAlreadyExists},
		{"defaults", replica.TopicSpec{Name: "defaults", Partitions: -1, ReplicationFactor: -1}, nil},
		{"dots", replica.TopicSpec{Name: "a.b", Partitions: 1, ReplicationFactor: 1}, nil},
		{"collides", replica.TopicSpec{Name: "a_b", Partitions: 1, ReplicationFactor: 1}, kerr.InvalidTopicException},
		{"empty name", replica.TopicSpec{Partitions: 1, ReplicationFactor: 1}, kerr.InvalidTopicException},
		{"no partitions", replica.TopicSpec{Name: "x", Partitions: 0, ReplicationFactor: 1}, kerr.InvalidPartitions},
		{"no replicas", replica.TopicSpec{Name: "x", Partitions: 1, ReplicationFactor: 0}, kerr.InvalidReplicationFactor},
		{"too many replicas", replica.TopicSpec{Name: "x", Partitions: 1, ReplicationFactor: 4}, kerr.InvalidReplicationFactor},
		{"too many partitions", replica.TopicSpec{Name: "x", Partitions: 10_001, ReplicationFactor: 1}, kerr.PolicyViolation},
		{"assigned", replica.TopicSpec{Name: "assigned", Partitions: -1, ReplicationFactor: -1, Assignment: [][]int32{{2, 1}, {3, 2}}}, nil},
		{"assigned and counted", replica.TopicSpec{Name: "x", Partitions: 2, ReplicationFactor: -1, Assignment: [][]int32{{2}, {3}}}, kerr.InvalidRequest},
		{"assigned to strangers", replica.TopicSpec{Name: "x", Partitions: -1, ReplicationFactor: -1, Assignment: [][]int32{{9}}}, kerr.InvalidReplicaAssignment},
		{"assigned twice", replica.TopicSpec{Name: "x", Partitions: -1, ReplicationFactor: -1, Assignment: [][]int32{{1, 1}}}, kerr.InvalidReplicaAssignment},
		{"assigned unevenly", replica.TopicSpec{Name: "x", Partitions: -1, ReplicationFactor: -1, Assignment: [][]int32{{1}, {1, 2}}}, kerr.InvalidReplicaAssignment},
		{"configured", replica.TopicSpec{Name: "configured", Partitions: 1, ReplicationFactor: 1, Configs: map[string]*string{"retention.ms": str("-1")}}, nil},
		{"unknown setting", replica.TopicSpec{Name: "x", Partitions: 1, ReplicationFactor: 1, Configs: map[string]*string{"retention": str("1")}}, kerr.InvalidConfig},
		{"bad setting", replica.TopicSpec{Name: "x", Partitions: 1, ReplicationFactor: 1, Configs: map[string]*string{"retention.ms": str("-2")}}, kerr.InvalidConfig},
		{"null setting", replica.TopicSpec{Name: "x", Partitions: 1, ReplicationFactor: 1, Configs: map[string]*string{"retention.ms": nil}}, kerr.InvalidConfig},
		{"contradiction", replica.TopicSpec{Name: "x", Partitions: 1, ReplicationFactor: 1, Configs: map[string]*string{"min.compaction.lag.ms": str("9"), "max.compaction.lag.ms": str("8")}}, kerr.InvalidConfig},
	} {
		t.Run(test.name, func(t *testing.T) {
			dry, err := c.CreateTopic(t.Context(), test.spec, true)
			if !is(err, test.want) {
				t.Errorf("validate only: %v, want %v", err, test.want)
			}
			topic, err := c.CreateTopic(t.Context(), test.spec, false)
			if !is(err, test.want) {
				t.Fatalf("got %v, want %v", err, test.want)
			}
			if test.want != nil {
				return
			}
			if topic.ID[6]>>4 != 4 || topic.ID[8]>>6 != 2 {
				t.Errorf("id %x is no UUID v4", topic.ID)
			}
			if c.Image().Topic(test.spec.Name) != topic || c.Image().TopicByID(topic.ID) != topic {
				t.Error("the image does not know the topic")
			}
			if len(dry.Partitions) != len(topic.Partitions) {
				t.Errorf("validate only promised %d partitions, there are %d", len(dry.Partitions), len(topic.Partitions))
			}
		})
	}
	if got := c.Image().Topic("assigned").Partitions[1]; got.Leader != 3 || !slices.Equal(got.ISR, []int32{3, 2}) || got.LeaderEpoch != 0 {
		t.Errorf("assigned partition: %+v", got)
	}
}

func TestTopicNames(t *testing.T) {
	for name, ok := range map[string]bool{
		"": false, ".": false, "..": false, "...": true, "A-z_0.9": true, "a b": false, "ä": false, "a/b": false,
		strings.Repeat("x", 249): true, strings.Repeat("x", 250): false, "a\x00": false,
	} {
		if err := replica.ValidateTopicName(name); (err == nil) != ok || !ok && !is(err, kerr.InvalidTopicException) {
			t.Errorf("%q: %v", name, err)
		}
	}
}

func TestDeletedTopicComesBackAsAnother(t *testing.T) {
	c := open(t, newMemLog(), 0)
	spec := replica.TopicSpec{Name: "a.b", Partitions: 2, ReplicationFactor: 1}
	first, err := c.CreateTopic(t.Context(), spec, false)
	if err != nil {
		t.Fatal(err)
	}
	old := c.Image()
	if gone, err := c.DeleteTopic(t.Context(), "a.b"); err != nil || gone != first {
		t.Fatalf("delete: %v %v", gone, err)
	}
	if old.Topic("a.b") == nil || c.Image().Topic("a.b") != nil {
		t.Error("an image that was handed out has changed, or the new one has not")
	}
	if _, err := c.DeleteTopicByID(t.Context(), first.ID); !is(err, kerr.UnknownTopicID) {
		t.Errorf("delete by a dead id: %v", err)
	}
	if _, err := c.DeleteTopic(t.Context(), "a.b"); !is(err, kerr.UnknownTopicOrPartition) {
		t.Errorf("delete again: %v", err)
	}
	spec.Name = "a_b" // the name it collided with is free
	second, err := c.CreateTopic(t.Context(), spec, false)
	if err != nil || second.ID == first.ID {
		t.Errorf("%v, %v", second, err)
	}
}

func TestCreatePartitions(t *testing.T) {
	c := open(t, newMemLog(), 0)
	if _, err := c.CreateTopic(t.Context(), replica.TopicSpec{Name: "t", Partitions: 2, ReplicationFactor: 1}, false); err != nil {
		t.Fatal(err)
	}
	for _, test := range []struct {
		count      int32
		assignment [][]int32
		want       *kerr.Error
	}{
		{2, nil, kerr.InvalidPartitions},
		{1, nil, kerr.InvalidPartitions},
		{4, [][]int32{{1}}, kerr.InvalidReplicaAssignment},
		{3, [][]int32{{7}}, kerr.InvalidReplicaAssignment},
		{3, [][]int32{{2}}, nil},
		{5, nil, nil},
		{2_000_000_000, nil, kerr.PolicyViolation},
	} {
		before := len(c.Image().Topic("t").Partitions)
		if _, err := c.CreatePartitions(t.Context(), "t", test.count, test.assignment, true); !is(err, test.want) {
			t.Errorf("%d %v, validate only: %v", test.count, test.assignment, err)
		}
		if len(c.Image().Topic("t").Partitions) != before {
			t.Fatal("validate only changed the topic")
		}
		if _, err := c.CreatePartitions(t.Context(), "t", test.count, test.assignment, false); !is(err, test.want) {
			t.Errorf("%d %v: %v", test.count, test.assignment, err)
		}
	}
	if got := len(c.Image().Topic("t").Partitions); got != 5 {
		t.Errorf("%d partitions, want 5", got)
	}
}

func TestProducerIDsAreNeverGivenTwice(t *testing.T) {
	log := newMemLog()
	next := int64(0)
	for range 3 {
		c := open(t, log, 2)
		for range 5 {
			first, count, err := c.AllocateProducerIDs(t.Context())
			if err != nil || first != next || count <= 0 {
				t.Fatalf("got %d+%d, %v; want from %d on", first, count, err, next)
			}
			next = first + int64(count)
		}
	}
}

func TestChangedComesBeforePublished(t *testing.T) {
	log := newMemLog()
	open(t, log, 0)
	var c *replica.Controller
	var told []string
	var err error
	c, err = replica.Open(t.Context(), replica.Options{
		Log: log, Brokers: []int32{1},
		Changed: func(old, current *replica.Image) {
			if old != nil && c.Image() != old {
				t.Error("the image is published before those who must know were told")
			}
			for _, topic := range current.Topics() {
				if old == nil || old.Topic(topic.Name) == nil {
					told = append(told, topic.Name)
				}
			}
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel() // a caller that goes away does not leave half a change
	for _, name := range []string{"b", "a"} {
		if _, err := c.CreateTopic(ctx, replica.TopicSpec{Name: name, Partitions: 1, ReplicationFactor: 1}, false); err != nil {
			t.Fatal(err)
		}
	}
	if diff := cmp.Diff([]string{"b", "a"}, told); diff != "" {
		t.Error(diff)
	}
}

func TestRenewLeadership(t *testing.T) {
	c := open(t, newMemLog(), 0)
	if err := c.RenewLeadership(t.Context(), 1); err != nil || c.Image().Offset() != 0 {
		t.Errorf("nothing to renew: %v, offset %d", err, c.Image().Offset())
	}
	if _, err := c.CreateTopic(t.Context(), replica.TopicSpec{Name: "t", Partitions: 3, ReplicationFactor: 1}, false); err != nil {
		t.Fatal(err)
	}
	if err := c.RenewLeadership(t.Context(), 2); err != nil {
		t.Fatal(err)
	}
	for _, p := range c.Image().Topic("t").Partitions {
		want := int32(0)
		if p.Leader == 2 {
			want = 1
		}
		if p.LeaderEpoch != want {
			t.Errorf("leader %d: epoch %d, want %d", p.Leader, p.LeaderEpoch, want)
		}
	}
}
