package checkpoint_test

import (
	"cmp"
	"context"
	"errors"
	"math"
	"slices"

	"kmirror/checkpoint"
	"kmirror/internal/wire"
)

// errSeam ends a history in which a takeover stops and asks the operator: the
// last batch of ours in the target carries what the source lost since, and both
// sides lost records more than once.
var errSeam = errors.New("the seam does not fit")

// play lets a history happen and judges what is left of it. It returns the
// first wrong translation, or errSeam.
func play(roll dice, f faults) error {
	w := newWorld(roll, f)
	events := []func(){
		w.produce, w.produce, w.carry, w.carry, w.carry, w.carry, w.flush, w.flush, w.stranger,
		w.die, w.compact, w.arriveLate, w.truncateTarget, w.truncateSource, w.expire, w.forget, w.forget, w.thin,
		w.recreateTarget, w.recreateSource,
	}
	rare := map[int]bool{12: true, 13: true, 18: true, 19: true}
	for range 1 + roll(60) {
		e := roll(len(events))
		if rare[e] && !roll.one(3) {
			continue
		}
		if events[e](); w.err != nil {
			return w.err
		}
	}
	w.faultless(func() {
		w.owner = nil
		w.takeOver()
	})
	w.judge("the next owner's map", w.begun)
	w.faultless(func() {
		for w.err == nil && (w.owner == nil || len(w.owner.Unsaved(w.key)) > 0) {
			if w.owner == nil {
				w.takeOver()
			}
			w.flush()
		}
	})
	w.judge("the map of who reads along", w.follower)
	w.judge("the map as it is read", w.load())
	return w.err
}

// playHousekeeping lets maps of several generations come about, and then judges
// the map after every single record by which it is thinned, and by which what
// lies below the target's log is deleted.
func playHousekeeping(roll dice, f faults) error {
	w := newWorld(roll, f)
	w.late = nil
	events := []func(){w.produce, w.produce, w.carry, w.carry, w.carry, w.carry, w.carry, w.flush, w.flush, w.truncateTarget, w.stranger}
	for range 10 + roll(50) {
		if events[roll(len(events))](); w.err != nil {
			return w.err
		}
	}
	for w.owner == nil && w.err == nil {
		w.takeOver()
	}
	w.faultless(w.flush)
	if w.err != nil {
		return w.err
	}
	w.compact()
	if roll.one(2) {
		write, gone := w.thinning()
		w.everyPrefix("thinned", append(encoded(write), deletions(gone)...))
	}
	w.start = int64(roll(len(w.cells) + 1))
	w.everyPrefix("forgotten", deletions(w.below()))
	return w.err
}

// everyPrefix appends records to MapTopic and judges it after each.
func (w *world) everyPrefix(whose string, records []wire.Record) {
	for _, rec := range records {
		w.topic = append(w.topic, rec)
		w.judge(whose, w.load())
	}
}

// faultless runs fn with nobody dying.
func (w *world) faultless(fn func()) {
	roll := w.roll
	w.roll = func(n int) int { return n - 1 }
	fn()
	w.roll = roll
}

func (w *world) die() { w.owner = nil }

// arriveLate lets the write of a full block arrive once more.
func (w *world) arriveLate() {
	if len(w.late) > 0 {
		rec := w.late[w.roll(len(w.late))]
		w.faultless(func() { w.write([]wire.Record{rec}) })
	}
}

// truncateTarget lets the target lose its tail in an unclean election.
func (w *world) truncateTarget() {
	w.owner, w.late = nil, nil
	to := max(w.start, int64(len(w.cells)-w.roll(40)))
	i := slices.IndexFunc(w.batches, func(b wire.Batch) bool { return b.LastOffset() >= to })
	if i < 0 {
		return
	}
	to = max(w.start, w.batches[i].BaseOffset()) // batches are lost whole
	for _, c := range w.cells[to:] {
		if c.stands {
			w.dealt = min(w.dealt, c.source)
		}
	}
	w.batches, w.cells = w.batches[:i], w.cells[:to]
}

