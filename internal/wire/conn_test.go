package wire_test

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/twmb/franz-go/pkg/kmsg"

	"kmirror/internal/wire"
)

// peer is the broker's end of a pipe, played by a test.
type peer struct {
	t  *testing.T
	nc net.Conn
}

// request reads the next request.
func (p *peer) request() (wire.RequestHeader, []byte) {
	p.t.Helper()
	frame, err := wire.ReadFrame(p.nc, nil, 64<<20)
	if err != nil {
		p.t.Errorf("peer reads: %v", err)
		return wire.RequestHeader{}, nil
	}
	h, body, err := wire.ParseRequestHeader(frame)
	if err != nil {
		p.t.Errorf("peer parses: %v", err)
	}
	return h, body
}

func (p *peer) write(b []byte) {
	p.t.Helper()
	if _, err := p.nc.Write(b); err != nil {
		p.t.Errorf("peer writes: %v", err)
	}
}

// answer writes a response to h.
func (p *peer) answer(h wire.RequestHeader, body []byte) {
	p.t.Helper()
	payload := append(wire.AppendResponseHeader(nil, h.Key, h.Version, h.CorrelationID), body...)
	p.write(append(binary.BigEndian.AppendUint32(nil, uint32(len(payload))), payload...))
}

// versions answers ApiVersions, offering Produce 3-13, Metadata 0-13 and ApiVersions 0-4.
func (p *peer) versions() {
	p.t.Helper()
	h, _ := p.request()
	if h.Key != 18 {
		p.t.Errorf("the first request is %s", kmsg.NameForKey(h.Key))
	}
	resp := kmsg.NewPtrApiVersionsResponse()
	resp.SetVersion(h.Version)
	resp.ApiKeys = []kmsg.ApiVersionsResponseApiKey{
		{ApiKey: 0, MinVersion: 3, MaxVersion: 13}, {ApiKey: 3, MaxVersion: 13}, {ApiKey: 18, MaxVersion: 4},
	}
	p.answer(h, resp.AppendTo(nil))
}

// connect makes a connection whose other end is driven by serve. In a bubble.
func connect(t *testing.T, d wire.Dialer, serve func(p *peer)) *wire.Conn {
	t.Helper()
	ours, theirs := net.Pipe()
	d.Dial = func(context.Context, string, string) (net.Conn, error) { return ours, nil }
	done := make(chan struct{})
	go func() {
		defer close(done)
		p := &peer{t: t, nc: theirs}
		p.versions()
		serve(p)
	}()
	c, err := d.Connect(t.Context(), "broker:9092")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = c.Close()
		_ = theirs.Close()
		<-done
	})
	return c
}

func send(t *testing.T, c *wire.Conn, body string) *wire.Call {
	t.Helper()
	call, err := c.Send(0, 3, net.Buffers{[]byte(body)}, wire.SendOptions{})
	if err != nil {
		t.Fatal(err)
	}
	return call
}

func result(t *testing.T, call *wire.Call) (string, error) {
	t.Helper()
	body, err := call.Wait(t.Context())
	return string(body), err
}

func TestDoNegotiatesVersions(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := connect(t, wire.Dialer{ClientID: "tester"}, func(p *peer) {
			for _, want := range []int16{13, 9} {
				h, body := p.request()
				if h.Key != 3 || h.Version != want || *h.ClientID != "tester" {
					t.Errorf("request %+v, want Metadata v%d", h, want)
				}
				req := kmsg.NewPtrMetadataRequest()
				req.SetVersion(h.Version)
				if err := req.ReadFrom(body); err != nil {
					t.Error(err)
				}
				resp := kmsg.NewPtrMetadataResponse()
				resp.SetVersion(h.Version)
				resp.ControllerID = 5
				p.answer(h, resp.AppendTo(nil))
			}
		})
		resp, err := c.Do(t.Context(), kmsg.NewPtrMetadataRequest())
		if err != nil || resp.(*kmsg.MetadataResponse).ControllerID != 5 {
			t.Errorf("Do: %v", err)
		}
		if _, err := c.DoMax(t.Context(), kmsg.NewPtrMetadataRequest(), 9); err != nil {
			t.Errorf("DoMax: %v", err)
		}
		var unsupported *wire.UnsupportedError
		if _, err := c.Do(t.Context(), kmsg.NewPtrFetchRequest()); !errors.As(err, &unsupported) || unsupported.Key != 1 {
			t.Errorf("an API that is not offered: %v, want *UnsupportedError", err)
		}
		for _, tc := range []struct {
			key, ours, want int16
			ok              bool
		}{{0, 99, 13, true}, {0, 5, 5, true}, {0, 2, 0, false}, {1, 5, 0, false}} {
			if got, ok := c.Version(tc.key, tc.ours); got != tc.want || ok != tc.ok {
				t.Errorf("Version(%d, %d) = %d, %t", tc.key, tc.ours, got, ok)
			}
		}
		if c.Addr() != "broker:9092" || c.Err() != nil {
			t.Errorf("address %s, error %v", c.Addr(), c.Err())
		}
	})
}

