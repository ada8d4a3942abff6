package wire

import (
	"encoding/binary"
	"math"
)

// minRecordSize is the least that a record takes: seven varints of one byte.
const minRecordSize = 7

// Header is one header of a record. A nil Value is null.
type Header struct {
	Key   string
	Value []byte
}

// Record is one record with its absolute offset and timestamp (Unix
// milliseconds, -1 for none). A nil Key or Value is null.
type Record struct {
	Offset    int64
	Timestamp int64
	Key       []byte
	Value     []byte
	Headers   []Header
}

// RawRecord is a record as it stands in its batch. Its slices are valid only
// during the call that hands it over.
type RawRecord struct {
	OffsetDelta    int32
	TimestampDelta int64
	Key            []byte // nil: null
	Value          []byte // nil: null
	NumHeaders     int
	Size           int // bytes in the uncompressed batch, its length prefix included

	headers      []byte
	attributesAt int // where they stand in the record
	keyAt        int // where the key's length does
}

// EachRecord walks the records of the batch without decoding them into objects
// and hands each to fn, whose error ends the walk and is returned as it is.
// Uncompressed records are read where they stand; compressed ones are inflated
// into a pooled buffer, to at most limit bytes (*InflateError beyond).
//
// It is a *CorruptError when lengths, the record count or the order of the
// offset deltas (ascending, within LastOffsetDelta) cannot be true; records
// before the fault have been handed over by then.
func (b Batch) EachRecord(limit int, fn func(RawRecord) error) error {
	if b.Codec() == CodecNone {
		return b.walk(b[BatchHeaderSize:], fn)
	}
	scratch := takeScratch()
	defer scratch.giveBack()
	payload, err := Decompress(scratch.buf[:0], b.Codec(), b[BatchHeaderSize:], limit)
	if err != nil {
		return err
	}
	scratch.keep(payload)
	return b.walk(payload, fn)
}

// Records decodes all records of the batch. Those of an uncompressed batch
// alias it; those of a compressed one share one buffer of at most limit bytes
// (*InflateError beyond). What EachRecord finds corrupt is corrupt here too,
// the headers included. The checksum is not verified: see CheckCRC.
func (b Batch) Records(limit int) ([]Record, error) {
	payload := []byte(b[BatchHeaderSize:])
	if b.Codec() != CodecNone {
		var err error
		if payload, err = inflate(b.Codec(), payload, limit); err != nil {
			return nil, err
		}
	}
	base, baseTime, appendTime := b.BaseOffset(), b.BaseTimestamp(), b.IsLogAppendTime()
	records := make([]Record, 0, min(int(b.NumRecords()), len(payload)/minRecordSize))
	err := b.walk(payload, func(r RawRecord) error {
		headers, err := r.decodeHeaders()
		if err != nil {
			return err
		}
		timestamp := baseTime + r.TimestampDelta
		if appendTime {
			timestamp = b.MaxTimestamp()
		}
		records = append(records, Record{
			Offset:    base + int64(r.OffsetDelta),
			Timestamp: timestamp,
			Key:       r.Key,
			Value:     r.Value,
			Headers:   headers,
		})
		return nil
	})
	if err != nil {
		return nil, err
	}
	return records, nil
}

// walk reads the uncompressed records in payload.
func (b Batch) walk(payload []byte, fn func(RawRecord) error) error {
	count, last := b.NumRecords(), b.LastOffsetDelta()
	rest := payload
	previous := int32(-1)
	for i := range count {
		r, after, err := nextRecord(rest)
		if err != nil {
			return corrupt("batch at offset %d, record %d of %d: %v", b.BaseOffset(), i+1, count, err)
		}
		if r.OffsetDelta <= previous || r.OffsetDelta > last {
			return corrupt("batch at offset %d, record %d of %d: offset delta %d after %d, last is %d",
				b.BaseOffset(), i+1, count, r.OffsetDelta, previous, last)
		}
		previous = r.OffsetDelta
		if err := fn(r); err != nil {
			return err
		}
		rest = after
	}
	if len(rest) > 0 {
		return corrupt("batch at offset %d: %d bytes behind the last of %d records", b.BaseOffset(), len(rest), count)
	}
	return nil
}

// nextRecord splits the first record off b.
func nextRecord(b []byte) (r RawRecord, rest []byte, err error) {
	length, n := varint(b)
	if n == 0 || length < 0 || int(length) > len(b)-n {
		return r, nil, corrupt("record length")
	}
	r.Size = n + int(length)
	body, rest := b[n:r.Size:r.Size], b[r.Size:]
	if len(body) == 0 {
		return r, nil, corrupt("empty record")
	}
	r.attributesAt = n
	body = body[1:] // attributes, unused so far
	if r.TimestampDelta, n = binary.Varint(body); n <= 0 {
		return r, nil, corrupt("timestamp delta")
	}
	body = body[n:]
	if r.OffsetDelta, n = varint(body); n == 0 {
		return r, nil, corrupt("offset delta")
	}
	body = body[n:]
	r.keyAt = r.Size - len(body)
	if r.Key, body, err = takeBytes(body, "key"); err != nil {
		return r, nil, err
	}
	if r.Value, body, err = takeBytes(body, "value"); err != nil {
		return r, nil, err
	}
	headers, n := varint(body)
	if n == 0 || headers < 0 || int(headers) > (len(body)-n)/2 { // a header takes two bytes at least
		return r, nil, corrupt("header count")
	}
	r.NumHeaders, r.headers = int(headers), body[n:]
	if headers == 0 && len(r.headers) > 0 {
		return r, nil, corrupt("%d bytes behind a record", len(r.headers))
	}
	return r, rest, nil
}

// decodeHeaders decodes the headers; nil when there are none.
func (r *RawRecord) decodeHeaders() ([]Header, error) {
	if r.NumHeaders == 0 {
		return nil, nil
	}
	headers := make([]Header, r.NumHeaders)
	rest := r.headers
	for i := range headers {
		key, after, err := takeBytes(rest, "header key")
		if err != nil {
			return nil, err
		}
		if key == nil {
			return nil, corrupt("header key is null")
		}
		value, after, err := takeBytes(after, "header value")
		if err != nil {
			return nil, err
		}
		headers[i], rest = Header{Key: string(key), Value: value}, after
	}
	if len(rest) > 0 {
		return nil, corrupt("%d bytes behind the headers", len(rest))
	}
	return headers, nil
}

// varint reads a zigzag varint of 32 bits; n is 0 when there is none.
func varint(b []byte) (v int32, n int) {
	long, n := binary.Varint(b)
	if n <= 0 || long < math.MinInt32 || long > math.MaxInt32 {
		return 0, 0
	}
	return int32(long), n
}

// takeBytes reads a varint length and as many bytes; -1 is null, and nil.
func takeBytes(b []byte, what string) (value, rest []byte, err error) {
	length, n := varint(b)
	if n == 0 || length < -1 || int(length) > len(b)-n {
		return nil, nil, corrupt("%s length", what)
	}
	if length == -1 {
		return nil, b[n:], nil
	}
	end := n + int(length)
	return b[n:end:end], b[end:], nil
}
