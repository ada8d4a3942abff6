package integration_test

import (
	"fmt"
	"net"
	"os"
	"sync/atomic"
	"testing"
	"time"
)

// world is what one story has for itself: a directory, and addresses by name.
type world struct {
	t         testing.TB
	dir       string
	addresses map[string]string
}

func newWorld(t testing.TB) *world {
	t.Helper()
	return &world{t: t, dir: t.TempDir(), addresses: map[string]string{}}
}

// in is the same world for a subtest.
func (w *world) in(t testing.TB) *world {
	return &world{t: t, dir: w.dir, addresses: w.addresses}
}

// addr is the address that goes by the name in this world: the same one each
// time, and free when it was first asked for.
func (w *world) addr(name string) string {
	w.t.Helper()
	if w.addresses[name] == "" {
		w.addresses[name] = freeAddress(w.t)
	}
	return w.addresses[name]
}

// port is the port of the named address.
func (w *world) port(name string) string {
	w.t.Helper()
	_, port, err := net.SplitHostPort(w.addr(name))
	if err != nil {
		w.t.Fatal(err)
	}
	return port
}

var nextPort atomic.Int64

// freeAddress takes ports below those that the kernel gives to outgoing
// connections: a server that is killed and started again must find its own
// port free.
func freeAddress(t testing.TB) string {
	t.Helper()
	const first, last = 15000, 32000
	nextPort.CompareAndSwap(0, int64(first+os.Getpid()*37%(last-first)))
	for range last - first {
		port := nextPort.Add(1)
		if port > last {
			nextPort.Store(first)
			continue
		}
		address := fmt.Sprintf("127.0.0.1:%d", port)
		listener, err := net.Listen("tcp", address)
		if err != nil {
			continue
		}
		listener.Close()
		return address
	}
	t.Fatal("no free port")
	return ""
}

// eventually asks again and again until the answer is nil, and fails the test
// with the last answer when the time is up.
func eventually(t testing.TB, within time.Duration, what string, ask func() error) {
	t.Helper()
	deadline := time.Now().Add(within)
	for {
		err := ask()
		if err == nil {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("%s: not within %v: %v", what, within, err)
		}
		time.Sleep(50 * time.Millisecond)
	}
}
