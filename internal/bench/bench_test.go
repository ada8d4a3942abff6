package bench_test

import (
	"context"
	"fmt"
	"os"
	"slices"
	"sync/atomic"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kmsg"

	"kmirror/internal/bench"
	"kmirror/internal/kafka"
	"kmirror/internal/wire"
	"kmirror/topology"
)

// fake is a broker of kfake's with the topics, and a client for it.
func fake(t *testing.T, partitions int32, topics ...string) (*kfake.Cluster, *kafka.Cluster) {
	t.Helper()
	broker, err := kfake.NewCluster(kfake.NumBrokers(2), kfake.SeedTopics(partitions, topics...))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(broker.Close)
	cluster, err := kafka.New(&topology.Cluster{Name: "fake", Bootstrap: broker.ListenAddrs()}, kafka.Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = cluster.Close() })
	return broker, cluster
}

func TestFillWritesEveryRecordOnce(t *testing.T) {
	for _, w := range []bench.Workload{
		{Name: "batches", Codec: wire.CodecLZ4, Records: 5003, RecordSize: 1024, BatchSize: 64 << 10, Partitions: 3},
		{Name: "singles", Codec: wire.CodecNone, Records: 200, RecordSize: 100, Partitions: 3},
		{Name: "large", Codec: wire.CodecZstd, Records: 7, RecordSize: 500_000, BatchSize: 0, Partitions: 3},
	} {
		t.Run(w.Name, func(t *testing.T) {
			_, cluster := fake(t, w.Partitions, "load")
			var written atomic.Int64
			if err := w.Fill(t.Context(), cluster, "load", func(n int64) { written.Store(max(n, written.Load())) }); err != nil {
				t.Fatal(err)
			}
			keys := map[string]bool{}
			for partition := range w.Partitions {
				_, err := cluster.Read(t.Context(), "load", partition, 0, func(r wire.Record) error {
					keys[string(r.Key)] = true
					if len(r.Value) != w.RecordSize {
						t.Errorf("a value of %d bytes, want %d", len(r.Value), w.RecordSize)
					}
					return nil
				})
				if err != nil {
					t.Fatal(err)
				}
			}
			if n := int64(len(keys)); n != w.Records || written.Load() != w.Records {
				t.Errorf("%d records with keys of their own, %d told, want %d", n, written.Load(), w.Records)
			}
			log, err := bench.NewReader().Read(t.Context(), cluster, "load", nil)
			if err != nil {
				t.Fatal(err)
			}
			if total := log.Total(); total.Records != w.Records || w.BatchSize == 0 && total.Batches != w.Records {
				t.Errorf("%d records in %d batches, want %d", total.Records, total.Batches, w.Records)
			}
		})
	}
}

// A copy that differs in any way is found.
func TestCompareFindsEveryDifference(t *testing.T) {
	original := func() []wire.Record {
		var all []wire.Record
		for i := range 2500 {
			all = append(all, wire.Record{
				Offset: int64(i), Timestamp: 1000 + int64(i), Key: fmt.Appendf(nil, "k%d", i), Value: fmt.Appendf(nil, "v%d", i),
				Headers: []wire.Header{{Key: "h", Value: []byte{1}}},
			})
		}
		return all
	}
	copies := map[string]func([]wire.Record) []wire.Record{
		"same":      func(r []wire.Record) []wire.Record { return r },
		"lost":      func(r []wire.Record) []wire.Record { return slices.Delete(r, 1200, 1201) },
		"lost last": func(r []wire.Record) []wire.Record { return r[:len(r)-1] },
		"doubled":   func(r []wire.Record) []wire.Record { return slices.Insert(r, 5, r[4]) },
		"more":      func(r []wire.Record) []wire.Record { return append(r, r[0]) },
		"swapped":   func(r []wire.Record) []wire.Record { r[7], r[8] = r[8], r[7]; return r },
		"value":     func(r []wire.Record) []wire.Record { r[2499].Value = []byte("other"); return r },
		"null":      func(r []wire.Record) []wire.Record { r[3].Key = nil; return r },
		"empty":     func(r []wire.Record) []wire.Record { r[3].Key = []byte{}; return r },
		"time":      func(r []wire.Record) []wire.Record { r[3].Timestamp++; return r },
		"header":    func(r []wire.Record) []wire.Record { r[3].Headers = nil; return r },
		"boundary":  func(r []wire.Record) []wire.Record { r[3].Key, r[3].Value = []byte("k3v"), []byte("3"); return r },
	}
	topics := []string{"original"}
	for name := range copies {
		topics = append(topics, "copy-"+fmt.Sprintf("%x", name))
	}
	_, cluster := fake(t, 1, topics...)
	write := func(topic string, records []wire.Record) {
		t.Helper()
		// Batches of another size are no difference.
		size := 100 + len(topic)
		for chunk := range slices.Chunk(records, size) {
			if _, err := cluster.Append(t.Context(), topic, 0, chunk); err != nil {
				t.Fatal(err)
			}
		}
	}
	write("original", original())
	reader := bench.NewReader()
	source, err := reader.Read(t.Context(), cluster, "original", nil)
	if err != nil {
		t.Fatal(err)
	}
	for name, change := range copies {
		topic := "copy-" + fmt.Sprintf("%x", name)
		write(topic, change(original()))
		mirrored, err := reader.Read(t.Context(), cluster, topic, nil)
		if err != nil {
			t.Fatal(err)
		}
		if what := source.Compare(mirrored); (what == "") != (name == "same") {
			t.Errorf("%s: %q", name, what)
		}
	}
}

