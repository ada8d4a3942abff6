package mm2_test

import (
	"errors"
	"slices"
	"testing"

	"pgregory.net/rapid"

	"kmirror/internal/mm2"
)

// rec is a record of one letter; the letter is all that there is to compare.
func rec(offset int64, letter byte, aborted bool) mm2.Record {
	return mm2.Record{Offset: offset, Content: mm2.Fingerprint([]byte{letter}, nil), Time: 7, Aborted: aborted}
}

// tail makes logs of letters; upper case letters of the source were aborted. Source
// offsets are 10, 11, ...; target offsets 100, 101, ...
func tail(source, target string, stored int64, anchor int) mm2.Tail {
	t := mm2.Tail{Stored: stored, Anchor: anchor}
	for i, c := range []byte(source) {
		t.Source = append(t.Source, rec(10+int64(i), c|0x20, c < 'a'))
	}
	for i, c := range []byte(target) {
		t.Target = append(t.Target, rec(100+int64(i), c|0x20, false))
	}
	return t
}

func TestAlign(t *testing.T) {
	for _, c := range []struct {
		name   string
		tail   mm2.Tail
		next   int64
		first  mm2.Pair
		again  int64
		lowest int64 // of an AmbiguousError
		bad    int64 // target offset of a MismatchError
	}{
		{name: "stopped in order", tail: tail("abcdef", "abc", 12, 0), next: 13, first: mm2.Pair{Source: 10, Target: 100}},
		{name: "killed", tail: tail("abcdef", "abcde", 12, 0), next: 15, first: mm2.Pair{Source: 10, Target: 100}},
		{name: "killed and without an anchor", tail: tail("abcdef", "bcde", 12, -1), next: 15, first: mm2.Pair{Source: 11, Target: 100}},
		{name: "killed twice", tail: tail("abcdef", "abcdecd", 11, 0), next: 15, first: mm2.Pair{Source: 14, Target: 104}, again: 2},
		{name: "killed twice, the second time later", tail: tail("abcdef", "abcdcde", 11, 0), next: 15, first: mm2.Pair{Source: 14, Target: 106}, again: 2},
		{name: "begun again before the anchor", tail: tail("abcdef", "cdabcde", 11, 2), next: 15, first: mm2.Pair{Source: 14, Target: 106}, again: 4},
		{name: "all alike, counted from the anchor", tail: tail("aaaaaa", "aaaa", 11, 0), next: 14, first: mm2.Pair{Source: 10, Target: 100}},
		{name: "all alike, no anchor", tail: tail("aaaaaa", "aaa", 11, -1), lowest: 12},
		{name: "alike around a cut", tail: tail("abbbbc", "abbabb", 10, 0), lowest: 11},
		{name: "alike, and two cuts fit", tail: tail("xabababab", "xabababaabab", 10, 0), lowest: 11},
		{name: "something else in between", tail: tail("abcdef", "abxcd", 11, 0), bad: 102},
		{name: "ends before the stored position", tail: tail("abcdef", "ab", 13, 0), bad: 101},
		{name: "aborted ones were copied", tail: tail("aBCdef", "abcd", 12, 0), next: 14, first: mm2.Pair{Source: 10, Target: 100}},
		{name: "aborted ones were not copied", tail: tail("aBCdef", "ad", 10, 0), next: 14, first: mm2.Pair{Source: 10, Target: 100}},
		{name: "aborted ones were, or were not", tail: tail("aBbcc", "ab", 10, 0), lowest: 11},
		{name: "aborted ones at the end", tail: tail("aBC", "a", 10, 0), next: 11, first: mm2.Pair{Source: 10, Target: 100}},
		{name: "nothing new at the source", tail: tail("abc", "abc", 12, 0), next: 13, first: mm2.Pair{Source: 10, Target: 100}},
		{name: "the anchor is an aborted record", tail: tail("Abc", "abc", 11, 0), next: 13, first: mm2.Pair{Source: 10, Target: 100}},
		{name: "looked at too late", tail: tail("abcdef", "de", 11, -1), bad: 100},
	} {
		t.Run(c.name, func(t *testing.T) {
			got, err := mm2.Align(c.tail)
			var alike *mm2.AmbiguousError
			var bad *mm2.MismatchError
			switch {
			case c.lowest > 0:
				if !errors.As(err, &alike) || alike.Lowest != c.lowest || alike.Highest <= alike.Lowest {
					t.Fatalf("got %+v, %v; want it ambiguous from %d on", got, err, c.lowest)
				}
			case c.bad > 0:
				if !errors.As(err, &bad) || bad.Target != c.bad {
					t.Fatalf("got %+v, %v; want a mismatch at %d", got, err, c.bad)
				}
			case err != nil:
				t.Fatal(err)
			case got.Next != c.next || len(got.Pairs) == 0 || got.Pairs[0] != c.first || got.Again != c.again:
				t.Fatalf("got %+v; want next %d, first pair %v, again %d", got, c.next, c.first, c.again)
			}
		})
	}
}

func TestAlignTimes(t *testing.T) {
	source := tail("aa", "aa", 10, 0)
	source.Source[1].Time = 8
	if got, err := mm2.Align(source); err != nil || got.Next != 11 {
		t.Errorf("a record with another time is taken for a copy: %+v, %v", got, err)
	}
	source.Target[1].Stamped = true
	if got, err := mm2.Align(source); err != nil || got.Next != 12 {
		t.Errorf("with the target's own time: %+v, %v", got, err)
	}
	source.Target[1].Stamped, source.Source[1].Time = false, -1
	if got, err := mm2.Align(source); err != nil || got.Next != 12 {
		t.Errorf("of a record without time: %+v, %v", got, err)
	}
}

