package storage

import (
	"errors"
	"io"
	"os"
	"sync"
)

// Slice is a run of bytes of a log file: whole batches, of which the last may
// be cut where the limit was reached. The zero Slice is empty. A Slice that is
// not empty keeps its file open and must be released.
type Slice struct {
	Pos         int64 // where it begins in the file
	Len         int
	FirstOffset int64 // base offset of the first batch, at or below the offset asked for
	FirstSize   int   // size of the first batch

	handle *handle
	copies *sync.Pool
}

// Release gives the file back. The Slice is not used after that.
func (s *Slice) Release() {
	if s.handle != nil {
		s.handle.release()
		s.handle = nil
	}
}

// File is the open file, nil for an empty Slice. Its own position is shared:
// read it with explicit offsets only.
func (s *Slice) File() *os.File {
	if s.handle == nil {
		return nil
	}
	return s.handle.file.OS()
}

// ReadAt reads from the Slice at off, counted from its beginning.
func (s *Slice) ReadAt(p []byte, off int64) (int, error) {
	if off < 0 || off > int64(s.Len) {
		return 0, io.EOF
	}
	wanted := p[:min(int64(len(p)), int64(s.Len)-off)]
	if len(wanted) == 0 && len(p) > 0 {
		return 0, io.EOF
	}
	n, err := s.handle.file.ReadAt(wanted, s.Pos+off)
	if n == len(wanted) && (err == nil || errors.Is(err, io.EOF)) {
		if err = nil; n < len(p) {
			err = io.EOF
		}
		return n, err
	}
	if errors.Is(err, io.EOF) {
		err = io.ErrUnexpectedEOF
	}
	return n, err
}

// Bytes reads the Slice into dst, which grows when it has no room.
func (s *Slice) Bytes(dst []byte) ([]byte, error) {
	start := len(dst)
	if cap(dst)-start < s.Len {
		dst = append(dst, make([]byte, s.Len)...)
	} else {
		dst = dst[:start+s.Len]
	}
	if s.Len == 0 {
		return dst, nil
	}
	_, err := s.ReadAt(dst[start:], 0)
	return dst, err
}

// copyBytes is the buffer with which a Slice is copied where the kernel cannot.
const copyBytes = 128 << 10

// WriteTo writes the whole Slice to w, by sendfile when w is a TCP connection
// and the system knows how.
func (s *Slice) WriteTo(w io.Writer) (written int64, err error) {
	if s.Len == 0 {
		return 0, nil
	}
	if n, err, done := s.send(w); done {
		return n, err
	}
	buf := s.copies.Get().(*[]byte)
	defer s.copies.Put(buf)
	for written < int64(s.Len) {
		part := (*buf)[:min(int64(len(*buf)), int64(s.Len)-written)]
		if _, err := s.ReadAt(part, written); err != nil && !errors.Is(err, io.EOF) {
			return written, err
		}
		n, err := w.Write(part)
		written += int64(n)
		if err != nil {
			return written, err
		}
	}
	return written, nil
}

func newCopies() *sync.Pool {
	return &sync.Pool{New: func() any {
		b := make([]byte, copyBytes)
		return &b
	}}
}
