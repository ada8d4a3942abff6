package checkpoint_test

import (
	"errors"
	"maps"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"kmirror/checkpoint"
	"kmirror/internal/wire"
)

// history is the oracle: what really stands where, record by record.
type history struct {
	source, target int64           // the next offsets
	forward        map[int64]int64 // source -> target of every mirrored record
	backward       map[int64]int64
	dealt          int64 // every source offset below has been dealt with
	cut            int64 // where the target was truncated last
}

func newHistory(t *rapid.T) *history {
	h := &history{
		source:  rapid.Int64Range(0, 30).Draw(t, "first source"),
		target:  rapid.Int64Range(0, 30).Draw(t, "first target"),
		forward: map[int64]int64{}, backward: map[int64]int64{},
	}
	h.dealt = h.source
	return h
}

// batch mirrors n records, after a hole in the source and what strangers wrote
// to the target, and returns its run.
func (h *history) batch(t *rapid.T) checkpoint.Run {
	h.source += rapid.SampledFrom([]int64{0, 0, 0, 1, 7}).Draw(t, "hole")
	h.target += rapid.SampledFrom([]int64{0, 0, 0, 1, 5}).Draw(t, "strangers")
	run := checkpoint.Run{Source: h.source, Target: h.target, Count: rapid.Int64Range(1, 6).Draw(t, "records")}
	for range run.Count {
		h.forward[h.source], h.backward[h.target] = h.target, h.source
		h.source, h.target = h.source+1, h.target+1
	}
	h.dealt = h.source
	return run
}

// truncate takes from the target everything at or after an offset; the source
// is mirrored again from there.
func (h *history) truncate(target int64) {
	h.target, h.cut = target, target
	h.source, h.dealt = -1, -1
	for s, at := range h.forward {
		if at >= target {
			delete(h.forward, s)
			delete(h.backward, at)
		} else {
			h.source = max(h.source, s+1)
		}
	}
	h.dealt = h.source
}

// next returns where the first mirrored record at or after an offset stands,
// out of the sorted offsets that are mirrored.
func next(sorted []int64, m map[int64]int64, offset int64) (at int64, ok bool) {
	i, _ := slices.BinarySearch(sorted, offset)
	if i == len(sorted) {
		return 0, false
	}
	return m[sorted[i]], true
}

func ends(sorted []int64, m map[int64]int64) (first, end, endTo int64) {
	if len(sorted) == 0 {
		return -1, 0, 0
	}
	last := sorted[len(sorted)-1]
	return sorted[0], last + 1, m[last] + 1
}

// holdTranslations compares every offset, there and back, with the oracle.
func (h *history) holdTranslations(t *rapid.T, runs *checkpoint.Runs) {
	sorted := slices.Sorted(maps.Keys(h.forward))
	first, end, endTarget := ends(sorted, h.forward)
	for s := int64(0); s < end+20; s++ {
		got := runs.Forward(s)
		want := checkpoint.Translation{Offset: endTarget, Shortfall: max(0, s-max(end, h.dealt))}
		if at, ok := next(sorted, h.forward, s); ok {
			want.Offset = at
		}
		if len(h.forward) == 0 {
			want = checkpoint.Translation{Offset: -1}
		} else {
			want.Before = s < first
			want.Exact = !want.Before && want.Shortfall == 0
		}
		if s >= end && got.Offset > endTarget && got.Offset <= h.cut {
			want.Offset = got.Offset // the log was cut off behind what strangers wrote
		}
		if got != want {
			t.Fatalf("forward %d: got %+v, want %+v", s, got, want)
		}
		if _, mirrored := h.forward[s]; mirrored {
			if back := runs.Backward(got.Offset); back.Offset != s || !back.Exact {
				t.Fatalf("%d -> %d -> %+v", s, got.Offset, back)
			}
		}
	}
	sorted = slices.Sorted(maps.Keys(h.backward))
	first, end, endSource := ends(sorted, h.backward)
	for o := int64(0); o < end+20; o++ {
		got := runs.Backward(o)
		want := checkpoint.Translation{Offset: endSource, Shortfall: max(0, o-end)}
		if at, ok := next(sorted, h.backward, o); ok {
			want.Offset = at
		}
		if len(h.backward) == 0 {
			want = checkpoint.Translation{Offset: -1}
		} else {
			want.Before = o < first
			want.Exact = !want.Before && want.Shortfall == 0
		}
		if len(h.backward) > 0 && o >= end && got.Shortfall == max(0, o-h.cut) {
			want.Shortfall, want.Exact = got.Shortfall, got.Shortfall == 0
		}
		if got != want {
			t.Fatalf("backward %d: got %+v, want %+v", o, got, want)
		}
	}
}

