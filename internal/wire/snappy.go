package wire

import (
	"bytes"
	"encoding/binary"

	"github.com/klauspost/compress/snappy"
)

// xerialMagic begins the framing of Java's snappy library: this magic, two
// int32 versions, then chunks of an int32 size and one snappy block each.
const (
	xerialMagic  = "\x82SNAPPY\x00"
	xerialHeader = len(xerialMagic) + 8
)

// maxSnappyRatio is above what any snappy block expands to: a copy of three
// bytes yields at most 64.
const maxSnappyRatio = 64

func unsnappy(dst, src []byte, limit int) ([]byte, error) {
	start := len(dst)
	if !bytes.HasPrefix(src, []byte(xerialMagic)) {
		return unsnappyBlock(dst, src, start, limit)
	}
	for len(src) > 0 {
		if bytes.HasPrefix(src, []byte(xerialMagic)) { // once, or more often when streams are joined
			if len(src) < xerialHeader {
				return nil, corrupt("snappy: framing header cut off")
			}
			src = src[xerialHeader:]
			continue
		}
		if len(src) < 4 {
			return nil, corrupt("snappy: chunk size cut off")
		}
		size := int32(binary.BigEndian.Uint32(src))
		src = src[4:]
		if size < 0 || int(size) > len(src) {
			return nil, corrupt("snappy: chunk of %d bytes with %d left", size, len(src))
		}
		var err error
		if dst, err = unsnappyBlock(dst, src[:size], start, limit); err != nil {
			return nil, err
		}
		src = src[size:]
	}
	return dst, nil
}

func unsnappyBlock(dst, block []byte, start, limit int) ([]byte, error) {
	size, err := snappy.DecodedLen(block)
	switch {
	case err != nil:
		return nil, corrupt("snappy: %v", err)
	case size > start+limit-len(dst):
		return nil, &InflateError{Codec: CodecSnappy, Limit: limit}
	case size > maxSnappyRatio*len(block):
		return nil, corrupt("snappy: %d bytes cannot hold %d", len(block), size)
	}
	dst = reserve(dst, max(size, min(len(dst)-start, 1<<20)), start, limit)
	end := len(dst) + size
	if _, err := snappy.Decode(dst[len(dst):end:end], block); err != nil {
		return nil, corrupt("snappy: %v", err)
	}
	return dst[:end], nil
}
