package topology

import (
	"regexp"
	"slices"
	"strings"
)

// meets reports whether names at the target that begin so can be the same.
func (s step) meets(other step) bool {
	if s.group == nil && other.group == nil {
		return s.target == other.target
	}
	return strings.HasPrefix(s.target, other.target) && (other.group != nil || s.target == other.target) ||
		strings.HasPrefix(other.target, s.target) && (s.group != nil || s.target == other.target)
}

// appendNew appends from[i] unless it was the last one appended, or before.
func appendNew(to, from []alternative, i int) []alternative {
	if slices.ContainsFunc(to, func(a alternative) bool { return &a.steps[0] == &from[i].steps[0] }) {
		return to
	}
	return append(to, from[i])
}

// proveRename faults renames whose results do not map back, or are names of
// somebody else's.
func (r *reader) proveRename(source *flowSource, s *selector) {
	flow := source.flow
	if len(flow.Rename) == 0 {
		return
	}
	for i := range flow.Rename {
		if pieces := s.piecesOf(i); pieces != nil {
			if name, decided := doubtful(pieces); !decided || name != "" {
				r.fault(source.renames[i].to, "let a group not match what stands behind it in the new name, as ([^-]*) before a hyphen",
					"cannot be turned round: where a group ends is not certain%s", example(" in %q", name, source))
			}
		}
	}
	const remedy = "choose another name, or leave one of them out with exclude_topics"
	if flow.listed != nil {
		names, _ := flow.plainNames()
		for _, name := range names {
			if first := flow.listed[flow.renamed(name)]; first != name && flow.Selects(name) && flow.Selects(first) {
				r.fault(source.renames[0].at, remedy, "gives two topics one name%s%s%s",
					example(": %q", first, source), example(" and %q", name, source), example(" would both be %q", flow.TargetTopic(name), source))
			}
		}
	} else if first, second, target, decided := s.doubled(); !decided {
		r.fault(source.renames[0].at, clearer, "cannot be proved to give each topic a name of its own")
	} else if target != "" {
		r.fault(source.renames[0].at, remedy, "gives two topics one name%s%s%s",
			example(": %q", first, source), example(" and %q", second, source), example(" would both be %q", target, source))
	}
	r.proveNotReserved(source, s)
}

// piecesOf are the steps of a rule that is no listed topic's.
func (s *selector) piecesOf(rule int) []step {
	for _, a := range s.alternatives {
		if a.rule == rule && !a.known && !a.beats {
			return a.steps
		}
	}
	return nil
}

// doubled finds two topics that get one name.
func (s *selector) doubled() (first, second, target string, decided bool) {
	for i, a := range s.alternatives {
		for _, b := range s.alternatives[:i] {
			name, decided := shared(s.restrict(a), s.restrict(b))
			if name != "" || !decided {
				return s.source(b, name), s.source(a, name), name, decided
			}
		}
	}
	return "", "", "", true
}

// source is what a name on the target is at the source, by one alternative.
func (s *selector) source(a alternative, target string) string {
	name := strings.TrimPrefix(target, s.flow.TargetTopic(""))
	if a.beats && s.flow.Naming == Identity {
		name = strings.TrimPrefix(target, s.flow.prefix())
	}
	if a.rule >= 0 {
		name, _ = s.flow.Rename[a.rule].source(name)
	}
	return name
}

// proveNotReserved faults a rename that gives all its topics names that Kafka,
// MirrorMaker 2 or kmirror use themselves. Single ones are left out, see
// [Flow.Selection].
func (r *reader) proveNotReserved(source *flowSource, s *selector) {
	const problem, remedy = "is a name that Kafka, MirrorMaker 2 or kmirror use themselves", "choose another name"
	if source.flow.listed != nil {
		names, _ := source.flow.plainNames()
		if slices.ContainsFunc(names, func(name string) bool { return source.flow.Selection(name) == Reserved }) {
			r.fault(source.renames[0].at, remedy, problem)
		}
		return
	}
	free, err := newNames(source.flow.reservedPatterns()...)
	if err != nil {
		r.fault(source.at, clearer, "its patterns are too large together")
		return
	}
	free.inverted = true
	for _, a := range s.alternatives {
		if a.beats || a.rule < 0 {
			continue
		}
		name, decided := common(&machine{stages: []*selector{s.results(a)}, back: true}, &machine{stages: []*selector{free}})
		if decided && name == "" {
			r.fault(source.renames[a.rule].to, remedy, problem)
		}
	}
}

