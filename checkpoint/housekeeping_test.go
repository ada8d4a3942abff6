package checkpoint_test

import (
	"errors"
	"math"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"pgregory.net/rapid"

	"kmirror/checkpoint"
	"kmirror/internal/wire"
)

// household is a mirrored partition with its books: what stands where in the
// target, the batches of it, and MapTopic, record by record.
type household struct {
	logs    *memoryLogs
	stands  map[int64]int64 // source -> target
	batches []wire.Batch
	end     int64 // of the target
	source  int64
	epoch   int16
	runs    checkpoint.Runs
	lost    bool
}

func (h *household) write(t *rapid.T, records ...wire.Record) {
	if _, err := h.logs.Append(t.Context(), checkpoint.MapTopic, key().MapPartition(), records); err != nil {
		t.Fatal(err)
	}
}

// anchor writes steps to the ledger.
func (h *household) anchor(t *rapid.T, steps ...checkpoint.Step) {
	h.write(t, checkpoint.EncodeAnchor(checkpoint.Anchor{Key: key(), ProducerID: 7, Epoch: h.epoch, Steps: steps}))
}

// live is one epoch: batches with holes between them, and strangers' among them.
func (h *household) live(t *rapid.T, batches int) {
	h.epoch++
	h.anchor(t, checkpoint.Step{Source: h.source})
	sequence := int32(0)
	var steps []checkpoint.Step
	for range batches {
		if hole := rapid.Int64Range(0, 2).Draw(t, "hole"); hole > 0 {
			h.source += hole
			steps = append(steps, checkpoint.Step{Sequence: sequence, Source: h.source})
		}
		if len(steps) > 0 && (sequence == 0 || rapid.IntRange(0, 2).Draw(t, "together") > 0) { // the anchors of one fetch leave as one record
			h.anchor(t, steps...)
			steps = nil
		} else if len(steps) > 0 {
			h.anchor(t, steps[len(steps)-1])
			steps = nil
		}
		h.end += rapid.Int64Range(0, 3).Draw(t, "strangers")
		n := rapid.IntRange(1, 4).Draw(t, "records")
		h.batches = append(h.batches, batch(t, h.end, 7, h.epoch, sequence, n))
		if err := h.runs.Add(checkpoint.Run{Source: h.source, Target: h.end, Count: int64(n)}); err != nil {
			t.Fatal(err)
		}
		for range n {
			h.stands[h.source] = h.end
			h.source, h.end, sequence = h.source+1, h.end+1, sequence+1
		}
	}
}

// lose is an unclean election: the target's end is gone, and with it what the map
// says of it; the next epoch mirrors it again.
func (h *household) lose(to int64) {
	h.lost = true
	h.runs.CutTarget(to)
	h.batches = slices.DeleteFunc(h.batches, func(b wire.Batch) bool { return b.LastOffset() >= to })
	for source, target := range h.stands {
		if target >= to {
			delete(h.stands, source)
		}
	}
	h.end = to
	h.source, _, _ = h.runs.End()
}

// save writes the map behind, and takes it as whoever comes next reads it.
func (h *household) save(t *rapid.T) {
	for _, b := range h.runs.Unsaved(key()) {
		h.write(t, checkpoint.EncodeBlock(b))
	}
	h.runs = *h.load(t).Runs
}

func (h *household) load(t *rapid.T) checkpoint.Loaded {
	loaded, err := checkpoint.LoadPartition(t.Context(), h.logs, key())
	if err != nil {
		t.Fatal(err)
	}
	return loaded
}

// compact keeps the last record of each key, and no tombstones.
func (h *household) compact(t *rapid.T) {
	partition := key().MapPartition()
	all := h.logs.records(checkpoint.MapTopic, partition)
	last := map[string]int{}
	for i, rec := range all {
		last[string(rec.Key)] = i
	}
	var kept []wire.Record
	for i, rec := range all {
		if last[string(rec.Key)] == i && rec.Value != nil {
			kept = append(kept, rec)
		}
	}
	h.logs.set(func() { h.logs.logs[at(checkpoint.MapTopic, partition)] = nil })
	h.write(t, kept...)
}

