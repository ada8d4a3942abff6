package checkpoint

import "math/bits"

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
	keep = max(keep, 1)
	chunks := l.Runs.chunks
	n := 0
	for n+1 < len(chunks) && chunks[n+1].runs[0].Source <= below {
		n++
	}
	if n == 0 {
		return nil, nil
	}
	var runs []Run
	for _, c := range chunks[:n] {
		runs = append(runs, c.runs...)
	}
	if len(runs) <= keep {
		return nil, nil
	}
	next, end, generation := chunks[n].runs[0], runs[len(runs)-1], chunks[n-1].generation
	runs = thinned(runs, next.Target, keep)
	first := runs[0].Source
	for len(runs) > 0 { // from the end on, because each voids what older generations say behind its beginning
		cut := (len(runs) - 1) / l.Runs.fullBlock() * l.Runs.fullBlock()
		b := Block{Key: k, TargetID: l.Runs.TargetID, Generation: generation, Runs: runs[cut:]}
		last := runs[len(runs)-1]
		if b.Through = last.Source + last.Count; last.Loose {
			b.Through, b.Stretch = next.Source, next.Target-last.Target-last.Count
		}
		write, runs, next = append(write, b), runs[:cut], b.Runs[0]
	}
	written := make(map[blockName]bool)
	for _, b := range write {
		written[nameOf(b)] = true
	}
	var names []blockName
	for _, name := range l.Filed.sorted() {
		void := name.generation < generation
		within := name.generation == generation && l.Filed.blocks[name].end <= end.Source+end.Count
		if name.source >= first && !written[name] && (void || within) {
			names = append(names, name)
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
			if i > 0 && run.Count == 0 {
				continue // where mapping went on: that shows
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
