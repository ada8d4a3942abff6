package integration_test

import (
	"bytes"
	"fmt"
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"
)

// troubles is one mirror for all that can happen to topics: east, an embedded
// cluster, flows to west, Apache Kafka on three nodes, as a user with rights
// that can be taken away, and from there to south. A witness of both flows is
// written to all the time: other topics' trouble must not hold it up.
type troubles struct {
	*world
	c       *cluster
	mirror  *daemon // for the trouble that is told
	owner   *daemon // the same, for as long as all of them
	tag     string
	witness *history
	load    *load
}

const troublesMirror = `
clusters:
  east: {bootstrap: [{{addr "east"}}], client_id: troubles}
  west: {bootstrap: [{{addr "west-sasl"}}], client_id: troubles, sasl: {mechanism: plain, user: kmirror, password: secret}}
  south: {bootstrap: [{{addr "south"}}], client_id: troubles}
flows:
  - from: east
    to: west
    topics: ["t-TAG-.*"]
    heartbeats: false
    # A target topic whose limit would follow the source's would take every record.
    configs: {exclude: ["max\\.message\\.bytes", "min\\.insync\\.replicas", "unclean\\.leader\\.election\\.enable"]}
    topic_rules:
      - {topics: [".*-park"], policies: {record_too_large: park}}
      - {topics: [".*-letter"], policies: {record_too_large: dead_letter}}
      - {topics: [".*-continue"], policies: {retention_loss: continue, source_truncated: continue}}
      - {topics: [".*-begin"], policies: {source_recreated: begin}}
      - {topics: [".*-gone-stop"], policies: {target_deleted: stop}}
      - {topics: [".*-alone"], policies: {foreign_writes: stop}}
      - {topics: [".*-drift-report"], policies: {config_drift: report}}
  - from: west
    to: south
    topics: ["u-TAG-.*"]
    heartbeats: false
    topic_rules:
      - {topics: [".*-continue"], policies: {source_truncated: continue}}
`

// TestTroubles lets everything happen that mirror.yaml has a policy for, and
// some more, to one mirror. Each trouble is one topic's own, ends as the policy
// says, and stands in the list of incidents.
func TestTroubles(t *testing.T) {
	w := newWorld(t)
	x := &troubles{world: w, tag: w.unique("x")[2:]}
	x.c = w.cluster("west")
	w.run("source", plainSource)
	south := w.daemon("south-broker", `
clusters:
  south: {embedded: {nodes: [{{addr "south"}}]}}
`)
	mountSmall(t, south.dataDir(), "48m")
	south.start()
	south.ready(readyWithin)
	x.witness = newHistory(x.topic("witness"), 2, 200)
	w.create("east", x.witness.topic, 2)
	x.owner = w.run("mirror", strings.ReplaceAll(troublesMirror, "TAG", x.tag))
	x.load = w.load("east", x.witness, 200)

	told := 0
	all := []struct {
		name string
		tell func(*troubles)
	}{
		{"before other configs", (*troubles).drift},
		{"a record too large: raise", (*troubles).tooLargeRaise},
		{"a record too large: park", (*troubles).tooLargePark},
		{"a record too large: dead letter", (*troubles).tooLargeLetter},
		{"a right is taken away", (*troubles).unauthorized},
		{"a partition is missing", (*troubles).missing},
		{"target topic deleted: recreate", (*troubles).targetDeleted},
		{"target topic deleted: stop", (*troubles).targetDeletedStop},
		{"source topic created anew: stop", (*troubles).sourceRecreated},
		{"source topic created anew: begin", (*troubles).sourceRecreatedBegin},
		{"somebody else writes: report", (*troubles).foreignReport},
		{"somebody else writes: stop", (*troubles).foreignStop},
		{"other configs: repair", (*troubles).driftRepair},
		{"other configs: report", (*troubles).driftReport},
		{"a quota", (*troubles).quota},
		{"retention overtakes", (*troubles).retention},
		{"the target's disk is full", (*troubles).fullDisk},
		{"unclean elections", (*troubles).unclean},
	}
	for _, trouble := range all {
		t.Run(trouble.name, func(t *testing.T) {
			told++
			began := time.Now()
			trouble.tell(&troubles{world: w.in(t), c: x.c, mirror: x.owner.in(t), owner: x.owner, tag: x.tag, witness: x.witness, load: x.load})
			w.goesOn("west", "east."+x.witness.topic, 5)
			t.Log(time.Since(began).Round(10 * time.Millisecond))
		})
	}
	x.load.finish()
	w.exact(x.witness, "east", "west", "east."+x.witness.topic)
	incidents, err := x.owner.incidents()
	if err != nil {
		t.Fatal(err)
	}
	seen := map[string]int{}
	for _, in := range incidents {
		seen[in.Kind]++
		if in.Topic == x.witness.topic && in.Kind != "fenced" {
			t.Errorf("an incident of the witness: %+v", in)
		}
	}
	t.Logf("%d incidents: %v\n%s", len(incidents), seen, x.owner.mustKmirror("incidents"))
	for _, kind := range []string{
		"record-too-large", "dead-letter", "authorization", "target-deleted", "source-recreated", "foreign-write",
		"config-drift", "retention-loss", "source-truncated", "target-truncated", "out-of-disk",
		"target-partition-missing",
	} {
		if seen[kind] == 0 && told == len(all) {
			t.Errorf("no incident of the kind %s", kind)
		}
	}
}