// doubtful returns a name that the target side of a rule's steps can be laid
// over in two ways, so that it could come from two topics.
func doubtful(steps []step) (string, bool) {
	type reading struct{ step, off, group, last int32 } // last: where the character before was read, a text and its group being two places
	type node struct {
		a, b   reading
		differ bool
		parent int
		by     byte
	}
	enter := func(at int32) reading {
		next := reading{step: at}
		if group := steps[at].group; group != nil {
			next.group = group.start()
		}
		return next
	}
	var over func(at reading, c byte) []reading
	over = func(at reading, c byte) []reading {
		s := steps[at.step]
		if int(at.off) < len(s.target) {
			if s.target[at.off] != c {
				return nil
			}
			at.off++
			at.last = 2 * at.step
			return []reading{at}
		}
		if s.group == nil {
			return nil
		}
		var found []reading
		if s.group.accepts(at.group) {
			found = over(enter(at.step+1), c)
		}
		if at.group, at.last = s.group.step(at.group, c), 2*at.step+1; at.group != dead {
			found = append(found, at)
		}
		return found
	}
	var ends func(at reading) bool
	ends = func(at reading) bool {
		s := steps[at.step]
		switch {
		case int(at.off) < len(s.target):
			return false
		case s.group == nil:
			return true
		}
		return s.group.accepts(at.group) && ends(enter(at.step+1))
	}
	nodes := []node{{a: enter(0), b: enter(0), parent: -1}}
	seen := map[node]bool{}
	probe := &selector{alternatives: []alternative{{steps: steps}}}
	alphabet := representatives([]*machine{{stages: []*selector{probe}}})
	for i := 0; i < len(nodes); i++ {
		at := nodes[i]
		if at.differ && ends(at.a) && ends(at.b) {
			var reversed []byte
			for j := i; nodes[j].parent >= 0; j = nodes[j].parent {
				reversed = append(reversed, nodes[j].by)
			}
			slices.Reverse(reversed)
			return string(reversed), true
		}
		for _, c := range []byte(alphabet) {
			for _, a := range over(at.a, c) {
				for _, b := range over(at.b, c) {
					next := node{a: a, b: b, differ: at.differ || a.last != b.last}
					if seen[next] {
						continue
					}
					if len(nodes) == maxProduct {
						return "", false
					}
					seen[next] = true
					next.parent, next.by = i, c
					nodes = append(nodes, next)
				}
			}
		}
	}
	return "", true
}

// proveLetters faults dead-letter topics that are also target topics.
func (r *reader) proveLetters(sources []*flowSource, selectors []*selector) {
	for i, source := range sources {
		flow := source.flow
		if !flow.WritesLetters() {
			if source.deadLetter.present() {
				r.fault(source.deadLetter, "add policies: {record_too_large: dead_letter}, or remove it", "is for a policy that no topic of the flow has")
			}
			continue
		}
		letters, err := newNames(regexp.QuoteMeta(flow.DeadLetterTopic))
		back := false
		if flow.DeadLetterTopic == "" {
			letters, err = selectors[i].letters()
			back = true
		}
		if err != nil {
			r.fault(source.at, clearer, "its patterns are too large together")
			continue
		}
		at := source.deadLetter
		if !at.present() {
			at = source.at
		}
		for j, other := range sources {
			if other.flow.To != flow.To {
				continue
			}
			topic, decided := common(&machine{stages: []*selector{letters}, back: back}, &machine{stages: []*selector{selectors[j]}, back: true})
			writer := other.at.path + " (" + other.flow.Name + ")"
			if i == j {
				writer = "the flow itself"
			}
			switch {
			case !decided:
				r.fault(at, clearer, "cannot be proved to keep its dead letters out of what %s mirrors", writer)
			case topic != "":
				r.fault(at, "give the flow a dead_letter_topic that nobody mirrors into, or leave the topic out with exclude_topics",
					"would write dead letters into a topic that %s mirrors%s", writer, example(", for example %q", topic, source, other))
			}
		}
	}
}

// proveOffsetSyncs faults two flows that would write one topic of MirrorMaker 2's
// offset syncs: their keys do not name the flow.
func (r *reader) proveOffsetSyncs(sources []*flowSource) {
	type place struct{ cluster, topic string }
	writers := map[place]*flowSource{}
	for _, source := range sources {
		p := place{source.flow.From, source.flow.OffsetSyncsTopic()}
		switch source.flow.OffsetSyncs {
		case OffsetSyncsOff:
			continue
		case OffsetSyncsSource:
		case OffsetSyncsTarget:
			p.cluster = source.flow.To
		}
		if first := writers[p]; first != nil {
			r.fault(source.at, "choose the same side for the offset_syncs of both, or another internal_separator for one of them",
				"writes the internal topic %s of %s, as %s (%s) does", p.topic, p.cluster, first.at.path, first.flow.Name)
			continue
		}
		writers[p] = source
	}
}
