package integration_test

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
)

// plainSource serves east in a process of its own.
const plainSource = `
clusters:
  east: {embedded: {nodes: [{{addr "east"}}]}}
`

// linkedSource serves east in a process of its own, reached over a link.
const linkedSource = `
clusters:
  east: {embedded: {nodes: [{{addr "east"}}], advertised: [{{addr "east-linked"}}]}}
`

// TestAccidents mirrors with three instances and a real Consul into Apache Kafka
// on three nodes, and lets one accident follow the other: instances killed and
// frozen past their TTL, nodes and the source killed, leaders moved, connections
// reset, held up, muted and cut. In the end every record is in the target once,
// in its order, unchanged, and every group at the very next record.
func TestAccidents(t *testing.T) {
	w := newWorld(t)
	c := w.cluster("west")
	w.consul()
	source := w.run("source", linkedSource)
	east := w.link("east-linked", "east")
	const partitions = 6
	h := newHistory(w.unique("accidents"), partitions, 400)
	mirror := "east." + h.topic
	w.create("east", h.topic, partitions)

	config := `
clusters:
  east: {bootstrap: [{{addr "east-linked"}}]}
  west: {bootstrap: [{{addr "west-linked"}}]}
flows:
  - {from: east, to: west, topics: ["` + h.topic + `"], naming: prefixed, start: earliest, heartbeats: false}
coordination:
  consul: {address: {{addr "consul"}}, prefix: kmirror, ttl: 10s}
`
	names := []string{"edge-1", "edge-2", "edge-3"}
	var instances []*daemon
	for _, name := range names {
		instances = append(instances, w.run(name, config))
	}
	w.owned(instances[0], h.topic, partitions, names...)
	load := w.load("east", h, 1500)
	harmOne := func(h harm) {
		l := append(c.links(), east)[rand.N(4)]
		l.do(h)
		time.Sleep(randomly(500*time.Millisecond, 3*time.Second))
		l.heal()
	}
	restarting := (*node)(nil)
	accidents := []struct {
		name   string
		happen func()
	}{
		{"an instance is killed", func() {
			d := instances[rand.N(3)]
			d.kill()
			time.Sleep(randomly(0, time.Second))
			d.start()
		}},
		{"a node is killed", func() {
			if restarting != nil { // of three replicas two must be there
				c.heal()
			}
			restarting = c.nodes[rand.N(3)]
			restarting.kill()
			time.Sleep(randomly(0, 2*time.Second))
			c.start(restarting)
		}},
		{"leaders move", func() {
			if restarting != nil {
				c.heal()
				restarting = nil
			}
			c.moveLeaders(t, mirror, "__kmirror_offset_map")
		}},
		{"all connections are reset", func() { c.links().reset(); east.reset() }},
		{"requests are held up", func() { harmOne(harm{stallTo: true}) }},
		{"answers are held up", func() { harmOne(harm{stallFrom: true}) }},
		{"a broker is deaf", func() { harmOne(harm{deaf: true}) }},
		{"a broker is cut off", func() { harmOne(harm{cut: true}) }},
		{"everything takes its time", func() { harmOne(harm{delay: 30 * time.Millisecond}) }},
		{"the source is killed", func() {
			source.kill()
			source.start()
			source.ready(readyWithin)
		}},
		{"all instances are killed", func() {
			for _, d := range instances {
				d.kill()
			}
			for _, d := range instances {
				d.start()
			}
		}},
		{"an instance is frozen past its TTL", func() {
			for _, d := range instances {
				d.ready(readyWithin)
			}
			at := rand.N(3)
			others := slices.Delete(slices.Clone(names), at, at+1)
			instances[at].pause()
			w.owned(instances[(at+1)%3], h.topic, partitions, others...)
			time.Sleep(500 * time.Millisecond) // the heirs write
			instances[at].resume()
		}},
	}
	var deck []int
	for round := range rounds(t) {
		if len(deck) == 0 {
			deck = rand.Perm(len(accidents))
		}
		accident := accidents[deck[0]]
		deck = deck[1:]
		time.Sleep(randomly(200*time.Millisecond, time.Second))
		began := time.Now()
		accident.happen()
		t.Logf("round %d: %s (%v)", round+1, accident.name, time.Since(began).Round(10*time.Millisecond))
	}
	c.heal()
	east.heal()
	for _, d := range instances {
		d.ready(readyWithin)
	}
	load.finish()
	groups := w.commitAnywhere("east", h.topic, 3)
	w.exact(h, "east", "west", mirror)
	for _, group := range groups {
		instances[0].inStep(w, group, h.topic, mirror)
	}
}

// unique is a topic name that no other story has: the clusters of stories may
// be shared.
func (w *world) unique(name string) string {
	return fmt.Sprintf("%s-%08x", name, rand.Uint32())
}

// commitAnywhere lets so many groups stand anywhere in the topic.
func (w *world) commitAnywhere(cluster, topic string, groups int) []string {
	w.t.Helper()
	admin := w.admin(cluster)
	ends := w.ends(admin, topic)
	var names []string
	for i := range groups {
		name := fmt.Sprintf("%s-group-%d", topic, i)
		offsets := kadm.Offsets{}
		for partition, end := range ends {
			offsets.Add(kadm.Offset{Topic: topic, Partition: partition, At: rand.N(end + 1), LeaderEpoch: -1})
		}
		if err := admin.CommitAllOffsets(w.ctx(20*time.Second), name, offsets); err != nil {
			w.t.Fatalf("commit %s in %s: %v", name, cluster, err)
		}
		names = append(names, name)
	}
	return names
}
