package mirror

import (
	"cmp"
	"maps"
	"slices"
)

// partitionID names one partition of a flow by its source topic.
type partitionID struct {
	Flow, Topic string
	Partition   int32
}

func (p partitionID) compare(q partitionID) int {
	return cmp.Or(cmp.Compare(p.Flow, q.Flow), cmp.Compare(p.Topic, q.Topic), cmp.Compare(p.Partition, q.Partition))
}

// place decides which member mirrors which partition: a pure function of the
// members, the partitions and the present owners.
//
// It balances by count (no member has more than one partition above another),
// moves no partition that need not move, and spreads the partitions of a topic:
// of the members with room, the one with the fewest of that topic takes it.
// Without members nothing is placed. Equal inputs give equal outputs.
func place(members []string, partitions []partitionID, current map[partitionID]string) map[partitionID]string {
	placed := make(map[partitionID]string, len(partitions))
	if len(members) == 0 {
		return placed
	}
	members = slices.Compact(slices.Sorted(slices.Values(members)))
	partitions = slices.Clone(partitions)
	slices.SortFunc(partitions, partitionID.compare)

	load := make(map[string]int, len(members))
	for _, m := range members {
		load[m] = 0
	}
	type topicOn struct{ flow, topic, member string }
	spread := map[topicOn]int{}
	put := func(p partitionID, m string) {
		placed[p] = m
		load[m]++
		spread[topicOn{p.Flow, p.Topic, m}]++
	}
	take := func(p partitionID) {
		m := placed[p]
		delete(placed, p)
		load[m]--
		spread[topicOn{p.Flow, p.Topic, m}]--
	}

	// What has a living owner stays, up to each member's share.
	floor, extra := len(partitions)/len(members), len(partitions)%len(members)
	var homeless []partitionID
	for _, p := range partitions {
		if m, ok := current[p]; ok {
			if _, alive := load[m]; alive {
				put(p, m)
				continue
			}
		}
		homeless = append(homeless, p)
	}
	// The members that have most keep the places above the floor.
	byLoad := slices.SortedFunc(maps.Keys(load), func(a, b string) int {
		return cmp.Or(cmp.Compare(load[b], load[a]), cmp.Compare(a, b))
	})
	share := make(map[string]int, len(members))
	for i, m := range byLoad {
		share[m] = floor
		if i < extra {
			share[m]++
		}
	}
	for _, p := range slices.Backward(partitions) {
		if m, ok := placed[p]; ok && load[m] > share[m] {
			take(p)
			homeless = append(homeless, p)
		}
	}
	slices.SortFunc(homeless, partitionID.compare)
	for _, p := range homeless {
		best := ""
		for _, m := range members {
			if load[m] >= share[m] {
				continue
			}
			if best == "" || cmp.Or(
				cmp.Compare(spread[topicOn{p.Flow, p.Topic, m}], spread[topicOn{p.Flow, p.Topic, best}]),
				cmp.Compare(load[m], load[best]),
			) < 0 {
				best = m
			}
		}
		put(p, best)
	}
	return placed
}
