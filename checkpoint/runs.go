package checkpoint

import (
	"cmp"
	"fmt"
	"math"
	"slices"
	"sort"
)

// Runs is the offset map of one partition: runs in ascending order of source
// and of target offsets, 32 bytes each. The zero value is empty and ready. It
// is not safe for concurrent use; a Clone is independent.
type Runs struct {
	// TargetID is the id of the target topic that the target offsets belong
	// to, zero when not known. One that is known changes by Reset only.
	TargetID [16]byte

	generation uint32
	persisted  uint32 // the generation that was loaded
	through    int64  // every source offset below has been dealt with
	count      int    // runs held
	full       int    // runs of a full block; 0: MaxBlockRuns. Tests have less
	clean      int    // chunks[:clean] are as they were loaded
	// Invariant: every chunk holds at least one run, no more than fill a block, and all but the last
	// are final: their memory is shared with clones and never written again.
	// Chunk and block are the same thing: the first source of a chunk is the
	// key of its block and never changes, but where blocks that were read say
	// the same in part; then only one of them has it, and keeps its name.
	chunks []chunk
}

type chunk struct {
	generation uint32
	open       bool  // read from the open block
	gone       bool  // its block was deleted
	name       int64 // the source offset in the key of its block, if that is full
	stretch    int64 // as read: up to which source offset a loose last run speaks; 0: to the next chunk
	runs       []Run // of the first one only, the count may be 0
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
		c, last := &r.chunks[len(r.chunks)-1], r.last()
		c.stretch = 0
		if last.Source+last.Count == run.Source && last.Target+last.Count == run.Target {
			last.Count, last.Loose = last.Count+run.Count, run.Loose
			r.clean = min(r.clean, len(r.chunks)-1)
			return nil
		}
		if len(c.runs) < r.fullBlock() {
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
	r.chunks = append(r.chunks, chunk{generation: r.generation, name: run.Source, runs: []Run{run}})
	r.count++
}

// Begin notes where mapping begins: source offset source will stand at target
// offset target or later, and what lies before it on one side does so on the
// other. It lets a group that waits there be translated before the first record
// has come. It does nothing when there are runs already whose last is not loose,
// or end beyond it.
func (r *Runs) Begin(source, target int64) {
	end, targetEnd, some := r.End()
	if source < max(end, r.through) || target < targetEnd {
		return
	}
	if some && !r.last().Loose {
		return
	}
	r.goOn(Run{Source: source, Target: target})
	r.through = source
}

// goOn appends an empty run. It takes the place of an empty one at the same
// source offset, for two blocks of one name may not be.
func (r *Runs) goOn(begin Run) {
	if n := len(r.chunks); n > 0 && r.last().Count == 0 && r.last().Source == begin.Source {
		*r.last() = begin
		r.clean = min(r.clean, n-1)
		return
	}
	r.open(begin)
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

func (r *Runs) fullBlock() int { return cmp.Or(r.full, MaxBlockRuns) }

// Len returns the number of runs.
func (r *Runs) Len() int { return r.count }

// End returns the source and target offsets that follow the last mirrored
// record; it is not ok when nothing is mapped.
func (r *Runs) End() (source, target int64, ok bool) {
	if len(r.chunks) == 0 {
		return 0, 0, false
	}
	last := r.last()
	return last.Source + last.Count, last.Target + last.Count, true
}

// covered returns the source offset up to which the runs speak: behind a loose
// one that is where the next begins.
func (r *Runs) covered() int64 {
	source, _, ok := r.End()
	if ok && r.last().Loose && r.last().Count > 0 {
		source = max(source, r.through)
	}
	return source
}

// last returns the last run; there is one.
func (r *Runs) last() *Run {
	runs := r.chunks[len(r.chunks)-1].runs
	return &runs[len(runs)-1]
}

// Mapped returns the source and target offsets that follow the last record that
// is mapped, which is where End is or before it; not ok when none is.
func (r *Runs) Mapped() (source, target int64, ok bool) {
	for _, c := range slices.Backward(r.chunks) {
		for _, run := range slices.Backward(c.runs) {
			if run.Count > 0 {
				return run.Source + run.Count, run.Target + run.Count, true
			}
		}
	}
	return 0, 0, false
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
// be mirrored again: behind what stands in the target of it.
func (r *Runs) CutSource(source int64) { r.cut(source, math.MaxInt64) }

// Reset removes everything: the target topic with the given id takes the place
// of the one before. What was persisted is void from the next flush on.
func (r *Runs) Reset(targetID [16]byte) {
	void := len(r.chunks) > 0
	*r = Runs{TargetID: targetID, generation: r.generation, persisted: r.persisted, full: r.full}
	if void {
		r.generation++
		r.open(Run{Loose: true})
	}
}

// Unsettled says whether something was cut off or reset that MapTopic does not
// know of. It has to know before anything is written to the target behind the
// cut: or the next owner takes what grew there for what was cut off.
func (r *Runs) Unsettled() bool { return r.generation != r.persisted }

// cut begins a new generation with what lies before both offsets. The last
// chunk kept states it. Where mapping goes on is said by an empty run, unless
// that is where what is kept ends: what stands between in the target was void
// already, or is now because the source was cut.
func (r *Runs) cut(source, target int64) {
	source, target = max(0, source), max(0, target)
	end, targetEnd, ok := r.End()
	if !ok || (max(end, r.through) <= source && targetEnd <= target) {
		return
	}
	first := r.truncate(source, target)
	r.generation++
	if last := len(r.chunks) - 1; last >= 0 {
		r.chunks[last].generation = r.generation
		r.clean = min(r.clean, last)
	}
	switch {
	case source < math.MaxInt64:
		r.goOn(Run{Source: source, Target: targetEnd})
	case first != nil:
		begin := Run{Source: first.Source, Target: min(target, first.Target)}
		if end, targetEnd, some := r.End(); some {
			if begin.Source = end; begin.Target == targetEnd {
				break
			}
		}
		r.goOn(begin)
	}
	if last := r.last(); last.Count == 0 {
		r.through = last.Source
	}
}

// truncate removes what lies at or after either offset, and returns the first
// run of that if nothing before it was lost. What the target holds of a loose
// stretch that it lost a part of counts as not mirrored: whoever knows better
// adds it.
func (r *Runs) truncate(source, target int64) (first *Run) {
	before, _, _ := r.End()
	keep := sort.Search(len(r.chunks), func(i int) bool { return r.chunks[i].runs[0].reaches(source, target) })
	if keep < len(r.chunks) {
		first = &r.chunks[keep].runs[0]
	}
	for _, c := range r.chunks[keep:] {
		r.count -= len(c.runs)
	}
	r.chunks = slices.Clone(r.chunks[:keep])
	if keep > 0 {
		c := &r.chunks[keep-1]
		whole := c.runs
		c.runs, c.stretch = truncated(whole, source, target), 0
		n := len(c.runs)
		if n < len(whole) {
			first = &whole[n]
		}
		last := r.last()
		if last.Count < whole[n-1].Count {
			first = nil
		} else if last.Loose && !last.void() && target < math.MaxInt64 {
			first, last.Loose = nil, false
		}
		r.count -= len(whole) - n
	}
	if end, _, ok := r.End(); !ok || end != before {
		r.through = end // what was passed lay behind records that are gone
	}
	r.through = min(r.through, source)
	r.clean = min(r.clean, max(0, keep-1))
	return first
}

// reaches says whether the run begins at or after either offset.
func (run *Run) reaches(source, target int64) bool {
	return run.Source >= source || run.Target >= target
}

// truncated returns a copy of what of runs lies before both offsets.
func truncated(runs []Run, source, target int64) []Run {
	n := sort.Search(len(runs), func(i int) bool { return runs[i].reaches(source, target) })
	runs = slices.Clone(runs[:n])
	if n > 0 {
		last := &runs[n-1]
		if left := min(source-last.Source, target-last.Target); left < last.Count {
			last.Count, last.Loose = left, false
		}
	}
	return runs
}