func TestApiVersionsFallsBackToV0(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ours, theirs := net.Pipe()
		defer theirs.Close()
		go func() {
			p := &peer{t: t, nc: theirs}
			h, _ := p.request()
			if h.Version != 3 {
				t.Errorf("first ApiVersions v%d, want 3", h.Version)
			}
			p.answer(h, []byte{0, 35, 0, 0, 0, 1, 0, 18, 0, 0, 0, 2})
			h, _ = p.request()
			if h.Version != 0 {
				t.Errorf("second ApiVersions v%d, want 0", h.Version)
			}
			p.answer(h, []byte{0, 0, 0, 0, 0, 1, 0, 3, 0, 0, 0, 2})
		}()
		d := wire.Dialer{Dial: func(context.Context, string, string) (net.Conn, error) { return ours, nil }}
		c, err := d.Connect(t.Context(), "old:9092")
		if err != nil {
			t.Fatal(err)
		}
		if v, ok := c.Version(3, 13); v != 2 || !ok {
			t.Errorf("Metadata v%d, %t; want 2", v, ok)
		}
		_ = c.Close()
	})
}

func TestManyRequestsUnderWay(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const callers, each = 8, 50
		c := connect(t, wire.Dialer{}, func(p *peer) {
			var held []wire.RequestHeader
			var bodies [][]byte
			for i := range callers * each {
				h, body := p.request()
				held, bodies = append(held, h), append(bodies, body)
				if len(held) == 20 || i == callers*each-1 { // answers in bursts, in order
					for j, h := range held {
						p.answer(h, bodies[j])
					}
					held, bodies = nil, nil
				}
			}
		})
		var wg sync.WaitGroup
		for caller := range callers {
			wg.Go(func() {
				var calls []*wire.Call
				for i := range each {
					calls = append(calls, send(t, c, fmt.Sprint(caller, i)))
				}
				for i, call := range calls {
					if got, err := result(t, call); err != nil || got != fmt.Sprint(caller, i) {
						t.Errorf("caller %d, request %d: %q, %v", caller, i, got, err)
					}
				}
			})
		}
		wg.Wait()
	})
}

func TestLargeBodiesInManyPieces(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var want []byte
		var pieces net.Buffers
		for i := range 40 {
			piece := bytes.Repeat([]byte{byte(i)}, i*i*2000)
			pieces, want = append(pieces, piece), append(want, piece...)
		}
		c := connect(t, wire.Dialer{}, func(p *peer) {
			h, body := p.request()
			if !bytes.Equal(body, want) {
				t.Error("the body arrived changed")
			}
			p.answer(h, body)
		})
		var slab []byte
		call, err := c.Send(0, 9, pieces, wire.SendOptions{Alloc: func(n int) []byte { slab = make([]byte, n); return slab }})
		if err != nil {
			t.Fatal(err)
		}
		got, err := result(t, call)
		if err != nil || got != string(want) || len(slab) != len(want) {
			t.Errorf("%d bytes of %d, slab of %d, %v", len(got), len(want), len(slab), err)
		}
		for i, piece := range pieces {
			if len(piece) != i*i*2000 {
				t.Errorf("piece %d was consumed", i)
			}
		}
	})
}

