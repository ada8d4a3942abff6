package wire

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"math"
)

// BatchOptions say how [EncodeBatch] writes a batch. The zero value names
// producer 0; start from [Plain] for a batch without a producer.
type BatchOptions struct {
	Codec         Codec
	LogAppendTime bool // timestamps are the broker's: readers take the largest for all records
	Transactional bool
	Control       bool // a marker
	ProducerID    int64
	ProducerEpoch int16
	BaseSequence  int32
	LeaderEpoch   int32
	KeepOffsets   bool // the records keep their offsets, with the holes between them
}

// Plain are the options of a batch that no producer id numbers.
func Plain(codec Codec) BatchOptions {
	return BatchOptions{Codec: codec, ProducerID: -1, ProducerEpoch: -1, BaseSequence: -1, LeaderEpoch: -1}
}

// EncodeBatch appends records to dst as one batch and returns that batch, which
// aliases the capacity of dst when it suffices. Offsets count up from the first
// record's, unless KeepOffsets. There must be at least one record; offsets kept
// must ascend and span less than 2^31, and the whole must fit in 2^31-1 bytes.
func EncodeBatch(dst []byte, records []Record, o BatchOptions) (Batch, error) {
	if len(records) == 0 {
		return nil, errors.New("encode batch: no records")
	}
	if len(records) > math.MaxInt32 {
		return nil, fmt.Errorf("encode batch: %d records", len(records))
	}
	start := len(dst)
	dst = append(dst, make([]byte, BatchHeaderSize)...)
	base, baseTime, maxTime := records[0].Offset, records[0].Timestamp, records[0].Timestamp

	scratch := takeScratch()
	defer scratch.giveBack()
	payload := dst
	if o.Codec != CodecNone {
		payload = scratch.buf[:0]
	}
	var lastDelta int32
	for i := range records {
		r := &records[i]
		delta := int64(i)
		if o.KeepOffsets {
			delta = r.Offset - base
		}
		if delta > math.MaxInt32 || i > 0 && delta <= int64(lastDelta) {
			return nil, fmt.Errorf("encode batch: offset %d after %d in a batch from %d", base+delta, base+int64(lastDelta), base)
		}
		lastDelta = int32(delta)
		maxTime = max(maxTime, r.Timestamp)
		payload = appendRecord(payload, r, lastDelta, r.Timestamp-baseTime)
		if len(payload)-start > math.MaxInt32 {
			return nil, errors.New("encode batch: more than 2 GiB")
		}
	}
	if o.Codec == CodecNone {
		dst = payload
	} else {
		scratch.keep(payload)
		var err error
		if dst, err = Compress(dst, o.Codec, payload); err != nil {
			return nil, fmt.Errorf("encode batch: %w", err)
		}
		if len(dst)-start > math.MaxInt32 {
			return nil, errors.New("encode batch: more than 2 GiB")
		}
	}

	b := Batch(dst[start:len(dst):len(dst)])
	binary.BigEndian.PutUint64(b, uint64(base))
	binary.BigEndian.PutUint32(b[atLength:], uint32(len(b)-lengthCountsFrom))
	binary.BigEndian.PutUint32(b[atLeaderEpoch:], uint32(o.LeaderEpoch))
	b[atMagic] = 2
	b.setAttributes(o.attributes())
	binary.BigEndian.PutUint32(b[atLastDelta:], uint32(lastDelta))
	binary.BigEndian.PutUint64(b[atBaseTimestamp:], uint64(baseTime))
	binary.BigEndian.PutUint64(b[atMaxTimestamp:], uint64(maxTime))
	binary.BigEndian.PutUint64(b[atProducerID:], uint64(o.ProducerID))
	binary.BigEndian.PutUint16(b[atProducerEpoch:], uint16(o.ProducerEpoch))
	binary.BigEndian.PutUint32(b[atBaseSequence:], uint32(o.BaseSequence))
	binary.BigEndian.PutUint32(b[atRecordCount:], uint32(len(records)))
	binary.BigEndian.PutUint32(b[atCRC:], crc32.Checksum(b[atAttributes:], castagnoli))
	return b, nil
}

func (o BatchOptions) attributes() int16 {
	a := int16(o.Codec)
	if o.LogAppendTime {
		a |= bitLogAppendTime
	}
	if o.Transactional {
		a |= bitTransactional
	}
	if o.Control {
		a |= bitControl
	}
	return a
}

// appendRecord appends one record in the layout that nextRecord reads.
func appendRecord(dst []byte, r *Record, offsetDelta int32, timestampDelta int64) []byte {
	size := 1 + varintSize(timestampDelta) + varintSize(int64(offsetDelta)) +
		bytesSize(r.Key) + bytesSize(r.Value) + varintSize(int64(len(r.Headers)))
	for i := range r.Headers {
		h := &r.Headers[i]
		size += varintSize(int64(len(h.Key))) + len(h.Key) + bytesSize(h.Value)
	}
	dst = binary.AppendVarint(dst, int64(size))
	dst = append(dst, 0) // attributes
	dst = binary.AppendVarint(dst, timestampDelta)
	dst = binary.AppendVarint(dst, int64(offsetDelta))
	dst = appendBytes(dst, r.Key)
	dst = appendBytes(dst, r.Value)
	dst = binary.AppendVarint(dst, int64(len(r.Headers)))
	for i := range r.Headers {
		h := &r.Headers[i]
		dst = binary.AppendVarint(dst, int64(len(h.Key)))
		dst = append(dst, h.Key...)
		dst = appendBytes(dst, h.Value)
	}
	return dst
}

func appendBytes(dst, b []byte) []byte {
	if b == nil {
		return binary.AppendVarint(dst, -1)
	}
	dst = binary.AppendVarint(dst, int64(len(b)))
	return append(dst, b...)
}

func bytesSize(b []byte) int {
	if b == nil {
		return 1
	}
	return varintSize(int64(len(b))) + len(b)
}

// varintSize is the size of v as a zigzag varint.
func varintSize(v int64) int {
	u := uint64(v)<<1 ^ uint64(v>>63)
	n := 1
	for ; u >= 0x80; u >>= 7 {
		n++
	}
	return n
}
