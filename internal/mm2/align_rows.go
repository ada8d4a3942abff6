package mm2

import "math"

// alignment lays one view of the source against the target.
type alignment struct {
	source []Record
	target []Record
	stored int64
	anchor int // index in source; -1 unknown, -2: not in this view
	fresh  int // attempts began at this index or before: the first record behind stored
	some   bool
}

// newAlignment takes the source's records, the aborted ones only if they are wanted.
func newAlignment(t Tail, aborted bool) *alignment {
	a := &alignment{target: t.Target, stored: t.Stored, anchor: -1}
	if t.Anchor >= 0 {
		a.anchor = -2
	}
	a.source = make([]Record, 0, len(t.Source))
	for i, r := range t.Source {
		a.some = a.some || r.Aborted
		if r.Aborted && !aborted {
			continue
		}
		if i == t.Anchor {
			a.anchor = len(a.source)
		}
		if r.Offset <= t.Stored {
			a.fresh = len(a.source) + 1
		}
		a.source = append(a.source, r)
	}
	return a
}

func (a *alignment) place() (Place, error) {
	if a.anchor == -2 {
		return Place{}, &MismatchError{Target: a.target[0].Offset, First: true, What: "it is the copy of an aborted record"}
	}
	if p, ok, err := a.straight(); ok || err != nil {
		return p, err
	}
	return a.rows()
}

// straight looks for one stretch of the source that the target's records are.
func (a *alignment) straight() (p Place, ok bool, err error) {
	from, to := a.anchor, a.anchor
	if a.anchor < 0 {
		from, to = 0, min(a.fresh, len(a.source)-1)
	}
	found, last, work := 0, 0, 0
	for s := from; s <= to; s++ {
		n := 0
		for n < len(a.target) && s+n < len(a.source) && a.target[n].copies(&a.source[s+n]) {
			n++
		}
		if work += n + 1; work > maxWork {
			return p, false, a.tooAlike()
		}
		if n < len(a.target) || s+n < a.fresh {
			continue
		}
		if found++; found > 1 {
			return p, false, &AmbiguousError{Lowest: a.stored + 1, Highest: max(a.stored, a.source[s+n-1].Offset) + 1}
		}
		last = s + n - 1
	}
	if found == 0 {
		return p, false, nil
	}
	p.Next = max(a.source[last].Offset, a.stored) + 1
	first := last - len(a.target) + 1
	p.Pairs = make([]Pair, len(a.target))
	for i := range a.target {
		p.Pairs[i] = Pair{a.source[first+i].Offset, a.target[i].Offset}
	}
	return p, true, nil
}

func (a *alignment) tooAlike() error {
	highest := a.stored + 1
	if n := len(a.source); n > 0 {
		highest = max(highest, a.source[n-1].Offset+1)
	}
	return &AmbiguousError{Lowest: a.stored + 1, Highest: highest}
}

// reach is how far ways to cut have come, by index. Those that have not come to the
// last record that is stored yet are only noted: they must still come there.
type reach struct {
	short       bool // some have not
	least, most int  // of the others; none if least is above most
}

// join is the reach of all ways of both.
func (r reach) join(o reach) reach {
	return reach{r.short || o.short, min(r.least, o.least), max(r.most, o.most)}
}

// to is the reach after each way has gone to index i; stored is the index of the last
// record that is stored.
func (r reach) to(i, stored int) reach {
	out := noWay()
	if r.least <= r.most {
		out.least, out.most = max(r.least, i), max(r.most, i)
	}
	switch {
	case r.short && i < stored:
		out.short = true
	case r.short:
		out.least, out.most = min(out.least, i), max(out.most, i)
	}
	return out
}

func noWay() reach { return reach{least: math.MaxInt, most: -1} }

// rows follows every way to cut the target's records into stretches: after each of
// them, the indexes that may stand last, and how far the ways there have come.
func (a *alignment) rows() (Place, error) {
	begins := map[[16]byte][]int{} // where an attempt may have begun
	for i := 0; i <= a.fresh && i < len(a.source); i++ {
		c := a.source[i].Content
		begins[c] = append(begins[c], i)
	}
	now, work := map[int]reach{}, 0
	for n := range a.target {
		y, next := &a.target[n], map[int]reach{}
		at := func(i int, r reach) {
			r = r.to(i, a.fresh-1)
			if was, ok := next[i]; ok {
				r = r.join(was)
			}
			next[i] = r
		}
		before := noWay() // of all ways: each of them may be cut here
		for i, r := range now {
			before = before.join(r)
			if i+1 < len(a.source) && y.copies(&a.source[i+1]) {
				at(i+1, r)
			}
		}
		from := begins[y.Content]
		if n == 0 {
			before.short = true
			if a.anchor >= 0 {
				from = []int{a.anchor}
			}
		}
		for _, i := range from {
			if y.copies(&a.source[i]) {
				at(i, before)
			}
		}
		if len(next) == 0 {
			return Place{}, &MismatchError{Target: y.Offset, First: n == 0, What: "the record there is not the one that the source has next, nor one from which MirrorMaker 2 can have begun again"}
		}
		if work += len(next) + len(from); work > maxWork {
			return Place{}, a.tooAlike()
		}
		now = next
	}
	return a.furthest(now)
}

// furthest is where all ways have come in the end.
func (a *alignment) furthest(now map[int]reach) (Place, error) {
	all := noWay()
	for _, r := range now {
		all = all.join(r)
	}
	switch {
	case all.least > all.most:
		return Place{}, &MismatchError{Target: a.target[len(a.target)-1].Offset, What: "the copy ends there before the stored position: the target has lost records"}
	case all.least < all.most:
		return Place{}, &AmbiguousError{Lowest: max(a.stored, a.source[all.least].Offset) + 1, Highest: max(a.stored, a.source[all.most].Offset) + 1}
	}
	last := &a.source[all.most]
	p := Place{Next: max(last.Offset, a.stored) + 1}
	for n := len(a.target) - 1; n >= 0; n-- {
		if a.target[n].copies(last) {
			p.Pairs = []Pair{{last.Offset, a.target[n].Offset}}
			break
		}
	}
	if a.anchor >= 0 {
		p.Again = max(0, int64(len(a.target)-(all.most-a.anchor+1)))
	}
	return p, nil
}
