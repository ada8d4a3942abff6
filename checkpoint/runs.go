package checkpoint

import (
	"fmt"
	"math"
	"slices"
	"sort"
)

// Runs is the offset map of one partition: runs in ascending order of source
// and of target offsets, 24 bytes each. The zero value is empty and ready. It
// is not safe for concurrent use; a Clone is independent.
type Runs struct {
	// TargetID is the id of the target topic that the target offsets belong
	// to, zero when not known. One that is known changes by Reset only.
	TargetID [16]byte

	generation uint32
	through    int64 // every source offset below has been dealt with
	count      int   // runs held
	clean      int   // chunks[:clean] are as they were loaded
	// Invariant: every chunk holds 1 to MaxBlockRuns runs and all but the last
	// are final: their memory is shared with clones and never written again.
	// Chunk and block are the same thing: the first source of a chunk is the
	// key of its block and never changes.
	chunks []chunk
}

type chunk struct {
	generation uint32
	runs       []Run
}

// Translation is where an offset of one side stands on the other.
type Translation struct {
	// Offset is the offset on the other side; -1 when nothing is mapped.
	Offset int64
	// Exact: a reader who goes on at Offset gets precisely the next record of
	// this flow, none twice and none skipped.
	Exact bool
	// Shortfall counts the offsets by which the question lies beyond the
	// mirrored end, where Offset waits.
	Shortfall int64
	// Before: the question lies before everything that is mapped; Offset is
	// where that begins.
	Before bool
}

// OrderError says that a run does not follow the ones before it.
type OrderError struct {
	Run            Run
	Source, Target int64 // where the runs before it end
}

func (e *OrderError) Error() string {
	return fmt.Sprintf("run of %d at source %d, target %d does not follow source %d, target %d", e.Run.Count, e.Run.Source, e.Run.Target, e.Source, e.Target)
}

// Add takes a run in. It extends the last one when it continues it on both
// sides. A run that is empty or begins before the end is an *OrderError: an
// acknowledgement below the end is a truncated target, never a new run.
func (r *Runs) Add(run Run) error {
	source, target, any := r.End()
	source = max(source, r.through)
	if run.Count <= 0 || run.Source < source || run.Target < target || run.Source > math.MaxInt64-run.Count || run.Target > math.MaxInt64-run.Count {
		return &OrderError{Run: run, Source: source, Target: target}
	}
	defer func() { r.through = run.Source + run.Count }()
	if any {
		c := &r.chunks[len(r.chunks)-1]
		last := &c.runs[len(c.runs)-1]
		if last.Source+last.Count == run.Source && last.Target+last.Count == run.Target {
			last.Count += run.Count
			r.clean = min(r.clean, len(r.chunks)-1)
			return nil
		}
		if len(c.runs) < MaxBlockRuns {
			c.runs = append(c.runs, run)
			r.count++
			r.clean = min(r.clean, len(r.chunks)-1)
			return nil
		}
	}
	r.open(run)
	return nil
}

// open begins a new chunk. The one before it, which may so far be persisted as
// the open block only, is final now and to be written as such.
func (r *Runs) open(run Run) {
	r.clean = min(r.clean, max(0, len(r.chunks)-1))
	r.chunks = append(r.chunks, chunk{generation: r.generation, runs: []Run{run}})
	r.count++
}

// Begin notes where the mapping of an empty partition begins: source offset
// source will stand at target offset target or later. It lets a group that
// waits there be translated before the first record has come. When something
// is mapped already it does nothing.
func (r *Runs) Begin(source, target int64) {
	if len(r.chunks) == 0 && source >= 0 && target >= 0 {
		r.open(Run{Source: source, Target: target})
		r.through = source
	}
}

// Pass notes that every source offset below source has been dealt with: there
// is nothing between the last run and it that would ever be mirrored (markers,
// aborted batches, holes). It lets a group that stands behind them be in step.
// Before the first run, and for what is known already, it does nothing.
func (r *Runs) Pass(source int64) {
	if len(r.chunks) > 0 && source > r.through {
		r.through = source
		r.clean = min(r.clean, len(r.chunks)-1)
	}
}

// Len returns the number of runs.
func (r *Runs) Len() int { return r.count }

// End returns the source and target offsets that follow the last mirrored
// record; it is not ok when nothing is mapped.
func (r *Runs) End() (source, target int64, ok bool) {
	if len(r.chunks) == 0 {
		return 0, 0, false
	}
	runs := r.chunks[len(r.chunks)-1].runs
	last := runs[len(runs)-1]
	return last.Source + last.Count, last.Target + last.Count, true
}

// Through returns the source offset below which everything has been dealt
// with: the end of the last run, or further where nothing followed that would
// be mirrored.
func (r *Runs) Through() int64 { return r.through }

// All calls fn for every run in order, until it returns false.
func (r *Runs) All(fn func(Run) bool) {
	for _, c := range r.chunks {
		for _, run := range c.runs {
			if run.Count > 0 && !fn(run) {
				return
			}
		}
	}
}

// Forward translates a source offset to the target.
//
// Inside a run it is the exact difference. In a hole between runs it is the
// start of the next run, whose first record is the next one that a reader of
// the source would get. At the end it is the target's end of the last run,
// also where source offsets beyond have been passed; further beyond it waits
// there with a shortfall. Before the first run it is that run's start.
func (r *Runs) Forward(source int64) Translation {
	t := r.locate(source, false)
	if t.Shortfall > 0 {
		t.Shortfall = max(0, source-max(source-t.Shortfall, r.through))
		t.Exact = t.Shortfall == 0
	}
	return t
}

