package checkpoint

import (
	"cmp"
	"math"
	"slices"
)

// Blocks returns all runs as the blocks that persist them.
func (r *Runs) Blocks(k Key) []Block { return r.blocks(k, 0) }

// Unsaved returns the blocks that differ from what was loaded.
func (r *Runs) Unsaved(k Key) []Block { return r.blocks(k, r.clean) }

func (r *Runs) blocks(k Key, from int) []Block {
	blocks := make([]Block, 0, len(r.chunks)-from)
	for i, c := range r.chunks[from:] {
		last := c.runs[len(c.runs)-1]
		b := Block{Key: k, TargetID: r.TargetID, Generation: c.generation, Through: last.Source + last.Count, Runs: slices.Clone(c.runs)}
		if next := from + i + 1; next == len(r.chunks) {
			b.Open = true
			b.Through = max(b.Through, r.through)
		} else if last.Loose {
			first := r.chunks[next].runs[0]
			b.Through, b.Stretch = first.Source, first.Target-last.Target-last.Count
			if c.through > 0 { // what lies between may not have been read yet
				b.Through = min(b.Through, c.through)
			}
		}
		blocks = append(blocks, b)
	}
	return blocks
}

// Merge takes in blocks as read from the topic, in any order, however often:
// those of another target topic than that of the highest generation are void
// (an unknown id is no other);
// a generation cuts the lower ones off at its first run; of two blocks of a
// generation with one first source offset the one that reaches further holds.
func (r *Runs) Merge(blocks ...Block) {
	for i, b := range blocks {
		if len(b.Runs) > 0 && !r.follow(b) {
			left := slices.DeleteFunc(slices.Clone(blocks[i:]), func(b Block) bool { return len(b.Runs) == 0 })
			r.assemble(append(r.Blocks(b.Key), left...))
			return
		}
	}
}

// follow takes a block in that continues what is there, or says more than the
// last one of it: what almost every block does. It is not ok for others.
func (r *Runs) follow(b Block) bool {
	n, first := len(r.chunks), b.Runs[0]
	if n == 0 && b.Generation >= r.generation {
		r.TargetID, r.generation, r.persisted = b.TargetID, b.Generation, b.Generation
	}
	if r.TargetID == [16]byte{} && b.Generation >= r.generation {
		r.TargetID = b.TargetID
	}
	if otherTopic(b.TargetID, r.TargetID) || b.Generation != r.generation {
		return false
	}
	_, targetEnd, _ := r.End()
	switch {
	case n == 0 || (first.Count > 0 && first.Source >= r.covered() && first.Target >= targetEnd):
		r.appendChunk(b)
	case first.Source == r.chunks[n-1].runs[0].Source && r.chunks[n-1].generation == b.Generation:
		if b.compare(r.blocks(b.Key, n-1)[0]) > 0 {
			r.count -= len(r.chunks[n-1].runs)
			r.chunks = r.chunks[:n-1]
			r.appendChunk(b)
		}
	default:
		return false
	}
	return true
}

// otherTopic says whether two topic ids are known and differ.
func otherTopic(a, b [16]byte) bool {
	return a != b && a != [16]byte{} && b != [16]byte{}
}

func (r *Runs) appendChunk(b Block) {
	c := chunk{generation: b.Generation, open: b.Open, runs: slices.Clone(b.Runs)}
	if end, covered := b.end(); covered > end {
		c.through = covered
	}
	r.chunks = append(r.chunks, c)
	r.count += len(b.Runs)
	r.through = max(r.through, b.Through)
	r.clean = len(r.chunks)
}

// end returns the source offset that follows the last run of b, and the one up
// to which b speaks: behind a loose run that is where the next one begins.
func (b *Block) end() (end, covered int64) {
	last := &b.Runs[len(b.Runs)-1]
	end = last.Source + last.Count
	if last.Loose && last.Count > 0 {
		return end, max(end, b.Through)
	}
	return end, end
}

// compare says which of two blocks of the same generation and first source
// offset holds: b, if it is more than 0. That is the one that reaches further
// and, of two that reach equally far, the one that says more.
func (b *Block) compare(other Block) int {
	end, covered := b.end()
	otherEnd, otherCovered := other.end()
	return cmp.Or(cmp.Compare(covered, otherCovered), cmp.Compare(b.Through, other.Through),
		cmp.Compare(len(b.Runs), len(other.Runs)), cmp.Compare(end, otherEnd))
}

