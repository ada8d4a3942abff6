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
	maxRounds       = 20 // of asking the coordinator because a marker came in between
)

// verified is what the coordinator said of one partition of a Produce request.
type verified struct {
	guard storage.Guard
	err   error
}

// joining is one batch whose partition must be in a transaction.
type joining struct {
	log       *storage.Log
	partition coordinator.TopicPartition
	id        int64
	epoch     int16
	sequence  int32
	verified
}

// dialect is what a client knows of KIP-890, by the version of its request.
type dialect struct {
	adds  bool // writing to a partition adds it to the transaction
	knows bool // TRANSACTION_ABORTABLE
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
	var all []*joining
	var at []int // their places in results
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
			j := &joining{
				log: log, partition: coordinator.TopicPartition{Topic: topic.Name, Partition: q.partitions[i].partition},
				id: batch.ProducerID(), epoch: batch.ProducerEpoch(), sequence: batch.BaseSequence(),
			}
			if len(all) > 0 && (j.id != all[0].id || j.epoch != all[0].epoch) {
				results[i].err = refuse(kerr.InvalidProducerIDMapping, "Transactional records contained more than one producer ID")
				continue
			}
			all, at = append(all, j), append(at, i)
		}
	}
	n.join(ctx, *q.transactionalID, all, dialect{adds: r.Version >= addsPartitionsProduce, knows: r.Version >= genericErrorProduce})
	for k, j := range all {
		j.err = producedRefusal(j.err, r.Version)
		results[at[k]] = j.verified
	}
	return results
}

// join sees to it that batches of one producer belong to its transaction, and
// says for each what is against it.
//
// A guard covers the time from before the coordinator is asked until the batch
// stands in the log: a marker that comes in between makes it void, because the
// answer may be of a transaction that is over. If that was the marker of the
// transaction before, the coordinator is asked again.
func (n *Node) join(ctx context.Context, txn string, all []*joining, d dialect) {
	deadline := time.Now().Add(concurrentWait)
	for round := 0; ; round++ {
		var asked []*joining
		var partitions []coordinator.TopicPartition
		for _, j := range all {
			var needed bool
			j.guard, needed, j.err = j.log.BeginVerification(j.id, j.epoch, j.sequence, d.adds)
			if j.err == nil && needed {
				asked, partitions = append(asked, j), append(partitions, j.partition)
			}
		}
		if len(asked) == 0 {
			return
		}
		refusal := n.askToJoin(ctx, txn, asked[0].id, asked[0].epoch, partitions, d)
		again := false
		for _, j := range asked {
			if j.err = refusal(j.partition); j.err != nil {
				again = again || errors.Is(j.err, kerr.ConcurrentTransactions) && time.Now().Before(deadline)
				continue
			}
			guard, needed, err := j.log.BeginVerification(j.id, j.epoch, j.sequence, d.adds)
			j.err = err
			again = again || err == nil && needed && guard != j.guard && round < maxRounds
		}
		if !again {
			return
		}
		select {
		case <-time.After(concurrentRetry):
		case <-ctx.Done():
			return
		}
	}
}

// askToJoin adds partitions to a producer's transaction, or only verifies that
// it has them, and tells for each what is against it.
func (n *Node) askToJoin(ctx context.Context, txn string, id int64, epoch int16, partitions []coordinator.TopicPartition, d dialect) func(coordinator.TopicPartition) error {
	var code int16
	lacks := make(map[coordinator.TopicPartition]bool)
	if d.adds {
		code = n.transactions.AddPartitions(ctx, txn, id, epoch, partitions, coordinator.TransactionVersion2)
	} else {
		var missing []coordinator.TopicPartition
		code, missing = n.transactions.VerifyPartitions(txn, id, epoch, partitions)
		for _, tp := range missing {
			lacks[tp] = true
		}
	}
	return func(tp coordinator.TopicPartition) error {
		switch {
		case lacks[tp] && d.knows:
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
