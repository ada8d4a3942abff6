package integration_test

import (
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// TestManyFaultsAtOnce gives a mirror.yaml with a dozen faults to check and to
// run: both name every one with its line, and nothing is started.
func TestManyFaultsAtOnce(t *testing.T) {
	w := newWorld(t)
	d := w.daemon("faulty", `
colour: blue
clusters:
  east: {embedded: {nodes: [{{addr "east"}}]}}
  west: {embedded: {nodes: [{{addr "west"}}], fsync: sometimes}}
  both: {embedded: {nodes: [127.0.0.1:1]}, bootstrap: [127.0.0.1:2]}
  none: {}
  badport: {bootstrap: [127.0.0.1:99999]}
flows:
  - {from: east, to: wset, topics: [".*"]}
  - {from: east, to: east, topics: [".*"]}
  - {from: east, to: west, topics: ["("], naming: fancy, start: yesterday}
  - {from: west, to: badport, topics: [".*"], exclude_groups: ["["]}
coordination:
  consul: {address: {{addr "consul"}}, ttl: 1s}
`)
	wants := []string{"colour", "sometimes", "both", "none", "99999", "wset", "onto itself", "fancy", "yesterday", "topics", "exclude_groups", "ttl"}
	for _, command := range []string{"check", "run"} {
		stdout, stderr, code := d.kmirror(command)
		all := stdout + stderr
		if code == 0 {
			t.Errorf("%s: exit code 0\n%s", command, all)
		}
		for _, want := range wants {
			if !strings.Contains(all, want) {
				t.Errorf("%s does not speak of %q:\n%s", command, want, all)
			}
		}
		if lines := strings.Count(all, "faulty.yaml:"); lines < 10 {
			t.Errorf("%s names %d places in the file, want 10 at least:\n%s", command, lines, all)
		}
	}
	if _, err := os.Stat(d.dataDir()); err == nil {
		t.Error("run made the data directory in spite of the faults")
	}
}

// TestNoConfig holds that the first thing a newcomer types is answered with
// what to do, and that doing it works.
func TestNoConfig(t *testing.T) {
	dir := t.TempDir()
	stdout, stderr, code := kmirror(t, dir, "run")
	if code == 0 || !strings.Contains(stderr, "mirror.yaml") || !strings.Contains(stderr, "init") {
		t.Errorf("run without mirror.yaml: exit code %d\n%s%s", code, stdout, stderr)
	}
	if stdout, stderr, code := kmirror(t, dir, "init"); code != 0 {
		t.Fatalf("init: exit code %d\n%s%s", code, stdout, stderr)
	}
	if stdout, stderr, code := kmirror(t, dir, "check", "--config", filepath.Join(dir, "mirror.yaml")); code != 0 {
		t.Errorf("check of what init wrote: exit code %d\n%s%s", code, stdout, stderr)
	}
	if stdout, stderr, code := kmirror(t, dir, "init"); code == 0 {
		t.Errorf("init overwrote a mirror.yaml\n%s%s", stdout, stderr)
	}
}

// TestRefusesToStart lists what a daemon must not start on, and the words that
// a person then needs.
func TestRefusesToStart(t *testing.T) {
	tests := []struct {
		name  string
		spoil func(t *testing.T, w *world, d *daemon)
		wants []string
	}{
		{"a port in use", func(t *testing.T, w *world, _ *daemon) {
			occupy(t, w.addr("west"))
		}, []string{"cluster west", "listens on {west} already"}},
		{"the HTTP port in use", func(t *testing.T, _ *world, d *daemon) {
			occupy(t, d.http)
		}, []string{"listens on {http} already"}},
		{"a file where the data directory should be", func(t *testing.T, _ *world, d *daemon) {
			if err := os.WriteFile(d.dataDir(), nil, 0o600); err != nil {
				t.Fatal(err)
			}
		}, []string{"{data}"}},
		{"a data directory in use", func(t *testing.T, w *world, d *daemon) {
			other := w.run("main", twoClusters)
			d.http, d.config = w.addr("second-http"), filepath.Join(w.dir, "second.yaml")
			d.configure(strings.NewReplacer(`addr "west"`, `addr "second-west"`, `addr "east"`, `addr "second-east"`).Replace(twoClusters))
			if !other.running() {
				t.Fatal("the first daemon ended")
			}
		}, []string{"in use"}},
		{"the data directory of another cluster", func(t *testing.T, _ *world, d *daemon) {
			d.start()
			d.ready(readyWithin)
			d.stop(20 * time.Second)
			swapClusters(t, d.dataDir())
		}, []string{"east", "west"}},
		{"several nodes", func(_ *testing.T, _ *world, d *daemon) {
			d.configure(strings.Replace(twoClusters, `{{addr "east"}}`, `{{addr "east"}}, {{addr "east-2"}}`, 1))
		}, []string{"nodes", "one"}},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			w := newWorld(t)
			d := w.daemon("main", twoClusters)
			test.spoil(t, w, d)
			stdout, stderr, code := d.kmirrorWithin(30*time.Second, "run")
			if code == 0 || code == -1 {
				t.Fatalf("exit code %d (-1: it still ran)\n%s%s", code, stdout, stderr)
			}
			words := strings.NewReplacer("{west}", w.addr("west"), "{http}", d.http, "{data}", d.dataDir())
			for _, want := range test.wants {
				if want = words.Replace(want); !strings.Contains(stderr, want) {
					t.Errorf("no %q in:\n%s", want, stderr)
				}
			}
			t.Log(strings.TrimSpace(stderr))
		})
	}
}

