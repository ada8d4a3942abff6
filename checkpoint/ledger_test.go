package checkpoint_test

import (
	"errors"
	"math"
	"testing"

	"pgregory.net/rapid"

	"kmirror/checkpoint"
	"kmirror/internal/wire"
)

// A long history of one epoch, anywhere around the wrap of the sequence: every
// sequence carries what the oracle, a plain list, says.
func TestLedgerKnowsWhatEverySequenceCarries(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		first := rapid.OneOf(rapid.Int32Range(0, 20), rapid.Int32Range(math.MaxInt32-150, math.MaxInt32)).Draw(t, "first")
		source := rapid.Int64Range(0, 1<<50).Draw(t, "source")
		var (
			ledger checkpoint.Ledger
			oracle []int64 // source offset of sequence first+i
			anchor = checkpoint.Anchor{ProducerID: 5, Epoch: 1}
		)
		for range rapid.IntRange(1, 30).Draw(t, "stretches") {
			anchor.Steps = append(anchor.Steps, checkpoint.Step{Sequence: wrap(first, len(oracle)), Source: source})
			for range rapid.IntRange(1, 20).Draw(t, "records") {
				oracle = append(oracle, source)
				source++
			}
			source += rapid.Int64Range(0, 1000).Draw(t, "hole")
			if rapid.Bool().Draw(t, "written") {
				ledger.Add(throughTheTopic(t, anchor))
				if rapid.Bool().Draw(t, "twice") {
					ledger.Add(throughTheTopic(t, anchor))
				}
				anchor.Steps = nil
			}
		}
		if len(anchor.Steps) > 0 {
			ledger.Add(anchor)
		}
		for i, want := range oracle {
			got, ok := ledger.Source(5, 1, wrap(first, i))
			if !ok || got != want {
				t.Fatalf("sequence %d: got %d, %v; want %d", wrap(first, i), got, ok, want)
			}
		}
		if _, ok := ledger.Source(5, 1, wrap(first, -1)); ok {
			t.Fatal("the sequence before the first anchor carries nothing")
		}
		if _, ok := ledger.Source(5, 2, first); ok || ledger.Owns(5, 2) || ledger.Owns(6, 1) || !ledger.Owns(5, 1) {
			t.Fatal("another epoch is none of ours")
		}

		// Batches of any size are taken apart at the steps.
		from := rapid.IntRange(0, len(oracle)-1).Draw(t, "from")
		size := rapid.IntRange(1, len(oracle)-from).Draw(t, "size")
		runs, err := ledger.Runs(batch(t, 777, 5, 1, wrap(first, from), size))
		if err != nil {
			t.Fatal(err)
		}
		i, target := from, int64(777)
		for _, r := range runs {
			if r.Target != target {
				t.Fatalf("run %+v, want target %d", r, target)
			}
			for n := range r.Count {
				if oracle[i] != r.Source+n {
					t.Fatalf("record %d of the batch: got source %d, want %d", i-from, r.Source+n, oracle[i])
				}
				i, target = i+1, target+1
			}
		}
		if i != from+size {
			t.Fatalf("%d of %d records", i-from, size)
		}
	})
}

func throughTheTopic(t *rapid.T, a checkpoint.Anchor) checkpoint.Anchor {
	got, err := checkpoint.Decode(checkpoint.EncodeAnchor(a))
	if err != nil {
		t.Fatal(err)
	}
	return got.(checkpoint.Anchor)
}

// wrap is Kafka's incrementSequence, as its Java writes it.
func wrap(sequence int32, n int) int32 {
	if n >= 0 && sequence > math.MaxInt32-int32(n) {
		return int32(n) - (math.MaxInt32 - sequence) - 1
	}
	if sequence += int32(n); sequence < 0 {
		return sequence + math.MaxInt32 + 1
	}
	return sequence
}

type fataler interface{ Fatal(args ...any) }

func batch(t fataler, base, producerID int64, epoch int16, sequence int32, n int) wire.Batch {
	records := make([]wire.Record, n)
	for i := range records {
		records[i].Offset = base + int64(i)
	}
	b, err := wire.EncodeBatch(nil, records, wire.BatchOptions{ProducerID: producerID, ProducerEpoch: epoch, BaseSequence: sequence, LeaderEpoch: -1})
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func TestLedgerLoops(t *testing.T) {
	// Two full laps with an anchor every 2^30 records: each replaces nothing.
	var ledger checkpoint.Ledger
	for i := range int64(5) {
		ledger.Add(checkpoint.Anchor{ProducerID: 1, Steps: []checkpoint.Step{{Sequence: int32(i << 30 & math.MaxInt32), Source: i<<30 + 100}}})
	}
	for sequence, want := range map[int32]int64{
		0:             4<<30 + 100, // the newest lap
		1 << 30:       5<<30 + 100, // 2^30 beyond the last anchor, the furthest there can be
		1<<30 + 1:     3<<30 + 101, // and here the lap before begins
		math.MaxInt32: 4<<30 + 99,
	} {
		if got, ok := ledger.Source(1, 0, sequence); !ok || got != want {
			t.Errorf("sequence %d: got %d, %v; want %d", sequence, got, ok, want)
		}
	}
}

func TestEpochStart(t *testing.T) {
	var ledger checkpoint.Ledger
	if _, ok := ledger.EpochStart(); ok {
		t.Error("an empty ledger has no start")
	}
	ledger.Add(checkpoint.Anchor{ProducerID: 1, Epoch: 0, Steps: []checkpoint.Step{{Sequence: 0, Source: 10}, {Sequence: 5, Source: 90}}})
	ledger.Add(checkpoint.Anchor{ProducerID: 1, Epoch: 1, Steps: []checkpoint.Step{{Sequence: 0, Source: 40}}})
	if got, ok := ledger.EpochStart(); !ok || got != 40 {
		t.Errorf("got %d, %v; want 40", got, ok)
	}
	ledger.Add(checkpoint.Anchor{ProducerID: 2, Steps: []checkpoint.Step{{Sequence: 0, Source: 3}}})
	if got, ok := ledger.EpochStart(); !ok || got != 3 {
		t.Errorf("the newest epoch began at %d, %v; want 3", got, ok)
	}
	if got := ledger.Producers(); len(got) != 3 || got[0] != (checkpoint.Producer{ID: 1}) {
		t.Errorf("producers %v", got)
	}
}

func TestUnanchoredBatch(t *testing.T) {
	var ledger checkpoint.Ledger
	ledger.Add(checkpoint.Anchor{ProducerID: 1, Epoch: 2, Steps: []checkpoint.Step{{Sequence: 10, Source: 100}}})
	var fault *checkpoint.UnanchoredError
	if _, err := ledger.Runs(batch(t, 50, 1, 2, 9, 3)); !errors.As(err, &fault) || fault.Target != 50 {
		t.Errorf("got %v, want an UnanchoredError at 50", err)
	}
	if runs, err := ledger.Runs(batch(t, 50, 1, 3, 9, 3)); len(runs) > 0 || err != nil {
		t.Errorf("a stranger's batch: got %v, %v", runs, err)
	}
}
