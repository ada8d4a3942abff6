package integration_test

import (
	"encoding/hex"
	"fmt"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"kmirror/checkpoint"
	"kmirror/internal/wire"
)

// manyFlows is the world of MirrorMaker 2's scenarios. East is Apache Kafka over
// TLS, as in MirrorConnectorsIntegrationSSLTest, the rest embedded; east and west
// mirror each other, the others have a setting each.
const manyFlows = `
clusters:
  east: {bootstrap: [{{addr "east-tls"}}], tls: {ca: east.pem}}
  west: {embedded: {nodes: [{{addr "west"}}]}}
  dash: {embedded: {nodes: [{{addr "dash"}}]}}
  under: {embedded: {nodes: [{{addr "under"}}]}}
  same: {embedded: {nodes: [{{addr "same"}}]}}
  late: {embedded: {nodes: [{{addr "late"}}]}}
flows:
  - {from: east, to: west, topics: ["mm-.*"], offset_syncs: source}
  - {from: west, to: east, topics: ["mm-.*"], offset_syncs: source}
  - {from: east, to: dash, topics: ["sep-.*"], separator: "-", offset_syncs: target}
  - {from: east, to: under, topics: ["sep-.*"], separator: "_", internal_separator: ".", offset_syncs: target}
  - {from: east, to: same, topics: ["same-.*"], naming: identity}
  - {from: east, to: late, topics: ["late-.*"], start: latest}
`

// TestMM2Formats is MirrorMaker 2's own classes reading what kmirror writes, and
// the scenarios of MirrorMaker 2's own tests by their names; the table of all of
// them is docs/mirrormaker2-tests.md.
func TestMM2Formats(t *testing.T) {
	w := newWorld(t)
	w.kafkaOverTLS("east", "log.cleaner.backoff.ms=200", "log.segment.delete.delay.ms=1000")
	// What was there before kmirror: a topic with records that nobody wants any
	// more, and internal topics that somebody made by hand.
	late := newHistory("late-orders", 2, 100)
	w.create("east", "late-orders", 2)
	w.write("east", late, 100)
	w.create("east", "heartbeats", 1, "cleanup.policy=delete")
	w.create("east", "west.checkpoints.internal", 3, "cleanup.policy=delete")
	compacted := newHistory("mm-compacted", 1, 100)
	w.create("east", "mm-compacted", 1, "cleanup.policy=compact", "segment.ms=100", "min.cleanable.dirty.ratio=0.01", "delete.retention.ms=100")
	w.keyed("east", compacted, 20, 20)
	time.Sleep(200 * time.Millisecond) // segment.ms
	w.keyed("east", compacted, 1, 1)

	java := w.mirrorTools()
	d := w.run("main", manyFlows)
	s := &mm2Story{d: d, java: java, late: late, compacted: compacted}
	tell := func(t *testing.T, name string, scenario func(*mm2Story, *world, *testing.T)) {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			scenario(s, w.in(t), t)
		})
	}
	t.Run("running", func(t *testing.T) {
		tell(t, "testSerde", (*mm2Story).serde)
		tell(t, "testReplication", (*mm2Story).replication)
		tell(t, "testReplicationWithEmptyPartition", (*mm2Story).emptyPartition)
		tell(t, "testNoCheckpointsIfNoRecordsAreMirrored", (*mm2Story).nothingMirrored)
		tell(t, "testOneWayReplicationWithAutoOffsetSync", (*mm2Story).oneWay)
		tell(t, "testOffsetTranslationBehindReplicationFlow", (*mm2Story).behindTheFlow)
		tell(t, "testReplicateFromLatest", (*mm2Story).fromLatest)
		tell(t, "testSyncTopicConfigs", (*mm2Story).topicConfigs)
		tell(t, "IdentityReplicationIntegrationTest", (*mm2Story).identityPolicy)
		tell(t, "MirrorConnectorsIntegrationTransactionsTest", (*mm2Story).transactional)
		tell(t, "compacted topics and tombstones", (*mm2Story).compactedTopic)
		tell(t, "partitions are added", (*mm2Story).partitionsAdded)
		tell(t, "a group on both sides", (*mm2Story).groupOnBothSides)
		tell(t, "internal topics in disorder", (*mm2Story).disorder)
		tell(t, "a target made anew", (*mm2Story).targetAnew)
	})
	t.Run("afterwards", func(t *testing.T) {
		tell(t, "testOffsetSyncsTopicsOnTarget", (*mm2Story).syncsOnTarget)
		tell(t, "testReplicationWithoutOffsetSyncWillNotCreateOffsetSyncsTopic", (*mm2Story).withoutSyncs)
		tell(t, "formatters", (*mm2Story).formatters)
		tell(t, "OffsetSyncStoreTest", (*mm2Story).offsetSyncStore)
	})
	t.Run("testReadCheckpointsTopic", func(t *testing.T) { s.foreignRecords(w.in(t), t) })
	t.Run("testRestartReplication", func(t *testing.T) { s.restart(w.in(t), t) })
}

