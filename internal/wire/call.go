package wire

import (
	"context"
)

// SendOptions say how one request of [Conn.Send] is answered.
type SendOptions struct {
	// Alloc gives the buffer of n bytes for the response body, so that it comes
	// from a pool; nil, as a function or as its result: a new one, that grows as
	// the bytes arrive. It runs in the connection's reader: it must not block, and
	// n, which the peer claims, never exceeds MaxResponse.
	Alloc func(n int) []byte
	// NoResponse is for Produce with acks=0: the call is done once written.
	NoResponse bool
	// Call is used again for this request instead of a new one, so that nothing
	// is allocated. It must have been made by NewCall and be under way nowhere.
	Call *Call
}

// NewCall makes a call to be used again and again. When the answer is there, or
// the connection has ended, it comes out of done, which must have room for all
// calls that are under way with it; Done and Wait are not for such a call.
func NewCall(done chan<- *Call) *Call { return &Call{notify: done} }

// Call is one request under way. All methods are safe for concurrent use.
type Call struct {
	key         int16 // these are constant
	version     int16
	correlation int32
	alloc       func(n int) []byte

	done   chan struct{} // closed when body and err are final; nil with notify
	notify chan<- *Call  // constant
	body   []byte
	err    error
}

// finish makes the result final. It is called once, by whoever took the call
// off its connection's queue.
func (call *Call) finish(body []byte, err error) {
	call.body, call.err = body, err
	if call.notify != nil {
		call.notify <- call
		return
	}
	close(call.done)
}

// Done is closed when the answer is there or the connection has ended.
func (call *Call) Done() <-chan struct{} { return call.done }

// Result returns the body behind the response header, or why there is none. It
// is valid once Done is closed or the call has come out of its channel; the
// caller owns the body.
func (call *Call) Result() ([]byte, error) { return call.body, call.err }

// Wait waits for the result. When ctx ends first, the cause of that is
// returned; the request stays under way and its answer is dropped.
func (call *Call) Wait(ctx context.Context) ([]byte, error) {
	select {
	case <-call.done:
		return call.Result()
	default:
	}
	select {
	case <-call.done:
		return call.Result()
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
}