func TestNoResponseIsDoneOnceWritten(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := connect(t, wire.Dialer{}, func(p *peer) {
			p.request()
			h, _ := p.request()
			p.answer(h, []byte("second"))
		})
		call, err := c.Send(0, 3, nil, wire.SendOptions{NoResponse: true})
		if err != nil {
			t.Fatal(err)
		}
		if body, err := result(t, call); err != nil || body != "" {
			t.Errorf("acks=0: %q, %v", body, err)
		}
		if body, err := result(t, send(t, c, "x")); err != nil || body != "second" {
			t.Errorf("the next: %q, %v", body, err)
		}
	})
}

// What a peer can do wrong: each ends the connection and all calls on it.
func TestFaultsEndTheConnection(t *testing.T) {
	prefix := func(size, correlation int32) []byte {
		return binary.BigEndian.AppendUint32(binary.BigEndian.AppendUint32(nil, uint32(size)), uint32(correlation))
	}
	for name, tc := range map[string]struct {
		serve func(p *peer, h wire.RequestHeader)
		check func(err error) bool
	}{
		"closes": {
			func(p *peer, _ wire.RequestHeader) { p.nc.Close() },
			func(err error) bool { return errors.Is(err, io.EOF) },
		},
		"closes within a response": {
			func(p *peer, h wire.RequestHeader) { p.write(prefix(100, h.CorrelationID)); p.nc.Close() },
			func(err error) bool { return errors.Is(err, io.ErrUnexpectedEOF) },
		},
		"closes within the size": {
			func(p *peer, _ wire.RequestHeader) { p.write([]byte{0, 0}); p.nc.Close() },
			func(err error) bool { return errors.Is(err, io.ErrUnexpectedEOF) },
		},
		"announces 2 GiB": {
			func(p *peer, h wire.RequestHeader) { p.write(prefix(0x7fffffff, h.CorrelationID)) },
			func(err error) bool { var e *wire.FrameSizeError; return errors.As(err, &e) },
		},
		"announces a negative size": {
			func(p *peer, h wire.RequestHeader) { p.write(prefix(-1, h.CorrelationID)) },
			func(err error) bool { var e *wire.FrameSizeError; return errors.As(err, &e) },
		},
		"announces less than a header": {
			func(p *peer, h wire.RequestHeader) { p.write(prefix(3, h.CorrelationID)) },
			func(err error) bool { var e *wire.FrameSizeError; return errors.As(err, &e) },
		},
		"answers out of order": {
			func(p *peer, h wire.RequestHeader) { p.write(prefix(4, h.CorrelationID+1)) },
			func(err error) bool { var e *wire.CorruptError; return errors.As(err, &e) },
		},
		"never answers": {
			func(*peer, wire.RequestHeader) {},
			func(err error) bool { var e net.Error; return errors.As(err, &e) && e.Timeout() },
		},
		"stalls within a response": {
			func(p *peer, h wire.RequestHeader) { p.write(prefix(100, h.CorrelationID)) },
			func(err error) bool { var e net.Error; return errors.As(err, &e) && e.Timeout() },
		},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				c := connect(t, wire.Dialer{RequestTimeout: 5 * time.Second, MaxResponse: 1 << 20}, func(p *peer) {
					h, _ := p.request()
					p.request()
					tc.serve(p, h)
				})
				first, second := send(t, c, "1"), send(t, c, "2")
				for _, call := range []*wire.Call{first, second} {
					_, err := result(t, call)
					var fault *wire.ConnError
					if !errors.As(err, &fault) || fault.Addr != "broker:9092" || !tc.check(err) {
						t.Errorf("the call ends with %v", err)
					}
				}
				<-c.Done()
				if !tc.check(c.Err()) {
					t.Errorf("the connection ends with %v", c.Err())
				}
				if _, err := c.Send(0, 3, nil, wire.SendOptions{}); !tc.check(err) {
					t.Errorf("Send afterwards: %v", err)
				}
			})
		})
	}
}

