package integration_test

import (
	"context"
	"encoding/json"
	"fmt"
	"net/url"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
)

// groupsBothWays is Apache Kafka in the east, an embedded cluster in the west, and
// flows both ways, whose groups go both ways too.
const groupsBothWays = `
clusters:
  east: {bootstrap: [{{addr "east"}}]}
  west: {embedded: {nodes: [{{addr "west"}}]}}
flows:
  - {from: east, to: west, topics: ["orders", "fast", "short"], naming: prefixed, start: earliest, group_sync: {deleted_groups: delete}}
  - {from: west, to: east, topics: ["orders"], naming: prefixed, start: earliest}
`

// TestGroups is what happens to consumer groups between two clusters, with real
// clients on both sides.
func TestGroups(t *testing.T) {
	w := newWorld(t)
	w.kafka("east")
	d := w.run("main", groupsBothWays)
	for _, topic := range []string{"orders", "fast", "short"} {
		w.create("east", topic, 2)
	}
	w.create("west", "orders", 2)
	t.Run("failover and failback", func(t *testing.T) { w.in(t).failoverAndBack(d.in(t)) })
	t.Run("a consumer of both sites' topics", func(t *testing.T) { w.in(t).readsBothSites() })
	t.Run("a group of the new protocol", func(t *testing.T) { w.in(t).newProtocol(d.in(t)) })
	t.Run("diverged, adopted, deleted", func(t *testing.T) { w.in(t).divergedAndDeleted(d.in(t)) })
}

// failoverAndBack lets a group read in the east, go on in the west, where somebody
// else writes too, and come back: it reads every record of the east once.
func (w *world) failoverAndBack(d *daemon) {
	const group, each = "billing", 400
	h := newHistory("orders", 2, 120)
	w.write("east", h, each)
	w.mirrored("east", "orders", "west", "east.orders")
	numbers := map[int32][]int{}
	read := func(library, cluster, topic string, upTo map[int32]int) {
		for partition, list := range w.consume(library, cluster, topic, group, upTo) {
			numbers[partition] = append(numbers[partition], list...)
		}
	}
	read("kafka-python", "east", "orders", map[int32]int{0: 101, 1: 33})
	d.standsAt(w, "east->west", group, "orders", map[int32]int64{0: 101, 1: 33})

	// The failover; what the west writes is not the east's.
	read("confluent-kafka", "west", "east.orders", map[int32]int{0: 50, 1: 99})
	w.kcat("west", "local 1\nlocal 2\nlocal 3\n", "-P", "-t", "east.orders", "-p", "0")
	d.standsAt(w, "east->west", group, "orders", map[int32]int64{0: 151, 1: 132}) // carried back

	// The failback.
	read("franz-go", "east", "orders", nil)
	for partition := range int32(2) {
		for i, number := range numbers[partition] {
			if number != i {
				w.t.Fatalf("partition %d: record %d where %d was due", partition, number, i)
			}
		}
		if n := len(numbers[partition]); n != each {
			w.t.Errorf("partition %d: %d records read, want %d", partition, n, each)
		}
	}
	d.standsAt(w, "east->west", group, "orders", map[int32]int64{0: each, 1: each})
}

// standsAt waits until a group stands at these offsets in the east and both
// sides are at one.
func (d *daemon) standsAt(w *world, flow, group, topic string, want map[int32]int64) {
	w.t.Helper()
	began := time.Now()
	eventually(w.t, 30*time.Second, "group "+group+" in step", func() error {
		g, err := d.group(flow, group)
		if err != nil {
			return err
		}
		seen := 0
		for _, p := range g.Partitions {
			if p.Topic != topic {
				continue
			}
			seen++
			if p.State != "in-step" || p.SourceOffset != want[p.Partition] || p.TargetOffset != p.Translated {
				return fmt.Errorf("partition %d: %+v, want it in step at %d", p.Partition, p, want[p.Partition])
			}
		}
		if seen != len(want) {
			return fmt.Errorf("%d partitions are known, want %d", seen, len(want))
		}
		return nil
	})
	w.t.Logf("%s in step at %v after %v", group, want, time.Since(began).Round(10*time.Millisecond))
}

type groupShown struct {
	Group, State  string
	TargetMembers bool `json:"target_members"`
	Partitions    []struct {
		Topic        string
		TargetTopic  string `json:"target_topic"`
		Partition    int32
		State        string
		SourceOffset int64 `json:"source_offset"`
		Translated   int64
		TargetOffset int64 `json:"target_offset"`
	}
}

// group is how the daemon sees a group of a flow.
func (d *daemon) group(flow, name string) (groupShown, error) {
	body, err := d.get("/api/v1/groups?flow=" + url.QueryEscape(flow))
	if err != nil {
		return groupShown{}, err
	}
	var answer struct{ Groups []groupShown }
	if err := json.Unmarshal(body, &answer); err != nil {
		return groupShown{}, err
	}
	for _, g := range answer.Groups {
		if g.Group == name {
			return g, nil
		}
	}
	return groupShown{}, fmt.Errorf("the group is not there: %s", body)
}

// groupBecomes waits until a group is in a state.
func (d *daemon) groupBecomes(w *world, flow, group, state string) groupShown {
	w.t.Helper()
	var last groupShown
	eventually(w.t, 30*time.Second, "group "+group+" "+state, func() (err error) {
		if last, err = d.group(flow, group); err == nil && last.State != state {
			err = fmt.Errorf("%+v", last)
		}
		return err
	})
	return last
}

