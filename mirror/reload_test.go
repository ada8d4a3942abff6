package mirror_test

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	"kmirror/mirror"
	"kmirror/topology"
)

// file is a mirror.yaml for the site with these flows.
func (s *site) file(flows string) *topology.Config {
	s.t.Helper()
	text := fmt.Sprintf("instance: test\ndata_dir: %q\nclusters:\n  east: {bootstrap: [%q]}\n  west: {bootstrap: [%q]}\nflows:\n%s", s.t.TempDir(),
		s.east.ListenAddrs()[0], s.west.ListenAddrs()[0], flows)
	return s.parse(text)
}

func (s *site) parse(text string) *topology.Config {
	s.t.Helper()
	config, err := topology.Parse("test.yaml", []byte(text), func(string) (string, bool) { return "", false })
	if err != nil {
		s.t.Fatal(err)
	}
	return config
}

// like is the site's file with other flows.
func (s *site) like(flows string) *topology.Config {
	s.t.Helper()
	config := s.file(flows)
	config.DataDir = s.config.DataDir
	return config
}

// TestReload takes one file after another while records flow: nothing is lost or
// doubled, and what did not change goes on.
func TestReload(t *testing.T) {
	s := newSite(t, "orders", 2)
	s.create(s.east, "bills", 1)
	s.create(s.west, "stock", 1)
	s.config = s.file("  - {from: east, to: west, heartbeats: false, fence: detect, topics: [orders]}\n")
	e, _ := s.run()
	s.produce("orders", 2, 0, 20)
	s.mirrored("east.orders", 2, 20)
	reload := func(flows string, want ...string) {
		t.Helper()
		changes, err := e.Reload(s.like(flows))
		if err != nil {
			t.Fatal(err)
		}
		if len(changes) != len(want) {
			t.Fatalf("changes %v, want %v", changes, want)
		}
		for i, c := range changes {
			if !strings.Contains(c.Path, want[i]) || !c.Live {
				t.Errorf("change %v, want %s", c, want[i])
			}
		}
	}
	// a pattern: another topic comes, the first goes on
	reload("  - {from: east, to: west, heartbeats: false, fence: detect, topics: [orders, bills]}\n", "topics")
	s.produce("bills", 1, 0, 20)
	s.mirrored("east.bills", 1, 20)
	s.produce("orders", 2, 20, 20)
	s.mirrored("east.orders", 2, 40)
	// a throttle and a policy
	reload("  - {from: east, to: west, heartbeats: false, fence: detect, topics: [orders, bills], throttle: 10MiB, policies: {retention_loss: continue}}\n", "throttle", "retention_loss")
	s.produce("orders", 2, 40, 20)
	s.mirrored("east.orders", 2, 60)
	// the other direction: a new flow
	reload("  - {from: east, to: west, heartbeats: false, fence: detect, topics: [orders, bills]}\n  - {from: west, to: east, heartbeats: false, fence: detect, topics: [stock]}\n", "east->west", "east->west", "west->east")
	s.until(e, "the new flow", states("stock", "mirroring"))
	// a filter: the flow drains and begins again, and goes on where it stood
	reload("  - {from: east, to: west, heartbeats: false, fence: detect, topics: [orders, bills], filters: [{topics: [orders], drop: {key: none}}]}\n  - {from: west, to: east, heartbeats: false, fence: detect, topics: [stock]}\n", "filters")
	s.produce("orders", 2, 60, 20)
	s.mirrored("east.orders", 2, 80)
	// a flow goes
	reload("  - {from: west, to: east, heartbeats: false, fence: detect, topics: [stock]}\n", "east->west")
	if flows := e.Status().Flows; len(flows) != 1 || flows[0].Name != "west->east" {
		t.Errorf("flows after one went: %+v", flows)
	}
	s.produce("orders", 2, 80, 20)
	// and comes back
	reload("  - {from: west, to: east, heartbeats: false, fence: detect, topics: [stock]}\n  - {from: east, to: west, heartbeats: false, fence: detect, topics: [orders]}\n", "east->west")
	s.mirrored("east.orders", 2, 100)
	if end := s.end("east.bills", 0); end != 20 {
		t.Errorf("bills ends at %d", end)
	}
	if changes, err := e.Reload(s.like("  - {from: west, to: east, heartbeats: false, fence: detect, topics: [stock]}\n  - {from: east, to: west, heartbeats: false, fence: detect, topics: [orders]}\n")); err != nil || len(changes) > 0 {
		t.Errorf("the same again: %v, %v", changes, err)
	}
}

