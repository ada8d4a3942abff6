package checkpoint

import (
	"math"
	"sort"
)

// Translation is where an offset of one side stands on the other.
type Translation struct {
	// Offset is the offset on the other side; -1 when nothing is mapped.
	Offset int64
	// Shortfall counts the offsets by which the question lies beyond the
	// mirrored end, where Offset waits.
	Shortfall int64
	// Slack is 0 unless the answer lies behind a loose run: then at most so many
	// offsets lie between Offset and the exact place, which is not before it.
	// math.MaxInt64 when it is not known how many.
	Slack int64
	// Exact: a reader who goes on at Offset gets precisely the next record of
	// this flow, none twice and none skipped.
	Exact bool
	// Before: the question lies before everything that is mapped; Offset is
	// where that begins.
	Before bool
	// Open: both flows write the pair, and the question lies at the end of a map or beyond:
	// what is mirrored next may move the answer on.
	Open bool
}

// open reports whether the answer may move on as more is mirrored, or the map
// comes to hold what is.
func (t Translation) open() bool { return t.Open || t.Shortfall > 0 }

// Forward translates a source offset to the target.
//
// Inside a run it is the exact difference. In a hole between runs it is the
// start of the next run, whose first record is the next one that a reader of
// the source would get; behind a loose run it is that run's end, so that
// nothing is skipped. At the end it is the target's end of the last run,
// also where source offsets beyond have been passed; further beyond it waits
// there with a shortfall. Before the first run it is that run's start.
func (r *Runs) Forward(source int64) Translation {
	t := r.locate(source, false)
	if t.Shortfall > 0 {
		t.Shortfall = max(0, source-max(source-t.Shortfall, r.through))
		t.Exact = t.Shortfall == 0 && t.Slack == 0 && !t.Before
	}
	return t
}

// Backward translates a target offset to the source, by the rules of Forward
// with the sides exchanged: an offset at a foreign record stands before our
// next one, and records that others wrote beyond our end are its shortfall.
func (r *Runs) Backward(target int64) Translation {
	return r.locate(target, true)
}

// Behind returns the source offset behind the last record known to stand before a
// target offset: who has read the target up to there has read that of this flow.
// Where there is none it is where the map begins; -1 when nothing is mapped.
func (r *Runs) Behind(target int64) int64 {
	i := sort.Search(len(r.chunks), func(i int) bool { return r.chunks[i].runs[0].Target >= target }) - 1
	if i < 0 {
		if r.count == 0 {
			return -1
		}
		return r.chunks[0].runs[0].Source
	}
	runs := r.chunks[i].runs
	run := runs[sort.Search(len(runs), func(j int) bool { return runs[j].Target >= target })-1]
	return run.Source + min(run.Count, target-run.Target)
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
		_, to := r.following(0, 0).sides(back)
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
	at := to + run.Count // for who stands behind the run
	next := r.following(i, j)
	switch {
	case next == nil && run.void():
		return Translation{Offset: at, Before: true, Shortfall: into}
	case next == nil:
		t := Translation{Offset: at, Exact: into == run.Count, Shortfall: into - run.Count}
		if run.Loose && !t.Exact {
			t.Slack = math.MaxInt64
		}
		return t
	}
	_, to = next.sides(back)
	switch {
	case run.void():
		return Translation{Offset: to, Before: true}
	case run.Loose && into == run.Count:
		return Translation{Offset: at, Exact: true}
	case run.Loose && to > at:
		_, to = r.behind(i, j).sides(back) // an empty one says more closely where the stretch ends
		return Translation{Offset: at, Slack: to - at, Exact: to == at}
	default:
		return Translation{Offset: to, Exact: true}
	}
}

// behind returns run j of chunk i, which may be the first of the next chunk;
// nil when there is none.
func (r *Runs) behind(i, j int) *Run {
	switch {
	case j < len(r.chunks[i].runs):
		return &r.chunks[i].runs[j]
	case i+1 < len(r.chunks):
		return &r.chunks[i+1].runs[0]
	}
	return nil
}

// following returns the first run from run j of chunk i on that is not empty,
// or the last empty one; nil when there is none at all.
func (r *Runs) following(i, j int) *Run {
	run := r.behind(i, j)
	for run != nil && run.Count == 0 {
		if j == len(r.chunks[i].runs) {
			i, j = i+1, 0
		}
		j++
		next := r.behind(i, j)
		if next == nil {
			break
		}
		run = next
	}
	return run
}