// in is the same daemon for a subtest.
func (d *daemon) in(t testing.TB) *daemon {
	other := *d
	w := *d.w
	w.t = t
	other.w = &w
	return &other
}

func (x *troubles) topic(name string) string { return "t-" + x.tag + "-" + name }

// begin makes a topic in east with some records and waits for its copy.
func (x *troubles) begin(name string, records int, configs ...string) *history {
	x.t.Helper()
	h := newHistory(x.topic(name), 1, 300)
	x.create("east", h.topic, 1, configs...)
	x.write("east", h, records)
	x.mirrored("east", h.topic, "west", "east."+h.topic)
	return h
}

// large writes one record of a megabyte and a half, which no dictionary makes
// smaller.
func (x *troubles) large(h *history) *kgo.Record {
	x.t.Helper()
	client := x.client("east", kgo.ProducerBatchMaxBytes(4<<20), kgo.ProducerBatchCompression(kgo.NoCompression()), kgo.RecordPartitioner(kgo.ManualPartitioner()))
	r := &kgo.Record{Topic: h.topic, Key: []byte("large"), Value: noise(3 << 19), Timestamp: started()}
	if err := client.ProduceSync(x.ctx(20*time.Second), r).FirstErr(); err != nil {
		x.t.Fatal(err)
	}
	return r
}

// whole fails the test unless our numbered records are in the mirror once, in
// order, unchanged; strangers and large records may be there too.
func (x *troubles) whole(h *history) {
	x.t.Helper()
	x.mirroredAtLeast("west", "east."+h.topic, h)
	if v := h.check(x.ours("west", "east."+h.topic)); !v.ok() {
		x.t.Errorf("%s:\n%s", h.topic, v)
	}
}

// larges are the large records among a topic's.
func (x *troubles) larges(cluster, topic string) (found []*kgo.Record) {
	x.t.Helper()
	for _, log := range x.read(cluster, topic) {
		for _, r := range log {
			if string(r.Key) == "large" {
				found = append(found, r)
			}
		}
	}
	return found
}

func (x *troubles) tooLargeRaise() {
	h := x.begin("raise", 100, "max.message.bytes=4000000")
	large := x.large(h)
	x.write("east", h, 100)
	x.whole(h)
	if got := x.larges("west", "east."+h.topic); len(got) != 1 || difference(large, got[0]) != "" {
		x.t.Errorf("%d large records in the target, want the one", len(got))
	}
	in := x.mirror.incident("record-too-large", h.topic)
	if in.SourceOffset != 100 || !strings.Contains(in.Action, "raised") {
		x.t.Errorf("%+v", in)
	}
}

