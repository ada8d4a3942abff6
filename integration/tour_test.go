package integration_test

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"
)

// TestTour walks through the README's five minutes: it runs the commands as they
// stand there, and holds what they print against what the README shows.
func TestTour(t *testing.T) {
	tool(t, "kcat", "kcat")
	tool(t, "curl", "curl")
	readme, err := os.ReadFile(filepath.Join("..", "README.md"))
	if err != nil {
		t.Fatal(err)
	}
	steps := regexp.MustCompile("(?s)<!-- tour -->\n```sh\n(.*?)```\n(?:```text\n(.*?)```\n)?").FindAllStringSubmatch(string(readme), -1)
	if len(steps) < 5 {
		t.Fatalf("the README's tour has %d steps", len(steps))
	}

	// The sample is what the README starts, only on other ports and in a directory
	// of its own.
	w := newWorld(t)
	ports := strings.NewReplacer("127.0.0.1:19092", w.addr("east"), "127.0.0.1:29092", w.addr("west"), "127.0.0.1:7070", w.addr("http"))
	if _, stderr, code := kmirror(t, w.dir, "init"); code != 0 {
		t.Fatal(stderr)
	}
	file := filepath.Join(w.dir, "mirror.yaml")
	sample, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(file, []byte(ports.Replace(string(sample))), 0o644); err != nil {
		t.Fatal(err)
	}
	if err := os.Mkdir(filepath.Join(w.dir, "bin"), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(built(t), filepath.Join(w.dir, "bin", "kmirror")); err != nil {
		t.Fatal(err)
	}
	d := &daemon{w: w, name: "tour", config: file, http: w.addr("http")}
	d.start()
	d.ready(readyWithin)

	for _, step := range steps {
		commands, shown := ports.Replace(step[1]), step[2]
		run := func() error {
			cmd := exec.Command("timeout", "60", "sh", "-ec", commands)
			cmd.Dir = w.dir
			out, err := cmd.CombinedOutput()
			if err != nil {
				return fmt.Errorf("%s%w\n%s", commands, err, out)
			}
			at := 0
			for line := range strings.Lines(shown) {
				next := strings.Index(string(out[at:]), strings.TrimSpace(line))
				if next < 0 {
					return fmt.Errorf("%sprints no %q:\n%s", commands, strings.TrimSpace(line), out)
				}
				at += next
			}
			return nil
		}
		if strings.Contains(commands, " -G ") || strings.Contains(commands, " -P ") {
			if strings.Contains(commands, w.addr("west")) {
				time.Sleep(3 * time.Second) // a second for the group's sync, and a slow machine
			}
			err = run() // once: it changes what is there
		} else {
			eventually(t, 30*time.Second, "the tour", run) // a reader is not that fast
		}
		if err != nil {
			t.Fatal(err)
		}
	}
}
