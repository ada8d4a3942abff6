package checkpoint

import (
	"context"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"

	"golang.org/x/sync/errgroup"

	"kmirror/internal/wire"
)

// Index holds the offset maps of all flows into one target cluster, as far as
// they have been persisted, and follows MapTopic as it grows: on the instance
// that leads it stands at most a flush behind those that mirror. Safe for
// concurrent use.
type Index struct {
	target  Follower
	log     *slog.Logger
	ready   chan struct{}
	loading atomic.Int32 // partitions of MapTopic not yet read to their end
	skipped atomic.Int64

	caughtUp [MapPartitions]func() // constant after NewIndex; each counts loading down once

	mu     sync.RWMutex // guards the fields below
	maps   map[Key]*Runs
	topics map[topicName]incarnation
}

type topicName struct{ flow, topic string }

// incarnation is the present one of a source topic: the id that was paired
// last, or, as long as no pair is known, the one whose block came last.
type incarnation struct {
	id     [16]byte
	paired bool
	since  int64
}

// NewIndex makes an empty index; Run fills it.
func NewIndex(target Follower, log *slog.Logger) *Index {
	x := &Index{target: target, log: log, ready: make(chan struct{}), maps: make(map[Key]*Runs), topics: make(map[topicName]incarnation)}
	x.loading.Store(MapPartitions)
	for i := range x.caughtUp {
		x.caughtUp[i] = sync.OnceFunc(func() {
			if x.loading.Add(-1) == 0 {
				close(x.ready)
			}
		})
	}
	return x
}

// Ready is closed when all of MapTopic has been read once.
func (x *Index) Ready() <-chan struct{} { return x.ready }

// MapStats says how much an Index holds and has read.
type MapStats struct {
	Partitions int        // mirrored partitions with a map, of every incarnation
	Runs       int        // that their maps hold
	Memory     int64      // bytes that they take, about
	Records    int64      // of MapTopic that were read, those that were replaced since among them
	Skipped    int64      // of these, corrupt or foreign ones
	Faults     []MapFault // the first few of those
}

// MapFault is a record of MapTopic that could not be used.
type MapFault struct {
	Partition int32 // of MapTopic
	Offset    int64
	Reason    string
}

// Stats returns what is held and what was read so far.
func (x *Index) Stats() MapStats {
	x.mu.RLock()
	defer x.mu.RUnlock()
	s := MapStats{Partitions: len(x.maps), Skipped: x.skipped.Load()}
	for _, r := range x.maps {
		s.Runs += r.Len()
	}
	return s
}

// Run reads and follows MapTopic, which must exist, until ctx ends or a
// partition cannot be read. It may be run again.
func (x *Index) Run(ctx context.Context) error {
	all, ctx := errgroup.WithContext(ctx)
	for i := range int32(MapPartitions) {
		all.Go(func() error { return x.follow(ctx, i) })
	}
	return all.Wait()
}

func (x *Index) follow(ctx context.Context, partition int32) error {
	from, err := x.target.ListOffset(ctx, MapTopic, partition, earliest)
	if err == nil {
		err = x.target.Follow(ctx, MapTopic, partition, from, x.caughtUp[partition], x.take)
	}
	if err != nil && ctx.Err() == nil {
		return fmt.Errorf("follow %s/%d: %w", MapTopic, partition, err)
	}
	return nil
}

func (x *Index) take(rec wire.Record) error {
	what, err := Decode(rec)
	if err != nil {
		if x.skipped.Add(1) == 1 {
			x.log.Warn("skip a record of the offset map", slog.Any("error", err))
		}
		return nil
	}
	x.mu.Lock()
	defer x.mu.Unlock()
	switch what := what.(type) {
	case Block:
		runs := x.maps[what.Key]
		if runs == nil {
			runs = &Runs{}
			x.maps[what.Key] = runs
		}
		runs.Merge(what)
		name := topicName{what.Flow, what.Topic}
		if now := x.topics[name]; !now.paired {
			x.topics[name] = incarnation{id: what.TopicID}
		}
	case TopicPair:
		name := topicName{what.Flow, what.SourceTopic}
		if now := x.topics[name]; !now.paired || what.TimeMillis >= now.since {
			x.topics[name] = incarnation{id: what.SourceID, paired: true, since: what.TimeMillis}
		}
	case Deleted:
		if b, ok := what.Of.(Block); ok && !b.Open && x.maps[b.Key] != nil {
			x.maps[b.Key].drop(b)
		}
	}
	return nil
}

// Translate translates an offset of a source topic's present incarnation to
// the target. It is not ok when nothing is known about the partition.
func (x *Index) Translate(flow, sourceTopic string, partition int32, offset int64) (Translation, bool) {
	return x.locate(flow, sourceTopic, partition, func(r *Runs) Translation { return r.Forward(offset) })
}

// Invert translates an offset of the target back to the source topic's present
// incarnation.
func (x *Index) Invert(flow, sourceTopic string, partition int32, offset int64) (Translation, bool) {
	return x.locate(flow, sourceTopic, partition, func(r *Runs) Translation { return r.Backward(offset) })
}

// Through returns the offset of a source topic's present incarnation below which
// everything has been dealt with. It is not ok when nothing is known about the
// partition.
func (x *Index) Through(flow, sourceTopic string, partition int32) (int64, bool) {
	t, ok := x.locate(flow, sourceTopic, partition, func(r *Runs) Translation { return Translation{Offset: r.Through()} })
	return t.Offset, ok
}

func (x *Index) locate(flow, topic string, partition int32, in func(*Runs) Translation) (Translation, bool) {
	x.mu.RLock()
	defer x.mu.RUnlock()
	runs := x.runs(flow, topic, partition)
	if runs == nil {
		return Translation{}, false
	}
	t := in(runs)
	return t, t.Offset >= 0
}

// Runs returns a copy of the map of a source partition's present incarnation,
// nil when nothing is known about it.
func (x *Index) Runs(flow, sourceTopic string, partition int32) *Runs {
	x.mu.RLock()
	defer x.mu.RUnlock()
	if runs := x.runs(flow, sourceTopic, partition); runs != nil {
		return runs.Clone()
	}
	return nil
}

// runs is called with mu held.
func (x *Index) runs(flow, topic string, partition int32) *Runs {
	now, ok := x.topics[topicName{flow, topic}]
	if !ok {
		return nil
	}
	return x.maps[Key{Flow: flow, Topic: topic, TopicID: now.id, Partition: partition}]
}
