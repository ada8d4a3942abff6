package mirror_test

import (
	"bytes"
	"context"
	"fmt"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
	"github.com/twmb/franz-go/pkg/kversion"

	"kmirror/mirror"
	"kmirror/topology"
)

// until waits for a condition on the status.
func (s *site) until(e *mirror.Engine, what string, ok func(mirror.Status) bool) {
	s.t.Helper()
	deadline := time.After(40 * time.Second)
	for {
		status := e.Status()
		if ok(status) {
			return
		}
		select {
		case <-deadline:
			s.t.Fatalf("not seen: %s; %+v", what, status.Flows)
		case <-time.After(20 * time.Millisecond):
		}
	}
}

// partition finds one in a status.
func partition(status mirror.Status, topic string, n int) (mirror.PartitionStatus, bool) {
	for _, f := range status.Flows {
		for _, t := range f.Topics {
			if t.Source == topic && n < len(t.Partitions) {
				return t.Partitions[n], true
			}
		}
	}
	return mirror.PartitionStatus{}, false
}

// stopped says that a partition has stopped for a reason that names words.
func stopped(topic string, n int, words string) func(mirror.Status) bool {
	return func(status mirror.Status) bool {
		p, ok := partition(status, topic, n)
		return ok && p.State == "stopped" && strings.Contains(p.Error, words)
	}
}

func (s *site) admin(c *kfake.Cluster) *kadm.Client {
	s.t.Helper()
	return kadm.NewClient(s.client(c))
}

func (s *site) yaml(text string, args ...any) {
	s.t.Helper()
	var err error
	if s.config, err = topology.Parse("test.yaml", fmt.Appendf(nil, text, args...), func(string) (string, bool) { return "", false }); err != nil {
		s.t.Fatal(err)
	}
}

// TestEngineFollowsLeaders moves the leaders of both sides again and again while
// records flow and the target takes its time to answer.
func TestEngineFollowsLeaders(t *testing.T) {
	s := newSite(t, "orders", 3)
	s.west.ControlKey(int16(kmsg.Produce), func(kmsg.Request) (kmsg.Response, error, bool) {
		s.west.KeepControl()
		s.west.SleepControl(func() { time.Sleep(20 * time.Millisecond) })
		return nil, nil, false
	})
	s.run()
	s.produce("orders", 3, 0, 10)
	s.mirrored("east.orders", 3, 10)
	for i := range 12 {
		for p := range int32(3) {
			if err := s.west.MoveTopicPartition("east.orders", p, (p+int32(i))%3); err != nil {
				t.Fatal(err)
			}
			if err := s.east.MoveTopicPartition("orders", p, (p+int32(i/2))%3); err != nil {
				t.Fatal(err)
			}
		}
		s.produce("orders", 3, 10+i*30, 30)
	}
	s.mirrored("east.orders", 3, 370)
}

// TestEngineStuckPartition: one partition is refused for ever while others carry
// many times what the budget holds.
func TestEngineStuckPartition(t *testing.T) {
	s := newSite(t, "orders", 2)
	s.budget = 1              // the least there is
	for p := range int32(2) { // their batches come in the same responses
		if err := s.east.MoveTopicPartition("orders", p, 0); err != nil {
			t.Fatal(err)
		}
	}
	stuck := s.west.Fault(kfake.Fault{Keys: []kmsg.Key{kmsg.Produce}, Topic: "east.orders", Partitions: []int32{0}, Err: kerr.NotEnoughReplicas, Count: -1})
	cl := s.client(s.east, kgo.ProducerBatchCompression(kgo.NoCompression()))
	value := bytes.Repeat([]byte("x"), 50_000)
	const records = 400 // of 50 KB: 20 MB
	for i := range records {
		for p := range int32(2) {
			if p == 0 && i > records/3 {
				continue
			}
			cl.Produce(t.Context(), &kgo.Record{Topic: "orders", Partition: p, Value: value}, func(_ *kgo.Record, err error) {
				if err != nil {
					t.Errorf("produce: %v", err)
				}
			})
		}
	}
	if err := cl.Flush(t.Context()); err != nil {
		t.Fatal(err)
	}
	e, _ := s.run()
	s.until(e, "partition 1 in step", func(status mirror.Status) bool {
		p, ok := partition(status, "orders", 1)
		return ok && p.TargetEnd == records
	})
	s.until(e, "what is wrong with partition 0", func(status mirror.Status) bool {
		p, _ := partition(status, "orders", 0)
		return p.TargetEnd == 0 && p.State == "waiting" && strings.Contains(p.Error, "NOT_ENOUGH_REPLICAS")
	})
	stuck.Remove()
	s.until(e, "partition 0 in step", func(status mirror.Status) bool {
		p, ok := partition(status, "orders", 0)
		return ok && p.State == "mirroring" && p.LagRecords == 0 && p.TargetEnd > 0
	})
}