// A broker that answers nothing for a while holds up the load with it; every
// record that was due meanwhile has waited, and the figures say so.
func TestPulseCountsTheRecordsThatHadToWait(t *testing.T) {
	broker, cluster := fake(t, 2, "pulse")
	const stall = 400 * time.Millisecond
	var requests atomic.Int64
	broker.ControlKey(int16(kmsg.Produce), func(kmsg.Request) (kmsg.Response, error, bool) {
		broker.KeepControl()
		if requests.Add(1) == 100 {
			time.Sleep(stall) // kfake serves one request at a time: all stands still
		}
		return nil, nil, false
	})
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	p := bench.Pulse{Rate: 500, Size: 100, Length: 2 * time.Second, Partitions: 2}
	latency, err := p.Run(ctx, cluster, "pulse", cluster, "pulse")
	if err != nil {
		t.Fatal(err)
	}
	if latency.Records != 1000 {
		t.Errorf("%d records counted, want 1000", latency.Records)
	}
	// 200 of the 1000 were due in the stall, evenly: a tenth waited for half of it or more.
	if latency.Max < stall*9/10 || latency.P99 < stall*3/4 {
		t.Errorf("max %v, p99 %v with a stall of %v", latency.Max, latency.P99, stall)
	}
	if latency.P50 > latency.P99 || latency.P99 > latency.P999 || latency.P999 > latency.Max {
		t.Errorf("quantiles do not ascend: %+v", latency)
	}
}

func TestWatchSeesACopyGrow(t *testing.T) {
	_, cluster := fake(t, 2, "copy")
	w := bench.Workload{Name: "x", Records: 3000, RecordSize: 100, BatchSize: 10_000, Partitions: 2}
	filled := make(chan error, 1)
	go func() { filled <- w.Fill(t.Context(), cluster, "copy", func(int64) {}) }()
	copied, err := bench.Watch{Cluster: cluster, Topic: "copy", Records: 3000, WarmUp: .1}.Run(t.Context(), time.Now())
	if err != nil {
		t.Fatal(err)
	}
	if err := <-filled; err != nil {
		t.Fatal(err)
	}
	if copied.Whole < copied.First || copied.Steady.Wall > copied.Whole || copied.Steady.Share > .9 {
		t.Errorf("%+v", copied)
	}
}

func TestUsageOfThisProcess(t *testing.T) {
	before, err := bench.UsageOf(os.Getpid())
	if err != nil {
		t.Skip(err)
	}
	sum := uint64(1)
	for began := time.Now(); time.Since(began) < 50*time.Millisecond; {
		sum = sum*3 + 1
	}
	after, err := bench.UsageOf(os.Getpid())
	if used := after.Sub(before).CPU(); err != nil || used <= 0 || used > time.Minute {
		t.Errorf("used %v, %v (%d)", used, err, sum)
	}
	memory, err := bench.MemoryOf(os.Getpid())
	if err != nil || memory.Resident < 1<<20 || memory.Peak < memory.Resident {
		t.Errorf("memory %+v, %v", memory, err)
	}
}
