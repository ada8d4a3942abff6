package checkpoint

import (
	"math"
	"testing"

	"pgregory.net/rapid"

	"kmirror/internal/kafka"
	"kmirror/internal/wire"
)

// While a log and the maps grow, or are cut off, what is known about the partition
// is what its batches say.
func TestBeyond(t *testing.T) {
	const oursID = 7
	wrote := func(producerID int64) bool { return producerID == oursID }
	rapid.Check(t, func(t *rapid.T) {
		var log []wire.Batch
		end := int64(0)
		to := reach{passed: math.MaxInt64}
		shared := rapid.Bool().Draw(t, "shared")
		if shared {
			to.passed = 0
		}
		b := &beyond{}
		for range rapid.IntRange(1, 60).Draw(t, "steps") {
			switch rapid.IntRange(0, 5).Draw(t, "step") {
			case 0, 1:
				n := rapid.IntRange(1, 5).Draw(t, "records")
				o := wire.BatchOptions{ProducerID: rapid.SampledFrom([]int64{oursID, 8}).Draw(t, "who"), LeaderEpoch: -1}
				batch, err := wire.EncodeBatch(nil, make([]wire.Record, n), o)
				if err != nil {
					t.Fatal(err)
				}
				batch.SetBaseOffset(end)
				log, end = append(log, batch), batch.LastOffset()+1
			case 2:
				end += rapid.Int64Range(0, 3).Draw(t, "hole")
			case 3:
				to.mapped = min(end, to.mapped+rapid.Int64Range(0, 8).Draw(t, "mapped"))
				if shared {
					to.passed = min(end, to.passed+rapid.Int64Range(0, 8).Draw(t, "passed"))
				}
			case 4:
				if rapid.IntRange(0, 9).Draw(t, "cut") == 0 {
					to.mapped = max(0, to.mapped-rapid.Int64Range(0, 8).Draw(t, "back"))
				}
			default:
				target := rapid.Int64Range(0, end+3).Draw(t, "target")
				want := aheadNothing
				for _, batch := range log {
					if !to.holds(batch.LastOffset(), wrote(batch.ProducerID())) && max(batch.BaseOffset(), to.lowest()) < target {
						want = aheadSomething
					}
				}
				if b.begin(to); target <= to.lowest() {
					continue
				}
				b.end = false
				fetches := 0
				for ; b.before(target) == aheadUnknown; fetches++ {
					if fetches > 2*len(log)+beyondEmpty {
						t.Fatalf("no end: %+v", b)
					}
					got := kafka.FetchResult{HighWatermark: end}
					for _, batch := range log {
						if batch.LastOffset() >= b.next && len(got.Records) < 100 {
							got.Records = append(got.Records, batch...)
						}
					}
					if err := b.take(got, wrote); err != nil {
						t.Fatal(err)
					}
				}
				if got := b.before(target); got != want {
					t.Fatalf("before %d, with maps up to %+v: got %d, want %d: %+v", target, to, got, want, b)
				}
			}
		}
	})
}
