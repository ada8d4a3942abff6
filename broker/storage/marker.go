package storage

import (
	"encoding/binary"
	"errors"
	"fmt"

	"kmirror/internal/wire"
)

// Marker ends a producer's transaction in one partition.
type Marker struct {
	ProducerID       int64
	Epoch            int16 // under transaction version 2 one above that of the transaction's records
	CoordinatorEpoch int32 // leader epoch of the transaction coordinator's partition
	Commit           bool  // else abort

	// TransactionVersion is the version that the transaction ran under. From 2
	// on (KIP-890, KIP-1228) the marker's epoch must be above the producer's,
	// else at or above it.
	TransactionVersion int16
}

// A control record, Kafka's EndTransactionMarker:
//
//	key:   version 2 (0), type 2 (0 abort, 1 commit)
//	value: version 2 (0), coordinator epoch 4
const (
	controlAbort  = 0
	controlCommit = 1

	markerKeySize   = 4
	markerValueSize = 6
	maxControlBatch = 64 << 10 // larger ones are none that Kafka writes
)

// encode makes the control batch of m, to be given its offset.
func (m Marker) encode(now int64) (wire.Batch, error) {
	kind := uint16(controlAbort)
	if m.Commit {
		kind = controlCommit
	}
	key := binary.BigEndian.AppendUint16(make([]byte, 2, markerKeySize), kind)
	value := binary.BigEndian.AppendUint32(make([]byte, 2, markerValueSize), uint32(m.CoordinatorEpoch))
	return wire.EncodeBatch(nil, []wire.Record{{Timestamp: now, Key: key, Value: value}}, wire.BatchOptions{
		Transactional: true, Control: true, ProducerID: m.ProducerID, ProducerEpoch: m.Epoch, BaseSequence: -1, LeaderEpoch: -1,
	})
}

// decodeMarker reads a whole control batch. ok is false when it ends no
// transaction: a control record of another type, or none left.
func decodeMarker(b wire.Batch) (m Marker, ok bool, err error) {
	m = Marker{ProducerID: b.ProducerID(), Epoch: b.ProducerEpoch(), CoordinatorEpoch: -1}
	if b.NumRecords() == 0 {
		return m, false, nil
	}
	records, err := b.Records(maxControlBatch)
	if err != nil {
		return m, false, fmt.Errorf("control batch at offset %d: %w", b.BaseOffset(), err)
	}
	if len(records) == 0 {
		return m, false, nil
	}
	key, value := records[0].Key, records[0].Value
	if len(key) < markerKeySize {
		return m, false, fmt.Errorf("control batch at offset %d: key of %d bytes", b.BaseOffset(), len(key))
	}
	switch kind := binary.BigEndian.Uint16(key[2:]); kind {
	case controlAbort:
	case controlCommit:
		m.Commit = true
	default:
		return m, false, nil
	}
	if len(value) < markerValueSize {
		return m, false, fmt.Errorf("control batch at offset %d: value of %d bytes", b.BaseOffset(), len(value))
	}
	if int16(binary.BigEndian.Uint16(key)) < 0 || int16(binary.BigEndian.Uint16(value)) < 0 {
		return m, false, errors.New("control record of a negative version")
	}
	m.CoordinatorEpoch = int32(binary.BigEndian.Uint32(value[2:]))
	return m, true, nil
}
