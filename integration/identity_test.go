package integration_test

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
)

// Stories of identity naming in circles: every site has the same topics, every
// site writes, and each record stands once at each of them.

// bothWays mirrors every topic into each other of the named clusters.
func bothWays(names ...string) string {
	var b strings.Builder
	b.WriteString("flows:\n")
	for _, from := range names {
		for _, to := range names {
			if from != to {
				fmt.Fprintf(&b, "  - {from: %s, to: %s, naming: identity}\n", from, to)
			}
		}
	}
	return b.String()
}

// TestIdentityBothWays kills a mirror that carries both flows, again and again,
// while applications write on both sides.
func TestIdentityBothWays(t *testing.T) {
	w := newWorld(t)
	brokers := w.run("brokers", serverOnly)
	mirror := w.run("mirror", `
clusters:
  east: {bootstrap: [{{addr "east"}}]}
  west: {bootstrap: [{{addr "west"}}]}
`+bothWays("east", "west"))
	w.sitesUnderKills(2000, rounds(t), []string{"east", "west"}, mirror)
	mirror.circlesAreRaw()

	t.Run("transactions", func(t *testing.T) {
		w := w.in(t)
		w.create("west", "payments", 2)
		w.awaitTopics("payments", "east", "west")
		var all []*history
		for _, site := range []string{"east", "west"} {
			h := newHistory("payments", 2, 200)
			h.site = site
			all = append(all, h)
			w.transactions(site, h, 25)
		}
		w.onceEverywhere(all, "east", "west")
	})
	t.Run("configs", func(t *testing.T) {
		w := w.in(t)
		w.create("west", "settings", 1, "retention.ms=3600000") // west follows, but a topic takes its configs along
		w.awaitTopics("settings", "east", "west")
		holds := func(value string, clusters ...string) {
			t.Helper()
			for _, cluster := range clusters {
				eventually(t, 30*time.Second, "retention.ms in "+cluster, func() error {
					if got := w.config(cluster, "settings", "retention.ms"); got != value {
						return fmt.Errorf("is %s, want %s", got, value)
					}
					return nil
				})
			}
		}
		holds("3600000", "east", "west")
		w.alter("east", "settings", "retention.ms=7200000")
		holds("7200000", "west", "east")
		w.alter("west", "settings", "retention.ms=1800000")
		holds("7200000", "west", "east")
	})
	t.Run("partitions", func(t *testing.T) {
		w := w.in(t)
		w.create("east", "grows", 1)
		w.awaitTopics("grows", "east", "west")
		for i, cluster := range []string{"west", "east"} {
			if _, err := w.admin(cluster).UpdatePartitions(w.ctx(20*time.Second), 2+i, "grows"); err != nil {
				t.Fatal(err)
			}
			for _, cluster := range []string{"east", "west"} {
				eventually(t, 30*time.Second, "partitions in "+cluster, func() error {
					if ends := w.ends(w.admin(cluster), "grows"); len(ends) != 2+i {
						return fmt.Errorf("are %d, want %d", len(ends), 2+i)
					}
					return nil
				})
			}
		}
		var all []*history
		for _, site := range []string{"east", "west"} {
			h := newHistory("grows", 3, 100)
			h.site = site
			all = append(all, h)
			w.write(site, h, 50)
		}
		w.onceEverywhere(all, "east", "west")

		// West is lost and built anew: it gets back what it had written itself, too.
		mirror.stop(30 * time.Second)
		brokers.kill()
		if err := os.RemoveAll(filepath.Join(brokers.dataDir(), "west")); err != nil {
			t.Fatal(err)
		}
		brokers.start()
		brokers.ready(readyWithin)
		mirror.start()
		mirror.ready(readyWithin)
		w.awaitTopics("grows", "west")
		w.onceEverywhere(all, "west", "east")
	})
}

