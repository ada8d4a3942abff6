package broker

import (
	"context"
	"errors"
	"fmt"

	"github.com/twmb/franz-go/pkg/kerr"

	"kmirror/broker/coordinator"
	"kmirror/broker/storage"
	"kmirror/internal/wire"
)

// offsetsTopic keeps groups and their offsets, in Kafka's own records.
const offsetsTopic = "__consumer_offsets"

// groupBatchBytes is where the coordinator's records are cut into batches.
const groupBatchBytes = 512 << 10

// openGroups builds the coordinator. It has as many partitions as
// __consumer_offsets, or as it will have.
func (n *Node) openGroups() {
	partitions := n.settings.offsetsPartitions
	if t := n.image().Topic(offsetsTopic); t != nil {
		partitions = int32(len(t.Partitions))
	}
	n.groups = coordinator.New(coordinator.Config{
		Partitions: partitions, Settings: n.settings.groups, Log: offsetsLog{n}, Logger: n.logger,
	})
}

// runGroups loads the groups and runs them.
func (n *Node) runGroups(ctx context.Context) error {
	if err := n.groups.Load(ctx); err != nil {
		if ctx.Err() == nil {
			return fmt.Errorf("load: %w", err)
		}
		return nil // the node was stopped meanwhile
	}
	n.groups.KeepTopics(func(topic string) bool { return n.image().Topic(topic) != nil })
	return n.groups.Run(ctx)
}

// needsOffsets makes __consumer_offsets if it is missing.
func (n *Node) needsOffsets(ctx context.Context) error {
	if n.image().Topic(offsetsTopic) != nil {
		return nil
	}
	_, err := n.ensureInternal(ctx, offsetsTopic)
	return err
}

// client is what the coordinator remembers of a member's client.
func (r *request) client() coordinator.ClientInfo {
	return coordinator.ClientInfo{ID: r.clientID(), Host: javaHost(r.conn.remote)}
}

// offsetsLog is __consumer_offsets as the coordinator sees it.
type offsetsLog struct{ node *Node }

// Append writes records in batches of bounded size and waits until they are durable.
func (o offsetsLog) Append(ctx context.Context, partition int32, records []wire.Record) error {
	if err := o.node.needsOffsets(ctx); err != nil {
		return err
	}
	log, epoch, err := o.log(partition)
	if err != nil {
		return err
	}
	last := int64(-1)
	for len(records) > 0 {
		n, size := 0, 0
		for n < len(records) && (n == 0 || size < groupBatchBytes) {
			size += len(records[n].Key) + len(records[n].Value) + 32
			n++
		}
		batch, err := wire.EncodeBatch(nil, records[:n], wire.Plain(wire.CodecNone))
		if err != nil {
			return fmt.Errorf("encode records of %s/%d: %w", offsetsTopic, partition, err)
		}
		result, err := log.Append(batch, epoch, storage.AppendOptions{})
		if refused, ok := errors.AsType[*storage.Error](err); ok {
			if known := kerr.TypedErrorForCode(refused.Code); known != nil {
				return fmt.Errorf("%w: %s", known, refused.Message)
			}
		}
		if err != nil {
			return err
		}
		last = result.LastOffset
		records = records[n:]
	}
	if last < 0 {
		return nil
	}
	return log.WaitDurable(ctx, last)
}

// Read calls fn for every record of a partition.
func (o offsetsLog) Read(ctx context.Context, partition int32, fn func(wire.Record) error) error {
	if o.node.image().Topic(offsetsTopic) == nil {
		return nil
	}
	log, _, err := o.log(partition)
	if err != nil {
		return err
	}
	return readLog(ctx, log, fn)
}

func (o offsetsLog) log(partition int32) (*storage.Log, int32, error) {
	topic, err := o.node.topicFor(false, offsetsTopic, [16]byte{})
	if err != nil {
		return nil, 0, err
	}
	return o.node.leading(topic, partition)
}
