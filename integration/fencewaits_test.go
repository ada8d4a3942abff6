package integration_test

import (
	"fmt"
	"testing"
	"time"
)

// TestFenceWaits kills the mirror and the only node that has one of its target's
// partitions. The successor cannot end its predecessor there, so that partition
// waits, and says so; the others flow on. When the node is back, so is it.
func TestFenceWaits(t *testing.T) {
	w := newWorld(t)
	c := w.cluster("west")
	w.run("source", plainSource)
	const partitions = 3
	h := newHistory(w.unique("waits"), partitions, 300)
	mirror := "east." + h.topic
	w.create("east", h.topic, partitions)
	w.createReplicated("west", mirror, partitions, 1, "min.insync.replicas=1")
	d := w.run("mirror", `
clusters:
  east: {bootstrap: [{{addr "east"}}]}
  west: {bootstrap: [{{addr "west-linked"}}]}
flows:
  - {from: east, to: west, topics: ["`+h.topic+`"], heartbeats: false}
`)
	load := w.load("east", h, 500)
	w.goesOn("west", mirror, 50)

	d.kill()
	gone := c.leader(t, mirror, 0)
	gone.kill()
	d.start()
	d.ready(readyWithin)
	flowing := func(partition int32) error {
		state, full := d.partition(h.topic, partition)
		if state != "mirroring" {
			return fmt.Errorf("partition %d is %s", partition, full)
		}
		return nil
	}
	leaders := map[int32]int32{}
	for partition := range int32(partitions) {
		if partition > 0 {
			leaders[partition] = c.leader(t, mirror, partition).id
		}
	}
	eventually(t, 60*time.Second, "the partitions that have a leader flow", func() error {
		for partition, leader := range leaders {
			if err := flowing(partition); err != nil && leader != gone.id {
				return err
			}
		}
		return nil
	})
	state, full := d.partition(h.topic, 0)
	if state == "mirroring" || full == state+": " {
		t.Errorf("the partition without a leader is %q", full)
	}
	t.Logf("the partition without a leader is %s", full)

	c.start(gone)
	eventually(t, 60*time.Second, "the partition that waited flows", func() error { return flowing(0) })
	c.heal()
	load.finish()
	w.exact(h, "east", "west", mirror)
	w.noneBehindMarkers("west", mirror)
}
