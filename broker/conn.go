package broker

import (
	"bufio"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"github.com/twmb/franz-go/pkg/kmsg"

	"kmirror/internal/wire"
)

const (
	readBuffer   = 4 << 10
	readStep     = 1 << 20          // a request must arrive at this many bytes per stepTimeout
	stepTimeout  = 30 * time.Second // for one step of a request, and for one write of a response
	maxPipelined = 64               // produce requests of one connection that wait for the disk
	freeRequest  = 16 << 10         // requests up to this size are not charged to the budget
	keptOutput   = 256 << 10        // a response buffer larger than this is not kept
)

// errClose ends a connection without a word in the log: the protocol asks for it.
var errClose = errors.New("the protocol asks to close the connection")

// conn is one client connection. One goroutine reads requests and serves them
// one after the other, as Kafka does; a second one, started with the first
// Produce, answers produce requests once their batches are durable, so that
// several of them share an fsync. Responses leave in the order of the requests:
// whatever is not a Produce waits until all produce responses are out.
type conn struct {
	node   *Node
	net    net.Conn
	in     *bufio.Reader
	remote string

	// Of the reading goroutine, used again for every request.
	out        []byte
	produce    produceRequest
	fetch      fetchReader
	fetchHead  []byte
	fetchMarks []int

	acks        chan pendingAck // to the answering goroutine; nil until the first Produce
	startAnswer func()          // starts it
	outstanding sync.WaitGroup  // produce responses not yet written
	answering   sync.WaitGroup  // the answering goroutine
	broken      atomic.Bool     // a response could not be written
}

// pendingAck is a produce response in waiting.
type pendingAck struct {
	version       int16
	correlationID int32
	started       time.Time
	complete      func(context.Context) kmsg.Response
}

// request is one request as its handler sees it.
type request struct {
	wire.RequestHeader

	conn    *conn
	body    []byte // valid until the handler returns
	started time.Time
	api     *api
}

// clientID is the client's own name, or "".
func (r *request) clientID() string {
	if r.ClientID == nil {
		return ""
	}
	return *r.ClientID
}

// serve reads and answers until the connection ends. It returns nil when the
// client went away between two requests or the node is draining: then ctx has
// ended, which lets parked requests go, while hard lasts until what was
// accepted has been answered.
func (c *conn) serve(ctx, hard context.Context) error {
	c.startAnswer = func() { c.answering.Go(func() { c.answer(hard) }) }
	defer c.finish()
	for {
		frame, charged, err := c.read(ctx)
		if err != nil {
			return err
		}
		if frame == nil {
			return nil
		}
		err = c.handle(ctx, frame, charged)
		if err != nil {
			return err
		}
		if c.broken.Load() || c.node.draining.Load() {
			return nil
		}
	}
}

// finish writes what is still owed and joins the answering goroutine.
func (c *conn) finish() {
	if c.acks != nil {
		close(c.acks)
		c.answering.Wait()
	}
}

// read returns the next request frame, or nil when the connection ended in
// order. Bytes beyond freeRequest are charged to the node's budget: the reader
// waits until there is room.
func (c *conn) read(ctx context.Context) (frame []byte, charged int64, err error) {
	if c.in.Buffered() < 4 {
		if err := c.net.SetReadDeadline(time.Now().Add(c.node.settings.idle)); err != nil {
			return nil, 0, fmt.Errorf("set read deadline: %w", err)
		}
		if c.node.draining.Load() { // asked after the deadline is set, because drain sets one as well
			return nil, 0, nil
		}
		if head, err := c.in.Peek(4); err != nil {
			if len(head) > 0 && errors.Is(err, io.EOF) {
				return nil, 0, fmt.Errorf("read request size: %w", io.ErrUnexpectedEOF)
			}
			return nil, 0, nil // closed by the client, idle too long, or draining
		}
	}
	head, err := c.in.Peek(4)
	if err != nil {
		return nil, 0, fmt.Errorf("read request size: %w", err)
	}
	size := int32(binary.BigEndian.Uint32(head))
	if size < 8 || size > c.node.limits.RequestBytes {
		return nil, 0, &frameError{size: size, limit: c.node.limits.RequestBytes, head: [4]byte(head)}
	}
	if _, err := c.in.Discard(4); err != nil {
		return nil, 0, fmt.Errorf("read request size: %w", err)
	}

	if size > freeRequest {
		charged = min(int64(size), c.node.limits.InFlightBytes)
		if err := c.node.budget.Acquire(ctx, charged); err != nil {
			return nil, 0, errClose // draining
		}
	}
	frame = c.node.buffers.get(int(size))
	for rest := frame; len(rest) > 0; {
		step := rest[:min(len(rest), readStep)]
		if c.in.Buffered() < len(step) {
			err = c.net.SetReadDeadline(time.Now().Add(stepTimeout))
		}
		if err == nil {
			_, err = io.ReadFull(c.in, step)
		}
		if err != nil {
			c.release(frame, charged)
			if errors.Is(err, os.ErrDeadlineExceeded) && c.node.draining.Load() {
				return nil, 0, nil
			}
			return nil, 0, fmt.Errorf("read request of %d bytes: %w", size, err)
		}
		rest = rest[len(step):]
	}
	c.node.metrics.bytesIn.Add(float64(size) + 4)
	return frame, charged, nil
}

