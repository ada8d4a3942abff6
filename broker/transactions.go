package broker

import (
	"context"
	"fmt"
	"log/slog"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"

	"kmirror/broker/coordinator"
	"kmirror/broker/storage"
	"kmirror/internal/wire"
)

// transactionsTopic keeps the transactional ids and their transactions, in
// Kafka's own records.
const transactionsTopic = "__transaction_state"

// markerTimeout is how long one try at a transaction's markers may wait for the disk.
const markerTimeout = 30 * time.Second

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

// Append writes records to __transaction_state, which is made if it is missing.
func (l transactionLog) Append(ctx context.Context, partition int32, records []wire.Record) error {
	return l.topic().append(ctx, partition, records)
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
	_, epoch, err := l.topic().log(coordinatorPartition)
	if err != nil {
		return partitions, err
	}
	marker := storage.Marker{
		ProducerID: m.ProducerID, Epoch: m.Epoch, CoordinatorEpoch: epoch, Commit: m.Commit, TransactionVersion: m.Version,
	}
	type written struct {
		tp  coordinator.TopicPartition
		log *storage.Log
		at  int64
	}
	var waits []written
	for _, tp := range partitions {
		log, at, markErr := l.node.appendMarker(tp, marker)
		switch {
		case markErr != nil && l.node.markerNeeded(markErr):
			left, err = append(left, tp), markErr
		case markErr != nil:
			l.node.logger.Info("a partition takes no marker", slog.String("topic", tp.Topic), slog.Int("partition", int(tp.Partition)), slog.Any("reason", markErr))
		default:
			waits = append(waits, written{tp, log, at})
		}
	}
	for _, w := range waits {
		if waitErr := w.log.WaitDurable(ctx, w.at); waitErr != nil && l.node.markerNeeded(waitErr) {
			left, err = append(left, w.tp), waitErr
		}
	}
	return left, err
}

// appendMarker ends a producer's transaction in one partition.
func (n *Node) appendMarker(tp coordinator.TopicPartition, m storage.Marker) (*storage.Log, int64, error) {
	topic, err := n.topicFor(false, tp.Topic, [16]byte{})
	if err != nil {
		return nil, 0, err
	}
	log, epoch, err := n.leading(topic, tp.Partition)
	if err != nil {
		return nil, 0, err
	}
	at, err := log.AppendMarker(m, epoch)
	return log, at, err
}

// markerNeeded tells from the refusal of a marker whether it is to be tried
// again: not when the partition is gone, nor when it knows a later epoch or
// coordinator.
func (n *Node) markerNeeded(err error) bool {
	switch code, _ := errorCode(err); code {
	case kerr.UnknownTopicOrPartition.Code, kerr.InvalidProducerEpoch.Code, kerr.TransactionCoordinatorFenced.Code:
		return false
	}
	return true
}
