package mirror

import (
	"cmp"
	"iter"
	"slices"
	"time"

	"kmirror/checkpoint"
)

// RPO is what a failover of a flow's consumers to its target would lose now:
// the records that the source has acknowledged and the target does not have.
type RPO struct {
	FlowLag

	// NewestMirrored is the greatest timestamp of all records in the copy: how old
	// the copy is, whatever is known about the source.
	NewestMirrored *time.Time `json:"newest_mirrored,omitempty"`
	// Heartbeat is the time of the newest heartbeat of the flow on the target: when
	// an instance was last at work. Absent where nobody looked.
	Heartbeat *time.Time `json:"heartbeat,omitempty"`
	// Groups are those that have read further than the copy goes, the furthest
	// first; GroupsBeyond counts them all.
	Groups       []GroupBeyond `json:"groups"`
	GroupsBeyond int           `json:"groups_beyond"`
	// GroupsKnown says that somebody looked at the groups.
	GroupsKnown bool `json:"groups_known"`
}

// GroupBeyond is a group of the source that has read records which are not in
// the target: after a failover it goes on at the mirrored end.
type GroupBeyond struct {
	Group      string `json:"group"`
	Records    int64  `json:"records"` // source offsets that it has read and the target lacks
	Partitions int    `json:"partitions"`
}

// MaxGroupsBeyond is how many groups an RPO names.
const MaxGroupsBeyond = 100

// RPOOf is the RPO of a flow as its status has it. source is its source
// cluster; groups are nil where this instance does not follow them.
func RPOOf(f FlowStatus, life string, source ClusterStatus, groups iter.Seq[checkpoint.GroupStatus], now time.Time) RPO {
	out := RPO{FlowLag: LagOf(f, life, source, now)}
	for _, t := range out.Topics {
		if t.NewestMirrored != nil && (out.NewestMirrored == nil || t.NewestMirrored.After(*out.NewestMirrored)) {
			out.NewestMirrored = t.NewestMirrored
		}
	}
	out.Beyond(groups)
	return out
}

// Beyond takes in which groups have read further than the copy goes.
func (r *RPO) Beyond(groups iter.Seq[checkpoint.GroupStatus]) {
	r.Groups, r.GroupsBeyond, r.GroupsKnown = []GroupBeyond{}, 0, groups != nil
	if groups == nil {
		return
	}
	for g := range groups {
		one := GroupBeyond{Group: g.Group}
		for _, p := range g.Partitions {
			if p.Shortfall > 0 {
				one.Records = AddUp(one.Records, p.Shortfall)
				one.Partitions++
			}
		}
		if one.Partitions > 0 {
			r.Groups = append(r.Groups, one)
		}
	}
	r.GroupsBeyond = len(r.Groups)
	slices.SortFunc(r.Groups, func(a, b GroupBeyond) int {
		return cmp.Or(cmp.Compare(b.Records, a.Records), cmp.Compare(a.Group, b.Group))
	})
	r.Groups = slices.Clip(r.Groups[:min(len(r.Groups), MaxGroupsBeyond)])
}
