package coordinator

import (
	"encoding/binary"
	"fmt"
	"strings"
	"time"

	"github.com/twmb/franz-go/pkg/kmsg"

	"kmirror/internal/wire"
)

// The records of __transaction_state are Kafka's:
//
//	key    version 0: transactional id
//	value  version 0, or 1 (flexible; previous and next producer id and the
//	       client's transaction version are tags): the state of the id; null is
//	       a tombstone
//
// We write version 1, as Kafka does once transaction.version is finalized.
const (
	txnKeyVersion         = 0
	newestTxnValue        = 1
	writtenTxnValue       = 1
	maxReplayedPartitions = 1 << 20 // what one record may name; far above what is ever written
)

// records is a state as it is written: one record, a tombstone for a dead id.
func (t *Transaction) records(s *txnState, now time.Time) []wire.Record {
	k := kmsg.NewTxnMetadataKey()
	k.Version, k.TransactionalID = txnKeyVersion, t.id
	r := wire.Record{Timestamp: now.UnixMilli(), Key: k.AppendTo(nil)}
	if s.status == TxnDead {
		return []wire.Record{r}
	}
	v := kmsg.NewTxnMetadataValue()
	v.Version = writtenTxnValue
	v.ProducerID, v.ProducerEpoch, v.TimeoutMillis = s.producerID, s.epoch, s.timeout
	v.PreviousProducerID, v.NextProducerID = s.previousID, s.nextID
	v.State, v.ClientTransactionVersion = kmsg.TransactionState(s.status), s.version
	v.LastUpdateTimestamp, v.StartTimestamp = s.updated, s.started
	if s.status != TxnEmpty { // null then, as Kafka writes it
		v.Topics = []kmsg.TxnMetadataValueTopic{}
	}
	for _, tp := range sortedPartitions(s.partitions) {
		if n := len(v.Topics); n == 0 || v.Topics[n-1].Topic != tp.Topic {
			vt := kmsg.NewTxnMetadataValueTopic()
			vt.Topic = tp.Topic
			v.Topics = append(v.Topics, vt)
		}
		last := &v.Topics[len(v.Topics)-1]
		last.Partitions = append(last.Partitions, tp.Partition)
	}
	r.Value = v.AppendTo(nil)
	return []wire.Record{r}
}

// decodeTransaction reads a record of __transaction_state. A nil state is a
// tombstone; known is false for keys of a version that is not ours.
func decodeTransaction(r wire.Record) (id string, state *txnState, known bool, err error) {
	if len(r.Key) < 2 {
		return "", nil, false, fmt.Errorf("transaction record: key of %d bytes", len(r.Key))
	}
	if binary.BigEndian.Uint16(r.Key) != txnKeyVersion {
		return "", nil, false, nil
	}
	k := kmsg.NewTxnMetadataKey()
	if err := k.ReadFrom(r.Key); err != nil {
		return "", nil, true, fmt.Errorf("transaction key: %w", err)
	}
	id = strings.Clone(k.TransactionalID)
	if r.Value == nil {
		return id, nil, true, nil
	}
	if err := checkVersion("transaction", r.Value, newestTxnValue); err != nil {
		return id, nil, true, err
	}
	v := kmsg.NewTxnMetadataValue()
	if err := v.ReadFrom(r.Value); err != nil {
		return id, nil, true, fmt.Errorf("transaction of %q: %w", id, err)
	}
	s := &txnState{
		status: TxnStatus(v.State), producerID: v.ProducerID, epoch: v.ProducerEpoch, timeout: v.TimeoutMillis,
		previousID: v.PreviousProducerID, nextID: v.NextProducerID, version: v.ClientTransactionVersion,
		lastEpoch: noProducerEpoch, started: v.StartTimestamp, updated: v.LastUpdateTimestamp,
	}
	if v.Version == 0 {
		s.previousID, s.nextID, s.version = noProducerID, noProducerID, TransactionVersion0
	}
	if s.status < TxnEmpty || s.status > TxnCompleteAbort || s.producerID < 0 || s.epoch < 0 {
		return id, nil, true, fmt.Errorf("transaction of %q: state %d, producer %d, epoch %d", id, v.State, s.producerID, s.epoch)
	}
	for _, vt := range v.Topics {
		for _, p := range vt.Partitions {
			if len(s.partitions) >= maxReplayedPartitions {
				return id, nil, true, fmt.Errorf("transaction of %q: more than %d partitions", id, maxReplayedPartitions)
			}
			if s.partitions == nil {
				s.partitions = make(map[TopicPartition]bool)
			}
			s.partitions[TopicPartition{vt.Topic, p}] = true
		}
	}
	return id, s, true, nil
}

// Loaded goes on where the log ends: the markers of a decided transaction are
// written, again if need be.
func (t *Transaction) Loaded(now time.Time) []Effect {
	if t.state.status.decided() {
		t.mark(now)
	}
	return t.take()
}
