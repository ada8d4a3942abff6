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
	for i := from; i < len(r.chunks); i++ {
		p := r.piece(i)
		b := Block{Key: k, Open: i == len(r.chunks)-1, TargetID: r.TargetID, Generation: p.generation, Through: p.through, Runs: slices.Clone(p.runs)}
		if last := p.runs[len(p.runs)-1]; last.Loose && !b.Open {
			b.Stretch = max(0, r.chunks[i+1].runs[0].Target-last.Target-last.Count)
		}
		blocks = append(blocks, b)
	}
	return blocks
}

// piece is a chunk and up to where it speaks in the source: what a block says,
// wherever it comes from.
type piece struct {
	chunk
	through int64
	id      [16]byte
}

// piece returns chunk i.
func (r *Runs) piece(i int) piece {
	p := piece{chunk: r.chunks[i], id: r.TargetID}
	p.through = p.end()
	switch {
	case i == len(r.chunks)-1:
		p.through = max(p.through, r.through)
	case p.runs[len(p.runs)-1].Loose:
		p.through = max(p.through, cmp.Or(p.stretch, r.chunks[i+1].runs[0].Source))
	}
	return p
}

func pieceOf(b Block) piece {
	p := piece{chunk: chunk{generation: b.Generation, open: b.Open, name: b.Runs[0].Source, runs: b.Runs}, through: b.Through, id: b.TargetID}
	if p.covered() > p.end() {
		p.stretch = p.covered()
	}
	return p
}

// end returns the source offset that follows the last run.
func (p *piece) end() int64 {
	last := &p.runs[len(p.runs)-1]
	return last.Source + last.Count
}

// covered returns the source offset up to which p speaks: behind a loose run
// that is where the next one begins.
func (p *piece) covered() int64 {
	if last := &p.runs[len(p.runs)-1]; last.Loose && !last.void() {
		return max(p.end(), p.through)
	}
	return p.end()
}

// compare says which of two blocks of the same generation and first source
// offset holds: p, if it is more than 0. That is the one that reaches further
// and, of two that reach equally far, the one that says more.
func (p *piece) compare(other *piece) int {
	return cmp.Or(cmp.Compare(p.covered(), other.covered()), cmp.Compare(p.through, other.through),
		cmp.Compare(len(p.runs), len(other.runs)), cmp.Compare(p.end(), other.end()))
}

// before returns what of p lies before both offsets.
func (p piece) before(source, target int64) (_ piece, some bool) {
	all := p.runs
	if len(all) == 0 || all[0].reaches(source, target) {
		return p, false
	}
	p.runs = truncated(all, source, target)
	n := len(p.runs)
	if n < len(all) {
		p.through = all[n].Source
	}
	p.through = min(p.through, source)
	switch {
	case p.covered() > p.end():
		p.stretch = p.covered()
	case n < len(all) || p.runs[n-1] != all[n-1]: // what was passed lay behind runs that are gone
		p.through, p.stretch = p.end(), 0
	}
	return p, true
}

