package kafka

import (
	"context"
	"errors"
	"fmt"
	"math"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"
)

// TopicPartition names a partition.
type TopicPartition struct {
	Topic     string
	Partition int32
}

func (p TopicPartition) String() string { return fmt.Sprintf("%s/%d", p.Topic, p.Partition) }

// Producer is one epoch of a producer id.
type Producer struct {
	ID    int64
	Epoch int16
}

// NoProducer is what a transactional id expects that never had a producer id.
var NoProducer = Producer{ID: -1, Epoch: -1} //nolint:gochecknoglobals // a constant

// transactionTimeout is how long a transaction may stay open, in milliseconds,
// before the coordinator aborts it: ours hold no data and end at once.
const transactionTimeout = 30_000

// Transactions reports whether the brokers offer what fencing by a transactional
// id takes: InitProducerId that names the epoch it expects (version 3, KIP-360),
// AddPartitionsToTxn, EndTxn.
func (c *Cluster) Transactions(ctx context.Context) (bool, error) {
	need := map[int16]int16{int16(kmsg.InitProducerID): 3, int16(kmsg.AddPartitionsToTxn): 0, int16(kmsg.EndTxn): 0, int16(kmsg.FindCoordinator): 1}
	for key, least := range need {
		version, ok, err := c.offers(ctx, key)
		if err != nil {
			return false, c.errorf(err, "ask for API versions")
		}
		if !ok || version < least {
			return false, nil
		}
	}
	return true, nil
}

// InitProducer takes the next epoch for a transactional id. With current other
// than NoProducer it is refused (PRODUCER_FENCED, INVALID_PRODUCER_EPOCH) unless
// current is the id's newest epoch, or the one before it and this the repetition
// of a request whose answer was lost (KIP-360). A transaction that is open under
// the id is aborted; CONCURRENT_TRANSACTIONS says that this takes time.
func (c *Cluster) InitProducer(ctx context.Context, transactionalID string, current Producer) (Producer, error) {
	req := kmsg.NewPtrInitProducerIDRequest()
	req.TransactionalID = &transactionalID
	req.TransactionTimeoutMillis = transactionTimeout
	req.ProducerID, req.ProducerEpoch = current.ID, current.Epoch
	bound := kmsg.Request(req)
	if current != NoProducer {
		bound = atLeast(req, 3)
	}
	resp, err := as[*kmsg.InitProducerIDResponse](c.RequestTransaction(ctx, transactionalID, bound))
	if err == nil {
		err = kerr.ErrorForCode(resp.ErrorCode)
	}
	if err != nil {
		return NoProducer, c.errorf(err, "init producer id for %s", transactionalID)
	}
	return Producer{ID: resp.ProducerID, Epoch: resp.ProducerEpoch}, nil
}

// AddPartitions adds partitions to the transaction of a producer. All are added
// or none: with refused not empty, which says why for each that is at fault, none
// was.
func (c *Cluster) AddPartitions(ctx context.Context, transactionalID string, who Producer, partitions []TopicPartition) (refused map[TopicPartition]error, err error) {
	req := kmsg.NewPtrAddPartitionsToTxnRequest()
	req.TransactionalID, req.ProducerID, req.ProducerEpoch = transactionalID, who.ID, who.Epoch
	at := map[string]int{}
	for _, p := range partitions {
		i, ok := at[p.Topic]
		if !ok {
			i = len(req.Topics)
			at[p.Topic] = i
			rt := kmsg.NewAddPartitionsToTxnRequestTopic()
			rt.Topic = p.Topic
			req.Topics = append(req.Topics, rt)
		}
		req.Topics[i].Partitions = append(req.Topics[i].Partitions, p.Partition)
	}
	// From version 4 on the request is one between brokers.
	resp, err := as[*kmsg.AddPartitionsToTxnResponse](c.RequestTransaction(ctx, transactionalID, AtMost(req, 3)))
	if err != nil {
		return nil, c.errorf(err, "add partitions to the transaction of %s", transactionalID)
	}
	refused = map[TopicPartition]error{}
	for _, t := range resp.Topics {
		for _, p := range t.Partitions {
			switch e := kerr.ErrorForCode(p.ErrorCode); {
			case e == nil:
			case errors.Is(e, kerr.OperationNotAttempted):
			case errors.Is(e, kerr.UnknownTopicOrPartition), errors.Is(e, kerr.TopicAuthorizationFailed), errors.Is(e, kerr.InvalidTopicException):
				refused[TopicPartition{t.Topic, p.Partition}] = e
			default: // of the transaction, not of the partition
				return nil, c.errorf(e, "add partitions to the transaction of %s", transactionalID)
			}
		}
	}
	return refused, nil
}

