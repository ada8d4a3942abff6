package topology

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strings"
)

const (
	// maxCircles bounds how many paths the search for circles follows.
	maxCircles = 5_000
	// maxPairs bounds how many pairs of flows into one cluster are compared.
	maxPairs = 200_000
)

const clearer = "make the patterns of topics and exclude_topics simpler"

// prove checks what concerns several flows at once.
func (r *reader) prove(sources []*flowSource, clusters []string) {
	named := map[string]*flowSource{}
	var sound []*flowSource
	for _, source := range sources {
		first, twice := named[source.flow.Name]
		switch {
		case !source.sound:
		case twice:
			r.fault(source.at, "put all of it into one flow", "is a second flow from %s to %s; the first is %s in line %d",
				source.flow.From, source.flow.To, first.at.path, first.at.node.Line)
		default:
			named[source.flow.Name] = source
			sound = append(sound, source)
		}
	}
	selectors := make([]*selector, len(sound))
	for i, source := range sound {
		made, err := newSelector(source.flow, clusters)
		if err != nil {
			r.fault(source.at, clearer, "its patterns are too large together")
			return
		}
		selectors[i] = made
	}
	for i, source := range sound {
		r.proveRename(source, selectors[i])
	}
	broken := breakLoops(sound, selectors)
	r.proveDisjoint(sound, selectors, broken)
	r.proveLetters(sound, selectors)
	r.proveOffsetSyncs(sound)
	broken.fault(r)
	r.proveNoCircle(sound, selectors, broken)
}

// proveDisjoint faults two flows that could write one topic.
func (r *reader) proveDisjoint(sources []*flowSource, selectors []*selector, broken *loops) {
	compared := 0
	for j, second := range sources {
		for i, first := range sources[:j] {
			if first.flow.To != second.flow.To {
				continue
			}
			if compared++; compared > maxPairs {
				r.fault(second.at, "divide the flows over several files", "more than %d pairs of flows lead into one cluster", maxPairs)
				return
			}
			if broken.mayShare(i, j) {
				continue
			}
			topic, decided := shared(selectors[i], selectors[j])
			remedy := "choose naming: prefixed for one of them, or divide the topics by topics and exclude_topics"
			if first.flow.Loop != LoopNone && second.flow.Loop != LoopNone {
				remedy = "give both flows of each pair the same topics and exclude_topics, or divide the topics by them"
			}
			if !decided {
				r.fault(second.at, clearer, "cannot be proved not to write the same topics as %s (%s)", first.at.path, first.flow.Name)
			} else if topic != "" {
				r.fault(second.at, remedy, "writes the same topics of %s as %s (%s)%s", second.flow.To, first.at.path, first.flow.Name,
					example(", for example %q", topic, first, second))
			}
		}
	}
}

// shared returns a topic of the target that both could write.
func shared(a, b *selector) (string, bool) {
	var left, right []alternative
	for i := range a.alternatives {
		for j := range b.alternatives {
			one, other := a.alternatives[i].steps[0], b.alternatives[j].steps[0]
			if one.meets(other) {
				left = appendNew(left, a.alternatives, i)
				right = appendNew(right, b.alternatives, j)
			}
		}
	}
	if len(left) == 0 {
		return "", true
	}
	return common(&machine{stages: []*selector{a.restrict(left...)}, back: true}, &machine{stages: []*selector{b.restrict(right...)}, back: true})
}

// example shows a topic, unless it could give away a substituted value.
func example(format, topic string, flows ...*flowSource) string {
	for _, source := range flows {
		if source.veiled {
			return ""
		}
	}
	return fmt.Sprintf(format, topic)
}

// circles is the search for topics that come back to where they started.
type circles struct {
	sources   []*flowSource
	selectors []*selector
	out       map[string][]int // cluster -> flows that leave it
	in        map[string][]int // cluster -> flows that arrive
	broken    *loops
	paths     int
	found     map[string]circle // by the flows of it, sorted
}

type circle struct {
	flows   []int
	topic   string // at the start of flows[0]
	arrives string // back at the start
}

