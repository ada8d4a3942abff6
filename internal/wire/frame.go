package wire

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
)

// growStep is what a frame may cost before any of its bytes have arrived.
const growStep = 1 << 20

// FrameSizeError says that a peer announced a frame that is negative or larger
// than we take. The stream cannot be followed any further.
type FrameSizeError struct {
	Size  int32
	Limit int32
}

func (e *FrameSizeError) Error() string {
	return fmt.Sprintf("frame of %d bytes is outside 0 to %d", e.Size, e.Limit)
}

// ReadFrame reads one frame, an int32 size and as many bytes, and returns the
// bytes. It reads into buf when its capacity allows.
//
// A size below zero or above limit (bytes) is a *FrameSizeError. A length that
// lies cannot make it allocate: beyond the first MiB the buffer at most doubles
// what has arrived. io.EOF means that the stream ended between two frames,
// io.ErrUnexpectedEOF that it ended within one.
func ReadFrame(r io.Reader, buf []byte, limit int32) ([]byte, error) {
	if cap(buf) < 4 {
		buf = make([]byte, 4)
	}
	buf = buf[:4]
	if _, err := io.ReadFull(r, buf); err != nil {
		return nil, err
	}
	size := int32(binary.BigEndian.Uint32(buf))
	if size < 0 || size > limit {
		return nil, &FrameSizeError{Size: size, Limit: limit}
	}
	return readGrowing(r, buf[:0], int(size))
}

// readGrowing reads n bytes into buf, replacing it by larger ones as bytes
// arrive. A stream that ends first is io.ErrUnexpectedEOF.
func readGrowing(r io.Reader, buf []byte, n int) ([]byte, error) {
	if cap(buf) < min(n, growStep) {
		buf = make([]byte, 0, min(n, growStep))
	}
	buf = buf[:0]
	for len(buf) < n {
		if len(buf) == cap(buf) {
			grown := make([]byte, len(buf), min(n, 2*cap(buf)))
			copy(grown, buf)
			buf = grown
		}
		next := buf[len(buf):min(n, cap(buf))]
		if _, err := io.ReadFull(r, next); err != nil {
			if errors.Is(err, io.EOF) {
				err = io.ErrUnexpectedEOF
			}
			return nil, err
		}
		buf = buf[:len(buf)+len(next)]
	}
	return buf, nil
}