func TestAResponseToNothingEndsTheConnection(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := connect(t, wire.Dialer{}, func(p *peer) { p.write(make([]byte, 8)) })
		<-c.Done()
		if c.Err() == nil {
			t.Error("no error")
		}
	})
}

func TestTagsThatLieEndTheConnection(t *testing.T) {
	for name, tags := range map[string][]byte{
		"a size beyond the response":  {1, 0, 100},
		"a count beyond the response": {200},
		"an endless varint":           {0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				c := connect(t, wire.Dialer{}, func(p *peer) {
					h, _ := p.request()
					frame := binary.BigEndian.AppendUint32(nil, uint32(4+len(tags)))
					frame = binary.BigEndian.AppendUint32(frame, uint32(h.CorrelationID))
					p.write(append(frame, tags...))
				})
				call, err := c.Send(0, 9, nil, wire.SendOptions{})
				if err != nil {
					t.Fatal(err)
				}
				if _, err := result(t, call); err == nil {
					t.Error("no error")
				}
			})
		})
	}
}

// A large response on a slow line takes ten times the request timeout.
func TestASlowResponseIsNotLost(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := connect(t, wire.Dialer{RequestTimeout: time.Second}, func(p *peer) {
			h, _ := p.request()
			payload := append(wire.AppendResponseHeader(nil, h.Key, h.Version, h.CorrelationID), make([]byte, 200)...)
			p.write(binary.BigEndian.AppendUint32(nil, uint32(len(payload))))
			for len(payload) > 0 {
				time.Sleep(500 * time.Millisecond)
				n := min(10, len(payload))
				p.write(payload[:n])
				payload = payload[n:]
			}
		})
		if body, err := result(t, send(t, c, "x")); err != nil || len(body) != 200 {
			t.Errorf("%d bytes, %v", len(body), err)
		}
	})
}

func TestAnIdleConnectionStays(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := connect(t, wire.Dialer{RequestTimeout: time.Second}, func(p *peer) {
			for range 2 {
				h, _ := p.request()
				p.answer(h, nil)
			}
		})
		for range 2 {
			if _, err := result(t, send(t, c, "x")); err != nil {
				t.Error(err)
			}
			time.Sleep(time.Hour)
		}
		if c.Err() != nil {
			t.Errorf("after an idle hour: %v", c.Err())
		}
	})
}

func TestSendDoesNotWaitForAPeerThatDoesNotRead(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		hold := make(chan struct{})
		c := connect(t, wire.Dialer{RequestTimeout: 3 * time.Second}, func(*peer) { <-hold })
		defer close(hold)
		start := time.Now()
		var wg sync.WaitGroup
		for range 3 { // one writes, two wait for their turn
			wg.Go(func() {
				var fault *wire.ConnError
				if _, err := c.Send(0, 3, nil, wire.SendOptions{}); !errors.As(err, &fault) {
					t.Errorf("Send: %v, want *ConnError", err)
				}
			})
		}
		wg.Wait()
		if took := time.Since(start); took > 4*time.Second {
			t.Errorf("Send blocked for %s", took)
		}
	})
}

func TestWaitEndsWithItsContext(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		goOn := make(chan struct{})
		c := connect(t, wire.Dialer{}, func(p *peer) {
			h, _ := p.request()
			<-goOn
			p.answer(h, []byte("late"))
			h, _ = p.request()
			p.answer(h, []byte("next"))
		})
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		call := send(t, c, "1")
		if _, err := call.Wait(ctx); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("Wait: %v", err)
		}
		if _, err := c.Do(ctx, kmsg.NewPtrFetchRequest()); err == nil {
			t.Error("Do on an ended context: no error")
		}
		close(goOn) // the connection goes on, the late answer is the call's still
		if body, err := result(t, send(t, c, "2")); err != nil || body != "next" {
			t.Errorf("the next request: %q, %v", body, err)
		}
		if body, err := call.Result(); err != nil || string(body) != "late" {
			t.Errorf("the late answer: %q, %v", body, err)
		}
	})
}