func (x *troubles) tooLargePark() {
	h := x.begin("park", 100, "max.message.bytes=4000000")
	x.large(h)
	x.write("east", h, 100)
	if in := x.mirror.incident("record-too-large", h.topic); in.SourceOffset != 100 {
		x.t.Errorf("%+v", in)
	}
	x.mirror.becomes("stopped", h.topic, 0)
	if n := count(x.read("west", "east."+h.topic)); n != 100 {
		x.t.Errorf("%d records in the target, want the 100 before the large one", n)
	}
	// The operator raises the limit, and it goes on.
	x.alter("west", "east."+h.topic, "max.message.bytes=4000000")
	x.mirror.mustKmirror("resume", "east->west", h.topic)
	x.whole(h)
	if got := x.larges("west", "east."+h.topic); len(got) != 1 {
		x.t.Errorf("%d large records in the target, want one", len(got))
	}
}

func (x *troubles) tooLargeLetter() {
	h := x.begin("letter", 100, "max.message.bytes=4000000")
	large := x.large(h)
	x.write("east", h, 100)
	x.whole(h)
	if got := x.larges("west", "east."+h.topic); len(got) != 0 {
		x.t.Errorf("%d large records in the target, want none", len(got))
	}
	letters := x.larges("west", "east."+h.topic+".dead-letter")
	if len(letters) != 1 || !bytes.Equal(letters[0].Value, large.Value) {
		x.t.Fatalf("%d letters, want the one", len(letters))
	}
	headers := map[string]string{}
	for _, header := range letters[0].Headers {
		headers[header.Key] = string(header.Value)
	}
	if headers["kmirror.source.topic"] != h.topic || headers["kmirror.source.offset"] != "100" || headers["kmirror.cause"] == "" {
		x.t.Errorf("headers of the letter: %v", headers)
	}
	if in := x.mirror.incident("dead-letter", h.topic); in.SourceOffset != 100 || in.Count != 1 {
		x.t.Errorf("%+v", in)
	}
}

// denied forbids the mirror's user one thing about a topic while do runs, and
// nothing else: where there is any rule, what none allows is forbidden too.
func (x *troubles) denied(topic string, operation kadm.ACLOperation, do func()) {
	x.t.Helper()
	admin := x.admin("west")
	rules := func() []*kadm.ACLBuilder {
		on := func() *kadm.ACLBuilder {
			return kadm.NewACLs().Topics(topic).ResourcePatternType(kadm.ACLPatternLiteral)
		}
		return []*kadm.ACLBuilder{
			on().Allow("User:" + saslUser).AllowHosts("*").Operations(kadm.OpAll),
			on().Deny("User:" + saslUser).DenyHosts("*").Operations(operation),
		}
	}
	for _, rule := range rules() {
		if _, err := admin.CreateACLs(x.ctx(20*time.Second), rule); err != nil {
			x.t.Fatal(err)
		}
	}
	defer func() {
		x.t.Helper()
		for _, rule := range rules() {
			if _, err := admin.DeleteACLs(x.ctx(20*time.Second), rule); err != nil {
				x.t.Fatal(err)
			}
		}
	}()
	do()
}

// unauthorized takes away rights at the target, at the source, and on the ledger.
func (x *troubles) unauthorized() {
	into := x.begin("denied", 100)
	x.denied("east."+into.topic, kadm.OpWrite, func() {
		x.waits("east", into)
		if in := x.mirror.incident("authorization", into.topic); !strings.Contains(in.Detail, "WRITE") {
			x.t.Errorf("%+v", in)
		}
		x.goesOn("west", "east."+x.witness.topic, 20)
	})
	x.exact(into, "east", "west", "east."+into.topic)

	from := newHistory("u-"+x.tag+"-denied", 1, 300)
	x.createReplicated("west", from.topic, 1, 3)
	x.write("west", from, 100)
	x.mirrored("west", from.topic, "south", "west."+from.topic)
	x.denied(from.topic, kadm.OpRead, func() {
		x.waits("west", from)
		x.mirror.incident("authorization", from.topic)
	})
	x.exact(from, "west", "south", "west."+from.topic)

	x.denied("__kmirror_offset_map", kadm.OpWrite, func() {
		time.Sleep(time.Second)
		x.write("east", into, 100)
		time.Sleep(2 * time.Second)
	})
	x.exact(into, "east", "west", "east."+into.topic)
}

