package broker

import (
	"context"
	"fmt"
	"slices"

	"github.com/twmb/franz-go/pkg/kmsg"

	"kmirror/broker/coordinator"
	"kmirror/broker/storage"
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

// Append writes batches and markers, one after the other, and waits once, until
// all are durable.
func (o offsetsLog) Append(ctx context.Context, partition int32, batches []coordinator.LogBatch) []error {
	log, epoch, err := o.topic().open(ctx, partition)
	if err != nil {
		return slices.Repeat([]error{err}, len(batches))
	}
	errs, last := make([]error, len(batches)), int64(-1)
	for i, b := range batches {
		at, err := o.write(log, epoch, b)
		errs[i] = err
		last = max(last, at)
	}
	durable(ctx, log, last, errs)
	return errs
}

// write appends one batch or marker and returns its last offset.
func (o offsetsLog) write(log *storage.Log, epoch int32, b coordinator.LogBatch) (int64, error) {
	if b.Marker != nil {
		at, err := log.AppendMarker(storedMarker(*b.Marker), epoch)
		if err != nil {
			return -1, coded(err)
		}
		return at, nil
	}
	how, options := wire.Plain(wire.CodecNone), storage.AppendOptions{}
	if p := b.Producer; p != nil {
		how.Transactional, how.ProducerID, how.ProducerEpoch, how.BaseSequence = true, p.ID, p.Epoch, 0
		if guard, ok := p.Verified.(storage.Guard); ok {
			options.Verified = guard
		}
	}
	return o.topic().write(log, epoch, b.Records, how, options)
}

// Read calls fn for every record and marker of a partition.
func (o offsetsLog) Read(ctx context.Context, partition int32, fn func(coordinator.LogRecord) error) error {
	return o.topic().read(ctx, partition, func(b wire.Batch, r wire.Record) error {
		lr := coordinator.LogRecord{Record: r, Producer: -1}
		switch {
		case b.IsControl():
			commit, ok := markerOf(r)
			if !ok {
				return nil
			}
			lr.Producer, lr.Marker = b.ProducerID(), &coordinator.Marker{ProducerID: b.ProducerID(), Epoch: b.ProducerEpoch(), Commit: commit}
		case b.IsTransactional():
			lr.Producer = b.ProducerID()
		}
		return fn(lr)
	})
}

// markerOf reads a control record; ok is false when it ends no transaction.
func markerOf(r wire.Record) (commit, ok bool) {
	key := kmsg.NewControlRecordKey()
	if key.ReadFrom(r.Key) != nil {
		return false, false
	}
	return key.Type == kmsg.ControlRecordKeyTypeCommit, key.Type == kmsg.ControlRecordKeyTypeCommit || key.Type == kmsg.ControlRecordKeyTypeAbort
}
