package integration_test

import (
	"fmt"
	"maps"
	"slices"
	"testing"
	"time"
)

// sharedMirror mirrors between clusters that somebody else serves, together
// with the other instances that Consul knows.
const sharedMirror = mirrorOnly + `
coordination:
  consul: {address: {{addr "consul"}}, prefix: kmirror, ttl: 10s}
`

// TestInstances lets three daemons share the work through a real Consul. One is
// killed, one stops in order, one is frozen past its TTL and goes on as a
// zombie; meanwhile there is load, and in the end every record is there once.
func TestInstances(t *testing.T) {
	w := newWorld(t)
	w.consul()
	w.run("brokers", serverOnly)
	h := newHistory("orders", 6, 300)
	w.create("east", "orders", 6)

	a, b, c := w.run("edge-1", sharedMirror), w.run("edge-2", sharedMirror), w.run("edge-3", sharedMirror)
	w.shared(a, 6, "edge-1", "edge-2", "edge-3")
	load := w.load("east", h, 1500)
	time.Sleep(2 * time.Second)

	t.Log("edge-2 is killed: its work moves after its TTL")
	killed := time.Now()
	b.kill()
	w.shared(a, 6, "edge-1", "edge-3")
	t.Logf("taken over after %v", time.Since(killed).Round(100*time.Millisecond))

	t.Log("edge-2 comes back and stops in order: its work moves at once")
	b.start()
	b.ready(readyWithin)
	w.shared(a, 6, "edge-1", "edge-2", "edge-3")
	stopped := time.Now()
	b.stop(20 * time.Second)
	w.shared(a, 6, "edge-1", "edge-3")
	t.Logf("taken over %v after the signal", time.Since(stopped).Round(100*time.Millisecond))

	t.Log("edge-3 is frozen past its TTL, then goes on")
	c.pause()
	w.shared(a, 6, "edge-1")
	time.Sleep(2 * time.Second) // the heir writes
	c.resume()
	resumed := time.Now()
	w.shared(a, 6, "edge-1", "edge-3")
	t.Logf("a member again %v after it went on", time.Since(resumed).Round(100*time.Millisecond))
	time.Sleep(2 * time.Second)

	load.finish()
	w.exact(h, "east", "west", "east.orders")
}

// TestConsulAway takes Consul away for longer than a TTL. What is owned goes on
// until the term ends; when Consul is back, so is the mirror.
func TestConsulAway(t *testing.T) {
	w := newWorld(t)
	consul := w.consul()
	w.run("brokers", serverOnly)
	h := newHistory("orders", 3, 300)
	w.create("east", "orders", 3)
	a := w.run("edge-1", sharedMirror)
	w.shared(a, 3, "edge-1")
	load := w.load("east", h, 500)
	consul.pause()
	time.Sleep(3 * time.Second)
	if s := a.mustStatus(); s.Flows[0].State != "mirroring" {
		t.Errorf("3 s without Consul: flow is %s (%s), want mirroring", s.Flows[0].State, s.Flows[0].Error)
	}
	time.Sleep(15 * time.Second)
	if s := a.mustStatus(); s.Flows[0].State == "mirroring" {
		t.Errorf("18 s without Consul, with a TTL of 10 s: the flow is still mirroring")
	}
	consul.resume()
	resumed := time.Now()
	w.shared(a, 3, "edge-1")
	t.Logf("at work again %v after Consul came back", time.Since(resumed).Round(100*time.Millisecond))
	load.finish()
	w.exact(h, "east", "west", "east.orders")
}

// shared is owned for the topic orders.
func (w *world) shared(d *daemon, partitions int, instances ...string) {
	w.t.Helper()
	w.owned(d, "orders", partitions, instances...)
}

// owned waits until the partitions of the topic are owned by just these
// instances and each of them has some.
func (w *world) owned(d *daemon, topic string, partitions int, instances ...string) {
	w.t.Helper()
	eventually(w.t, 90*time.Second, fmt.Sprintf("%d partitions shared by %v", partitions, instances), func() error {
		s, err := d.status()
		if err != nil {
			return err
		}
		owners := map[string]int{}
		for _, flow := range s.Flows {
			for _, x := range flow.Topics {
				if x.Source != topic {
					continue
				}
				for _, p := range x.Partitions {
					owners[instanceOf(p.Owner)]++
				}
			}
		}
		total := 0
		for _, n := range owners {
			total += n
		}
		if got := slices.Sorted(maps.Keys(owners)); total != partitions || !slices.Equal(got, instances) {
			return fmt.Errorf("owners are %v; members %v", owners, s.Members)
		}
		return nil
	})
}

// instanceOf is the instance in a member's id: edge-1 in edge-1/3f9a.
func instanceOf(owner string) string {
	for i, r := range owner {
		if r == '/' {
			return owner[:i]
		}
	}
	return owner
}
