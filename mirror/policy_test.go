package mirror_test

import (
	"bytes"
	"fmt"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"kmirror/mirror"
)

// incident waits for an incident of a kind.
func (s *site) incident(e *mirror.Engine, kind string) mirror.Incident {
	s.t.Helper()
	var found mirror.Incident
	s.until(e, "incident "+kind, func(mirror.Status) bool {
		all := e.Incidents(0)
		i := slices.IndexFunc(all, func(i mirror.Incident) bool { return i.Kind == kind })
		if i >= 0 {
			found = all[i]
		}
		return i >= 0
	})
	if found.Flow != "east->west" || found.Instance != "test" || found.Action == "" || found.Time.IsZero() {
		s.t.Errorf("incident lacks something: %+v", found)
	}
	return found
}

// none says that no incident of a kind was told.
func (s *site) none(e *mirror.Engine, kind string) {
	s.t.Helper()
	for _, i := range e.Incidents(0) {
		if i.Kind == kind {
			s.t.Errorf("an incident that should not be: %+v", i)
		}
	}
}

// large sends a record of 1000 bytes, one of 30 000 and another of 1000 to
// orders/0, to a target topic that takes 20 000, and starts an engine.
func (s *site) large(policy string) *mirror.Engine {
	s.t.Helper()
	if err := s.west.CreateTopic("east.orders", 2, map[string]string{"max.message.bytes": "20000"}); err != nil {
		s.t.Fatal(err)
	}
	s.config = s.file("  - {from: east, to: west, fence: detect, heartbeats: false, configs: {sync: false}, policies: {record_too_large: " + policy + "}}\n")
	cl := s.client(s.east, kgo.ProducerBatchCompression(kgo.NoCompression()))
	for i, size := range []int{1000, 30_000, 1000} {
		r := &kgo.Record{
			Topic: "orders", Partition: 0, Key: fmt.Appendf(nil, "%d", i), Value: bytes.Repeat([]byte{'x'}, size),
			Headers: []kgo.RecordHeader{{Key: "own", Value: []byte("header")}}, Timestamp: time.UnixMilli(1_700_000_000_000 + int64(i)),
		}
		if err := cl.ProduceSync(s.t.Context(), r).FirstErr(); err != nil {
			s.t.Fatal(err)
		}
	}
	e, _ := s.run()
	return e
}

// read returns the first n records of partition 0 of a topic at the target.
func (s *site) read(topic string, n int) []*kgo.Record {
	s.t.Helper()
	cl := s.client(s.west, kgo.ConsumePartitions(map[string]map[int32]kgo.Offset{topic: {0: kgo.NewOffset().AtStart()}}), kgo.FetchMaxWait(100*time.Millisecond))
	var got []*kgo.Record
	for len(got) < n {
		fetches := cl.PollFetches(s.t.Context())
		if s.t.Context().Err() != nil {
			s.t.Fatalf("%d of %d records of %s", len(got), n, topic)
		}
		got = append(got, fetches.Records()...)
	}
	return got
}

func TestTooLargeRaise(t *testing.T) {
	s := newSite(t, "orders", 2)
	e := s.large("raise")
	got := s.read("east.orders", 3)
	if len(got) != 3 || len(got[1].Value) != 30_000 {
		t.Errorf("%d records", len(got))
	}
	in := s.incident(e, mirror.KindRecordTooLarge)
	if in.SourceOffset != 1 || in.Partition != 0 || !strings.Contains(in.Action, "raised") {
		t.Errorf("%+v", in)
	}
}

// TestTooLargeRaiseRefused: without the right to raise the limit the partition is
// parked, and goes on when it is given.
func TestTooLargeRaiseRefused(t *testing.T) {
	s := newSite(t, "orders", 2)
	var given atomic.Bool
	s.west.ControlKey(int16(kmsg.IncrementalAlterConfigs), func(r kmsg.Request) (kmsg.Response, error, bool) {
		s.west.KeepControl()
		if given.Load() {
			return nil, nil, false
		}
		req := r.(*kmsg.IncrementalAlterConfigsRequest)
		resp := req.ResponseKind().(*kmsg.IncrementalAlterConfigsResponse)
		for _, asked := range req.Resources {
			one := kmsg.NewIncrementalAlterConfigsResponseResource()
			one.ResourceType, one.ResourceName, one.ErrorCode = asked.ResourceType, asked.ResourceName, kerr.TopicAuthorizationFailed.Code
			resp.Resources = append(resp.Resources, one)
		}
		return resp, nil, true
	})
	e := s.large("raise")
	s.until(e, "parked", stopped("orders", 0, "30"))
	if in := s.incident(e, mirror.KindRecordTooLarge); !strings.Contains(in.Action, "parked") || !strings.Contains(in.Action, "TOPIC_AUTHORIZATION_FAILED") {
		t.Errorf("%+v", in)
	}
	given.Store(true)
	if err := e.Resume(t.Context(), "east->west", "orders", mirror.ResumeOptions{Partition: 0}); err != nil {
		t.Fatal(err)
	}
	s.read("east.orders", 3)
}

