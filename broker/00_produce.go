package broker

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"

	"kmirror/broker/replica"
	"kmirror/broker/storage"
	"kmirror/internal/wire"
)

// Produce: v3-13
//
// Behavior: every partition's batch is appended before the next request of the
// connection is read; the response follows when all of them are durable, and
// several requests of one connection may wait for the disk together. acks=0
// gets no response; an error then closes the connection. Exactly one batch of
// magic 2 per partition; others are INVALID_RECORD. Internal topics take
// records from Kafka's admin client only. A transactional batch must belong to
// the transaction of the request's transactional id (produce_verify.go).
//
// Version notes:
//   - v3: record batches of magic 2 only (KIP-98)
//   - v5: log start offset in the response
//   - v7: zstd (KIP-110), UNSUPPORTED_COMPRESSION_TYPE before
//   - v8: per-record errors (KIP-467)
//   - v9: flexible
//   - v10: current leader on NOT_LEADER_OR_FOLLOWER (KIP-951); a single node has no other
//   - v11: TRANSACTION_ABORTABLE (KIP-890), INVALID_TXN_STATE before
//   - v12: writing to a partition adds it to the transaction (KIP-890)
//   - v13: topics by id (KIP-516)

// adminClientID is the client id with which Kafka itself writes to internal topics.
const adminClientID = "__admin_client"

// leastProduceTimeout is how long a batch may take to become durable at least,
// however little the client asks for.
const leastProduceTimeout = 5 * time.Second

// durableWait is one appended batch whose response entry must wait for the disk.
type durableWait struct {
	log  *storage.Log
	last int64
	at   [2]int // topic and partition in the response
}

func (n *Node) produce(ctx context.Context, r *request) error {
	q := &r.conn.produce
	if err := q.decode(r.Version, r.body); err != nil {
		return fmt.Errorf("decode Produce version %d: %w", r.Version, err)
	}
	resp := kmsg.NewPtrProduceResponse()
	resp.Topics = make([]kmsg.ProduceResponseTopic, len(q.topics))
	entries := make([]kmsg.ProduceResponseTopicPartition, len(q.partitions))
	waits := make([]durableWait, 0, len(q.partitions))
	failed := false
	verdicts := n.verifyProduced(ctx, r, q)
	for i, t := range q.topics {
		rt := &resp.Topics[i]
		topic, unknown := n.topicFor(r.Version >= 13, t.name, t.id)
		switch {
		case r.Version >= 13:
			rt.TopicID = t.id
		case unknown != nil:
			rt.Topic = strings.Clone(t.name) // its bytes belong to the frame
		default:
			rt.Topic = topic.Name
		}
		rt.Partitions = entries[t.first:t.past:t.past]
		for j, p := range q.partitions[t.first:t.past] {
			rp := &rt.Partitions[j]
			rp.Default()
			rp.Partition, rp.BaseOffset = p.partition, -1
			var log *storage.Log
			var appended storage.AppendResult
			err := unknown
			if err == nil {
				var verdict verified
				if verdicts != nil {
					verdict = verdicts[t.first+j]
				}
				log, appended, err = n.appendProduced(r, q, topic, p, verdict)
			}
			if err != nil {
				failed = true
				rp.ErrorCode, rp.ErrorMessage, rp.ErrorRecords = produceError(err)
				r.note(rp.ErrorCode)
				continue
			}
			rp.BaseOffset, rp.LogAppendTime, rp.LogStartOffset = appended.BaseOffset, appended.LogAppendTime, appended.LogStart
			if log.HighWatermark() <= appended.LastOffset {
				waits = append(waits, durableWait{log, appended.LastOffset, [2]int{i, j}})
			}
		}
	}
	if q.acks == 0 {
		if failed {
			return errClose
		}
		return nil
	}
	// The client's timeout is meant for followers. There are none here, and a
	// disk takes the time it takes.
	timeout := max(time.Duration(q.timeoutMillis)*time.Millisecond, leastProduceTimeout)
	deadline := r.started.Add(timeout)
	r.conn.later(pendingAck{version: r.Version, correlationID: r.CorrelationID, started: r.started, complete: func(ctx context.Context) kmsg.Response {
		awaitDurable(ctx, r, resp, waits, deadline)
		return resp
	}})
	return nil
}