// mm2Story is what its scenarios share.
type mm2Story struct {
	d               *daemon
	java            *mirrorTools
	late, compacted *history
}

// serde holds our bytes against those of MirrorMaker 2's classes, both ways.
func (s *mm2Story) serde(_ *world, t *testing.T) {
	for _, c := range []struct {
		kind, fields string
		record       wire.Record
		shown        string
	}{
		{"OffsetSync", "t 2 100 200", checkpoint.EncodeOffsetSync(checkpoint.OffsetSync{Topic: "t", Partition: 2, Upstream: 100, Downstream: 200}), "OffsetSync{topicPartition=t-2, upstreamOffset=100, downstreamOffset=200}"},
		{"OffsetSync", "orders 0 1099511627776 8589934597", checkpoint.EncodeOffsetSync(checkpoint.OffsetSync{Topic: "orders", Upstream: 1 << 40, Downstream: 1<<33 + 5}), "upstreamOffset=1099511627776, downstreamOffset=8589934597"},
		{"Checkpoint", "g A.t 2 100 200", checkpoint.EncodeCheckpoint(checkpoint.Checkpoint{Group: "g", Topic: "A.t", Partition: 2, Upstream: 100, Downstream: 200}), "Checkpoint{consumerGroupId=g, topicPartition=A.t-2, upstreamOffset=100, downstreamOffset=200, metadata=}"},
		{"Checkpoint", "grüße A.orders 11 1099511627776 8589934598 m1", checkpoint.EncodeCheckpoint(checkpoint.Checkpoint{Group: "grüße", Topic: "A.orders", Partition: 11, Upstream: 1 << 40, Downstream: 1<<33 + 6, Metadata: "m1"}), "consumerGroupId=grüße"},
		{"Heartbeat", "A B 1000", checkpoint.EncodeHeartbeat(checkpoint.Heartbeat{Source: "A", Target: "B", Millis: 1000}), "Heartbeat{sourceClusterAlias=A, targetClusterAlias=B, timestamp=1000}"},
		{"Heartbeat", "us-east eu-west 1700000000000", checkpoint.EncodeHeartbeat(checkpoint.Heartbeat{Source: "us-east", Target: "eu-west", Millis: 1700000000000}), "sourceClusterAlias=us-east"},
	} {
		key, value := hex.EncodeToString(c.record.Key), hex.EncodeToString(c.record.Value)
		only(t, s.java.ask(t, append([]string{"write", c.kind}, strings.Fields(c.fields)...)...), key, value)
		if shown := s.java.ask(t, "read", c.kind, key+"0102", value+"0102"); !strings.Contains(strings.Join(shown, ""), c.shown) { // trailing bytes are ignored
			t.Errorf("Java reads %q, want %q", shown, c.shown)
		}
	}
}

