package mirror

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strconv"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"

	"kmirror/internal/wire"
)

// Headers of a dead letter, behind the record's own.
const (
	letterCause     = "kmirror.cause"
	letterFlow      = "kmirror.flow"
	letterTopic     = "kmirror.source.topic"
	letterPartition = "kmirror.source.partition"
	letterOffset    = "kmirror.source.offset"
	letterTimestamp = "kmirror.source.timestamp" // milliseconds since 1970
)

const (
	// letterLimit is how long the target may take to store a fetch response's
	// letters before the partition begins anew.
	letterLimit = 8 * time.Second
	// letterRoom is what the headers and the framing of a letter take at most,
	// beside the texts in it.
	letterRoom = 4 << 10
)

// letterError says that a record could not be set aside.
type letterError struct {
	offset int64
	topic  string
	err    error
}

func (e *letterError) Error() string {
	return fmt.Sprintf("record at source offset %d cannot be set aside in %s: %v", e.offset, e.topic, e.err)
}
func (e *letterError) Unwrap() error { return e.err }

// bury writes letters of a partition to the dead-letter topic and calls done
// when all of them stand there. It does not wait. A letter may stand there twice
// (after a crash, or when an answer was lost), never less than once: the
// partition does not go beyond it before.
func (f *flow) bury(id partitionID, letters []letter, done func(error)) {
	f.workers.Go(func() {
		ctx, cancel := context.WithTimeout(f.work, letterLimit)
		defer cancel()
		for _, l := range letters {
			if err := f.buryOne(ctx, id, l); err != nil {
				done(err)
				return
			}
		}
		done(nil)
	})
}

func (f *flow) buryOne(ctx context.Context, id partitionID, l letter) error {
	topic := f.cfg().LetterTopic(id.Topic)
	fail := func(err error) error { return &letterError{l.record.Offset, topic, err} }
	if err := f.lease(); err != nil {
		return fail(err)
	}
	r := l.record
	r.Offset = 0
	r.Headers = append(slices.Clip(r.Headers),
		wire.Header{Key: letterCause, Value: []byte(l.cause)},
		wire.Header{Key: letterFlow, Value: []byte(id.Flow)},
		wire.Header{Key: letterTopic, Value: []byte(id.Topic)},
		wire.Header{Key: letterPartition, Value: strconv.AppendInt(nil, int64(id.Partition), 10)},
		wire.Header{Key: letterOffset, Value: strconv.AppendInt(nil, l.record.Offset, 10)},
		wire.Header{Key: letterTimestamp, Value: strconv.AppendInt(nil, l.record.Timestamp, 10)},
	)
	need := roundLimit(l.size + len(l.cause) + len(id.Flow) + len(id.Topic) + letterRoom)
	partitions, err := f.letterTopic(ctx, topic, need)
	if err != nil {
		return fail(err)
	}
	base, err := f.target.Append(ctx, topic, id.Partition%partitions, []wire.Record{r})
	if tooLargeForTarget(err) { // the topic is older, or its limit was lowered
		if raised := f.raise(ctx, topic, need); raised != nil {
			return fail(fmt.Errorf("%w; %w", err, raised))
		}
		base, err = f.target.Append(ctx, topic, id.Partition%partitions, []wire.Record{r})
	}
	if err != nil {
		return fail(err)
	}
	in := about(id, KindDeadLetter, fmt.Sprintf("source record %s/%d at %d: %s", id.Topic, id.Partition, l.record.Offset, l.cause),
		fmt.Sprintf("set aside in %s/%d at %d", topic, id.Partition%partitions, base))
	in.SourceOffset, in.Count = l.record.Offset, 1
	f.incidents.Record(in)
	f.log.Warn("a record was set aside", slog.String("topic", id.Topic), slog.Int("partition", int(id.Partition)), slog.Int64("offset", l.record.Offset), slog.String("dead_letter_topic", topic), slog.String("cause", l.cause))
	return nil
}

// letterTopic makes the dead-letter topic unless it is there, with room for a
// letter of so many bytes and no end to its retention, and says how many
// partitions it has.
func (f *flow) letterTopic(ctx context.Context, topic string, need int) (partitions int32, err error) {
	for range 2 {
		m, err := f.target.Metadata(ctx, topic)
		if err != nil {
			return 0, err
		}
		t := m.Topics[topic]
		if t != nil && t.Err == nil && len(t.Partitions) > 0 {
			return int32(len(t.Partitions)), nil
		}
		if t != nil && t.Err != nil && !errors.Is(t.Err, kerr.UnknownTopicOrPartition) {
			return 0, t.Err
		}
		factor := f.cfg().ReplicationFactor
		if factor == 0 {
			factor = int16(max(1, min(3, len(m.Brokers))))
		}
		err = f.target.CreateTopic(ctx, topic, 1, factor, map[string]string{
			maxMessageBytes: strconv.Itoa(max(need, 2<<20)), "retention.ms": "-1", "cleanup.policy": "delete",
		})
		if err != nil && !errors.Is(err, kerr.TopicAlreadyExists) {
			return 0, err
		}
	}
	return 0, fmt.Errorf("topic %s has no partitions yet", topic)
}
