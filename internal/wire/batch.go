package wire

import (
	"encoding/binary"
	"hash/crc32"
	"math"
)

// Record batch, message format 2 (KIP-98). Base offset and leader epoch cost
// nothing to rewrite: they stand before the checked bytes.
//
//	 0             8        12             16      17    21
//	 +-------------+--------+--------------+-------+-----+-----------------+
//	 | base offset | length | leader epoch | magic | crc | see below       |
//	 +-------------+--------+--------------+-------+-----+-----------------+
//	                                                     |<- crc covers -->
//	21           23                  27               35              43
//	 +------------+-------------------+----------------+---------------+
//	 | attributes | last offset delta | base timestamp | max timestamp |
//	 +------------+-------------------+----------------+---------------+
//	43            51               53              57        61
//	 +-------------+----------------+---------------+---------+----------
//	 | producer id | producer epoch | base sequence | records | records...
//	 +-------------+----------------+---------------+---------+----------
//
// The length counts what follows it. All integers are big-endian.
const (
	atLength         = 8
	atLeaderEpoch    = 12
	atMagic          = 16
	atCRC            = 17
	atAttributes     = 21 // the first byte under the checksum
	atLastDelta      = 23
	atBaseTimestamp  = 27
	atMaxTimestamp   = 35
	atProducerID     = 43
	atProducerEpoch  = 51
	atBaseSequence   = 53
	atRecordCount    = 57
	lengthCountsFrom = 12
)

// BatchHeaderSize is the size in bytes of a batch that holds no record.
const BatchHeaderSize = 61

// Attribute bits of a batch.
const (
	codecMask        = 0x07
	bitLogAppendTime = 0x08
	bitTransactional = 0x10
	bitControl       = 0x20
	bitDeleteHorizon = 0x40
)

// Batch is exactly one whole record batch of format 2, as [NextBatch] or
// [EncodeBatch] returned it. Its accessors read the header where it stands;
// those of a slice that is anything else may panic.
type Batch []byte

// NextBatch splits the first batch off buf; b and rest alias it. The header is
// checked for contradictions, the checksum is not (see [Batch.CheckCRC]).
//
// The error is ErrPartialBatch when buf ends before the batch does (also when
// it is empty), *LegacyMagicError when a message of format 0 or 1 comes next,
// and *CorruptError when the header cannot be true.
func NextBatch(buf []byte) (b Batch, rest []byte, err error) {
	if len(buf) <= atMagic {
		return nil, buf, ErrPartialBatch
	}
	switch magic := int8(buf[atMagic]); magic {
	case 2:
	case 0, 1:
		return nil, buf, &LegacyMagicError{Magic: magic}
	default:
		return nil, buf, corrupt("batch of unknown format %d", magic)
	}
	length := int32(binary.BigEndian.Uint32(buf[atLength:]))
	if length < BatchHeaderSize-lengthCountsFrom {
		return nil, buf, corrupt("batch length %d is less than a header", length)
	}
	if int64(length)+lengthCountsFrom > int64(len(buf)) {
		return nil, buf, ErrPartialBatch
	}
	size := int(length) + lengthCountsFrom
	b = Batch(buf[:size:size])
	switch {
	case b.BaseOffset() < 0:
		return nil, buf, corrupt("base offset %d", b.BaseOffset())
	case b.LastOffsetDelta() < 0:
		return nil, buf, corrupt("last offset delta %d", b.LastOffsetDelta())
	case b.BaseOffset() > math.MaxInt64-int64(b.LastOffsetDelta()):
		return nil, buf, corrupt("last offset of base %d and delta %d", b.BaseOffset(), b.LastOffsetDelta())
	case b.NumRecords() < 0:
		return nil, buf, corrupt("%d records", b.NumRecords())
	}
	return b, buf[size:], nil
}

// BaseOffset is the offset of the first record that the batch was written with.
func (b Batch) BaseOffset() int64 { return int64(binary.BigEndian.Uint64(b)) }

// Size is the whole size of the batch in bytes.
func (b Batch) Size() int {
	return int(int32(binary.BigEndian.Uint32(b[atLength:]))) + lengthCountsFrom
}