// waits writes until the partition has to wait.
func (x *troubles) waits(cluster string, h *history) {
	x.t.Helper()
	eventually(x.t, 30*time.Second, h.topic+" waits", func() error {
		x.write(cluster, h, 5)
		if state, full := x.mirror.partition(h.topic, 0); state != "waiting" {
			return fmt.Errorf("it is %s", full)
		}
		return nil
	})
}

// missing lets a source topic grow where the mirror may not extend its copy.
func (x *troubles) missing() {
	h := x.begin("grown", 50)
	x.denied("east."+h.topic, kadm.OpAlter, func() {
		if _, err := x.admin("east").CreatePartitions(x.ctx(20*time.Second), 1, h.topic); err != nil {
			x.t.Fatal(err)
		}
		h.fates[1] = nil
		eventually(x.t, 20*time.Second, "two partitions in east", func() error {
			if n := len(x.ends(x.admin("east"), h.topic)); n != 2 {
				return fmt.Errorf("%d", n)
			}
			return nil
		})
		x.write("east", h, 50)
		x.mirror.incident("target-partition-missing", h.topic)
		eventually(x.t, 20*time.Second, "the partition that has a place", func() error {
			if n := len(x.read("west", "east."+h.topic)[0]); n != 100 {
				return fmt.Errorf("%d records", n)
			}
			return nil
		})
	})
	x.exact(h, "east", "west", "east."+h.topic)
}

func (x *troubles) delete(cluster, topic string) {
	x.t.Helper()
	deleted, err := x.admin(cluster).DeleteTopics(x.ctx(30*time.Second), topic)
	if err == nil {
		err = deleted.Error()
	}
	if err != nil {
		x.t.Fatalf("delete %s in %s: %v", topic, cluster, err)
	}
}

func (x *troubles) targetDeleted() {
	h := x.begin("gone", 300)
	x.delete("west", "east."+h.topic)
	x.write("east", h, 50)
	x.mirror.incident("target-deleted", h.topic)
	x.exact(h, "east", "west", "east."+h.topic)
}

func (x *troubles) targetDeletedStop() {
	h := x.begin("gone-stop", 300)
	x.delete("west", "east."+h.topic)
	x.write("east", h, 50)
	x.mirror.incident("target-deleted", h.topic)
	eventually(x.t, 40*time.Second, "the topic stopped", func() error {
		if why := x.mirror.topicError(h.topic); !strings.Contains(why, "stopped, by policy") {
			return fmt.Errorf("its error is %q", why)
		}
		return nil
	})
	if ends := x.ends(x.admin("west"), "east."+h.topic); ends != nil {
		x.t.Errorf("the target topic was made anew: it ends at %v", ends)
	}
	x.mirror.mustKmirror("resume", "east->west", h.topic, "--accept", "target-deleted")
	x.exact(h, "east", "west", "east."+h.topic)
}

// recreate deletes the source topic and makes another of its name.
func (x *troubles) recreate(name string) (before, after *history) {
	before = x.begin(name, 300)
	x.delete("east", before.topic)
	after = newHistory(before.topic, 1, 250)
	eventually(x.t, 20*time.Second, "the name is free", func() error {
		_, err := x.admin("east").CreateTopic(x.ctx(10*time.Second), 1, 1, nil, after.topic)
		return err
	})
	x.write("east", after, 120)
	return before, after
}

func (x *troubles) sourceRecreated() {
	h, _ := x.recreate("anew")
	x.mirror.incident("source-recreated", h.topic)
	x.mirror.becomes("stopped", h.topic, 0)
	if v := h.check(x.read("west", "east."+h.topic)); !v.ok() {
		x.t.Errorf("the copy of the old topic:\n%s", v)
	}
}

