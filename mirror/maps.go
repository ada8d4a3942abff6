package mirror

import (
	"cmp"
	"fmt"
	"slices"

	"kmirror/checkpoint"
)

// MapStatus is the offset map in one target cluster, as the leading instance
// holds and follows it.
type MapStatus struct {
	Cluster    string `json:"cluster"`
	Partitions int    `json:"partitions"` // with a map, of every incarnation of their topics
	Runs       int    `json:"runs"`
	// Memory is about how many bytes it takes in this process.
	Memory int64 `json:"memory_bytes"`
	// Records were read of its topic since this term began, those that others
	// replaced since among them.
	Records int64 `json:"records"`
}

// SkippedRecords are records of an internal topic that are not ours, or corrupt:
// they were passed over.
type SkippedRecords struct {
	Cluster string `json:"cluster"`
	Topic   string `json:"topic"`
	Records int64  `json:"records"`
	First   string `json:"first,omitempty"` // where one stands and what is wrong with it
}

// maps are the offset maps that the leader holds; nil on other instances.
func (l *leader) maps() (maps []MapStatus, skipped []SkippedRecords) {
	for cluster, index := range l.indexes {
		s := index.Stats()
		maps = append(maps, MapStatus{Cluster: cluster, Partitions: s.Partitions, Runs: s.Runs, Memory: s.Memory, Records: s.Records})
		if s.Skipped > 0 {
			one := SkippedRecords{Cluster: cluster, Topic: checkpoint.MapTopic, Records: s.Skipped}
			if len(s.Faults) > 0 {
				one.First = fmt.Sprintf("partition %d, offset %d: %s", s.Faults[0].Partition, s.Faults[0].Offset, s.Faults[0].Reason)
			}
			skipped = append(skipped, one)
		}
	}
	for _, f := range l.flows {
		if s := l.group[f.cfg().Name]; s != nil && s.Skipped() > 0 {
			skipped = append(skipped, SkippedRecords{Cluster: f.cfg().To, Topic: s.NotesTopic(), Records: s.Skipped()})
		}
		s, at := l.offsetSyncs[f.cfg().Name], f.syncsCluster()
		if s != nil && at != nil && s.Skipped() > 0 {
			skipped = append(skipped, SkippedRecords{Cluster: at.Name(), Topic: f.cfg().OffsetSyncsTopic(), Records: s.Skipped()})
		}
	}
	slices.SortFunc(maps, func(a, b MapStatus) int { return cmp.Compare(a.Cluster, b.Cluster) })
	slices.SortFunc(skipped, func(a, b SkippedRecords) int {
		return cmp.Or(cmp.Compare(a.Cluster, b.Cluster), cmp.Compare(a.Topic, b.Topic))
	})
	return maps, slices.CompactFunc(skipped, func(a, b SkippedRecords) bool { return a.Cluster == b.Cluster && a.Topic == b.Topic })
}

// leads is the term that this instance leads, nil while it does not.
func (e *Engine) leads() *leader {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.leading
}
