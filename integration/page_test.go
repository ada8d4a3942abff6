package integration_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/chromedp/chromedp"
)

// TestPage looks at the status page in a real browser while a flow is at work.
func TestPage(t *testing.T) {
	browser := tool(t, "chromium", "chromium")
	w := newWorld(t)
	d := w.run("main", twoClusters)
	h := newHistory("orders", 3, 400)
	w.create("east", "orders", 3)
	load := w.load("east", h, 1000)
	defer load.finish()
	w.create("east", "audit", 1)
	w.kcat("east", "one\ntwo\n", "-P", "-t", "audit")
	w.commit("east", "billing", "orders", map[int32]int64{0: 10, 1: 20, 2: 30})
	w.commit("east", "reports", "audit", map[int32]int64{0: 1})
	eventually(t, 30*time.Second, "the group in west", func() error {
		if w.committed(w.admin("west"), "reports", "east.audit")[0] != 1 {
			return errors.New("it has nothing there")
		}
		return nil
	})
	w.commit("west", "reports", "east.audit", map[int32]int64{0: 2})
	d.mustKmirror("pause", "east->west", "audit")
	w.kcat("east", "three\nfour\n", "-P", "-t", "audit")
	eventually(t, 30*time.Second, "the lag of what does not flow", func() error {
		if n := d.metric("kmirror_lag_records", `topic="audit"`); n != 2 {
			return fmt.Errorf("it is %v", n)
		}
		return nil
	})

	options := append(chromedp.DefaultExecAllocatorOptions[:], chromedp.ExecPath(browser), chromedp.NoSandbox, chromedp.WindowSize(1280, 900))
	allocated, cancel := chromedp.NewExecAllocator(w.ctx(90*time.Second), options...)
	defer cancel()
	ctx, cancel := chromedp.NewContext(allocated)
	defer cancel()
	if err := chromedp.Do(ctx, chromedp.Navigate("http://"+d.http+"/"), chromedp.Sleep(3*time.Second)); err != nil { // it refreshes itself
		t.Fatal(err)
	}
	text, err := chromedp.Run(ctx, chromedp.Text("body"))
	if err != nil {
		t.Fatal(err)
	}
	picture, err := chromedp.Run(ctx, chromedp.FullScreenshot(100))
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"east", "west", "orders", w.addr("east"), "A failover to west now would lose", "diverged", "billing", "offset map"} {
		if !strings.Contains(text, want) {
			t.Errorf("the page does not show %q:\n%s", want, text)
		}
	}
	if dir := os.Getenv("KMIRROR_KEEP"); dir != "" {
		if err := os.MkdirAll(dir, 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, "page.png"), picture, 0o644); err != nil {
			t.Fatal(err)
		}
	}
}

// TestCommandLine walks through the commands that a person would use first.
func TestCommandLine(t *testing.T) {
	w := newWorld(t)
	d := w.run("main", twoClusters)
	w.kcat("east", "tea:1\ncoffee:2\nmilk:3\n", "-P", "-t", "orders", "-K:")
	w.kcat("east", "", "-G", "waiters", "orders", "-o", "beginning", "-c", "3", "-q", "-X", "auto.offset.reset=earliest")
	eventually(t, 30*time.Second, "the mirror of orders", func() error {
		_, err := w.admin("west").ListTopics(w.ctx(5*time.Second), "east.orders")
		return err
	})
	holds := func(out string, wants ...string) {
		t.Helper()
		for _, want := range wants {
			if !strings.Contains(out, want) {
				t.Errorf("no %q in:\n%s", want, out)
			}
		}
	}
	for _, command := range [][]string{{"check"}, {"status"}, {"topics", "east"}, {"groups", "east"}, {"version"}} {
		text := d.mustKmirror(command...)
		if strings.TrimSpace(text) == "" {
			t.Errorf("%v prints nothing", command)
		}
		out := d.mustKmirror(append(command, "-o", "json")...)
		if !json.Valid([]byte(out)) {
			t.Errorf("%v -o json prints no JSON:\n%s", command, out)
		}
	}
	holds(d.mustKmirror("topics", "west"), "east.orders")
	holds(d.mustKmirror("status"), "east", "west", "mirroring")
	out := d.mustKmirror("consume", "west", "east.orders", "--from", "earliest", "--count", "3", "--format", "kv")
	holds(out, "tea\t1", "coffee\t2", "milk\t3")
	stdout, stderr, code := kmirror(t, w.dir, "--help")
	if code != 0 {
		t.Errorf("--help: exit code %d\n%s", code, stderr)
	}
	holds(stdout, "run", "check", "init", "status", "topics", "produce", "consume", "groups", "translate", "version")
	for _, wrong := range [][]string{{"topics", "nowhere"}, {"consume", "west", "no-such-topic", "--count", "1"}, {"translate", "west", "nowhere", "waiters"}, {"groups", "nowhere"}} {
		if stdout, stderr, code := d.kmirrorWithin(20*time.Second, wrong...); code <= 0 || strings.TrimSpace(stderr) == "" {
			t.Errorf("%v: exit code %d\n%s%s", wrong, code, stdout, stderr)
		}
	}
}
