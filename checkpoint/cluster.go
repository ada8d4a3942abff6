package checkpoint

import (
	"context"
	"errors"
	"log/slog"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"

	"kmirror/internal/kafka"
	"kmirror/internal/wire"
)

// Appender writes records to a partition: one batch, acknowledged by all
// in-sync replicas, tried again until ctx ends where that can help. Safe for
// concurrent use; it does not keep the records. *kafka.Cluster is one.
type Appender interface {
	Append(ctx context.Context, topic string, partition int32, records []wire.Record) (base int64, err error)
}

// Reader reads a partition once, from an offset to the high watermark at the
// start. The record given to fn is only valid during the call, unless it is
// kept whole. Safe for concurrent use. *kafka.Cluster is one.
type Reader interface {
	// ListOffset returns the earliest offset for timestamp -2, and the high
	// watermark for -1.
	ListOffset(ctx context.Context, topic string, partition int32, timestamp int64) (int64, error)
	Read(ctx context.Context, topic string, partition int32, from int64, fn func(wire.Record) error) (next int64, err error)
}

// Fetcher fetches the raw batches of a partition from its leader. *kafka.Cluster is
// one.
type Fetcher interface {
	Fetch(ctx context.Context, topic string, partition int32, offset int64, maxBytes int32, readCommitted bool, maxWait time.Duration) (kafka.FetchResult, error)
}

// Follower reads a partition for as long as ctx lives, and calls caughtUp when
// it reaches the end for the first time. *kafka.Cluster is one.
type Follower interface {
	ListOffset(ctx context.Context, topic string, partition int32, timestamp int64) (int64, error)
	Follow(ctx context.Context, topic string, partition int32, from int64, caughtUp func(), fn func(wire.Record) error) error
}

// GroupCluster carries requests about groups. *kafka.Cluster is one.
type GroupCluster interface {
	// Request asks any broker.
	Request(ctx context.Context, req kmsg.Request) (kmsg.Response, error)
	RequestBroker(ctx context.Context, broker int32, req kmsg.Request) (kmsg.Response, error)
}

const earliest = -2

// batchBytes is how much one batch to an internal topic takes at most, unless
// a single record is larger; topics take 1 MiB by default.
const batchBytes = 512 << 10

// cut returns how many of the records make one batch of at most limit bytes.
func cut(records []wire.Record, limit int) int {
	size := 0
	for i, rec := range records {
		size += len(rec.Key) + len(rec.Value) + 32
		for _, h := range rec.Headers {
			size += len(h.Key) + len(h.Value) + 8
		}
		if size > limit && i > 0 {
			return i
		}
	}
	return len(records)
}

// appendAll writes records in as few batches as will do, in order, and calls
// each with the number of records of every batch that is in. What a topic
// refuses as too large is sent in smaller batches.
func appendAll(ctx context.Context, to Appender, topic string, partition int32, records []wire.Record, each func(n int)) error {
	limit := batchBytes
	for len(records) > 0 {
		n := cut(records, limit)
		_, err := to.Append(ctx, topic, partition, records[:n])
		switch {
		case err == nil:
			each(n)
			records = records[n:]
		case n > 1 && (errors.Is(err, kerr.MessageTooLarge) || errors.Is(err, kerr.RecordListTooLarge)):
			limit /= 2
		default:
			return err
		}
	}
	return nil
}

// retry is the pause between attempts that failed for a reason which Append
// does not wait out: rights, a topic that is gone. It logs the first of a row.
type retry struct {
	log    *slog.Logger
	what   string
	failed int
}

// failure notes an error and waits, longer every time.
func (r *retry) failure(ctx context.Context, err error) {
	pause := min(5*time.Second, 100*time.Millisecond<<min(r.failed, 10))
	r.note(err)
	timer := time.NewTimer(pause)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-ctx.Done():
	}
}

// note logs the first failure of a row and the end of the row.
func (r *retry) note(err error) {
	if err == nil {
		r.success()
		return
	}
	if r.failed == 0 {
		r.log.Warn("failed; trying again", slog.String("step", r.what), slog.Any("error", err))
	}
	r.failed++
}

func (r *retry) success() {
	if r.failed > 0 {
		r.log.Info("goes on", slog.String("step", r.what), slog.Int("attempts", r.failed))
	}
	r.failed = 0
}
