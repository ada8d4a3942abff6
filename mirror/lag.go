package mirror

import (
	"cmp"
	"math"
	"slices"
	"time"
)

// Lag is what of a source is not in the target yet, and so what a failover now
// would lose.
type Lag struct {
	// Records counts source offsets, transaction markers and holes among them: at
	// most so many records. -1: not known.
	Records int64 `json:"records"`
	// Bytes is what these records take on the wire; -1: not known.
	Bytes int64 `json:"bytes"`
	// BytesEstimated says that Bytes was reckoned from the size of other records.
	BytesEstimated bool `json:"bytes_estimated,omitempty"`
	// Seconds is how old the oldest of them is; 0 when there is none, -1: not known.
	Seconds float64 `json:"seconds"`
	// Oldest is the timestamp of that record, where it was read.
	Oldest *time.Time `json:"oldest,omitempty"`
	// Unknown counts the partitions of which nothing is known: they are not in the figures.
	Unknown int `json:"unknown_partitions,omitempty"`
}

// AddUp is the sum of two counts, at most the greatest number there is: what a
// group commits may be absurd.
func AddUp(a, b int64) int64 {
	if a > 0 && b > math.MaxInt64-a {
		return math.MaxInt64
	}
	return a + b
}

// UnknownLag is the lag of a partition of which nothing is known.
func UnknownLag() Lag { return Lag{Records: -1, Bytes: -1, Seconds: -1, Unknown: 1} }

// sumOf adds lags up. What is not known of one is left out and counted; when
// nothing is known of any, the sum is not known either.
func sumOf[T any](all []T, lag func(T) Lag) Lag {
	var sum Lag
	known, sized, timed := len(all) == 0, len(all) == 0, len(all) == 0
	for _, one := range all {
		l := lag(one)
		sum.Unknown += l.Unknown
		if l.Records >= 0 {
			known = true
			sum.Records += l.Records
		}
		if l.Bytes >= 0 {
			sized = true
			sum.Bytes += l.Bytes
		}
		sum.BytesEstimated = sum.BytesEstimated || l.BytesEstimated || l.Bytes < 0 && l.Records > 0
		if l.Seconds >= 0 {
			timed = true
			sum.Seconds = max(sum.Seconds, l.Seconds)
		}
		if l.Oldest != nil && (sum.Oldest == nil || l.Oldest.Before(*sum.Oldest)) {
			sum.Oldest = l.Oldest
		}
	}
	if !known {
		sum.Records = -1
	}
	if !sized {
		sum.Bytes = -1
	}
	if !timed {
		sum.Seconds = -1
	}
	return sum
}

// FlowLag is how far the copy of a flow is behind.
type FlowLag struct {
	Flow string    `json:"flow"`
	From string    `json:"from"`
	To   string    `json:"to"`
	AsOf time.Time `json:"as_of"` // when the source was seen so
	// SourceReachable says that the source answers. If it does not, the figures
	// are those of AsOf, when it did last, and what was written there since is
	// not in them.
	SourceReachable bool `json:"source_reachable"`
	// Complete says that all partitions of the flow are in it; without it, those
	// that other instances mirror are missing.
	Complete bool `json:"complete"`
	Lag

	Topics []TopicLag `json:"topics"`
}

// TopicLag is the lag of one topic.
type TopicLag struct {
	Topic  string `json:"topic"`  // on the source
	Target string `json:"target"` // its name on the target
	Lag

	// NewestMirrored is the greatest timestamp in the copy, where it is known.
	NewestMirrored *time.Time     `json:"newest_mirrored,omitempty"`
	Partitions     []PartitionLag `json:"partitions,omitempty"`
}

// PartitionLag is the lag of one partition.
type PartitionLag struct {
	Partition int32  `json:"partition"`
	State     string `json:"state,omitempty"` // as in PartitionStatus; empty when no daemon was asked
	Error     string `json:"error,omitempty"`
	SourceEnd int64  `json:"source_end"` // -1: not known
	// Mirrored is the source offset up to which everything is in the target; -1:
	// nothing is, or it is not known.
	Mirrored int64 `json:"mirrored"`
	Lag
}

// LagOf is the lag of a flow as its status has it now. source is its source
// cluster.
func LagOf(f FlowStatus, life string, source ClusterStatus, now time.Time) FlowLag {
	asOf := now
	if !source.Reachable {
		asOf = time.Time{}
		if source.LastSeen != nil {
			asOf = *source.LastSeen
		}
	}
	out := FlowLag{Flow: f.Name, From: f.From, To: f.To, AsOf: asOf, SourceReachable: source.Reachable, Complete: life != "" && f.Known, Topics: []TopicLag{}}
	for _, t := range f.Topics {
		topic := TopicLag{Topic: t.Source, Target: t.Target, NewestMirrored: t.NewestMirrored}
		for _, p := range t.Partitions {
			if p.Owner != "" && p.Owner != life {
				out.Complete = false
				continue
			}
			topic.Partitions = append(topic.Partitions, PartitionLag{
				Partition: p.Partition, State: p.State, Error: p.Error, SourceEnd: p.SourceEnd, Mirrored: p.Position, Lag: p.lag(),
			})
		}
		out.Topics = append(out.Topics, topic)
	}
	out.Total()
	return out
}

// Total adds the partitions of each topic up, and the topics.
func (f *FlowLag) Total() {
	for i := range f.Topics {
		t := &f.Topics[i]
		t.Lag = sumOf(t.Partitions, func(p PartitionLag) Lag { return p.Lag })
	}
	slices.SortFunc(f.Topics, func(a, b TopicLag) int { return cmp.Compare(a.Topic, b.Topic) })
	f.Lag = sumOf(f.Topics, func(t TopicLag) Lag { return t.Lag })
}

// Brief leaves out the partitions.
func (f *FlowLag) Brief() {
	for i := range f.Topics {
		f.Topics[i].Partitions = nil
	}
}

// lag is the same in the words of the lag.
func (p *PartitionStatus) lag() Lag {
	if p.LagRecords < 0 {
		return UnknownLag()
	}
	return Lag{Records: p.LagRecords, Bytes: p.LagBytes, BytesEstimated: p.LagBytesEstimated, Seconds: p.LagSeconds, Oldest: p.Oldest}
}
