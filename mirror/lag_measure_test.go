package mirror_test

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"

	"kmirror/internal/kafka"
	"kmirror/internal/wire"
	"kmirror/mirror"
	"kmirror/topology"
)

// sourceLog is one partition of a source: batches, and what it says of its ends.
type sourceLog struct {
	start, stable, end int64
	batches            []wire.Batch
}

// sources are partitions 0, 1, ... of the topic "t".
type sources []sourceLog

func (s sources) ListOffsets(_ context.Context, partitions map[string][]int32, timestamp int64) (map[string]map[int32]int64, error) {
	found := map[int32]int64{}
	var err error
	for _, id := range partitions["t"] {
		switch l := s[id]; {
		case l.end < 0:
			err = errors.Join(err, kerr.LeaderNotAvailable)
		case timestamp == kafka.Earliest:
			found[id] = l.start
		default:
			found[id] = l.end
		}
	}
	return map[string]map[int32]int64{"t": found}, err
}

func (s sources) Fetch(_ context.Context, _ string, partition int32, offset int64, _ int32, _ bool, _ time.Duration) (kafka.FetchResult, error) {
	l := s[partition]
	if offset < l.start {
		return kafka.FetchResult{Err: kerr.OffsetOutOfRange}, nil
	}
	result := kafka.FetchResult{HighWatermark: l.end, LastStable: l.stable, LogStart: l.start}
	for _, b := range l.batches {
		if b.LastOffset() >= offset && b.LastOffset() < l.stable {
			result.Records = append(result.Records, b...)
		}
	}
	return result, nil
}

// batchAt is a batch of n records at an offset.
func batchAt(t *testing.T, offset int64, n int, at time.Time) wire.Batch {
	t.Helper()
	var records []wire.Record
	for i := range n {
		records = append(records, wire.Record{Offset: offset + int64(i), Timestamp: at.UnixMilli(), Value: []byte("value")})
	}
	b, err := wire.EncodeBatch(nil, records, wire.BatchOptions{})
	if err != nil {
		t.Fatal(err)
	}
	b.SetBaseOffset(offset)
	return b
}

func TestMeasureLag(t *testing.T) {
	now := time.Date(2026, 1, 31, 12, 0, 0, 0, time.UTC)
	old := now.Add(-time.Minute)
	batch := func(offset int64, n int) wire.Batch { return batchAt(t, offset, n, old) }
	size := int64(len(batch(0, 10)))
	flow, err := topology.NewFlow("east", "west", nil)
	if err != nil {
		t.Fatal(err)
	}
	logs := sources{
		0: {stable: 10, end: 10, batches: []wire.Batch{batch(0, 10)}},                                     // in step
		1: {stable: 30, end: 30, batches: []wire.Batch{batch(10, 10), batch(20, 10)}},                     // all that is missing is read
		2: {stable: 1000, end: 1000, batches: []wire.Batch{batch(10, 10)}},                                // more is missing than is read
		3: {stable: 10, end: 500},                                                                         // an open transaction
		4: {start: 50, stable: 60, end: 60, batches: []wire.Batch{batch(50, 10)}},                         // retention was faster
		5: {start: 5, stable: 25, end: 25, batches: []wire.Batch{batch(5, 10), batch(15, 10)}},            // nothing is mirrored
		6: {end: -1},                                                                                      // no leader
		7: {stable: 20, end: 20, batches: []wire.Batch{batch(0, 20)}},                                     // mirrored up to the midst of a batch
		8: {stable: 40, end: 40, batches: []wire.Batch{[]byte("these bytes are no batch of any format")}}, // not readable
	}
	reach := mirror.Reach{"t": {0: 10, 1: 10, 2: 10, 3: 10, 4: 10, 5: -1, 6: 10, 7: 10, 8: 10}}
	found, err := mirror.MeasureLag(t.Context(), logs, flow, reach, now)
	if err == nil {
		t.Error("a partition without a leader is no error")
	}
	if _, ok := found["t"][6]; ok {
		t.Error("a partition without a leader has a lag")
	}
	for id, want := range map[int32]mirror.Lag{
		0: {},
		1: {Records: 20, Bytes: 2 * size, Seconds: 60},
		2: {Records: 990, Bytes: size * 99, BytesEstimated: true, Seconds: 60},
		3: {},
		4: {Records: 10, Bytes: size, Seconds: 60},
		5: {Records: 20, Bytes: 2 * size, Seconds: 60},
		7: {Records: 10, Bytes: int64(len(batch(0, 20))) / 2, BytesEstimated: true, Seconds: 60},
		8: {Records: 30, Bytes: -1, Seconds: -1},
	} {
		got := found["t"][id].Lag
		if got.Seconds > 0 != (got.Oldest != nil && got.Oldest.Equal(old)) {
			t.Errorf("partition %d: the oldest is of %v", id, got.Oldest)
		}
		if got.Oldest = nil; got != want {
			t.Errorf("partition %d: %+v, want %+v", id, got, want)
		}
	}
	if end := found["t"][3].SourceEnd; end != 10 {
		t.Errorf("with an open transaction the source ends at %d, want 10", end)
	}
}
