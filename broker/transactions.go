package broker

import (
	"context"
	"fmt"
	"log/slog"
	"slices"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"golang.org/x/sync/errgroup"

	"kmirror/broker/coordinator"
	"kmirror/broker/storage"
	"kmirror/internal/wire"
)

// transactionsTopic keeps the transactional ids and their transactions, in
// Kafka's own records.
const transactionsTopic = "__transaction_state"

const (
	markerTimeout   = 30 * time.Second // how long one try at a transaction's markers may wait for the disk
	markersOfGroups = 32               // partitions of __consumer_offsets that one transaction marks at a time
)

// openTransactions builds the coordinator. It has as many partitions as
// __transaction_state, or as it will have.
func (n *Node) openTransactions() {
	partitions := n.settings.transactionPartitions
	if t := n.image().Topic(transactionsTopic); t != nil {
		partitions = int32(len(t.Partitions))
	}
	n.transactions = coordinator.NewTransactions(coordinator.TransactionsConfig{
		Partitions: partitions, Settings: n.settings.transactions, Log: transactionLog{n}, Logger: n.logger,
	})
}

// runTransactions loads the transactions and runs them.
func (n *Node) runTransactions(ctx context.Context) error {
	if err := n.transactions.Load(ctx); err != nil {
		if ctx.Err() == nil {
			return fmt.Errorf("load: %w", err)
		}
		return nil // the node was stopped meanwhile
	}
	return n.transactions.Run(ctx)
}

// transactionLog is what the coordinator of transactions asks of the node.
type transactionLog struct{ node *Node }

func (l transactionLog) topic() internalLog { return internalLog{l.node, transactionsTopic} }

// Append writes records to __transaction_state, which is made if it is missing,
// and waits once, until all are durable.
func (l transactionLog) Append(ctx context.Context, partition int32, records []wire.Record) []error {
	log, epoch, err := l.topic().open(ctx, partition)
	if err != nil {
		return slices.Repeat([]error{err}, len(records))
	}
	errs, last := make([]error, len(records)), int64(-1)
	for i := range records {
		at, err := l.topic().write(log, epoch, records[i:i+1], wire.Plain(wire.CodecNone), storage.AppendOptions{})
		errs[i], last = err, max(last, at)
	}
	durable(ctx, log, last, errs)
	return errs
}

// Read calls fn for every record of a partition.
func (l transactionLog) Read(ctx context.Context, partition int32, fn func(wire.Record) error) error {
	return l.topic().read(ctx, partition, func(b wire.Batch, r wire.Record) error {
		if b.IsControl() {
			return nil
		}
		return fn(r)
	})
}

// Rewrite puts records in the place of all that stand in a partition. They are
// durable before the others go.
func (l transactionLog) Rewrite(ctx context.Context, partition int32, records []wire.Record) error {
	log, epoch, err := l.topic().log(partition)
	if err != nil {
		return err
	}
	before := log.End() // nobody else writes while the partition is loaded
	last, err := l.topic().write(log, epoch, records, wire.Plain(wire.CodecNone), storage.AppendOptions{})
	if err != nil {
		return err
	}
	if last >= 0 {
		if err := log.WaitDurable(ctx, last); err != nil {
			return err
		}
	}
	cfg := log.Config()
	trimmed := cfg
	trimmed.Compact = false // whose logs only their cleaner may shorten: that is us
	log.SetConfig(trimmed)
	defer log.SetConfig(cfg)
	return log.DeleteBefore(before)
}

// NewProducerID is an id that nobody was ever given.
func (l transactionLog) NewProducerID(ctx context.Context) (int64, error) {
	return l.node.nextProducerID(ctx)
}

// Mark writes a marker to partitions, first to all logs and then to the disk, so
// that they share a flush. A partition that is no more needs none. One that
// refuses the marker's epoch has seen it, or a later one: it needs none either.
func (l transactionLog) Mark(ctx context.Context, coordinatorPartition int32, m coordinator.Marker, partitions []coordinator.TopicPartition) (left []coordinator.TopicPartition, err error) {
	ctx, cancel := context.WithTimeout(ctx, markerTimeout)
	defer cancel()
	if _, m.CoordinatorEpoch, err = l.topic().log(coordinatorPartition); err != nil {
		return partitions, err
	}
	for i, refusal := range l.node.writeMarkers(ctx, m, partitions) {
		switch {
		case refusal == nil:
		case markerNeeded(refusal):
			left, err = append(left, partitions[i]), refusal
		default:
			l.node.logger.Info("a partition takes no marker", slog.String("topic", partitions[i].Topic),
				slog.Int("partition", int(partitions[i].Partition)), slog.Int64("producer_id", m.ProducerID), slog.Any("reason", refusal))
		}
	}
	return left, err
}

// markerNeeded tells from the refusal of a marker whether it is to be tried
// again: not when the partition is gone, nor when it knows a later epoch or
// coordinator.
func markerNeeded(err error) bool {
	switch code, _ := errorCode(err); code {
	case kerr.UnknownTopicOrPartition.Code, kerr.InvalidProducerEpoch.Code, kerr.TransactionCoordinatorFenced.Code:
		return false
	}
	return true
}

// writeMarkers writes one marker to partitions and returns when it is durable
// in each, or what is against it.
func (n *Node) writeMarkers(ctx context.Context, m coordinator.Marker, partitions []coordinator.TopicPartition) []error {
	errs := make([]error, len(partitions))
	logs, last := make([]*storage.Log, len(partitions)), make([]int64, len(partitions))
	var offsets errgroup.Group // the groups' own partitions, by their coordinator
	offsets.SetLimit(markersOfGroups)
	for i, tp := range partitions {
		topic, err := n.topicFor(false, tp.Topic, [16]byte{})
		if err == nil && tp.Topic == offsetsTopic {
			offsets.Go(func() error {
				errs[i] = n.groups.CompleteTransaction(ctx, tp.Partition, m)
				return nil
			})
			continue
		}
		var epoch int32
		if err == nil {
			logs[i], epoch, err = n.leading(topic, tp.Partition)
		}
		if err == nil {
			last[i], err = logs[i].AppendMarker(storedMarker(m), epoch)
		}
		errs[i] = err
	}
	_ = offsets.Wait() // its functions return no error
	for i, log := range logs {
		if log != nil && errs[i] == nil {
			errs[i] = log.WaitDurable(ctx, last[i])
		}
	}
	return errs
}

// storedMarker is a marker as logs write it.
func storedMarker(m coordinator.Marker) storage.Marker {
	return storage.Marker{
		ProducerID: m.ProducerID, Epoch: m.Epoch, CoordinatorEpoch: m.CoordinatorEpoch, Commit: m.Commit, TransactionVersion: m.Version,
	}
}