func (x *troubles) sourceRecreatedBegin() {
	before, after := x.recreate("anew-begin")
	x.mirror.incident("source-recreated", before.topic)
	var log []*kgo.Record
	eventually(x.t, 40*time.Second, "both topics' records", func() error {
		log = x.read("west", "east."+before.topic)[0]
		if len(log) < 420 {
			_, full := x.mirror.partition(before.topic, 0)
			return fmt.Errorf("%d records; it is %s", len(log), full)
		}
		return nil
	})
	if v := before.check(map[int32][]*kgo.Record{0: log[:300]}); !v.ok() {
		x.t.Errorf("the old topic's records:\n%s", v)
	}
	if v := after.check(map[int32][]*kgo.Record{0: log[300:]}); !v.ok() {
		x.t.Errorf("the new topic's records:\n%s", v)
	}
}

// stranger writes to the copy.
func (x *troubles) stranger(h *history) {
	x.t.Helper()
	client := x.client("west", kgo.DefaultProduceTopic("east."+h.topic))
	if err := client.ProduceSync(x.ctx(20*time.Second), &kgo.Record{Value: []byte("stranger")}).FirstErr(); err != nil {
		x.t.Fatal(err)
	}
}

func (x *troubles) foreignReport() {
	h := x.begin("strange", 100)
	x.stranger(h)
	x.write("east", h, 100)
	x.whole(h)
	if in := x.mirror.incident("foreign-write", h.topic); in.TargetOffset < 100 || in.Count != 1 {
		x.t.Errorf("%+v", in)
	}
}

func (x *troubles) foreignStop() {
	h := x.begin("alone", 100)
	x.stranger(h)
	x.write("east", h, 1)
	x.mirror.incident("foreign-write", h.topic)
	x.mirror.becomes("stopped", h.topic, 0)
	x.write("east", h, 100)
	x.mirror.mustKmirror("resume", "east->west", h.topic, "--accept", "foreign-write")
	x.whole(h)
}

func (x *troubles) alter(cluster, topic string, configs ...string) {
	x.t.Helper()
	var changes []kadm.AlterConfig
	for _, config := range configs {
		key, value, _ := strings.Cut(config, "=")
		changes = append(changes, kadm.AlterConfig{Name: key, Value: &value})
	}
	if _, err := x.admin(cluster).AlterTopicConfigs(x.ctx(20*time.Second), changes, topic); err != nil {
		x.t.Fatal(err)
	}
}

// config is one config of a topic.
func (x *troubles) config(cluster, topic, key string) string {
	x.t.Helper()
	described, err := x.admin(cluster).DescribeTopicConfigs(x.ctx(20*time.Second), topic)
	if err != nil {
		x.t.Fatal(err)
	}
	for _, resource := range described {
		for _, c := range resource.Configs {
			if c.Key == key && c.Value != nil {
				return *c.Value
			}
		}
	}
	return ""
}

// drift makes the two topics whose configs will be changed at the target. To be
// somebody's doing, a difference must come after both sides once agreed: hence
// it is the first of all troubles.
func (x *troubles) drift() {
	x.begin("drift", 10, "retention.ms=86400000")
	x.begin("drift-report", 10, "retention.ms=86400000")
}

func (x *troubles) driftRepair() {
	topic := x.topic("drift")
	x.alter("west", "east."+topic, "retention.ms=7200000")
	x.mirror.incident("config-drift", topic)
	eventually(x.t, 30*time.Second, "the source's retention at the target", func() error {
		if got := x.config("west", "east."+topic, "retention.ms"); got != "86400000" {
			return fmt.Errorf("%s", got)
		}
		return nil
	})
}

func (x *troubles) driftReport() {
	topic := x.topic("drift-report")
	x.alter("west", "east."+topic, "retention.ms=7200000")
	x.mirror.incident("config-drift", topic)
	if got := x.config("west", "east."+topic, "retention.ms"); got != "7200000" {
		x.t.Errorf("retention.ms at the target is %s: only to be reported, and repaired all the same", got)
	}
}