// TestEngineLargeRecord: a batch above the target's limit is split; a record
// above it stops its partition, until somebody raises the limit.
func TestEngineLargeRecord(t *testing.T) {
	s := newSite(t, "orders", 2)
	limit := "20000"
	if err := s.west.CreateTopic("east.orders", 2, map[string]string{"max.message.bytes": limit}); err != nil {
		t.Fatal(err)
	}
	s.yaml("instance: test\nclusters:\n  east: {bootstrap: [%q]}\n  west: {bootstrap: [%q]}\nflows:\n  - {from: east, to: west, heartbeats: false, fence: detect, configs: {sync: false}, policies: {record_too_large: park}}\n",
		s.east.ListenAddrs()[0], s.west.ListenAddrs()[0])
	cl := s.client(s.east, kgo.ProducerBatchCompression(kgo.NoCompression()), kgo.ProducerLinger(50*time.Millisecond))
	var recs []*kgo.Record
	for i := range 40 { // one batch of 80 KB
		recs = append(recs, &kgo.Record{Topic: "orders", Partition: 0, Value: fmt.Appendf(nil, "%02000d", i)})
	}
	recs = append(recs, &kgo.Record{Topic: "orders", Partition: 1, Value: make([]byte, 1000)}, &kgo.Record{Topic: "orders", Partition: 1, Value: make([]byte, 30_000)})
	if err := cl.ProduceSync(t.Context(), recs...).FirstErr(); err != nil {
		t.Fatal(err)
	}
	e, _ := s.run()
	s.until(e, "partition 0 in step", func(status mirror.Status) bool {
		p, ok := partition(status, "orders", 0)
		return ok && p.TargetEnd == 40
	})
	s.until(e, "partition 1 stopped", stopped("orders", 1, "max.message.bytes"))
	if _, err := s.admin(s.west).AlterTopicConfigs(t.Context(), []kadm.AlterConfig{{Op: kadm.SetConfig, Name: "max.message.bytes", Value: new("1000000")}}, "east.orders"); err != nil {
		t.Fatal(err)
	}
	s.until(e, "partition 1 in step", func(status mirror.Status) bool {
		p, ok := partition(status, "orders", 1)
		return ok && p.TargetEnd == 2 && p.State == "mirroring"
	})
}

// TestEngineTargetDeleted: the copy is made anew, from the source's start and not
// from where the last epoch began; also where brokers know no topic ids.
func TestEngineTargetDeleted(t *testing.T) {
	for _, ids := range []bool{true, false} {
		t.Run(fmt.Sprintf("ids %v", ids), func(t *testing.T) {
			s := newSite(t, "orders", 3)
			if !ids {
				west, err := kfake.NewCluster(kfake.ClusterID("old-w"), kfake.NumBrokers(2), kfake.MaxVersions(kversion.V2_7_0()))
				if err != nil {
					t.Fatal(err)
				}
				t.Cleanup(west.Close)
				s.west = west
				s.yaml(oneWay, s.east.ListenAddrs()[0], s.west.ListenAddrs()[0])
			}
			_, stop := s.run()
			s.produce("orders", 3, 0, 20)
			s.mirrored("east.orders", 3, 20)
			stop()
			_, stop = s.run()
			s.produce("orders", 3, 20, 20)
			s.mirrored("east.orders", 3, 40)
			if err := s.west.DeleteTopic("east.orders"); err != nil {
				t.Fatal(err)
			}
			s.produce("orders", 3, 40, 20)
			s.mirrored("east.orders", 3, 60)
			stop()
			s.produce("orders", 3, 60, 20)
			s.run()
			s.mirrored("east.orders", 3, 80)
		})
	}
}

