package checkpoint_test

import (
	"context"
	"runtime"
	"testing"
	"time"

	"kmirror/checkpoint"
	"kmirror/internal/wire"
)

// someRuns is a source with a marker behind every ten records.
func someRuns(tb testing.TB, n int) *checkpoint.Runs {
	runs := &checkpoint.Runs{}
	for i := range int64(n) {
		if err := runs.Add(checkpoint.Run{Source: 11 * i, Target: 10 * i, Count: 10}); err != nil {
			tb.Fatal(err)
		}
	}
	return runs
}

func BenchmarkForward(b *testing.B) {
	runs := someRuns(b, 1_000_000)
	b.ReportAllocs()
	for i := int64(0); b.Loop(); i++ {
		if got := runs.Forward(i * 7919 % 11_000_000); got.Offset < 0 {
			b.Fatal(got)
		}
	}
}

// mapTopic is a MapTopic in memory that ends.
type mapTopic [checkpoint.MapPartitions][]wire.Record

func (m *mapTopic) write(k checkpoint.Key, blocks []checkpoint.Block) {
	p := k.MapPartition()
	for _, b := range blocks {
		rec := checkpoint.EncodeBlock(b)
		rec.Offset = int64(len(m[p]))
		m[p] = append(m[p], rec)
	}
}

func (m *mapTopic) ListOffset(context.Context, string, int32, int64) (int64, error) { return 0, nil }

func (m *mapTopic) Follow(ctx context.Context, _ string, partition int32, _ int64, caughtUp func(), fn func(wire.Record) error) error {
	for _, rec := range m[partition] {
		if err := fn(rec); err != nil {
			return err
		}
	}
	caughtUp()
	<-ctx.Done()
	return ctx.Err()
}

// load reads all of it into an index, and returns how long that took.
func (m *mapTopic) load(tb testing.TB) (*checkpoint.Index, time.Duration) {
	index := checkpoint.NewIndex(m, quiet())
	ctx, cancel := context.WithCancel(tb.Context())
	ended := make(chan error, 1)
	began := time.Now()
	go func() { ended <- index.Run(ctx) }()
	<-index.Ready()
	took := time.Since(began)
	cancel()
	if err := <-ended; err != nil {
		tb.Fatal(err)
	}
	return index, took
}

// partition is one of many.
func partition(i int) checkpoint.Key {
	k := key()
	k.Partition = int32(i)
	return k
}

// heap is what is in use after a collection.
func heap() int64 {
	var s runtime.MemStats
	runtime.GC()
	runtime.GC()
	runtime.ReadMemStats(&s)
	return int64(s.HeapAlloc)
}

// held returns the memory that an index of the topic takes.
func held(tb testing.TB, topic *mapTopic) (*checkpoint.Index, int64) {
	before := heap()
	index, _ := topic.load(tb)
	return index, heap() - before
}

// What the map takes in memory, as the heap has it, and that Stats is near it.
func TestTheMapIsSmallInMemory(t *testing.T) {
	if raceDetector {
		t.Skip("the race detector's memory would be counted")
	}
	for _, tt := range []struct {
		name             string
		partitions, runs int
		most             int64
	}{
		{"10 000 partitions with a run each", 10_000, 1, 20 << 20},
		{"10 000 partitions with 100 runs each", 10_000, 100, 40 << 20},
		{"one partition with 1 000 000 runs", 1, 1_000_000, 40 << 20},
	} {
		topic := &mapTopic{}
		blocks := someRuns(t, tt.runs)
		for i := range tt.partitions {
			topic.write(partition(i), blocks.Blocks(partition(i)))
		}
		index, bytes := held(t, topic)
		stats := index.Stats()
		t.Logf("%s: %.1f MB, by its own account %.1f MB", tt.name, float64(bytes)/1e6, float64(stats.Memory)/1e6)
		if bytes > tt.most || stats.Runs != tt.partitions*tt.runs || stats.Partitions != tt.partitions {
			t.Errorf("%s: %d bytes, want at most %d; %+v", tt.name, bytes, tt.most, stats)
		}
		if stats.Memory < bytes*2/3 || stats.Memory > bytes*3/2 {
			t.Errorf("%s: %d bytes by its own account, %d on the heap", tt.name, stats.Memory, bytes)
		}
		runtime.KeepAlive(index)
		runtime.KeepAlive(topic)
	}
}

// millionRecords is a MapTopic that compaction has not come to: the open blocks
// of a thousand partitions, written again and again as they grew.
func millionRecords(tb testing.TB) *mapTopic {
	topic := &mapTopic{}
	const partitions, flushes = 1000, 1000
	owners := make([]checkpoint.Runs, partitions)
	for f := range int64(flushes) {
		for i := range owners {
			if err := owners[i].Add(checkpoint.Run{Source: 110 * f, Target: 100 * f, Count: 100}); err != nil {
				tb.Fatal(err)
			}
			owners[i].Flush(partition(i), func(blocks []checkpoint.Block) bool {
				topic.write(partition(i), blocks)
				return false
			})
		}
	}
	return topic
}

// BenchmarkIndexStart reads a million records and more, of which most were
// replaced since.
func BenchmarkIndexStart(b *testing.B) {
	topic := millionRecords(b)
	for b.Loop() {
		index, took := topic.load(b)
		if t, ok := index.Translate("east->west", "orders", 999, 110*500); !ok || t.Offset != 100*500 {
			b.Fatal(t, ok)
		}
		b.ReportMetric(float64(index.Stats().Records)/took.Seconds(), "records/s")
	}
}

func BenchmarkTranslate(b *testing.B) {
	topic := &mapTopic{}
	blocks := someRuns(b, 100)
	for i := range 10_000 {
		topic.write(partition(i), blocks.Blocks(partition(i)))
	}
	index, _ := topic.load(b)
	b.ReportAllocs()
	for i := int64(0); b.Loop(); i++ {
		if t, ok := index.Translate("east->west", "orders", int32(i*7919%10_000), i%1100); !ok {
			b.Fatal(t)
		}
	}
}
