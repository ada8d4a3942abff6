package mirror

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"kmirror/checkpoint"
	"kmirror/internal/kafka"
	"kmirror/internal/wire"
)

// partitionReader is all that positions ask of a cluster; *kafka.Cluster has it.
type partitionReader interface {
	Fetch(ctx context.Context, topic string, partition int32, offset int64, maxBytes int32, readCommitted bool, maxWait time.Duration) (kafka.FetchResult, error)
	ListOffset(ctx context.Context, topic string, partition int32, timestamp int64) (int64, error)
}

const (
	atLatest   = -1 // ListOffsets
	atEarliest = -2
)

// standing is what a target partition says about itself: which of its batches
// are ours, and so where the source stands in it.
type standing struct {
	start   int64            // where the target's log begins
	end     int64            // the target's high watermark, up to which it was read
	last    wire.Batch       // the last batch of ours, if one is left
	carries []checkpoint.Run // what last carries
	void    bool             // the map says that the source no longer has what last carries: it was cut off
	lost    int64            // target offsets that the map knew and the target no longer has; 0 normally
	doubled []checkpoint.Run // what was in the target already when it was appended; none normally

	tail     tail  // what was read
	mapped   int64 // the target offset that the map as it was persisted reaches
	unmapped int   // batches of ours beyond that

	seen   map[checkpoint.Producer]bool  // epochs of ours with batches behind the end of the map
	doubt  bool                          // another batch stands where the map begins that the ledger still proves, so nobody knows what stands before it
	others map[checkpoint.Producer]int64 // idempotent writers that the ledger does not know, and where their last batch stands

	gap   int64 // target offsets of ours behind others of ours that are gone; 0 normally
	gapAt int64 // where these others stood
}

// sequences finds the place where a log lost batches of ours in its midst: an
// unclean election took the log's end, and a live producer's next batches were
// taken all the same by a leader that knew nothing of it. Compaction takes batches
// too, but leaves a hole in the offsets.
type sequences struct {
	next  int64 // the offset that follows without a hole
	some  bool  // a batch was seen
	ours  bool  // one of ours was
	holes int
	epoch map[checkpoint.Producer]*unbroken
}

type unbroken struct {
	last   int32 // sequence
	holes  int   // that there were then
	broken bool
}

// pass takes the next batch of the log, whoever wrote it.
func (s *sequences) pass(b wire.Batch) {
	if s.some && b.BaseOffset() > s.next {
		s.holes++
	}
	s.next, s.some = b.LastOffset()+1, true
}

// follows takes a batch of ours that was passed, and says whether nothing of its
// epoch is missing before it. Of the first one of ours that is seen, nobody can say.
func (s *sequences) follows(b wire.Batch) bool {
	if s.epoch == nil {
		s.epoch = map[checkpoint.Producer]*unbroken{}
	}
	who := checkpoint.Producer{ID: b.ProducerID(), Epoch: b.ProducerEpoch()}
	e := s.epoch[who]
	switch {
	case e == nil:
		e = &unbroken{broken: s.ours && b.BaseSequence() != 0 && s.holes == 0}
		s.epoch[who] = e
	case b.BaseSequence() != e.last+1 && s.holes == e.holes:
		e.broken = true
	}
	e.last, e.holes, s.ours = b.LastSequence(), s.holes, true
	return !e.broken
}

// stand reads where a target partition stands: the map as it is persisted,
// then every batch header from its end to the high watermark. A batch is ours
// if the ledger knows its producer id and epoch; its sequence says which source
// offsets it carries.
//
// The map known is changed: what it says about offsets that the target no longer
// has is cut off (the target lost its tail), and what the target holds beyond it
// is added.
//
// Source offsets go back in the target's log where a dead owner's request came
// after its successor had read the tail, and where the source lost records and
// its new ones are mirrored. An epoch that begins below what stands there is the
// newest owner's word: the map goes on with it. Anything else that goes back came
// late, and only stands there twice.
func stand(ctx context.Context, target partitionReader, topic string, partition int32, ledger *checkpoint.Ledger, known *checkpoint.Runs) (standing, error) {
	var st standing
	start, err := target.ListOffset(ctx, topic, partition, atEarliest)
	if err != nil {
		return st, fmt.Errorf("read the start of %s/%d: %w", topic, partition, err)
	}
	st.start = start
	if st.end, err = target.ListOffset(ctx, topic, partition, atLatest); err != nil {
		return st, fmt.Errorf("read the end of %s/%d: %w", topic, partition, err)
	}
	floor := proven(ledger, known, start)
	if st.lost, st.doubt, err = verify(ctx, target, topic, partition, start, floor, st.end, ledger, known); err != nil {
		return st, err
	}
	st.seen = map[checkpoint.Producer]bool{}
	_, mapped, ok := known.Mapped() // not its end: what was cut off the source stands between, and the seam stops at it
	if !ok {
		_, mapped, ok = known.End()
	}
	from := start
	if ok {
		from = max(from, mapped-1) // the last batch of ours is wanted for the seam
	}
	_, st.mapped, _ = known.End() // what stands between was cut off the source
	st.tail = tail{ledger: ledger, from: from, end: st.end, floor: floor}
	begun := map[checkpoint.Producer]bool{} // epochs that took the map back to their beginning
	err = st.tail.walk(ctx, target, topic, partition, func(b wire.Batch, runs []checkpoint.Run, follows bool) error {
		who := checkpoint.Producer{ID: b.ProducerID(), Epoch: b.ProducerEpoch()}
		if len(runs) == 0 {
			if !b.IsControl() && b.BaseSequence() >= 0 && len(st.others) < maxOthers {
				if st.others == nil {
					st.others = map[checkpoint.Producer]int64{}
				}
				st.others[who] = b.BaseOffset()
			}
			return nil
		}
		st.seen[who] = true
		if !follows { // what stood before it is gone: it is mirrored again, and this with it
			if st.gap == 0 {
				_, st.gapAt, _ = known.End()
			}
			st.gap += runs[len(runs)-1].Target + runs[len(runs)-1].Count - b.BaseOffset()
			return nil
		}
		st.last, st.carries = append(st.last[:0], b...), runs
		if st.void = b.BaseOffset() >= mapped && b.LastOffset() < st.mapped; b.LastOffset() >= st.mapped {
			st.unmapped++
		}
		err := complete(ledger, known, b)
		back := (*checkpoint.OrderError)(nil)
		if !errors.As(err, &back) {
			return err
		}
		if b.BaseSequence() != 0 || begun[who] {
			st.doubled = append(st.doubled, back.Run)
			return nil
		}
		begun[who] = true
		first := runs[0].Source
		end, _, _ := known.End()
		st.doubled = append(st.doubled, checkpoint.Run{Source: first, Target: b.BaseOffset(), Count: end - first})
		known.CutSource(first)
		return complete(ledger, known, b)
	})
	return st, err
}