// replication: both ways, every utility, failover in each direction, a topic
// that comes later.
func (s *mm2Story) replication(w *world, t *testing.T) {
	for _, way := range [][2]string{{"east", "west"}, {"west", "east"}} {
		from, to := way[0], way[1]
		h := newHistory("mm-test", 3, 100)
		w.create(from, h.topic, 3, "cleanup.policy=delete", "segment.bytes=1048576")
		w.write(from, h, 20)
		w.expire(from, h.topic, 7) // so that offsets differ, unless they came over before
		w.write(from, h, 100)
		mirror := mirrorPlace{to, from + ".mm-test"}
		w.mirrored(from, h.topic, to, mirror.topic)
		first := w.consumeHere(from, h.topic, "mm-billing", map[int32]int{0: 11, 1: 40, 2: 113})
		here := mirrorPlace{from, h.topic}
		w.follows("mm-billing", here, mirror, func() map[int32]int64 {
			return s.java.offsets(t, mirror.topic, s.java.question("translateOffsets", "mm-billing", from, to)...)
		})
		w.follows("mm-billing", here, mirror, func() map[int32]int64 {
			return s.java.offsets(t, mirror.topic, s.java.question("remoteConsumerOffsets", "mm-billing", from, to)...)
		})
		w.followsTo("mm-billing", here, mirror)
		second := w.consumeHere(to, mirror.topic, "mm-billing", nil)
		for partition := range int32(3) {
			got := append(append([]int{}, first[partition]...), second[partition]...)
			for i, number := range got {
				if number != got[0]+i {
					t.Fatalf("%s, partition %d: record %d after %d", mirror.topic, partition, number, got[i-1])
				}
			}
			if last := got[len(got)-1]; last != 119 {
				t.Errorf("%s, partition %d: the group ended at record %d, want 119", mirror.topic, partition, last)
			}
		}
		eventually(t, 20*time.Second, "the heartbeats of "+from+" in "+to, func() error {
			lines, err := s.java.try(append([]string{"upstreamClusters"}, s.java.of(to)...)...)
			if err == nil && !strings.Contains(strings.Join(lines, " "), from) {
				err = fmt.Errorf("only of %q", lines)
			}
			return err
		})
		only(t, s.java.ask(t, append([]string{"upstreamClusters"}, s.java.of(to)...)...), from)
		has(t, s.java.ask(t, append([]string{"heartbeatTopics"}, s.java.of(to)...)...), "heartbeats", from+".heartbeats")
		has(t, s.java.ask(t, append([]string{"checkpointTopics"}, s.java.of(to)...)...), from+".checkpoints.internal")
		only(t, s.java.ask(t, append([]string{"replicationHops", from}, s.java.of(to)...)...), "1")
		only(t, s.java.ask(t, append([]string{"replicationHops", "nobody"}, s.java.of(to)...)...), "-1")
		has(t, s.java.ask(t, append([]string{"remoteTopics", from}, s.java.of(to)...)...), from+".mm-test", from+".heartbeats")
	}
	h := newHistory("mm-later", 2, 100)
	w.create("east", h.topic, 2)
	w.writeTo("east", h, 1, 30)
	w.exact(h, "east", "west", "east.mm-later")
}

// emptyPartition: a group that waits at the start of an empty partition waits
// there in the target.
func (s *mm2Story) emptyPartition(w *world, t *testing.T) {
	h := newHistory("mm-empty", 3, 100)
	w.create("east", h.topic, 3)
	w.writeTo("east", h, 0, 10)
	w.writeTo("east", h, 1, 10)
	w.mirrored("east", h.topic, "west", "east.mm-empty")
	w.commit("east", "mm-empty-group", h.topic, map[int32]int64{0: 10, 1: 10, 2: 0})
	w.followsTo("mm-empty-group", mirrorPlace{"east", h.topic}, mirrorPlace{"west", "east.mm-empty"})
	if got := w.committed(w.admin("west"), "mm-empty-group", "east.mm-empty")[2]; got != 0 {
		t.Errorf("the empty partition's offset is %d, want 0", got)
	}
}

// nothingMirrored: a group on a topic of which nothing is mirrored is never sent
// beyond what is there, and follows when records come.
func (s *mm2Story) nothingMirrored(w *world, t *testing.T) {
	h := newHistory("mm-nothing", 1, 100)
	w.create("east", h.topic, 1)
	w.write("east", h, 5)
	w.mirrored("east", h.topic, "west", "east.mm-nothing")
	empty := newHistory("mm-nothing-yet", 1, 100)
	w.create("east", empty.topic, 1)
	w.commit("east", "mm-nothing-group", empty.topic, map[int32]int64{0: 0})
	w.commit("east", "mm-nothing-group", h.topic, map[int32]int64{0: 5})
	w.followsTo("mm-nothing-group", mirrorPlace{"east", h.topic}, mirrorPlace{"west", "east.mm-nothing"})
	if at, ok := s.java.offsets(t, "east.mm-nothing-yet", s.java.question("translateOffsets", "mm-nothing-group", "east", "west")...)[0]; ok && at != 0 {
		t.Errorf("a group of an empty topic is sent to %d", at)
	}
	w.write("east", empty, 10)
	w.mirrored("east", empty.topic, "west", "east.mm-nothing-yet")
	w.commit("east", "mm-nothing-group", empty.topic, map[int32]int64{0: 7})
	w.follows("mm-nothing-group", mirrorPlace{"east", empty.topic}, mirrorPlace{"west", "east.mm-nothing-yet"}, func() map[int32]int64 {
		return s.java.offsets(t, "east.mm-nothing-yet", s.java.question("translateOffsets", "mm-nothing-group", "east", "west")...)
	})
}

