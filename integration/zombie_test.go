package integration_test

import (
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
)

// A zombie is an instance that was replaced and does not know it. These stories
// make sure that it has requests under way when that happens: the link before
// the target keeps them back, the instance is frozen, its successor takes over,
// and then they arrive after all.

// zombieMirror is one of two processes that mirror the topic under one name of
// instance, as when a machine is thought dead and its work started elsewhere.
// Their client ids tell the link who is who.
const zombieMirror = `
clusters:
  east: {bootstrap: [{{addr "east"}}]}
  west: {bootstrap: [{{addr "west-linked"}}], client_id: %s}
flows:
  - {from: east, to: west, topics: ["%s"], naming: prefixed, start: earliest, heartbeats: false, fence: %s}
`

// TestZombie replaces an instance that has requests under way. Between its
// successor's start and its end it must not add a single record.
func TestZombie(t *testing.T) {
	t.Run("Apache Kafka", func(t *testing.T) {
		w := newWorld(t)
		links := w.cluster("west").links()
		w.run("source", plainSource)
		w.zombies(links, "auto", max(2, rounds(t)/3))
	})
	t.Run("embedded", func(t *testing.T) {
		w := newWorld(t)
		links := w.embeddedBehindLink()
		w.zombies(links, "auto", max(2, rounds(t)/3))
	})
}

// TestZombieMember lets a member of a deployment become a zombie: frozen past its
// TTL with requests under way, while the other member takes its partitions over.
func TestZombieMember(t *testing.T) {
	w := newWorld(t)
	links := w.cluster("west").links()
	w.consul()
	w.run("source", plainSource)
	const partitions = 4
	h := newHistory(w.unique("zombie"), partitions, 400)
	mirror := "east." + h.topic
	w.create("east", h.topic, partitions)
	config := zombieMirror + `
coordination:
  consul: {address: {{addr "consul"}}, prefix: kmirror, ttl: 10s}
`
	load := w.load("east", h, 1000)
	a := w.run("one", fmt.Sprintf(config, "one", h.topic, "auto"))
	b := w.run("two", fmt.Sprintf(config, "two", h.topic, "auto"))
	id := w.topicID("west", mirror)
	refused, accepted := 0, 0
	for round := range max(1, rounds(t)/10) {
		w.owned(b, h.topic, partitions, "one", "two")
		w.goesOn("west", mirror, 50)
		captives := newCaptives(a.name, mirror, id)
		links.do(harm{hold: captives.take, spoil: captives.watch})
		eventually(t, 20*time.Second, "requests under way", func() error {
			if links.holding(a.name) == 0 {
				return fmt.Errorf("none")
			}
			return nil
		})
		a.pause()
		frozen := time.Now()
		w.owned(b, h.topic, partitions, b.name)
		t.Logf("round %d: taken over after %v", round+1, time.Since(frozen).Round(10*time.Millisecond))
		w.goesOn("west", mirror, 50)
		links.do(harm{hold: captives.pass, spoil: captives.watch})
		captives.settled(t)
		refused, accepted = refused+captives.refused, accepted+captives.accepted
		a.resume()
		links.heal()
		a, b = b, a
	}
	w.owned(b, h.topic, partitions, "one", "two")
	load.finish()
	w.exact(h, "east", "west", mirror)
	w.noneBehindMarkers("west", mirror)
	if accepted > 0 || refused == 0 {
		t.Errorf("of the zombies' batches %d were taken and %d refused", accepted, refused)
	}
}

// TestZombieWithoutFence is the same story where nothing stops the zombie: its
// records stand twice. They are found and counted, which is what fence: detect
// promises; and it is what shows that TestZombie could fail.
func TestZombieWithoutFence(t *testing.T) {
	t.Run("Apache Kafka", func(t *testing.T) {
		w := newWorld(t)
		links := w.cluster("west").links()
		w.run("source", plainSource)
		w.zombies(links, "detect", 1)
	})
	t.Run("embedded", func(t *testing.T) {
		w := newWorld(t)
		links := w.embeddedBehindLink()
		w.zombies(links, "detect", 1)
	})
}

// embeddedBehindLink serves east and west in one process; west is reached over
// a link only.
func (w *world) embeddedBehindLink() links {
	w.t.Helper()
	w.run("brokers", `
clusters:
  east: {embedded: {nodes: [{{addr "east"}}]}}
  west: {embedded: {nodes: [{{addr "west"}}], advertised: [{{addr "west-linked"}}]}}
`)
	return links{w.link("west-linked", "west")}
}