// TestTooLargePark: the partition waits at that record, others flow; raised by
// hand, it goes on, at once when told to.
func TestTooLargePark(t *testing.T) {
	s := newSite(t, "orders", 2)
	e := s.large("park")
	s.until(e, "parked", stopped("orders", 0, "max.message.bytes"))
	if end := s.end("east.orders", 0); end != 1 {
		t.Errorf("it ends at %d", end)
	}
	if in := s.incident(e, mirror.KindRecordTooLarge); in.SourceOffset != 1 {
		t.Errorf("%+v", in)
	}
	if err := s.client(s.east).ProduceSync(t.Context(), &kgo.Record{Topic: "orders", Partition: 1, Value: []byte("y")}).FirstErr(); err != nil {
		t.Fatal(err)
	}
	s.until(e, "the other partition", func(status mirror.Status) bool { p, _ := partition(status, "orders", 1); return p.TargetEnd == 1 })
	if _, err := s.admin(s.west).AlterTopicConfigs(t.Context(), []kadm.AlterConfig{{Op: kadm.SetConfig, Name: "max.message.bytes", Value: new("1000000")}}, "east.orders"); err != nil {
		t.Fatal(err)
	}
	if err := e.Resume(t.Context(), "east->west", "orders", mirror.ResumeOptions{Partition: 0}); err != nil {
		t.Fatal(err)
	}
	s.read("east.orders", 3)
}

// TestTooLargeDeadLetter: the record stands untouched in the dead-letter topic,
// with where it came from; the others in the target.
func TestTooLargeDeadLetter(t *testing.T) {
	s := newSite(t, "orders", 2)
	e := s.large("dead_letter")
	letter := s.read("east.orders.dead-letter", 1)[0]
	if string(letter.Key) != "1" || len(letter.Value) != 30_000 || letter.Timestamp.UnixMilli() != 1_700_000_000_001 {
		t.Errorf("the record was touched: key %s, %d bytes, %v", letter.Key, len(letter.Value), letter.Timestamp)
	}
	headers := map[string]string{}
	for _, h := range letter.Headers {
		headers[h.Key] = string(h.Value)
	}
	if headers["kmirror.cause"] == "" {
		t.Error("no cause")
	}
	delete(headers, "kmirror.cause")
	if diff := cmp.Diff(map[string]string{
		"own": "header", "kmirror.flow": "east->west", "kmirror.source.topic": "orders", "kmirror.source.partition": "0",
		"kmirror.source.offset": "1", "kmirror.source.timestamp": "1700000000001",
	}, headers); diff != "" {
		t.Error(diff)
	}
	got := s.read("east.orders", 2)
	if string(got[0].Key) != "0" || string(got[1].Key) != "2" {
		t.Errorf("keys %s, %s", got[0].Key, got[1].Key)
	}
	if in := s.incident(e, mirror.KindDeadLetter); in.SourceOffset != 1 || in.Count != 1 {
		t.Errorf("%+v", in)
	}
	configs, err := s.admin(s.west).DescribeTopicConfigs(t.Context(), "east.orders.dead-letter")
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range configs[0].Configs {
		if c.Key == "retention.ms" && c.MaybeValue() != "-1" {
			t.Errorf("retention.ms is %s", c.MaybeValue())
		}
	}
	s.until(e, "in step", func(status mirror.Status) bool {
		p, _ := partition(status, "orders", 0)
		return p.State == "mirroring" && p.LagRecords == 0 && p.Position == 3
	})
	s.none(e, mirror.KindRecordTooLarge)
}

