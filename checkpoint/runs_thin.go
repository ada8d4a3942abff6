package checkpoint

import (
	"math/bits"
	"slices"
)

// Thin returns how to keep only about keep runs of those below source offset
// below, which is at or before whatever an offset may still be asked for exactly:
// blocks to write and then blocks to delete, each in this order, and a part of
// them only from its beginning. Nothing below is then skipped by a translation,
// but some of it may be read again; by how much at most is as even as can be, and
// long runs stay.
//
// Only whole full blocks are thinned, and never what is open. The caller has
// loaded l since it recorded the partition last, is the only one that does, and
// tells Filed of what it did. There is nothing to do when both are empty.
func (l Loaded) Thin(k Key, below int64, keep int) (write, gone []Block) {
	r := l.Runs
	chunks := 0
	for chunks+1 < len(r.chunks) && r.chunks[chunks+1].runs[0].Source <= below {
		chunks++
	}
	if chunks == 0 {
		return nil, nil
	}
	var runs []Run
	for _, c := range r.chunks[:chunks] {
		runs = append(runs, c.runs...)
	}
	next := r.chunks[chunks].runs[0]
	if len(runs) <= max(keep, 1) {
		return nil, nil
	}
	runs = thinned(runs, next.Target, max(keep, 1))
	generation := r.chunks[chunks-1].generation // the highest there
	through := next.Source
	for len(runs) > 0 { // from the end on: each voids what older generations say behind its beginning
		n := len(runs) - (len(runs)-1)%MaxBlockRuns - 1
		b := Block{Key: k, TargetID: r.TargetID, Generation: generation, Through: through, Runs: runs[n:]}
		if last := runs[len(runs)-1]; !last.Loose {
			b.Through = last.Source + last.Count
		}
		write = append(write, b)
		through, runs = runs[n].Source, runs[:n]
	}
	first, end, _ := r.chunks[0].runs[0].Source, int64(0), 0
	for _, run := range r.chunks[chunks-1].runs {
		end = run.Source + run.Count
	}
	var names []blockName
	for _, n := range l.Filed.sorted() {
		again := slices.ContainsFunc(write, func(b Block) bool { return nameOf(b) == n })
		void := n.generation < generation
		if n.source >= first && !again && (void || (n.generation == generation && l.Filed.blocks[n].end <= end)) {
			names = append(names, n)
		}
	}
	return write, l.Filed.named(k, names)
}

// thinned returns about keep of these runs, the first among them; next is the
// target offset at which the one behind them begins.
func thinned(runs []Run, next int64, keep int) []Run {
	// Of a width, as few runs are kept as leave no loose stretch that is wider.
	pick := func(width int64, take func(Run)) (n int) {
		last := runs[0]
		for i, run := range runs {
			behind := next
			if i+1 < len(runs) {
				behind = runs[i+1].Target
			}
			if i > 0 && last.Count > 0 && behind-(last.Target+last.Count) <= width {
				last.Loose = true
				continue
			}
			if i > 0 {
				take(last)
			}
			last, n = run, n+1
		}
		take(last)
		return n
	}
	lowest, highest := 0, bits.Len64(uint64(max(0, next-runs[0].Target)))
	for lowest < highest {
		middle := (lowest + highest) / 2
		if pick(1<<middle-1, func(Run) {}) <= keep {
			highest = middle
		} else {
			lowest = middle + 1
		}
	}
	left := make([]Run, 0, keep)
	pick(1<<lowest-1, func(run Run) { left = append(left, run) })
	return left
}
