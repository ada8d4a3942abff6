package consul_test

import (
	"context"
	"errors"
	"net"
	"sync"
)

// gate is one instance's network: connections through it can be cut.
type gate struct {
	mu      sync.Mutex // guards the fields below
	state   gateState
	changed chan struct{} // closed and replaced when state changes
	conns   map[*gatedConn]struct{}
}

type gateState int8

const (
	gateOpen   gateState = iota
	gateShut             // nothing can be dialled, what was is closed
	gateSilent           // nothing arrives any more, either way
)

func newGate() *gate { return &gate{changed: make(chan struct{}), conns: map[*gatedConn]struct{}{}} }

func (g *gate) set(state gateState) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.state = state
	close(g.changed)
	g.changed = make(chan struct{})
	if state == gateShut {
		for c := range g.conns {
			_ = c.Conn.Close()
		}
	}
}

func (g *gate) Up()     { g.set(gateOpen) }
func (g *gate) Down()   { g.set(gateShut) }
func (g *gate) Silent() { g.set(gateSilent) }

func (g *gate) Dial(ctx context.Context, network, address string) (net.Conn, error) {
	if err := g.pass(ctx.Done()); err != nil {
		return nil, err
	}
	var dialer net.Dialer
	conn, err := dialer.DialContext(ctx, network, address)
	if err != nil {
		return nil, err
	}
	c := &gatedConn{Conn: conn, gate: g, closed: make(chan struct{})}
	g.mu.Lock()
	defer g.mu.Unlock()
	g.conns[c] = struct{}{}
	return c, nil
}

// pass waits while the gate is silent.
func (g *gate) pass(giveUp <-chan struct{}) error {
	for {
		g.mu.Lock()
		state, changed := g.state, g.changed
		g.mu.Unlock()
		switch state {
		case gateOpen:
			return nil
		case gateShut:
			return errors.New("the gate is shut")
		case gateSilent:
		}
		select {
		case <-giveUp:
			return net.ErrClosed
		case <-changed:
		}
	}
}

type gatedConn struct {
	net.Conn
	gate   *gate
	once   sync.Once
	closed chan struct{}
}

func (c *gatedConn) Read(b []byte) (int, error) {
	n, err := c.Conn.Read(b)
	if gate := c.gate.pass(c.closed); gate != nil {
		return 0, gate
	}
	return n, err
}

func (c *gatedConn) Write(b []byte) (int, error) {
	if err := c.gate.pass(c.closed); err != nil {
		return 0, err
	}
	return c.Conn.Write(b)
}

func (c *gatedConn) Close() error {
	c.once.Do(func() {
		close(c.closed)
		c.gate.mu.Lock()
		delete(c.gate.conns, c)
		c.gate.mu.Unlock()
	})
	return c.Conn.Close()
}