// quota gives the mirror a fifth of a megabyte a second. It is heeded: nothing
// fails, nothing is lost, it only takes its time.
func (x *troubles) quota() {
	h := newHistory(x.topic("quota"), 1, 2000)
	x.create("east", h.topic, 1)
	client := "troubles"
	admin := x.admin("west")
	set := func(remove bool) {
		x.t.Helper()
		altered, err := admin.AlterClientQuotas(x.ctx(20*time.Second), []kadm.AlterClientQuotaEntry{{
			Entity: kadm.ClientQuotaEntity{{Type: "client-id", Name: &client}},
			Ops:    []kadm.AlterClientQuotaOp{{Key: "producer_byte_rate", Value: 200_000, Remove: remove}},
		}})
		if err == nil {
			err = altered[0].Err
		}
		if err != nil {
			x.t.Fatal(err)
		}
	}
	set(false)
	defer set(true)
	time.Sleep(time.Second) // the brokers hear of it
	began := time.Now()
	x.write("east", h, 600, kgo.ProducerBatchCompression(kgo.NoCompression()), kgo.ProducerBatchMaxBytes(50_000))
	x.mirroredAtLeast("west", "east."+h.topic, h)
	// A broker looks at three windows of a second; the partition's leader alone counts.
	if took := time.Since(began); took < 3*time.Second {
		x.t.Errorf("1.2 MB at 0.2 MB/s took %v: the quota is not heeded", took)
	} else {
		x.t.Logf("1.2 MB at 0.2 MB/s took %v", took)
	}
	if state, full := x.mirror.partition(h.topic, 0); state != "mirroring" {
		x.t.Errorf("it is %s", full)
	}
	set(true)
	x.exact(h, "east", "west", "east."+h.topic)
}

// retention deletes records while the mirror is away.
func (x *troubles) retention() {
	stop, goOn := x.begin("expired", 100), x.begin("expired-continue", 100)
	x.mirror.stop(30 * time.Second)
	for _, h := range []*history{stop, goOn} {
		x.write("east", h, 100)
		x.expire("east", h.topic, 137)
		x.write("east", h, 100)
	}
	x.owner.start()
	x.owner.ready(readyWithin)
	for _, h := range []*history{stop, goOn} {
		if in := x.mirror.incident("retention-loss", h.topic); in.SourceOffset != 100 || in.Count != 37 {
			x.t.Errorf("%+v", in)
		}
	}
	x.mirror.becomes("stopped", stop.topic, 0)
	eventually(x.t, 40*time.Second, "what is left", func() error {
		v := goOn.check(x.read("west", "east."+goOn.topic))
		if len(v.lost) != 37 || len(v.doubled)+len(v.changed)+len(v.reordered)+len(v.alien) > 0 {
			return fmt.Errorf("%s", v)
		}
		return nil
	})
	if n := count(x.read("west", "east."+stop.topic)); n != 100 {
		x.t.Errorf("stopped, and %d records in the target, were 100", n)
	}
	x.mirror.mustKmirror("resume", "east->west", stop.topic, "--accept", "retention-loss")
	eventually(x.t, 40*time.Second, "what is left, once it is accepted", func() error {
		if n := count(x.read("west", "east."+stop.topic)); n != 263 {
			return fmt.Errorf("%d records, want 263", n)
		}
		return nil
	})
}

// fullDisk fills south's disk by mirroring into it.
func (x *troubles) fullDisk() {
	h := newHistory("u-"+x.tag+"-disk", 1, 20_000)
	x.createReplicated("west", h.topic, 1, 3)
	x.write("west", h, 3500, kgo.ProducerBatchCompression(kgo.NoCompression()))
	x.mirror.incident("out-of-disk", h.topic)
	dir := x.dir + "/south-broker-data"
	if out, err := exec.Command("mount", "-o", "remount,size=256m", dir).CombinedOutput(); err != nil {
		x.t.Fatalf("%v: %s", err, out)
	}
	x.exact(h, "west", "south", "west."+h.topic)
}

