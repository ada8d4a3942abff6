package wire

import (
	"encoding/binary"
)

// cursor takes the fields of a message off its bytes, one after another, without
// copying. A field that is not there, or that says it is longer than what is
// left, makes it bad for good: everything it returns from then on is zero, so
// that the caller need ask only once in a while.
type cursor struct {
	rest     []byte
	flexible bool
	bad      bool
}

func (c *cursor) take(n int) []byte {
	if n < 0 || n > len(c.rest) {
		c.rest, c.bad = nil, true
		return nil
	}
	b := c.rest[:n:n]
	c.rest = c.rest[n:]
	return b
}

func (c *cursor) int16() int16 {
	if b := c.take(2); b != nil {
		return int16(binary.BigEndian.Uint16(b))
	}
	return 0
}

func (c *cursor) int32() int32 {
	if b := c.take(4); b != nil {
		return int32(binary.BigEndian.Uint32(b))
	}
	return 0
}

func (c *cursor) int64() int64 {
	if b := c.take(8); b != nil {
		return int64(binary.BigEndian.Uint64(b))
	}
	return 0
}

func (c *cursor) id() (id [16]byte) {
	copy(id[:], c.take(16))
	return id
}

// uvarint is at most 2^32-1: nothing in the protocol is longer.
func (c *cursor) uvarint() uint32 {
	v, n := binary.Uvarint(c.rest)
	if n <= 0 || v > 1<<32-1 {
		c.rest, c.bad = nil, true
		return 0
	}
	c.rest = c.rest[n:]
	return uint32(v)
}

// array is the length of an array whose elements take at least size bytes each;
// -1 is null. One that cannot be there is refused before anybody counts on it.
func (c *cursor) array(size int) int {
	var n int64
	if c.flexible {
		n = int64(c.uvarint()) - 1
	} else {
		n = int64(c.int32())
	}
	if n < -1 || n > int64(len(c.rest)/size) {
		c.rest, c.bad = nil, true
	}
	if c.bad {
		return 0
	}
	return int(n)
}

// bytes is a byte string with a length of 32 bits or a compact one; null is nil.
func (c *cursor) bytes() []byte {
	var n int64
	if c.flexible {
		n = int64(c.uvarint()) - 1
	} else {
		n = int64(c.int32())
	}
	return c.string(n)
}

// text is a string with a length of 16 bits or a compact one; null is nil.
func (c *cursor) text() []byte {
	if c.flexible {
		return c.string(int64(c.uvarint()) - 1)
	}
	return c.string(int64(c.int16()))
}

func (c *cursor) string(n int64) []byte {
	switch {
	case c.bad, n == -1:
		return nil
	case n < 0 || n > int64(len(c.rest)):
		c.rest, c.bad = nil, true
		return nil
	}
	return c.take(int(n))
}

// tags skips the tagged fields where there are some.
func (c *cursor) tags() {
	if !c.flexible {
		return
	}
	for n := c.uvarint(); n > 0 && !c.bad; n-- {
		c.uvarint()
		c.take(int(c.uvarint()))
	}
}
