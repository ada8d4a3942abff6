package broker

import (
	"context"
	"errors"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"

	"kmirror/broker/coordinator"
	"kmirror/broker/storage"
)

// A transactional batch must not be appended to a partition that its
// transaction does not know: its marker would never come, and read_committed
// readers would stop there for good (KIP-890). So the first batch of a
// transaction in a partition is verified with the coordinator, or, when the
// client speaks transaction version 2, adds the partition.
const (
	genericErrorProduce   = 11 // from this version on clients know TRANSACTION_ABORTABLE
	addsPartitionsProduce = 12 // from this version on writing to a partition adds it

	// concurrentWait is how long a write waits for the markers of the
	// transaction before, Kafka's add.partitions.to.txn.retry.backoff.max.ms.
	concurrentWait  = 100 * time.Millisecond
	concurrentRetry = 2 * time.Millisecond
	verifyTimeout   = 30 * time.Second
)

// verified is what the coordinator said of one partition of a Produce request.
type verified struct {
	guard storage.Guard
	err   error
}

// verifyProduced settles for every partition of a transactional Produce request
// whether its batch belongs to a transaction. The result is as long as
// q.partitions, or nil when nothing is to be said of any.
func (n *Node) verifyProduced(ctx context.Context, r *request, q *produceRequest) []verified {
	if q.transactionalID == nil {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, verifyTimeout)
	defer cancel()
	results := make([]verified, len(q.partitions))
	var id int64
	var epoch int16
	var ask []coordinator.TopicPartition
	var asked []int // their places in results
	for _, t := range q.topics {
		topic, unknown := n.topicFor(r.Version >= 13, t.name, t.id)
		if unknown != nil || topic.Internal {
			continue // produce says so
		}
		for i := t.first; i < t.past; i++ {
			batch, err := producedBatch(r.Version, q.partitions[i].records)
			if err != nil || !batch.IsTransactional() {
				continue
			}
			log, _, err := n.leading(topic, q.partitions[i].partition)
			if err != nil {
				continue
			}
			guard, needed, err := log.BeginVerification(batch.ProducerID(), batch.ProducerEpoch(), batch.BaseSequence(), r.Version >= addsPartitionsProduce)
			results[i] = verified{guard, err}
			if err != nil || !needed {
				continue
			}
			if len(ask) > 0 && (batch.ProducerID() != id || batch.ProducerEpoch() != epoch) {
				results[i].err = refuse(kerr.InvalidProducerIDMapping, "Transactional records contained more than one producer ID")
				continue
			}
			id, epoch = batch.ProducerID(), batch.ProducerEpoch()
			ask = append(ask, coordinator.TopicPartition{Topic: topic.Name, Partition: q.partitions[i].partition})
			asked = append(asked, i)
		}
	}
	if len(ask) == 0 {
		return results
	}
	errs := n.joinTransaction(ctx, *q.transactionalID, id, epoch, ask, r.Version >= addsPartitionsProduce, r.Version >= genericErrorProduce)
	for j, i := range asked {
		results[i].err = producedRefusal(errs(ask[j]), r.Version)
	}
	return results
}

// joinTransaction adds partitions to a producer's transaction, or only verifies
// that it has them, and tells for each what is against it. knows says that the
// client knows TRANSACTION_ABORTABLE.
func (n *Node) joinTransaction(ctx context.Context, txn string, id int64, epoch int16, partitions []coordinator.TopicPartition, add, knows bool) func(coordinator.TopicPartition) error {
	var code int16
	lacks := make(map[coordinator.TopicPartition]bool)
	for deadline := time.Now().Add(concurrentWait); ; {
		if add {
			code = n.transactions.AddPartitions(ctx, txn, id, epoch, partitions, coordinator.TransactionVersion2)
		} else {
			var missing []coordinator.TopicPartition
			code, missing = n.transactions.VerifyPartitions(txn, id, epoch, partitions)
			for _, tp := range missing {
				lacks[tp] = true
			}
		}
		if code != kerr.ConcurrentTransactions.Code || time.Now().After(deadline) {
			break
		}
		select {
		case <-time.After(concurrentRetry):
		case <-ctx.Done():
		}
	}
	return func(tp coordinator.TopicPartition) error {
		switch {
		case lacks[tp] && knows:
			return kerr.TransactionAbortable
		case lacks[tp]:
			return refuse(kerr.InvalidTxnState, "Partition was not added to the transaction")
		case code == kerr.ProducerFenced.Code: // what producers expect here
			return kerr.InvalidProducerEpoch
		case code == 0:
			return nil
		}
		return kerr.ErrorForCode(code)
	}
}

// producedRefusal makes a coordinator's answer one that producers know: what
// passes is NOT_ENOUGH_REPLICAS, which they retry without a look at the metadata.
func producedRefusal(err error, version int16) error {
	switch {
	case errors.Is(err, kerr.ConcurrentTransactions) && version >= addsPartitionsProduce:
	case errors.Is(err, kerr.ConcurrentTransactions), errors.Is(err, kerr.CoordinatorLoadInProgress),
		errors.Is(err, kerr.CoordinatorNotAvailable), errors.Is(err, kerr.NotCoordinator):
		return refuse(kerr.NotEnoughReplicas, "Unable to verify the partition has been added to the transaction. Underlying error: "+err.Error())
	}
	return err
}