// unclean lets a replica become leader that lacks the newest records: of a
// topic that is mirrored away, twice, and of one that is mirrored into.
func (x *troubles) unclean() {
	t := x.t
	admin := x.admin("west")
	behind, leader := x.c.nodes[0], x.c.nodes[1]
	place := func(topic string) {
		t.Helper()
		req := kadm.AlterPartitionAssignmentsReq{}
		req.Assign(topic, 0, []int32{leader.id, behind.id})
		if _, err := admin.AlterPartitionAssignments(x.ctx(20*time.Second), req); err != nil {
			t.Fatal(err)
		}
		eventually(t, 30*time.Second, topic+" on two nodes", func() error {
			topics, err := admin.ListTopics(x.ctx(5*time.Second), topic)
			if err != nil {
				return err
			}
			p := topics[topic].Partitions[0]
			if p.Leader != leader.id {
				_, _ = admin.ElectLeaders(x.ctx(5*time.Second), kadm.ElectPreferredReplica, kadm.TopicsSet{topic: {0: {}}})
			}
			if len(p.Replicas) != 2 || len(p.ISR) != 2 || p.Leader != leader.id {
				return fmt.Errorf("leader %d, in sync %v of %v", p.Leader, p.ISR, p.Replicas)
			}
			return nil
		})
	}
	into := newHistory(x.topic("truncated"), 1, 300)
	from, fromContinue := newHistory("u-"+x.tag+"-truncated", 1, 300), newHistory("u-"+x.tag+"-truncated-continue", 1, 300)
	x.create("east", into.topic, 1)
	x.write("east", into, 200)
	x.mirrored("east", into.topic, "west", "east."+into.topic)
	for _, h := range []*history{from, fromContinue} {
		x.createReplicated("west", h.topic, 1, 3)
	}
	for _, topic := range []string{from.topic, fromContinue.topic, "east." + into.topic} {
		x.alter("west", topic, "min.insync.replicas=1")
		place(topic)
	}
	for _, h := range []*history{from, fromContinue} {
		x.write("west", h, 200)
		x.mirrored("west", h.topic, "south", "west."+h.topic)
	}
	// Only the leader has what is written now, and the mirror has seen it.
	behind.signal(syscall.SIGTERM)
	<-behind.ended
	x.write("east", into, 100)
	x.mirroredAtLeast("west", "east."+into.topic, into)
	for _, h := range []*history{from, fromContinue} {
		x.write("west", h, 100)
		x.mirrored("west", h.topic, "south", "west."+h.topic)
	}
	// The mirror must not see the new leader before it has written: then only the
	// epochs of leaders tell that the log is another one.
	x.owner.pause()
	leader.kill()
	x.c.start(behind)
	x.c.up(behind)
	for _, topic := range []string{from.topic, fromContinue.topic, "east." + into.topic} {
		eventually(t, 40*time.Second, "an unclean leader of "+topic, func() error {
			elected, err := admin.ElectLeaders(x.ctx(5*time.Second), kadm.ElectLiveReplica, kadm.TopicsSet{topic: {0: {}}})
			if err == nil {
				err = elected[topic][0].Err
			}
			return err
		})
	}
	// Other records take the places of those that are lost: fewer than were lost
	// in one topic, more in the other.
	after, afterContinue := newHistory(from.topic, 1, 280), newHistory(fromContinue.topic, 1, 280)
	x.write("west", after, 30)
	x.write("west", afterContinue, 150)
	x.write("east", into, 50)
	x.owner.resume()
	x.c.start(leader)

	if in := x.mirror.incident("target-truncated", into.topic); in.TargetOffset != 200 && in.TargetOffset != 201 {
		t.Errorf("%+v", in)
	}
	x.exact(into, "east", "west", "east."+into.topic)
	x.mirror.incident("source-truncated", from.topic)
	x.mirror.becomes("stopped", from.topic, 0)
	x.mirror.incident("source-truncated", fromContinue.topic)
	eventually(t, 60*time.Second, "the new leader's records", func() error {
		log := x.read("south", "west."+fromContinue.topic)[0]
		if len(log) < 450 {
			_, full := x.mirror.partition(fromContinue.topic, 0)
			return fmt.Errorf("%d records, want 200 of both leaders, 100 of the old and 150 of the new; it is %s", len(log), full)
		}
		if v := fromContinue.check(map[int32][]*kgo.Record{0: log[:300]}); !v.ok() {
			return fmt.Errorf("the old leader's: %s", v)
		}
		if v := afterContinue.check(map[int32][]*kgo.Record{0: log[300:]}); !v.ok() {
			return fmt.Errorf("the new leader's: %s", v)
		}
		return nil
	})
	x.c.heal()
}