// LeaderEpoch is the epoch of the leader that appended the batch, -1 from a
// client.
func (b Batch) LeaderEpoch() int32 { return int32(binary.BigEndian.Uint32(b[atLeaderEpoch:])) }

// Magic is the message format: 2.
func (b Batch) Magic() int8 { return int8(b[atMagic]) }

// CRC is the stored CRC-32C of everything from the attributes on.
func (b Batch) CRC() uint32 { return binary.BigEndian.Uint32(b[atCRC:]) }

// Attributes are the flags of the batch.
func (b Batch) Attributes() int16 { return int16(binary.BigEndian.Uint16(b[atAttributes:])) }

// LastOffsetDelta is the distance from the base offset to the last offset that
// the batch takes, which compaction keeps when it removes the last record.
func (b Batch) LastOffsetDelta() int32 { return int32(binary.BigEndian.Uint32(b[atLastDelta:])) }

// LastOffset is the last offset that the batch takes.
func (b Batch) LastOffset() int64 { return b.BaseOffset() + int64(b.LastOffsetDelta()) }

// BaseTimestamp is what the records' timestamp deltas count from, in Unix
// milliseconds. With HasDeleteHorizon it is that horizon.
func (b Batch) BaseTimestamp() int64 { return int64(binary.BigEndian.Uint64(b[atBaseTimestamp:])) }

// MaxTimestamp is the largest timestamp of the batch in Unix milliseconds, or
// the timestamp of all records with IsLogAppendTime; -1 when there is none.
func (b Batch) MaxTimestamp() int64 { return int64(binary.BigEndian.Uint64(b[atMaxTimestamp:])) }

// ProducerID is the id of the idempotent producer, -1 without one.
func (b Batch) ProducerID() int64 { return int64(binary.BigEndian.Uint64(b[atProducerID:])) }

// ProducerEpoch is the epoch of the idempotent producer, -1 without one.
func (b Batch) ProducerEpoch() int16 { return int16(binary.BigEndian.Uint16(b[atProducerEpoch:])) }

// BaseSequence is the sequence number of the first record, -1 without one.
func (b Batch) BaseSequence() int32 { return int32(binary.BigEndian.Uint32(b[atBaseSequence:])) }

// LastSequence is the sequence number of the last offset of the batch; sequence
// numbers go from 2^31-1 to 0. It is -1 without a base sequence.
func (b Batch) LastSequence() int32 {
	first := b.BaseSequence()
	if first < 0 {
		return -1
	}
	return int32((int64(first) + int64(b.LastOffsetDelta())) & math.MaxInt32)
}

// NumRecords is the number of records that the batch holds, fewer than its
// offsets when compaction removed some.
func (b Batch) NumRecords() int32 { return int32(binary.BigEndian.Uint32(b[atRecordCount:])) }

// Codec is how the records are compressed; it may be none that we know.
func (b Batch) Codec() Codec { return Codec(b.Attributes() & codecMask) }

// IsTransactional reports whether the batch belongs to a transaction.
func (b Batch) IsTransactional() bool { return b.Attributes()&bitTransactional != 0 }

// IsControl reports whether the batch is a marker and not data.
func (b Batch) IsControl() bool { return b.Attributes()&bitControl != 0 }

// IsLogAppendTime reports whether the broker set the timestamps.
func (b Batch) IsLogAppendTime() bool { return b.Attributes()&bitLogAppendTime != 0 }

// HasDeleteHorizon reports whether compaction stored in the base timestamp when
// the batch's tombstones may go (KIP-534).
func (b Batch) HasDeleteHorizon() bool { return b.Attributes()&bitDeleteHorizon != 0 }

// CheckCRC computes the checksum over the whole batch and compares; a mismatch
// is a *CorruptError.
func (b Batch) CheckCRC() error {
	if sum := crc32.Checksum(b[atAttributes:], castagnoli); sum != b.CRC() {
		return corrupt("batch at offset %d: checksum %08x, stored %08x", b.BaseOffset(), sum, b.CRC())
	}
	return nil
}