// TestIdentityBetweenDeployments has one direction mirrored by one deployment and
// the way back by another. Each has the same file but for the addresses: what one
// calls local is remote to the other, so their flows have the same name. One cluster
// is Apache Kafka. Both deployments are killed.
func TestIdentityBetweenDeployments(t *testing.T) {
	w := newWorld(t)
	w.kafka("east")
	w.run("brokers", `
clusters:
  west: {embedded: {nodes: [{{addr "west"}}]}}
`)
	here := w.run("here", `
clusters:
  remote: {bootstrap: [{{addr "east"}}]}
  local:  {bootstrap: [{{addr "west"}}]}
flows:
  - {from: remote, to: local, naming: identity, topics: [orders]}
  - {from: local, to: remote, naming: identity, topics: [orders], paused: true}
`)
	there := w.run("there", `
clusters:
  remote: {bootstrap: [{{addr "west"}}]}
  local:  {bootstrap: [{{addr "east"}}]}
flows:
  - {from: remote, to: local, naming: identity, topics: [orders], fence: detect}
  - {from: local, to: remote, naming: identity, topics: [orders], paused: true}
`)
	w.sitesUnderKills(1500, rounds(t), []string{"east", "west"}, here, there)
}

// TestIdentityForgotten has two deployments with the same file, but for the
// addresses, the second of which says nothing of the first. Nothing goes round: it
// stops, and goes on when its file shows the circle.
func TestIdentityForgotten(t *testing.T) {
	w := newWorld(t)
	w.run("brokers", serverOnly)
	deployment := func(remote, local, back string) string {
		return `
clusters:
  remote: {bootstrap: [{{addr "` + remote + `"}}]}
  local:  {bootstrap: [{{addr "` + local + `"}}]}
flows:
  - {from: remote, to: local, naming: identity, topics: [orders]}
` + back
	}
	const shown = "  - {from: local, to: remote, naming: identity, topics: [orders], paused: true}\n"
	w.run("here", deployment("east", "west", shown))
	eastern, western := newHistory("orders", 3, 20), newHistory("orders", 3, 20)
	eastern.site, western.site = "east", "west"
	w.create("east", "orders", 3)
	w.write("east", eastern, 100)
	w.exact(eastern, "east", "west", "orders")
	there := w.run("there", deployment("west", "east", ""))
	there.incident("unlisted-circle", "orders")
	if in := w.ends(w.admin("east"), "orders"); in[0]+in[1]+in[2] != 300 {
		t.Errorf("records went round: %v", in)
	}
	if _, stderr, code := there.kmirror("check", "--connect"); code != 1 {
		t.Errorf("check ends with %d: %s", code, stderr)
	}
	there.configure(deployment("west", "east", shown))
	there.mustKmirror("reload")
	w.write("west", western, 100)
	w.onceEverywhere([]*history{eastern, western}, "east", "west")
}

// TestIdentityMesh mirrors three clusters into each other.
func TestIdentityMesh(t *testing.T) {
	w := newWorld(t)
	w.run("brokers", serverOnly+`  hq: {embedded: {nodes: [{{addr "hq"}}]}}
`)
	mirror := w.run("mirror", `
clusters:
  east: {bootstrap: [{{addr "east"}}]}
  west: {bootstrap: [{{addr "west"}}]}
  hq: {bootstrap: [{{addr "hq"}}]}
`+bothWays("east", "west", "hq"))
	w.sitesUnderKills(600, max(2, rounds(t)/3), []string{"east", "west", "hq"}, mirror)
}

// sitesUnderKills writes perSecond records at every site while the mirrors are
// killed, and holds each site's topic against what was written anywhere.
func (w *world) sitesUnderKills(perSecond, rounds int, sites []string, mirrors ...*daemon) {
	w.t.Helper()
	const topic, partitions = "orders", 3
	w.create(sites[0], topic, partitions)
	w.awaitTopics(topic, sites...)
	var all []*history
	var loads []*load
	for _, site := range sites {
		h := newHistory(topic, partitions, 400)
		h.site = site
		all = append(all, h)
		loads = append(loads, w.load(site, h, perSecond))
	}
	for round := range rounds {
		alive := randomly(100*time.Millisecond, 2500*time.Millisecond)
		time.Sleep(alive)
		victim := mirrors[round%len(mirrors)]
		victim.kill()
		w.t.Logf("round %d: %s killed after %v", round+1, victim.name, alive)
		victim.start()
		if round%3 != 2 {
			victim.ready(readyWithin)
		}
	}
	for _, mirror := range mirrors {
		mirror.ready(readyWithin)
	}
	time.Sleep(2 * time.Second) // both sides write, and nobody dies
	for _, l := range loads {
		l.finish()
	}
	w.onceEverywhere(all, sites...)
	for _, mirror := range mirrors {
		mirror.nothingButFences()
	}
}