// Merge takes in blocks as read from the topic, in any order, however often:
// those of another target topic than that of the highest generation are void
// (an unknown id is no other);
// a generation cuts the lower ones off at its first run; of two blocks of a
// generation with one first source offset the one that reaches further holds.
func (r *Runs) Merge(blocks ...Block) {
	for i, b := range blocks {
		if len(b.Runs) == 0 || r.follow(b) {
			continue
		}
		pieces := make([]piece, 0, len(r.chunks)+len(blocks)-i)
		for i := range r.chunks {
			pieces = append(pieces, r.piece(i))
		}
		for _, b := range blocks[i:] {
			if len(b.Runs) > 0 {
				pieces = append(pieces, pieceOf(b))
			}
		}
		r.assemble(pieces)
		return
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
	p := pieceOf(b)
	if n == 0 {
		r.append(p)
		return true
	}
	_, targetEnd, _ := r.End()
	last := r.piece(n - 1)
	switch {
	case first.Count > 0 && first.Source >= r.covered() && first.Target >= targetEnd:
		r.append(p)
	case first.Source == last.name && first.Source == last.runs[0].Source && last.generation == b.Generation:
		if p.compare(&last) > 0 { // the last one's memory is nobody else's
			r.count += len(p.runs) - len(last.runs)
			p.runs = append(last.runs[:0], p.runs...)
			r.chunks[n-1] = p.chunk
			r.through = max(r.through, p.through)
			r.clean = n
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

// append takes a piece in as it is.
func (r *Runs) append(p piece) {
	p.runs = slices.Clone(p.runs)
	r.chunks = append(r.chunks, p.chunk)
	r.count += len(p.runs)
	r.through = max(r.through, p.through)
	r.clean = len(r.chunks)
}

// assemble builds the runs anew, by the rules of Merge.
func (r *Runs) assemble(pieces []piece) {
	newest := pieces[0]
	for _, p := range pieces {
		if p.generation > newest.generation || p.generation == newest.generation && p.id != [16]byte{} {
			newest = p
		}
	}
	*r = Runs{TargetID: newest.id, generation: newest.generation, persisted: newest.generation, full: r.full}
	pieces = slices.DeleteFunc(pieces, func(p piece) bool { return otherTopic(p.id, r.TargetID) })

	// From the highest generation down, each is cut where those above begin.
	slices.SortStableFunc(pieces, func(a, b piece) int { return cmp.Compare(b.generation, a.generation) })
	source, target := int64(math.MaxInt64), int64(math.MaxInt64)
	kept := pieces[:0:0]
	for i := 0; i < len(pieces); {
		generation, nextSource, nextTarget := pieces[i].generation, source, target
		for ; i < len(pieces) && pieces[i].generation == generation; i++ {
			p := pieces[i]
			nextSource, nextTarget = min(nextSource, p.runs[0].Source), min(nextTarget, p.runs[0].Target)
			if p, some := p.before(source, target); some {
				kept = append(kept, p)
			}
		}
		source, target = nextSource, nextTarget
	}

	// What is left is one truth in pieces that may overlap.
	slices.SortStableFunc(kept, func(a, b piece) int {
		return cmp.Or(cmp.Compare(a.runs[0].Source, b.runs[0].Source), b.compare(&a))
	})
	for _, p := range kept {
		r.extend(p)
	}
}

// extend appends what of p lies behind what r speaks of. Where that begins in a
// loose stretch of p, r's last run becomes loose.
func (r *Runs) extend(p piece) {
	_, target, some := r.End()
	source, through := r.covered(), p.through
	left := make([]Run, 0, len(p.runs))
	stretch := false // a loose run of p was the last to be passed over
	for _, run := range p.runs {
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
		p.runs = left
		r.append(p)
	case stretch && through > source:
		r.loosen(through)
	}
}

// loosen makes the last run loose, up to a source offset.
func (r *Runs) loosen(through int64) {
	if last := r.last(); last.Count > 0 {
		last.Loose = true
		r.through = max(r.through, through)
		r.chunks[len(r.chunks)-1].stretch = r.through
	}
}

// drop takes in that a full block was deleted from the topic, by its first source
// offset and generation. What it said is forgotten when all before it is: where
// blocks overlap, others may say what it stands here for.
func (r *Runs) drop(b Block) {
	i := slices.IndexFunc(r.chunks, func(c chunk) bool {
		return c.name == b.Runs[0].Source && c.generation == b.Generation
	})
	if i < 0 || i == len(r.chunks)-1 && r.chunks[i].open { // which the open block says too
		return
	}
	r.chunks = slices.Clone(r.chunks)
	r.chunks[i].gone = true
	if slices.ContainsFunc(r.chunks[:i], func(c chunk) bool { return !c.gone }) {
		return
	}
	for _, c := range r.chunks[:i+1] {
		r.count -= len(c.runs)
	}
	r.chunks = slices.Delete(r.chunks, 0, i+1)
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
