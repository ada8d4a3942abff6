package kafka

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"
	"time"

	"kmirror/internal/wire"
)

// maxIdle is how many idle connections are kept per address beside the shared one.
const maxIdle = 4

// pool holds connections by address. Requests that are answered at once share
// one connection per address; those that a broker may let wait (a long poll, a
// write that waits for replicas) have one to themselves, because answers come
// in order and would hold up the others.
type pool struct {
	dial func(ctx context.Context, addr string) (*wire.Conn, time.Time, error) // constant

	mu     sync.Mutex // guards the fields below
	closed bool
	places map[string]*place
	live   map[*pooled]struct{} // every connection that is kept or used
}

// place is what the pool has for one address; guarded by the pool's mu, but for
// dialing.
type place struct {
	dialing chan struct{} // capacity 1: one shared connection is dialed at a time
	shared  *pooled
	idle    []*pooled
}

// pooled is a connection of the pool. Invariant: it is closed once it is
// neither kept nor used.
type pooled struct {
	*wire.Conn
	addr     string
	retireAt time.Time // zero: never
	users    int
	kept     bool        // shared or idle
	used     atomic.Bool // has carried a request
}

var errPoolClosed = errors.New("the client is closed")

func newPool(dial func(context.Context, string) (*wire.Conn, time.Time, error)) *pool {
	return &pool{dial: dial, places: make(map[string]*place), live: make(map[*pooled]struct{})}
}

func (p *pool) place(addr string) *place {
	at := p.places[addr]
	if at == nil {
		at = &place{dialing: make(chan struct{}, 1)}
		p.places[addr] = at
	}
	return at
}

// healthy reports whether a connection can take new requests.
func (c *pooled) healthy() bool {
	select {
	case <-c.Done():
		return false
	default:
		return c.retireAt.IsZero() || time.Now().Before(c.retireAt)
	}
}

// acquire returns a connection to addr; the caller gives it back by release.
func (p *pool) acquire(ctx context.Context, addr string, alone bool) (*pooled, error) {
	if alone {
		return p.acquireAlone(ctx, addr)
	}
	p.mu.Lock()
	dialing := p.place(addr).dialing
	p.mu.Unlock()
	if c, err := p.takeShared(addr); c != nil || err != nil {
		return c, err
	}
	select {
	case dialing <- struct{}{}:
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
	defer func() { <-dialing }()
	if c, err := p.takeShared(addr); c != nil || err != nil { // another has dialed in the meantime
		return c, err
	}
	c, err := p.open(ctx, addr)
	if err != nil {
		return nil, err
	}
	p.share(c)
	return c, nil
}

// takeShared returns the shared connection to addr, nil when there is none.
func (p *pool) takeShared(addr string) (*pooled, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed {
		return nil, errPoolClosed
	}
	c := p.place(addr).shared
	if c == nil || !c.healthy() {
		return nil, nil //nolint:nilnil // said above
	}
	c.users++
	return c, nil
}

// connected is 1 when there is a shared connection to addr that lives, else 0.
func (p *pool) connected(addr string) int {
	p.mu.Lock()
	defer p.mu.Unlock()
	if at := p.places[addr]; at != nil && at.shared != nil && at.shared.healthy() {
		return 1
	}
	return 0
}

// share makes c the shared connection of its address.
func (p *pool) share(c *pooled) {
	p.mu.Lock()
	at := p.place(c.addr)
	before := at.shared
	c.kept, at.shared = true, c
	unused := before != nil && before.drop()
	if unused {
		delete(p.live, before)
	}
	p.mu.Unlock()
	if unused {
		_ = before.Close()
	}
}

// drop stops keeping c; true: nobody uses it and the caller closes it.
func (c *pooled) drop() bool {
	c.kept = false
	return c.users == 0
}

func (p *pool) acquireAlone(ctx context.Context, addr string) (*pooled, error) {
	var dead []*pooled
	defer func() {
		for _, c := range dead {
			_ = c.Close()
		}
	}()
	p.mu.Lock()
	if p.closed {
		p.mu.Unlock()
		return nil, errPoolClosed
	}
	at := p.place(addr)
	for len(at.idle) > 0 {
		c := at.idle[len(at.idle)-1]
		at.idle = at.idle[:len(at.idle)-1]
		c.kept = false
		if c.healthy() {
			c.users = 1
			p.mu.Unlock()
			return c, nil
		}
		dead = append(dead, c)
		delete(p.live, c)
	}
	p.mu.Unlock()
	return p.open(ctx, addr)
}

// open dials; the connection has one user.
func (p *pool) open(ctx context.Context, addr string) (*pooled, error) {
	conn, until, err := p.dial(ctx, addr)
	if err != nil {
		return nil, err
	}
	c := &pooled{Conn: conn, addr: addr, users: 1}
	if !until.IsZero() { // well before the broker ends the session
		c.retireAt = time.Now().Add(time.Until(until) * 4 / 5)
	}
	p.mu.Lock()
	closed := p.closed
	if !closed {
		p.live[c] = struct{}{}
	}
	p.mu.Unlock()
	if closed {
		_ = c.Close()
		return nil, errPoolClosed
	}
	return c, nil
}

// release gives a connection back. spent says that an answer may still be on
// its way, so that it cannot serve another alone.
func (p *pool) release(c *pooled, spent bool) {
	p.mu.Lock()
	c.users--
	at := p.place(c.addr)
	switch {
	case c.kept: // shared
	case c.users == 0 && !spent && !p.closed && c.healthy() && len(at.idle) < maxIdle:
		c.kept = true
		at.idle = append(at.idle, c)
	}
	closing := c.users == 0 && !c.kept
	if closing {
		delete(p.live, c)
	}
	p.mu.Unlock()
	if closing {
		_ = c.Close()
	}
}

// close closes every connection, those in use too.
func (p *pool) close() {
	p.mu.Lock()
	p.closed = true
	live := p.live
	p.live, p.places = make(map[*pooled]struct{}), make(map[string]*place)
	p.mu.Unlock()
	for c := range live {
		_ = c.Close()
	}
}
