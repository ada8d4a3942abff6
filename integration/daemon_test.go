package integration_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"text/template"
	"time"
)

// twoClusters is the mirror.yaml of most stories: east and west in one process,
// every topic of east mirrored to west as east.<topic>.
const twoClusters = `
clusters:
  east: {embedded: {nodes: [{{addr "east"}}]}}
  west: {embedded: {nodes: [{{addr "west"}}]}}
flows:
  - {from: east, to: west, topics: [".*"], naming: prefixed, start: earliest}
`

// serverOnly serves the two clusters and mirrors nothing.
const serverOnly = `
clusters:
  east: {embedded: {nodes: [{{addr "east"}}]}}
  west: {embedded: {nodes: [{{addr "west"}}]}}
`

// mirrorOnly mirrors between clusters that somebody else serves.
const mirrorOnly = `
clusters:
  east: {bootstrap: [{{addr "east"}}]}
  west: {bootstrap: [{{addr "west"}}]}
flows:
  - {from: east, to: west, topics: [".*"], naming: prefixed, start: earliest}
`

// builtDir is where build put the binary, for TestMain to remove.
var builtDir atomic.Value

// build makes the binary once for all tests of this process, with the race
// detector if the tests have it too. KMIRROR_BINARY names one that is there.
var build = sync.OnceValues(func() (string, error) {
	if binary := os.Getenv("KMIRROR_BINARY"); binary != "" {
		return binary, nil
	}
	dir, err := os.MkdirTemp("", "kmirror-integration-")
	if err != nil {
		return "", err
	}
	builtDir.Store(dir)
	binary := filepath.Join(dir, "kmirror")
	args := []string{"build", "-o", binary}
	if raceEnabled {
		args = append(args, "-race")
	}
	cmd := exec.Command("go", append(args, "./cmd/kmirror")...)
	cmd.Dir = ".."
	if out, err := cmd.CombinedOutput(); err != nil {
		return "", fmt.Errorf("build kmirror: %w\n%s", err, out)
	}
	return binary, nil
})

func built(t testing.TB) string {
	t.Helper()
	file, err := build()
	if err != nil {
		t.Fatal(err)
	}
	return file
}

// daemon is one kmirror instance: a mirror.yaml, a data directory and, while it
// runs, a process. Both outlive the process, as they do in life.
type daemon struct {
	*process
	w        *world
	name     string
	instance string // what it calls itself in mirror.yaml
	config   string // the file
	http     string // host:port
}

// daemon writes the instance's mirror.yaml without starting anything.
func (w *world) daemon(name, config string) *daemon {
	w.t.Helper()
	return w.daemonAs(name, name, config)
}

// daemonAs is daemon for an instance that is called other than its files.
func (w *world) daemonAs(name, instance, config string) *daemon {
	w.t.Helper()
	d := &daemon{w: w, name: name, instance: instance, config: filepath.Join(w.dir, name+".yaml"), http: w.addr(name + "-http")}
	d.configure(config)
	return d
}

// run writes the instance's mirror.yaml, starts it and waits until it is ready.
func (w *world) run(name, config string) *daemon {
	w.t.Helper()
	d := w.daemon(name, config)
	d.start()
	d.ready(readyWithin)
	return d
}

// readyWithin is generous: the machine may be busy, and the race detector slow.
const readyWithin = 60 * time.Second

// configure replaces the instance's mirror.yaml.
func (d *daemon) configure(config string) {
	d.w.t.Helper()
	var text bytes.Buffer
	fmt.Fprintf(&text, "instance: %s\ndata_dir: %s\nhttp: %s\n", d.instance, d.dataDir(), d.http)
	tmpl, err := template.New(d.name).Funcs(template.FuncMap{"addr": d.w.addr, "port": d.w.port}).Parse(config)
	if err != nil {
		d.w.t.Fatal(err)
	}
	if err := tmpl.Execute(&text, nil); err != nil {
		d.w.t.Fatal(err)
	}
	if err := os.WriteFile(d.config, text.Bytes(), 0o644); err != nil {
		d.w.t.Fatal(err)
	}
}

func (d *daemon) dataDir() string { return filepath.Join(d.w.dir, d.name+"-data") }

// start starts the process and does not wait for anything.
func (d *daemon) start() {
	d.w.t.Helper()
	d.process = start(d.w.t, d.w.dir, d.name, raceEnv(), built(d.w.t), "run", "--config", d.config)
	d.w.t.Cleanup(d.sound)
}

// raceEnv makes a data race end the daemon at once, and thus visibly.
func raceEnv() []string { return []string{"GORACE=halt_on_error=1 exitcode=66"} }

// sound fails the test if the daemon panicked or raced, ever.
func (d *daemon) sound() {
	log := d.log()
	for _, sign := range []string{"panic: ", "fatal error: ", "WARNING: DATA RACE", "goroutine 1 ["} {
		if at := strings.Index(log, sign); at >= 0 {
			d.w.t.Errorf("%s: %s", d.name, log[at:min(len(log), at+6000)])
			return
		}
	}
}