// Backward translates a target offset to the source, by the rules of Forward
// with the sides exchanged: an offset at a foreign record stands before our
// next one, and records that others wrote beyond our end are its shortfall.
func (r *Runs) Backward(target int64) Translation {
	return r.locate(target, true)
}

// sides returns where a run begins on the side asked from, and on the other.
func (run *Run) sides(back bool) (from, to int64) {
	if back {
		return run.Target, run.Source
	}
	return run.Source, run.Target
}

// locate finds the last chunk, and in it the last run, that begins at or
// before offset, by halving.
func (r *Runs) locate(offset int64, back bool) Translation {
	if r.count == 0 {
		return Translation{Offset: -1}
	}
	i, end := 0, len(r.chunks)
	for i < end {
		middle := int(uint(i+end) >> 1)
		if from, _ := r.chunks[middle].runs[0].sides(back); from <= offset {
			i = middle + 1
		} else {
			end = middle
		}
	}
	if i--; i < 0 {
		first := r.first()
		_, to := first.sides(back)
		return Translation{Offset: to, Before: true}
	}
	runs := r.chunks[i].runs
	j, end := 0, len(runs)
	for j < end {
		middle := int(uint(j+end) >> 1)
		if from, _ := runs[middle].sides(back); from <= offset {
			j = middle + 1
		} else {
			end = middle
		}
	}
	run := &runs[j-1]
	from, to := run.sides(back)
	into := offset - from
	if into < run.Count {
		return Translation{Offset: to + into, Exact: true}
	}
	before := run.Count == 0 && into > 0 // behind the empty run that only says where to begin
	switch {
	case j < len(runs):
		_, to = runs[j].sides(back)
	case i+1 < len(r.chunks):
		_, to = r.chunks[i+1].runs[0].sides(back)
	default:
		return Translation{Offset: to + run.Count, Exact: into == run.Count, Shortfall: into - run.Count}
	}
	return Translation{Offset: to, Exact: !before, Before: before}
}

// first returns the first run that is not empty, or the empty one if it is
// alone.
func (r *Runs) first() Run {
	runs := r.chunks[0].runs
	switch {
	case runs[0].Count > 0:
		return runs[0]
	case len(runs) > 1:
		return runs[1]
	case len(r.chunks) > 1:
		return r.chunks[1].runs[0]
	default:
		return runs[0]
	}
}

// Clone returns an independent copy; it shares the memory of final chunks.
func (r *Runs) Clone() *Runs {
	c := *r
	c.chunks = slices.Clone(r.chunks)
	if n := len(c.chunks); n > 0 {
		c.chunks[n-1].runs = slices.Clone(c.chunks[n-1].runs)
	}
	return &c
}

// CutTarget removes everything at or after a target offset, because the target
// lost it. What was persisted of it is void from the next flush on.
func (r *Runs) CutTarget(target int64) { r.cut(math.MaxInt64, target) }

// CutSource removes everything at or after a source offset, because it has to
// be mirrored again.
func (r *Runs) CutSource(source int64) { r.cut(source, math.MaxInt64) }

// Reset removes everything: the target topic with the given id takes the place
// of the one before. What was persisted is void from the next flush on.
func (r *Runs) Reset(targetID [16]byte) {
	void := len(r.chunks) > 0
	*r = Runs{TargetID: targetID, generation: r.generation}
	if void {
		r.generation++
		r.open(Run{})
	}
}

// cut begins a new generation with what lies before both offsets. The last
// chunk kept states it, or an empty run where nothing is kept.
func (r *Runs) cut(source, target int64) {
	source, target = max(0, source), max(0, target)
	if end, targetEnd, ok := r.End(); !ok || (max(end, r.through) <= source && targetEnd <= target) {
		return
	}
	start := r.chunks[0].runs[0]
	r.truncate(source, target)
	r.generation++
	if len(r.chunks) == 0 {
		r.open(Run{Source: min(source, start.Source), Target: min(target, start.Target)})
		r.through = r.chunks[0].runs[0].Source
	}
	last := len(r.chunks) - 1
	r.chunks[last].generation = r.generation
	r.clean = min(r.clean, last)
}

// truncate removes what lies at or after either offset.
func (r *Runs) truncate(source, target int64) {
	beyond := func(run Run) bool { return run.Source >= source || run.Target >= target }
	before, _, _ := r.End()
	keep := sort.Search(len(r.chunks), func(i int) bool { return beyond(r.chunks[i].runs[0]) })
	for _, c := range r.chunks[keep:] {
		r.count -= len(c.runs)
	}
	r.chunks = slices.Clone(r.chunks[:keep])
	if keep > 0 {
		c := &r.chunks[keep-1]
		n := sort.Search(len(c.runs), func(j int) bool { return beyond(c.runs[j]) })
		r.count -= len(c.runs) - n
		c.runs = slices.Clone(c.runs[:n])
		last := &c.runs[n-1]
		last.Count = min(last.Count, source-last.Source, target-last.Target)
	}
	if end, _, ok := r.End(); !ok || end != before {
		r.through = end // what was passed lay behind records that are gone
	}
	r.through = min(r.through, source)
	r.clean = min(r.clean, max(0, keep-1))
}
