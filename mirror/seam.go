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

// seamError says that the last batch of ours in the target is not what the
// source holds at the offsets it is said to carry.
type seamError struct {
	source, target string
	partition      int32
	sourceOffset   int64
	targetOffset   int64
	what           string
}

func (e *seamError) Error() string {
	return fmt.Sprintf("the seam does not fit: %s/%d at %d should carry source record %s/%d at %d, but %s; the source was truncated, re-created or restored, or the target was. "+
		"Nothing more is written. To mirror the source anew from its start, delete the target topic; to keep the copy as it is, exclude the topic",
		e.target, e.partition, e.targetOffset, e.source, e.partition, e.sourceOffset, e.what)
}

// checkSeam compares the last batch of ours with the source records that it is
// said to carry: offsets, timestamps, keys, values and headers. It catches what
// no bookkeeping can: a ledger that lost its own tail, a source created anew or
// rewound, a target restored from elsewhere.
//
// compared is false when the source no longer has those records; that is a
// doubt, not a pass, and the caller says so.
func checkSeam(ctx context.Context, source partitionReader, sourceTopic, targetTopic string, partition int32, last wire.Batch, carries []checkpoint.Run) (compared bool, err error) {
	if len(carries) == 0 {
		return false, nil
	}
	first, end := carries[0].Source, carries[len(carries)-1].Source+carries[len(carries)-1].Count
	start, err := source.ListOffset(ctx, sourceTopic, partition, atEarliest)
	if err != nil {
		return false, fmt.Errorf("read the start of %s/%d: %w", sourceTopic, partition, err)
	}
	fail := func(run checkpoint.Run, i int64, what string) error {
		return &seamError{sourceTopic, targetTopic, partition, run.Source + i, run.Target + i, what}
	}
	if start >= end {
		return false, nil
	}
	theirs, err := readRecords(ctx, source, sourceTopic, partition, max(first, start), end)
	if err != nil {
		return false, err
	}
	ours, err := last.Records(inflateLimit)
	if err != nil {
		return false, fmt.Errorf("read %s/%d at %d: %w", targetTopic, partition, last.BaseOffset(), err)
	}
	for _, run := range carries {
		for i := range run.Count {
			if run.Source+i < start {
				continue
			}
			mine, ok := at(ours, run.Target+i)
			if !ok { // the target compacted it away
				continue
			}
			his, ok := at(theirs, run.Source+i)
			if !ok { // the source compacted it away
				continue
			}
			if what := differ(mine, his, last.IsLogAppendTime()); what != "" {
				return true, fail(run, i, what)
			}
			compared = true
		}
	}
	return compared, nil
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

func at(recs []wire.Record, offset int64) (wire.Record, bool) {
	i, ok := slices.BinarySearchFunc(recs, offset, func(r wire.Record, o int64) int { return cmp.Compare(r.Offset, o) })
	if !ok {
		return wire.Record{}, false
	}
	return recs[i], true
}

// readRecords reads the records of [from, end).
func readRecords(ctx context.Context, c partitionReader, topic string, partition int32, from, end int64) ([]wire.Record, error) {
	var out []wire.Record
	keep := func(recs []wire.Record) {
		for _, r := range recs {
			if r.Offset >= from && r.Offset < end {
				out = append(out, r)
			}
		}
	}
	err := scan(ctx, c, topic, partition, from, end, keep, func(b wire.Batch) error {
		if b.IsControl() || b.NumRecords() == 0 {
			return nil
		}
		if err := b.CheckCRC(); err != nil {
			return err
		}
		recs, err := b.Records(inflateLimit)
		keep(recs)
		return err
	})
	return out, err
}

var _ partitionReader = (*kafka.Cluster)(nil)
