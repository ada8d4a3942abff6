package integration_test

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
)

// TestBackFromTheTail has a consumer read the copy at its end, while records flow, and
// leave. It is in step when the source's group stands at the same record, and not
// before: as the daemon has it, as a look straight at the clusters has it, and when the
// daemon was killed in just that moment.
func TestBackFromTheTail(t *testing.T) {
	const group = "tail"
	w := newWorld(t)
	w.run("clusters", serverOnly)
	d := w.run("main", strings.Replace(mirrorOnly, "start: earliest", "start: earliest, group_sync: {failback: true}", 1))
	w.create("east", "orders", 1)
	producer := w.client("east", kgo.DefaultProduceTopic("orders"), kgo.ProducerLinger(0))
	ctx := w.ctx(2 * time.Minute)
	done, stopped := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(stopped)
		for tick := time.NewTicker(20 * time.Millisecond); ; {
			select {
			case <-tick.C:
				producer.Produce(ctx, kgo.StringRecord("record"), nil)
			case <-done:
				tick.Stop()
				return
			}
		}
	}()
	w.commit("east", group, "orders", map[int32]int64{0: 0})
	d.groupBecomes(w, "east->west", group, "in-step")
	returning := 0
	// The copy has what the source has, so both count alike.
	placed := func(g groupShown) error {
		if len(g.Partitions) != 1 {
			return fmt.Errorf("%+v", g)
		}
		switch p := g.Partitions[0]; {
		case p.State == "returning":
			returning++
		case p.State == "in-step" && p.SourceOffset != p.TargetOffset:
			t.Errorf("in step, with the source at %d and the target at %d", p.SourceOffset, p.TargetOffset)
		}
		return nil
	}
	looked := func() error {
		var answer struct{ Groups []groupShown }
		if err := json.Unmarshal([]byte(d.mustKmirror("groups", "east->west", group, "-o", "json")), &answer); err != nil {
			return err
		}
		if len(answer.Groups) != 1 {
			return fmt.Errorf("%+v", answer)
		}
		return placed(answer.Groups[0])
	}
	for round := range 4 {
		at := w.tail(group)
		if round == 3 {
			d.kill()
		}
		for end := time.Now().Add(3 * time.Second); time.Now().Before(end); time.Sleep(10 * time.Millisecond) {
			if err := looked(); err != nil {
				t.Fatal(err)
			}
			if round < 3 {
				g, err := d.group("east->west", group)
				if err == nil {
					err = placed(g)
				}
				if err != nil {
					t.Fatal(err)
				}
			}
		}
		if round == 3 {
			d.start()
			d.ready(30 * time.Second)
		}
		eventually(t, 20*time.Second, "the source's group follows", func() error {
			if here := w.committed(w.admin("east"), group, "orders")[0]; here != at {
				return fmt.Errorf("it stands at %d, want %d", here, at)
			}
			return nil
		})
		t.Logf("round %d: back at %d; seen on its way %d times", round, at, returning)
	}
	close(done)
	<-stopped
	if returning == 0 {
		t.Error("it was never seen on its way")
	}
}

// tail has a member read the copy for a while, and leave: it returns where.
func (w *world) tail(group string) (at int64) {
	w.t.Helper()
	client := w.client("west", kgo.ConsumeTopics("east.orders"), kgo.ConsumerGroup(group), kgo.DisableAutoCommit(), kgo.FetchMaxWait(50*time.Millisecond))
	for end := time.Now().Add(2 * time.Second); time.Now().Before(end); {
		fetches := client.PollFetches(w.ctx(10 * time.Second))
		if err := fetches.Err(); err != nil {
			w.t.Fatal(err)
		}
		if err := client.CommitUncommittedOffsets(w.ctx(10 * time.Second)); err != nil {
			w.t.Fatal(err)
		}
	}
	client.Close()
	return w.committed(w.admin("west"), group, "east.orders")[0]
}
