package checkpoint

import (
	"cmp"
	"slices"
	"sort"
)

// filedAnchor is one record of the ledger's topic, by the positions of its first
// and its last step.
type filedAnchor struct{ first, last int64 }

// file takes note of a record; one with the same first step takes its place.
func (l *lane) file(a filedAnchor) {
	i, found := slices.BinarySearchFunc(l.filed, a.first, func(f filedAnchor, p int64) int { return cmp.Compare(f.first, p) })
	if found {
		l.filed[i] = a
	} else {
		l.filed = slices.Insert(l.filed, i, a)
	}
}

// remove forgets an anchor that was deleted from the topic, by its first
// sequence, with those of its steps that no other record holds.
func (l *Ledger) remove(p Producer, sequence int32) {
	line := l.producers[p]
	if line == nil {
		return
	}
	first := line.unwrap(sequence)
	at, found := slices.BinarySearchFunc(line.filed, first, func(f filedAnchor, p int64) int { return cmp.Compare(f.first, p) })
	if !found {
		return
	}
	gone := line.filed[at]
	line.filed = slices.Delete(line.filed, at, at+1)
	line.steps = slices.DeleteFunc(line.steps, func(s laneStep) bool {
		return s.position >= gone.first && s.position <= gone.last && !line.holds(s.position)
	})
	if len(line.steps) == 0 {
		delete(l.producers, p)
	}
}

// holds says whether a record that is filed spans a position.
func (l *lane) holds(position int64) bool {
	n := sort.Search(len(l.filed), func(i int) bool { return l.filed[i].first > position })
	for i := n - 1; i >= 0 && i >= n-maxOverlap; i-- {
		if l.filed[i].last >= position {
			return true
		}
	}
	return false
}

// maxOverlap is how many records before a position are asked whether they reach
// it: anchors do not overlap, but for those that are written once more because the
// ledger may have lost its end.
const maxOverlap = 64

// byAge returns the epochs in the order in which they wrote.
func (l *Ledger) byAge() []Producer {
	all := make([]Producer, 0, len(l.producers))
	for p := range l.producers {
		all = append(all, p)
	}
	slices.SortFunc(all, func(a, b Producer) int { return cmp.Compare(l.producers[a].order, l.producers[b].order) })
	return all
}

// anchors appends the keys of some records of a producer epoch.
func (l *Ledger) anchors(dst []Anchor, p Producer, filed []filedAnchor) []Anchor {
	for _, f := range filed {
		dst = append(dst, Anchor{ProducerID: p.ID, Epoch: p.Epoch, Steps: []Step{{Sequence: advanceSequence(0, f.first)}}})
	}
	return dst
}

// Past returns the anchors that say nothing about a source offset or what was
// mirrored after it, oldest first, by their keys: the producer's epoch and the
// first sequence as the only step. The Key is the caller's.
//
// Epochs follow each other in the target's log as they do here, and each goes on
// where the map stood when it began. So an offset that is mapped was written by the
// newest epoch that began at or before it: whatever older epochs wrote stands before
// it in the target, and so does what that epoch wrote under earlier steps.
func (l *Ledger) Past(source int64) []Anchor {
	epochs := l.byAge()
	now := len(epochs) - 1
	for now >= 0 && l.producers[epochs[now]].steps[0].source > source {
		now--
	}
	if now < 0 {
		return nil
	}
	var past []Anchor
	for _, p := range epochs[:now] {
		past = l.anchors(past, p, l.producers[p].filed)
	}
	line := l.producers[epochs[now]]
	keep := 0
	for i, f := range line.filed {
		if at := line.at(f.first); at >= 0 && line.steps[at].source <= source {
			keep = i
		}
	}
	for _, f := range line.filed[:keep] {
		if f.last < line.filed[keep].first {
			past = l.anchors(past, epochs[now], []filedAnchor{f})
		}
	}
	return past
}

// Recent returns the source offset of the step that n-1 newer ones follow; it is not
// ok when there are not so many.
func (l *Ledger) Recent(n int) (source int64, ok bool) {
	for _, p := range slices.Backward(l.byAge()) {
		steps := l.producers[p].steps
		if n <= len(steps) {
			return steps[len(steps)-n].source, true
		}
		n -= len(steps)
	}
	return 0, false
}

// Idle returns the anchors of epochs that began at or behind a source offset and of
// which no batch was seen, but for the oldest epoch: if that offset is where the map
// ends, and seen are the epochs with batches behind its end, they wrote nothing, and
// say nothing that the newest one does not say.
func (l *Ledger) Idle(source int64, seen func(Producer) bool) []Anchor {
	var idle []Anchor
	for i, p := range l.byAge() {
		line := l.producers[p]
		if i > 0 && len(line.steps) == 1 && line.steps[0].position == 0 && line.steps[0].source >= source && !seen(p) {
			idle = l.anchors(idle, p, line.filed)
		}
	}
	return idle
}

// Anchors returns the number of records held.
func (l *Ledger) Anchors() int {
	n := 0
	for _, line := range l.producers {
		n += len(line.filed)
	}
	return n
}