// truncateSource lets the source lose its tail; what it writes then is mirrored
// behind what stands in the target of the records that are gone. The owner is
// told, and writes the map before anything else.
func (w *world) truncateSource() {
	to := max(0, len(w.records)-w.roll(20))
	w.records, w.dealt, w.late = w.records[:to], min(w.dealt, int64(to)), nil
	for i := range w.cells {
		if w.cells[i].source >= int64(to) {
			w.cells[i].stands = false
		}
	}
	w.faultless(func() {
		w.owner = nil
		w.takeOver()
	})
}

// expire lets retention take the beginning of the target's log, as far as the
// map that speaks of it is persisted and somebody has held it against the log:
// retention counts in hours, and a takeover in seconds.
func (w *world) expire() {
	if w.owner == nil {
		return
	}
	w.compact()
	runs := w.empty()
	for _, rec := range w.topic {
		w.take(runs, rec)
	}
	if _, end, ok := runs.End(); ok && runs.TargetID == w.targetID {
		end = min(end, int64(len(w.cells)))
		w.start = max(w.start, end-int64(w.roll(40)))
	}
}

// forget deletes the blocks that lie below the target's log.
func (w *world) forget() {
	if gone := w.below(); len(gone) > 0 {
		w.write(deletions(gone))
		w.late = nil
	}
}

func (w *world) below() []checkpoint.Block {
	gone := w.loaded().Filed.Below(w.key, w.start)
	if w.faults.deleteOrder {
		slices.Reverse(gone)
	}
	return gone
}

// thin thins the map below what some group could still ask for.
func (w *world) thin() {
	if w.owner == nil {
		return
	}
	if write, gone := w.thinning(); len(write) > 0 {
		if !w.write(encoded(write)) || !w.write(deletions(gone)) {
			w.owner = nil
		}
		w.late = nil
	}
}

func (w *world) thinning() (write, gone []checkpoint.Block) {
	below := int64(w.roll(len(w.records) + 1))
	l := w.loaded()
	l.Runs.FillBlocksAt(w.full)
	write, gone = l.Thin(w.key, below, w.roll(6))
	if len(write) > 0 {
		w.exact = max(w.exact, below)
	}
	if w.faults.thinOrder {
		slices.Reverse(write)
	}
	return write, gone
}

func encoded(blocks []checkpoint.Block) (records []wire.Record) {
	for _, b := range blocks {
		records = append(records, checkpoint.EncodeBlock(b))
	}
	return records
}

func deletions(blocks []checkpoint.Block) (records []wire.Record) {
	for _, b := range blocks {
		records = append(records, checkpoint.EncodeDeleted(b))
	}
	return records
}

func (w *world) loaded() checkpoint.Loaded {
	loaded, err := checkpoint.LoadPartitions(context.Background(), w, w.key.MapPartition(), []checkpoint.Key{w.key})
	if err != nil {
		w.fail("load: %w", err)
	}
	return loaded[w.key]
}

// recreateTarget deletes the target topic; a new one takes its place.
func (w *world) recreateTarget() {
	w.owner, w.late, w.cells, w.batches, w.start, w.dealt, w.exact, w.goesOn = nil, nil, nil, nil, 0, 0, 0, 0
	w.targetID[0]++
}

// recreateSource deletes the source topic; the new one is mirrored behind what
// stands in the target.
func (w *world) recreateSource() {
	w.owner, w.late, w.records, w.anchors, w.dealt, w.exact = nil, nil, nil, nil, 0, 0
	w.key.TopicID[0]++
	w.follower = w.empty()
	for i := range w.cells {
		w.cells[i] = cell{source: -1}
	}
}

