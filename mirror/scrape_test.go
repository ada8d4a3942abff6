package mirror

import (
	"context"
	"fmt"
	"log/slog"
	"maps"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/client_golang/prometheus"

	"kmirror/checkpoint"
	"kmirror/internal/kafka"
	"kmirror/internal/wire"
	"kmirror/topology"
)

// nobody is a Live that is not asked.
type nobody struct{ Live }

// carrying makes an engine that carries so many partitions of a flow, each of
// which has mirrored something. Nothing of it runs.
func carrying(tb testing.TB, topics, partitions int) (*Engine, *prometheus.Registry) {
	tb.Helper()
	text := "instance: me\nclusters:\n  east: {bootstrap: [east:9092]}\n  west: {bootstrap: [west:9092]}\nflows:\n  - {from: east, to: west}\n"
	config, err := topology.Parse("m.yaml", []byte(text), func(string) (string, bool) { return "", false })
	if err != nil {
		tb.Fatal(err)
	}
	config.DataDir = tb.TempDir()
	clusters := map[string]*kafka.Cluster{}
	for _, c := range config.Clusters {
		if clusters[c.Name], err = kafka.New(c, kafka.Options{ClientID: "test"}); err != nil {
			tb.Fatal(err)
		}
		tb.Cleanup(func() { _ = clusters[c.Name].Close() })
	}
	registry := prometheus.NewRegistry()
	e, err := New(Options{Topology: config, Clusters: clusters, Live: nobody{}, Registerer: registry})
	if err != nil {
		tb.Fatal(err)
	}
	l := &life{engine: e, id: "me", ctx: tb.Context(), assigned: newAssignment(0)}
	f := l.newFlow(config.Flows[0])
	close(f.orders.known)
	w := &world{byName: map[string]*topicPair{}}
	for n := range topics {
		name := fmt.Sprintf("topic-%05d", n)
		pair := &topicPair{source: &kafka.Topic{Name: name, Partitions: make([]kafka.Partition, partitions)}, targetName: "east." + name}
		w.topics, w.byName[name] = append(w.topics, pair), pair
		for p := range int32(partitions) {
			id := partitionID{f.cfg().Name, name, p}
			t := newTenure(f, id)
			t.state = stateMirroring
			t.lane = newLane(checkpoint.Key{Flow: id.Flow, Topic: name, Partition: p}, pair.targetName, [16]byte{}, 1, 0, origin{100, 100}, func() ladderLimits { return ladderLimits{} })
			t.lane.sourceEnd = 200
			t.lane.stats.records, t.lane.stats.bytes = 100, 10_000
			t.lane.stats.modes[modeReason{modeRaw, ""}] = 10
			t.lane.behindSince = time.Now()
			f.tenures[id] = &holding{tenure: t}
		}
	}
	f.discovery.current.Store(w)
	l.carried = []*carried{{flow: f}}
	e.life = l
	return e, registry
}

// What is asked for every second says the same in brief, and takes no memory for
// each partition.
func TestABriefReportSaysTheSame(t *testing.T) {
	e, _ := carrying(t, 20, 100)
	for id, h := range e.life.carried[0].tenures { // not all of them stand alike
		switch id.Partition % 10 {
		case 0:
			h.tenure.state, h.tenure.why = stateStopped, "by policy"
		case 1:
			h.tenure.lane = nil
		case 2:
			h.tenure.lane.acked, h.tenure.lane.lastStamp = 200, 1_700_000_000_000
		case 3:
			delete(e.life.carried[0].tenures, id)
		}
	}
	now := time.Now()
	full, fullFlows := e.describe(now, false)
	brief, briefFlows := e.describe(now, true)
	if len(full.Flows[0].Topics) != 20 || len(full.Flows[0].Topics[0].Partitions) != 100 {
		t.Fatalf("%+v", full.Flows[0])
	}
	for _, s := range []*Status{&full, &brief} {
		for i := range s.Flows[0].Topics {
			s.Flows[0].Topics[i].Partitions = nil
		}
	}
	if diff := cmp.Diff(full, brief); diff != "" {
		t.Error(diff)
	}
	for i, want := range fullFlows[0].topics {
		if got := briefFlows[0].topics[i]; !maps.Equal(got.states, want.states) || got.stats.records != want.stats.records || len(want.states) != 2 {
			t.Errorf("%s: %v and %d records, want %v and %d", want.status.Source, got.states, got.stats.records, want.states, want.stats.records)
		}
	}
	takes := func(brief bool) uint64 {
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		e.describe(now, brief)
		runtime.ReadMemStats(&after)
		return after.TotalAlloc - before.TotalAlloc
	}
	if short, long := takes(true), takes(false); short > long/3 {
		t.Errorf("%d bytes for 2000 partitions in brief, %d else", short, long)
	}
}

// The number of records that cannot be read falls when compaction takes some: what
// is falling is no counter.
func TestUnreadableRecordsAreAGauge(t *testing.T) {
	e, registry := carrying(t, 1, 1)
	index := checkpoint.NewIndex(unreadable{}, slog.New(slog.DiscardHandler))
	ctx, stop := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- index.Run(ctx) }()
	<-index.Ready()
	stop()
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	e.leading = &leader{indexes: map[string]*checkpoint.Index{"west": index}}
	families, err := registry.Gather()
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, f := range families {
		if strings.Contains(f.GetName(), "skipped") {
			got = append(got, fmt.Sprintf("%s %s %v", f.GetName(), f.GetType(), f.GetMetric()[0].GetGauge().GetValue()))
		}
	}
	if want := []string{fmt.Sprintf("kmirror_skipped_records GAUGE %d", checkpoint.MapPartitions)}; !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
}

// unreadable is a cluster whose offset map's topic holds a foreign record in each
// partition.
type unreadable struct{}

func (unreadable) ListOffset(context.Context, string, int32, int64) (int64, error) { return 0, nil }

func (unreadable) Follow(ctx context.Context, _ string, _ int32, _ int64, caughtUp func(), fn func(wire.Record) error) error {
	err := fn(wire.Record{Key: []byte("who are you")})
	caughtUp()
	<-ctx.Done()
	return err
}

// BenchmarkScrape gathers the metrics of an instance that carries much.
func BenchmarkScrape(b *testing.B) {
	for _, size := range []struct{ topics, partitions int }{{100, 1000}, {10_000, 10}} {
		_, registry := carrying(b, size.topics, size.partitions)
		b.Run(fmt.Sprintf("%d topics of %d partitions", size.topics, size.partitions), func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				if _, err := registry.Gather(); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

// BenchmarkDescribe is what every second takes, and every request for the status.
func BenchmarkDescribe(b *testing.B) {
	for _, size := range []struct{ topics, partitions int }{{100, 1000}, {10_000, 10}} {
		e, _ := carrying(b, size.topics, size.partitions)
		b.Run(fmt.Sprintf("%d topics of %d partitions", size.topics, size.partitions), func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				e.describe(time.Now(), true)
			}
		})
	}
}
