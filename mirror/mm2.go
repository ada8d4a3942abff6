package mirror

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"kmirror/checkpoint"
	"kmirror/internal/mm2"
	"kmirror/internal/wire"
	"kmirror/topology"
)

// heir finds where a partition goes on that kmirror never mirrored, because
// MirrorMaker 2 did. It is not begun where there is nothing to go on from. runs takes
// in what is known of the records that MirrorMaker 2 copied; it is empty.
type heir func(ctx context.Context, id partitionID, pair *topicPair, runs *checkpoint.Runs, st standing) (next int64, begun bool, err error)

// mm2Heir takes over from MirrorMaker 2 (start: mirrormaker2).
//
// The position that it stored says what the target certainly holds; what else it holds,
// because MirrorMaker 2 was killed, is found by laying the end of the target's log
// against the source (see mm2.Align), from the newest offset sync on that can be
// verified, or else from a place that is looked for further and further back. Where
// that proves nothing the partition stops, and the operator may accept to go on behind
// the stored position: then nothing is missed, and what is copied beyond stands twice.
//
// Nothing is written here. What was decided is fixed by the anchor of the first epoch
// and the runs that go with it, in one batch; whoever dies before that decides again.
type mm2Heir struct {
	cfg     func() *topology.Flow
	source  partitionReader
	target  partitionReader
	legacy  func(ctx context.Context) (*mm2Legacy, error)
	decide  func(id partitionID, goOn bool, in Incident) error
	log     *slog.Logger
	reading chan struct{} // who compares: its capacity bounds how many do at once
}

func newMM2Heir(f *flow) *mm2Heir {
	return &mm2Heir{
		cfg: f.cfg, source: f.source, target: f.target, legacy: newMM2Store(f.cfg, f.source, f.target, f.log).get,
		decide: f.takeover.decide, log: f.log, reading: make(chan struct{}, mm2Comparing),
	}
}

// mm2Comparing is how many partitions of a flow are compared at once.
const mm2Comparing = 4

// mm2Still is how long the end of the target's log must not move: a MirrorMaker 2 that
// nobody sees among the groups is seen by what it writes.
const mm2Still = time.Second

// inherit is a heir.
func (h *mm2Heir) inherit(ctx context.Context, id partitionID, pair *topicPair, runs *checkpoint.Runs, st standing) (next int64, begun bool, err error) {
	if h.cfg().StartFor(id.Topic).Kind != topology.MirrorMaker2 {
		return 0, false, nil
	}
	began := time.Now()
	legacy, err := h.legacy(ctx)
	if err != nil {
		return 0, false, err
	}
	at := mm2.Partition{Topic: id.Topic, Partition: id.Partition}
	c := &comparison{
		heir: h, id: id, syncs: legacy.syncs[at],
		source: logReader{from: h.source, topic: id.Topic, partition: id.Partition, undecided: true},
		target: logReader{from: h.target, topic: pair.targetName, partition: id.Partition},
		start:  st.start, end: st.end,
	}
	if c.syncs == nil {
		c.syncs = &mm2.Syncs{}
	}
	stored, ok := legacy.positions.Stored(at)
	if !ok {
		return 0, false, c.unstored(ctx)
	}
	place, err := c.settle(ctx, stored, runs)
	if err != nil {
		return 0, false, err
	}
	if err := c.still(ctx, began); err != nil {
		return 0, false, err
	}
	h.log.Info("goes on where MirrorMaker 2 stopped", slog.String("topic", id.Topic), slog.Int("partition", int(id.Partition)),
		slog.Int64("stored", stored), slog.Int64("from", place.Next), slog.Int64("copied_beyond", max(0, place.Next-stored-1)), slog.Int64("doubled_by_mirrormaker2", place.Again))
	return place.Next, true, nil
}

// settle compares, in its turn, and takes into runs what came of it.
func (c *comparison) settle(ctx context.Context, stored int64, runs *checkpoint.Runs) (mm2.Place, error) {
	select {
	case c.heir.reading <- struct{}{}:
		defer func() { <-c.heir.reading }()
	case <-ctx.Done():
		return mm2.Place{}, ctx.Err()
	}
	place, err := c.place(ctx, stored)
	if err != nil {
		return place, c.explain(err)
	}
	return place, c.bequeath(ctx, runs, place)
}

// bequest is what the map holds of MirrorMaker 2's records, to be written in one
// batch with the anchor of the first epoch: a map that began with the anchor alone
// would send older groups past records that they have not read.
func (w *witness) bequest(key checkpoint.Key, runs *checkpoint.Runs) []wire.Record {
	if !w.inherited {
		return nil
	}
	var records []wire.Record
	for _, block := range runs.Unsaved(key) {
		records = append(records, checkpoint.EncodeBlock(block))
	}
	return records
}

// unstored is about a partition of which MirrorMaker 2 stored nothing.
func (c *comparison) unstored(ctx context.Context) error {
	some := int64(-1)
	err := c.target.read(ctx, c.start, c.end, func(x mm2.Record) bool {
		if !x.Aborted {
			some = x.Offset
		}
		return some < 0
	})
	if limit := (*tailLimitError)(nil); errors.As(err, &limit) { // nothing but aborted ones so far
		some, err = c.start, nil
	}
	switch {
	case err != nil:
		return c.explain(err)
	case some < 0:
		c.heir.log.Info("MirrorMaker 2 has copied nothing of it: it begins at its first record", slog.String("topic", c.id.Topic), slog.Int("partition", int(c.id.Partition)))
		return nil
	}
	cfg := c.heir.cfg()
	in := about(c.id, KindTakeoverUnproven, fmt.Sprintf("target %s/%d holds records and MirrorMaker 2 has stored no position for %s/%d (%s on the target, connector %s, cluster %s): who wrote them?",
		c.target.topic, c.id.Partition, c.id.Topic, c.id.Partition, cfg.MirrorMaker2.OffsetsTopic, cfg.MirrorMaker2.Connector, cfg.From), "")
	in.TargetOffset = some
	return c.heir.decide(c.id, false, in)
}

// explain turns what the comparison met into what is done about it; nil: the operator
// accepted it.
func (c *comparison) explain(err error) error {
	if _, undecided := errors.AsType[*undecidedError](err); undecided {
		return &waitError{fmt.Sprintf("target %s/%d: %v; mirroring goes on by itself when MirrorMaker 2's transaction has timed out", c.target.topic, c.id.Partition, err)}
	}
	return err
}

// still says whether the target's log has stood still since it was read.
func (c *comparison) still(ctx context.Context, began time.Time) error {
	if c.start < c.end {
		timer := time.NewTimer(max(0, mm2Still-time.Since(began)))
		defer timer.Stop()
		select {
		case <-timer.C:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	end, err := c.target.from.ListOffset(ctx, c.target.topic, c.id.Partition, atLatest)
	if err != nil {
		return fmt.Errorf("read the end of %s/%d: %w", c.target.topic, c.id.Partition, err)
	}
	if end != c.end {
		return &waitError{fmt.Sprintf("target %s/%d grows (%d, then %d): MirrorMaker 2, or something else, still writes there; stop it first", c.target.topic, c.id.Partition, c.end, end)}
	}
	return nil
}