// proveNoCircle faults flows that would carry a topic back to its own cluster.
//
// A topic that starts at flow 1 has another name where it arrives, and goes on if
// flow 2 takes that name, and so on; all of these are conditions on the name at
// the start, so the question is one machine for every simple circle and every
// start on it. Prefixed flows that know all clusters of the circle never close
// it, unless a rename takes the prefixes off.
//
// Circles within a broken group are none, nor need a path take two flows of one
// group in a row: a third one, or none at all, leads the same topics there.
func (r *reader) proveNoCircle(sources []*flowSource, selectors []*selector, broken *loops) {
	search := &circles{sources: sources, selectors: selectors, broken: broken, out: map[string][]int{}, in: map[string][]int{}, found: map[string]circle{}}
	for i, source := range sources {
		search.out[source.flow.From] = append(search.out[source.flow.From], i)
		search.in[source.flow.To] = append(search.in[source.flow.To], i)
	}
	for i, source := range sources {
		if returns := search.wayBack(nil, source.flow.From)[source.flow.To]; returns && !search.follow([]int{i}, source.flow.From) {
			r.fault(source.at, clearer, "cannot be proved not to close a circle")
			return
		}
	}
	for _, key := range slices.SortedFunc(maps.Keys(search.found), func(a, b string) int {
		return cmp.Or(cmp.Compare(len(a), len(b)), cmp.Compare(a, b))
	}) {
		found := search.found[key]
		if g := broken.group[found.flows[0]]; g >= 0 && broken.why[g] != "" && !slices.ContainsFunc(found.flows, func(i int) bool { return broken.group[i] != g }) {
			continue // told already
		}
		last := sources[slices.Max(found.flows)]
		names := make([]string, 0, len(found.flows)+1)
		members := make([]*flowSource, 0, len(found.flows))
		for _, i := range found.flows {
			names = append(names, sources[i].flow.From)
			members = append(members, sources[i])
		}
		names = append(names, names[0])
		problem := "closes a circle: " + strings.Join(names, " -> ") + example("; topic %q would come back to "+names[0], found.topic, members...)
		if found.arrives != found.topic {
			problem += example(" as %q", found.arrives, members...)
		}
		r.fault(last.at, "choose naming: prefixed on the way, or exclude_topics so that each topic goes one way only", "%s", problem)
	}
}

// follow extends a path by all that its topics can take. It returns false if
// something could not be decided.
func (s *circles) follow(path []int, start string) bool {
	if s.paths++; s.paths > maxCircles {
		return false
	}
	topic := ""
	if len(path) > 1 { // one flow alone is no circle, and what it takes shows with the next one
		way := &machine{}
		for _, i := range path {
			way.stages = append(way.stages, s.selectors[i])
		}
		var decided bool
		if topic, decided = common(way); !decided || topic == "" {
			return decided
		}
	}
	flow := s.sources[path[len(path)-1]].flow
	if flow.To == start {
		key := slices.Clone(path)
		slices.Sort(key)
		if _, known := s.found[fmt.Sprint(key)]; !known {
			arrives := topic
			for _, i := range path {
				arrives = s.sources[i].flow.TargetTopic(arrives)
			}
			s.found[fmt.Sprint(key)] = circle{flows: path, topic: topic, arrives: arrives}
		}
		return true
	}
	back := s.wayBack(path, start)
	for _, next := range s.out[flow.To] {
		if s.broken.together(path[len(path)-1], next) {
			continue
		}
		if to := s.sources[next].flow.To; back[to] && !s.follow(append(slices.Clone(path), next), start) {
			return false
		}
	}
	return true
}

// wayBack is from where the start can be reached without a cluster of the path.
func (s *circles) wayBack(path []int, start string) map[string]bool {
	reached := map[string]bool{start: true}
	visited := map[string]bool{}
	for _, i := range path {
		visited[s.sources[i].flow.To] = true
	}
	queue := []string{start}
	for len(queue) > 0 {
		cluster := queue[0]
		queue = queue[1:]
		for _, i := range s.in[cluster] {
			if from := s.sources[i].flow.From; !visited[from] && !reached[from] {
				reached[from] = true
				queue = append(queue, from)
			}
		}
	}
	return reached
}

// CheckClusterIDs faults two names for one cluster; ids holds the cluster id that
// each cluster answered with. Flows between two names of one cluster would copy
// topics onto themselves.
func (c *Config) CheckClusterIDs(ids map[string]string) error {
	var faults Faults
	first := map[string]string{}
	for _, cluster := range c.Clusters {
		id := ids[cluster.Name]
		if id == "" {
			continue
		}
		if other, twice := first[id]; twice {
			faults = append(faults, Fault{
				File: c.Path, Path: join("clusters", cluster.Name),
				Problem: fmt.Sprintf("is the same cluster as %s: both answer with cluster id %s", other, id),
				Remedy:  "keep one name for each cluster, and check the bootstrap addresses",
			})
			continue
		}
		first[id] = cluster.Name
	}
	if len(faults) > 0 {
		return faults
	}
	return nil
}