// nothingButFences fails the test if kills left more to tell than that an earlier
// life was ended: a circle is nothing out of order.
func (d *daemon) nothingButFences() {
	d.w.t.Helper()
	all, err := d.incidents()
	if err != nil {
		d.w.t.Fatal(err)
	}
	for _, in := range all {
		if in.Kind != "fenced" {
			d.w.t.Errorf("%s: an incident of %s/%d: %s: %s", d.name, in.Topic, in.Partition, in.Kind, in.Detail)
		}
	}
}

// awaitTopics waits until a topic is at every site.
func (w *world) awaitTopics(topic string, sites ...string) {
	w.t.Helper()
	for _, site := range sites {
		eventually(w.t, 60*time.Second, topic+" in "+site, func() error {
			if len(w.ends(w.admin(site), topic)) == 0 {
				return fmt.Errorf("not there")
			}
			return nil
		})
	}
}

// onceEverywhere waits until every site has as many records as all histories
// together, and holds them against each history.
func (w *world) onceEverywhere(all []*history, sites ...string) {
	w.t.Helper()
	topic, total := all[0].topic, 0
	for _, h := range all {
		sent, confirmed := h.counts()
		total += confirmed
		w.t.Logf("%s of %s: %d sent, %d confirmed", topic, h.site, sent, confirmed)
	}
	const patience = 45 * time.Second
	for _, site := range sites {
		var logs map[int32][]*kgo.Record
		for last, moved := -1, time.Now(); ; time.Sleep(200 * time.Millisecond) {
			logs = w.read(site, topic)
			n := count(logs)
			if n != last {
				last, moved = n, time.Now()
			}
			if n >= total || time.Since(moved) > patience {
				break
			}
		}
		time.Sleep(500 * time.Millisecond) // what is doubled or goes round would come now
		logs = w.read(site, topic)
		if n := count(logs); n != total {
			w.t.Errorf("%s in %s holds %d records, want %d", topic, site, n, total)
		}
		ofSite := map[string]map[int32][]*kgo.Record{}
		for partition, records := range logs {
			for _, r := range records {
				i := slices.IndexFunc(r.Headers, func(h kgo.RecordHeader) bool { return h.Key == "site" })
				if i < 0 {
					w.t.Fatalf("%s in %s holds a record of nobody's: %.60q", topic, site, r.Value)
				}
				by := string(r.Headers[i].Value)
				if ofSite[by] == nil {
					ofSite[by] = map[int32][]*kgo.Record{}
				}
				ofSite[by][partition] = append(ofSite[by][partition], r)
			}
		}
		for _, h := range all {
			if v := h.check(ofSite[h.site]); !v.ok() {
				w.t.Errorf("%s in %s, written in %s, is not what was written:\n%s", topic, site, h.site, v)
			}
		}
	}
}

// circlesAreRaw fails the test if batches were opened for the circle's sake, and
// logs how they travelled in the daemon's last life.
func (d *daemon) circlesAreRaw() {
	d.w.t.Helper()
	all := d.metric("kmirror_batches_total")
	var shares []string
	for _, mode := range []string{"raw", "drop", "merge", "crop", "reencode"} {
		n := d.metric("kmirror_batches_total", `mode="`+mode+`"`)
		shares = append(shares, fmt.Sprintf("%s %.0f", mode, n))
	}
	d.w.t.Logf("batches: %s of %.0f; dropped as foreign: %.0f offsets", strings.Join(shares, ", "), all, d.metric("kmirror_dropped_offsets_total", `reason="loop"`))
	if n := d.metric("kmirror_batches_total", `mode="reencode"`); n > 0 {
		d.w.t.Errorf("%.0f batches were re-encoded", n)
	}
	if d.metric("kmirror_dropped_offsets_total", `reason="loop"`) == 0 {
		d.w.t.Error("nothing was dropped: the circle was not tried")
	}
}
