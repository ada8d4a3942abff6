package broker

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"runtime/debug"
	"sync"
	"syscall"
	"time"
)

// listen binds the node's address. A port in use is the most common fault of a
// first start, so the error says what to do about it.
func listen(ctx context.Context, address string) (net.Listener, error) {
	var config net.ListenConfig
	l, err := config.Listen(ctx, "tcp", address)
	switch {
	case errors.Is(err, syscall.EADDRINUSE):
		return nil, fmt.Errorf("listen on %s: the address is in use by another process; stop that one (ss -ltnp shows it) or give this node another port: %w", address, err)
	case errors.Is(err, syscall.EADDRNOTAVAIL):
		return nil, fmt.Errorf("listen on %s: this machine has no such address; use one of its own, 127.0.0.1 or 0.0.0.0: %w", address, err)
	case errors.Is(err, syscall.EACCES):
		return nil, fmt.Errorf("listen on %s: no permission to bind this port; use one above 1023: %w", address, err)
	case err != nil:
		return nil, fmt.Errorf("listen on %s: %w", address, err)
	}
	return l, nil
}

// accept serves connections until ctx ends, then drains: no request is read
// any more, those being served are answered, and every goroutine is joined.
func (n *Node) accept(ctx context.Context) error {
	hard, kill := context.WithCancel(context.WithoutCancel(ctx))
	defer kill()
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	drained := make(chan struct{})
	go func() {
		defer close(drained)
		<-ctx.Done()
		n.draining.Store(true)
		_ = n.listener.Close()
		n.eachConn(func(c *conn) { _ = c.net.SetReadDeadline(time.Now()) }) // wakes idle readers
	}()
	var serving sync.WaitGroup
	defer func() {
		stop()
		<-drained
		gone := make(chan struct{})
		go func() {
			defer close(gone)
			serving.Wait()
		}()
		select {
		case <-gone:
		case <-time.After(drainTimeout):
			kill()
			n.eachConn(func(c *conn) { _ = c.net.Close() })
			<-gone
		}
	}()

	pause := time.Duration(0)
	for {
		nc, err := n.listener.Accept()
		if err != nil {
			if ctx.Err() != nil || errors.Is(err, net.ErrClosed) {
				return nil
			}
			// Out of file descriptors, most likely: it passes when clients leave.
			pause = min(max(2*pause, 5*time.Millisecond), time.Second)
			n.logger.Warn("cannot accept a connection, trying again", slog.Any("error", err), slog.Duration("pause", pause))
			select {
			case <-time.After(pause):
			case <-ctx.Done():
			}
			continue
		}
		pause = 0
		c := &conn{node: n, net: nc, in: bufio.NewReaderSize(nc, readBuffer), remote: nc.RemoteAddr().String()}
		if !n.admit(c) {
			n.metrics.refused.Inc()
			n.complaints.log(n.logger, "refused a client connection", c.remote, fmt.Errorf("%d connections are open, which is max.connections", n.limits.Connections))
			_ = nc.Close()
			continue
		}
		serving.Go(func() {
			defer n.dismiss(c)
			if err := n.serveConn(ctx, hard, c); err != nil && !errors.Is(err, errClose) && ctx.Err() == nil && !goneAway(err) {
				n.complaints.log(n.logger, "closed a client connection", c.remote, err)
			}
		})
	}
}

// drainTimeout bounds the time between the end of Run's context and the end of
// the last connection.
const drainTimeout = 5 * time.Second

// serveConn serves one connection. A bug that panics costs this connection
// only, and is told with its stack.
func (n *Node) serveConn(ctx, hard context.Context, c *conn) (err error) {
	defer func() {
		if p := recover(); p != nil {
			n.logger.Error("a handler panicked, its connection is closed", slog.String("client", c.remote), slog.Any("panic", p), slog.String("stack", string(debug.Stack())))
		}
	}()
	return c.serve(ctx, hard)
}

// admit counts a connection in, unless there are too many.
func (n *Node) admit(c *conn) bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	if len(n.conns) >= n.limits.Connections {
		return false
	}
	n.conns[c] = struct{}{}
	n.metrics.connections.Inc()
	return true
}

func (n *Node) dismiss(c *conn) {
	_ = c.net.Close()
	n.mu.Lock()
	defer n.mu.Unlock()
	delete(n.conns, c)
	n.metrics.connections.Dec()
}

func (n *Node) eachConn(fn func(*conn)) {
	n.mu.Lock()
	defer n.mu.Unlock()
	for c := range n.conns {
		fn(c)
	}
}

// goneAway reports whether an error only says that the client left.
func goneAway(err error) bool {
	return errors.Is(err, syscall.ECONNRESET) || errors.Is(err, syscall.EPIPE) || errors.Is(err, net.ErrClosed)
}
