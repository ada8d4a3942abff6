package broker

import (
	"context"
	"fmt"

	"kmirror/broker/coordinator"
	"kmirror/internal/wire"
)

// offsetsTopic keeps groups and their offsets, in Kafka's own records.
const offsetsTopic = "__consumer_offsets"

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

// client is what the coordinator remembers of a member's client.
func (r *request) client() coordinator.ClientInfo {
	return coordinator.ClientInfo{ID: r.clientID(), Host: javaHost(r.conn.remote)}
}

// offsetsLog is __consumer_offsets as the coordinator sees it.
type offsetsLog struct{ node *Node }

func (o offsetsLog) topic() internalLog { return internalLog{o.node, offsetsTopic} }

// Append writes records in batches of bounded size and waits until they are durable.
func (o offsetsLog) Append(ctx context.Context, partition int32, records []wire.Record) error {
	return o.topic().append(ctx, partition, records)
}

// Read calls fn for every record of a partition.
func (o offsetsLog) Read(ctx context.Context, partition int32, fn func(wire.Record) error) error {
	return o.topic().read(ctx, partition, func(b wire.Batch, r wire.Record) error {
		if b.IsControl() {
			return nil
		}
		return fn(r)
	})
}
