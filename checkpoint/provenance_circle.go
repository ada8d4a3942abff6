package checkpoint

import (
	"maps"
	"slices"

	"kmirror/topology"
)

// Mirrors reports whether a flow has mirrored into a topic of the cluster, which it
// writes down before its first batch; id is the topic's own.
func (p *Provenances) Mirrors(flow, topic string, id [16]byte) bool {
	_, ok := p.into[mirroredInto{flow, topic, id}]
	return ok
}

// Unlisted names the flows of other deployments that mirror a flow's target into
// its source under the topics' own names, sorted: what both mirror goes round for
// ever, as mirror.yaml does not show the circle. p are the producer ids of the
// flow's source, target is the id of the flow's target cluster, "" if it has none.
// A flow of a circle that mirror.yaml shows has none: its rule knows them by their
// cluster. Nor has one that renames topics. reads is as in OriginRule.
func (p *Provenances) Unlisted(flow *topology.Flow, target string, reads func(flow string) (cluster string)) []string {
	if flow.Naming != topology.Identity || len(flow.Drops) > 0 || target == "" {
		return nil
	}
	found := map[string]struct{}{}
	for _, known := range p.known {
		if known.KeepsNames && known.Source == target && reads(known.Flow) != flow.To {
			found[known.Flow] = struct{}{}
		}
	}
	return slices.Sorted(maps.Keys(found))
}
