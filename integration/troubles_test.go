package integration_test

import (
	"fmt"
	"strings"
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

// whole fails the test unless our numbered records are in the mirror once, in
// order, unchanged; strangers and large records may be there too.
func (x *troubles) whole(h *history) {
	x.t.Helper()
	x.mirroredAtLeast("west", "east."+h.topic, h)
	if v := h.check(x.ours("west", "east."+h.topic)); !v.ok() {
		x.t.Errorf("%s:\n%s", h.topic, v)
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
