package topology

import (
	"encoding/binary"
	"slices"
	"strings"
)

// filter is a flow's selection as automata.
type filter struct {
	flow  *Flow
	parts [partCount]*automaton
}

// The parts of a filter.
const (
	included   = iota // Topics
	excluded          // ExcludeTopics
	heartbeats        // MirrorMaker 2's heartbeats topics
	internal          // see InternalTopic
	circular          // see Flow.Selection
	partCount
)

func newFilter(f *Flow, clusters []string) (*filter, error) {
	prefixes := make([]string, 0, len(clusters))
	for _, name := range clusters {
		prefixes = append(prefixes, name+f.Separator)
	}
	made := &filter{flow: f}
	for part, list := range [partCount][]string{
		included:   f.Topics,
		excluded:   f.ExcludeTopics,
		heartbeats: {f.heartbeatsPattern(prefixes)},
		internal:   internalPatterns(f.Separator),
		circular:   {f.loopPattern(prefixes)},
	} {
		wrapped := make([]string, 0, len(list))
		for _, pattern := range list {
			wrapped = append(wrapped, `(?:`+pattern+`)`)
		}
		if len(wrapped) == 0 {
			wrapped = []string{`[^\x00-\x{10FFFF}]`} // nothing
		}
		var err error
		if made.parts[part], err = newAutomaton(strings.Join(wrapped, `|`)); err != nil {
			return nil, err
		}
	}
	return made, nil
}

// track is a set of names: prefix, then a topic that the flow takes.
type track struct {
	filter *filter
	prefix string
	beats  bool // with identity naming: the heartbeats topics, which are prefixed, and not the others
}

// targets are the tracks of all names that a flow writes on its target.
func (f *filter) targets() []track {
	if f.flow.Naming == Prefixed {
		return []track{{filter: f, prefix: f.flow.prefix()}}
	}
	return []track{{filter: f}, {filter: f, prefix: f.flow.prefix(), beats: true}}
}

// after is what of the flow's own topics is left when their beginning is known;
// false if none begins so.
func (f *filter) after(beginning string) (position, bool) {
	p := track{filter: f}.begin()
	for i := range len(beginning) {
		p = p.step(beginning[i])
	}
	return p, !p.dead()
}

// position is how far a name has been followed on a track.
type position struct {
	track
	matched int              // bytes of prefix; -1: the name is not of this track
	begun   bool             // something of the topic itself has been read; no topic is empty
	states  [partCount]int32 // of the filter's parts
}

func (t track) begin() position {
	p := position{track: t}
	for part, a := range t.filter.parts {
		p.states[part] = a.start()
	}
	return p
}

func (p position) step(c byte) position {
	switch {
	case p.matched < 0:
	case p.matched < len(p.prefix) && p.prefix[p.matched] == c:
		p.matched++
	case p.matched < len(p.prefix):
		p.matched = -1
	default:
		p.begun = true
		for part, a := range p.filter.parts {
			p.states[part] = a.step(p.states[part], c)
		}
	}
	return p
}

// dead reports that no name that begins so is of the track.
func (p position) dead() bool {
	if p.matched < 0 {
		return true
	}
	state := func(part int) *automatonState { return &p.filter.parts[part].states[p.states[part]] }
	if state(internal).rest || state(circular).rest && (p.beats || p.filter.flow.Naming == Prefixed) {
		return true
	}
	noBeats := p.states[heartbeats] == dead || !p.filter.flow.Heartbeats
	if p.beats {
		return noBeats
	}
	return noBeats && (p.states[included] == dead || state(excluded).rest)
}

// accepts is [Flow.Selection] once more, on automata.
func (p position) accepts() bool {
	is := func(part int) bool { return p.filter.parts[part].accepts(p.states[part]) }
	flow := p.filter.flow
	beats := is(heartbeats)
	switch {
	case !p.begun, is(internal):
		return false
	case flow.Naming == Identity && beats != p.beats:
		return false
	case (flow.Naming == Prefixed || beats) && is(circular):
		return false
	case beats:
		return flow.Heartbeats
	}
	return is(included) && !is(excluded)
}

// exhausted reports that one of the automata has worked too long.
func (p position) exhausted() bool {
	for _, a := range p.filter.parts {
		if a.work > maxWork {
			return true
		}
	}
	return false
}

func (p position) key(to []byte) []byte {
	to = binary.AppendVarint(to, int64(p.matched))
	for _, state := range p.states {
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
		if depth > 0 && !slices.ContainsFunc(nodes[i].at, func(p position) bool { return !p.accepts() }) {
			var reversed []byte
			for j := i; nodes[j].parent >= 0; j = nodes[j].parent {
				reversed = append(reversed, nodes[j].by)
			}
			slices.Reverse(reversed)
			return string(reversed), true
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
			if len(nodes) == maxProduct || slices.ContainsFunc(starts, position.exhausted) {
				return "", false
			}
			seen[string(key)] = true
			nodes = append(nodes, node{at: next, parent: i, by: c})
		}
	}
	return "", true
}

// representatives is one character of each class that no pattern and no prefix tells apart.
func representatives(starts []position) string {
	var kept strings.Builder
	classes := map[string]bool{}
	signature := make([]byte, 0, len(starts)*(partCount+1))
	for _, c := range []byte(topicChars) {
		signature = signature[:0]
		for _, p := range starts {
			if strings.IndexByte(p.prefix, c) >= 0 {
				signature = append(signature, c)
			} else {
				signature = append(signature, 0)
			}
			for _, a := range p.filter.parts {
				signature = append(signature, a.class[c])
			}
		}
		if !classes[string(signature)] {
			classes[string(signature)] = true
			kept.WriteByte(c)
		}
	}
	return kept.String()
}
