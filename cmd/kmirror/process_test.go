package main

import (
	"bufio"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"time"
)

// The test binary is kmirror itself when it is told to be: what only a process
// has (signals, a death, an exit code) is told with one.
const beKmirror = "KMIRROR_TEST_BE_KMIRROR"

func TestMain(m *testing.M) {
	if os.Getenv(beKmirror) != "" {
		main()
		return
	}
	os.Exit(m.Run())
}

// process is a daemon in a process of its own.
type process struct {
	*exec.Cmd
	errors lockedBuffer
}

func startProcess(t *testing.T, path string) *process {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	p := &process{Cmd: exec.CommandContext(t.Context(), self, "run", "-c", path)}
	p.Env = append(os.Environ(), beKmirror+"=1")
	p.Stderr = &p.errors
	out, err := p.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := p.Start(); err != nil {
		t.Fatal(err)
	}
	lines := bufio.NewScanner(out)
	for lines.Scan() {
		if strings.HasPrefix(lines.Text(), "ready in ") {
			return p
		}
	}
	t.Fatalf("the daemon ended: %v\n%s", p.Wait(), p.errors.String())
	return nil
}

// ends waits for the end and returns the exit code, -1 for a death by signal.
func (p *process) ends(t *testing.T) int {
	t.Helper()
	done := make(chan error, 1)
	go func() { done <- p.Wait() }()
	select {
	case err := <-done:
		var exit *exec.ExitError
		if err != nil && !errors.As(err, &exit) {
			t.Fatal(err)
		}
		return p.ProcessState.ExitCode()
	case <-time.After(30 * time.Second):
		t.Fatalf("it does not end:\n%s", p.errors.String())
		return 0
	}
}

// An orderly stop by either signal is a success; a death leaves nothing behind
// that would keep the next one from starting.
func TestSignals(t *testing.T) {
	path := config(t, fmt.Sprintf("data_dir: ./data\nhttp: 127.0.0.1:0\nclusters:\n  east: {embedded: {nodes: [%q]}}\n  west: {embedded: {nodes: [%q]}}\nflows:\n- {from: east, to: west}\n", freeAddress(t), freeAddress(t)))
	for _, c := range []struct {
		signal syscall.Signal
		code   int
	}{{syscall.SIGTERM, exitOK}, {syscall.SIGKILL, -1}, {os.Interrupt.(syscall.Signal), exitOK}} {
		p := startProcess(t, path)
		// The port was left open; the commands know it all the same.
		kmirror(t, "", "status", "-c", path).want(t, exitOK, "east->west")
		kmirror(t, c.signal.String()+"\n", "produce", "east", "signals", "-c", path).want(t, exitOK, "1 record")
		if err := p.Process.Signal(c.signal); err != nil {
			t.Fatal(err)
		}
		if code := p.ends(t); code != c.code {
			t.Errorf("after %s the exit code is %d, want %d\n%s", c.signal, code, c.code, p.errors.String())
		}
		if strings.Contains(p.errors.String(), "level=ERROR") || strings.Contains(p.errors.String(), "goroutine ") {
			t.Errorf("%s in order looks like this:\n%s", c.signal, p.errors.String())
		}
	}
	startProcess(t, path)
	kmirror(t, "", "consume", "east", "signals", "-e", "-c", path).want(t, exitOK, "terminated\nkilled\ninterrupt\n")
}

// timeout(1) signals its child and then the child's group: that is one wish, not two.
func TestASignalAndItsEchoAreOne(t *testing.T) {
	path := config(t, fmt.Sprintf("data_dir: ./data\nhttp: 127.0.0.1:0\nclusters:\n  east: {embedded: {nodes: [%q]}}\n", freeAddress(t)))
	p := startProcess(t, path)
	for range 3 {
		if err := p.Process.Signal(syscall.SIGTERM); err != nil && !errors.Is(err, os.ErrProcessDone) {
			t.Fatal(err)
		}
	}
	if code := p.ends(t); code != exitOK {
		t.Errorf("exit code = %d, want %d\n%s", code, exitOK, p.errors.String())
	}
}
