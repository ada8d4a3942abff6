package wire

import (
	"encoding/binary"
	"errors"
	"hash/crc32"
)

// Message formats 0 and 1, before record batches:
//
//	0        8      12    16      17           18            26
//	+--------+------+-----+-------+------------+-------------+-----+-------+
//	| offset | size | crc | magic | attributes | [timestamp] | key | value |
//	+--------+------+-----+-------+------------+-------------+-----+-------+
//	                      |<---------------- crc covers (CRC-32) --------->|
//
// Format 1 has the timestamp (KIP-32). Key and value are an int32 size, -1 for
// null, and bytes. A compressed message is a wrapper: its value holds a whole
// message set. Offsets inside a wrapper of format 0 are absolute, those of
// format 1 relative, and the wrapper's own offset is that of the last of them.
const (
	atLegacyCRC  = 12
	atLegacyAttr = 17
	atLegacyBody = 18
	legacyEntry  = 12 // offset and size
	legacyLeast  = 14 // size of an empty message of format 0
)

// DecodeLegacy decodes the messages of format 0 or 1 at the start of buf, as
// many as there are before the first record batch, the cut end of buf or a
// change of logAppendTime, and returns what follows them as rest. Compressed
// wrappers are opened; all wrappers of one call inflate to at most limit bytes
// (*InflateError beyond). Records of wrappers own their bytes, the others alias
// buf. Messages of format 0 have no time: Timestamp is -1.
//
// An error is returned only when nothing could be decoded before it:
// ErrPartialBatch for a cut message, *CorruptError for a wrong CRC-32 or wrong
// lengths. A fault behind good messages is found by the next call, with rest.
func DecodeLegacy(buf []byte, limit int) (records []Record, logAppendTime bool, rest []byte, err error) {
	rest = buf
	for {
		m, after, err := nextLegacy(rest)
		if err != nil {
			return endLegacy(records, logAppendTime, rest, err)
		}
		appendTime := m.attributes&bitLogAppendTime != 0 && m.magic == 1
		if records != nil && appendTime != logAppendTime {
			return records, logAppendTime, rest, nil
		}
		if codec := Codec(m.attributes & codecMask); codec == CodecNone {
			records = append(records, m.record)
		} else {
			inner, inflated, err := m.open(codec, limit)
			if err != nil {
				return endLegacy(records, logAppendTime, rest, err)
			}
			limit -= inflated
			records = append(records, inner...)
		}
		logAppendTime, rest = appendTime, after
		if len(rest) == 0 || records == nil { // nil: an empty wrapper
			return records, logAppendTime, rest, nil
		}
	}
}

// endLegacy keeps a fault for the next call when there are records to hand out.
func endLegacy(records []Record, logAppendTime bool, rest []byte, err error) ([]Record, bool, []byte, error) {
	if len(records) > 0 {
		return records, logAppendTime, rest, nil
	}
	return nil, false, rest, err
}

// legacyMessage is one entry of a message set.
type legacyMessage struct {
	magic      int8
	attributes int8
	record     Record
}

// nextLegacy splits the first message off buf and verifies its checksum.
func nextLegacy(buf []byte) (m legacyMessage, rest []byte, err error) {
	if len(buf) <= atMagic {
		return m, buf, ErrPartialBatch
	}
	m.magic = int8(buf[atMagic])
	if m.magic != 0 && m.magic != 1 {
		return m, buf, corrupt("message of format %d among those of format 0 or 1", m.magic)
	}
	size := int32(binary.BigEndian.Uint32(buf[atLength:]))
	if size < legacyLeast {
		return m, buf, corrupt("message size %d", size)
	}
	if int64(size) > int64(len(buf)-legacyEntry) {
		return m, buf, ErrPartialBatch
	}
	end := legacyEntry + int(size)
	whole, rest := buf[:end:end], buf[end:]
	m.record.Offset = int64(binary.BigEndian.Uint64(whole))
	if m.record.Offset < 0 {
		return m, buf, corrupt("message offset %d", m.record.Offset)
	}
	stored := binary.BigEndian.Uint32(whole[atLegacyCRC:])
	if sum := crc32.ChecksumIEEE(whole[atMagic:]); sum != stored {
		return m, buf, corrupt("message at offset %d: checksum %08x, stored %08x", m.record.Offset, sum, stored)
	}
	m.attributes = int8(whole[atLegacyAttr])
	m.record.Timestamp = -1
	body := whole[atLegacyBody:]
	if m.magic == 1 {
		if len(body) < 8 {
			return m, buf, corrupt("message at offset %d: timestamp cut off", m.record.Offset)
		}
		m.record.Timestamp = int64(binary.BigEndian.Uint64(body))
		body = body[8:]
	}
	if m.record.Key, body, err = takeLegacyBytes(body); err == nil {
		m.record.Value, body, err = takeLegacyBytes(body)
	}
	if err != nil || len(body) > 0 {
		return m, buf, corrupt("message at offset %d: lengths of key and value", m.record.Offset)
	}
	return m, rest, nil
}

// open decodes the messages inside a wrapper. The second result is how many
// bytes they took uncompressed.
func (m legacyMessage) open(codec Codec, limit int) ([]Record, int, error) {
	if codec > CodecLZ4 {
		return nil, 0, corrupt("message at offset %d: %s in message format %d", m.record.Offset, codec, m.magic)
	}
	set, err := inflate(codec, m.record.Value, limit)
	if err != nil {
		return nil, 0, err
	}
	var records []Record
	for rest := set; len(rest) > 0; {
		inner, after, err := nextLegacy(rest)
		switch {
		case errors.Is(err, ErrPartialBatch):
			return nil, 0, corrupt("message at offset %d: a message inside is cut off", m.record.Offset)
		case err != nil:
			return nil, 0, err
		case inner.magic != m.magic:
			return nil, 0, corrupt("message at offset %d: format %d inside format %d", m.record.Offset, inner.magic, m.magic)
		case inner.attributes&codecMask != 0:
			return nil, 0, corrupt("message at offset %d: a compressed message inside a compressed one", m.record.Offset)
		}
		if m.magic == 1 && m.attributes&bitLogAppendTime != 0 {
			inner.record.Timestamp = m.record.Timestamp
		}
		records = append(records, inner.record)
		rest = after
	}
	if len(records) == 0 {
		return nil, len(set), nil
	}
	if m.magic == 1 {
		base := m.record.Offset - records[len(records)-1].Offset
		for i := range records {
			if records[i].Offset += base; records[i].Offset < 0 {
				return nil, 0, corrupt("message at offset %d: an offset inside is %d", m.record.Offset, records[i].Offset)
			}
		}
	}
	return records, len(set), nil
}

func takeLegacyBytes(b []byte) (value, rest []byte, err error) {
	if len(b) < 4 {
		return nil, nil, ErrPartialBatch
	}
	size := int32(binary.BigEndian.Uint32(b))
	b = b[4:]
	switch {
	case size == -1:
		return nil, b, nil
	case size < 0 || int(size) > len(b):
		return nil, nil, ErrPartialBatch
	}
	return b[:size:size], b[size:], nil
}
