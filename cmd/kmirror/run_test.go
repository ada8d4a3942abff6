package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"kmirror/mirror"
)

// lockedBuffer is a buffer that a running daemon writes and a test reads.
type lockedBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (b *lockedBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.Write(p)
}

func (b *lockedBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.String()
}

// running is a daemon in this process.
type running struct {
	config, east, west, http string
	out, err                 lockedBuffer
	stop                     context.CancelCauseFunc
	ended                    chan int
}

// freeAddress is one that nobody listened on a moment ago.
func freeAddress(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().String()
}

func embeddedConfig(r *running, flows string) string {
	return fmt.Sprintf("instance: test-1\ndata_dir: ./data\nhttp: %s\nclusters:\n  east: {embedded: {nodes: [%q]}}\n  west: {embedded: {nodes: [%q]}}\n%s", r.http, r.east, r.west, flows)
}

// startDaemon runs `kmirror run` until the test ends, and waits until it is ready.
func startDaemon(t *testing.T, flows string) *running {
	t.Helper()
	r := &running{east: freeAddress(t), west: freeAddress(t), http: freeAddress(t), ended: make(chan int, 1)}
	r.config = config(t, embeddedConfig(r, flows))
	r.start(t)
	return r
}

func (r *running) start(t *testing.T) {
	t.Helper()
	ctx, cancel := context.WithCancelCause(context.Background())
	r.stop = cancel
	go func() {
		a := &app{in: strings.NewReader(""), out: &r.out, err: &r.err, started: time.Now()}
		r.ended <- a.main(ctx, []string{"run", "-c", r.config, "--log-level", "debug"})
	}()
	t.Cleanup(func() { r.halt(t) })
	deadline := time.After(20 * time.Second)
	for !strings.Contains(r.out.String(), "ready in ") {
		select {
		case code := <-r.ended:
			r.ended <- code
			t.Fatalf("the daemon ended with %d:\n%s", code, r.err.String())
		case <-deadline:
			t.Fatalf("the daemon is not ready:\n%s%s", r.out.String(), r.err.String())
		case <-time.After(5 * time.Millisecond):
		}
	}
}

// halt stops it in order; it may be called twice.
func (r *running) halt(t *testing.T) {
	t.Helper()
	r.stop(errors.New("the test is over"))
	select {
	case code := <-r.ended:
		r.ended <- code
		if code != exitOK {
			t.Errorf("the daemon ended with %d:\n%s", code, r.err.String())
		}
	case <-time.After(60 * time.Second):
		t.Fatalf("the daemon does not stop:\n%s", r.err.String())
	}
}

func (r *running) page(t *testing.T, path string) string {
	t.Helper()
	response, err := http.Get("http://" + r.http + path)
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	body, err := io.ReadAll(response.Body)
	if err != nil || response.StatusCode != http.StatusOK {
		t.Fatalf("%s: %d %v %s", path, response.StatusCode, err, body)
	}
	return string(body)
}

func TestRunServesClustersWithoutFlows(t *testing.T) {
	r := startDaemon(t, "")
	for _, want := range []string{"instance test-1", r.east, r.west, "http://" + r.http + "/", "kcat -P -b " + r.east, "kmirror consume", "ready in "} {
		if !strings.Contains(r.out.String(), want) {
			t.Errorf("the greeting lacks %q:\n%s", want, r.out.String())
		}
	}
	kmirror(t, "hello\nworld\n", "produce", "east", "greetings", "-c", r.config).want(t, exitOK, "2 records")
	kmirror(t, "", "consume", "east", "greetings", "-e", "-c", r.config).want(t, exitOK, "hello\nworld\n")
	kmirror(t, "", "topics", "-c", r.config).want(t, exitOK, "greetings")
	kmirror(t, "", "check", "--connect", "-c", r.config).want(t, exitOK)
	var status mirror.Status
	if err := json.Unmarshal([]byte(r.page(t, "/api/v1/status")), &status); err != nil || status.Instance != "test-1" || len(status.Clusters) != 2 {
		t.Errorf("%v: %+v", err, status)
	}
	for path, want := range map[string]string{"/": "<h1>kmirror</h1>", "/healthz": "ok", "/readyz": "ready", "/metrics": `kmirror_broker_requests_total{`} {
		if body := r.page(t, path); !strings.Contains(body, want) {
			t.Errorf("%s lacks %q", path, want)
		}
	}

	// A second one of the same configuration goes away with a word, and so does
	// one that only shares the ports.
	kmirror(t, "", "run", "-c", r.config).want(t, exitBusy, "in use by another kmirror")
	kmirror(t, "", "run", "-c", config(t, embeddedConfig(r, ""))).want(t, exitBusy, "http: another process listens on "+r.http)
	other := running{east: r.east, west: freeAddress(t), http: freeAddress(t)}
	kmirror(t, "", "run", "-c", config(t, embeddedConfig(&other, ""))).want(t, exitBusy, r.east)

	r.halt(t)
	kmirror(t, "", "status", "-c", r.config).want(t, exitUnreachable, "kmirror run")
	kmirror(t, "", "topics", "east", "-c", r.config, "--timeout", "1s").want(t, exitUnreachable, "served by `kmirror run`")

	// What was written is there after a restart.
	again := &running{config: r.config, east: r.east, west: r.west, http: r.http, ended: make(chan int, 1)}
	again.start(t)
	kmirror(t, "", "consume", "east", "greetings", "-e", "-c", r.config).want(t, exitOK, "hello\nworld\n")
}

