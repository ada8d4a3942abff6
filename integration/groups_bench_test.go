package integration_test

import (
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
)

// BenchmarkGroups commits for many groups of many partitions at the source, each
// every five seconds, and measures when a commit has arrived at the target:
// BENCH_GROUPS groups (100) of BENCH_PARTITIONS partitions (100), from Apache
// Kafka with BENCH_KAFKA=1, else between embedded clusters.
func BenchmarkGroups(b *testing.B) {
	number := func(name string, usual int) int {
		if n, err := strconv.Atoi(os.Getenv(name)); err == nil {
			return n
		}
		return usual
	}
	groups, partitions := number("BENCH_GROUPS", 100), int32(number("BENCH_PARTITIONS", 100))
	w := newWorld(b)
	config := twoClusters
	var broker *process
	if os.Getenv("BENCH_KAFKA") == "1" {
		broker = w.kafka("east")
		config = `
clusters:
  east: {bootstrap: [{{addr "east"}}]}
  west: {embedded: {nodes: [{{addr "west"}}]}}
flows:
  - {from: east, to: west, topics: [".*"], naming: prefixed, start: earliest}
`
	}
	d := w.run("main", config)
	h := newHistory("orders", partitions, 20)
	w.create("east", "orders", partitions)
	w.write("east", h, 100)
	w.mirrored("east", "orders", "west", "east.orders")

	for b.Loop() {
		w.groupsFollow(b, d, broker, groups, partitions)
	}
}

// groupsFollow runs the groups until 200 commits have arrived, one after another.
func (w *world) groupsFollow(b *testing.B, d *daemon, broker *process, groups int, partitions int32) {
	east, west := w.admin("east"), w.admin("west")
	name := func(i int) string { return fmt.Sprint("group-", i) }
	commit := func(i int, at int64) {
		all := kadm.Offsets{}
		for p := range partitions {
			all.Add(kadm.Offset{Topic: "orders", Partition: p, At: at, LeaderEpoch: -1})
		}
		if err := east.CommitAllOffsets(w.ctx(20*time.Second), name(i), all); err != nil {
			b.Fatal(err)
		}
	}
	for i := range groups {
		commit(i, 1)
	}
	eventually(b, 2*time.Minute, "all groups in the west", func() error {
		if at := w.committed(west, name(groups-1), "east.orders"); len(at) < int(partitions) {
			return fmt.Errorf("%d partitions", len(at))
		}
		return nil
	})
	time.Sleep(5 * time.Second)
	used := func(p *process) float64 {
		if p == nil {
			return 0
		}
		return processorSeconds(b, p.cmd.Process.Pid)
	}
	ours, theirs := used(d.process), used(broker)
	const probes, every = 20, 5 * time.Second
	quit := make(chan struct{})
	var running sync.WaitGroup
	running.Go(func() {
		ticker := time.NewTicker(every / time.Duration(groups))
		defer ticker.Stop()
		for turn := 0; ; turn++ {
			if i := turn % groups; i >= probes {
				commit(i, int64(2+turn/groups%50))
			}
			select {
			case <-ticker.C:
			case <-quit:
				return
			}
		}
	})
	began := time.Now()
	var took []time.Duration
	for turn := range 200 {
		i := turn % probes
		want := int64(10 + turn/probes)
		commit(i, want)
		since := time.Now()
		for w.committed(west, name(i), "east.orders")[partitions-1] != want {
			if time.Since(since) > 20*time.Second {
				b.Fatalf("group %d did not arrive", i)
			}
			time.Sleep(10 * time.Millisecond)
		}
		took = append(took, time.Since(since))
	}
	seconds := time.Since(began).Seconds()
	close(quit)
	running.Wait()
	slices.Sort(took)
	b.ReportMetric(took[len(took)/2].Seconds(), "p50-s")
	b.ReportMetric(took[len(took)*99/100].Seconds(), "p99-s")
	b.ReportMetric((used(d.process)-ours)/seconds, "cores")
	b.ReportMetric((used(broker)-theirs)/seconds, "source-cores")
	b.ReportMetric(0, "ns/op")
}

// processorSeconds is what a process has used of the processors; 0 where /proc
// does not tell.
func processorSeconds(b *testing.B, pid int) float64 {
	b.Helper()
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return 0
	}
	fields := strings.Fields(string(stat[strings.LastIndexByte(string(stat), ')')+1:]))
	ticks := 0
	for _, field := range fields[11:13] { // utime and stime, in hundredths
		n, err := strconv.Atoi(field)
		if err != nil {
			b.Fatal(err)
		}
		ticks += n
	}
	return float64(ticks) / 100
}