func TestTranslationEqualsTheOracle(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		h, runs := newHistory(t), &checkpoint.Runs{}
		for range rapid.IntRange(0, 300).Draw(t, "batches") {
			if err := runs.Add(h.batch(t)); err != nil {
				t.Fatal(err)
			}
		}
		if rapid.Bool().Draw(t, "passed") && runs.Len() > 0 {
			h.dealt += rapid.Int64Range(0, 9).Draw(t, "markers")
			runs.Pass(h.dealt)
		}
		h.holdTranslations(t, runs)
	})
}

// topic is a compacted topic as a list of records.
type topic []wire.Record

func (p *topic) write(blocks []checkpoint.Block) {
	for _, b := range blocks {
		*p = append(*p, checkpoint.EncodeBlock(b))
	}
}

// compact keeps the last record of every key.
func (p *topic) compact() {
	last := map[string]int{}
	for i, rec := range *p {
		last[string(rec.Key)] = i
	}
	var kept topic
	for i, rec := range *p {
		if last[string(rec.Key)] == i {
			kept = append(kept, rec)
		}
	}
	*p = kept
}

func (p topic) load(t *rapid.T) *checkpoint.Runs {
	runs := &checkpoint.Runs{}
	for _, rec := range p {
		b, err := checkpoint.Decode(rec)
		if err != nil {
			t.Fatal(err)
		}
		runs.Merge(b.(checkpoint.Block))
	}
	return runs
}

// Owners come and go, persist what they know when they get to it, and cut the
// map where the target lost its tail; the topic is compacted, and delayed
// writes of old blocks land in it again. Whoever loads it and completes it
// from the target's log has the truth, and a map that was not completed only
// ends too early.
func TestThePersistedMapIsTheTruth(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		h := newHistory(t)
		var (
			log     topic
			old     []wire.Record        // blocks ever written
			reality []checkpoint.Run     // the target's log, run by run
			owner   = &checkpoint.Runs{} // what the present owner knows
			clones  []*checkpoint.Runs   // taken on the way: they must not change
			frozen  [][]checkpoint.Run   // what they held when taken
			flush   = func(r *checkpoint.Runs) { log.write(r.Unsaved(key())) }
		)
		complete := func(r *checkpoint.Runs) {
			for _, run := range reality {
				_, end, _ := r.End()
				if known := max(0, end-run.Target); known < run.Count {
					if err := r.Add(checkpoint.Run{Source: run.Source + known, Target: run.Target + known, Count: run.Count - known}); err != nil {
						t.Fatal(err)
					}
				}
			}
		}
		for range rapid.IntRange(1, 60).Draw(t, "events") {
			switch rapid.SampledFrom([]string{"write", "write", "write", "flush", "flush", "die", "compact", "late", "truncate", "clone"}).Draw(t, "event") {
			case "write":
				for range rapid.IntRange(1, 200).Draw(t, "batches") {
					run := h.batch(t)
					reality = append(reality, run)
					if err := owner.Add(run); err != nil {
						t.Fatal(err)
					}
				}
			case "flush":
				n := len(log)
				flush(owner)
				old = append(old, log[n:]...)
			case "die":
				owner = log.load(t)
				complete(owner)
			case "compact":
				log.compact()
			case "late":
				if len(old) > 0 {
					log = append(log, rapid.SampledFrom(old).Draw(t, "late block"))
				}
			case "truncate":
				if len(reality) > 1 { // never to nothing: that is a re-creation
					first := reality[0].Target + 1
					to := max(first, h.target-rapid.Int64Range(0, 300).Draw(t, "lost"))
					h.truncate(to)
					reality = slices.DeleteFunc(reality, func(r checkpoint.Run) bool { return r.Target >= to })
					last := &reality[len(reality)-1]
					last.Count = min(last.Count, to-last.Target)
					owner.CutTarget(to)
					flush(owner)
					old = nil // a stale cut is found by comparing with the target, not by the map
				}
			case "clone":
				c := owner.Clone()
				_, _, dump := c.Dump()
				clones, frozen = append(clones, c), append(frozen, dump)
			}
		}
		successor := log.load(t)
		successor.All(func(r checkpoint.Run) bool { // true as far as it goes, and without holes of its own
			for i := range r.Count {
				if h.forward[r.Source+i] != r.Target+i {
					t.Fatalf("run %+v: source %d stands at %d", r, r.Source+i, h.forward[r.Source+i])
				}
			}
			return true
		})
		complete(successor)
		h.holdTranslations(t, successor)
		complete(owner)
		h.holdTranslations(t, owner)
		for i, c := range clones {
			if _, _, dump := c.Dump(); !cmp.Equal(frozen[i], dump) {
				t.Fatalf("clone changed (-then +now):\n%s", cmp.Diff(frozen[i], dump))
			}
		}
	})
}

