package mirror

import (
	"context"
	"math/rand/v2"
	"testing"
	"time"

	"pgregory.net/rapid"

	"kmirror/internal/kafka"
	"kmirror/internal/wire"
)

// countedReader counts fetches.
type countedReader struct {
	partitionReader
	fetches int
	size    int32 // at most so much is asked for; 0: as it is
}

func (c *countedReader) Fetch(ctx context.Context, topic string, partition int32, offset int64, maxBytes int32, committed bool, maxWait time.Duration) (kafka.FetchResult, error) {
	c.fetches++
	if c.size > 0 {
		maxBytes = min(maxBytes, c.size)
	}
	return c.partitionReader.Fetch(ctx, topic, partition, offset, maxBytes, committed, maxWait)
}

// Whatever offsets are asked for in whatever order, the cursor finds what holds them;
// in order of the log it reads it once.
func TestCursor(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		log, _ := randomSource(rand.New(rand.NewPCG(rapid.Uint64().Draw(t, "log"), 1)), rapid.IntRange(1, 120).Draw(t, "records"))
		random := rand.New(rand.NewPCG(2, 3))
		var from partitionReader = log
		quota := rapid.IntRange(0, 3).Draw(t, "quota") == 0
		if quota { // answers are empty at times
			from = &throttled{log, random}
		}
		reader := &countedReader{partitionReader: from, size: rapid.SampledFrom([]int32{1, 300, 2000, 1 << 20}).Draw(t, "size")}
		c := newCursor(reader, "s", 0, log.end)
		ask := func(offset int64) {
			t.Helper()
			found, err := c.at(t.Context(), offset)
			if err != nil {
				t.Fatal(err)
			}
			var want wire.Batch
			for _, b := range log.batches {
				if b.LastOffset() >= offset {
					want = b
					break
				}
			}
			if (found == nil) != (want == nil) || found != nil && (found.first != want.BaseOffset() || found.last != want.LastOffset()) {
				t.Fatalf("at %d: %+v, want the batch at %v", offset, found, want)
			}
			if found == nil || want.IsControl() {
				return
			}
			recs, err := found.open()
			if err != nil || len(recs) != int(want.NumRecords()) {
				t.Fatalf("at %d: %d records, %v", offset, len(recs), err)
			}
		}
		step := rapid.Int64Range(1, 3).Draw(t, "step")
		for offset := int64(0); offset <= log.end; offset += step {
			ask(offset)
		}
		if !quota && reader.size == 1<<20 && reader.fetches > 1 {
			t.Fatalf("read %d times in order", reader.fetches)
		}
		for _, offset := range rapid.SliceOfN(rapid.Int64Range(0, log.end+2), 0, 20).Draw(t, "anywhere") {
			ask(offset)
		}
	})
}
