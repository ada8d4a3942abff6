package broker

import (
	"context"
	"fmt"

	"github.com/twmb/franz-go/pkg/kerr"

	"kmirror/broker/storage"
	"kmirror/internal/wire"
)

// internalBatchBytes is where a coordinator's records are cut into batches.
const internalBatchBytes = 512 << 10

// internalLog is one of Kafka's own topics as its coordinator sees it.
type internalLog struct {
	node *Node
	name string
}

// open is the log of a partition and its leader epoch. The topic is made if it
// is missing.
func (l internalLog) open(ctx context.Context, partition int32) (*storage.Log, int32, error) {
	if _, err := l.node.ensureInternal(ctx, l.name); err != nil {
		return nil, 0, err
	}
	return l.log(partition)
}

// write appends records in batches of bounded size and returns the last offset.
func (l internalLog) write(log *storage.Log, epoch int32, records []wire.Record, how wire.BatchOptions, o storage.AppendOptions) (last int64, err error) {
	last = -1
	for len(records) > 0 {
		n, size := 0, 0
		for n < len(records) && (n == 0 || size < internalBatchBytes) {
			size += len(records[n].Key) + len(records[n].Value) + 32
			n++
		}
		batch, err := wire.EncodeBatch(nil, records[:n], how)
		if err != nil {
			return last, fmt.Errorf("encode records of %s: %w", l.name, err)
		}
		result, err := log.Append(batch, epoch, o)
		if err != nil {
			return last, coded(err)
		}
		last = result.LastOffset
		records = records[n:]
	}
	return last, nil
}

// durable waits until what was written up to last (-1: nothing) is durable. Why
// it is not becomes the error of whatever has none yet.
func durable(ctx context.Context, log *storage.Log, last int64, errs []error) {
	if last < 0 {
		return
	}
	if err := log.WaitDurable(ctx, last); err != nil {
		for i := range errs {
			if errs[i] == nil {
				errs[i] = err
			}
		}
	}
}

// read calls fn for every record of a partition, with the batch that holds it.
func (l internalLog) read(ctx context.Context, partition int32, fn func(wire.Batch, wire.Record) error) error {
	if l.node.image().Topic(l.name) == nil {
		return nil
	}
	log, _, err := l.log(partition)
	if err != nil {
		return err
	}
	return readBatches(ctx, log, fn)
}

func (l internalLog) log(partition int32) (*storage.Log, int32, error) {
	topic, err := l.node.topicFor(false, l.name, [16]byte{})
	if err != nil {
		return nil, 0, err
	}
	return l.node.leading(topic, partition)
}

// coded makes a refusal of the log one that coordinators know.
func coded(err error) error {
	code, message := errorCode(err)
	known := kerr.TypedErrorForCode(code)
	if known == nil || message == nil {
		return err
	}
	return fmt.Errorf("%w: %s", known, *message)
}
