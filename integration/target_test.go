package integration_test

import (
	"fmt"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
)

// TestTargetHasFewerPartitions finds the target topic made by somebody else,
// with fewer partitions than the source: they are added, or the flow says what
// differs; records never land in another partition.
func TestTargetHasFewerPartitions(t *testing.T) {
	w := newWorld(t)
	d := w.run("main", serverOnly)
	w.create("west", "east.orders", 1)
	h := newHistory("orders", 3, 200)
	w.create("east", "orders", 3)
	w.write("east", h, 200)
	d.stop(20 * time.Second)
	d.configure(twoClusters)
	d.start()
	d.ready(readyWithin)
	w.exact(h, "east", "west", "east.orders")
}

// TestStrangerInTheTarget lets somebody else write into the mirrored topic, too.
// Our records are all there, once, in order; a group still lands on the right one.
func TestStrangerInTheTarget(t *testing.T) {
	w := newWorld(t)
	d := w.run("main", twoClusters)
	h := newHistory("orders", 1, 200)
	w.create("east", "orders", 1)
	stranger := w.client("west", kgo.RecordPartitioner(kgo.ManualPartitioner()), kgo.DefaultProduceTopic("east.orders"))
	const times = 20
	for range times {
		w.write("east", h, 20)
		w.mirroredAtLeast("west", "east.orders", h)
		if err := stranger.ProduceSync(w.ctx(20*time.Second), &kgo.Record{Value: []byte("stranger")}).FirstErr(); err != nil {
			t.Fatal(err)
		}
	}
	d.kill() // the restart must find its place behind a stranger's batch
	d.start()
	d.ready(readyWithin)
	w.write("east", h, 20)
	w.mirroredAtLeast("west", "east.orders", h)

	const group = "billing"
	first := w.consumeHere("east", "orders", group, map[int32]int{0: 155})
	d.inStepAmongStrangers(w, group, 155)
	got := w.ours("west", "east.orders")
	if v := h.check(got); !v.ok() {
		t.Errorf("west:\n%s", v)
	}
	if n := len(first[0]); n != 155 {
		t.Errorf("the group read %d records in east", n)
	}
}

// ours are the records of a topic that bear a number; strangers' do not.
func (w *world) ours(cluster, topic string) map[int32][]*kgo.Record {
	w.t.Helper()
	logs := w.read(cluster, topic)
	for partition, log := range logs {
		var kept []*kgo.Record
		for _, r := range log {
			if _, _, err := identity(r); err == nil {
				kept = append(kept, r)
			}
		}
		logs[partition] = kept
	}
	return logs
}

// mirroredAtLeast waits until everything confirmed is in the mirror, whatever
// else is there.
func (w *world) mirroredAtLeast(cluster, topic string, h *history) {
	w.t.Helper()
	admin := w.admin(cluster)
	eventually(w.t, 60*time.Second, "the mirror of "+h.topic, func() error {
		if w.ends(admin, topic) == nil {
			return fmt.Errorf("no topic %s", topic)
		}
		if v := h.check(w.ours(cluster, topic)); !v.ok() {
			return fmt.Errorf("%s", v)
		}
		return nil
	})
}

// inStepAmongStrangers waits until the group stands in west before the record
// that it would read next in east, or before strangers' records right before it.
func (d *daemon) inStepAmongStrangers(w *world, group string, next int) {
	w.t.Helper()
	west := w.admin("west")
	log := w.read("west", "east.orders")[0]
	eventually(w.t, 30*time.Second, "group "+group+" in step", func() error {
		at, known := w.committed(west, group, "east.orders")[0]
		if !known {
			return fmt.Errorf("nothing committed in west")
		}
		for _, r := range log {
			if r.Offset < at {
				continue
			}
			if _, number, err := identity(r); err == nil {
				if number != next {
					return fmt.Errorf("stands before #%d, want #%d", number, next)
				}
				return nil
			}
		}
		return fmt.Errorf("stands at the end")
	})
}

// TestTopicsAppearAndGrow creates topics and partitions under the running
// mirror; they are mirrored from their starts.
func TestTopicsAppearAndGrow(t *testing.T) {
	w := newWorld(t)
	w.run("main", twoClusters)
	h := newHistory("orders", 1, 200)
	w.create("east", "orders", 1)
	w.write("east", h, 100)
	w.exact(h, "east", "west", "east.orders")

	if _, err := w.admin("east").CreatePartitions(w.ctx(10*time.Second), 2, "orders"); err != nil {
		t.Fatal(err)
	}
	h.fates[1], h.fates[2] = nil, nil
	eventually(t, 20*time.Second, "three partitions in east", func() error {
		if n := len(w.ends(w.admin("east"), "orders")); n != 3 {
			return fmt.Errorf("%d partitions", n)
		}
		return nil
	})
	w.write("east", h, 100)
	w.exact(h, "east", "west", "east.orders")

	for i := range 20 {
		h := newHistory(fmt.Sprintf("topic-%02d", i), 2, 100)
		w.create("east", h.topic, 2)
		w.write("east", h, 20)
		defer w.exact(h, "east", "west", "east."+h.topic)
	}
}

// TestActiveActive mirrors both ways at once: what is written on either side is
// on both, and nothing goes round in circles.
func TestActiveActive(t *testing.T) {
	w := newWorld(t)
	w.run("main", twoClusters+`
  - {from: west, to: east, topics: [".*"], naming: prefixed, start: earliest}
`)
	east, west := newHistory("orders", 2, 200), newHistory("orders", 2, 200)
	w.create("east", "orders", 2)
	w.create("west", "orders", 2)
	w.write("east", east, 300)
	w.write("west", west, 200)
	w.exact(east, "east", "west", "east.orders")
	w.exact(west, "west", "east", "west.orders")
	time.Sleep(6 * time.Second) // topics are looked for every 5 s
	for _, cluster := range []string{"east", "west"} {
		topics, err := w.admin(cluster).ListTopics(w.ctx(10 * time.Second))
		if err != nil {
			t.Fatal(err)
		}
		for _, loop := range []string{"east.west.orders", "west.east.orders"} {
			if topics.Has(loop) {
				t.Errorf("%s has %s", cluster, loop)
			}
		}
	}
}
