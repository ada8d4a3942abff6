package checkpoint

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"sync/atomic"

	"golang.org/x/sync/errgroup"

	"kmirror/internal/wire"
)

// Index holds the offset maps of all flows into one target cluster, as far as
// they have been persisted, and follows MapTopic as it grows: on the instance
// that leads it stands at most a flush behind those that mirror. Safe for
// concurrent use. A block that continues its map, as nearly all do, is taken in
// as it comes; others wait until somebody asks for the partition.
type Index struct {
	target  Follower
	log     *slog.Logger
	ready   chan struct{}
	loading atomic.Int32 // partitions of MapTopic not yet read to their end

	caughtUp [MapPartitions]func() // constant after NewIndex; each counts loading down once
	records  atomic.Int64
	faults   faultList

	mu     sync.RWMutex // guards the fields below; is not held while one of a part is waited for
	parts  map[Key]*part
	topics map[topicName]incarnation
	wrote  producersOf
}

// part is the map of one mirrored partition.
type part struct {
	mu      sync.Mutex // guards the fields below
	runs    Runs
	waiting []Block // that do not simply continue runs
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
	x := &Index{target: target, log: log, ready: make(chan struct{}), parts: make(map[Key]*part), topics: make(map[topicName]incarnation), wrote: producersOf{}}
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
		d := newDecoder()
		err = x.target.Follow(ctx, MapTopic, partition, from, x.caughtUp[partition], func(rec wire.Record) error {
			x.take(partition, d, rec)
			return nil
		})
	}
	if err != nil && ctx.Err() == nil {
		return fmt.Errorf("follow %s/%d: %w", MapTopic, partition, err)
	}
	return nil
}

// take takes a record in. What d decoded is its own until the next one.
func (x *Index) take(partition int32, d *decoder, rec wire.Record) {
	x.records.Add(1)
	what, err := d.decode(rec)
	if err != nil {
		fault := MapFault{Partition: partition, Offset: rec.Offset, Reason: err.Error()}
		if format := (*FormatError)(nil); errors.As(err, &format) {
			fault.Reason = format.Reason
		}
		if x.faults.add(fault) {
			x.log.Warn("skip a record of the offset map", slog.Int("map_partition", int(partition)), slog.Any("error", err))
		}
		return
	}
	switch what := what.(type) {
	case *Block:
		x.part(what.Key).take(*what)
	case Anchor, Writer, Owner, Provenance:
		x.writes(what)
	case TopicPair:
		name := topicName{what.Flow, what.SourceTopic}
		x.mu.Lock()
		defer x.mu.Unlock()
		if now := x.topics[name]; !now.paired || what.TimeMillis >= now.since {
			x.topics[name] = incarnation{id: what.SourceID, paired: true, since: what.TimeMillis}
		}
	case Deleted:
		b, ok := what.Of.(Block)
		if !ok || b.Open {
			return
		}
		x.mu.RLock()
		p := x.parts[b.Key]
		x.mu.RUnlock()
		if p != nil {
			p.read(func(r *Runs) { r.drop(b) })
		}
	}
}

// maxWaiting bounds the blocks of a partition that wait to be merged, together
// with the number that are, so that reading n of them takes time near n.
const maxWaiting = 64

// take takes a block in, and does not keep its memory.
func (p *part) take(b Block) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.runs.follow(b) {
		return
	}
	b.Runs = slices.Clone(b.Runs)
	if p.waiting = append(p.waiting, b); len(p.waiting) > maxWaiting+len(p.runs.chunks) {
		p.settle()
	}
}

// read calls fn with the map as all blocks that were taken make it.
func (p *part) read(fn func(*Runs)) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.settle()
	fn(&p.runs)
}

// settle is called with mu held.
func (p *part) settle() {
	if len(p.waiting) > 0 {
		p.runs.Merge(p.waiting...)
		p.waiting = nil
	}
}

// part returns the map of a partition of which a block came.
func (x *Index) part(k Key) *part {
	name := topicName{k.Flow, k.Topic}
	x.mu.RLock()
	p, now := x.parts[k], x.topics[name]
	x.mu.RUnlock()
	if p != nil && (now.paired || now.id == k.TopicID) {
		return p
	}
	x.mu.Lock()
	defer x.mu.Unlock()
	if p == nil {
		p = &part{}
		x.parts[k] = p
	}
	if now := x.topics[name]; !now.paired {
		x.topics[name] = incarnation{id: k.TopicID}
	}
	return p
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

// Behind returns the offset of a source topic's present incarnation behind the last
// record that is known to stand before an offset of the target. It is not ok when
// nothing is known about the partition.
func (x *Index) Behind(flow, sourceTopic string, partition int32, offset int64) (int64, bool) {
	t, ok := x.locate(flow, sourceTopic, partition, func(r *Runs) Translation { return Translation{Offset: r.Behind(offset)} })
	return t.Offset, ok
}

func (x *Index) locate(flow, topic string, partition int32, in func(*Runs) Translation) (t Translation, ok bool) {
	if p := x.present(flow, topic, partition); p != nil {
		p.read(func(r *Runs) { t = in(r) })
		return t, t.Offset >= 0
	}
	return t, false
}

// Runs returns a copy of the map of a source partition's present incarnation,
// nil when nothing is known about it.
func (x *Index) Runs(flow, sourceTopic string, partition int32) (runs *Runs) {
	if p := x.present(flow, sourceTopic, partition); p != nil {
		p.read(func(r *Runs) { runs = r.Clone() })
	}
	return runs
}

func (x *Index) present(flow, topic string, partition int32) *part {
	x.mu.RLock()
	defer x.mu.RUnlock()
	now, ok := x.topics[topicName{flow, topic}]
	if !ok {
		return nil
	}
	return x.parts[Key{Flow: flow, Topic: topic, TopicID: now.id, Partition: partition}]
}
