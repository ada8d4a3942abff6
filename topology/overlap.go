package topology

import (
	"encoding/binary"
	"regexp/syntax"
	"strings"
)

// filter is a flow's selection as automata.
type filter struct {
	flow                                            *Flow
	topics, excludes, heartbeats, internal, circles *automaton
}

func newFilter(f *Flow, clusters []string) (*filter, error) {
	prefixes := make([]string, 0, len(clusters))
	for _, name := range clusters {
		prefixes = append(prefixes, name+f.Separator)
	}
	made := &filter{flow: f}
	for _, part := range []struct {
		to   **automaton
		from []string
	}{
		{&made.topics, f.Topics},
		{&made.excludes, f.ExcludeTopics},
		{&made.heartbeats, []string{f.heartbeatsPattern(prefixes)}},
		{&made.internal, internalPatterns(f.Separator)},
		{&made.circles, []string{f.loopPattern(prefixes)}},
	} {
		wrapped := make([]string, 0, len(part.from))
		for _, pattern := range part.from {
			wrapped = append(wrapped, `(?:`+pattern+`)`)
		}
		if len(wrapped) == 0 {
			wrapped = []string{`[^\x00-\x{10FFFF}]`} // nothing
		}
		var err error
		if *part.to, err = newAutomaton(strings.Join(wrapped, `|`)); err != nil {
			return nil, err
		}
	}
	return made, nil
}

// track is a set of names: those that are prefix and then a topic that the flow
// takes under its usual name, or, with heartbeats, one of the heartbeats topics
// that identity naming prefixes.
type track struct {
	*filter
	prefix     string // that the name has before the topic
	heartbeats bool
}

// targets are the tracks whose names a flow writes on its target.
func (f *filter) targets() []track {
	if f.flow.Naming == Prefixed {
		return []track{{filter: f, prefix: f.flow.prefix()}}
	}
	return []track{{filter: f}, {filter: f, prefix: f.flow.prefix(), heartbeats: true}}
}

// after is what of the flow's topics is left to come when read has been read;
// false if none can begin so. It is the way round: not the flow's prefix is put
// before a topic, but a topic's beginning is known.
func (f *filter) after(read string) (position, bool) {
	p := track{filter: f}.begin()
	for i := range len(read) {
		p = p.step(read[i])
	}
	return p, !p.dead()
}

// position is how far a track has been followed.
type position struct {
	track
	matched                                         int // bytes of prefix; -1: the name is not of this track
	topics, excludes, heartbeats, internal, circles int32
}

func (t track) begin() position {
	return position{
		track:      t,
		topics:     t.topics.start(),
		excludes:   t.excludes.start(),
		heartbeats: t.filter.heartbeats.start(),
		internal:   t.internal.start(),
		circles:    t.circles.start(),
	}
}

func (p position) step(c byte) position {
	if p.matched < 0 {
		return p
	}
	if p.matched < len(p.prefix) {
		if p.prefix[p.matched] != c {
			p.matched = -1
			return p
		}
		p.matched++
		return p
	}
	p.topics = p.track.topics.step(p.topics, c)
	p.excludes = p.track.excludes.step(p.excludes, c)
	p.heartbeats = p.filter.heartbeats.step(p.heartbeats, c)
	p.internal = p.track.internal.step(p.internal, c)
	p.circles = p.track.circles.step(p.circles, c)
	return p
}

func (p position) dead() bool {
	return p.matched < 0 || p.heartbeats == dead && (p.topics == dead || p.track.heartbeats)
}

// accepts is [Flow.Selection] once more, on automata.
func (p position) accepts() bool {
	if p.matched < len(p.prefix) || p.track.internal.accepts(p.internal) {
		return false
	}
	heartbeats := p.filter.heartbeats.accepts(p.heartbeats)
	if p.flow.Naming == Identity && heartbeats != p.track.heartbeats {
		return false
	}
	if (p.flow.Naming == Prefixed || heartbeats) && p.track.circles.accepts(p.circles) {
		return false
	}
	if heartbeats {
		return p.flow.Heartbeats
	}
	return p.track.topics.accepts(p.topics) && !p.track.excludes.accepts(p.excludes)
}

func (p position) key(to []byte) []byte {
	to = binary.AppendVarint(to, int64(p.matched))
	for _, state := range [...]int32{p.topics, p.excludes, p.heartbeats, p.internal, p.circles} {
		to = binary.AppendUvarint(to, uint64(state))
	}
	return to
}

// common returns the shortest legal name that goes through all positions. The
// second result is false if the search had to be given up.
func common(starts []position) (name string, decided bool) {
	type node struct {
		at     []position
		parent int
		by     byte
	}
	alphabet := representatives(starts)
	nodes := []node{{at: starts, parent: -1}}
	seen := map[string]bool{}
	depthEnds, depth := 1, 0
	for i := 0; i < len(nodes); i++ {
		if i == depthEnds {
			depthEnds, depth = len(nodes), depth+1
		}
		if depth > 0 && all(nodes[i].at, position.accepts) {
			var reversed []byte
			for j := i; nodes[j].parent >= 0; j = nodes[j].parent {
				reversed = append(reversed, nodes[j].by)
			}
			var b strings.Builder
			for j := len(reversed) - 1; j >= 0; j-- {
				b.WriteByte(reversed[j])
			}
			return b.String(), true
		}
		if depth == MaxTopicName {
			continue
		}
		for _, c := range []byte(alphabet) {
			next := make([]position, 0, len(starts))
			key := make([]byte, 0, 8*len(starts))
			for _, p := range nodes[i].at {
				p = p.step(c)
				if p.dead() {
					break
				}
				next = append(next, p)
				key = p.key(key)
			}
			if len(next) < len(starts) || seen[string(key)] {
				continue
			}
			if len(nodes) == maxProduct {
				return "", false
			}
			seen[string(key)] = true
			nodes = append(nodes, node{at: next, parent: i, by: c})
		}
	}
	return "", true
}

func all(list []position, holds func(position) bool) bool {
	for _, p := range list {
		if !holds(p) {
			return false
		}
	}
	return true
}

// representatives is one character of each class that no pattern and no prefix tells apart.
func representatives(starts []position) string {
	var kept strings.Builder
	classes := map[string]bool{}
	for _, c := range []byte(topicChars) {
		var signature []byte
		if syntax.IsWordChar(rune(c)) {
			signature = append(signature, 1)
		} else {
			signature = append(signature, 0)
		}
		for _, p := range starts {
			if strings.IndexByte(p.prefix, c) >= 0 {
				signature = append(signature, c)
			}
			signature = append(signature, 0)
			for _, a := range []*automaton{p.track.topics, p.track.excludes, p.filter.heartbeats, p.track.internal, p.track.circles} {
				signature = a.classify(signature, c)
			}
		}
		if !classes[string(signature)] {
			classes[string(signature)] = true
			kept.WriteByte(c)
		}
	}
	return kept.String()
}

// classify appends which of the program's instructions take a character.
func (a *automaton) classify(to []byte, c byte) []byte {
	for i := range a.prog.Inst {
		switch inst := &a.prog.Inst[i]; inst.Op {
		case syntax.InstRune, syntax.InstRune1, syntax.InstRuneAny, syntax.InstRuneAnyNotNL:
			if inst.MatchRune(rune(c)) {
				to = append(to, 1)
			} else {
				to = append(to, 0)
			}
		case syntax.InstAlt, syntax.InstAltMatch, syntax.InstCapture, syntax.InstNop, syntax.InstEmptyWidth, syntax.InstFail, syntax.InstMatch:
		}
	}
	return to
}