// before returns what of b lies before both offsets.
func (b Block) before(source, target int64) (_ Block, some bool) {
	all := b.Runs
	b.Runs = truncated(all, source, target)
	if len(b.Runs) == 0 {
		return b, false
	}
	if n := len(b.Runs); n < len(all) {
		b.Through = all[n].Source
	}
	b.Through = min(b.Through, source)
	if b.Runs[len(b.Runs)-1] != all[len(all)-1] {
		b.Stretch = 0
	}
	if end, covered := b.end(); end == covered && len(b.Runs) < len(all) {
		b.Through = end // what was passed lay behind runs that are gone
	}
	return b, true
}

// assemble builds the runs anew from blocks, by the rules of Merge.
func (r *Runs) assemble(blocks []Block) {
	newest := blocks[0]
	for _, b := range blocks {
		if b.Generation > newest.Generation || b.Generation == newest.Generation && b.TargetID != [16]byte{} {
			newest = b
		}
	}
	*r = Runs{TargetID: newest.TargetID, generation: newest.Generation, persisted: newest.Generation, full: r.full}
	blocks = slices.DeleteFunc(blocks, func(b Block) bool { return otherTopic(b.TargetID, r.TargetID) })

	// From the highest generation down, each is cut where those above begin.
	slices.SortStableFunc(blocks, func(a, b Block) int { return cmp.Compare(b.Generation, a.Generation) })
	source, target := int64(math.MaxInt64), int64(math.MaxInt64)
	kept := blocks[:0:0]
	for i := 0; i < len(blocks); {
		generation, nextSource, nextTarget := blocks[i].Generation, source, target
		for ; i < len(blocks) && blocks[i].Generation == generation; i++ {
			b := blocks[i]
			nextSource, nextTarget = min(nextSource, b.Runs[0].Source), min(nextTarget, b.Runs[0].Target)
			if b, some := b.before(source, target); some {
				kept = append(kept, b)
			}
		}
		source, target = nextSource, nextTarget
	}

	// What is left is one truth in pieces that may overlap.
	slices.SortStableFunc(kept, func(a, b Block) int {
		return cmp.Or(cmp.Compare(a.Runs[0].Source, b.Runs[0].Source), b.compare(a))
	})
	for _, b := range kept {
		r.extend(b)
	}
}

// extend appends what of b lies behind what r speaks of. Where that begins in a
// loose stretch of b, r's last run becomes loose.
func (r *Runs) extend(b Block) {
	_, target, some := r.End()
	source, through := r.covered(), b.Through
	var left []Run
	stretch := false // a loose run of b was the last to be passed over
	for _, run := range b.Runs {
		known := max(0, source-run.Source, target-run.Target)
		if known < run.Count || (run.Count == 0 && known == 0 && (!some || run.Source > source || run.Target > target)) {
			if len(left) == 0 && stretch && known == 0 {
				r.loosen(run.Source)
			}
			left = append(left, Run{Source: run.Source + known, Target: run.Target + known, Count: run.Count - known, Loose: run.Loose})
		}
		stretch = run.Loose && run.Count > 0
	}
	switch {
	case len(left) > 0:
		b.Runs = left
		r.appendChunk(b)
	case stretch && through > source:
		r.loosen(through)
	}
}

// loosen makes the last run loose, up to a source offset.
func (r *Runs) loosen(through int64) {
	if last := r.last(); last.Count > 0 {
		last.Loose = true
		r.through = max(r.through, through)
		r.chunks[len(r.chunks)-1].through = r.through
	}
}

// drop forgets a full block that was deleted from the topic, by its first
// source offset and generation.
func (r *Runs) drop(b Block) {
	i := slices.IndexFunc(r.chunks, func(c chunk) bool {
		return c.runs[0].Source == b.Runs[0].Source && c.generation == b.Generation
	})
	if i < 0 || i == len(r.chunks)-1 && r.chunks[i].open { // which the open block says too
		return
	}
	r.count -= len(r.chunks[i].runs)
	r.chunks = slices.Delete(slices.Clone(r.chunks), i, i+1)
	if n := len(r.chunks); n > 0 { // the last one is never shared
		r.chunks[n-1].runs = slices.Clone(r.chunks[n-1].runs)
	}
	r.clean = len(r.chunks)
}

// unsaved says whether anything differs from what was loaded or saved.
func (r *Runs) unsaved() bool { return r.clean < len(r.chunks) }

// saved notes that everything has been handed out to be written. It returns
// what unsave takes should the write fail.
func (r *Runs) saved() (from int) {
	from, r.clean = r.clean, len(r.chunks)
	return from
}

func (r *Runs) unsave(from int) { r.clean = min(r.clean, from) }

// trim drops from memory the chunks that are final and saved.
func (r *Runs) trim() {
	n := min(r.clean, len(r.chunks)-1)
	if n <= 0 {
		return
	}
	for _, c := range r.chunks[:n] {
		r.count -= len(c.runs)
	}
	r.chunks = slices.Clone(r.chunks[n:])
	r.clean -= n
}
