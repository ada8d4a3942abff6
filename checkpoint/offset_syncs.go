package checkpoint

import (
	"cmp"
	"context"
	"fmt"
	"log/slog"
	"slices"
	"time"

	"kmirror/internal/kafka"
	"kmirror/internal/wire"
	"kmirror/topology"
)

const (
	syncsEvery  = time.Second     // between two looks at the map
	syncsQuiet  = 5 * time.Second // after which a partition that moved on by a little gets its sync, too
	syncsAtOnce = 4096            // records of one look, about; what is left comes at the next
	syncsKept   = 1 << 20         // partitions that are kept in mind, at most, out of what stands in the topic
)

// OffsetSyncer writes MirrorMaker 2's offset syncs of one flow, for readers
// that translate by them. It follows the offset map, so it writes nothing that
// is not in the target, and what it writes never leads MirrorMaker 2's own
// translation past a record; see syncPoints. A partition gets a handful of
// records a second at most, however fast it is. Nothing is ever deleted.
type OffsetSyncer struct {
	flow    *topology.Flow
	maps    MapSource
	cluster SyncsCluster
	topic   *internalTopic
	log     *slog.Logger

	selected map[string]bool                  // by source topic; owned by Run
	read     bool                             // owned by Run: what stands in the topic is known
	written  map[kafka.TopicPartition]*synced // owned by Run
}

// MapSource is where an OffsetSyncer learns what is mirrored. *Index is one.
type MapSource interface {
	Ready() <-chan struct{}
	// Mapped lists the partitions of a flow of which something is mapped.
	Mapped(flow string) []Mapped
	// Runs returns a copy of the map of a partition, nil if there is none.
	Runs(flow, sourceTopic string, partition int32) *Runs
}

// Mapped is a partition of the present incarnation of a source topic, and the
// target offset that follows its last mirrored record.
type Mapped struct {
	Key
	TargetEnd  int64
	Generation uint32 // grows when what was mapped no longer holds
}

// SyncsCluster is what an OffsetSyncer asks of the cluster that it writes to,
// the source or the target. *kafka.Cluster is one.
type SyncsCluster interface {
	Appender
	Reader
	TopicMaker
}

// synced is what stands in the topic about a partition.
type synced struct {
	last   syncPoint
	origin uint64
	known  bool // last is there
	ours   bool // origin is there

	at   time.Time // when it was looked at last
	then Mapped    // as it was then; TargetEnd -1: never
}

// NewOffsetSyncer makes one that writes to cluster; Run starts it.
func NewOffsetSyncer(flow *topology.Flow, maps MapSource, cluster SyncsCluster, log *slog.Logger) *OffsetSyncer {
	return &OffsetSyncer{
		flow: flow, maps: maps, cluster: cluster, log: log,
		topic:    newInternalTopic(flow.OffsetSyncsTopic(), cluster, smallSegments(), log),
		selected: map[string]bool{}, written: map[kafka.TopicPartition]*synced{},
	}
}

// Skipped counts the records of the topic that could not be read.
func (s *OffsetSyncer) Skipped() int64 { return s.topic.skipped.Load() }

// Run writes until ctx ends, and returns nil. What fails is tried again.
func (s *OffsetSyncer) Run(ctx context.Context) error {
	select {
	case <-s.maps.Ready():
	case <-ctx.Done():
		return nil
	}
	again := retry{log: s.log, what: "write offset syncs"}
	tick := time.NewTicker(syncsEvery)
	defer tick.Stop()
	for {
		switch err := s.round(ctx, time.Now()); {
		case err == nil:
			again.success()
		case ctx.Err() == nil:
			s.forget()
			again.failure(ctx, err)
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return nil
		}
	}
}

// forget has all looked at anew: the topic may have been deleted, or the answer
// to a write was lost.
func (s *OffsetSyncer) forget() {
	s.topic.lost()
	s.read = false
}

// round writes what is due.
func (s *OffsetSyncer) round(ctx context.Context, now time.Time) error {
	if err := s.prepare(ctx); err != nil {
		return err
	}
	records := s.collect(now)
	if len(records) == 0 {
		return nil
	}
	if err := appendAll(ctx, s.cluster, s.topic.name, 0, records, func(int) {}); err != nil {
		return fmt.Errorf("write %s: %w", s.topic.name, err)
	}
	return nil
}

