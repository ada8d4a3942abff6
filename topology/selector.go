package topology

import (
	"encoding/binary"
	"slices"
	"strings"
)

// selector is a flow's selection and naming as automata. Or, with no flow, it is
// a plain set of names.
type selector struct {
	flow         *Flow
	inverted     bool         // of a set of names: those that are not of it
	parts        []*automaton // the first few by their numbers below, then one for each rename rule
	only         *automaton   // of the selected topics only these; nil: all
	alternatives []alternative

	vectors [][]int32 // what all parts have come to, numbered
	number  map[string]int32
	next    []map[byte]int32
}

// The parts of a selector.
const (
	included   = iota // Topics
	excluded          // ExcludeTopics, and dead-letter topics
	heartbeats        // MirrorMaker 2's heartbeats topics
	internal          // see InternalTopic
	circular          // see Flow.Selection
	partCount
)

// alternative is one of the ways in which a flow turns a topic into its name on
// the target.
type alternative struct {
	rule  int    // of Rename; -1: none of them matches
	beats bool   // with identity naming: the heartbeats topics, which are prefixed, and not the others
	known bool   // of a listed topic that the flow selects: nothing is left to ask
	steps []step // the source's name and the target's, side by side
}

// step is fixed text in both names, then a group that is in both; the last one has no group.
type step struct {
	source, target string
	group          *automaton
}

func newSelector(f *Flow, clusters []string) (*selector, error) {
	prefixes := make([]string, 0, len(clusters))
	for _, name := range clusters {
		prefixes = append(prefixes, name+f.Separator)
	}
	lists := [][]string{
		included:   f.Topics,
		excluded:   slices.Concat(f.ExcludeTopics, f.letterPatterns),
		heartbeats: {f.heartbeatsPattern(prefixes)},
		internal:   internalPatterns(f.InternalSeparator),
		circular:   {f.loopPattern(prefixes)},
	}
	if f.listed == nil {
		for i := range f.Rename {
			lists = append(lists, []string{f.Rename[i].From})
		}
	}
	s := &selector{flow: f}
	for _, list := range lists {
		a, err := anyOf(list)
		if err != nil {
			return nil, err
		}
		s.parts = append(s.parts, a)
	}
	if err := s.addAlternatives(); err != nil {
		return nil, err
	}
	s.begin()
	return s, nil
}

// anyOf is what any pattern of a list matches.
func anyOf(list []string) (*automaton, error) {
	wrapped := make([]string, 0, len(list))
	for _, pattern := range list {
		wrapped = append(wrapped, `(?:`+pattern+`)`)
	}
	if len(wrapped) == 0 {
		wrapped = []string{`[^\x00-\x{10FFFF}]`} // nothing
	}
	return newAutomaton(strings.Join(wrapped, `|`))
}

// newNames is the set of names that patterns match.
func newNames(list ...string) (*selector, error) {
	a, err := anyOf(list)
	if err != nil {
		return nil, err
	}
	anything, err := anyOf([]string{`.*`})
	if err != nil {
		return nil, err
	}
	s := &selector{parts: []*automaton{a}, alternatives: []alternative{{steps: []step{{group: anything}, {}}}}}
	s.begin()
	return s, nil
}

func (s *selector) addAlternatives() error {
	f := s.flow
	anything, err := anyOf([]string{`.*`})
	if err != nil {
		return err
	}
	prefix := ""
	if f.Naming == Prefixed {
		prefix = f.prefix()
	} else {
		s.alternatives = append(s.alternatives, alternative{rule: -1, beats: true, steps: []step{{target: f.prefix(), group: anything}, {}}})
	}
	if f.listed != nil {
		names, _ := f.plainNames()
		for _, name := range names {
			if f.Selects(name) && !f.isHeartbeats(name) {
				s.alternatives = append(s.alternatives, alternative{known: true, steps: []step{{source: name, target: prefix + f.renamed(name)}}})
			}
		}
		if f.Naming == Prefixed {
			s.alternatives = append(s.alternatives, alternative{rule: -1, beats: true, steps: []step{{target: prefix, group: anything}, {}}})
		}
		return nil
	}
	s.alternatives = append(s.alternatives, alternative{rule: -1, steps: []step{{target: prefix, group: anything}, {}}})
	for i := range f.Rename {
		made := alternative{rule: i}
		for _, piece := range f.Rename[i].pieces {
			next := step{source: piece.source, target: piece.target}
			if piece.group != "" {
				if next.group, err = anyOf([]string{piece.group}); err != nil {
					return err
				}
			}
			made.steps = append(made.steps, next)
		}
		made.steps[0].target = prefix + made.steps[0].target
		s.alternatives = append(s.alternatives, made)
	}
	return nil
}

