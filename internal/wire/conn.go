package wire

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"net"
	"sync"
	"time"

	"github.com/twmb/franz-go/pkg/kmsg"
)

// ErrClosed is the cause of every fault on a connection that its owner closed.
var ErrClosed = errors.New("closed")

// ConnError says that a connection could not be made or has ended. Whether the
// requests under way were carried out is unknown. A new connection may work.
type ConnError struct {
	Addr string
	Err  error
}

func (e *ConnError) Error() string { return fmt.Sprintf("connection to %s: %v", e.Addr, e.Err) }

// Unwrap is the cause.
func (e *ConnError) Unwrap() error { return e.Err }

// UnsupportedError says that a broker offers no version of an API that we speak.
type UnsupportedError struct {
	Addr string
	Key  int16
}

func (e *UnsupportedError) Error() string {
	return fmt.Sprintf("%s offers no version of %s that is known here", e.Addr, kmsg.NameForKey(e.Key))
}

// Conn is one connection to a broker. Requests go out in the order of the Send
// calls and are answered in that order; any number may be under way. All
// methods are safe for concurrent use. One goroutine reads; it ends with the
// connection.
//
// The first fault ends the connection and every call on it: a peer that closes,
// stops answering or stops reading, a response out of order, a frame out of
// bounds. Locks: writing is taken before mu, never the other way round.
type Conn struct {
	nc          net.Conn // these are constant once Connect has returned
	addr        string
	clientID    *string
	timeout     time.Duration
	maxResponse int32
	versions    map[int16]versionRange
	done        chan struct{} // closed with err final
	joined      chan struct{} // closed when the reader has returned

	writing chan struct{} // capacity 1: whoever filled it owns out
	out     frameWriter

	mu      sync.Mutex // guards the fields below
	pending callQueue
	err     error
}

type versionRange struct{ low, high int16 }

func newConn(nc net.Conn, addr string, d *Dialer) *Conn {
	c := &Conn{
		nc:          nc,
		addr:        addr,
		timeout:     d.requestTimeout(),
		maxResponse: d.maxResponse(),
		done:        make(chan struct{}),
		joined:      make(chan struct{}),
		writing:     make(chan struct{}, 1),
	}
	if d.ClientID != "" {
		c.clientID = &d.ClientID
	}
	c.out = newFrameWriter(nc, c.timeout)
	go c.read()
	return c
}

// Addr is the address that the connection was made to.
func (c *Conn) Addr() string { return c.addr }

// Done is closed when the connection has ended.
func (c *Conn) Done() <-chan struct{} { return c.done }

// Err is why the connection has ended, a *ConnError; nil while it lives.
func (c *Conn) Err() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.err
}

// Close ends the connection and waits for its reader. Calls under way fail with
// ErrClosed. It always returns nil.
func (c *Conn) Close() error {
	c.fail(ErrClosed)
	<-c.joined
	return nil
}

// Version is the highest version of an API that the broker and we, up to ours,
// both know; false when there is none.
func (c *Conn) Version(key, ours int16) (int16, bool) {
	r, ok := c.versions[key]
	if !ok || ours < r.low || r.high < 0 {
		return 0, false
	}
	return min(ours, r.high), true
}

// Do sends a request in the highest version that both sides know and waits for
// its answer. It sets the request's version. An API that the broker does not
// offer is an *UnsupportedError, the end of the connection a *ConnError.
func (c *Conn) Do(ctx context.Context, req kmsg.Request) (kmsg.Response, error) {
	return c.DoMax(ctx, req, req.MaxVersion())
}

// DoMax is Do with a version of at most maxVersion.
func (c *Conn) DoMax(ctx context.Context, req kmsg.Request, maxVersion int16) (kmsg.Response, error) {
	version, ok := c.Version(req.Key(), min(maxVersion, req.MaxVersion()))
	if !ok {
		return nil, &UnsupportedError{Addr: c.addr, Key: req.Key()}
	}
	body, err := c.exchange(ctx, req, version)
	if err != nil {
		return nil, err
	}
	return decodeResponse(req, version, body)
}

