package console

import (
	"maps"
	"slices"
	"strconv"

	"kmirror/checkpoint"
)

type groupView struct {
	Group, State, Tone, Partitions, SourceLag, TargetLag, Behind, Shortfall, Error string
	// Stands is where the partition stands that gives it its state.
	Stands string
}

func groupViews(answer GroupsAnswer, from, to string) (shown []groupView) {
	for i := range answer.Groups {
		g := &answer.Groups[i]
		v := groupView{
			Group: g.Group, State: g.State, Tone: groupTone(g.State), Partitions: countOf(g.PartitionCount),
			SourceLag: FormatCount(g.SourceLag), TargetLag: FormatCount(g.TargetLag),
			Behind: FormatCount(g.Behind), Shortfall: FormatCount(g.Shortfall), Error: g.Error,
		}
		if worst := g.Worst(); worst != nil && (g.State != string(checkpoint.InStep) || g.PartitionCount == 1) {
			v.Stands = worst.stands(from, to)
		}
		shown = append(shown, v)
	}
	return shown
}

// stands says where a group is on both sides.
func (p *GroupPartition) stands(from, to string) string {
	place := FormatCount(p.Translated)
	if p.Approximate {
		place = "about " + place
	}
	words := p.Topic + "/" + strconv.Itoa(int(p.Partition)) + " at " + FormatCount(p.SourceOffset) + " in " + from
	switch {
	case p.Translated < 0:
		return words + ", not mirrored yet; at " + FormatCount(p.TargetOffset) + " in " + to
	case p.Translated == p.TargetOffset:
		return words + ", " + place + " in " + to
	default:
		return words + ", which is " + place + "; at " + FormatCount(p.TargetOffset) + " in " + to
	}
}

// stateWords counts groups by state, the gravest last.
func stateWords(states map[string]int) string {
	names := slices.SortedFunc(maps.Keys(states), func(a, b string) int { return checkpoint.Gravity(a) - checkpoint.Gravity(b) })
	words := make([]string, 0, len(names))
	for _, name := range names {
		words = append(words, countOf(states[name])+" "+name)
	}
	return listWords(words)
}

func groupTone(state string) string {
	switch state {
	case string(checkpoint.InStep):
		return toneGood
	case string(checkpoint.Diverged), string(checkpoint.ActiveAtSource):
		return toneWarn
	case string(checkpoint.Failed):
		return toneBad
	default:
		return toneCalm
	}
}