func TestCloseEndsCalls(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := connect(t, wire.Dialer{}, func(p *peer) { p.request() })
		call := send(t, c, "x")
		_ = c.Close()
		if _, err := result(t, call); !errors.Is(err, wire.ErrClosed) {
			t.Errorf("the call ends with %v, want ErrClosed", err)
		}
		_ = c.Close()
	})
}

func TestConnectReports(t *testing.T) {
	refused := errors.New("refused")
	for name, tc := range map[string]struct {
		dial  func() (net.Conn, error)
		d     wire.Dialer
		serve func(p *peer)
		want  error
	}{
		"a dial that fails":        {dial: func() (net.Conn, error) { return nil, refused }, want: refused},
		"a peer that says nothing": {d: wire.Dialer{RequestTimeout: time.Second}, serve: func(p *peer) { p.request() }},
		"a peer that closes":       {serve: func(p *peer) { p.request(); p.nc.Close() }, want: io.EOF},
		"an authentication that fails": {
			d:     wire.Dialer{Authenticate: func(context.Context, *wire.Conn) error { return refused }},
			serve: func(p *peer) { p.versions() }, want: refused,
		},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				ours, theirs := net.Pipe()
				defer theirs.Close()
				if tc.serve != nil {
					go tc.serve(&peer{t: t, nc: theirs})
				}
				tc.d.Dial = func(context.Context, string, string) (net.Conn, error) {
					if tc.dial != nil {
						return tc.dial()
					}
					return ours, nil
				}
				_, err := tc.d.Connect(t.Context(), "broker:9092")
				var fault *wire.ConnError
				if !errors.As(err, &fault) || tc.want != nil && !errors.Is(err, tc.want) {
					t.Errorf("got %v, want a *ConnError of %v", err, tc.want)
				}
				var late net.Error
				if tc.want == nil && (!errors.As(err, &late) || !late.Timeout()) {
					t.Errorf("got %v, want a timeout", err)
				}
			})
		})
	}
}

// TestASlowLineIsLateNotLost: over TCP the reader is woken for large parts only,
// and a line that brings less in a whole request timeout still counts as alive.
func TestASlowLineIsLateNotLost(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = l.Close() }()
	want := bytes.Repeat([]byte("slow"), 5000)
	done := make(chan struct{})
	go func() {
		defer close(done)
		nc, err := l.Accept()
		if err != nil {
			t.Error(err)
			return
		}
		defer func() { _ = nc.Close() }()
		p := &peer{t: t, nc: nc}
		p.versions()
		h, _ := p.request()
		var frame bytes.Buffer
		whole := &peer{t: t, nc: &sink{w: &frame}}
		whole.answer(h, want)
		pause := time.NewTicker(100 * time.Millisecond) // 2 s in all, with a timeout of 300 ms
		defer pause.Stop()
		for rest := frame.Bytes(); len(rest) > 0; {
			n := min(len(rest), 1000)
			if _, err := nc.Write(rest[:n]); err != nil {
				t.Error(err)
				return
			}
			rest = rest[n:]
			<-pause.C
		}
		p.request() // and then it says nothing
		_, _ = nc.Read(make([]byte, 1))
	}()
	d := wire.Dialer{RequestTimeout: 300 * time.Millisecond}
	c, err := d.Connect(t.Context(), l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	finished := make(chan *wire.Call, 1)
	call := wire.NewCall(finished)
	alloc := func(n int) []byte { return make([]byte, n) }
	for i := range 2 { // the same call twice
		if _, err := c.Send(0, 9, nil, wire.SendOptions{Call: call, Alloc: alloc}); err != nil {
			t.Fatal(err)
		}
		got, err := (<-finished).Result()
		if i == 0 && (err != nil || !bytes.Equal(got, want)) {
			t.Errorf("%d bytes of %d, %v", len(got), len(want), err)
		}
		if i == 1 && !errors.Is(err, os.ErrDeadlineExceeded) {
			t.Errorf("silence: %v", err)
		}
	}
	_ = c.Close()
	<-done
}

// sink is a connection that keeps what is written to it.
type sink struct {
	net.Conn
	w io.Writer
}

func (s *sink) Write(b []byte) (int, error) { return s.w.Write(b) }
