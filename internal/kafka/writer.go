package kafka

import (
	"context"
	"errors"
	"fmt"
	"sync"

	"github.com/twmb/franz-go/pkg/kerr"

	"kmirror/internal/wire"
)

// Writer appends records as one producer: each once, in order, and none after
// the producer was fenced. A batch whose answer was lost is sent again with the
// same bytes before anything else goes to its partition, also when the caller
// that brought it has given up meanwhile. One batch per partition is under way
// at a time. Safe for concurrent use.
type Writer struct {
	to      Sender
	as      Producer
	allowed func() error // asked before each request; nil: always

	mu    sync.Mutex // guards lines
	lines map[TopicPartition]*writerLine
}

// Sender sends one batch to the leader of its partition, once that is found.
// *Cluster is one.
type Sender interface {
	Produce(ctx context.Context, topic string, partition int32, batch wire.Batch) (base int64, err error)
}

// writerLine is the way to one partition.
type writerLine struct {
	turn    chan struct{} // capacity 1: whoever filled it owns the fields below
	next    int32         // sequence
	pending wire.Batch    // to be sent before anything else; nil: none
	doubt   bool          // pending was sent, and may be in the log
	failed  error         // a *FencedError: nothing more is written
}

// FencedError says that a producer may not write to a partition any more: a
// newer epoch has, or the partition does not know the producer's sequence.
type FencedError struct {
	Producer
	Partition TopicPartition
	Err       error
}

func (e *FencedError) Error() string {
	return fmt.Sprintf("producer %d epoch %d may not write to %s any more: %v", e.ID, e.Epoch, e.Partition, e.Err)
}

func (e *FencedError) Unwrap() error { return e.Err }

// lastSequence ends an epoch long before its sequences wrap at 2^31.
const lastSequence = 1 << 30

var errSpent = errors.New("its sequences are used up")

// NewWriter makes a writer for an epoch that nothing was written under. A non-nil
// allowed is asked before each request; its error ends the attempt.
func NewWriter(to Sender, as Producer, allowed func() error) *Writer {
	return &Writer{to: to, as: as, allowed: allowed, lines: map[TopicPartition]*writerLine{}}
}

// Append is [Cluster.Append] without its doubles. A *FencedError is final.
func (w *Writer) Append(ctx context.Context, topic string, partition int32, records []wire.Record) (base int64, err error) {
	at := TopicPartition{topic, partition}
	l := w.line(at)
	select {
	case l.turn <- struct{}{}:
		defer func() { <-l.turn }()
	case <-ctx.Done():
		return -1, fmt.Errorf("append to %s: %w", at, context.Cause(ctx))
	}
	if l.pending != nil {
		if _, err := w.send(ctx, l, at); err != nil {
			return -1, err
		}
	}
	if l.next > lastSequence {
		return -1, fmt.Errorf("append to %s: %w", at, &FencedError{Producer: w.as, Partition: at, Err: errSpent})
	}
	batch, err := wire.EncodeBatch(nil, records, wire.BatchOptions{
		Codec: wire.CodecNone, ProducerID: w.as.ID, ProducerEpoch: w.as.Epoch, BaseSequence: l.next, LeaderEpoch: -1,
	})
	if err != nil {
		return -1, fmt.Errorf("append to %s: %w", at, err)
	}
	batch.SetBaseOffset(0)
	l.pending, l.doubt = batch, false
	return w.send(ctx, l, at)
}

func (w *Writer) line(at TopicPartition) *writerLine {
	w.mu.Lock()
	defer w.mu.Unlock()
	l := w.lines[at]
	if l == nil {
		l = &writerLine{turn: make(chan struct{}, 1)}
		w.lines[at] = l
	}
	return l
}

// send sends the pending batch until the answer is known or ctx ends.
func (w *Writer) send(ctx context.Context, l *writerLine, at TopicPartition) (base int64, err error) {
	var pause backoff
	for {
		if l.failed != nil {
			return -1, l.failed
		}
		if w.allowed != nil {
			if err := w.allowed(); err != nil {
				if !l.doubt {
					l.pending = nil
				}
				return -1, fmt.Errorf("append to %s: %w", at, err)
			}
		}
		base, err := w.to.Produce(ctx, at.Topic, at.Partition, l.pending)
		switch {
		case err == nil || errors.Is(err, kerr.DuplicateSequenceNumber):
			l.next = l.pending.LastSequence() + 1 // far below 2^31 in the life of an epoch
			l.pending = nil
			return base, nil
		case errors.Is(err, kerr.InvalidProducerEpoch), errors.Is(err, kerr.ProducerFenced), errors.Is(err, kerr.OutOfOrderSequenceNumber),
			errors.Is(err, kerr.UnknownProducerID), errors.Is(err, kerr.InvalidProducerIDMapping):
			l.failed = &FencedError{Producer: w.as, Partition: at, Err: err}
			return -1, fmt.Errorf("append to %s: %w", at, l.failed)
		case temporary(ctx, err):
			l.doubt = true
		case !l.doubt && refusedWhole(err):
			l.pending = nil
			return -1, fmt.Errorf("append to %s: %w", at, err)
		default: // in or not: it stays, and is sent again by the next
			l.doubt = true
			return -1, fmt.Errorf("append to %s: %w", at, err)
		}
		if stopped := pause.wait(ctx); stopped != nil {
			return -1, fmt.Errorf("append to %s: %w", at, fmt.Errorf("%w: %w", stopped, err))
		}
	}
}

// refusedWhole says whether an answer means that the batch is certainly not in
// the log, and never will be.
func refusedWhole(err error) bool {
	var code *kerr.Error
	return errors.As(err, &code) && !code.Retriable
}
