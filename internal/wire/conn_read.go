package wire

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"time"

	"github.com/twmb/franz-go/pkg/kmsg"
)

// readBuffer holds small responses whole; large bodies go past it into their
// own buffers, but for the little that came with their first bytes.
const readBuffer = 4 << 10

// lowWater is how much of a body should have arrived before its reader is woken
// to take it, where the system can do that: a wake-up and a read for each of the
// few packets that arrive at a time cost more than the copy itself.
const lowWater = 1 << 20

// read is the reader goroutine: it hands responses to their calls until the
// connection ends.
func (c *Conn) read() {
	defer close(c.joined)
	line := &patientReader{c: c, mark: newLowWaterMark(c.nc)}
	in := bufio.NewReaderSize(line, readBuffer)
	for {
		if err := c.readResponse(in, line); err != nil {
			c.fail(err)
			return
		}
	}
}

func (c *Conn) readResponse(in *bufio.Reader, line *patientReader) error {
	prefix, err := in.Peek(8)
	if err != nil {
		return c.readFault(err, len(prefix) > 0)
	}
	size, correlation := readSize(prefix)
	if size < 4 || size > c.maxResponse {
		return &FrameSizeError{Size: size, Limit: c.maxResponse}
	}
	call := c.head()
	switch {
	case call == nil:
		return corrupt("response %d to no request", correlation)
	case call.correlation != correlation:
		return corrupt("response %d where %d to %s is next", correlation, call.correlation, kmsg.NameForKey(call.key))
	}
	if _, err := in.Discard(8); err != nil {
		return c.readFault(err, true)
	}
	n := int(size) - 4
	if flexibleResponse(call.key, call.version) {
		if n, err = discardTags(in, n); err != nil {
			return c.readFault(err, true)
		}
	}
	body, err := readBody(in, line, n, call.alloc)
	if err != nil {
		return c.readFault(err, true)
	}
	if c.dequeue() {
		call.finish(body, nil)
	}
	return nil
}

// readBody reads n bytes into a buffer from alloc, or into one that grows as
// they arrive.
func readBody(in *bufio.Reader, line *patientReader, n int, alloc func(int) []byte) ([]byte, error) {
	if alloc == nil {
		return readGrowing(in, nil, n)
	}
	body := alloc(n)
	if body == nil {
		return readGrowing(in, nil, n)
	}
	body = body[:n]
	first, err := in.Read(body[:min(n, in.Buffered())])
	if err != nil {
		return body, err
	}
	return body, line.fill(body[first:])
}

// discardTags skips the tagged fields of a response header v1 and returns how
// many of the n bytes of the response are left.
func discardTags(in *bufio.Reader, n int) (int, error) {
	if none, err := in.Peek(1); err == nil && n > 0 && none[0] == 0 { // nearly always
		_, err = in.Discard(1)
		return n - 1, err
	}
	limited := &countedBytes{in: in, left: n}
	count, err := binary.ReadUvarint(limited)
	for ; err == nil && count > 0; count-- {
		var size uint64
		if _, err = binary.ReadUvarint(limited); err != nil {
			break
		}
		if size, err = binary.ReadUvarint(limited); err != nil {
			break
		}
		if size > uint64(limited.left) {
			return 0, corrupt("response tag of %d bytes with %d left", size, limited.left)
		}
		limited.left -= int(size)
		_, err = in.Discard(int(size))
	}
	return limited.left, err
}

// countedBytes are the bytes of one response header.
type countedBytes struct {
	in   *bufio.Reader
	left int
}

func (b *countedBytes) ReadByte() (byte, error) {
	if b.left == 0 {
		return 0, corrupt("response header cut off")
	}
	b.left--
	return b.in.ReadByte()
}

// readFault words the end of the stream. within says that it came inside a response.
func (c *Conn) readFault(err error, within bool) error {
	head := c.head()
	switch {
	case errors.Is(err, os.ErrDeadlineExceeded) && head != nil:
		return fmt.Errorf("%s is unanswered: nothing came for %s: %w", kmsg.NameForKey(head.key), c.timeout, err)
	case errors.Is(err, io.EOF) && within, errors.Is(err, io.ErrUnexpectedEOF):
		return fmt.Errorf("the broker closed it within a response: %w", io.ErrUnexpectedEOF)
	case errors.Is(err, io.EOF):
		return fmt.Errorf("the broker closed it: %w", io.EOF)
	default:
		return fmt.Errorf("read: %w", err)
	}
}

// patientReader extends the read deadline while a response keeps arriving: a
// large one on a slow line is late, not lost.
type patientReader struct {
	c    *Conn
	last time.Time // of the last extension
	mark *lowWaterMark
}

func (p *patientReader) Read(b []byte) (int, error) {
	n, err := p.c.nc.Read(b)
	if n > 0 {
		if now := time.Now(); now.Sub(p.last) > p.c.timeout/8 {
			p.last = now
			p.c.stillArriving()
		}
	}
	return n, err
}

// fill reads until b is full, waking up for large parts only.
func (p *patientReader) fill(b []byte) error {
	large := true
	for len(b) > 0 {
		if large {
			p.mark.set(min(len(b), lowWater))
		}
		n, err := p.Read(b)
		b = b[n:]
		switch {
		case err == nil:
		case errors.Is(err, io.EOF):
			return io.ErrUnexpectedEOF
		case errors.Is(err, os.ErrDeadlineExceeded) && p.mark.high():
			// Less than the mark came in all that time. If it was anything, the
			// line is slow, and the rest is read as it comes.
			large = false
			p.mark.set(1)
			_ = p.c.nc.SetReadDeadline(time.Now().Add(10 * time.Millisecond))
			p.last = time.Time{}
		default:
			return err
		}
	}
	p.mark.set(1)
	return nil
}

// stillArriving extends the deadline if an answer is expected at all.
func (c *Conn) stillArriving() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.pending.len() > 0 {
		c.extend()
	}
}