// behindTheFlow: a group far behind what is mirrored is translated all the same,
// forwards, then back when it goes back; also to offsets older than any sync.
func (s *mm2Story) behindTheFlow(w *world, t *testing.T) {
	h := newHistory("mm-behind", 1, 20)
	w.create("east", h.topic, 1)
	for range 10 {
		w.write("east", h, 100)
	}
	w.mirrored("east", h.topic, "west", "east.mm-behind")
	for _, offset := range []int64{900, 100, 1} {
		w.commit("east", "mm-behind-group", h.topic, map[int32]int64{0: offset})
		w.follows("mm-behind-group", mirrorPlace{"east", h.topic}, mirrorPlace{"west", "east.mm-behind"}, func() map[int32]int64 {
			return s.java.offsets(t, "east.mm-behind", s.java.question("translateOffsets", "mm-behind-group", "east", "west")...)
		})
		w.followsTo("mm-behind-group", mirrorPlace{"east", h.topic}, mirrorPlace{"west", "east.mm-behind"})
	}
}

// transactional: markers and aborted records make holes in the source's offsets.
func (s *mm2Story) transactional(w *world, t *testing.T) {
	h := newHistory("mm-payments", 2, 100)
	w.create("east", h.topic, 2)
	w.transactions("east", h, 30)
	w.exact(h, "east", "west", "east.mm-payments")
	ends := w.ends(w.admin("east"), h.topic)
	here, there := mirrorPlace{"east", h.topic}, mirrorPlace{"west", "east.mm-payments"}
	for _, part := range []int64{3, 2, 1} { // every part is back: what MirrorMaker 2 calls a rewind
		w.commit("east", "mm-payments-group", h.topic, map[int32]int64{0: ends[0] * part / 3, 1: ends[1] * part / 3})
		w.followsTo("mm-payments-group", here, there)
		w.follows("mm-payments-group", here, there, func() map[int32]int64 {
			return s.java.offsets(t, there.topic, s.java.question("translateOffsets", "mm-payments-group", "east", "west")...)
		})
	}
}

// groupOnBothSides: a group that is at work in the target is not moved under its
// members, but its checkpoints go on.
func (s *mm2Story) groupOnBothSides(w *world, t *testing.T) {
	h := newHistory("mm-both", 1, 100)
	w.create("east", h.topic, 1)
	w.write("east", h, 50)
	here, there := mirrorPlace{"east", h.topic}, mirrorPlace{"west", "east.mm-both"}
	w.mirrored(here.cluster, here.topic, there.cluster, there.topic)
	w.commit("east", "mm-both-group", h.topic, map[int32]int64{0: 10})
	w.followsTo("mm-both-group", here, there)
	member := w.client("west", kgo.ConsumerGroup("mm-both-group"), kgo.ConsumeTopics(there.topic), kgo.DisableAutoCommit())
	ctx := w.ctx(30 * time.Second)
	got := 0
	for got < 40 {
		fetches := member.PollFetches(ctx)
		if err := fetches.Err(); err != nil {
			t.Fatal(err)
		}
		got += fetches.NumRecords()
	}
	if got != 40 {
		t.Errorf("the member read %d records, want 40", got)
	}
	w.commit("east", "mm-both-group", h.topic, map[int32]int64{0: 23})
	w.follows("mm-both-group", here, there, func() map[int32]int64 {
		return s.java.offsets(t, there.topic, s.java.question("translateOffsets", "mm-both-group", "east", "west")...)
	})
	time.Sleep(1500 * time.Millisecond) // three looks at the groups
	if at := w.committed(w.admin("west"), "mm-both-group", there.topic)[0]; at != 10 {
		t.Errorf("a group with a member was moved to %d", at)
	}
	member.Close()
	w.followsTo("mm-both-group", here, there)
}

