package topology

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strings"
)

// LoopRule says how a flow with identity naming keeps records from going round.
type LoopRule int8

// The rules. Which of them holds follows from the flows of the file.
const (
	LoopNone   LoopRule = iota // nothing that it forwards can come back
	LoopTarget                 // forwards all but what came from its target: a pair, also one of a chain or a star
	LoopLocal                  // forwards only what the others of its mesh did not bring to its source
)

// String is a clause for check and status.
func (l LoopRule) String() string {
	switch l {
	case LoopNone:
		return "nothing can come back"
	case LoopTarget:
		return "forwards all but what came from its target"
	case LoopLocal:
		return "forwards only what its mesh did not bring"
	}
	return fmt.Sprintf("loop(%d)", l)
}

// BreaksLoop reports whether batches of a source topic are left out by who wrote
// them: those of the flows in Drops. MirrorMaker 2's heartbeats say by their name
// where they came from.
func (f *Flow) BreaksLoop(topic string) bool {
	return len(f.Drops) > 0 && !f.isHeartbeats(topic)
}

// SyncsConfigs reports whether the flow keeps the target's topic configs as the
// source's. Of the two flows of a pair only one does, and in a mesh only those of
// one cluster: that of the flow that stands first in the file. Else the two sides
// would set each other's configs for ever.
func (f *Flow) SyncsConfigs() bool { return f.Configs.Sync && !f.follows }

// loops finds the circles of flows with identity naming and breaks them.
//
// Flows that share a circle are one group. A group can be broken where it is a
// pair, or a full mesh all of whose flows mirror the same topics: each of its
// flows leaves out what the group's other flows brought to its source. So what is
// born in a group's cluster, or comes to it from outside the group, reaches each
// other cluster of the group over one flow, and is not forwarded again within it.
// Groups have no more than a cluster in common, and lie to each other as a tree (a
// circle over several would make them one): the chain and the star are groups of
// pairs. So there is one way between any two clusters.
type loops struct {
	sources   []*flowSource
	selectors []*selector
	byName    map[string]int
	group     []int // of each flow: the number of its group, -1: none
	groups    [][]int
	why       map[int]string // group -> why it cannot be broken
	topics    map[int]string // group -> a topic that goes round
}

// breakLoops sets Loop, Drops and Refill of the flows.
func breakLoops(sources []*flowSource, selectors []*selector) *loops {
	l := &loops{sources: sources, selectors: selectors, byName: map[string]int{}, why: map[int]string{}, topics: map[int]string{}}
	parent := make([]int, len(sources))
	for i, source := range sources {
		f := source.flow
		f.Loop, f.Drops, f.Refill, f.follows = LoopNone, nil, false, false
		l.byName[f.Name] = i
		l.group = append(l.group, -1)
		parent[i] = i
	}
	var root func(i int) int
	root = func(i int) int {
		if parent[i] != i {
			parent[i] = root(parent[i])
		}
		return parent[i]
	}
	inCircle := map[int]string{}
	join := func(topic string, flows ...int) {
		for _, i := range flows {
			inCircle[i] = topic
			parent[root(i)] = root(flows[0])
		}
	}
	for i, a := range sources { // circles of two and of three; longer ones are the search's
		if a.flow.Naming != Identity {
			continue
		}
		for j, b := range sources {
			if b.flow.Naming != Identity || b.flow.From != a.flow.To {
				continue
			}
			if b.flow.To == a.flow.From {
				if topic := l.circulates(i, j); i < j && topic != "" {
					join(topic, i, j)
				}
				continue
			}
			k, closes := l.byName[b.flow.To+"->"+a.flow.From]
			if !closes || sources[k].flow.Naming != Identity || i > j || i > k {
				continue
			}
			if topic := l.circulates(i, j, k); topic != "" {
				join(topic, i, j, k)
			}
		}
	}
	number := map[int]int{}
	for i := range sources {
		if _, some := inCircle[i]; !some {
			continue
		}
		r := root(i)
		if _, known := number[r]; !known {
			number[r] = len(l.groups)
			l.groups = append(l.groups, nil)
		}
		l.group[i] = number[r]
		l.groups[number[r]] = append(l.groups[number[r]], i)
		l.topics[number[r]] = inCircle[i]
	}
	for g, members := range l.groups {
		if l.why[g] = l.unbroken(members); l.why[g] == "" {
			l.apply(members)
		}
	}
	l.lead()
	return l
}

// circulates returns a topic that comes back under its name; "" if none does, or
// that could not be decided: the search faults that.
func (l *loops) circulates(flows ...int) string {
	way := &machine{}
	for _, i := range flows {
		way.stages = append(way.stages, l.selectors[i])
	}
	topic, decided := common(way)
	if !decided {
		return ""
	}
	return topic
}