// EndTransaction ends the transaction of a producer and returns the epoch that
// the producer goes on with. It answers before the markers are written.
//
// It goes out in version 4 at most: from version 5 on (KIP-890) the coordinator
// takes the next epoch with it, and who loses that answer and then one more has
// lost count of its own epochs.
func (c *Cluster) EndTransaction(ctx context.Context, transactionalID string, who Producer, commit bool) (Producer, error) {
	req := kmsg.NewPtrEndTxnRequest()
	req.TransactionalID, req.ProducerID, req.ProducerEpoch, req.Commit = transactionalID, who.ID, who.Epoch, commit
	resp, err := as[*kmsg.EndTxnResponse](c.RequestTransaction(ctx, transactionalID, AtMost(req, 4)))
	if err == nil {
		err = kerr.ErrorForCode(resp.ErrorCode)
	}
	if err != nil {
		return NoProducer, c.errorf(err, "end the transaction of %s", transactionalID)
	}
	if resp.ProducerID >= 0 && resp.ProducerEpoch >= 0 {
		return Producer{ID: resp.ProducerID, Epoch: resp.ProducerEpoch}, nil
	}
	return who, nil
}

// LastSequences returns the last sequence of every producer that a partition's
// leader remembers, also of those whose batches are gone (DescribeProducers,
// KIP-664). It is empty where the broker does not offer that.
func (c *Cluster) LastSequences(ctx context.Context, topic string, partition int32) (map[Producer]int32, error) {
	if _, ok, err := c.offers(ctx, int16(kmsg.DescribeProducers)); err != nil || !ok {
		return nil, err
	}
	resp, err := as[*kmsg.DescribeProducersResponse](c.RequestLeader(ctx, topic, partition, func(*Topic) kmsg.Request {
		req := kmsg.NewPtrDescribeProducersRequest()
		rt := kmsg.NewDescribeProducersRequestTopic()
		rt.Topic, rt.Partitions = topic, []int32{partition}
		req.Topics = append(req.Topics, rt)
		return req
	}))
	if err != nil {
		return nil, err
	}
	found := map[Producer]int32{}
	for _, t := range resp.Topics {
		for _, p := range t.Partitions {
			if err := kerr.ErrorForCode(p.ErrorCode); err != nil {
				return nil, c.errorf(explained(err, p.ErrorMessage), "describe the producers of %s/%d", topic, partition)
			}
			for _, a := range p.ActiveProducers {
				found[Producer{ID: a.ProducerID, Epoch: int16(a.ProducerEpoch)}] = a.LastSequence
			}
		}
	}
	return found, nil
}

// offers says up to which version a broker knows a request, if at all.
func (c *Cluster) offers(ctx context.Context, key int16) (version int16, ok bool, err error) {
	failure := &UnreachableError{Cluster: c.Name()}
	for _, addr := range c.candidates() {
		conn, err := c.pool.acquire(ctx, addr, false)
		if err == nil {
			version, ok := conn.Version(key, math.MaxInt16)
			c.pool.release(conn, false)
			return version, ok, nil
		}
		if ctx.Err() != nil {
			return 0, false, context.Cause(ctx)
		}
		failure.Tried = append(failure.Tried, Attempt{Addr: addr, Err: err})
	}
	return 0, false, failure
}
