package wire

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"math"
	"slices"
)

// MergeBatches appends to dst one batch that holds the records of several, in
// their order and with offsets that count up from 0, and returns it. Keys,
// values, headers and timestamps stay as they are; of the uncompressed records
// only the varints before the key are written anew, compressed ones are
// inflated (to at most limit bytes in all, *InflateError beyond) and compressed
// again, together. Nothing is allocated but what dst lacks.
//
// The batches must be of one codec, with the producer's timestamps, and neither
// transactional, control batches nor with holes in their offsets; what the
// producer fields of the result say comes from e. Each checksum is verified
// first: a mismatch, and everything else that cannot be true, is a
// *CorruptError.
func MergeBatches(dst []byte, batches []Batch, e HeaderEdit, limit int) (Batch, error) {
	if len(batches) == 0 {
		return nil, errors.New("merge batches: none")
	}
	first := batches[0]
	m := merger{baseTime: first.BaseTimestamp(), maxTime: math.MinInt64}
	codec := first.Codec()
	start := len(dst)
	dst = slices.Grow(dst, BatchHeaderSize)[:start+BatchHeaderSize]
	var inflated, merged *scratch
	if codec == CodecNone {
		m.payload = dst
	} else {
		inflated, merged = takeScratch(), takeScratch()
		defer inflated.giveBack()
		defer merged.giveBack()
		m.payload = merged.buf[:0]
	}
	for _, b := range batches {
		if err := m.check(b, codec); err != nil {
			return nil, err
		}
		payload := []byte(b[BatchHeaderSize:])
		if codec != CodecNone {
			var err error
			if payload, err = Decompress(inflated.buf[:0], codec, payload, limit-len(m.payload)); err != nil {
				return nil, err
			}
			inflated.keep(payload)
		}
		if err := m.add(b, payload); err != nil {
			return nil, err
		}
		if len(m.payload) > math.MaxInt32-BatchHeaderSize {
			return nil, errors.New("merge batches: more than 2 GiB")
		}
	}
	if codec == CodecNone {
		dst = m.payload
	} else {
		merged.keep(m.payload)
		var err error
		if dst, err = Compress(dst, codec, m.payload); err != nil {
			return nil, fmt.Errorf("merge batches: %w", err)
		}
	}
	b := Batch(dst[start:len(dst):len(dst)])
	b.SetBaseOffset(0)
	binary.BigEndian.PutUint32(b[atLength:], uint32(len(b)-lengthCountsFrom))
	b.SetLeaderEpoch(-1)
	b[atMagic] = 2
	b.setAttributes(int16(codec))
	binary.BigEndian.PutUint32(b[atLastDelta:], uint32(m.records-1))
	binary.BigEndian.PutUint64(b[atBaseTimestamp:], uint64(m.baseTime))
	binary.BigEndian.PutUint64(b[atMaxTimestamp:], uint64(m.maxTime))
	binary.BigEndian.PutUint64(b[atProducerID:], uint64(e.ProducerID))
	binary.BigEndian.PutUint16(b[atProducerEpoch:], uint16(e.ProducerEpoch))
	binary.BigEndian.PutUint32(b[atBaseSequence:], uint32(e.BaseSequence))
	binary.BigEndian.PutUint32(b[atRecordCount:], uint32(m.records))
	binary.BigEndian.PutUint32(b[atCRC:], crc32.Checksum(b[atAttributes:], castagnoli))
	return b, nil
}

// Mergeable says whether a batch can be merged with others of its codec.
func (b Batch) Mergeable() bool {
	return b.Attributes()&^(codecMask|bitTransactional) == 0 && !b.IsControl() && b.NumRecords() > 0 && b.LastOffsetDelta() == b.NumRecords()-1
}

// merger gathers records.
type merger struct {
	payload  []byte
	baseTime int64
	maxTime  int64
	records  int32
}

func (m *merger) check(b Batch, codec Codec) error {
	if !b.Mergeable() || b.Codec() != codec {
		return fmt.Errorf("merge batches: the one at offset %d is of another kind", b.BaseOffset())
	}
	if b.NumRecords() > math.MaxInt32-m.records {
		return errors.New("merge batches: too many records")
	}
	m.maxTime = max(m.maxTime, b.MaxTimestamp())
	return b.CheckCRC()
}

// add appends the records in payload, which b says it holds.
func (m *merger) add(b Batch, payload []byte) error {
	shift, count := b.BaseTimestamp()-m.baseTime, b.NumRecords()
	for i := range count {
		r, rest, err := nextRecord(payload)
		if err != nil {
			return corrupt("batch at offset %d, record %d of %d: %v", b.BaseOffset(), i+1, count, err)
		}
		if r.OffsetDelta != i {
			return corrupt("batch at offset %d, record %d of %d: offset delta %d", b.BaseOffset(), i+1, count, r.OffsetDelta)
		}
		stamp := r.TimestampDelta + shift
		tail := payload[r.keyAt:r.Size]
		m.payload = binary.AppendVarint(m.payload, int64(1+varintSize(stamp)+varintSize(int64(m.records))+len(tail)))
		m.payload = append(m.payload, payload[r.attributesAt])
		m.payload = binary.AppendVarint(m.payload, stamp)
		m.payload = binary.AppendVarint(m.payload, int64(m.records))
		m.payload = append(m.payload, tail...)
		m.records++
		payload = rest
	}
	if len(payload) > 0 {
		return corrupt("batch at offset %d: %d bytes behind the last of %d records", b.BaseOffset(), len(payload), count)
	}
	return nil
}