// tail is the part of a target's log that is read for a position.
type tail struct {
	ledger    *checkpoint.Ledger
	from, end int64
	floor     int64 // see proven
}

// walk reads it: each batch with what it carries, nothing if it is not ours, and
// whether it follows on those of ours before it.
func (t tail) walk(ctx context.Context, target partitionReader, topic string, partition int32, fn func(b wire.Batch, carries []checkpoint.Run, follows bool) error) error {
	var order sequences
	return scan(ctx, target, topic, partition, t.from, t.end, func(b wire.Batch) error {
		order.pass(b)
		if b.LastOffset() < t.floor {
			return nil
		}
		carries, err := t.ledger.RunsFrom(b, t.floor)
		if err != nil {
			return err
		}
		return fn(b, carries, len(carries) > 0 && order.follows(b))
	})
}

// maxOthers bounds what is remembered of strangers.
const maxOthers = 10_000

func complete(ledger *checkpoint.Ledger, known *checkpoint.Runs, b wire.Batch) error {
	_, err := checkpoint.Complete(ledger, known, func(yield func(wire.Batch, error) bool) { yield(b, nil) })
	return err
}

// proven is the target offset from which on the ledger says what each batch of ours
// carries, start or behind it. What is mapped before was written by MirrorMaker 2,
// before mirroring began, or its anchors were deleted because the map holds it (see
// checkpoint.Housekeep): there the map is all there is.
func proven(ledger *checkpoint.Ledger, known *checkpoint.Runs, start int64) int64 {
	lowest, ok := ledger.Lowest()
	if !ok {
		return start
	}
	at := known.Forward(lowest)
	if at.Slack > 0 { // it lies somewhere between
		_, end, _ := known.End()
		at.Offset = max(at.Offset, end-max(0, end-at.Offset-at.Slack))
	}
	return max(start, at.Offset)
}

// verify cuts the map back to what the target still holds, and returns how many
// target offsets that was: beyond its end, and where another batch stands now,
// because the log lost its tail and has grown again. It is in doubt when that goes
// back to what the ledger does not prove, and retention did not take that.
func verify(ctx context.Context, target partitionReader, topic string, partition int32, start, floor, end int64, ledger *checkpoint.Ledger, known *checkpoint.Runs) (lost int64, doubt bool, err error) {
	_, was, ok := known.End()
	if !ok {
		return 0, false, nil
	}
	if was > end {
		known.CutTarget(end)
	}
	// Where the target is shorter than the map has it, what the map says about others
	// who wrote there before our last batches is not believed either: an answer that
	// named too great an offset says the same.
	ending := known.Mapped
	if _, _, some := known.Mapped(); some && was > end {
		ending = known.End
	}
	replaced := false
	for {
		source, mapped, some := ending()
		if !some || mapped <= start { // nothing, or retention took it
			break
		}
		if mapped <= floor {
			doubt = replaced || was > end && known.Forward(source).Slack > 0
			break
		}
		var at wire.Batch
		err := scan(ctx, target, topic, partition, mapped-1, mapped, func(b wire.Batch) error {
			if b.BaseOffset() < mapped && b.LastOffset() >= mapped-1 {
				at = append(at[:0], b...)
			}
			return nil
		})
		if err != nil {
			return 0, false, err
		}
		if len(at) == 0 { // compaction or retention took it; what is gone so was there
			break
		}
		carries, err := ledger.RunsFrom(at, floor)
		if err != nil {
			return 0, false, fmt.Errorf("read %s/%d at %d: %w", topic, partition, at.BaseOffset(), err)
		}
		if slices.ContainsFunc(carries, func(r checkpoint.Run) bool {
			return r.Target < mapped && r.Target+r.Count >= mapped && r.Source+mapped-r.Target == source
		}) {
			break
		}
		known.CutTarget(max(floor, at.BaseOffset()))
		replaced = true
	}
	_, mapped, _ := known.End()
	return max(0, was-mapped), doubt, nil
}

// nextSource is the source offset after the last record of ours that the target
// holds, by the completed map; not ok while nothing was ever mirrored.
func nextSource(known *checkpoint.Runs) (next int64, ok bool) {
	known.All(func(checkpoint.Run) bool { ok = true; return false })
	if ok {
		next, _, _ = known.End()
	}
	return next, ok
}