// TestTooLargeDeadLetterRefused: what even the dead-letter topic does not take
// parks the partition: nothing is skipped.
func TestTooLargeDeadLetterRefused(t *testing.T) {
	s := newSite(t, "orders", 2)
	if err := s.west.CreateTopic("east.orders.dead-letter", 1, map[string]string{"max.message.bytes": "20000"}); err != nil {
		t.Fatal(err)
	}
	s.west.ControlKey(int16(kmsg.IncrementalAlterConfigs), func(r kmsg.Request) (kmsg.Response, error, bool) {
		s.west.KeepControl()
		req := r.(*kmsg.IncrementalAlterConfigsRequest)
		resp := req.ResponseKind().(*kmsg.IncrementalAlterConfigsResponse)
		for _, asked := range req.Resources {
			one := kmsg.NewIncrementalAlterConfigsResponseResource()
			one.ResourceType, one.ResourceName, one.ErrorCode = asked.ResourceType, asked.ResourceName, kerr.TopicAuthorizationFailed.Code
			resp.Resources = append(resp.Resources, one)
		}
		return resp, nil, true
	})
	e := s.large("dead_letter")
	s.until(e, "parked", stopped("orders", 0, "set aside"))
	if end := s.end("east.orders", 0); end > 1 {
		t.Errorf("it went on to %d", end)
	}
	s.incident(e, mirror.KindRecordTooLarge)
}

// TestAuthorizationRevoked takes a right away on either side and gives it back:
// the partition waits, tells, and goes on by itself.
func TestAuthorizationRevoked(t *testing.T) {
	for _, tt := range []struct {
		side string
		key  kmsg.Key
	}{{"target", kmsg.Produce}, {"source", kmsg.Fetch}} {
		t.Run(tt.side, func(t *testing.T) {
			s := newSite(t, "orders", 1)
			e, _ := s.run()
			s.produce("orders", 1, 0, 20)
			s.mirrored("east.orders", 1, 20)
			cluster, topic := s.west, "east.orders"
			if tt.side == "source" {
				cluster, topic = s.east, "orders"
			}
			revoked := cluster.Fault(kfake.Fault{Keys: []kmsg.Key{tt.key}, Topic: topic, Err: kerr.TopicAuthorizationFailed, Count: -1})
			s.produce("orders", 1, 20, 20)
			if in := s.incident(e, mirror.KindAuthorization); in.Partition != 0 || in.Topic != "orders" {
				t.Errorf("%+v", in)
			}
			s.until(e, "it waits", func(status mirror.Status) bool {
				p, _ := partition(status, "orders", 0)
				return p.State == "waiting" && strings.Contains(p.Error, "grant")
			})
			revoked.Remove()
			s.mirrored("east.orders", 1, 40)
			s.until(e, "it flows", states("orders", "mirroring"))
		})
	}
}

// TestOutOfDisk: a target that cannot store is waited for, and told once.
func TestOutOfDisk(t *testing.T) {
	s := newSite(t, "orders", 1)
	e, _ := s.run()
	s.produce("orders", 1, 0, 20)
	s.mirrored("east.orders", 1, 20)
	full := s.west.Fault(kfake.Fault{Keys: []kmsg.Key{kmsg.Produce}, Topic: "east.orders", Err: kerr.KafkaStorageError, Count: -1})
	s.produce("orders", 1, 20, 20)
	in := s.incident(e, mirror.KindOutOfDisk)
	full.Remove()
	s.mirrored("east.orders", 1, 40)
	all := e.Incidents(in.ID - 1)
	if len(all) != 1 || all[0].Times != 1 {
		t.Errorf("told again and again: %+v", all)
	}
}