// formatters: the console consumer shows what stands in each topic.
func (s *mm2Story) formatters(w *world, t *testing.T) {
	for _, c := range []struct{ formatter, cluster, topic, shows string }{
		{"CheckpointFormatter", "west", "east.checkpoints.internal", "Checkpoint{consumerGroupId=mm-billing, topicPartition=east.mm-test-0, upstreamOffset="},
		{"CheckpointFormatter", "east", "west.checkpoints.internal", "Checkpoint{consumerGroupId=mm-billing, topicPartition=west.mm-test-0, upstreamOffset="},
		{"HeartbeatFormatter", "west", "heartbeats", "Heartbeat{sourceClusterAlias=east, targetClusterAlias=west, timestamp="},
		{"HeartbeatFormatter", "west", "east.heartbeats", "Heartbeat{sourceClusterAlias=west, targetClusterAlias=east, timestamp="},
		{"OffsetSyncFormatter", "east", "mm2-offset-syncs.west.internal", "OffsetSync{topicPartition=mm-behind-0, upstreamOffset=999, downstreamOffset=999}"},
		{"OffsetSyncFormatter", "dash", "mm2-offset-syncs-east-internal", "OffsetSync{topicPartition=sep-one-0, upstreamOffset=59, downstreamOffset=59}"},
	} {
		eventually(t, 20*time.Second, c.formatter+" of "+c.topic, func() error {
			n := w.ends(w.admin(c.cluster), c.topic)[0]
			lines, err := s.java.try(append([]string{"console", c.formatter, c.topic, strconv.FormatInt(n, 10)}, s.java.of(c.cluster)...)...)
			if err != nil {
				return err
			}
			for _, line := range lines {
				if strings.HasPrefix(line, c.shows) {
					t.Logf("%s of %s, %d lines, one of them:\n\t%s", c.formatter, c.topic, len(lines), line)
					return nil
				}
			}
			return fmt.Errorf("%d lines, none like %s: %.300q", len(lines), c.shows, lines)
		})
	}
}

// foreignRecords: what others wrote into the checkpoints topic disturbs neither
// kmirror nor Java's reader.
func (s *mm2Story) foreignRecords(w *world, t *testing.T) {
	client := w.client("west", kgo.RecordPartitioner(kgo.ManualPartitioner()), kgo.DefaultProduceTopic("east.checkpoints.internal"))
	for _, r := range []*kgo.Record{
		{Key: []byte("key"), Value: []byte("value")}, {Key: []byte{0, 9}, Value: []byte{0}}, {Key: []byte{0x7f, 0xff, 1}, Value: []byte{0, 0, 1, 2, 3}},
	} {
		if err := client.ProduceSync(w.ctx(20*time.Second), r).FirstErr(); err != nil {
			t.Fatal(err)
		}
	}
	s.d.stop(20 * time.Second)
	s.d.start()
	s.d.ready(readyWithin)
	eventually(t, 20*time.Second, "a word about foreign records", func() error {
		if log := s.d.log(); !strings.Contains(log, "records that cannot be read") || !strings.Contains(log, "east.checkpoints.internal/0@") {
			return fmt.Errorf("none")
		}
		return nil
	})
	w.follows("mm-behind-group", mirrorPlace{"east", "mm-behind"}, mirrorPlace{"west", "east.mm-behind"}, func() map[int32]int64 {
		return s.java.offsets(t, "east.mm-behind", s.java.question("translateOffsets", "mm-behind-group", "east", "west")...)
	})
}

// restart: more data and more reading after a stop and a kill; groups are in step
// and no checkpoint went back.
func (s *mm2Story) restart(w *world, t *testing.T) {
	h := newHistory("mm-restart", 2, 100)
	w.create("east", h.topic, 2)
	w.write("east", h, 50)
	w.mirrored("east", h.topic, "west", "east.mm-restart")
	here, there := mirrorPlace{"east", h.topic}, mirrorPlace{"west", "east.mm-restart"}
	syncs := int64(0)
	for round, end := range []func(){func() { s.d.stop(20 * time.Second) }, func() { s.d.kill() }} {
		w.consumeHere("east", h.topic, "mm-restart-group", map[int32]int{0: 20, 1: 13})
		w.followsTo("mm-restart-group", here, there)
		if round == 1 {
			syncs = w.ends(w.admin("east"), "mm2-offset-syncs.west.internal")[0]
		}
		end()
		w.write("east", h, 10)
		s.d.start()
		s.d.ready(readyWithin)
		w.exact(h, "east", "west", "east.mm-restart")
	}
	if n := w.ends(w.admin("east"), "mm2-offset-syncs.west.internal")[0] - syncs; n > 30 {
		t.Errorf("%d offset syncs were written after a restart: those that stood there, once more", n)
	}
	w.followsTo("mm-restart-group", here, there)
	last := map[string]int64{}
	for _, r := range w.read("west", "east.checkpoints.internal")[0] {
		c, err := checkpoint.DecodeCheckpoint(wire.Record{Key: r.Key, Value: r.Value})
		if err != nil || c.Group != "mm-restart-group" {
			continue
		}
		at := fmt.Sprint(c.Topic, c.Partition)
		if c.Downstream < last[at] {
			t.Errorf("%s: a checkpoint goes back from %d to %d", at, last[at], c.Downstream)
		}
		last[at] = c.Downstream
	}
}