// ready waits until /readyz says so.
func (d *daemon) ready(within time.Duration) {
	d.w.t.Helper()
	deadline := time.Now().Add(within)
	for {
		_, err := d.get("/readyz")
		if err == nil {
			return
		}
		if !d.running() {
			d.w.t.Fatalf("%s ended instead of becoming ready: %v\n%s", d.name, d.err, d.tail(60))
		}
		if time.Now().After(deadline) {
			d.w.t.Fatalf("%s is not ready within %v: %v\n%s", d.name, within, err, d.tail(60))
		}
		time.Sleep(5 * time.Millisecond)
	}
}

// get asks the daemon's HTTP side; any status but 200 is an error.
func (d *daemon) get(path string) ([]byte, error) {
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+d.http+path, nil)
	if err != nil {
		return nil, err
	}
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		return nil, err
	}
	defer response.Body.Close()
	body, err := io.ReadAll(response.Body)
	if err == nil && response.StatusCode != http.StatusOK {
		err = fmt.Errorf("GET %s: %s: %s", path, response.Status, bytes.TrimSpace(body))
	}
	return body, err
}

// status is what the stories read of /api/v1/status.
type status struct {
	Instance string   `json:"instance"`
	Leading  bool     `json:"leading"`
	Term     uint64   `json:"term"`
	Members  []string `json:"members"`
	Flows    []struct {
		Name   string `json:"name"`
		State  string `json:"state"`
		Error  string `json:"error"`
		Topics []struct {
			Source     string            `json:"source"`
			Target     string            `json:"target"`
			Error      string            `json:"error"`
			Modes      map[string]uint64 `json:"modes"`
			Partitions []struct {
				Partition  int32  `json:"partition"`
				Owner      string `json:"owner"`
				State      string `json:"state"`
				Error      string `json:"error"`
				Position   int64  `json:"position"`
				LagRecords int64  `json:"lag_records"`
			} `json:"partitions"`
		} `json:"topics"`
	} `json:"flows"`
}

func (d *daemon) status() (status, error) {
	var s status
	body, err := d.get("/api/v1/status")
	if err != nil {
		return s, err
	}
	return s, json.Unmarshal(body, &s)
}

// mustStatus is status where the daemon is known to be ready.
func (d *daemon) mustStatus() status {
	d.w.t.Helper()
	s, err := d.status()
	if err != nil {
		d.w.t.Fatal(err)
	}
	return s
}

// kmirror runs a command of the binary with the daemon's mirror.yaml and
// returns what it prints and its exit code.
func (d *daemon) kmirror(args ...string) (stdout, stderr string, code int) {
	d.w.t.Helper()
	return d.kmirrorWithin(time.Minute, args...)
}

// kmirrorWithin is kmirror for a command that may not end by itself: it is
// killed when the time is up, and its exit code is then -1.
func (d *daemon) kmirrorWithin(limit time.Duration, args ...string) (stdout, stderr string, code int) {
	d.w.t.Helper()
	return kmirrorWithin(d.w.t, limit, d.w.dir, append(args, "--config", d.config)...)
}

// mustKmirror is kmirror where anything but exit code 0 is a failure.
func (d *daemon) mustKmirror(args ...string) string {
	d.w.t.Helper()
	stdout, stderr, code := d.kmirror(args...)
	if code != 0 {
		d.w.t.Fatalf("kmirror %s: exit code %d\n%s%s", strings.Join(args, " "), code, stdout, stderr)
	}
	return stdout
}

func kmirror(t testing.TB, dir string, args ...string) (stdout, stderr string, code int) {
	t.Helper()
	return kmirrorWithin(t, time.Minute, dir, args...)
}

func kmirrorWithin(t testing.TB, limit time.Duration, dir string, args ...string) (stdout, stderr string, code int) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), limit)
	defer cancel()
	cmd := exec.CommandContext(ctx, built(t), args...)
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), raceEnv()...)
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	err := cmd.Run()
	if exit := (&exec.ExitError{}); err != nil && !errors.As(err, &exit) {
		t.Fatalf("kmirror %s: %v", strings.Join(args, " "), err)
	}
	if strings.Contains(errs.String(), "goroutine ") {
		t.Errorf("kmirror %s crashed: %s", strings.Join(args, " "), errs.String())
	}
	return out.String(), errs.String(), cmd.ProcessState.ExitCode()
}

// metric is the sum of all series of a metric that have these labels, each as
// NAME="VALUE".
func (d *daemon) metric(name string, labels ...string) float64 {
	d.w.t.Helper()
	body, err := d.get("/metrics")
	if err != nil {
		d.w.t.Fatal(err)
	}
	sum := 0.0
	for line := range strings.Lines(string(body)) {
		series, value, ok := strings.Cut(strings.TrimSpace(line), " ")
		if !ok || series != name && !strings.HasPrefix(series, name+"{") ||
			slices.ContainsFunc(labels, func(label string) bool { return !strings.Contains(series, label) }) {
			continue
		}
		x, err := strconv.ParseFloat(value, 64)
		if err != nil {
			d.w.t.Fatalf("%s: %v", line, err)
		}
		sum += x
	}
	return sum
}