// letters is the selector's dead-letter topics in place of its target topics. It
// is for a flow that writes some and gives them no name of their own.
func (s *selector) letters() (*selector, error) {
	made := &selector{flow: s.flow, parts: s.parts}
	if s.flow.Policies.RecordTooLarge != TooLargeDeadLetter {
		var topics []string
		for _, rule := range s.flow.TopicRules {
			if rule.Policies.RecordTooLarge == TooLargeDeadLetter {
				topics = append(topics, rule.Topics...)
			}
		}
		var err error
		if made.only, err = anyOf(topics); err != nil {
			return nil, err
		}
	}
	for _, a := range s.alternatives {
		a.steps = slices.Clone(a.steps)
		a.steps[len(a.steps)-1].target += DeadLetterSuffix
		if a.known && s.flow.PoliciesFor(a.steps[0].source).RecordTooLarge != TooLargeDeadLetter {
			continue
		}
		made.alternatives = append(made.alternatives, a)
	}
	made.begin()
	return made, nil
}

// restrict is the selector with some of its alternatives.
func (s *selector) restrict(alternatives ...alternative) *selector {
	made := &selector{flow: s.flow, parts: s.parts, only: s.only, alternatives: alternatives}
	made.begin()
	return made
}

// results are all names that one alternative could give, whatever the flow selects.
func (s *selector) results(a alternative) *selector {
	made := &selector{inverted: true, parts: []*automaton{s.parts[internal]}, alternatives: []alternative{a}}
	made.begin()
	return made
}

func (s *selector) begin() {
	s.number = map[string]int32{}
	vector := make([]int32, 0, len(s.parts)+1)
	for _, a := range s.automata() {
		vector = append(vector, a.start())
	}
	s.intern(vector)
}

// automata are the parts that names are asked of.
func (s *selector) automata() []*automaton {
	if s.only == nil {
		return s.parts
	}
	return append(slices.Clip(slices.Clone(s.parts)), s.only)
}

func (s *selector) intern(vector []int32) int32 {
	key := make([]byte, 0, 2*len(vector))
	for _, state := range vector {
		key = binary.AppendUvarint(key, uint64(state))
	}
	if n, ok := s.number[string(key)]; ok {
		return n
	}
	n := int32(len(s.vectors))
	s.number[string(key)] = n
	s.vectors = append(s.vectors, vector)
	s.next = append(s.next, map[byte]int32{})
	return n
}

// read is what all parts come to, over one more character of a source's name.
func (s *selector) read(vector int32, c byte) int32 {
	if n, ok := s.next[vector][c]; ok {
		return n
	}
	automata := s.automata()
	after := make([]int32, 0, len(automata))
	for i, a := range automata {
		after = append(after, a.step(s.vectors[vector][i], c))
	}
	n := s.intern(after)
	s.next[vector][c] = n
	return n
}

// dead reports that no name that begins so is of this alternative.
func (s *selector) dead(alternative, vector int32) bool {
	at := s.vectors[vector]
	a := &s.alternatives[alternative]
	switch {
	case s.flow == nil:
		return !s.inverted && at[0] == dead
	case a.known:
		return false
	case s.only != nil && at[len(s.parts)] == dead:
		return true
	}
	rest := func(part int) bool { return s.parts[part].states[at[part]].rest }
	if rest(internal) || rest(circular) && (a.beats || s.flow.Naming == Prefixed) {
		return true
	}
	noBeats := at[heartbeats] == dead || !s.flow.Heartbeats
	if a.beats {
		return noBeats
	}
	if a.rule >= 0 && at[partCount+a.rule] == dead {
		return true
	}
	barred := at[included] == dead || rest(excluded)
	for i := partCount; i < len(s.parts) && (a.rule < 0 || i < partCount+a.rule); i++ {
		barred = barred || rest(i)
	}
	if a.rule < 0 {
		return noBeats && barred
	}
	return barred
}

// accepts is [Flow.Selection] once more, on automata.
func (s *selector) accepts(alternative, vector int32, begun bool) bool {
	at := s.vectors[vector]
	is := func(part int) bool { return s.parts[part].accepts(at[part]) }
	a := &s.alternatives[alternative]
	switch {
	case s.flow == nil:
		return begun && is(0) != s.inverted
	case a.known:
		return true
	case s.only != nil && !s.only.accepts(at[len(s.parts)]):
		return false
	}
	beats := is(heartbeats)
	switch {
	case !begun, is(internal):
		return false
	case (s.flow.Naming == Prefixed || beats) && is(circular):
		return false
	case beats && (a.beats || s.flow.Naming == Prefixed && s.flow.listed == nil && a.rule < 0):
		return s.flow.Heartbeats
	case beats || a.beats:
		return false
	}
	for i := partCount; i < len(s.parts) && (a.rule < 0 || i < partCount+a.rule); i++ {
		if is(i) {
			return false // another rule comes first
		}
	}
	return (a.rule < 0 || is(partCount+a.rule)) && is(included) && !is(excluded)
}

// exhausted reports that one of the automata has worked too long.
func (s *selector) exhausted() bool {
	if slices.ContainsFunc(s.automata(), (*automaton).exhausted) {
		return true
	}
	for i := range s.alternatives {
		if slices.ContainsFunc(s.alternatives[i].steps, func(s step) bool { return s.group != nil && s.group.exhausted() }) {
			return true
		}
	}
	return false
}

func (a *automaton) exhausted() bool { return a.work > maxWork }