// prepare makes the topic and reads what stands there already.
func (s *OffsetSyncer) prepare(ctx context.Context) error {
	if err := s.topic.ensure(ctx); err != nil || s.read {
		return err
	}
	clear(s.written)
	err := s.topic.read(ctx, s.cluster, func(rec wire.Record) error {
		o, err := DecodeOffsetSync(rec)
		if err != nil {
			return err
		}
		at := kafka.TopicPartition{Topic: o.Topic, Partition: o.Partition}
		if s.written[at] == nil && (len(s.written) >= syncsKept || o.Partition < 0 || !s.flow.Selects(o.Topic)) {
			return nil // not ours
		}
		stands := &synced{last: syncPoint{o.Upstream, o.Downstream}, known: true, then: Mapped{TargetEnd: -1}}
		for _, h := range rec.Headers {
			if h.Key == syncHeader {
				stands.origin, stands.ours = readOrigin(h.Value)
			}
		}
		s.written[at] = stands
		return nil
	})
	s.read = err == nil
	return err
}

// collect returns the records that are due, those of the partitions that were
// not looked at for longest first.
func (s *OffsetSyncer) collect(now time.Time) []wire.Record {
	type due struct {
		Mapped
		*synced
	}
	var all []due
	for _, m := range s.maps.Mapped(s.flow.Name) {
		at := kafka.TopicPartition{Topic: m.Topic, Partition: m.Partition}
		stands := s.written[at]
		if stands == nil {
			if !s.selects(m.Topic) {
				continue
			}
			stands = &synced{then: Mapped{TargetEnd: -1}}
			s.written[at] = stands
		}
		if stands.due(m, now) {
			all = append(all, due{m, stands})
		}
	}
	slices.SortStableFunc(all, func(a, b due) int {
		return cmp.Or(a.at.Compare(b.at), cmp.Compare(a.Topic, b.Topic), cmp.Compare(a.Partition, b.Partition))
	})
	var records []wire.Record
	for _, d := range all {
		if len(records) >= syncsAtOnce {
			break
		}
		if runs := s.maps.Runs(s.flow.Name, d.Topic, d.Partition); runs != nil {
			records = append(records, d.write(d.Key, runs, now)...)
		}
		d.at, d.then = now, d.Mapped
	}
	return records
}

func (s *OffsetSyncer) selects(topic string) bool {
	selected, known := s.selected[topic]
	if !known {
		selected = s.flow.Selects(topic)
		s.selected[topic] = selected
	}
	return selected
}

// due reports whether a partition is to be looked at: at once when its map no
// longer holds or it moved on by much, after a while when by little.
func (s *synced) due(m Mapped, now time.Time) bool {
	switch {
	case m == s.then:
		return false
	case m.TopicID != s.then.TopicID, m.Generation != s.then.Generation, m.TargetEnd < s.then.TargetEnd, m.TargetEnd >= s.then.TargetEnd+offsetLagMax:
		return true
	default:
		return now.Sub(s.at) >= syncsQuiet
	}
}

// write returns what is to be written about a partition, and takes it as
// written.
func (s *synced) write(k Key, runs *Runs, now time.Time) []wire.Record {
	origin := syncOrigin(k, runs)
	if nothingMirrored(runs) {
		if _, end, _ := runs.End(); !s.known || s.ours && s.origin == originNothing && s.last.down == end-1 {
			return nil
		}
		origin = originNothing
	}
	anew := s.known && (s.ours && (s.origin != origin || origin == originNothing) || !s.ours && !s.last.holds(runs))
	var records []wire.Record
	for _, p := range syncPoints(runs, s.last, s.known, anew) {
		rec := EncodeOffsetSync(OffsetSync{Topic: k.Topic, Partition: k.Partition, Upstream: p.up, Downstream: p.down})
		rec.Timestamp = now.UnixMilli()
		rec.Headers = []wire.Header{{Key: syncHeader, Value: appendOrigin(origin)}}
		records = append(records, rec)
		s.last, s.known, s.ours, s.origin = p, true, true, origin
	}
	return records
}

// Mapped lists the partitions of a flow of which something is mapped.
func (x *Index) Mapped(flow string) []Mapped {
	parts := make(map[Key]*part)
	x.mu.RLock()
	for k, p := range x.parts {
		if k.Flow == flow && x.topics[topicName{k.Flow, k.Topic}].id == k.TopicID {
			parts[k] = p
		}
	}
	x.mu.RUnlock()
	var all []Mapped
	for k, p := range parts {
		p.read(func(r *Runs) {
			if _, end, ok := r.End(); ok {
				all = append(all, Mapped{Key: k, TargetEnd: end, Generation: r.generation})
			}
		})
	}
	return all
}
