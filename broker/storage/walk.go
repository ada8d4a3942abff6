package storage

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"sync"

	"kmirror/internal/wire"
)

const (
	walkBytes   = 4 << 10   // read at once when only headers are wanted
	verifyBytes = 256 << 10 // read at once when everything is
	checkedFrom = 21        // where the checksum's cover begins
)

// plausible says whether a batch header can be true with room bytes left from
// its beginning to the end of the file.
func plausible(h wire.Batch, room int64) error {
	length := int64(int32(binary.BigEndian.Uint32(h[8:])))
	switch {
	case h.Magic() != 2:
		return fmt.Errorf("format %d, not 2", h.Magic())
	case length < wire.BatchHeaderSize-12:
		return fmt.Errorf("length %d is less than a header", length)
	case length+12 > room:
		return fmt.Errorf("size %d with %d bytes left", length+12, room)
	case h.BaseOffset() < 0 || h.LastOffsetDelta() < 0 || h.LastOffset() < 0:
		return fmt.Errorf("offsets %d + %d", h.BaseOffset(), h.LastOffsetDelta())
	}
	return nil
}

// walker reads batch headers of a file from front to back.
type walker struct {
	file io.ReaderAt
	size int64 // of the file, as far as it counts
	at   int64 // position of buf[0]
	buf  []byte
	n    int
}

func newWalkers() *sync.Pool {
	return &sync.Pool{New: func() any { return &walker{buf: make([]byte, walkBytes)} }}
}

func (w *walker) reset(file io.ReaderAt, size int64) {
	w.file, w.size, w.at, w.n = file, size, 0, 0
}

// header returns the header at pos, valid until the next call. io.EOF means
// that pos is the end, *batchFault that what stands there cannot be a batch.
func (w *walker) header(pos int64) (wire.Batch, error) {
	if pos >= w.size {
		return nil, io.EOF
	}
	if w.size-pos < wire.BatchHeaderSize {
		return nil, &batchFault{pos, fmt.Errorf("%d bytes, less than a header", w.size-pos)}
	}
	if pos < w.at || pos+wire.BatchHeaderSize > w.at+int64(w.n) {
		n, err := w.file.ReadAt(w.buf[:min(int64(len(w.buf)), w.size-pos)], pos)
		if n < wire.BatchHeaderSize {
			w.n = 0
			if err == nil || errors.Is(err, io.EOF) {
				return nil, &batchFault{pos, io.ErrUnexpectedEOF}
			}
			return nil, err
		}
		w.at, w.n = pos, n
	}
	h := wire.Batch(w.buf[pos-w.at : pos-w.at+wire.BatchHeaderSize])
	if err := plausible(h, w.size-pos); err != nil {
		return nil, &batchFault{pos, err}
	}
	return h, nil
}

// batchFault says where a log file stops making sense.
type batchFault struct {
	pos int64
	err error
}

func (e *batchFault) Error() string { return fmt.Sprintf("batch at position %d: %v", e.pos, e.err) }
func (e *batchFault) Unwrap() error { return e.err }

// eachHeader hands every header from pos on to fn, which may end the walk with
// an error of its own.
func (w *walker) eachHeader(pos int64, fn func(pos int64, h wire.Batch) error) error {
	for {
		h, err := w.header(pos)
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		size := int64(h.Size())
		if err := fn(pos, h); err != nil {
			return err
		}
		pos += size
	}
}

// verify hands every header to fn after the whole batch was read and its
// checksum found right. It returns where the good batches end; the error says
// why that is not the end of the file (*batchFault, or that of fn as one), or
// that the file cannot be read.
func verify(file io.ReaderAt, size int64, fn func(pos int64, h wire.Batch) error) (good int64, err error) {
	w := &walker{buf: make([]byte, min(verifyBytes, max(size, wire.BatchHeaderSize)))}
	w.reset(file, size)
	table := crc32.MakeTable(crc32.Castagnoli)
	for good < size {
		h, err := w.header(good)
		if err != nil {
			return good, err
		}
		var header [wire.BatchHeaderSize]byte
		copy(header[:], h)
		h = header[:]
		sum, pos, end := uint32(0), good+checkedFrom, good+int64(h.Size())
		for pos < end {
			part, err := w.bytes(pos, end)
			if err != nil {
				return good, err
			}
			sum = crc32.Update(sum, table, part)
			pos += int64(len(part))
		}
		if sum != h.CRC() {
			return good, &batchFault{good, fmt.Errorf("checksum %08x, stored %08x", sum, h.CRC())}
		}
		if err := fn(good, h); err != nil {
			return good, &batchFault{good, err}
		}
		good = end
	}
	return good, nil
}

// bytes are some bytes from pos on, at least one, none at or after end.
func (w *walker) bytes(pos, end int64) ([]byte, error) {
	if pos < w.at || pos >= w.at+int64(w.n) {
		n, err := w.file.ReadAt(w.buf[:min(int64(len(w.buf)), w.size-pos)], pos)
		if n == 0 {
			w.n = 0
			if err == nil || errors.Is(err, io.EOF) {
				err = &batchFault{pos, io.ErrUnexpectedEOF}
			}
			return nil, err
		}
		w.at, w.n = pos, n
	}
	return w.buf[pos-w.at : min(int64(w.n), end-w.at)], nil
}