// occupy listens at the address until the test ends.
func occupy(t *testing.T, address string) {
	t.Helper()
	listener, err := net.Listen("tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { listener.Close() })
}

// swapClusters lets the directories of east and west change places.
func swapClusters(t *testing.T, data string) {
	t.Helper()
	find := func(name string) string {
		for _, pattern := range []string{name, "*/" + name, name + "-*"} {
			if found, _ := filepath.Glob(filepath.Join(data, pattern)); len(found) == 1 {
				return found[0]
			}
		}
		t.Fatalf("no directory of %s below %s", name, data)
		return ""
	}
	east, west := find("east"), find("west")
	for _, move := range [][2]string{{east, east + ".moved"}, {west, east}, {east + ".moved", west}} {
		if err := os.Rename(move[0], move[1]); err != nil {
			t.Fatal(err)
		}
	}
}

// TestUnreachable starts the daemon while its target and Consul are away. The
// embedded side serves, the status says what is wrong, and the mirror goes to
// work when the target is there.
func TestUnreachable(t *testing.T) {
	w := newWorld(t)
	d := w.daemon("main", `
clusters:
  east: {embedded: {nodes: [{{addr "east"}}]}}
  west: {bootstrap: [{{addr "west"}}]}
flows:
  - {from: east, to: west, topics: [".*"], naming: prefixed, start: earliest}
`)
	d.start()
	eventually(t, readyWithin, "the embedded side", func() error {
		_, err := w.admin("east").BrokerMetadata(w.ctx(2 * time.Second))
		return err
	})
	h := newHistory("orders", 2, 200)
	w.create("east", "orders", 2)
	w.write("east", h, 200)
	eventually(t, 30*time.Second, "a word about west", func() error {
		body, err := d.get("/api/v1/status")
		if err == nil && !strings.Contains(string(body), w.addr("west")) {
			err = fmt.Errorf("nothing about %s in %s", w.addr("west"), body)
		}
		return err
	})

	w.run("late", `
clusters:
  west: {embedded: {nodes: [{{addr "west"}}]}}
`)
	d.ready(readyWithin)
	w.exact(h, "east", "west", "east.orders")
}