// TestReloadPause: paused: true in the file pauses live.
func TestReloadPause(t *testing.T) {
	s := newSite(t, "orders", 1)
	s.config = s.file("  - {from: east, to: west, heartbeats: false, fence: detect}\n")
	e, _ := s.run()
	s.produce("orders", 1, 0, 20)
	s.mirrored("east.orders", 1, 20)
	if _, err := e.Reload(s.like("  - {from: east, to: west, heartbeats: false, fence: detect, paused: true}\n")); err != nil {
		t.Fatal(err)
	}
	s.until(e, "paused", states("orders", "paused"))
	s.produce("orders", 1, 20, 20)
	if _, err := e.Reload(s.like("  - {from: east, to: west, heartbeats: false, fence: detect}\n")); err != nil {
		t.Fatal(err)
	}
	s.mirrored("east.orders", 1, 40)
}

// TestReloadRefused: a file of which only some can be taken is not taken at all.
func TestReloadRefused(t *testing.T) {
	s := newSite(t, "orders", 1)
	s.config = s.file("  - {from: east, to: west, heartbeats: false, fence: detect}\n")
	e, _ := s.run()
	s.produce("orders", 1, 0, 20)
	s.mirrored("east.orders", 1, 20)
	other := s.file("  - {from: east, to: west, heartbeats: false, fence: detect, paused: true}\n") // another data_dir
	changes, err := e.Reload(other)
	var restart *mirror.RestartError
	if !errors.As(err, &restart) || len(restart.Changes) != 1 || restart.Changes[0].Path != "data_dir" || len(changes) != 2 {
		t.Fatalf("%v, %v", changes, err)
	}
	s.produce("orders", 1, 20, 20)
	s.mirrored("east.orders", 1, 40)
}

// TestReloadOneByOne: two instances take another file one after the other. While
// they differ in where the records go, only those that agree with the leader
// mirror the flow; nothing is written twice.
func TestReloadOneByOne(t *testing.T) {
	s := newSite(t, "orders", 4)
	const before = "  - {from: east, to: west, heartbeats: false, fence: detect, topics: [orders]}\n"
	const after = "  - {from: east, to: west, heartbeats: false, fence: detect, topics: [orders], rename: [{from: orders, to: sales}]}\n"
	town := newTown()
	s.config = s.file(before)
	dir := s.config.DataDir
	s.live = citizen{town, "a"}
	a, _ := s.run()
	s.until(a, "leads", func(status mirror.Status) bool { return status.Leading })
	s.live = citizen{town, "b"}
	b, _ := s.run()
	s.produce("orders", 4, 0, 20)
	s.mirrored("east.orders", 4, 20)
	change := func(e *mirror.Engine) {
		t.Helper()
		config := s.file(after)
		config.DataDir = dir
		if _, err := e.Reload(config); err != nil {
			t.Fatal(err)
		}
	}
	disagrees := func(status mirror.Status) bool {
		return status.Flows[0].State == "degraded" && strings.Contains(status.Flows[0].Error, "leading instance")
	}
	change(b)
	s.until(b, "b knows that the leader says otherwise", disagrees)
	change(a)
	s.mirrored("east.sales", 4, 20)
	for _, e := range []*mirror.Engine{a, b} {
		s.until(e, "both agree", func(status mirror.Status) bool {
			return status.Flows[0].State == "mirroring" && status.Flows[0].Error == ""
		})
	}
	s.produce("orders", 4, 20, 20)
	s.mirrored("east.sales", 4, 40)
	for n := range int32(4) {
		if end := s.end("east.orders", n); end != 20 {
			t.Errorf("the former target topic's partition %d went on to %d", n, end)
		}
	}
}
