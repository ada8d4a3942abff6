package checkpoint

import (
	"cmp"
	"iter"
	"maps"
	"slices"
	"time"
)

// GroupStatus is how a group stands on the two sides of a flow.
type GroupStatus struct {
	Group         string
	State         string // a State: the gravest of its partitions
	Error         string
	SourceMembers bool             // it is known to have members on the source
	TargetMembers bool             // on the target
	Partitions    []GroupPartition // by topic and partition
}

// GroupPartition is one committed offset of a group. Offsets are the next to
// be read; -1 is unknown, or nothing.
type GroupPartition struct {
	Topic        string // on the source
	TargetTopic  string
	Partition    int32
	State        string // a State
	Error        string
	SourceOffset int64 // committed on the source
	Translated   int64 // where that is on the target
	TargetOffset int64 // committed on the target, as last seen
	Back         int64 // where TargetOffset is on the source
	Shortfall    int64 // source offsets between the mirrored end and SourceOffset: what a failover now would lose of what was read
	// Exact says that a reader who goes on at Translated gets the very next
	// record. If not, Slack bounds how many offsets may be read again; 0: not
	// known.
	Exact bool
	Slack int64
	// OursSource and OursTarget are where the two stood when they last stood at
	// the same place, by our doing or of themselves; -1: never since anybody
	// remembers.
	OursSource, OursTarget int64
	Since                  time.Time // of the state, as this instance has seen it
	SourceSince            time.Time // when this instance first saw SourceOffset
	TargetSince            time.Time // when this instance first saw TargetOffset
}

// status is called with the syncer's mu held.
func (g *group) status(name string) GroupStatus {
	s := GroupStatus{Group: name, SourceMembers: g.busy, TargetMembers: g.active, Partitions: make([]GroupPartition, 0, len(g.parts))}
	s.State = string(g.worst())
	if g.err != nil {
		s.Error = g.err.Error()
	}
	for at, p := range g.parts {
		one := p.status()
		one.Topic, one.Partition = at.Topic, at.Partition
		if one.Error != "" && s.Error == "" {
			s.Error = one.Error
		}
		s.Partitions = append(s.Partitions, one)
	}
	slices.SortFunc(s.Partitions, func(a, b GroupPartition) int {
		return cmp.Or(cmp.Compare(a.Topic, b.Topic), cmp.Compare(a.Partition, b.Partition))
	})
	return s
}

func (p *groupPartition) status() GroupPartition {
	one := GroupPartition{
		TargetTopic: p.targetTopic, State: string(p.state),
		SourceOffset: p.source.Offset, Translated: -1, TargetOffset: p.target.Offset, Back: -1, Shortfall: -1,
		OursSource: -1, OursTarget: -1,
		Since: p.since, SourceSince: p.sourceSince, TargetSince: p.targetSince,
	}
	if p.err != nil {
		one.State, one.Error = string(Failed), p.err.Error()
	}
	if p.mapped {
		one.Translated, one.Shortfall, one.Exact, one.Slack = p.there.Offset, p.there.Shortfall, p.there.Exact, p.there.Slack
	}
	if p.target.Offset >= 0 && p.backMapped {
		one.Back = p.back.Offset
	}
	if p.ours.stands {
		one.OursSource, one.OursTarget = p.ours.standing.up, p.ours.standing.down
	}
	return one
}

// statusesAtOnce is how many groups Each looks at without letting anybody else at them.
const statusesAtOnce = 1000

// Each says how every group with offsets on mirrored topics stands, in no order. There
// may be a great many: they are looked at a few at a time, while the Syncer goes on.
func (s *Syncer) Each() iter.Seq[GroupStatus] {
	return func(yield func(GroupStatus) bool) {
		s.mu.Lock()
		all := slices.Collect(maps.Values(s.groups))
		s.mu.Unlock()
		statuses := make([]GroupStatus, 0, min(statusesAtOnce, len(all)))
		for lot := range slices.Chunk(all, statusesAtOnce) {
			statuses = statuses[:0]
			s.mu.Lock()
			for _, g := range lot {
				if len(g.parts) > 0 && s.groups[g.name] == g {
					statuses = append(statuses, g.status(g.name))
				}
			}
			s.mu.Unlock()
			for _, one := range statuses {
				if !yield(one) {
					return
				}
			}
		}
	}
}
