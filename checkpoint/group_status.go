package checkpoint

import (
	"cmp"
	"slices"
)

// GroupStatus is how a group of the source stands on the target of a flow.
type GroupStatus struct {
	Group      string
	State      string // a State: the gravest of its partitions
	Error      string
	Partitions []GroupPartition // by topic and partition
}

// GroupPartition is one committed offset of a group. Offsets are the next to
// be read; -1 is unknown, or nothing.
type GroupPartition struct {
	Topic        string // on the source
	TargetTopic  string
	Partition    int32
	State        string // a State
	SourceOffset int64  // committed on the source
	Translated   int64  // where that is on the target
	TargetOffset int64  // committed on the target
	Shortfall    int64  // source offsets between the mirrored end and SourceOffset: what a failover now would lose of what was read
}

// status is called with the syncer's mu held.
func (g *group) status(name string) GroupStatus {
	s := GroupStatus{Group: name, Partitions: make([]GroupPartition, 0, len(g.parts))}
	worst := InStep
	if g.err != nil {
		worst, s.Error = Failed, g.err.Error()
	}
	for at, p := range g.parts {
		state := p.state
		if p.err != nil {
			state = Failed
			if s.Error == "" {
				s.Error = p.err.Error()
			}
		}
		if state.gravity() > worst.gravity() {
			worst = state
		}
		one := GroupPartition{
			Topic: at.topic, TargetTopic: p.targetTopic, Partition: at.partition, State: string(state),
			SourceOffset: p.source.offset, Translated: -1, TargetOffset: p.target, Shortfall: -1,
		}
		if p.mapped {
			one.Translated, one.Shortfall = p.translation.Offset, p.translation.Shortfall
		}
		s.Partitions = append(s.Partitions, one)
	}
	s.State = string(worst)
	slices.SortFunc(s.Partitions, func(a, b GroupPartition) int {
		return cmp.Or(cmp.Compare(a.Topic, b.Topic), cmp.Compare(a.Partition, b.Partition))
	})
	return s
}

// Groups returns how every group with offsets on mirrored topics stands, by
// name.
func (s *Syncer) Groups() []GroupStatus {
	s.mu.Lock()
	defer s.mu.Unlock()
	all := make([]GroupStatus, 0, len(s.groups))
	for name, g := range s.groups {
		if len(g.parts) > 0 {
			all = append(all, g.status(name))
		}
	}
	slices.SortFunc(all, func(a, b GroupStatus) int { return cmp.Compare(a.Group, b.Group) })
	return all
}
