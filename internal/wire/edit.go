package wire

import (
	"encoding/binary"
	"hash/crc32"
)

// HeaderEdit is what [Batch.Rewrite] writes into a header.
type HeaderEdit struct {
	ProducerID         int64
	ProducerEpoch      int16
	BaseSequence       int32
	ClearTransactional bool // make a plain batch of a transactional one
}

// SetBaseOffset moves the batch to another offset. The checksum does not cover it.
func (b Batch) SetBaseOffset(offset int64) { binary.BigEndian.PutUint64(b, uint64(offset)) }

// SetLeaderEpoch sets the epoch of the appending leader. The checksum does not cover it.
func (b Batch) SetLeaderEpoch(epoch int32) {
	binary.BigEndian.PutUint32(b[atLeaderEpoch:], uint32(epoch))
}

// Rewrite makes the batch one that a producer of ours would send: base offset
// 0, leader epoch -1, and the producer fields of e. The stored checksum is
// carried over by algebra: it stays as right or wrong as it was. The payload is
// not read and nothing is allocated.
func (b Batch) Rewrite(e HeaderEdit) {
	b.SetBaseOffset(0)
	b.SetLeaderEpoch(-1)
	old := b.headerSum()
	if e.ClearTransactional {
		b.setAttributes(b.Attributes() &^ bitTransactional)
	}
	binary.BigEndian.PutUint64(b[atProducerID:], uint64(e.ProducerID))
	binary.BigEndian.PutUint16(b[atProducerEpoch:], uint16(e.ProducerEpoch))
	binary.BigEndian.PutUint32(b[atBaseSequence:], uint32(e.BaseSequence))
	b.carrySum(old)
}

// SetLogAppendTime gives all records the timestamp ts, in Unix milliseconds, as
// a broker does for message.timestamp.type=LogAppendTime. The checksum is
// carried over as in Rewrite.
func (b Batch) SetLogAppendTime(ts int64) {
	old := b.headerSum()
	b.setAttributes(b.Attributes() | bitLogAppendTime)
	binary.BigEndian.PutUint64(b[atMaxTimestamp:], uint64(ts))
	b.carrySum(old)
}

// SetMaxTimestamp sets the largest timestamp, in Unix milliseconds. The
// checksum is carried over as in Rewrite.
func (b Batch) SetMaxTimestamp(ts int64) {
	old := b.headerSum()
	binary.BigEndian.PutUint64(b[atMaxTimestamp:], uint64(ts))
	b.carrySum(old)
}

func (b Batch) setAttributes(a int16) { binary.BigEndian.PutUint16(b[atAttributes:], uint16(a)) }

// headerSum is the checksum of the checked part of the header alone.
func (b Batch) headerSum() uint32 {
	return crc32.Checksum(b[atAttributes:BatchHeaderSize], castagnoli)
}

// carrySum corrects the stored checksum for what changed in the header since
// its own checksum was old.
func (b Batch) carrySum(old uint32) {
	difference := ShiftCRC(old^b.headerSum(), len(b)-BatchHeaderSize)
	binary.BigEndian.PutUint32(b[atCRC:], b.CRC()^difference)
}
