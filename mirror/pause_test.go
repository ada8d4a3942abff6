package mirror_test

import (
	"strings"
	"testing"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kfake"

	"kmirror/mirror"
)

// create makes a topic on a fake cluster.
func (s *site) create(c *kfake.Cluster, topic string, partitions int32) {
	s.t.Helper()
	if err := c.CreateTopic(topic, partitions, nil); err != nil {
		s.t.Fatal(err)
	}
}

// end is the end offset of a partition at the target.
func (s *site) end(topic string, partition int32) int64 {
	s.t.Helper()
	ends, err := kadm.NewClient(s.client(s.west)).ListEndOffsets(s.t.Context(), topic)
	if err != nil {
		s.t.Fatal(err)
	}
	o, ok := ends.Lookup(topic, partition)
	if !ok || o.Err != nil {
		s.t.Fatalf("end of %s/%d: %v", topic, partition, o.Err)
	}
	return o.Offset
}

// states says that all partitions of a topic are in a state.
func states(topic, state string) func(mirror.Status) bool {
	return func(status mirror.Status) bool {
		for n := 0; ; n++ {
			p, ok := partition(status, topic, n)
			if !ok {
				return n > 0
			}
			if p.State != state {
				return false
			}
		}
	}
}

// TestPauseTopic: a paused topic stands still while others flow, also for
// another instance's command, after a restart and on the instance that takes
// over; resumed, it goes on where it stood.
func TestPauseTopic(t *testing.T) {
	s := newSite(t, "orders", 2)
	s.create(s.east, "other", 2)
	town := newTown()
	s.live = citizen{town, "a"}
	a, stopA := s.run()
	s.live = citizen{town, "b"}
	b, _ := s.run()
	s.produce("orders", 2, 0, 50)
	s.produce("other", 2, 0, 50)
	s.mirrored("east.orders", 2, 50)
	s.mirrored("east.other", 2, 50)

	if err := b.Pause(t.Context(), "east->west", "orders"); err != nil {
		t.Fatal(err)
	}
	for _, e := range []*mirror.Engine{a, b} {
		s.until(e, "orders paused", states("orders", "paused"))
		p, _ := partition(e.Status(), "orders", 0)
		if !strings.Contains(p.Error, "paused by command") {
			t.Errorf("it does not say by whom: %q", p.Error)
		}
	}
	s.produce("orders", 2, 50, 50)
	s.produce("other", 2, 50, 50)
	s.mirrored("east.other", 2, 100)

	stopA() // b takes over, another a comes
	s.until(b, "the one left has all", func(status mirror.Status) bool { return len(status.Members) == 1 })
	s.live = citizen{town, "a"}
	a, _ = s.run()
	s.produce("other", 2, 100, 50)
	s.mirrored("east.other", 2, 150)
	for n := range int32(2) {
		if end := s.end("east.orders", n); end != 50 {
			t.Errorf("orders/%d went on to %d though it is paused", n, end)
		}
	}
	if err := a.Resume(t.Context(), "east->west", "orders", mirror.ResumeOptions{Partition: -1}); err != nil {
		t.Fatal(err)
	}
	s.mirrored("east.orders", 2, 100)
}

// TestPauseFlow: a whole flow pauses, shows it, and is no flow that is down; a
// topic of it is not resumed alone.
func TestPauseFlow(t *testing.T) {
	s := newSite(t, "orders", 2)
	e, stop := s.run()
	s.produce("orders", 2, 0, 20)
	s.mirrored("east.orders", 2, 20)
	if err := e.Pause(t.Context(), "east->west", ""); err != nil {
		t.Fatal(err)
	}
	paused := func(status mirror.Status) bool { return status.Flows[0].State == "paused" }
	s.until(e, "the flow paused", paused)
	err := e.Resume(t.Context(), "east->west", "orders", mirror.ResumeOptions{Partition: -1})
	if err == nil || !strings.Contains(err.Error(), "whole flow") {
		t.Errorf("resume of a topic: %v", err)
	}
	stop()
	s.produce("orders", 2, 20, 20)
	e, _ = s.run()
	s.until(e, "the flow paused after a restart", paused)
	if end := s.end("east.orders", 0); end != 20 {
		t.Errorf("it went on to %d", end)
	}
	if err := e.Resume(t.Context(), "east->west", "", mirror.ResumeOptions{Partition: -1}); err != nil {
		t.Fatal(err)
	}
	s.mirrored("east.orders", 2, 40)
}

// TestPauseRefused: what cannot be paused or resumed says why.
func TestPauseRefused(t *testing.T) {
	s := newSite(t, "orders", 1)
	s.yaml("instance: test\nclusters:\n  east: {bootstrap: [%q]}\n  west: {bootstrap: [%q]}\nflows:\n  - {from: east, to: west, heartbeats: false, fence: detect, exclude_topics: [secret], topic_rules: [{topics: [orders], paused: true}]}\n",
		s.east.ListenAddrs()[0], s.west.ListenAddrs()[0])
	e, _ := s.run()
	s.until(e, "orders paused by the file", func(status mirror.Status) bool {
		p, ok := partition(status, "orders", 0)
		return ok && p.State == "paused" && strings.Contains(p.Error, "mirror.yaml")
	})
	for what, tt := range map[string]struct {
		do   func() error
		want string
	}{
		"a flow that is not there": {func() error { return e.Pause(t.Context(), "west->east", "") }, "no flow"},
		"a topic left out":         {func() error { return e.Pause(t.Context(), "east->west", "secret") }, "excluded"},
		"paused by the file": {func() error {
			return e.Resume(t.Context(), "east->west", "orders", mirror.ResumeOptions{Partition: -1})
		}, "mirror.yaml"},
		"an unknown kind": {func() error {
			return e.Resume(t.Context(), "east->west", "others", mirror.ResumeOptions{Partition: -1, Accept: "anything"})
		}, mirror.KindRetentionLoss},
		"accept without a topic": {func() error {
			return e.Resume(t.Context(), "east->west", "", mirror.ResumeOptions{Accept: mirror.KindRetentionLoss})
		}, "which topic"},
	} {
		if err := tt.do(); err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: %v", what, err)
		}
	}
}
