package checkpoint

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
