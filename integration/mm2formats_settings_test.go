package integration_test

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
)

// oneWay is also testOneWayReplicationWithFrequentOffsetSyncs: with another
// separator, and once with another one for internal topics.
func (s *mm2Story) oneWay(w *world, t *testing.T) {
	for _, topic := range []string{"sep-one", "sep-two"} { // a second one comes later
		h := newHistory(topic, 2, 100)
		w.create("east", topic, 2)
		w.write("east", h, 60)
		for _, way := range []struct{ to, separator, policy string }{
			{"dash", "-", "replication.policy.separator=-"},
			{"under", "_", "replication.policy.separator=_\treplication.policy.internal.topic.separator.enabled=false"},
		} {
			mirror := mirrorPlace{way.to, "east" + way.separator + topic}
			w.mirrored("east", topic, way.to, mirror.topic)
			if way.to == "dash" {
				w.consumeHere("east", topic, "mm-"+topic, map[int32]int{0: 60, 1: 33})
			}
			w.followsTo("mm-"+topic, mirrorPlace{"east", topic}, mirror)
			w.follows("mm-"+topic, mirrorPlace{"east", topic}, mirror, func() map[int32]int64 {
				return s.java.offsets(t, mirror.topic, s.java.question("translateOffsets", "mm-"+topic, "east", way.to, way.policy)...)
			})
			internal := way.separator
			if way.to == "under" {
				internal = "."
			}
			has(t, s.java.ask(t, append([]string{"checkpointTopics"}, s.java.of(way.to, way.policy)...)...), "east"+internal+"checkpoints"+internal+"internal")
			has(t, s.java.ask(t, append([]string{"remoteTopics", "east"}, s.java.of(way.to, way.policy)...)...), mirror.topic)
			only(t, s.java.ask(t, append([]string{"replicationHops", "east"}, s.java.of(way.to, way.policy)...)...), "1")
		}
	}
	topics, err := w.admin("east").ListTopics(w.ctx(10 * time.Second))
	if err != nil {
		t.Fatal(err)
	}
	for name := range topics {
		if strings.HasPrefix(name, "dash") || strings.HasPrefix(name, "under") {
			t.Errorf("east has %s: something came back", name)
		}
	}
}

// fromLatest: only what came after the start is there.
func (s *mm2Story) fromLatest(w *world, t *testing.T) {
	eventually(t, 20*time.Second, "the mirror of late-orders", func() error {
		if w.ends(w.admin("late"), "east.late-orders") == nil {
			return fmt.Errorf("no topic")
		}
		return nil
	})
	w.write("east", s.late, 30)
	var got map[int32][]*kgo.Record
	eventually(t, 20*time.Second, "what is new", func() error {
		if got = w.read("late", "east.late-orders"); count(got) < 60 {
			return fmt.Errorf("%d records", count(got))
		}
		return nil
	})
	for partition, records := range got {
		if _, first, err := identity(records[0]); err != nil || first != 100 || len(records) != 30 {
			t.Errorf("partition %d: %d records, the first is #%d (%v)", partition, len(records), first, err)
		}
	}
	w.commit("east", "mm-late-group", "late-orders", map[int32]int64{0: 111, 1: 130})
	w.followsTo("mm-late-group", mirrorPlace{"east", "late-orders"}, mirrorPlace{"late", "east.late-orders"})
}

// identityPolicy: one way, same names; heartbeats are prefixed all the same.
func (s *mm2Story) identityPolicy(w *world, t *testing.T) {
	h := newHistory("same-orders", 2, 100)
	w.create("east", h.topic, 2)
	w.write("east", h, 60)
	w.exact(h, "east", "same", "same-orders")
	w.consumeHere("east", h.topic, "mm-same", map[int32]int{0: 17, 1: 60})
	policy := []string{"replication.policy.class=org.apache.kafka.connect.mirror.IdentityReplicationPolicy", "source.cluster.alias=east"}
	here, there := mirrorPlace{"east", h.topic}, mirrorPlace{"same", h.topic}
	w.followsTo("mm-same", here, there)
	w.follows("mm-same", here, there, func() map[int32]int64 {
		return s.java.offsets(t, h.topic, s.java.question("translateOffsets", "mm-same", "east", "same", policy...)...)
	})
	has(t, s.java.ask(t, append([]string{"upstreamClusters"}, s.java.of("same", policy...)...)...), "east")
	has(t, s.java.ask(t, append([]string{"heartbeatTopics"}, s.java.of("same", policy...)...)...), "east.heartbeats", "heartbeats")
	has(t, s.java.ask(t, append([]string{"remoteTopics"}, s.java.of("same", policy...)...)...), "same-orders")
	only(t, s.java.ask(t, append([]string{"replicationHops", "east"}, s.java.of("same", policy...)...)...), "1")
}

