package mirror

import (
	"bytes"
	"cmp"
	"context"
	"fmt"
	"slices"

	"kmirror/checkpoint"
	"kmirror/internal/kafka"
	"kmirror/internal/wire"
)

// seamError says that a batch of ours in the target is not what the source holds at
// the offsets it is said to carry.
type seamError struct {
	source, target string
	partition      int32
	sourceOffset   int64
	targetOffset   int64
	what           string
}

func (e *seamError) Error() string {
	return fmt.Sprintf("the seam does not fit: %s/%d at %d should carry source record %s/%d at %d, but %s; the source was truncated, re-created or restored, or the target was, or the ledger lost its end. "+
		"Nothing more is written. To mirror the source anew from its start, delete the target topic; to keep the copy as it is, exclude the topic",
		e.target, e.partition, e.targetOffset, e.source, e.partition, e.sourceOffset, e.what)
}

// seam compares batches of ours with the source records that they are said to carry:
// offsets, timestamps, keys, values and headers. It catches what no bookkeeping can:
// a ledger that lost its end, a source created anew or rewound, a target restored
// from elsewhere. Batches in the order of the source cost one reading of it.
type seam struct {
	source    *cursor
	target    string
	partition int32
	start     int64 // of the source's log
}

// compare returns the runs of a batch of which nobody can say whether they are true,
// because the source no longer has their last record: what is lost of a ledger are
// steps, and behind one all source offsets are greater than they seem, so that the
// last record of a run speaks for those before it. What differs is a *seamError.
func (s *seam) compare(ctx context.Context, b wire.Batch, carries []checkpoint.Run) (open []checkpoint.Run, err error) {
	if same, err := s.whole(ctx, b, carries); err != nil || same {
		return nil, err
	}
	var ours []wire.Record
	for _, run := range carries {
		if run.Source+run.Count <= s.start {
			open = append(open, run)
			continue
		}
		if ours == nil {
			if ours, err = b.Records(inflateLimit); err != nil {
				return nil, fmt.Errorf("read %s/%d at %d: %w", s.target, s.partition, b.BaseOffset(), err)
			}
		}
		last := false
		for _, mine := range between(ours, run.Target, run.Target+run.Count) {
			offset := run.Source + mine.Offset - run.Target
			if offset < s.start {
				continue
			}
			what, compared, err := s.against(ctx, mine, offset, b.IsLogAppendTime())
			if err != nil {
				return nil, err
			}
			if what != "" {
				return nil, &seamError{s.source.topic, s.target, s.partition, offset, mine.Offset, what}
			}
			last = compared && mine.Offset == run.Target+run.Count-1
		}
		if !last {
			open = append(open, run)
		}
	}
	return open, nil
}

// whole says whether a batch is one of the source's as it is: then it need not be
// opened.
func (s *seam) whole(ctx context.Context, b wire.Batch, carries []checkpoint.Run) (bool, error) {
	if len(carries) != 1 || carries[0].Target != b.BaseOffset() || carries[0].Target+carries[0].Count != b.LastOffset()+1 || carries[0].Source < s.start {
		return false, nil
	}
	his, err := s.source.at(ctx, carries[0].Source)
	if err != nil || his == nil || his.batch == nil {
		return false, err
	}
	const origin = ^int16(0x10) // but for whether it is transactional
	from := his.batch
	return from.BaseOffset() == carries[0].Source && from.LastOffsetDelta() == b.LastOffsetDelta() && from.NumRecords() == b.NumRecords() &&
		from.Attributes()&origin == b.Attributes()&origin && from.BaseTimestamp() == b.BaseTimestamp() && from.MaxTimestamp() == b.MaxTimestamp() &&
		bytes.Equal(from[wire.BatchHeaderSize:], b[wire.BatchHeaderSize:]), nil
}

// against compares a record of the target with the one that the source has at an
// offset. It is not compared where compaction took that.
func (s *seam) against(ctx context.Context, mine wire.Record, offset int64, stamped bool) (what string, compared bool, err error) {
	his, err := s.source.at(ctx, offset)
	if err != nil || his == nil || his.first > offset {
		return "", false, err
	}
	if his.batch != nil && his.batch.IsControl() {
		return "the source has a transaction's marker there", true, nil
	}
	theirs, err := his.open()
	if err != nil {
		return "", false, fmt.Errorf("read %s/%d: %w", s.source.topic, s.partition, err)
	}
	i, found := slices.BinarySearchFunc(theirs, offset, byOffset)
	if !found {
		return "", false, nil
	}
	return differ(mine, theirs[i], stamped), true, nil
}