// zombies plays so many rounds of: A has requests under way and is frozen, B
// takes over, A's requests arrive, A goes on.
func (w *world) zombies(links links, fence string, rounds int) {
	t := w.t
	t.Helper()
	const partitions = 3
	h := newHistory(w.unique("zombie"), partitions, 400)
	mirror := "east." + h.topic
	w.create("east", h.topic, partitions)
	process := func(name string) *daemon {
		return w.daemonAs(name, "edge", fmt.Sprintf(zombieMirror, name, h.topic, fence))
	}
	a, b := process("one"), process("two")
	load := w.load("east", h, 1000)
	a.start()
	a.ready(readyWithin)
	id := w.topicID("west", mirror)
	refused, accepted := 0, 0
	for round := range rounds {
		w.goesOn("west", mirror, 100)
		captives := newCaptives(a.name, mirror, id)
		links.do(harm{hold: captives.take, spoil: captives.watch})
		eventually(t, 20*time.Second, "requests under way", func() error {
			if links.holding(a.name) == 0 {
				return fmt.Errorf("none")
			}
			return nil
		})
		time.Sleep(randomly(0, 300*time.Millisecond)) // let more of them come
		if fence == "detect" {                        // alive it would go on and on: nothing stops it
			a.kill()
		} else {
			a.pause()
		}

		// Every second round B is kept from its first record until A's have come:
		// that is when a successor that only looked at the log has seen nothing of
		// them. In the other rounds B is well under way.
		first := fence == "detect" || round%2 == 1
		successor := func(r request) bool { return first && r.client == b.name && r.writesTo(mirror, id) }
		links.do(harm{hold: func(r request) bool { return captives.take(r) || successor(r) }, spoil: captives.watch})
		began := time.Now()
		b.start()
		b.ready(readyWithin)
		if first {
			eventually(t, 60*time.Second, "the successor's first requests", func() error {
				if links.holding(b.name) < links.holding(a.name) {
					return fmt.Errorf("%d connections of it wait, and %d of the zombie's", links.holding(b.name), links.holding(a.name))
				}
				return nil
			})
		} else {
			w.goesOn("west", mirror, 100)
		}
		took := time.Since(began)
		links.do(harm{hold: func(r request) bool { return captives.pass(r) || successor(r) }, spoil: captives.watch})
		captives.settled(t)
		links.heal()
		if a.running() {
			a.resume()
		}
		w.goesOn("west", mirror, 100)
		a.kill()
		refused, accepted = refused+captives.refused, accepted+captives.accepted
		t.Logf("round %d: the successor %s %v after its start; %d of the zombie's batches were refused, %d taken",
			round+1, map[bool]string{true: "was about to write", false: "was writing"}[first], took.Round(10*time.Millisecond), captives.refused, captives.accepted)
		a, b = b, a
	}
	load.finish()
	if fence == "detect" {
		w.zombiesDetected(a, h, mirror, accepted)
		return
	}
	w.exact(h, "east", "west", mirror)
	if accepted > 0 {
		t.Errorf("%d batches of zombies were taken", accepted)
	}
	if refused == 0 {
		t.Error("no batch of a zombie was refused: the story has told nothing")
	}
	w.noneBehindMarkers("west", mirror)
	if doubled := a.metric("kmirror_doubled_records_total"); doubled > 0 {
		t.Errorf("%v records are said to stand twice", doubled)
	}
}

// zombiesDetected holds what the log says against what the mirror says: the
// zombie's records stand twice, nothing else is wrong, and each was counted.
func (w *world) zombiesDetected(d *daemon, h *history, mirror string, accepted int) {
	w.t.Helper()
	if accepted == 0 {
		w.t.Fatal("no batch of the zombie was taken: the story has told nothing")
	}
	var v verdict
	eventually(w.t, 45*time.Second, "everything in the target", func() error {
		v = h.check(w.read("west", mirror))
		if len(v.lost) > 0 {
			return fmt.Errorf("%s", v)
		}
		return nil
	})
	if len(v.doubled) == 0 {
		w.t.Errorf("%d batches of the zombie were taken and none of their records stands twice", accepted)
	}
	if len(v.changed)+len(v.alien) > 0 {
		w.t.Errorf("%s", v)
	}
	eventually(w.t, 10*time.Second, "every doubled record counted", func() error {
		if counted := int(d.metric("kmirror_doubled_records_total")); counted != len(v.doubled) {
			return fmt.Errorf("%d counted, %d stand twice", counted, len(v.doubled))
		}
		return nil
	})
	w.t.Logf("%d records stand twice, all of them counted", len(v.doubled))
}

// captives are one client's batches for one topic that the link keeps back, and
// what the target answered when they came after all. It is safe for concurrent
// use.
type captives struct {
	client, topic string
	id            [16]byte

	mu                          sync.Mutex     // guards the fields below
	sent                        map[*byte]bool // requests, by where their bytes stand
	over                        bool           // what the client sends now belongs to its next life
	answered, refused, accepted int
}

func newCaptives(client, topic string, id [16]byte) *captives {
	return &captives{client: client, topic: topic, id: id, sent: map[*byte]bool{}}
}