// readsBothSites is active/active: a group in the west reads what both sites
// produce, orders and east.orders, and moves to the east, where the same are
// west.orders and orders.
func (w *world) readsBothSites() {
	const group = "reports"
	w.kcat("west", strings.Repeat("of the west\n", 50), "-P", "-t", "orders", "-p", "0")
	w.mirrored("west", "orders", "east", "west.orders")
	w.commit("west", group, "orders", map[int32]int64{0: 17})
	w.commit("west", group, "east.orders", map[int32]int64{1: 23})
	admin := w.admin("east")
	eventually(w.t, 30*time.Second, "both in the east", func() error {
		own, other := w.committed(admin, group, "orders"), w.committed(admin, group, "west.orders")
		if own[1] != 23 || other[0] != 17 {
			return fmt.Errorf("orders %v, west.orders %v", own, other)
		}
		return nil
	})
	// It goes on in the east, in both, and the west follows.
	w.commit("east", group, "orders", map[int32]int64{1: 40})
	w.commit("east", group, "west.orders", map[int32]int64{0: 30})
	admin = w.admin("west")
	eventually(w.t, 30*time.Second, "both in the west", func() error {
		own, other := w.committed(admin, group, "orders"), w.committed(admin, group, "east.orders")
		if own[0] != 30 || other[1] != 40 {
			return fmt.Errorf("orders %v, east.orders %v", own, other)
		}
		return nil
	})
}

// newProtocol lets a Java consumer of a KIP-848 group read in the east, go on in
// the west, there as a classic one, and come back: an empty group of the new protocol takes commits from
// outside, one with members refuses them.
func (w *world) newProtocol(d *daemon) {
	const group = "fast-readers"
	w.kcat("east", strings.Repeat("record\n", 200), "-P", "-t", "fast", "-p", "0")
	w.mirrored("east", "fast", "west", "east.fast")
	consume := func(cluster, topic, protocol string, records int) int {
		out := w.java("org.apache.kafka.tools.consumer.ConsoleConsumer", "--bootstrap-server", w.addr(cluster), "--topic", topic, "--group", group,
			"--consumer-property", "group.protocol="+protocol, "--consumer-property", "auto.offset.reset=earliest",
			"--max-messages", strconv.Itoa(records), "--timeout-ms", "20000")
		return strings.Count(out, "record\n")
	}
	if n := consume("east", "fast", "consumer", 60); n != 60 {
		w.t.Fatalf("%d records read in the east", n)
	}
	d.standsAt(w, "east->west", group, "fast", map[int32]int64{0: 60, 1: 0})
	if n := consume("west", "east.fast", "classic", 25); n != 25 {
		w.t.Fatalf("%d records read in the west", n)
	}
	d.standsAt(w, "east->west", group, "fast", map[int32]int64{0: 85, 1: 0})
	list, err := w.admin("east").ListGroups(w.ctx(10 * time.Second))
	if err != nil {
		w.t.Fatal(err)
	}
	w.t.Logf("in the east it is %+v", list[group])
}

// divergedAndDeleted moves a group by hand on the target, has it adopted, and
// deletes it on the source.
func (w *world) divergedAndDeleted(d *daemon) {
	const group = "audit"
	w.kcat("east", strings.Repeat("record\n", 100), "-P", "-t", "short", "-p", "0")
	w.mirrored("east", "short", "west", "east.short")
	w.commit("east", group, "short", map[int32]int64{0: 10})
	d.standsAt(w, "east->west", group, "short", map[int32]int64{0: 10})
	leave := w.member("east", "short", group)
	w.commit("west", group, "east.short", map[int32]int64{0: 50})
	d.groupBecomes(w, "east->west", group, "active-at-source")
	leave()
	d.standsAt(w, "east->west", group, "short", map[int32]int64{0: 50})

	// Both move while nobody looks.
	west, east := w.admin("west"), w.admin("east")
	w.commit("east", group, "short", map[int32]int64{0: 60})
	w.commit("west", group, "east.short", map[int32]int64{0: 30})
	if g := d.groupBecomes(w, "east->west", group, "diverged"); g.Partitions[0].SourceOffset != 60 || g.Partitions[0].TargetOffset != 30 {
		w.t.Errorf("shown as %+v", g)
	}
	w.t.Log(d.mustKmirror("groups", "east->west", "--adopt", group))
	d.standsAt(w, "east->west", group, "short", map[int32]int64{0: 60})
	if _, err := east.DeleteGroup(w.ctx(10*time.Second), group); err != nil {
		w.t.Fatal(err)
	}
	eventually(w.t, 30*time.Second, "deleted in the west too", func() error {
		if left := w.committed(west, group, "east.short"); len(left) > 0 {
			return fmt.Errorf("the west has %v", left)
		}
		return nil
	})
	if back := w.committed(east, group, "short"); len(back) > 0 {
		w.t.Errorf("the group is back in the east: %v", back)
	}
}

// member joins a group, and stays until it leaves.
func (w *world) member(cluster, topic, group string) (leave func()) {
	w.t.Helper()
	client := w.client(cluster, kgo.ConsumeTopics(topic), kgo.ConsumerGroup(group), kgo.DisableAutoCommit())
	done := make(chan struct{})
	go func() {
		defer close(done)
		for !client.PollFetches(context.Background()).IsClientClosed() {
		}
	}()
	return func() {
		client.Close()
		<-done
	}
}
