package checkpoint

import (
	"fmt"
	"slices"

	"kmirror/topology"
)

// OriginRule decides, for a flow in a circle, about a producer id of its source
// that is written down as a flow's: whether what bears it is left out.
type OriginRule struct {
	Drops  []string                           // flows into the source, by name: what they brought is left out
	From   []string                           // the clusters that they read from, by name
	Target string                             // of this flow, by name
	Refill bool                               // what they brought from another cluster in the target's place is wanted
	Reads  func(flow string) (cluster string) // the cluster that a flow of mirror.yaml reads, by name; "": there is no such flow
}

// NewOriginRule makes the rule of a flow. find looks a flow of mirror.yaml up by
// its name, nil if there is none; it may be called as long as the rule lives.
func NewOriginRule(flow *topology.Flow, find func(name string) *topology.Flow) OriginRule {
	r := OriginRule{
		Drops: flow.Drops, Target: flow.To, Refill: flow.Refill,
		Reads: ReadsOf(find),
	}
	for _, name := range flow.Drops {
		if other := find(name); other != nil {
			r.From = append(r.From, other.From)
		}
	}
	return r
}

// ReadsOf says which cluster a flow of mirror.yaml reads, by name; "": there is no
// such flow.
func ReadsOf(find func(name string) *topology.Flow) func(flow string) (cluster string) {
	return func(name string) string {
		if flow := find(name); flow != nil {
			return flow.From
		}
		return ""
	}
}

// Foreign says whether what a flow brought is left out; ids are those of the
// clusters, by name, as far as they are known. Another deployment's flow is known
// by the cluster that it reads from, whatever its name: it may call its clusters as
// mirror.yaml calls others. While one of the clusters has not been seen yet, that may
// stay in doubt: then the error is a *DoubtError.
// Whoever mirrors and whoever judges what was mirrored ask the same rule, else a
// record that is lost could count as left out.
func (r OriginRule) Foreign(p Provenance, ids map[string]string) (bool, error) {
	if slices.Contains(r.Drops, p.Flow) {
		now := ids[r.Target]
		return !r.Refill || p.Source == "" || now == "" || p.Source == now, nil
	}
	if !p.KeepsNames || p.Source == "" {
		return false, nil
	}
	unseen := ""
	for _, name := range r.From {
		switch ids[name] {
		case p.Source:
			return true, nil
		case "":
			unseen = name
		}
	}
	if unseen != "" && ids[r.Reads(p.Flow)] != p.Source { // else it is that flow of mirror.yaml
		return false, &DoubtError{Of: p, Unseen: unseen}
	}
	return false, nil
}

// DoubtError says that it is not known whether what a flow brought is left out.
type DoubtError struct {
	Of     Provenance
	Unseen string // the cluster whose id would tell, by name
}

func (e *DoubtError) Error() string {
	return fmt.Sprintf("producer id %d is of a flow %s that reads a cluster with the id %s, and whether that is cluster %s cannot be said before %s has been seen", e.Of.ProducerID, e.Of.Flow, e.Of.Source, e.Unseen, e.Unseen)
}