// takeOver makes somebody the owner, by the rules of a takeover: the map as it
// is persisted, cut back to what the target holds, completed from its headers.
func (w *world) takeOver() {
	w.ledger = &checkpoint.Ledger{}
	for _, a := range w.anchors {
		w.ledger.Add(a)
	}
	runs := w.load()
	fresh := runs.TargetID != w.targetID && runs.TargetID != [16]byte{}
	if fresh {
		runs.Reset(w.targetID)
	}
	runs.TargetID = w.targetID
	lost := w.verify(runs)
	w.complete(runs)
	if source, mapped, some := runs.Mapped(); some && mapped > w.start && !w.cells[mapped-1].stands && source <= int64(len(w.records)) {
		w.err = errSeam
		return
	}
	_, _, begun := runs.Mapped()
	next, _, _ := runs.End()
	if begun || lost {
		next = max(next, runs.Through())
	} else if start, ok := w.ledger.EpochStart(); ok && !fresh {
		next = start
		if first, ok := w.ledger.FirstStart(); ok && w.start == 0 {
			next = min(next, first)
		}
		next = max(next, runs.Through())
	}
	if end := int64(len(w.records)); next > end {
		runs.CutSource(end)
		next, w.dealt = end, max(w.dealt, end)
	}
	w.epoch++
	w.owner, w.position, w.sequence, w.expected = runs, next, 0, next
	anchor := checkpoint.Anchor{Key: w.key, ProducerID: ours, Epoch: w.epoch, Steps: []checkpoint.Step{{Source: next}}}
	w.anchors = append(w.anchors, anchor)
	w.ledger.Add(anchor)
	runs.Begin(next, int64(len(w.cells)))
	w.begun = runs.Clone()
	if runs.Unsettled() { // nothing is written behind a cut that is not persisted
		w.goesOn = int64(len(w.cells))
		if w.flush(); w.owner != nil && len(runs.Unsaved(w.key)) > 0 {
			w.owner = nil
		}
	}
}

// verify cuts the map back to what the target still holds.
func (w *world) verify(runs *checkpoint.Runs) (lost bool) {
	_, was, _ := runs.End()
	runs.CutTarget(int64(len(w.cells)))
	for {
		source, mapped, some := runs.Mapped()
		if !some || mapped <= w.start || w.cells[mapped-1].source == source-1 {
			_, now, _ := runs.End()
			return now < was
		}
		runs.CutTarget(mapped - 1)
	}
}

// complete adds what the target holds beyond the map. An epoch that begins below
// what stands there is the newest owner's word.
func (w *world) complete(runs *checkpoint.Runs) {
	begun := map[int16]bool{}
	for _, b := range w.batches {
		one := func(yield func(wire.Batch, error) bool) { yield(b, nil) }
		if b.LastOffset() < w.start {
			continue
		}
		_, err := checkpoint.Complete(w.ledger, runs, one)
		back := (*checkpoint.OrderError)(nil)
		if errors.As(err, &back) && b.BaseSequence() == 0 && !begun[b.ProducerEpoch()] {
			begun[b.ProducerEpoch()] = true
			carries, _ := w.ledger.Runs(b)
			runs.CutSource(carries[0].Source)
			_, err = checkpoint.Complete(w.ledger, runs, one)
		}
		if err != nil && !errors.As(err, &back) {
			w.fail("complete: %w", err)
		}
	}
}

// judge holds every translation, there and back, against the truth.
func (w *world) judge(whose string, runs *checkpoint.Runs) {
	if w.err != nil {
		return
	}
	var stands []place
	for t, c := range w.cells {
		if c.stands {
			stands = append(stands, place{c.source, int64(t)})
		}
	}
	forward := oracle{w: w, whose: whose + " forward", stands: stands, dealt: w.dealt, goesOn: int64(len(w.cells)), exact: w.exact, translate: runs.Forward}
	if w.faults.holes {
		forward.translate = func(s int64) checkpoint.Translation {
			t := runs.Forward(s)
			if back := runs.Backward(t.Offset); back.Offset > s {
				t.Offset++
			}
			return t
		}
	}
	if w.faults.slack {
		forward.translate = func(s int64) checkpoint.Translation {
			t := runs.Forward(s)
			t.Slack = max(0, t.Slack-1)
			return t
		}
	}
	forward.judge(int64(len(w.records)) + 3)
	for i, p := range stands {
		stands[i] = place{p.to, p.from}
	}
	backward := oracle{w: w, whose: whose + " backward", stands: stands, dealt: w.goesOn, goesOn: w.dealt, translate: runs.Backward}
	if w.exact > 0 {
		backward.exact = int64(len(w.cells)) + 3
	}
	if i := slices.IndexFunc(stands, func(p place) bool { return p.to >= w.exact }); i >= 0 {
		backward.exact = stands[i].from
	}
	backward.back = true
	backward.judge(int64(len(w.cells)) + 3)
	for _, p := range stands {
		if p.from < w.start || p.to < w.exact {
			continue
		}
		t := runs.Forward(p.to)
		if s := runs.Backward(t.Offset); t.Offset != p.from || !t.Exact || s.Offset != p.to || !s.Exact {
			w.fail("%s: %d -> %+v -> %+v, want %d and back", whose, p.to, t, s, p.from)
		}
	}
}

