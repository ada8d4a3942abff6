package integration_test

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// process is a server that a test started. What it prints goes to a file; it is
// ended, by its own pid, when the test is over at the latest.
type process struct {
	t       testing.TB
	name    string
	logFile string
	cmd     *exec.Cmd
	ended   chan struct{} // closed after Wait returned
	err     error         // Wait's answer; read after ended
}

// start runs the command in dir and appends its output to dir/NAME.log.
func start(t testing.TB, dir, name string, env []string, program string, args ...string) *process {
	t.Helper()
	p := &process{t: t, name: name, logFile: filepath.Join(dir, name+".log"), ended: make(chan struct{})}
	log, err := os.OpenFile(p.logFile, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		t.Fatal(err)
	}
	defer log.Close()
	fmt.Fprintf(log, "---- %s started at %s\n", name, time.Now().Format(time.TimeOnly))
	p.cmd = exec.Command(program, args...)
	p.cmd.Dir = dir
	p.cmd.Env = append(os.Environ(), env...)
	p.cmd.Stdout, p.cmd.Stderr = log, log
	p.cmd.SysProcAttr = attributes()
	if err := p.cmd.Start(); err != nil {
		t.Fatalf("start %s: %v", name, err)
	}
	go func() {
		p.err = p.cmd.Wait()
		close(p.ended)
	}()
	t.Cleanup(func() {
		p.kill()
		p.keepLog()
	})
	return p
}

// kill ends the process as a power failure would, and waits until it is gone.
func (p *process) kill() {
	_ = p.cmd.Process.Kill() // gone already: nothing to do
	<-p.ended
}

// stop asks the process to end in order, and fails the test if it does not.
func (p *process) stop(within time.Duration) {
	p.t.Helper()
	p.signal(syscall.SIGTERM)
	select {
	case <-p.ended:
	case <-time.After(within):
		p.signal(syscall.SIGQUIT) // a Go program prints its goroutines
		time.Sleep(time.Second)
		p.kill()
		p.t.Fatalf("%s still ran %v after SIGTERM\n%s", p.name, within, p.tail(80))
	}
}

func (p *process) signal(s syscall.Signal) {
	p.t.Helper()
	if err := p.cmd.Process.Signal(s); err != nil {
		p.t.Fatalf("signal %v to %s: %v\n%s", s, p.name, err, p.tail(40))
	}
}

// pause freezes the process, as a stalled machine would; resume lets it go on.
func (p *process) pause()  { p.t.Helper(); p.signal(syscall.SIGSTOP) }
func (p *process) resume() { p.t.Helper(); p.signal(syscall.SIGCONT) }

func (p *process) running() bool {
	select {
	case <-p.ended:
		return false
	default:
		return true
	}
}

// log is everything that the process printed, in all its lives.
func (p *process) log() string {
	content, err := os.ReadFile(p.logFile)
	if err != nil {
		p.t.Fatal(err)
	}
	return string(content)
}

// tail is the last lines of the log, for a failure's message.
func (p *process) tail(lines int) string {
	all := strings.Split(strings.TrimSpace(p.log()), "\n")
	return "last lines of " + p.name + ":\n  " + strings.Join(all[max(0, len(all)-lines):], "\n  ")
}

// keepLog shows the log's end when the test failed, and saves it where the
// environment says.
func (p *process) keepLog() {
	if !p.t.Failed() {
		return
	}
	p.t.Log(p.tail(30))
	if dir := os.Getenv("KMIRROR_KEEP"); dir != "" {
		name := strings.ReplaceAll(p.t.Name(), "/", "_") + "-" + p.name + ".log"
		if err := os.MkdirAll(dir, 0o755); err == nil {
			_ = os.WriteFile(filepath.Join(dir, name), []byte(p.log()), 0o644)
		}
	}
}

// resident is the process's memory in bytes, 0 where /proc is not to be had.
func (p *process) resident() int64 {
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", p.cmd.Process.Pid))
	if err != nil {
		return 0
	}
	for line := range bytes.Lines(status) {
		var kib int64
		if n, _ := fmt.Sscanf(string(line), "VmRSS: %d kB", &kib); n == 1 {
			return kib << 10
		}
	}
	return 0
}
