package mirror

import (
	"bytes"
	"context"
	"fmt"
	"strconv"

	"kmirror/checkpoint"
	"kmirror/internal/kafka"
	"kmirror/internal/wire"
)

// simStanding is where a record of the source stands in the target.
type simStanding struct {
	source, target int64
	batch          wire.Batch
	record         wire.Record
}

// standings reads a target partition as it was ever acknowledged.
func (w *simWorld) standings(p int32) (all []simStanding) {
	for _, b := range w.target(p).history {
		if b.IsControl() {
			continue
		}
		recs, err := b.Records(inflateLimit)
		if err != nil {
			panic(err)
		}
		for _, rec := range recs {
			if source, err := strconv.ParseInt(string(bytes.TrimPrefix(rec.Value, []byte("s"))), 10, 64); err == nil {
				all = append(all, simStanding{source, rec.Offset, b, rec})
			}
		}
	}
	return all
}

// through is the source offset after the last record in the target.
func (w *simWorld) through(p int32) int64 {
	through := int64(0)
	for _, s := range w.standings(p) {
		if s.target < w.target(p).hw {
			through = max(through, s.source+1)
		}
	}
	return through
}

// judge compares what there is with what there should be.
func (w *simWorld) judge() {
	for p := range int32(len(w.sources)) {
		if p == w.stuck {
			continue
		}
		if what := w.judgeRecords(p); what != "" {
			if !w.relaxed() || !w.told(p) {
				w.failf("partition %d: %s", p, what)
			}
			return
		}
		if what := w.judgeBooks(p); what != "" {
			if !w.relaxed() || !w.told(p) {
				w.failf("partition %d: %s", p, what)
			}
			return
		}
	}
}

// told says whether an incident speaks of what is wrong with a partition.
func (w *simWorld) told(p int32) bool {
	kinds := []string{KindTargetTruncated, KindDoubled, KindSeamMismatch, KindPositionDoubt, KindSourceTruncated, KindFenceLost}
	if !w.rules.uncompared {
		kinds = append(kinds, KindSeamUnverified)
	}
	return w.reported(p, kinds...)
}

// judgeRecords: every record of the source once, in order, unchanged.
func (w *simWorld) judgeRecords(p int32) string {
	got, want := w.standings(p), w.sources[p].want
	i := 0
	for _, s := range got {
		for i < len(want) && want[i].Offset < s.source && w.excused(p, want[i].Offset) {
			i++
		}
		switch {
		case i == len(want) || s.source < want[i].Offset:
			return fmt.Sprintf("source record %d stands again at target offset %d", s.source, s.target)
		case s.source > want[i].Offset:
			return fmt.Sprintf("source record %d is missing before target offset %d, where %d stands", want[i].Offset, s.target, s.source)
		case s.record.Timestamp != want[i].Timestamp || !bytes.Equal(s.record.Value, want[i].Value) || s.record.Key != nil:
			return fmt.Sprintf("source record %d was changed", s.source)
		}
		i++
	}
	for ; i < len(want); i++ {
		if !w.excused(p, want[i].Offset) {
			return fmt.Sprintf("source record %d is missing at the end", want[i].Offset)
		}
	}
	return ""
}

// excused says whether retention took a source record before it was mirrored,
// and an incident says so.
func (w *simWorld) excused(p int32, offset int64) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, in := range w.incidents {
		if in.Partition == p && in.Kind == KindRetentionLoss && in.SourceOffset <= offset && offset < in.SourceOffset+in.Count {
			return true
		}
	}
	return false
}

// simReader reads the target without a network.
type simReader struct{ world *simWorld }

func (r simReader) ListOffset(_ context.Context, topic string, partition int32, timestamp int64) (int64, error) {
	log := r.world.logs[kafka.TopicPartition{Topic: topic, Partition: partition}]
	if timestamp == atLatest {
		return log.hw, nil
	}
	return log.start, nil
}

func (r simReader) Read(_ context.Context, topic string, partition int32, from int64, fn func(wire.Record) error) (int64, error) {
	log := r.world.logs[kafka.TopicPartition{Topic: topic, Partition: partition}]
	for _, b := range log.batches {
		if b.IsControl() || b.LastOffset() >= log.hw {
			continue
		}
		recs, err := b.Records(inflateLimit)
		if err != nil {
			return from, err
		}
		for _, rec := range recs {
			if err := fn(rec); err != nil {
				return from, err
			}
		}
	}
	return log.hw, nil
}

// loaded is what the target holds about a partition.
func (w *simWorld) loaded(p int32) (checkpoint.Loaded, error) {
	key := checkpoint.Key{Flow: w.flow.Name, Topic: "s", TopicID: [16]byte{1}, Partition: p}
	all, err := checkpoint.LoadPartitions(context.Background(), simReader{w}, key.MapPartition(), []checkpoint.Key{key})
	return all[key], err
}

// judgeBooks: what ledger and map say is true.
func (w *simWorld) judgeBooks(p int32) string {
	loaded, err := w.loaded(p)
	if err != nil {
		return err.Error()
	}
	got := w.standings(p)
	floor := proven(loaded.Ledger, loaded.Runs, w.target(p).start)
	for _, s := range got {
		if w.faults.ledgerLoss {
			break // it has lost entries, so it cannot know
		}
		if w.house != nil && s.target < floor {
			continue // nor what was deleted
		}
		runs, err := loaded.Ledger.RunsFrom(s.batch, floor)
		if err != nil {
			return fmt.Sprintf("the ledger does not know target offset %d: %v", s.target, err)
		}
		if !covers(runs, s) {
			return fmt.Sprintf("the ledger says that the batch at target offset %d carries %v, and source record %d stands at %d", s.batch.BaseOffset(), runs, s.source, s.target)
		}
	}
	// The map as it was persisted must not lie; completed, it must say all.
	check := func(whole bool) string {
		for _, s := range got {
			at := loaded.Runs.Forward(s.source)
			switch {
			case at.Exact && at.Shortfall == 0 && s.target >= w.target(p).start && at.Offset != s.target && !atEnd(loaded.Runs, s.source):
				return fmt.Sprintf("the map translates source offset %d to %+v, and it stands at %d", s.source, at, s.target)
			case whole && s.target >= w.target(p).start && (!at.Exact || at.Offset != s.target):
				return fmt.Sprintf("the completed map translates source offset %d to %+v, and it stands at %d", s.source, at, s.target)
			}
		}
		return ""
	}
	if what := check(false); what != "" {
		return what
	}
	_, mapped, _ := loaded.Runs.End()
	if w.faults.ledgerLoss {
		return ""
	}
	for _, b := range w.target(p).batches {
		if b.LastOffset() < mapped {
			continue
		}
		if err := complete(loaded.Ledger, loaded.Runs, b); err != nil {
			return fmt.Sprintf("the map cannot be completed: %v", err)
		}
	}
	return check(true)
}

// atEnd says whether a source offset lies at or beyond the end of a map.
func atEnd(runs *checkpoint.Runs, source int64) bool {
	end, _, ok := runs.End()
	return !ok || source >= end
}

func covers(runs []checkpoint.Run, s simStanding) bool {
	for _, r := range runs {
		if i := s.target - r.Target; i >= 0 && i < r.Count && r.Source+i == s.source {
			return true
		}
	}
	return false
}
