package mm2

// maxSyncs bounds what is kept of one partition's offset syncs.
const maxSyncs = 1024

// Syncs are the offset syncs of one partition that can be believed together: a source
// offset and where it stood in the target when it was copied.
//
// Syncs contradict each other where a topic was created anew, or where MirrorMaker 2
// began again below what it had copied. Then the newer one holds, and whatever is not
// below it on both sides is dropped. Of more than maxSyncs, every second of the older
// half is dropped too: less is known then, and nothing false. The zero value is empty.
type Syncs struct {
	pairs []Pair // ascending on both sides
}

// Add takes in a sync, in the order of the topic.
func (s *Syncs) Add(source, target int64) {
	if source < 0 || target < 0 {
		return
	}
	n := len(s.pairs)
	for n > 0 && (s.pairs[n-1].Source >= source || s.pairs[n-1].Target >= target) {
		n--
	}
	s.pairs = append(s.pairs[:n], Pair{source, target})
	if len(s.pairs) <= maxSyncs {
		return
	}
	kept := s.pairs[:0]
	for i, p := range s.pairs {
		if i >= maxSyncs/2 || i%2 == 0 {
			kept = append(kept, p)
		}
	}
	s.pairs = kept
}

// Below returns the syncs that lie below a place on both sides, ascending.
func (s *Syncs) Below(source, target int64) []Pair {
	n := len(s.pairs)
	for n > 0 && (s.pairs[n-1].Source >= source || s.pairs[n-1].Target >= target) {
		n--
	}
	return append([]Pair(nil), s.pairs[:n]...)
}

// Newest calls fn for every sync, the newest first, until it returns false.
func (s *Syncs) Newest(fn func(Pair) bool) {
	for i := len(s.pairs) - 1; i >= 0 && fn(s.pairs[i]); i-- {
	}
}