const oneWay = "instance: test\nclusters:\n  east: {bootstrap: [%q]}\n  west: {bootstrap: [%q]}\nflows:\n  - {from: east, to: west, heartbeats: false, fence: detect}\n"

// TestEngineOvertaken: what the source deletes before it was mirrored is a loss
// that somebody has to accept; the other partition flows on.
func TestEngineOvertaken(t *testing.T) {
	s := newSite(t, "orders", 2)
	_, stop := s.run()
	s.produce("orders", 2, 0, 20)
	s.mirrored("east.orders", 2, 20)
	stop()
	s.produce("orders", 2, 20, 20)
	if err := s.east.DeleteRecords("orders", 0, 30); err != nil {
		t.Fatal(err)
	}
	if err := s.east.DeleteRecords("orders", 1, 20); err != nil { // exactly what was mirrored
		t.Fatal(err)
	}
	e, _ := s.run()
	s.until(e, "partition 0 stopped", stopped("orders", 0, "begins at 30 and mirroring stands at 20"))
	s.until(e, "partition 1 in step", func(status mirror.Status) bool {
		p, ok := partition(status, "orders", 1)
		return ok && p.TargetEnd == 40
	})
}

// TestEngineOvertakenBehindTheEnd: what expired behind the last record was a
// transaction's marker, dealt with already; nothing is lost.
func TestEngineOvertakenBehindTheEnd(t *testing.T) {
	s := newSite(t, "orders", 1)
	e, stop := s.run()
	cl := s.client(s.east, kgo.TransactionalID("x"))
	transact := func(values ...string) {
		t.Helper()
		if err := cl.BeginTransaction(); err != nil {
			t.Fatal(err)
		}
		for _, v := range values {
			cl.Produce(t.Context(), &kgo.Record{Topic: "orders", Value: []byte(v)}, nil)
		}
		if err := cl.Flush(t.Context()); err != nil {
			t.Fatal(err)
		}
		if err := cl.EndTransaction(t.Context(), kgo.TryCommit); err != nil {
			t.Fatal(err)
		}
	}
	transact("0", "1")
	s.until(e, "the marker passed", func(status mirror.Status) bool {
		p, ok := partition(status, "orders", 0)
		return ok && p.Position == 3
	})
	stop()
	if err := s.east.DeleteRecords("orders", 0, 3); err != nil {
		t.Fatal(err)
	}
	s.run()
	transact("2")
	s.mirrored("east.orders", 1, 3)
}

// TestEngineWithoutTopicIDs: brokers before 2.8 know topics by name only.
func TestEngineWithoutTopicIDs(t *testing.T) {
	for _, sides := range []string{"source", "target", "both"} {
		t.Run(sides, func(t *testing.T) {
			s := newSite(t, "orders", 2)
			old := func(id string, opts ...kfake.Opt) *kfake.Cluster {
				c, err := kfake.NewCluster(append(opts, kfake.ClusterID(id), kfake.NumBrokers(2), kfake.MaxVersions(kversion.V2_7_0()))...)
				if err != nil {
					t.Fatal(err)
				}
				t.Cleanup(c.Close)
				return c
			}
			if sides != "target" {
				s.east = old("old-e", kfake.SeedTopics(2, "orders"))
			}
			if sides != "source" {
				s.west = old("old-w")
			}
			s.yaml(oneWay, s.east.ListenAddrs()[0], s.west.ListenAddrs()[0])
			_, stop := s.run()
			s.produce("orders", 2, 0, 20)
			s.mirrored("east.orders", 2, 20)
			stop()
			s.produce("orders", 2, 20, 20)
			s.run()
			s.mirrored("east.orders", 2, 40)
		})
	}
}

