package checkpoint_test

import (
	"fmt"
	"slices"
	"testing"

	"kmirror/checkpoint"
	"kmirror/internal/wire"
)

// What is corrupt or foreign in MapTopic is passed over, counted, and the first
// of it is named; what stands around it counts.
func TestAnIndexCountsWhatItCannotRead(t *testing.T) {
	topic := &mapTopic{}
	k := key()
	p := k.MapPartition()
	topic.write(k, someRuns(t, 300).Blocks(k))
	good := topic[p][0]
	for i := range 20 {
		bad := good
		bad.Value = good.Value[:len(good.Value)-1-i]
		bad.Offset = int64(len(topic[p]))
		topic[p] = append(topic[p], bad)
	}
	other := (p + 1) % checkpoint.MapPartitions
	topic[other] = append(topic[other], wire.Record{Offset: 4711, Key: []byte("who are you"), Value: []byte("nobody")})
	index, _ := topic.load(t)
	stats := index.Stats()
	if stats.Records != int64(len(topic[p])+1) || stats.Skipped != 21 || stats.Runs != 300 || stats.Partitions != 1 {
		t.Errorf("got %+v", stats)
	}
	var named []string
	for _, f := range stats.Faults {
		named = append(named, fmt.Sprintf("%d@%d: %s", f.Partition, f.Offset, f.Reason))
	}
	if len(named) < 5 || len(named) > 10 {
		t.Errorf("named: %q", named)
	}
	if first := topic[p][3].Offset; !slices.Contains(named, fmt.Sprintf("%d@%d: value: bad varint", p, first)) {
		t.Errorf("%d@%d is not among %q", p, first, named)
	}
	if got, ok := index.Translate(k.Flow, k.Topic, k.Partition, 11*299); !ok || got.Offset != 10*299 {
		t.Errorf("got %+v, %v", got, ok)
	}
}

// A block of one partition may come in any order with those of its own, and the
// index does not take longer for it than it has to.
func TestAnIndexReadsAMapBackwards(t *testing.T) {
	topic := &mapTopic{}
	k := key()
	blocks := someRuns(t, 200_000).Blocks(k)
	slices.Reverse(blocks)
	topic.write(k, blocks)
	index, _ := topic.load(t)
	for i := int64(0); i < 200_000; i += 999 {
		if got, ok := index.Translate(k.Flow, k.Topic, k.Partition, 11*i+10); !ok || !got.Exact || got.Offset != 10*i+10 {
			t.Fatalf("%d: got %+v, %v", 11*i+10, got, ok)
		}
	}
}

// BenchmarkStats asks for the figures of a large index, as each scrape does.
func BenchmarkStats(b *testing.B) {
	for _, size := range []struct{ partitions, runs int }{{100_000, 1}, {100_000, 10}, {1_000, 1_000}} {
		topic := &mapTopic{}
		runs := someRuns(b, size.runs)
		for i := range size.partitions {
			topic.write(partition(i), runs.Blocks(partition(i)))
		}
		index, _ := topic.load(b)
		b.Run(fmt.Sprintf("%d partitions with %d runs", size.partitions, size.runs), func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				if s := index.Stats(); s.Partitions != size.partitions {
					b.Fatalf("%+v", s)
				}
			}
		})
	}
}
