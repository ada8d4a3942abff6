package storage

import (
	"io"
	"os"
	"syscall"
)

// send moves the Slice to a socket within the kernel, with an explicit offset:
// the position of a file that several readers share is nobody's. done is false
// when w is no socket.
func (s *Slice) send(w io.Writer) (written int64, err error, done bool) {
	conn, ok := w.(interface {
		syscall.Conn
		io.ReaderFrom // sockets have it, pipes and TLS do not
	})
	if !ok {
		return 0, nil, false
	}
	if _, isFile := w.(*os.File); isFile {
		return 0, nil, false
	}
	raw, err := conn.SyscallConn()
	if err != nil {
		return 0, err, true
	}
	from := int(s.File().Fd())
	var sendErr error
	err = raw.Write(func(to uintptr) bool {
		for written < int64(s.Len) {
			offset := s.Pos + written
			n, err := syscall.Sendfile(int(to), from, &offset, int(min(int64(s.Len)-written, 1<<30)))
			if n > 0 {
				written += int64(n)
			}
			switch {
			case err == syscall.EINTR:
			case err == syscall.EAGAIN:
				return false // wait until the socket takes more
			case err != nil:
				sendErr = os.NewSyscallError("sendfile", err)
				return true
			case n == 0:
				sendErr = io.ErrUnexpectedEOF
				return true
			}
		}
		return true
	})
	if err == nil {
		err = sendErr
	}
	return written, err, true
}
