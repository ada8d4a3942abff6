package checkpoint

import (
	"kmirror/topology"
)

// Translator is where offsets are looked up. *Index is one.
type Translator interface {
	Ready() <-chan struct{}
	Translate(flow, sourceTopic string, partition int32, offset int64) (Translation, bool)
	Invert(flow, sourceTopic string, partition int32, offset int64) (Translation, bool)
	Through(flow, sourceTopic string, partition int32) (int64, bool)
	Behind(flow, sourceTopic string, partition int32, offset int64) (int64, bool)
	Runs(flow, sourceTopic string, partition int32) *Runs
	Wrote(flow string, producerID int64) bool
}

// Route is a flow and the offset map that its target cluster keeps of it.
type Route struct {
	Flow *topology.Flow
	Maps Translator
}

// Routes says how topics of two clusters, the source and the target of Forward,
// belong together: each topic that the flow mirrors and its copy are a pair, and
// offsets of either are translated to the other by the flow's map.
//
// Where the flow the other way mirrors the copy under the topic's own name
// (identity naming both ways), both maps say where a record stands: see joint.
type Routes struct {
	Forward  Route
	Opposite Route // its Flow is nil where there is none
}

// Pair returns what a topic of the source is called on the target, and whether
// the flow mirrors it.
func (r Routes) Pair(topic string) (target string, ok bool) {
	if !r.Forward.Flow.Selects(topic) {
		return "", false
	}
	return r.Forward.Flow.TargetTopic(topic), true
}

// Source returns the topic of the source that a topic of the target is the copy
// of, and whether the flow mirrors it.
func (r Routes) Source(target string) (topic string, ok bool) {
	topic, ok = r.Forward.Flow.SourceTopic(target)
	if !ok || !r.Forward.Flow.Selects(topic) || r.Forward.Flow.TargetTopic(topic) != target {
		return "", false
	}
	return topic, true
}

// Shared reports whether both flows write a pair: each mirrors to the other what
// was produced on its side.
func (r Routes) Shared(topic string) bool {
	o := r.Opposite.Flow
	if o == nil {
		return false
	}
	target := r.Forward.Flow.TargetTopic(topic)
	return o.Selects(target) && o.TargetTopic(target) == topic
}

// ToTarget translates an offset of a source topic. It is not ok when nothing is
// known about the partition.
func (r Routes) ToTarget(topic string, partition int32, offset int64) (Translation, bool) {
	ours := r.forward(topic, partition)
	if !r.Shared(topic) {
		return ours.to(offset)
	}
	return joint(ours, r.opposite(topic, partition), offset)
}

// ToSource translates an offset of the copy of a source topic.
func (r Routes) ToSource(topic string, partition int32, offset int64) (Translation, bool) {
	theirs := r.forward(topic, partition).turned()
	if !r.Shared(topic) {
		return theirs.to(offset)
	}
	return joint(r.opposite(topic, partition).turned(), theirs, offset)
}

// lookup is the map of a partition, as a reader of one side asks it.
type lookup struct {
	to      func(offset int64) (Translation, bool) // to the other side
	from    func(offset int64) (Translation, bool) // from the other side
	through func() (int64, bool)                   // what the flow has dealt with, on the side it comes from
	behind  func(offset int64) (int64, bool)       // there, behind the last record that stands before an offset of the side it goes to
}

func (l lookup) turned() lookup {
	return lookup{to: l.from, from: l.to, through: l.through, behind: l.behind}
}

// forward is asked from the source.
func (r Routes) forward(topic string, partition int32) lookup {
	return r.Forward.lookup(topic, partition)
}

// opposite is the other flow's map of a shared pair, asked from the source of
// the forward flow, which is that flow's target.
func (r Routes) opposite(topic string, partition int32) lookup {
	return r.Opposite.lookup(r.Forward.Flow.TargetTopic(topic), partition).turned()
}

func (r Route) lookup(topic string, partition int32) lookup {
	return lookup{
		to:      func(offset int64) (Translation, bool) { return r.Maps.Translate(r.Flow.Name, topic, partition, offset) },
		from:    func(offset int64) (Translation, bool) { return r.Maps.Invert(r.Flow.Name, topic, partition, offset) },
		through: func() (int64, bool) { return r.Maps.Through(r.Flow.Name, topic, partition) },
		behind:  func(offset int64) (int64, bool) { return r.Maps.Behind(r.Flow.Name, topic, partition, offset) },
	}
}

// Local counts the offsets of a copy in [from, to) at which no record stands
// that a flow between the two clusters carried: what was written there by
// somebody else and is not on the source, and the markers among it. It costs a
// walk through the partition's map.
func (r Routes) Local(topic string, partition int32, from, to int64) int64 {
	if to <= from {
		return 0
	}
	left := to - from
	if runs := r.Forward.Maps.Runs(r.Forward.Flow.Name, topic, partition); runs != nil {
		left -= overlap(runs, from, to, false)
	}
	if r.Shared(topic) {
		if runs := r.Opposite.Maps.Runs(r.Opposite.Flow.Name, r.Forward.Flow.TargetTopic(topic), partition); runs != nil {
			left -= overlap(runs, from, to, true)
		}
	}
	return max(0, left)
}

// overlap counts the offsets in [from, to) that lie in runs, on their target
// side or their source side. What follows a loose run counts as in it.
func overlap(runs *Runs, from, to int64, bySource bool) (n int64) {
	loose := int64(-1) // where a loose run before this one ended
	runs.All(func(run Run) bool {
		begin := run.Target
		if bySource {
			begin = run.Source
		}
		end := begin + run.Count
		if loose >= 0 {
			n += max(0, min(to, begin)-max(from, loose))
		}
		n += max(0, min(to, end)-max(from, begin))
		if loose = -1; run.Loose {
			loose = end
		}
		return begin < to
	})
	return n
}