// Blocks of any order and number: the same set gives the same map.
func TestMergeDoesNotDependOnOrder(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		h, owner := newHistory(t), &checkpoint.Runs{}
		var blocks []checkpoint.Block
		for range rapid.IntRange(1, 12).Draw(t, "events") {
			for range rapid.IntRange(1, 150).Draw(t, "batches") {
				if err := owner.Add(h.batch(t)); err != nil {
					t.Fatal(err)
				}
			}
			if rapid.IntRange(0, 3).Draw(t, "cut") == 0 {
				owner.CutTarget(h.target - rapid.Int64Range(0, 500).Draw(t, "lost"))
				s, o, _ := owner.End()
				h.source, h.target = s, o
			}
			blocks = append(blocks, owner.Blocks(key())...)
		}
		a, b := &checkpoint.Runs{}, &checkpoint.Runs{}
		for _, block := range blocks {
			a.Merge(block)
		}
		random := rand.New(rand.NewPCG(1, rapid.Uint64().Draw(t, "seed")))
		random.Shuffle(len(blocks), func(i, j int) { blocks[i], blocks[j] = blocks[j], blocks[i] })
		for _, block := range blocks {
			b.Merge(block)
		}
		_, throughA, runsA := a.Dump()
		_, throughB, runsB := b.Dump()
		if diff := cmp.Diff(runsA, runsB); diff != "" || throughA != throughB {
			t.Fatalf("through %d and %d, -in order +shuffled:\n%s", throughA, throughB, diff)
		}
	})
}

func TestRunsOutOfOrderAreRefused(t *testing.T) {
	runs := &checkpoint.Runs{}
	mustAdd(t, runs, checkpoint.Run{Source: 10, Target: 20, Count: 5})
	runs.Pass(17)
	for _, bad := range []checkpoint.Run{
		{Source: 14, Target: 25, Count: 1}, // below the end
		{Source: 16, Target: 25, Count: 1}, // passed
		{Source: 20, Target: 24, Count: 1}, // the target went back
		{Source: 20, Target: 30, Count: 0},
		{Source: 20, Target: 30, Count: 1<<63 - 1},
	} {
		var order *checkpoint.OrderError
		if err := runs.Add(bad); !errors.As(err, &order) {
			t.Errorf("%+v: got %v, want an OrderError", bad, err)
		}
	}
	mustAdd(t, runs, checkpoint.Run{Source: 17, Target: 25, Count: 1})
}

func TestAnEmptyPartitionBeginsSomewhere(t *testing.T) {
	runs := &checkpoint.Runs{}
	if got := runs.Forward(0); got.Offset != -1 {
		t.Errorf("nothing is mapped: got %+v", got)
	}
	runs.Begin(100, 7)
	for offset, want := range map[int64]checkpoint.Translation{
		99:  {Offset: 7, Before: true},
		100: {Offset: 7, Exact: true},
		103: {Offset: 7, Shortfall: 3},
	} {
		if got := runs.Forward(offset); got != want {
			t.Errorf("forward %d: got %+v, want %+v", offset, got, want)
		}
	}
	mustAdd(t, runs, checkpoint.Run{Source: 105, Target: 8, Count: 1})
	if got := runs.Forward(100); got.Offset != 8 || !got.Exact {
		t.Errorf("forward 100: got %+v, want exactly 8", got)
	}
}

func TestAResetVoidsWhatWasPersisted(t *testing.T) {
	owner := &checkpoint.Runs{TargetID: [16]byte{1}}
	var blocks []checkpoint.Block
	for i := range int64(1000) {
		mustAdd(t, owner, checkpoint.Run{Source: 2 * i, Target: i, Count: 1})
	}
	blocks = append(blocks, owner.Blocks(key())...)
	owner.Reset([16]byte{2})
	mustAdd(t, owner, checkpoint.Run{Source: 1500, Target: 0, Count: 3})
	blocks = append(blocks, owner.Unsaved(key())...)
	loaded := &checkpoint.Runs{}
	for _, b := range blocks {
		loaded.Merge(b)
	}
	id, _, runs := loaded.Dump()
	if want := []checkpoint.Run{{Source: 1500, Target: 0, Count: 3}}; !cmp.Equal(runs, want) || id != [16]byte{2} {
		t.Errorf("got %v of %v, want %v", runs, id, want)
	}
}