// check holds the books against the truth.
func (h *household) check(t *rapid.T, logStart, lowest int64, tight bool) {
	loaded := h.load(t)
	floor := h.floor(t, logStart)
	if !tight {
		floor = logStart // nothing goes that still stands in the target
	}
	if _, mapped, _ := loaded.Runs.End(); floor > max(logStart, mapped) {
		t.Fatalf("the ledger begins at target offset %d, behind the end of the map, %d", floor, mapped)
	}
	for _, b := range h.batches {
		if b.LastOffset() < floor {
			continue
		}
		carries, err := loaded.Ledger.RunsFrom(b, floor)
		if err != nil {
			t.Fatalf("log start %d, floor %d: %v", logStart, floor, err)
		}
		for _, run := range carries {
			for i := range run.Count {
				if got := h.stands[run.Source+i]; got != run.Target+i {
					t.Fatalf("the ledger says that source offset %d stands at %d, and it stands at %d", run.Source+i, run.Target+i, got)
				}
			}
		}
	}
	for source, target := range h.stands {
		got := loaded.Runs.Forward(source)
		switch {
		case target >= logStart && source >= lowest && (got.Offset != target || !got.Exact):
			t.Fatalf("source offset %d is translated to %+v, and stands at %d (log start %d, lowest %d)", source, got, target, logStart, lowest)
		case target >= logStart && got.Offset > target:
			t.Fatalf("source offset %d stands at %d, and %+v skips it (log start %d, lowest %d)", source, target, got, logStart, lowest)
		}
	}
}

// However long a partition has lived, whatever part of the chores is written when
// the process dies, whenever the topic is compacted: what is still in the target is
// translated exactly where anybody may ask, and what stands there can be told.
func TestHousekeeping(t *testing.T) {
	deleted := 0
	rapid.Check(t, func(t *rapid.T) {
		h := &household{logs: newMemoryLogs(), stands: map[int64]int64{}}
		logStart, lowest := int64(0), int64(0)
		limits := checkpoint.DefaultLimits()
		tight := rapid.Bool().Draw(t, "tight")
		if tight {
			limits = checkpoint.Limits{Runs: rapid.IntRange(2, 300).Draw(t, "max runs"), Steps: rapid.IntRange(2, 300).Draw(t, "max steps")}
		}
		for range rapid.IntRange(1, 6).Draw(t, "lives") {
			h.live(t, rapid.IntRange(0, 250).Draw(t, "batches"))
			h.save(t)
			if floor := h.floor(t, logStart); rapid.IntRange(0, 3).Draw(t, "unclean") == 0 && h.end > floor {
				h.lose(rapid.Int64Range(max(floor, h.end-100), h.end).Draw(t, "lost from"))
				h.save(t)
			}
			logStart = rapid.Int64Range(logStart, h.end).Draw(t, "log start")
			if rapid.Bool().Draw(t, "groups move") {
				lowest = rapid.Int64Range(lowest, max(lowest, h.source)).Draw(t, "lowest")
			}
			chores := checkpoint.Housekeep(key(), h.load(t), checkpoint.Needs{LogStart: logStart, Lowest: lowest}, limits)
			if n := rapid.IntRange(0, len(chores.Records)).Draw(t, "written"); n > 0 {
				h.write(t, chores.Records[:n]...)
				deleted += n
			}
			h.check(t, logStart, lowest, tight)
			if rapid.Bool().Draw(t, "compacted") {
				h.compact(t)
				h.check(t, logStart, lowest, tight)
			}
			h.runs = *h.load(t).Runs
		}
		h.live(t, 0) // a successor, who has read where the target ends
		before := h.load(t)
		_, end, _ := before.Runs.End()
		mapped := false
		before.Runs.All(func(checkpoint.Run) bool { mapped = true; return false })
		if !mapped {
			return
		}
		needs := checkpoint.Needs{LogStart: end, Lowest: lowest} // retention took everything
		chores := checkpoint.Housekeep(key(), before, needs, limits)
		h.write(t, chores.Records...)
		h.compact(t)
		left := h.load(t)
		if !h.lost && left.Filed.Len() > 1 || left.Ledger.Anchors() != 1 {
			source, target, _ := left.Runs.End()
			t.Fatalf("%d blocks and %d anchors are left of an empty log; the map ends at %d, %d: %v", left.Filed.Len(), left.Ledger.Anchors(), source, target, left.Ledger.Past(math.MaxInt64))
		}
		if again := checkpoint.Housekeep(key(), h.load(t), needs, limits); len(again.Records) > 0 {
			what, _ := checkpoint.Decode(again.Records[0])
			t.Fatalf("a second pass finds %d records more: %+v", len(again.Records), what)
		}
	})
	if deleted == 0 {
		t.Error("nothing was ever deleted")
	}
}