// exchange sends a request in the given version and returns the body of the answer.
func (c *Conn) exchange(ctx context.Context, req kmsg.Request, version int16) ([]byte, error) {
	req.SetVersion(version)
	call, err := c.Send(req.Key(), version, net.Buffers{req.AppendTo(nil)}, SendOptions{})
	if err != nil {
		return nil, fmt.Errorf("%s: %w", kmsg.NameForKey(req.Key()), err)
	}
	body, err := call.Wait(ctx)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", kmsg.NameForKey(req.Key()), err)
	}
	return body, nil
}

func decodeResponse(req kmsg.Request, version int16, body []byte) (kmsg.Response, error) {
	resp := req.ResponseKind()
	resp.SetVersion(version)
	if err := resp.ReadFrom(body); err != nil {
		return nil, corrupt("%s response v%d: %v", kmsg.NameForKey(req.Key()), version, err)
	}
	return resp, nil
}

// Send writes one request with the pieces of body behind its header and returns
// without waiting for the answer. The pieces are not changed and must not
// change before the call is done. A peer that does not read ends the connection
// after the request timeout, so Send does not block for longer.
func (c *Conn) Send(key, version int16, body net.Buffers, o SendOptions) (*Call, error) {
	size := 0
	for _, piece := range body {
		size += len(piece)
	}
	if size > math.MaxInt32-(1<<16) { // a header takes less than 64 KiB
		return nil, fmt.Errorf("request of %d bytes is too large for Kafka's protocol", size)
	}
	select {
	case <-c.done:
		return nil, c.Err()
	case c.writing <- struct{}{}:
	}
	defer func() { <-c.writing }()

	call := o.Call
	if call == nil {
		call = &Call{done: make(chan struct{})}
	}
	call.key, call.version, call.correlation, call.alloc = key, version, c.out.nextCorrelation(), o.Alloc
	call.body, call.err = nil, nil
	if !o.NoResponse {
		if err := c.enqueue(call); err != nil {
			return nil, err
		}
	}
	h := RequestHeader{Key: key, Version: version, CorrelationID: call.correlation, ClientID: c.clientID}
	if err := c.out.write(h, body, size); err != nil {
		c.fail(fmt.Errorf("write %s request: %w", kmsg.NameForKey(key), err))
		return nil, c.Err()
	}
	if o.NoResponse {
		call.finish(nil, nil)
	}
	return call, nil
}

// enqueue makes the reader expect the answer to call.
func (c *Conn) enqueue(call *Call) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.err != nil {
		return c.err
	}
	c.pending.push(call)
	if c.pending.len() == 1 {
		c.extend()
	}
	return nil
}

// head is the call that the next response must answer, nil when there is none.
func (c *Conn) head() *Call {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.pending.front()
}

// dequeue takes the answered call off the queue; false when the connection has
// ended and the call with it.
func (c *Conn) dequeue() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.err != nil {
		return false
	}
	c.pending.pop()
	if c.pending.len() > 0 {
		c.extend()
	} else {
		c.expectNothing()
	}
	return true
}

// extend gives the peer another request timeout to send something. A connection
// that is already broken shows at the next read.
func (c *Conn) extend() { _ = c.nc.SetReadDeadline(time.Now().Add(c.timeout)) }

func (c *Conn) expectNothing() { _ = c.nc.SetReadDeadline(time.Time{}) }

// fail ends the connection and all its calls; only the first cause counts.
func (c *Conn) fail(cause error) {
	c.mu.Lock()
	if c.err != nil {
		c.mu.Unlock()
		return
	}
	c.err = &ConnError{Addr: c.addr, Err: cause}
	err, orphans := c.err, c.pending.drain()
	close(c.done)
	c.mu.Unlock()
	_ = c.nc.Close() // it has ended; how its closing went changes nothing
	for _, call := range orphans {
		call.finish(nil, err)
	}
}

// readSize takes the size and correlation id of a response off its eight bytes.
func readSize(b []byte) (size, correlation int32) {
	return int32(binary.BigEndian.Uint32(b)), int32(binary.BigEndian.Uint32(b[4:]))
}
