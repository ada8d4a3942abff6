package checkpoint

import (
	"encoding/binary"
	"math"
)

// reader takes a record key or value apart. The first fault sticks in bad and
// turns everything after it into zeros, so that a decoder reads straight on
// and asks once, at the end.
type reader struct {
	buf     []byte
	bad     string
	version byte              // of a value
	names   map[string]string // not nil: the strings that were read already
}

// maxNames bounds the strings that are kept for those to come.
const maxNames = 1 << 16

func (r *reader) fail(reason string) {
	if r.bad == "" {
		r.bad = reason
	}
	r.buf = nil
}

func (r *reader) byte() byte {
	if len(r.buf) == 0 {
		r.fail("cut short")
		return 0
	}
	b := r.buf[0]
	r.buf = r.buf[1:]
	return b
}

func (r *reader) uvarint() uint64 {
	v, n := binary.Uvarint(r.buf)
	if n <= 0 {
		r.fail("bad varint")
		return 0
	}
	r.buf = r.buf[n:]
	return v
}

func (r *reader) varint() int64 {
	v, n := binary.Varint(r.buf)
	if n <= 0 {
		r.fail("bad varint")
		return 0
	}
	r.buf = r.buf[n:]
	return v
}

// int64 reads an unsigned varint that must fit a non-negative int64.
func (r *reader) int64() int64 {
	v := r.uvarint()
	if v > math.MaxInt64 {
		r.fail("number out of range")
		return 0
	}
	return int64(v)
}

func (r *reader) uint32() uint32 {
	v := r.uvarint()
	if v > math.MaxUint32 {
		r.fail("number out of range")
		return 0
	}
	return uint32(v)
}

func (r *reader) int32() int32 {
	v := r.uvarint()
	if v > math.MaxInt32 {
		r.fail("number out of range")
		return 0
	}
	return int32(v)
}

func (r *reader) int16() int16 {
	v := r.uvarint()
	if v > math.MaxInt16 {
		r.fail("number out of range")
		return 0
	}
	return int16(v)
}

// sum adds two non-negative offsets, and faults when the sum is none.
func (r *reader) sum(a, b int64) int64 {
	if a > math.MaxInt64-b {
		r.fail("number out of range")
		return 0
	}
	return a + b
}

// count reads a number of items of which each takes at least size bytes, so
// that a lie about it cannot make us allocate more than was sent.
func (r *reader) count(size int) int {
	v := r.uvarint()
	if v > uint64(len(r.buf)/size) {
		r.fail("count larger than the record")
		return 0
	}
	return int(v)
}

func (r *reader) string() string {
	n := r.count(1)
	text := r.buf[:n]
	r.buf = r.buf[n:]
	if s, ok := r.names[string(text)]; ok {
		return s
	}
	s := string(text)
	if r.names != nil && len(r.names) < maxNames {
		r.names[s] = s
	}
	return s
}

func (r *reader) id() (id [16]byte) {
	if len(r.buf) < len(id) {
		r.fail("cut short")
		return id
	}
	r.buf = r.buf[copy(id[:], r.buf):]
	return id
}

// end faults when something is left.
func (r *reader) end() {
	if r.bad == "" && len(r.buf) > 0 {
		r.fail("trailing bytes")
	}
}

func appendString(dst []byte, s string) []byte {
	return append(binary.AppendUvarint(dst, uint64(len(s))), s...)
}