// release gives a frame and its share of the budget back.
func (c *conn) release(frame []byte, charged int64) {
	if charged > 0 {
		c.node.budget.Release(charged)
	}
	if frame != nil {
		c.node.buffers.put(frame)
	}
}

// handle serves one request. An error ends the connection.
func (c *conn) handle(ctx context.Context, frame []byte, charged int64) error {
	h, body, err := wire.ParseRequestHeader(frame)
	if err != nil {
		c.release(frame, charged)
		return fmt.Errorf("parse request header: %w", err)
	}
	a := c.node.api(h.Key)
	if a == nil {
		c.release(frame, charged)
		return fmt.Errorf("request key %d (version %d) is not offered", h.Key, h.Version)
	}
	defer func() { c.release(frame, charged) }()
	r := &request{RequestHeader: h, conn: c, body: body, started: time.Now(), api: a}
	if h.Version < a.oldest || h.Version > a.newest {
		if h.Key == keyAPIVersions {
			return c.node.unsupportedAPIVersions(r)
		}
		return fmt.Errorf("%s version %d is not offered: %d to %d are", a.name, h.Version, a.oldest, a.newest)
	}
	if h.Key != keyProduce {
		if len(frame) > maxPlainRequest {
			return fmt.Errorf("%s request of %d bytes is larger than %d", a.name, len(frame), maxPlainRequest)
		}
		c.outstanding.Wait()
	}
	a.metrics.requests.Inc()
	err = a.serve(ctx, r)
	if h.Key != keyProduce {
		a.metrics.seconds.Observe(time.Since(r.started).Seconds())
	}
	return err
}

// respond writes one response, whole.
func (c *conn) respond(r *request, resp kmsg.Response) error {
	c.out = appendResponse(c.out[:0], r.Key, r.Version, r.CorrelationID, resp)
	err := c.write(c.out)
	if cap(c.out) > keptOutput {
		c.out = nil
	}
	return err
}

// appendResponse appends a whole response frame.
func appendResponse(dst []byte, key, version int16, correlationID int32, resp kmsg.Response) []byte {
	start := len(dst)
	dst = append(dst, 0, 0, 0, 0)
	dst = wire.AppendResponseHeader(dst, key, version, correlationID)
	resp.SetVersion(version)
	dst = resp.AppendTo(dst)
	binary.BigEndian.PutUint32(dst[start:], uint32(len(dst)-start-4))
	return dst
}

func (c *conn) write(b []byte) error {
	if err := c.net.SetWriteDeadline(time.Now().Add(stepTimeout)); err != nil {
		return fmt.Errorf("set write deadline: %w", err)
	}
	n, err := c.net.Write(b)
	c.node.metrics.bytesOut.Add(float64(n))
	if err != nil {
		return fmt.Errorf("write response: %w", err)
	}
	return nil
}

// later queues a produce response until its batches are durable. It blocks
// when the client has too many of them in flight.
func (c *conn) later(a pendingAck) {
	if c.acks == nil {
		c.acks = make(chan pendingAck, maxPipelined)
		c.startAnswer()
	}
	c.outstanding.Add(1)
	c.acks <- a
}

// answer writes produce responses in order until the reader is done.
func (c *conn) answer(ctx context.Context) {
	var out []byte
	produce := c.node.api(keyProduce)
	for a := range c.acks {
		resp := a.complete(ctx)
		if resp != nil && !c.broken.Load() {
			out = appendResponse(out[:0], keyProduce, a.version, a.correlationID, resp)
			if err := c.write(out); err != nil {
				c.broken.Store(true)
				_ = c.net.Close() // wakes the reader
			}
		}
		produce.metrics.seconds.Observe(time.Since(a.started).Seconds())
		c.outstanding.Done()
	}
}

// frameError is a request size that cannot be meant.
type frameError struct {
	size, limit int32
	head        [4]byte
}

func (e *frameError) Error() string {
	switch {
	case e.head[0] == 0x16 && e.head[1] == 3:
		return "the client speaks TLS, this listener is plain text"
	case string(e.head[:]) == "GET " || string(e.head[:]) == "POST" || string(e.head[:]) == "HEAD" || string(e.head[:]) == "PUT ":
		return "the client speaks HTTP, this listener is for the Kafka protocol"
	case e.size < 8:
		return fmt.Sprintf("request size %d is too small to be a request", e.size)
	}
	return fmt.Sprintf("request of %d bytes is larger than socket.request.max.bytes (%d)", e.size, e.limit)
}

// complaints logs at most one line per second about what clients do wrong and
// counts the rest, so that a stranger with a fuzzer cannot fill the log.
type complaints struct {
	mu         sync.Mutex // guards the fields below
	last       time.Time
	suppressed int
}

func (l *complaints) log(logger *slog.Logger, complaint, remote string, err error) {
	l.mu.Lock()
	now := time.Now()
	if now.Sub(l.last) < time.Second {
		l.suppressed++
		l.mu.Unlock()
		return
	}
	suppressed := l.suppressed
	l.last, l.suppressed = now, 0
	l.mu.Unlock()
	attrs := []any{slog.String("complaint", complaint), slog.String("client", remote)}
	if err != nil {
		attrs = append(attrs, slog.Any("error", err))
	}
	if suppressed > 0 {
		attrs = append(attrs, slog.Int("not_logged_before", suppressed))
	}
	logger.Warn("trouble with a client", attrs...)
}