// awaitDurable waits until every batch is below its high watermark. A batch
// that is not in time is REQUEST_TIMED_OUT: it stands in the log, the client
// does not know.
func awaitDurable(ctx context.Context, r *request, resp *kmsg.ProduceResponse, waits []durableWait, deadline time.Time) {
	if len(waits) == 0 {
		return
	}
	ctx, cancel := context.WithDeadline(ctx, deadline)
	defer cancel()
	for _, w := range waits {
		if w.log.HighWatermark() > w.last {
			continue
		}
		err := w.log.WaitDurable(ctx, w.last)
		if err == nil {
			continue
		}
		rp := &resp.Topics[w.at[0]].Partitions[w.at[1]]
		if errors.Is(err, context.DeadlineExceeded) || errors.Is(err, context.Canceled) {
			err = &kafkaError{code: kerr.RequestTimedOut.Code}
		}
		rp.ErrorCode, rp.ErrorMessage, rp.ErrorRecords = produceError(err)
		rp.BaseOffset, rp.LogAppendTime, rp.LogStartOffset = -1, -1, -1
		r.note(rp.ErrorCode)
	}
}

// appendProduced appends one partition's records.
func (n *Node) appendProduced(r *request, q *produceRequest, topic *replica.Topic, p producePartition, v verified) (*storage.Log, storage.AppendResult, error) {
	var none storage.AppendResult
	batch, err := producedBatch(r.Version, p.records)
	if err != nil {
		return nil, none, err
	}
	if q.acks < -1 || q.acks > 1 {
		return nil, none, &kafkaError{code: kerr.InvalidRequiredAcks.Code}
	}
	if topic.Internal && r.clientID() != adminClientID {
		return nil, none, &kafkaError{kerr.InvalidTopicException.Code, "Cannot append to internal topic " + topic.Name}
	}
	log, epoch, err := n.leading(topic, p.partition)
	if err != nil {
		return nil, none, err
	}
	switch {
	case batch.IsTransactional() && q.transactionalID == nil:
		return nil, none, &kafkaError{code: kerr.TransactionalIDAuthorizationFailed.Code}
	case v.err != nil:
		return nil, none, v.err
	}
	appended, err := log.Append(batch, epoch, storage.AppendOptions{FromClient: true, Verified: v.guard, InflateLimit: n.limits.InflateBytes})
	return log, appended, err
}

// producedBatch is the one batch that records must be, by the rules of
// ProduceRequest.validateRecords.
func producedBatch(version int16, records []byte) (wire.Batch, error) {
	invalid := func(rule string) error {
		return &kafkaError{kerr.InvalidRecord.Code, "Produce requests with version " + strconv.Itoa(int(version)) + " " + rule}
	}
	batch, rest, err := wire.NextBatch(records)
	var legacy *wire.LegacyMagicError
	switch {
	case errors.As(err, &legacy):
		return nil, invalid("are only allowed to contain record batches with magic version 2")
	case errors.Is(err, wire.ErrPartialBatch):
		return nil, invalid("must have at least one record batch per partition")
	case err != nil:
		return nil, &kafkaError{kerr.CorruptMessage.Code, err.Error()}
	case batch == nil:
		return nil, invalid("must have at least one record batch per partition")
	case batch.Codec() == wire.CodecZstd && version < 7:
		return nil, &kafkaError{kerr.UnsupportedCompressionType.Code, "Produce requests with version " + strconv.Itoa(int(version)) + " are not allowed to use ZStandard compression"}
	}
	if len(rest) > 0 {
		if _, _, err := wire.NextBatch(rest); !errors.Is(err, wire.ErrPartialBatch) {
			return nil, invalid("are only allowed to contain exactly one record batch per partition")
		}
	}
	return batch, nil
}

// produceError is what a partition's entry says about err.
func produceError(err error) (code int16, message *string, records []kmsg.ProduceResponseTopicPartitionErrorRecord) {
	code, message = errorCode(err)
	if refused, ok := errors.AsType[*storage.Error](err); ok {
		for _, e := range refused.RecordErrors {
			er := kmsg.NewProduceResponseTopicPartitionErrorRecord()
			er.RelativeOffset = e.Index
			if e.Message != "" {
				er.ErrorMessage = &e.Message
			}
			records = append(records, er)
		}
	}
	return code, message, records
}
