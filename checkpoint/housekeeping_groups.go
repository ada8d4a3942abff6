package checkpoint

import (
	"context"
	"fmt"
	"maps"
	"slices"
)

// LowestOffsets reads where groups stand on a cluster, and returns the lowest offset
// that any of them has committed for a partition, -1 where none has. It asks about
// every group that selected is true for, so it is for rare use. What one broker does
// not tell is an error, for then nobody knows.
func LowestOffsets(ctx context.Context, cluster GroupCluster, selected func(group string) bool) (func(topic string, partition int32) int64, error) {
	g := newGroups(cluster)
	there, err := g.list(ctx, nil)
	if err != nil {
		return nil, fmt.Errorf("list all groups: %w", err)
	}
	maps.DeleteFunc(there, func(name string, l groupListing) bool { return !l.consumers() || !selected(name) })
	lowest := map[string]map[int32]int64{}
	for name, answer := range g.fetch(ctx, slices.Collect(maps.Keys(there))) {
		if answer.err != nil {
			return nil, fmt.Errorf("read the offsets of group %s: %w", name, answer.err)
		}
		for at, c := range answer.at {
			of := lowest[at.Topic]
			if of == nil {
				of = map[int32]int64{}
				lowest[at.Topic] = of
			}
			if now, ok := of[at.Partition]; c.Offset >= 0 && (!ok || c.Offset < now) {
				of[at.Partition] = c.Offset
			}
		}
	}
	return func(topic string, partition int32) int64 {
		if offset, ok := lowest[topic][partition]; ok {
			return offset
		}
		return -1
	}, nil
}