func TestRunMirrors(t *testing.T) {
	r := startDaemon(t, "flows:\n- {from: east, to: west}\n")
	kmirror(t, "a:1\nb:2\nc:3\n", "produce", "east", "orders", "-k", ":", "-c", r.config).want(t, exitOK, "3 records")
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	o := kmirrorUntil(ctx, t, "", "consume", "west", "east.orders", "-n", "3", "--format", "kv", "-k", ":", "-c", r.config)
	if o.want(t, exitOK); o.out != "a:1\nb:2\nc:3\n" {
		t.Fatalf("it arrives as %q\n%s", o.out, r.err.String())
	}
	kmirror(t, "", "consume", "east", "orders", "-g", "billing", "-n", "2", "-c", r.config).want(t, exitOK)
	kmirror(t, "", "translate", "east", "west", "billing", "-c", r.config).want(t, exitOK, "east/orders", "west/east.orders", "exact")
	kmirror(t, "", "translate", "west", "east", "--topic", "east.orders", "--offset", "1", "-c", r.config).want(t, exitOK, "west/east.orders", "east/orders", "exact")
	kmirror(t, "", "translate", "east", "west", "--topic", "nowhere", "--offset", "1", "-c", r.config).want(t, exitNotFound, "nothing of partition 0")
	for state := ""; !strings.Contains(state, "in-step"); {
		state = kmirror(t, "", "groups", "east->west", "-c", r.config).want(t, exitOK, "billing").out
		if ctx.Err() != nil {
			t.Fatalf("the group is not in step:\n%s", state)
		}
	}
	// The group goes on at the target with the very next record.
	if o := kmirror(t, "", "consume", "west", "east.orders", "-g", "billing", "-e", "-c", r.config).want(t, exitOK); o.out != "3\n" {
		t.Errorf("the group reads %q at the target", o.out)
	}
	kmirror(t, "", "status", "-c", r.config).want(t, exitOK, "east->west", "mirroring", "east.orders")
	if page := r.page(t, "/"); !strings.Contains(page, "east.orders") {
		t.Error("the page does not show the topic")
	}
}

func TestRunRefusesAnAlias(t *testing.T) {
	r := &running{east: freeAddress(t), http: freeAddress(t)}
	path := config(t, fmt.Sprintf("data_dir: ./data\nhttp: %s\nclusters:\n  east: {embedded: {nodes: [%q]}}\n  other: {bootstrap: [%q]}\nflows:\n- {from: east, to: other}\n", r.http, r.east, otherDoor(t, r.east)))
	kmirror(t, "", "run", "-c", path, "-q").want(t, exitUsage, "east", "other", "same cluster as")
}

func TestRunWithoutRightsOrRoom(t *testing.T) {
	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	path := config(t, fmt.Sprintf("data_dir: %s\nhttp: %s\nclusters:\n  east: {embedded: {nodes: [%q]}}\n", file, freeAddress(t), freeAddress(t)))
	kmirror(t, "", "run", "-c", path).want(t, exitFailure, "file of that name", "another data_dir")
}
