package checkpoint

import (
	"cmp"
	"context"
	"slices"
)

// Groups returns what Each says, by name.
func (s *Syncer) Groups() []GroupStatus {
	return slices.SortedFunc(s.Each(), func(a, b GroupStatus) int { return cmp.Compare(a.Group, b.Group) })
}

// LoadPartition is LoadPartitions for one.
func LoadPartition(ctx context.Context, target Reader, k Key) (Loaded, error) {
	loaded, err := LoadPartitions(ctx, target, k.MapPartition(), []Key{k})
	return loaded[k], err
}

// Dump returns all that two equal maps have in common.
func (r *Runs) Dump() (targetID [16]byte, through int64, runs []Run) {
	r.All(func(run Run) bool { runs = append(runs, run); return true })
	return r.TargetID, r.through, runs
}

// Generation returns the generation that the next block is written with.
func (r *Runs) Generation() uint32 { return r.generation }

// Held returns how many runs are in memory for every partition.
func (r *Recorder) Held() map[Key]int {
	held := make(map[Key]int)
	for i := range r.lines {
		l := &r.lines[i]
		l.mu.Lock()
		for k, p := range l.parts {
			held[k] = p.runs.Len()
		}
		l.mu.Unlock()
	}
	return held
}

// FillBlocksAt makes blocks full at n runs, so that short histories file many.
func (r *Runs) FillBlocksAt(n int) { r.full = n }

// Flush does what a Recorder's flush does, with what write says of how many
// blocks are in the topic.
func (r *Runs) Flush(k Key, write func([]Block) (failed bool)) {
	blocks := r.Unsaved(k)
	from := r.saved()
	if write(blocks) {
		r.unsave(from)
	}
	r.trim()
}

// Drop does what a deleted block's record does.
func (r *Runs) Drop(b Block) { r.drop(b) }
