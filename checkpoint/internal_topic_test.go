package checkpoint_test

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"

	"kmirror/checkpoint"
	"kmirror/internal/kafka"
	"kmirror/internal/wire"
)

// oneTopic is a cluster with one internal topic.
type oneTopic struct {
	ensure, describe, alter error
	policy                  string
	altered                 int
}

func (c *oneTopic) EnsureInternalTopic(_ context.Context, _ string, _ int32, configs map[string]string) error {
	if c.ensure == nil && c.policy == "" {
		c.policy = configs["cleanup.policy"]
	}
	return c.ensure
}

func (c *oneTopic) TopicConfigs(_ context.Context, topics []string) (map[string]map[string]kafka.ConfigEntry, error) {
	if c.describe != nil {
		return nil, c.describe
	}
	return map[string]map[string]kafka.ConfigEntry{topics[0]: {"cleanup.policy": {Value: c.policy}}}, nil
}

func (c *oneTopic) AlterTopicConfigs(_ context.Context, _ string, set map[string]string, _ []string) error {
	if c.alter == nil {
		c.policy = set["cleanup.policy"]
		c.altered++
	}
	return c.alter
}

// The names are those of MirrorMaker 2's MirrorUtilsTest, where it has one.
func TestInternalTopics(t *testing.T) {
	for _, c := range []struct {
		name    string
		cluster oneTopic
		fails   error
		policy  string // afterwards
		says    string
	}{
		{name: "testCreateCompactedTopic", policy: "compact"},
		{name: "testCreateCompactedTopicAlreadyExists", cluster: oneTopic{policy: "compact"}, policy: "compact"},
		{name: "testCreateCompactedTopicAssumeTopicAlreadyExistsWithUnsupportedVersionException", cluster: oneTopic{ensure: kerr.UnsupportedVersion}, says: "taken to be there"},
		{name: "testCreateCompactedTopicAssumeTopicAlreadyExistsWithClusterAuthorizationException", cluster: oneTopic{ensure: kerr.ClusterAuthorizationFailed}, says: "taken to be there"},
		{name: "testCreateCompactedTopicAssumeTopicAlreadyExistsWithTopicAuthorizationException", cluster: oneTopic{ensure: kerr.TopicAuthorizationFailed}, says: "taken to be there"},
		{name: "testCreateCompactedTopicFailsWithInvalidConfigurationException", cluster: oneTopic{ensure: kerr.InvalidConfig}, fails: kerr.InvalidConfig},
		{name: "testCreateCompactedTopicFailsWithTimeoutException", cluster: oneTopic{ensure: kerr.RequestTimedOut}, fails: kerr.RequestTimedOut},
		{name: "another cleanup policy", cluster: oneTopic{policy: "delete"}, policy: "compact", says: "cleanup_policy=delete"},
		{name: "two cleanup policies", cluster: oneTopic{policy: "compact,delete"}, policy: "compact", says: "it is now"},
		{name: "a cleanup policy that may not be altered", cluster: oneTopic{policy: "delete", alter: kerr.TopicAuthorizationFailed}, policy: "delete", says: "cannot be altered"},
		{name: "a cleanup policy that may not be read", cluster: oneTopic{policy: "delete", describe: kerr.TopicAuthorizationFailed}, policy: "delete", says: "cannot be read"},
		{name: "several partitions", cluster: oneTopic{ensure: &kafka.PartitionsError{Have: 3, Want: 1}, policy: "delete"}, policy: "compact", says: "partitions=3"},
	} {
		t.Run(c.name, func(t *testing.T) {
			var said bytes.Buffer
			err := checkpoint.EnsureInternal(t.Context(), &c.cluster, "heartbeats", slog.New(slog.NewTextHandler(&said, nil)))
			if !errors.Is(err, c.fails) || err != nil && !strings.Contains(err.Error(), "heartbeats") {
				t.Errorf("got %v, want %v", err, c.fails)
			}
			if c.cluster.policy != c.policy {
				t.Errorf("the cleanup policy is %q, want %q", c.cluster.policy, c.policy)
			}
			if got := said.String(); !strings.Contains(got, c.says) || c.says == "" && got != "" {
				t.Errorf("said %q, want something about %q", got, c.says)
			}
		})
	}
}

// Whatever somebody else wrote into the checkpoints topic, what can be read of
// it counts, and the rest is counted and named (MT/CheckpointStoreTest).
func TestForeignRecordsInTheCheckpointsTopic(t *testing.T) {
	tell(t, nil, func(t *testing.T, s *story) {
		s.east.commit(t, "billing", "orders", 0, 23)
		s.expect(t, "billing", checkpoint.InStep, 21)
		s.stop()
		for _, rec := range []wire.Record{{Key: []byte("key")}, {Value: []byte("value")}, {Key: []byte{0, 9}, Value: []byte{0, 0, 1}}, {}} {
			if _, err := s.west.ours.Append(t.Context(), "east.checkpoints.internal", 0, []wire.Record{rec}); err != nil {
				t.Fatal(err)
			}
		}
		s.begin(t)
		s.east.commit(t, "billing", "orders", 0, 12) // back: ours, so it follows
		time.Sleep(2 * time.Second)
		synctest.Wait()
		if got := s.west.committed(t, "billing", "east.orders", 0); got != 11 {
			t.Errorf("the target's group stands at %d, want 11", got)
		}
		if n := s.syncer.Skipped(); n != 4 {
			t.Errorf("%d records were skipped, want 4", n)
		}
	})
}