// floor is where the books begin to be complete.
func (h *household) floor(t *rapid.T, logStart int64) int64 {
	loaded := h.load(t)
	if first, ok := loaded.Ledger.Lowest(); ok {
		floor := loaded.Runs.Forward(first)
		return max(logStart, floor.Offset+floor.Slack)
	}
	return logStart
}

func TestNothingGoesWhileTheMapIsEmpty(t *testing.T) {
	var ledger checkpoint.Ledger
	for epoch := range int16(5) {
		ledger.Add(checkpoint.Anchor{ProducerID: 1, Epoch: epoch, Steps: []checkpoint.Step{{Source: 10 * int64(epoch)}}})
	}
	runs := &checkpoint.Runs{}
	runs.Begin(40, 9)
	got := checkpoint.Housekeep(key(), checkpoint.Loaded{Ledger: &ledger, Runs: runs, Filed: &checkpoint.Filed{}}, checkpoint.Needs{LogStart: 9, Lowest: 40}, checkpoint.Limits{Runs: 1, Steps: 1})
	if len(got.Records) > 0 {
		t.Errorf("%+v", got)
	}
}

func TestADeletedAnchorTakesItsSteps(t *testing.T) {
	steps := func(from int32, n int) (s []checkpoint.Step) {
		for i := range n {
			s = append(s, checkpoint.Step{Sequence: from + int32(10*i), Source: 100 + 3*int64(from+int32(10*i))})
		}
		return s
	}
	logs := newMemoryLogs()
	write := func(recs ...wire.Record) checkpoint.Loaded {
		if _, err := logs.Append(t.Context(), checkpoint.MapTopic, key().MapPartition(), recs); err != nil {
			t.Fatal(err)
		}
		loaded, err := checkpoint.LoadPartition(t.Context(), logs, key())
		if err != nil {
			t.Fatal(err)
		}
		return loaded
	}
	anchor := func(from int32, n int) checkpoint.Anchor {
		return checkpoint.Anchor{Key: key(), ProducerID: 1, Steps: steps(from, n)}
	}
	// 0 10 20 | 30 40 | and once more from 20 on, because the ledger may have lost its end
	loaded := write(checkpoint.EncodeAnchor(anchor(0, 3)), checkpoint.EncodeAnchor(anchor(30, 2)), checkpoint.EncodeAnchor(anchor(20, 3)))
	if loaded.Ledger.Len() != 5 || loaded.Ledger.Anchors() != 3 {
		t.Fatalf("%d steps in %d records", loaded.Ledger.Len(), loaded.Ledger.Anchors())
	}
	past := loaded.Ledger.Past(100 + 3*25)
	if len(past) != 0 { // the first record reaches to 20, where the kept one begins
		t.Errorf("past %v", past)
	}
	if past = loaded.Ledger.Past(100 + 3*35); len(past) != 1 || past[0].Steps[0].Sequence != 0 {
		t.Errorf("past %v, want the one at 0", past)
	}
	loaded = write(checkpoint.EncodeDeleted(anchor(0, 3)))
	if loaded.Ledger.Len() != 3 || loaded.Ledger.Anchors() != 2 {
		t.Errorf("%d steps in %d records, want 20 30 40 in 2", loaded.Ledger.Len(), loaded.Ledger.Anchors())
	}
	if _, ok := loaded.Ledger.Source(1, 0, 15); ok {
		t.Error("what was deleted is not known any more")
	}
	if got, ok := loaded.Ledger.Source(1, 0, 25); !ok || got != 165 {
		t.Errorf("sequence 25 carries %d, %v", got, ok)
	}
	loaded = write(checkpoint.EncodeDeleted(anchor(20, 3)), checkpoint.EncodeDeleted(anchor(30, 2)))
	if loaded.Ledger.Owns(1, 0) || loaded.Ledger.Anchors() != 0 {
		t.Error("an epoch without anchors is not known any more")
	}
}