func mustAdd(t *testing.T, runs *checkpoint.Runs, run checkpoint.Run) {
	t.Helper()
	if err := runs.Add(run); err != nil {
		t.Fatal(err)
	}
}

// Strangers, markers, batches that span several steps, a map that ends inside
// a batch: the target's headers and the ledger give back every run.
func TestCompleteDerivesWhatWasNotPersisted(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		h := newHistory(t)
		var (
			ledger   checkpoint.Ledger
			log      []wire.Batch
			truth    = &checkpoint.Runs{}
			sequence int32
			epoch    int16
		)
		for range rapid.IntRange(1, 60).Draw(t, "batches") {
			if rapid.IntRange(0, 9).Draw(t, "new epoch") == 0 {
				sequence, epoch = 0, epoch+1
			}
			if rapid.IntRange(0, 3).Draw(t, "stranger") == 0 {
				log = append(log, batch(t, h.target, 99, 0, 0, 2))
				h.target += 2
			}
			// One batch of several stretches of source offsets.
			base, first := h.target, sequence
			anchor := checkpoint.Anchor{ProducerID: 5, Epoch: epoch}
			for range rapid.IntRange(1, 4).Draw(t, "stretches") {
				h.source += rapid.SampledFrom([]int64{0, 1, 9}).Draw(t, "hole")
				n := rapid.Int64Range(1, 4).Draw(t, "records")
				anchor.Steps = append(anchor.Steps, checkpoint.Step{Sequence: sequence, Source: h.source})
				if err := truth.Add(checkpoint.Run{Source: h.source, Target: h.target, Count: n}); err != nil {
					t.Fatal(err)
				}
				h.source, h.target, sequence = h.source+n, h.target+n, sequence+int32(n)
			}
			ledger.Add(anchor)
			log = append(log, batch(t, base, 5, epoch, first, int(h.target-base)))
		}
		_, end, _ := truth.End()
		persisted := truth.Clone()
		persisted.CutTarget(rapid.Int64Range(0, end).Draw(t, "persisted to"))
		before := persisted.Len()
		walk := func(yield func(wire.Batch, error) bool) {
			for _, b := range log {
				if !yield(b, nil) {
					return
				}
			}
		}
		if _, err := checkpoint.Complete(&ledger, persisted, walk); err != nil {
			t.Fatal(err)
		}
		_, _, want := truth.Dump()
		_, _, got := persisted.Dump()
		if diff := cmp.Diff(want, got); diff != "" {
			t.Fatalf("from %d runs, -want +got:\n%s", before, diff)
		}
		if added, err := checkpoint.Complete(&ledger, persisted, walk); added != 0 || err != nil {
			t.Fatalf("a second pass added %d, %v", added, err)
		}
	})
}

func TestCompleteGivesUpWhereItWouldGuess(t *testing.T) {
	var ledger checkpoint.Ledger
	ledger.Add(checkpoint.Anchor{ProducerID: 1, Steps: []checkpoint.Step{{Sequence: 5, Source: 50}, {Sequence: 7, Source: 10}}})
	one := func(b wire.Batch, err error) func(func(wire.Batch, error) bool) {
		return func(yield func(wire.Batch, error) bool) { yield(b, err) }
	}
	cut := errors.New("connection lost")
	if _, err := checkpoint.Complete(&ledger, &checkpoint.Runs{}, one(nil, cut)); !errors.Is(err, cut) {
		t.Errorf("got %v, want the walk's error", err)
	}
	var unanchored *checkpoint.UnanchoredError
	if _, err := checkpoint.Complete(&ledger, &checkpoint.Runs{}, one(batch(t, 0, 1, 0, 3, 1), nil)); !errors.As(err, &unanchored) {
		t.Errorf("got %v, want an UnanchoredError", err)
	}
	var order *checkpoint.OrderError
	if _, err := checkpoint.Complete(&ledger, &checkpoint.Runs{}, one(batch(t, 0, 1, 0, 6, 2), nil)); !errors.As(err, &order) {
		t.Errorf("got %v, want an OrderError", err)
	}
}
