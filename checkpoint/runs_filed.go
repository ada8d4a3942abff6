package checkpoint

import (
	"cmp"
	"math"
	"slices"
)

// Filed are the full blocks of one partition that stand in MapTopic, by their
// keys: valid ones and those that a higher generation has voided. It says which
// may be deleted. It is not safe for concurrent use.
//
// A block does two things: it says where records stand, and it voids what blocks
// of lower generations say from its first run on. So it must not go while one
// that it voids stays, or that would count again.
type Filed struct {
	blocks map[blockName]extent
}

// blockName is what the key of a full block says beside the partition.
type blockName struct {
	generation uint32
	source     int64
}

// extent is what a full block speaks of.
type extent struct {
	target         int64 // of the first run
	end, targetEnd int64 // of the last, with what is loose behind it
}

// Add notes blocks that are in the topic; open ones are passed over.
func (f *Filed) Add(blocks ...Block) {
	for _, b := range blocks {
		if b.Open || len(b.Runs) == 0 {
			continue
		}
		if f.blocks == nil {
			f.blocks = make(map[blockName]extent)
		}
		p, last := pieceOf(b), b.Runs[len(b.Runs)-1]
		f.blocks[nameOf(b)] = extent{target: b.Runs[0].Target, end: p.covered(), targetEnd: last.Target + last.Count + b.Stretch}
	}
}

// Remove notes that blocks were deleted from the topic.
func (f *Filed) Remove(blocks ...Block) {
	for _, b := range blocks {
		if !b.Open && len(b.Runs) > 0 {
			delete(f.blocks, nameOf(b))
		}
	}
}

func nameOf(b Block) blockName { return blockName{b.Generation, b.Runs[0].Source} }

// Len returns how many there are.
func (f *Filed) Len() int { return len(f.blocks) }

// Below returns the blocks that nobody needs any more when the target's log
// begins at offset start: those that end there or below, and those that are void;
// never the newest, which says where mapping stands should the open one be lost.
// They are to be deleted in this order, and a part of them only from its
// beginning; Remove is then the caller's.
func (f *Filed) Below(k Key, start int64) []Block {
	names := f.sorted()
	var gone []blockName
	source, target := int64(math.MaxInt64), int64(math.MaxInt64)
	for i := len(names) - 1; i >= 0; { // from the highest generation down: see Runs.Merge
		generation, nextSource, nextTarget := names[i].generation, source, target
		for ; i >= 0 && names[i].generation == generation; i-- {
			n, e := names[i], f.blocks[names[i]]
			if i == len(names)-1 {
				// the newest
			} else if n.source >= source || e.target >= target || min(e.targetEnd, target) <= start {
				gone = append(gone, n)
			}
			nextSource, nextTarget = min(nextSource, n.source), min(nextTarget, e.target)
		}
		source, target = nextSource, nextTarget
	}
	slices.Reverse(gone)
	return f.named(k, gone)
}

// sorted returns all names, lower generations and then lower offsets first.
func (f *Filed) sorted() []blockName {
	names := make([]blockName, 0, len(f.blocks))
	for n := range f.blocks {
		names = append(names, n)
	}
	slices.SortFunc(names, func(a, b blockName) int {
		return cmp.Or(cmp.Compare(a.generation, b.generation), cmp.Compare(a.source, b.source))
	})
	return names
}

// named returns blocks as EncodeDeleted takes them.
func (f *Filed) named(k Key, names []blockName) []Block {
	blocks := make([]Block, 0, len(names))
	for _, n := range names {
		blocks = append(blocks, Block{Key: k, Generation: n.generation, Runs: []Run{{Source: n.source}}})
	}
	return blocks
}
