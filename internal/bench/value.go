package bench

import (
	"encoding/binary"
	"encoding/hex"
	"strconv"
	"time"

	"kmirror/internal/wire"
)

// block is how much of a value repeats its pattern: names as JSON has them, and
// what only this record says.
const block = 1024

// maker makes records. It is owned by one goroutine.
type maker struct {
	w     Workload
	state uint64
	batch []wire.Record
	bytes []byte // of the batch's keys and values
	out   []byte // the encoded batch
}

// random is xorshift64*: fast, and the same for the same seed.
func (m *maker) random() uint64 {
	m.state ^= m.state >> 12
	m.state ^= m.state << 25
	m.state ^= m.state >> 27
	return m.state * 2685821657736338717
}

// encode makes the batch of so many records from the given number on. It is
// valid until the next call.
func (m *maker) encode(first, records int64, now time.Time) (wire.Batch, error) {
	m.batch, m.bytes = m.batch[:0], m.bytes[:0]
	need := int(records) * (m.w.RecordSize + block)
	if cap(m.bytes) < need { // once: a batch's slices alias it
		m.bytes = make([]byte, 0, need)
	}
	for i := range records {
		number := first + i
		m.state = uint64(number)*0x9e3779b97f4a7c15 + 0x1234567
		r := wire.Record{Offset: i, Timestamp: now.UnixMilli() + i%7, Key: m.key(number), Value: m.value(number)}
		if number%16 == 0 {
			r.Headers = []wire.Header{{Key: "trace", Value: r.Key}, {Key: "none"}}
		}
		m.batch = append(m.batch, r)
	}
	batch, err := wire.EncodeBatch(m.out[:0], m.batch, wire.Plain(m.w.Codec))
	if err == nil {
		m.out = batch
	}
	return batch, err
}

func (m *maker) key(number int64) []byte {
	if m.w.Keys > 0 {
		number = int64(m.random() % uint64(m.w.Keys))
	}
	start := len(m.bytes)
	m.bytes = append(m.bytes, "key-"...)
	m.bytes = strconv.AppendInt(m.bytes, number, 10)
	return m.bytes[start:len(m.bytes):len(m.bytes)]
}

// value is text as JSON has it: of every KiB a fifth repeats, and the rest is
// hexadecimal digits, which a codec with entropy coding halves.
func (m *maker) value(number int64) []byte {
	const names = `"type":"order.updated","currency":"EUR","customer":{"name":"A. Customer","country":"DE"},"delivered":false,"items":[{"sku":"0000-0000","count":1,"price":{"amount":1299,"scale":2}}],"payload":"`
	start := len(m.bytes)
	end := start + m.w.RecordSize
	for len(m.bytes) < end {
		stop := min(end, len(m.bytes)+block)
		m.bytes = append(m.bytes, `{"id":"`...)
		m.bytes = strconv.AppendInt(m.bytes, number, 10)
		m.bytes = append(m.bytes, `",`...)
		m.bytes = append(m.bytes, names...)
		for len(m.bytes) < stop {
			m.bytes = hex.AppendEncode(m.bytes, binary.LittleEndian.AppendUint64(nil, m.random()))
		}
		if len(m.bytes) > stop {
			m.bytes = m.bytes[:stop]
		}
		if stop-2 > start {
			copy(m.bytes[stop-2:], `"}`)
		}
	}
	return m.bytes[start:end:end]
}