// TestForeignWrites: somebody else writes to the target topic. It is told, or
// stops the partition until accepted, or is as it should be.
func TestForeignWrites(t *testing.T) {
	for _, policy := range []string{"report", "stop", "ignore"} {
		t.Run(policy, func(t *testing.T) {
			s := newSite(t, "orders", 1)
			s.config = s.file("  - {from: east, to: west, fence: detect, heartbeats: false, policies: {foreign_writes: " + policy + "}}\n")
			e, _ := s.run()
			s.produce("orders", 1, 0, 20)
			s.mirrored("east.orders", 1, 20)
			if err := s.client(s.west).ProduceSync(t.Context(), &kgo.Record{Topic: "east.orders", Value: []byte("foreign")}).FirstErr(); err != nil {
				t.Fatal(err)
			}
			s.produce("orders", 1, 20, 1)
			if policy != "stop" {
				s.produce("orders", 1, 21, 1)
				s.read("east.orders", 23)
				if policy == "ignore" {
					s.none(e, mirror.KindForeignWrite)
				} else if in := s.incident(e, mirror.KindForeignWrite); in.TargetOffset != 20 || in.Count != 1 {
					t.Errorf("%+v", in)
				}
				return
			}
			s.until(e, "stopped", stopped("orders", 0, "something else writes"))
			s.incident(e, mirror.KindForeignWrite)
			s.produce("orders", 1, 21, 20)
			if err := e.Resume(t.Context(), "east->west", "orders", mirror.ResumeOptions{Partition: 0}); err != nil { // looks again, and accepts nothing
				t.Fatal(err)
			}
			s.until(e, "still stopped", stopped("orders", 0, "something else writes"))
			if end := s.end("east.orders", 0); end != 22 {
				t.Errorf("it went on to %d", end)
			}
			if err := e.Resume(t.Context(), "east->west", "orders", mirror.ResumeOptions{Partition: -1, Accept: mirror.KindForeignWrite}); err != nil {
				t.Fatal(err)
			}
			s.read("east.orders", 42)
		})
	}
}

// TestAccept: a partition that stopped because the source deleted records before
// they were mirrored goes on at once with the operator's word, and only that
// partition, and only once.
func TestAccept(t *testing.T) {
	s := newSite(t, "orders", 2)
	_, stop := s.run()
	s.produce("orders", 2, 0, 20)
	s.mirrored("east.orders", 2, 20)
	stop()
	s.produce("orders", 2, 20, 20)
	for p := range int32(2) {
		if err := s.east.DeleteRecords("orders", p, 30); err != nil {
			t.Fatal(err)
		}
	}
	e, stop := s.run()
	for p := range 2 {
		s.until(e, "stopped", stopped("orders", p, "--accept retention-loss"))
	}
	if err := e.Resume(t.Context(), "east->west", "orders", mirror.ResumeOptions{Partition: 1, Accept: mirror.KindSourceTruncated}); err != nil { // of another kind
		t.Fatal(err)
	}
	if err := e.Resume(t.Context(), "east->west", "orders", mirror.ResumeOptions{Partition: 0, Accept: mirror.KindRetentionLoss}); err != nil {
		t.Fatal(err)
	}
	s.until(e, "partition 0 in step", func(status mirror.Status) bool {
		p, _ := partition(status, "orders", 0)
		return p.State == "mirroring" && p.TargetEnd == 30
	})
	s.until(e, "partition 1 still stopped", stopped("orders", 1, "--accept retention-loss"))
	in := s.incident(e, mirror.KindRetentionLoss)
	if in.SourceOffset != 20 || in.Count != 10 {
		t.Errorf("the range is not told: %+v", in)
	}
	stop() // the acceptance is used up: it does not hold for the next loss
	s.produce("orders", 1, 40, 20)
	if err := s.east.DeleteRecords("orders", 0, 50); err != nil {
		t.Fatal(err)
	}
	e, _ = s.run()
	s.until(e, "stopped again", stopped("orders", 0, "begins at 50 and mirroring stands at 40"))
}

// TestRenameIsNoDeletion: a topic that gets another name at the target is filled
// anew there, and nobody deleted anything.
func TestRenameIsNoDeletion(t *testing.T) {
	s := newSite(t, "orders", 2)
	s.config = s.file("  - {from: east, to: west, fence: detect, heartbeats: false, topics: [orders], policies: {target_deleted: stop}}\n")
	e, _ := s.run()
	s.produce("orders", 2, 0, 20)
	s.mirrored("east.orders", 2, 20)
	if _, err := e.Reload(s.like("  - {from: east, to: west, fence: detect, heartbeats: false, topics: [orders], policies: {target_deleted: stop}, rename: [{from: orders, to: sales}]}\n")); err != nil {
		t.Fatal(err)
	}
	s.mirrored("east.sales", 2, 20)
	s.none(e, mirror.KindTargetDeleted)
	s.none(e, mirror.KindTargetTruncated)
}