// take is harm.hold: it keeps them back.
func (c *captives) take(r request) bool {
	if r.client != c.client || !r.writesTo(c.topic, c.id) {
		return false
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.over {
		c.sent[&r.frame[0]] = true
	}
	return !c.over
}

// pass is harm.hold: it lets them through.
func (c *captives) pass(r request) bool {
	c.take(r)
	return false
}

// watch is harm.spoil: it looks at the answers and changes none.
func (c *captives) watch(r request, payload []byte) (frame, bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.sent[&r.frame[0]] {
		return frame{}, false
	}
	c.answered++
	resp, ok := r.answer(payload).(*kmsg.ProduceResponse)
	if !ok {
		return frame{}, false
	}
	for _, t := range resp.Topics {
		if t.Topic != c.topic && t.TopicID != c.id {
			continue
		}
		for _, p := range t.Partitions {
			if p.ErrorCode == 0 {
				c.accepted++
			} else {
				c.refused++
			}
		}
	}
	return frame{}, false
}

// settled waits until all of them are answered; what the client sends from now
// on is none of them.
func (c *captives) settled(t testing.TB) {
	t.Helper()
	eventually(t, 20*time.Second, "answers to the zombie", func() error {
		c.mu.Lock()
		defer c.mu.Unlock()
		if c.answered == 0 || c.answered < len(c.sent) {
			return fmt.Errorf("%d of %d requests answered", c.answered, len(c.sent))
		}
		c.over = true
		return nil
	})
}

// noneBehindMarkers reads the topic as it stands, markers and all: behind the
// marker that ended a producer's epoch there must be no record of that epoch or
// of an earlier one. There must be markers, or nobody was fenced.
func (w *world) noneBehindMarkers(cluster, topic string) {
	w.t.Helper()
	markers := 0
	for partition, log := range w.readAll(cluster, topic) {
		ended := map[int64]int16{} // by producer id, the highest epoch of a marker
		for _, r := range log {
			switch epoch, known := ended[r.ProducerID]; {
			case r.Attrs.IsControl():
				markers++
				ended[r.ProducerID] = max(epoch, r.ProducerEpoch)
			case known && r.ProducerEpoch < epoch:
				w.t.Errorf("%s/%d@%d: a record of producer %d in epoch %d, behind a marker of epoch %d", topic, partition, r.Offset, r.ProducerID, r.ProducerEpoch, epoch)
			}
		}
	}
	if markers == 0 {
		w.t.Errorf("%s has no markers: nobody was fenced", topic)
	}
}

// topicID waits for the topic and returns its id.
func (w *world) topicID(cluster, topic string) (id [16]byte) {
	w.t.Helper()
	admin := w.admin(cluster)
	eventually(w.t, 30*time.Second, "topic "+topic, func() error {
		topics, err := admin.ListTopics(w.ctx(5*time.Second), topic)
		if err == nil {
			err = topics[topic].Err
		}
		id = topics[topic].ID
		return err
	})
	return id
}

// goesOn waits until so many records more are in each partition of the topic.
func (w *world) goesOn(cluster, topic string, records int64) {
	w.t.Helper()
	admin := w.admin(cluster)
	defer admin.Close()
	began := map[int32]int64{}
	eventually(w.t, 60*time.Second, topic+" in "+cluster+" grows", func() error {
		ends := w.ends(admin, topic)
		if len(ends) == 0 {
			return kerr.UnknownTopicOrPartition
		}
		for partition, end := range ends {
			if _, known := began[partition]; !known {
				began[partition] = end
			}
			if end < began[partition]+records {
				return fmt.Errorf("partition %d stands at %d, was %d", partition, end, began[partition])
			}
		}
		return nil
	})
}

// readAll reads a topic from its start to its present end at read_uncommitted,
// markers included.
func (w *world) readAll(cluster, topic string) map[int32][]*kgo.Record {
	w.t.Helper()
	admin := w.admin(cluster)
	listed := func(list kadm.ListedOffsets, err error) map[int32]int64 {
		if err == nil {
			err = list.Error()
		}
		if err != nil {
			w.t.Fatal(err)
		}
		offsets := map[int32]int64{}
		list.Each(func(o kadm.ListedOffset) { offsets[o.Partition] = o.Offset })
		return offsets
	}
	ctx := w.ctx(2 * time.Minute)
	starts, ends := listed(admin.ListStartOffsets(ctx, topic)), listed(admin.ListEndOffsets(ctx, topic))
	from, left := map[int32]kgo.Offset{}, 0
	for partition, start := range starts {
		from[partition] = kgo.NewOffset().At(start)
		if start < ends[partition] {
			left++
		}
	}
	client := w.client(cluster, kgo.ConsumePartitions(map[string]map[int32]kgo.Offset{topic: from}),
		kgo.KeepControlRecords(), kgo.FetchMaxWait(200*time.Millisecond))
	defer client.Close()
	records := map[int32][]*kgo.Record{}
	for left > 0 {
		fetches := client.PollFetches(ctx)
		if err := fetches.Err0(); err != nil {
			w.t.Fatalf("read all of %s from %s: %v", topic, cluster, err)
		}
		fetches.EachRecord(func(r *kgo.Record) {
			if r.Offset < ends[r.Partition] {
				records[r.Partition] = append(records[r.Partition], r)
			}
			if r.Offset == ends[r.Partition]-1 {
				left--
			}
		})
	}
	return records
}
