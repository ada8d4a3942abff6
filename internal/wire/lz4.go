package wire

import (
	"encoding/binary"
	"errors"

	"github.com/pierrec/lz4/v4"
)

// LZ4 frame: magic, flags, block descriptor, [content size], header checksum,
// blocks of (size, bytes, [checksum]) up to a size of 0, [content checksum].
//
// Blocks are decoded straight into the destination, so that neither a frame's
// declared block size nor its content size costs more than the limit. The
// frame's own xxHash checksums are not verified: the batch's CRC covers the
// same bytes, and message format 0 is known for wrong header checksums.
const (
	lz4Magic            = 0x184D2204 // little-endian, like all of the frame
	lz4FlagIndependent  = 0x20
	lz4FlagBlockSum     = 0x10
	lz4FlagContentSize  = 0x08
	lz4FlagContentSum   = 0x04
	lz4FlagDictionary   = 0x01
	lz4Uncompressed     = 1 << 31 // in a block's size
	lz4MinHeader        = 7
	lz4DictionaryWindow = 64 << 10
)

func unlz4(dst, src []byte, limit int) ([]byte, error) {
	start := len(dst)
	for first := true; first || len(src) > 0; first = false {
		if len(src) < lz4MinHeader || binary.LittleEndian.Uint32(src) != lz4Magic {
			return nil, corrupt("lz4: no frame header")
		}
		flags, blockCode := src[4], src[5]>>4&7
		if flags>>6 != 1 || flags&lz4FlagDictionary != 0 || blockCode < 4 {
			return nil, corrupt("lz4: flags %02x, block code %d", flags, blockCode)
		}
		f := lz4Frame{flags: flags, blockMax: 64 << 10 << (2 * (blockCode - 4)), start: len(dst)}
		header := lz4MinHeader
		if flags&lz4FlagContentSize != 0 {
			header += 8
		}
		if len(src) < header {
			return nil, corrupt("lz4: frame header cut off")
		}
		var err error
		if dst, src, err = f.decode(dst, src[header:], start, limit); err != nil {
			return nil, err
		}
	}
	return dst, nil
}

// lz4Frame is one frame while it is decoded.
type lz4Frame struct {
	flags    byte
	blockMax int
	start    int // where in the destination the frame's content begins
}

// decode appends the blocks at the start of src and returns what follows the frame.
func (f lz4Frame) decode(dst, src []byte, start, limit int) (out, rest []byte, err error) {
	trailer := 0
	if f.flags&lz4FlagBlockSum != 0 {
		trailer = 4
	}
	for {
		if len(src) < 4 {
			return nil, nil, corrupt("lz4: block size cut off")
		}
		word := binary.LittleEndian.Uint32(src)
		src = src[4:]
		if word == 0 {
			break
		}
		size := int(word &^ lz4Uncompressed)
		if size > f.blockMax || size+trailer > len(src) {
			return nil, nil, corrupt("lz4: block of %d bytes with %d left", size, len(src))
		}
		block := src[:size]
		src = src[size+trailer:]
		if word&lz4Uncompressed != 0 {
			if size > start+limit-len(dst) {
				return nil, nil, &InflateError{Codec: CodecLZ4, Limit: limit}
			}
			dst = append(reserve(dst, size, start, limit), block...)
			continue
		}
		if dst, err = f.block(dst, block, start, limit); err != nil {
			return nil, nil, err
		}
	}
	if f.flags&lz4FlagContentSum != 0 {
		if len(src) < 4 {
			return nil, nil, corrupt("lz4: content checksum cut off")
		}
		src = src[4:]
	}
	return dst, src, nil
}

// block appends one compressed block.
func (f lz4Frame) block(dst, block []byte, start, limit int) ([]byte, error) {
	// A byte of a block yields at most 255.
	room := min(f.blockMax, 255*len(block), start+limit-len(dst))
	if cap(dst)-len(dst) < room {
		dst = reserve(dst, max(room, min(len(dst)-start, maxScratch)), start, limit)
	}
	var dictionary []byte
	if f.flags&lz4FlagIndependent == 0 {
		dictionary = dst[max(f.start, len(dst)-lz4DictionaryWindow):]
	}
	n, err := lz4.UncompressBlockWithDict(block, dst[len(dst):len(dst)+room], dictionary)
	switch {
	case errors.Is(err, lz4.ErrInvalidSourceShortBuffer) && room == start+limit-len(dst):
		return nil, &InflateError{Codec: CodecLZ4, Limit: limit} // or corrupt: it cannot be told without more room
	case err != nil:
		return nil, corrupt("lz4: %v", err)
	}
	return dst[:len(dst)+n], nil
}