// place is a record by its offsets on the side asked from and on the other.
type place struct{ from, to int64 }

// oracle knows every translation of one direction, by looking at every record.
type oracle struct {
	w         *world
	whose     string
	back      bool
	stands    []place // in order
	dealt     int64   // every offset below has been dealt with
	goesOn    int64   // on the other side: where mirroring went on after one side had lost records
	exact     int64   // offsets below may be answered loosely
	translate func(int64) checkpoint.Translation
}

// present says whether the target's log still holds a record.
func (o *oracle) present(p place) bool {
	if o.back {
		return p.from >= o.w.start
	}
	return p.to >= o.w.start
}

func (o *oracle) judge(end int64) {
	for offset := int64(0); offset < end && o.w.err == nil; offset++ {
		i, _ := slices.BinarySearchFunc(o.stands, offset, func(p place, offset int64) int { return cmp.Compare(p.from, offset) })
		before := int64(-1) // where the record before stands
		if i > 0 {
			before = o.stands[i-1].to
		}
		got := o.translate(offset)
		if i == len(o.stands) {
			o.judgeEnd(offset, got)
			continue
		}
		next := o.stands[i]
		firstPresent := slices.IndexFunc(o.stands[i:], o.present)
		wrong := ""
		switch known := i > 0 && o.present(o.stands[i-1]); {
		case !o.present(next): // it may have been forgotten, but never more than is gone
			if firstPresent >= 0 && got.Offset > o.stands[i+firstPresent].to {
				wrong = "a record that is there is skipped"
			} else if got.Exact && got.Offset <= before {
				wrong = "it is not exact"
			}
		case got.Shortfall != 0:
			wrong = "it is mirrored"
		case got.Exact && offset >= o.exact && got.Offset != next.to && before >= 0, got.Offset > next.to:
			wrong = "that is not the next record"
		case got.Exact && (got.Offset <= before || got.Slack != 0):
			wrong = "it is not exact"
		case got.Before && (known || got.Offset != next.to && o.w.start == 0):
			wrong = "there is something before"
		case !got.Exact && !got.Before && (offset >= o.exact || got.Slack <= 0 || got.Slack == math.MaxInt64 || before+1-got.Offset > got.Slack):
			wrong = "it lies further ahead"
		}
		if wrong != "" {
			o.w.fail("%s: %d -> %+v: %s; the next record stands at %d, the one before at %d, exact from %d", o.whose, offset, got, wrong, next.to, before, o.exact)
		}
	}
}

// judgeEnd judges what lies beyond the last record.
func (o *oracle) judgeEnd(offset int64, got checkpoint.Translation) {
	if len(o.stands) == 0 {
		return // a beginning, if anything; nothing can be skipped
	}
	last := o.stands[len(o.stands)-1]
	if thinned := offset < o.exact || o.back && last.to < o.w.exact; thinned && !got.Exact && got.Offset <= last.to+1 && last.to+1-got.Offset <= got.Slack {
		return
	}
	if !o.present(last) && got.Offset <= max(last.to+1, o.goesOn) {
		return // all of it may have been forgotten, or is mirrored again
	}
	beyond := offset - last.from - 1
	wrong := ""
	switch {
	case got.Offset <= last.to, got.Offset > max(last.to+1, o.goesOn):
		wrong = "it does not wait at the end"
	case got.Shortfall > beyond, got.Shortfall < offset-max(o.dealt, last.from+1):
		wrong = "the shortfall is wrong"
	case got.Exact != (got.Shortfall == 0), got.Before, got.Slack != 0:
		wrong = "it is not exact"
	}
	if wrong != "" {
		o.w.fail("%s: %d -> %+v: %s; the last record is %d at %d, and dealt with is all below %d", o.whose, offset, got, wrong, last.from, last.to, o.dealt)
	}
}