// compactedTopic: the source was compacted before and is again afterwards; the
// tombstones came over.
func (s *mm2Story) compactedTopic(w *world, t *testing.T) {
	h := s.compacted
	w.caughtUp("east", h.topic, "west", "east.mm-compacted")
	ends := w.ends(w.admin("east"), h.topic)
	here, there := mirrorPlace{"east", h.topic}, mirrorPlace{"west", "east.mm-compacted"}
	for _, offset := range []int64{0, ends[0] / 3, ends[0] - 5, ends[0]} {
		w.commit("east", "mm-compacted-group", h.topic, map[int32]int64{0: offset})
		w.followsTo("mm-compacted-group", here, there)
	}
	if got := w.config("west", "east.mm-compacted", "cleanup.policy"); got != "compact" {
		t.Errorf("the copy's cleanup policy is %q", got)
	}
	tombstones := 0
	for _, r := range w.read("west", "east.mm-compacted")[0] {
		if r.Value == nil {
			tombstones++
		}
	}
	if tombstones == 0 {
		t.Error("no tombstone came over")
	}
}

// topicConfigs is also testReplicateTargetDefault: what the source has by default
// the target has by its own.
func (s *mm2Story) topicConfigs(w *world, t *testing.T) {
	w.create("east", "mm-configs", 1, "retention.bytes=1000000", "min.insync.replicas=1", "message.timestamp.type=LogAppendTime")
	eventually(t, 20*time.Second, "the copy of mm-configs", func() error {
		if got := w.config("west", "east.mm-configs", "retention.bytes"); got != "1000000" {
			return fmt.Errorf("retention.bytes is %q", got)
		}
		return nil
	})
	if got := w.config("west", "east.mm-configs", "message.timestamp.type"); got == "LogAppendTime" {
		t.Error("an excluded config was copied")
	}
	w.setConfig("west", "east.mm-configs", "retention.bytes", "5")
	eventually(t, 30*time.Second, "what drifted", func() error {
		if got := w.config("west", "east.mm-configs", "retention.bytes"); got != "1000000" {
			return fmt.Errorf("retention.bytes is %q", got)
		}
		return nil
	})
}

// partitionsAdded: a group goes on in a new partition, too.
func (s *mm2Story) partitionsAdded(w *world, t *testing.T) {
	h := newHistory("mm-growing", 1, 100)
	w.create("east", h.topic, 1)
	w.write("east", h, 30)
	here, there := mirrorPlace{"east", h.topic}, mirrorPlace{"west", "east.mm-growing"}
	w.mirrored(here.cluster, here.topic, there.cluster, there.topic)
	w.commit("east", "mm-growing-group", h.topic, map[int32]int64{0: 30})
	w.followsTo("mm-growing-group", here, there)
	if _, err := w.admin("east").CreatePartitions(w.ctx(10*time.Second), 1, h.topic); err != nil {
		t.Fatal(err)
	}
	h.fates[1] = nil
	eventually(t, 20*time.Second, "two partitions in east", func() error {
		if n := len(w.ends(w.admin("east"), h.topic)); n != 2 {
			return fmt.Errorf("%d", n)
		}
		return nil
	})
	w.write("east", h, 30)
	w.exact(h, "east", "west", "east.mm-growing")
	w.commit("east", "mm-growing-group", h.topic, map[int32]int64{0: 41, 1: 11})
	w.follows("mm-growing-group", here, there, func() map[int32]int64 {
		return s.java.offsets(t, there.topic, s.java.question("translateOffsets", "mm-growing-group", "east", "west")...)
	})
	w.followsTo("mm-growing-group", here, there)
}

// disorder: internal topics made by hand, with a cleanup policy that loses what
// is old and more partitions than one.
func (s *mm2Story) disorder(w *world, t *testing.T) {
	for _, topic := range []string{"heartbeats", "west.checkpoints.internal"} {
		eventually(t, 20*time.Second, topic, func() error {
			if got := w.config("east", topic, "cleanup.policy"); got != "compact" {
				return fmt.Errorf("cleanup.policy is %q", got)
			}
			return nil
		})
	}
	log := s.d.log()
	for _, word := range []string{"it was not compacted: it is now", "more partitions than one"} {
		if !strings.Contains(log, word) {
			t.Errorf("the log does not say %q", word)
		}
	}
	for partition, records := range w.read("east", "west.checkpoints.internal") {
		if partition != 0 && len(records) > 0 {
			t.Errorf("%d checkpoints are in partition %d, where nobody reads them", len(records), partition)
		}
	}
}
