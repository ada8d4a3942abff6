package integration_test

import (
	"fmt"
	"testing"
	"time"
)

// TestCrashThenRetention kills the mirror under load, so that the map does not hold
// what was mirrored last, and the source's retention then takes all of that and more.
// Nobody can compare it any more; but the ledger was written under the leader that its
// topic has still, so that nothing but the loss itself is an incident, and the mirror
// goes on as its policy says.
func TestCrashThenRetention(t *testing.T) {
	w := newWorld(t)
	w.kafka("west")
	w.run("brokers", `
clusters:
  east: {embedded: {nodes: [{{addr "east"}}]}}
flows: []
`)
	mirror := w.run("mirror", `
clusters:
  east: {bootstrap: [{{addr "east"}}]}
  west: {bootstrap: [{{addr "west"}}]}
flows:
  - {from: east, to: west, topics: [".*"], naming: prefixed, start: earliest, policies: {retention_loss: continue}}
`)
	h := newHistory("orders", 3, 400)
	w.create("east", h.topic, 3)
	load := w.load("east", h, 3000)
	defer load.stop()
	admin := w.admin("east")
	for round := range rounds(t) {
		w.goesOn("west", "east."+h.topic, 3)
		time.Sleep(randomly(300*time.Millisecond, 1500*time.Millisecond))
		mirror.kill()
		time.Sleep(300 * time.Millisecond)
		ends := w.ends(admin, h.topic)
		before := min(ends[0], ends[1], ends[2])
		w.expire("east", h.topic, before)
		mirror.start()
		mirror.ready(readyWithin)
		for partition := range int32(3) {
			eventually(t, 40*time.Second, fmt.Sprintf("a loss of partition %d is told", partition), func() error {
				all, err := mirror.incidents()
				if err != nil {
					return err
				}
				for _, in := range all {
					switch {
					case in.Kind == "seam-unverified" || in.Kind == "seam-mismatch":
						t.Fatalf("%+v", in)
					case in.Kind == "retention-loss" && in.Partition == partition && in.SourceOffset+in.Count == before:
						return nil
					}
				}
				return fmt.Errorf("none up to %d among %d incidents", before, len(all))
			})
		}
		t.Logf("round %d: all before %d is gone in east", round+1, before)
	}
	load.finish()
	source := w.read("east", h.topic)
	eventually(t, 40*time.Second, "the end of east in west", func() error {
		target := w.read("west", "east."+h.topic)
		for p, records := range source {
			_, last, err := identity(records[len(records)-1])
			if err != nil {
				return err
			}
			if len(target[p]) == 0 {
				return fmt.Errorf("nothing of partition %d", p)
			}
			if _, n, err := identity(target[p][len(target[p])-1]); err != nil || n != last {
				return fmt.Errorf("record %d is the last of partition %d, want %d", n, p, last)
			}
		}
		return nil
	})
	if v := h.check(w.read("west", "east."+h.topic)); len(v.doubled)+len(v.changed)+len(v.reordered)+len(v.alien) > 0 {
		t.Errorf("%s", v)
	}
}