// every is how far each way to cut the target into stretches comes, by brute force.
func every(t mm2.Tail, aborted bool) map[int64]bool {
	var source []mm2.Record
	anchor, fresh := -1, 0
	for i, r := range t.Source {
		if r.Aborted && !aborted {
			continue
		}
		if i == t.Anchor {
			anchor = len(source)
		}
		if r.Offset <= t.Stored {
			fresh = len(source) + 1
		}
		source = append(source, r)
	}
	found := map[int64]bool{}
	if t.Anchor >= 0 && anchor < 0 {
		return found
	}
	var walk func(n, last, furthest int)
	walk = func(n, last, furthest int) {
		if n == len(t.Target) {
			if furthest >= fresh-1 {
				found[max(t.Stored, source[furthest].Offset)+1] = true
			}
			return
		}
		for i := range source {
			begins := i <= fresh
			if n == 0 && anchor >= 0 {
				begins = i == anchor
			}
			if (n > 0 && i == last+1 || begins) && source[i].Content == t.Target[n].Content {
				walk(n+1, i, max(furthest, i))
			}
		}
	}
	walk(0, -2, -1)
	return found
}

// TestAlignHistories plays attempts of MirrorMaker 2 and compares what Align says with
// what happened, and with every way in which the logs can be explained.
func TestAlignHistories(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		letters := rapid.IntRange(1, 6).Draw(t, "letters")
		size := rapid.IntRange(1, 8).Draw(t, "size")
		committed := rapid.Bool().Draw(t, "committed")
		var tl mm2.Tail
		offset := int64(10)
		for range size {
			tl.Source = append(tl.Source, rec(offset, byte(rapid.IntRange(0, letters-1).Draw(t, "letter")), rapid.IntRange(0, 4).Draw(t, "aborted") == 0))
			offset += int64(rapid.IntRange(1, 2).Draw(t, "step"))
		}
		var visible []int
		for i, r := range tl.Source {
			if !r.Aborted || !committed {
				visible = append(visible, i)
			}
		}
		if len(visible) == 0 {
			return
		}
		// Attempts: each begins behind what is stored, copies, and stores something of it.
		stored, furthest := -1, -1
		var copied []int // positions in visible
		for range rapid.IntRange(1, 4).Draw(t, "attempts") {
			begin := stored + 1
			if begin >= len(visible) {
				break
			}
			n := rapid.IntRange(1, min(4, len(visible)-begin)).Draw(t, "copies")
			for i := range n {
				copied = append(copied, begin+i)
			}
			furthest = max(furthest, begin+n-1)
			stored = rapid.IntRange(stored, begin+n-1).Draw(t, "stored")
		}
		tl.Stored, tl.Anchor = 9, -1
		if stored >= 0 {
			tl.Stored = tl.Source[visible[stored]].Offset
		}
		from := 0
		if rapid.Bool().Draw(t, "anchored") {
			// A sync of the last attempt, or of one before it.
			from = rapid.IntRange(0, len(copied)-1).Draw(t, "anchor")
			tl.Anchor = visible[copied[from]]
		} else if stored >= 0 {
			// Any window that has the record stored last, or begins at a stretch.
			from = rapid.IntRange(0, slices.Index(copied, stored)).Draw(t, "from")
		}
		for i, c := range copied[from:] {
			r := tl.Source[visible[c]]
			r.Offset, r.Aborted = 100+int64(i), false
			tl.Target = append(tl.Target, r)
		}
		if slices.Max(copied[from:]) != furthest {
			return // the furthest stretch lies before the window: nobody can tell
		}

		true_ := max(tl.Stored, tl.Source[visible[furthest]].Offset) + 1
		got, err := mm2.Align(tl)
		ways := every(tl, true)
		for next := range every(tl, false) {
			ways[next] = true
		}
		unread := func(next int64) (n int) {
			for _, r := range tl.Source {
				if r.Offset >= next && !r.Aborted {
					n++
				}
			}
			return n
		}
		if !ways[true_] {
			t.Fatalf("the truth (%d) is no explanation: %+v", true_, tl)
		}
		counts := map[int]bool{}
		for next := range ways {
			counts[unread(next)] = true
		}
		var alike *mm2.AmbiguousError
		switch {
		case errors.As(err, &alike):
			if len(counts) == 1 && tl.Anchor >= 0 {
				t.Fatalf("%v, but there is one explanation: %v of %+v", err, ways, tl)
			}
			if unread(alike.Lowest) < unread(true_) {
				t.Fatalf("%v skips what was not copied: %d of %+v", err, true_, tl)
			}
		case err != nil:
			t.Fatalf("%v of %+v", err, tl)
		case unread(got.Next) == unread(true_):
		default:
			// What it says differs from what happened: then the target must hold, from the
			// anchor on, the very records of the source up to there, so that nobody can tell.
			if len(got.Pairs) != len(tl.Target) {
				t.Fatalf("next %d, and it was %d: %+v", got.Next, true_, tl)
			}
			for i, p := range got.Pairs {
				s := slices.IndexFunc(tl.Source, func(r mm2.Record) bool { return r.Offset == p.Source })
				if tl.Source[s].Content != tl.Target[i].Content || p.Target != tl.Target[i].Offset {
					t.Fatalf("pair %+v is no copy: %+v", p, tl)
				}
			}
		}
	})
}