func TestIdleEpochsLeaveNothing(t *testing.T) {
	var ledger checkpoint.Ledger
	begin := func(epoch int16, source int64, more ...checkpoint.Step) {
		ledger.Add(checkpoint.Anchor{ProducerID: 1, Epoch: epoch, Steps: append([]checkpoint.Step{{Source: source}}, more...)})
	}
	begin(0, 0)                                              // the oldest: where everything began
	begin(1, 50)                                             // wrote what stands in the map
	begin(2, 90)                                             // nothing
	begin(3, 90)                                             // wrote what does not stand there yet
	begin(4, 90, checkpoint.Step{Sequence: 1, Source: 1000}) // has steps
	begin(5, 95)                                             // nothing
	got := ledger.Idle(90, func(p checkpoint.Producer) bool { return p.Epoch == 3 })
	if len(got) != 2 || got[0].Epoch != 2 || got[1].Epoch != 5 {
		t.Errorf("%v", got)
	}
}

func TestAStraddlingBatchCountsFromTheFloor(t *testing.T) {
	var ledger checkpoint.Ledger
	ledger.Add(checkpoint.Anchor{ProducerID: 1, Steps: []checkpoint.Step{{Sequence: 5, Source: 100}, {Sequence: 8, Source: 200}}})
	b := batch(t, 50, 1, 0, 0, 10) // sequences 0 to 9 at 50 to 59
	if _, err := ledger.Runs(b); err == nil {
		t.Error("sequence 0 is not known")
	}
	got, err := ledger.RunsFrom(b, 56)
	if err != nil || len(got) != 2 || got[0] != (checkpoint.Run{Source: 101, Target: 56, Count: 2}) || got[1] != (checkpoint.Run{Source: 200, Target: 58, Count: 2}) {
		t.Errorf("got %v, %v", got, err)
	}
	if got, err := ledger.RunsFrom(b, 60); err != nil || got != nil {
		t.Errorf("behind the batch: %v, %v", got, err)
	}
}

func TestTheRecorderTidies(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		logs := newMemoryLogs()
		recorder := checkpoint.NewRecorder(logs, quiet())
		chore := checkpoint.EncodeDeleted(checkpoint.Anchor{Key: key(), ProducerID: 1, Steps: []checkpoint.Step{{}}})
		if recorder.Tidy(key(), []wire.Record{chore}) {
			t.Error("nobody holds the partition")
		}
		stop := start(t, recorder.Run)
		recorder.Resume(key(), &checkpoint.Runs{})
		if err := recorder.Acked(key(), checkpoint.Run{Count: 5}); err != nil {
			t.Fatal(err)
		}
		if !recorder.Tidy(key(), []wire.Record{chore, chore}) || recorder.Tidy(key(), []wire.Record{chore}) {
			t.Error("one after the other")
		}
		time.Sleep(300 * time.Millisecond)
		got := logs.records(checkpoint.MapTopic, key().MapPartition())
		if len(got) != 3 || got[0].Value == nil || got[1].Value != nil {
			t.Errorf("%d records, want the block and behind it what is deleted", len(got))
		}
		if s := recorder.Stats(); s.Written != 3 || s.Deleted != 2 || s.Filed != 0 || s.Runs != 1 || s.Waiting != 0 {
			t.Errorf("%+v", s)
		}

		// A write that fails drops them, but not the map's.
		logs.set(func() { logs.refuse = errors.New("no") })
		_ = recorder.Acked(key(), checkpoint.Run{Source: 5, Target: 9, Count: 1})
		recorder.Tidy(key(), []wire.Record{chore})
		time.Sleep(300 * time.Millisecond)
		logs.set(func() { logs.refuse = nil })
		time.Sleep(10 * time.Second)
		if got := logs.records(checkpoint.MapTopic, key().MapPartition()); len(got) != 4 || got[3].Value == nil {
			t.Errorf("%d records, want one block more", len(got))
		}

		// Who lets go of the partition tidies up no more.
		recorder.Tidy(key(), []wire.Record{chore})
		recorder.Forget(key())
		time.Sleep(time.Second)
		if got := logs.records(checkpoint.MapTopic, key().MapPartition()); len(got) != 4 {
			t.Errorf("%d records", len(got))
		}
		stop()
	})
}