// unbroken says why a group's circles cannot be broken, "" if they can.
func (l *loops) unbroken(members []int) string {
	clusters := map[string]bool{}
	first := l.sources[members[0]].flow
	for _, i := range members {
		f := l.sources[i].flow
		clusters[f.From], clusters[f.To] = true, true
		if len(f.Rename) > 0 {
			return "a flow of a circle may have no rename (" + f.Name + ")"
		}
	}
	if n := len(clusters); len(members) != n*(n-1) {
		return "the clusters " + strings.Join(slices.Sorted(maps.Keys(clusters)), ", ") + " are not mirrored each into each other"
	}
	if len(members) == 2 {
		return ""
	}
	for _, i := range members {
		if f := l.sources[i].flow; !sameTopics(f, first) {
			return "in a mesh all flows must have the same topics and exclude_topics (" + first.Name + " and " + f.Name + " differ)"
		}
	}
	return ""
}

// sameTopics reports whether two flows select by the same patterns.
func sameTopics(a, b *Flow) bool {
	alike := func(x, y []string) bool {
		x, y = slices.Clone(x), slices.Clone(y)
		slices.Sort(x)
		slices.Sort(y)
		return slices.Equal(slices.Compact(x), slices.Compact(y))
	}
	return alike(a.Topics, b.Topics) && alike(a.ExcludeTopics, b.ExcludeTopics)
}

// apply makes the flows of a group leave out what the others bring.
func (l *loops) apply(members []int) {
	for _, i := range members {
		f := l.sources[i].flow
		f.Loop = LoopLocal
		if len(members) == 2 {
			f.Loop = LoopTarget
		}
		for _, j := range members {
			if other := l.sources[j].flow; other.To == f.From {
				f.Drops = append(f.Drops, other.Name)
			}
		}
	}
}

// lead says which flows of circles sync configs, and which fill a cluster that
// begins anew.
//
// Groups that hang together have one first cluster: the source of the first flow
// of the file among theirs. Configs go away from it.
func (l *loops) lead() {
	neighbours := map[string][]string{}
	var order []string
	for i, source := range l.sources {
		f := source.flow
		if l.group[i] < 0 || f.Loop == LoopNone {
			continue
		}
		if neighbours[f.From] == nil {
			order = append(order, f.From)
		}
		neighbours[f.From] = append(neighbours[f.From], f.To)
	}
	distance := map[string]int{}
	for _, start := range order {
		if _, reached := distance[start]; reached {
			continue
		}
		distance[start] = 0
		for queue := []string{start}; len(queue) > 0; queue = queue[1:] {
			for _, next := range neighbours[queue[0]] {
				if _, reached := distance[next]; !reached {
					distance[next] = distance[queue[0]] + 1
					queue = append(queue, next)
				}
			}
		}
	}
	for _, source := range l.sources {
		if f := source.flow; f.Loop != LoopNone {
			f.follows = distance[f.From] >= distance[f.To]
			f.Refill = f.Loop == LoopTarget && len(neighbours[f.To]) == 1
		}
	}
}

// together reports whether a path of flows lies within one group whose circles are broken.
func (l *loops) together(path ...int) bool {
	g := l.group[path[0]]
	if g < 0 || l.why[g] != "" {
		return false
	}
	return !slices.ContainsFunc(path, func(i int) bool { return l.group[i] != g })
}

// mayShare reports whether two flows may write the same topics of one cluster:
// both are of broken circles, and whatever goes one way of them goes the other
// way too. Then nothing can come over both.
func (l *loops) mayShare(i, j int) bool {
	for _, at := range []int{i, j} {
		g := l.group[at]
		if g < 0 || l.why[g] != "" {
			return false
		}
		for _, member := range l.groups[g] {
			if !sameTopics(l.sources[member].flow, l.sources[at].flow) {
				return false
			}
		}
	}
	return true
}

// fault reports the groups that cannot be broken.
func (l *loops) fault(r *reader) {
	for g, members := range l.groups {
		if l.why[g] == "" {
			continue
		}
		last := l.sources[slices.Max(members)]
		names := make([]string, 0, len(members))
		flows := make([]*flowSource, 0, len(members))
		for _, i := range members {
			names = append(names, l.sources[i].flow.Name)
			flows = append(flows, l.sources[i])
		}
		slices.SortFunc(names, cmp.Compare[string])
		r.fault(last.at, "mirror both ways between two clusters, or each into each other with the same topics and no rename: such circles are broken; or choose naming: prefixed on the way, or exclude_topics so that each topic goes one way only",
			"closes a circle that cannot be broken: %s%s; %s", strings.Join(names, ", "), example("; topic %q would come back", l.topics[g], flows...), l.why[g])
	}
}