// differ says in what two records are not the same; "" when they are. The
// target's own stamps (message.timestamp.type=LogAppendTime) prove nothing.
func differ(target, source wire.Record, stamped bool) string {
	switch {
	case !stamped && target.Timestamp != source.Timestamp:
		return fmt.Sprintf("the timestamps are %d and %d", target.Timestamp, source.Timestamp)
	case !bytes.Equal(target.Key, source.Key) || (target.Key == nil) != (source.Key == nil):
		return "the keys differ"
	case !bytes.Equal(target.Value, source.Value) || (target.Value == nil) != (source.Value == nil):
		return "the values differ"
	case !slices.EqualFunc(target.Headers, source.Headers, func(a, b wire.Header) bool {
		return a.Key == b.Key && bytes.Equal(a.Value, b.Value)
	}):
		return "the headers differ"
	}
	return ""
}

func byOffset(r wire.Record, offset int64) int { return cmp.Compare(r.Offset, offset) }

// between returns the records of [from, end).
func between(recs []wire.Record, from, end int64) []wire.Record {
	i, _ := slices.BinarySearchFunc(recs, from, byOffset)
	j, _ := slices.BinarySearchFunc(recs, end, byOffset)
	return recs[i:j]
}

// provenLedgers reads of a partition of the offset map's topic what of each ledger was
// written under its present leader: nothing of that can have been lost in an
// election, and where a step stands in it, all that were written later do too.
// Ledgers are empty where the leader does not say which of its epochs it is.
func provenLedgers(target takeoverTarget) func(ctx context.Context, mapPartition int32, keys []checkpoint.Key) (map[checkpoint.Key]checkpoint.Loaded, error) {
	return func(ctx context.Context, mapPartition int32, keys []checkpoint.Key) (map[checkpoint.Key]checkpoint.Loaded, error) {
		none := func() map[checkpoint.Key]checkpoint.Loaded {
			all := make(map[checkpoint.Key]checkpoint.Loaded, len(keys))
			for _, k := range keys {
				all[k] = checkpoint.Loaded{Ledger: &checkpoint.Ledger{}}
			}
			return all
		}
		start, err := target.ListOffset(ctx, checkpoint.MapTopic, mapPartition, atEarliest)
		if err != nil {
			return nil, fmt.Errorf("read the start of %s/%d: %w", checkpoint.MapTopic, mapPartition, err)
		}
		end, err := target.ListOffset(ctx, checkpoint.MapTopic, mapPartition, atLatest)
		if err != nil {
			return nil, fmt.Errorf("read the end of %s/%d: %w", checkpoint.MapTopic, mapPartition, err)
		}
		all, epoch := none(), int32(-1)
		err = scan(ctx, target, checkpoint.MapTopic, mapPartition, start, end, func(b wire.Batch) error {
			if b.LeaderEpoch() > epoch {
				all, epoch = none(), b.LeaderEpoch()
			}
			if b.IsControl() || b.NumRecords() == 0 {
				return nil
			}
			recs, err := b.Records(inflateLimit)
			if err != nil {
				return err
			}
			for _, rec := range recs {
				what, _ := checkpoint.Decode(rec) // what is not ours says nothing
				if a, ok := what.(checkpoint.Anchor); ok && all[a.Key].Ledger != nil {
					all[a.Key].Ledger.Add(a)
				}
			}
			return nil
		})
		if err != nil {
			return nil, err
		}
		// Asked last: an election while the ledger was read shows as a later epoch.
		now, err := target.LeaderEpoch(ctx, checkpoint.MapTopic, mapPartition)
		if err != nil {
			return nil, fmt.Errorf("ask for the leader epoch of %s/%d: %w", checkpoint.MapTopic, mapPartition, err)
		}
		if now < 0 || now != epoch {
			all = none()
		}
		return all, nil
	}
}

// unproven returns those of the runs that the ledger does not say of a batch.
func unproven(ledger *checkpoint.Ledger, b wire.Batch, floor int64, runs []checkpoint.Run) []checkpoint.Run {
	carries, err := ledger.RunsFrom(b, floor)
	return slices.DeleteFunc(runs, func(r checkpoint.Run) bool {
		return err == nil && slices.Contains(carries, r)
	})
}

var _ takeoverTarget = (*kafka.Cluster)(nil)
