package wire

import (
	"bufio"
	"encoding/binary"
	"math"
	"net"
	"time"
)

// writeStep is how much must leave within one request timeout.
const writeStep = 1 << 20

// frameWriter writes request frames. It is owned by whoever holds the
// connection's writing token.
type frameWriter struct {
	nc          net.Conn
	timeout     time.Duration
	coalesce    *bufio.Writer // set where small writes are dear (TLS) and there is no writev
	correlation int32
	header      []byte
	pieces      net.Buffers // the pieces of the current step
	work        net.Buffers // what WriteTo consumes
}

func newFrameWriter(nc net.Conn, timeout time.Duration) frameWriter {
	w := frameWriter{nc: nc, timeout: timeout}
	if _, ok := nc.(*net.TCPConn); !ok {
		w.coalesce = bufio.NewWriterSize(nc, 32<<10)
	}
	return w
}

// nextCorrelation is 1, 2, ... and 0 after 2^31-1.
func (w *frameWriter) nextCorrelation() int32 {
	w.correlation = (w.correlation + 1) & math.MaxInt32
	return w.correlation
}

// write writes one frame, body of the given size, in steps of their own deadline.
func (w *frameWriter) write(h RequestHeader, body net.Buffers, size int) error {
	w.header = AppendRequestHeader(append(w.header[:0], 0, 0, 0, 0), h)
	binary.BigEndian.PutUint32(w.header, uint32(len(w.header)-4+size))
	w.pieces = append(w.pieces[:0], w.header)
	room := writeStep
	for _, piece := range body {
		for len(piece) >= room { // the step is full
			w.pieces = append(w.pieces, piece[:room])
			if err := w.flush(); err != nil {
				return err
			}
			piece, room = piece[room:], writeStep
		}
		if len(piece) > 0 {
			w.pieces = append(w.pieces, piece)
			room -= len(piece)
		}
	}
	return w.flush()
}

func (w *frameWriter) flush() error {
	defer func() { // no reference to the caller's bytes stays behind
		clear(w.pieces)
		w.pieces = w.pieces[:0]
	}()
	if len(w.pieces) == 0 {
		return nil
	}
	if err := w.nc.SetWriteDeadline(time.Now().Add(w.timeout)); err != nil {
		return err
	}
	if w.coalesce == nil {
		w.work = w.pieces
		_, err := w.work.WriteTo(w.nc) // writev
		return err
	}
	for _, piece := range w.pieces {
		if _, err := w.coalesce.Write(piece); err != nil {
			return err
		}
	}
	return w.coalesce.Flush()
}
