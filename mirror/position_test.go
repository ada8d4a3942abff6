package mirror

import (
	"testing"

	"kmirror/checkpoint"
	"kmirror/internal/wire"
)

// ourBatch is a batch of n records by producer 7 in some epoch.
func ourBatch(t *testing.T, epoch int16, sequence int32, n int) wire.Batch {
	t.Helper()
	recs := make([]wire.Record, n)
	for i := range recs {
		recs[i] = wire.Record{Offset: int64(i), Value: []byte{byte(i)}}
	}
	b, err := wire.EncodeBatch(nil, recs, wire.BatchOptions{ProducerID: 7, ProducerEpoch: epoch, BaseSequence: sequence, LeaderEpoch: -1})
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func ledgerOf(anchors ...checkpoint.Anchor) *checkpoint.Ledger {
	l := &checkpoint.Ledger{}
	for _, a := range anchors {
		l.Add(a)
	}
	return l
}

func anchorAt(epoch int16, sequence int32, source int64) checkpoint.Anchor {
	return checkpoint.Anchor{ProducerID: 7, Epoch: epoch, Steps: []checkpoint.Step{{Sequence: sequence, Source: source}}}
}

// standing reads a log without a persisted map, or with one.
func standOn(t *testing.T, log *modelLog, ledger *checkpoint.Ledger, persisted ...checkpoint.Run) (standing, *checkpoint.Runs) {
	t.Helper()
	known := &checkpoint.Runs{}
	for _, r := range persisted {
		if err := known.Add(r); err != nil {
			t.Fatal(err)
		}
	}
	st, err := stand(t.Context(), log, "t", 0, ledger, known)
	if err != nil {
		t.Fatal(err)
	}
	return st, known
}

// TestATailThatWasLostAndGrewAgain: the map says that source 0 to 9 stand at
// target 0 to 9; the target lost 5 to 9, and a stranger wrote there.
func TestATailThatWasLostAndGrewAgain(t *testing.T) {
	log := &modelLog{}
	log.store(ourBatch(t, 0, 0, 5))
	stranger, err := wire.EncodeBatch(nil, make([]wire.Record, 1), wire.Plain(wire.CodecNone))
	if err != nil {
		t.Fatal(err)
	}
	for range 8 {
		log.store(stranger)
	}
	st, known := standOn(t, log, ledgerOf(anchorAt(0, 0, 0)), checkpoint.Run{Count: 10})
	if next, ok := nextSource(known); next != 5 || !ok || st.lost != 5 {
		t.Errorf("the position is %d (%v), %d lost; want 5, and 5 lost", next, ok, st.lost)
	}
}

// TestAnEndFarAhead: an acknowledgement named an offset a thousand too great, so the
// map has a gap where the batch stands. Nothing of it was lost.
func TestAnEndFarAhead(t *testing.T) {
	log := &modelLog{}
	for i := range int32(3) {
		log.store(ourBatch(t, 0, 5*i, 5))
	}
	_, known := standOn(t, log, ledgerOf(anchorAt(0, 0, 0)), checkpoint.Run{Count: 5}, checkpoint.Run{Source: 5, Target: 1005, Count: 5})
	if next, ok := nextSource(known); next != 15 || !ok {
		t.Errorf("the position is %d (%v), want 15", next, ok)
	}
	if at := known.Forward(7); at.Offset != 7 || !at.Exact {
		t.Errorf("source offset 7 stands at %+v, want 7", at)
	}
}

// TestAGapInTheMidst: sequences 5 to 9 were acknowledged and are gone, and the new
// leader took 10 to 14 of a writer that had not noticed.
func TestAGapInTheMidst(t *testing.T) {
	log := &modelLog{}
	log.store(ourBatch(t, 0, 0, 5))
	log.store(ourBatch(t, 0, 10, 5))
	log.store(ourBatch(t, 0, 15, 1))
	st, known := standOn(t, log, ledgerOf(anchorAt(0, 0, 100)))
	if next, _ := nextSource(known); next != 105 || st.gap != 6 || st.gapAt != 5 {
		t.Errorf("the position is %d, %d behind a gap at %d; want 105, 6 behind 5", next, st.gap, st.gapAt)
	}
	log.store(ourBatch(t, 1, 0, 12)) // mirrored again, by the next epoch
	st, known = standOn(t, log, ledgerOf(anchorAt(0, 0, 100), anchorAt(1, 0, 105)))
	if next, _ := nextSource(known); next != 117 {
		t.Errorf("after the repair the position is %d, want 117 (%d behind the gap)", next, st.gap)
	}
}

// TestCompactionIsNoGap: it leaves a hole in the offsets.
func TestCompactionIsNoGap(t *testing.T) {
	log := &modelLog{}
	log.store(ourBatch(t, 0, 0, 5))
	log.store(ourBatch(t, 0, 5, 5))
	log.store(ourBatch(t, 0, 10, 5))
	log.batches = append(log.batches[:1], log.batches[2:]...)
	st, known := standOn(t, log, ledgerOf(anchorAt(0, 0, 100)))
	if next, _ := nextSource(known); next != 115 || st.gap != 0 {
		t.Errorf("the position is %d with %d behind a gap, want 115 and none", next, st.gap)
	}
}

// TestAnEpochThatBeginsBelow: the source lost what was mirrored from 105 on, and
// its new records are mirrored behind.
func TestAnEpochThatBeginsBelow(t *testing.T) {
	log := &modelLog{}
	log.store(ourBatch(t, 0, 0, 10))
	log.store(ourBatch(t, 1, 0, 2))
	st, known := standOn(t, log, ledgerOf(anchorAt(0, 0, 100), anchorAt(1, 0, 105)))
	if next, _ := nextSource(known); next != 107 || len(st.doubled) != 1 || st.doubled[0].Count != 5 {
		t.Errorf("the position is %d, doubled %v; want 107, and 5 from 105", next, st.doubled)
	}
	if at := known.Forward(105); at.Offset != 10 {
		t.Errorf("source 105 stands at %d, want 10", at.Offset)
	}
}