// TestEngineHugeBatch: one batch ten times what a fetch asks for and five times
// the budget.
func TestEngineHugeBatch(t *testing.T) {
	s := newSite(t, "orders", 1)
	s.budget = 1
	for _, c := range []*kfake.Cluster{s.east, s.west} {
		if _, err := s.admin(c).AlterBrokerConfigs(t.Context(), []kadm.AlterConfig{{Op: kadm.SetConfig, Name: "message.max.bytes", Value: new("30000000")}}); err != nil {
			t.Fatal(err)
		}
	}
	cl := s.client(s.east, kgo.ProducerBatchMaxBytes(25<<20), kgo.BrokerMaxWriteBytes(60<<20), kgo.ProducerBatchCompression(kgo.NoCompression()))
	for range 3 {
		if err := cl.ProduceSync(t.Context(), &kgo.Record{Topic: "orders", Value: make([]byte, 20<<20)}).FirstErr(); err != nil {
			t.Fatal(err)
		}
	}
	e, _ := s.run()
	s.until(e, "all mirrored", func(status mirror.Status) bool {
		p, ok := partition(status, "orders", 0)
		return ok && p.TargetEnd == 3
	})
}

// TestEngineBothWays: two prefixed flows between two clusters, and nothing goes
// round.
func TestEngineBothWays(t *testing.T) {
	s := newSite(t, "orders", 1)
	if err := s.west.CreateTopic("orders", 1, nil); err != nil {
		t.Fatal(err)
	}
	s.yaml("instance: test\nclusters:\n  east: {bootstrap: [%q]}\n  west: {bootstrap: [%q]}\nflows:\n  - {from: east, to: west, heartbeats: false, fence: detect}\n  - {from: west, to: east, heartbeats: false, fence: detect}\n",
		s.east.ListenAddrs()[0], s.west.ListenAddrs()[0])
	e, _ := s.run()
	s.produce("orders", 1, 0, 20)
	if err := s.client(s.west).ProduceSync(t.Context(), &kgo.Record{Topic: "orders", Value: []byte("0")}).FirstErr(); err != nil {
		t.Fatal(err)
	}
	s.mirrored("east.orders", 1, 20)
	s.until(e, "both ways", func(status mirror.Status) bool {
		return status.Flows[1].Records == 1 && status.Flows[0].Records == 20
	})
	for _, c := range []*kfake.Cluster{s.east, s.west} {
		topics, err := s.admin(c).ListTopics(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		names := slices.DeleteFunc(topics.Names(), func(name string) bool { return strings.HasPrefix(name, "__") || strings.HasSuffix(name, ".internal") })
		if len(names) != 2 {
			t.Errorf("topics: %v", names)
		}
	}
}

// TestEngineTargetComesLate: neither side answers when the engine starts.
func TestEngineTargetComesLate(t *testing.T) {
	s := newSite(t, "orders", 1)
	s.produce("orders", 1, 0, 10)
	var up atomic.Bool
	s.west.Control(func(kmsg.Request) (kmsg.Response, error, bool) {
		s.west.KeepControl()
		return nil, fmt.Errorf("down"), !up.Load()
	})
	e, _ := s.run()
	s.until(e, "an error that names the target", func(status mirror.Status) bool {
		return strings.Contains(status.Flows[0].Error, "target west")
	})
	up.Store(true)
	s.mirrored("east.orders", 1, 10)
}

// TestEngineReadsWhileItRuns asks for everything at once, for the race detector.
func TestEngineReadsWhileItRuns(t *testing.T) {
	s := newSite(t, "orders", 4)
	e, stop := s.run()
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() {
		defer close(done)
		last := uint64(0)
		for ctx.Err() == nil {
			n := e.Status().Flows[0].Records
			if n < last && e.Status().Life != "" {
				t.Errorf("records went back from %d to %d", last, n)
			}
			last = max(last, n)
			e.Ready()
			e.Groups("east->west")
		}
	}()
	for i := range 5 {
		s.produce("orders", 4, i*20, 20)
	}
	s.mirrored("east.orders", 4, 100)
	cancel()
	<-done
	stop()
}

// TestEngineStartsLatest: where a partition begins is decided once. A restart
// does not move it on, and what came meanwhile is mirrored.
func TestEngineStartsLatest(t *testing.T) {
	s := newSite(t, "orders", 2)
	s.yaml(strings.Replace(oneWay, "heartbeats", "start: latest, heartbeats", 1), s.east.ListenAddrs()[0], s.west.ListenAddrs()[0])
	cl := s.client(s.east)
	for p := range int32(2) {
		if err := cl.ProduceSync(t.Context(), &kgo.Record{Topic: "orders", Partition: p, Value: []byte("before")}).FirstErr(); err != nil {
			t.Fatal(err)
		}
	}
	for range 2 {
		e, stop := s.run()
		s.until(e, "both mirroring", func(status mirror.Status) bool {
			for n := range 2 {
				if p, ok := partition(status, "orders", n); !ok || p.State != "mirroring" || p.Position != 1 {
					return false
				}
			}
			return true
		})
		stop()
	}
	s.produce("orders", 2, 0, 10)
	s.run()
	s.mirrored("east.orders", 2, 10)

	// What is made while the flow runs has nothing old in it: it is mirrored whole,
	// though its first records are there before it is seen.
	if err := s.east.CreateTopic("later", 1, nil); err != nil {
		t.Fatal(err)
	}
	s.produce("later", 1, 0, 10)
	s.mirrored("east.later", 1, 10)
}

// TestEngineSourceSilent: a partition that the source does not give says so.
func TestEngineSourceSilent(t *testing.T) {
	s := newSite(t, "orders", 2)
	e, _ := s.run()
	s.produce("orders", 2, 0, 10)
	s.mirrored("east.orders", 2, 10)
	fault := s.east.Fault(kfake.Fault{Keys: []kmsg.Key{kmsg.Fetch}, Topic: "orders", Partitions: []int32{1}, Err: kerr.OffsetNotAvailable, Count: -1})
	s.until(e, "the source's word", func(status mirror.Status) bool {
		p, ok := partition(status, "orders", 1)
		other, _ := partition(status, "orders", 0)
		return ok && p.State == "waiting" && strings.Contains(p.Error, "OFFSET_NOT_AVAILABLE") && other.State == "mirroring"
	})
	fault.Remove()
	s.produce("orders", 2, 10, 10)
	s.mirrored("east.orders", 2, 20)
	s.until(e, "all well", func(status mirror.Status) bool {
		p, ok := partition(status, "orders", 1)
		return ok && p.State == "mirroring" && p.Error == ""
	})
}

// TestEngineTopicRefused: a topic that the target refuses to make is tried again
// now and then, not all the time; and once somebody else has made it, the
// complaint is gone.
func TestEngineTopicRefused(t *testing.T) {
	s := newSite(t, "orders", 1)
	refused := s.west.Fault(kfake.Fault{Keys: []kmsg.Key{kmsg.CreateTopics}, Topic: "east.orders", Err: kerr.InvalidReplicationFactor, Count: -1})
	e, _ := s.run()
	s.until(e, "the refusal", func(status mirror.Status) bool {
		return len(status.Flows[0].Topics) == 1 && strings.Contains(status.Flows[0].Topics[0].Error, "create the target topic")
	})
	began, before := time.Now(), refused.Hits()
	time.Sleep(time.Second)
	if n, most := refused.Hits()-before, 2+int(time.Since(began)/time.Second); n > most {
		t.Errorf("%d attempts in a second", n)
	}
	if err := s.west.CreateTopic("east.orders", 1, nil); err != nil {
		t.Fatal(err)
	}
	s.produce("orders", 1, 0, 10)
	s.mirrored("east.orders", 1, 10)
	s.until(e, "no complaint", func(status mirror.Status) bool {
		return status.Flows[0].State == "mirroring" && status.Flows[0].Topics[0].Error == ""
	})
}
