package main

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kfake"

	"kmirror/internal/console"
	"kmirror/mirror"
	"kmirror/topology"
)

const oneFlow = "flows:\n- {from: east, to: west}\n"

// change replaces text in a daemon's configuration.
func (r *running) change(t *testing.T, old, with string) {
	t.Helper()
	text, err := os.ReadFile(r.config)
	if err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(string(text), old) {
		t.Fatalf("%q does not stand in\n%s", old, text)
	}
	if err := os.WriteFile(r.config, []byte(strings.Replace(string(text), old, with, 1)), 0o600); err != nil {
		t.Fatal(err)
	}
}

// says waits until a command says something.
func (r *running) says(t *testing.T, what string, args ...string) {
	t.Helper()
	deadline := time.Now().Add(20 * time.Second)
	for {
		o := kmirror(t, "", append(args, "-c", r.config)...)
		if strings.Contains(o.out, what) {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("kmirror %v does not say %q:\n%s%s", args, what, o.out, o.err)
		}
		time.Sleep(20 * time.Millisecond)
	}
}

// An operator's day: a topic is paused and resumed, the file is changed, checked,
// planned and reloaded, once with a fault and once with what only a restart brings.
func TestSteeringARunningDaemon(t *testing.T) {
	r := startDaemon(t, oneFlow)
	run := func(args ...string) outcome { t.Helper(); return kmirror(t, "", append(args, "-c", r.config)...) }
	produce := func(value string) {
		t.Helper()
		kmirror(t, value+"\n", "produce", "east", "orders", "-c", r.config).want(t, exitOK)
	}
	mirrored := func(n int) {
		t.Helper()
		ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
		defer cancel()
		kmirrorUntil(ctx, t, "", "consume", "west", "east.orders", "-n", fmt.Sprint(n), "-c", r.config).want(t, exitOK)
	}
	produce("one")
	mirrored(1)

	run("pause", "east->west", "orders").want(t, exitOK, "topic orders of east->west is paused", "kmirror resume 'east->west' orders")
	r.says(t, "paused by command", "status")
	produce("two")
	run("resume", "east->west", "orders", "--partition", "0").want(t, exitOK, "partition 0 of topic orders")
	mirrored(2)
	run("pause", "east->west").want(t, exitOK, "flow east->west is paused")
	r.says(t, "paused", "status", "east->west")
	run("resume", "east->west", "orders").want(t, exitFailure, "the whole flow is paused")
	produce("three")
	run("resume", "east->west").want(t, exitOK, "flow east->west goes on")
	mirrored(3)

	run("pause", "east->west", "later").want(t, exitOK, "note: flow east->west has no topic later yet")
	run("pause", "east->west", "__consumer_offsets").want(t, exitNotFound, "an internal topic")
	run("pause", "west->east").want(t, exitNotFound, `no flow "west->east"`)
	run("resume", "east->west", "orders", "-p", "7").want(t, exitNotFound, "no partition 7")
	run("resume", "east->west", "orders", "-p", "-7").want(t, exitUsage, "a number from 0")
	run("resume", "east->west", "--accept", "retention-loss").want(t, exitUsage, "of which topic?")
	run("resume", "east->west", "orders", "--accept", "all").want(t, exitUsage, "it is one of retention-loss")
	run("resume", "east->west", "orders", "--accept", "retention-loss").want(t, exitOK, "if it stopped for retention-loss")
	var done steered
	if o := run("pause", "east->west", "later", "-o", "json").want(t, exitOK); json.Unmarshal([]byte(o.out), &done) != nil || !done.Paused || done.Topic != "later" {
		t.Errorf("pause -o json: %s", o.out)
	}

	run("reload").want(t, exitOK, "nothing differs from what runs")
	r.change(t, "{from: east, to: west}", "{from: east, to: west, throttle: 5MiB, exclude_topics: [scratch]}")
	run("plan").want(t, exitOK, "a reload would take:\n  flows[east->west].exclude_topics: [] -> [scratch]\n  flows[east->west].throttle: 5MiB (new)", "mirrors 1 topic")
	run("reload", "--dry-run").want(t, exitOK, "a reload would take:")
	run("reload").want(t, exitOK, "taken:\n  flows[east->west].exclude_topics")
	run("status").want(t, exitOK, "at most 5.2 MB/s")

	r.change(t, "throttle:", "throtle:")
	run("reload").want(t, exitUsage, "did you mean throttle?", "nothing has changed: 1 fault in ")
	var refused console.ReloadAnswer
	if o := run("reload", "-o", "json").want(t, exitUsage); json.Unmarshal([]byte(o.out), &refused) != nil || len(refused.Faults) != 1 || refused.Taken {
		t.Errorf("reload -o json: %s", o.out)
	}
	r.change(t, "throtle:", "throttle:")
	run("status").want(t, exitOK, "was not taken", "at most 5.2 MB/s")

	r.change(t, "instance: test-1", "instance: test-2\nbuffer: 128MiB")
	r.change(t, "throttle: 5MiB", "paused: true")
	run("reload").want(t, exitOK, "taken:\n  flows[east->west].paused: false -> true\n  flows[east->west].throttle: 5MiB (gone)", "needs a restart:\n  instance: test-1 -> test-2\n  buffer: 64MiB -> 128MiB")
	r.says(t, "waits for a restart: instance, buffer", "status")
	r.change(t, "http: "+r.http, "http: "+freeAddress(t)) // the daemon stays where it is until a restart
	run("reload", "--dry-run").want(t, exitOK, "http: "+r.http+" -> ")
	r.says(t, "waits for a restart", "status")
	run("resume", "east->west").want(t, exitFailure, "paused in mirror.yaml")
	run("status").want(t, exitOK, "paused")
	if page := r.page(t, "/"); !strings.Contains(page, "a restart brings") || !strings.Contains(page, "paused") {
		t.Errorf("the page does not say what waits, or is paused")
	}
}

// SIGHUP has a process read its file again, and never ends it.
func TestHangupReloads(t *testing.T) {
	r := &running{east: freeAddress(t), west: freeAddress(t), http: freeAddress(t)}
	r.config = config(t, embeddedConfig(r, oneFlow))
	p := startProcess(t, r.config)
	hangup := func(want string) {
		t.Helper()
		if err := p.Process.Signal(syscall.SIGHUP); err != nil {
			t.Fatal(err)
		}
		r.says(t, want, "status")
	}
	r.change(t, "to: west", "to: west, throttle: 7MB")
	hangup("at most 7.0 MB/s")
	r.change(t, "7MB", "7QB")
	hangup("was not taken")
	told := func() bool { // the status may be ahead of the log
		return strings.Contains(p.errors.String(), "nothing has changed") && strings.Contains(p.errors.String(), "is not a size")
	}
	for deadline := time.Now().Add(10 * time.Second); !told(); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("the log does not tell why:\n%s", p.errors.String())
		}
	}
	if err := os.Remove(r.config); err != nil {
		t.Fatal(err)
	}
	if err := p.Process.Signal(syscall.SIGHUP); err != nil {
		t.Fatal(err)
	}
	client := console.NewClient(r.http)
	for deadline := time.Now().Add(20 * time.Second); ; time.Sleep(20 * time.Millisecond) {
		status, err := client.Status(t.Context())
		if err == nil && strings.Contains(status.Config.Error, "no such file") && status.Flows[0].Throttle == 7_000_000 {
			break
		}
		if time.Now().After(deadline) {
			t.Fatalf("without its file: %+v, %v", status.Config, err)
		}
	}
	if err := p.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	if code := p.ends(t); code != exitOK {
		t.Errorf("it ended with %d:\n%s", code, p.errors.String())
	}
}

// taker takes every configuration, or none.
type taker struct {
	took int
	err  error
}

func (f *taker) Reload(*topology.Config) ([]topology.Change, error) {
	f.took++
	return nil, f.err
}

// What the engine refuses is not remembered as taken, and the level of the log
// needs no engine.
func TestAReloadThatTheEngineRefuses(t *testing.T) {
	r := &running{east: "127.0.0.1:1", west: "127.0.0.1:2", http: "127.0.0.1:3"}
	r.config = config(t, embeddedConfig(r, oneFlow))
	running, err := topology.Load(r.config)
	if err != nil {
		t.Fatal(err)
	}
	logger, err := newLogger(&lockedBuffer{}, nil, "text")
	if err != nil {
		t.Fatal(err)
	}
	engine, level := &taker{err: context.DeadlineExceeded}, ""
	file := newConfigFile(running, logger)
	file.engine, file.level = engine, func(name string) { level = name }
	r.change(t, "to: west", "to: west, throttle: 7MB")
	for range 2 { // refused once, it still differs
		answer, err := file.Reload(t.Context(), false)
		if err != nil || answer.Taken || !strings.Contains(answer.Error, "deadline") || len(answer.Changes) != 1 || file.State().Refused == nil {
			t.Errorf("refused: %+v, %v, state %+v", answer, err, file.State())
		}
	}
	engine.err = nil
	if answer, err := file.Reload(t.Context(), false); err != nil || !answer.Taken || file.State().Refused != nil || engine.took != 3 {
		t.Errorf("taken: %+v, %v, %d times, state %+v", answer, err, engine.took, file.State())
	}
	r.change(t, "instance:", "log: {level: debug}\ninstance:")
	if answer, err := file.Reload(t.Context(), true); err != nil || answer.Taken || len(answer.Changes) != 1 || level == "debug" {
		t.Errorf("dry run: %+v, %v, level %q", answer, err, level)
	}
	if answer, err := file.Reload(t.Context(), false); err != nil || !answer.Taken || engine.took != 3 || level != "debug" {
		t.Errorf("level: %+v, %v, engine %d times, level %q", answer, err, engine.took, level)
	}
}

func TestIncidentsOfADaemon(t *testing.T) {
	at := time.Date(2026, 1, 31, 12, 0, 0, 0, time.UTC)
	engine := fakeEngine{incidents: []mirror.Incident{
		{ID: 3, Time: at, Last: at.Add(time.Minute), Flow: "east->west", Topic: "evil\x1b[2J", Partition: 3, Kind: mirror.KindRetentionLoss, SourceOffset: 10, TargetOffset: -1, Count: 5, Times: 4, Detail: "offsets 10 to 14 are gone\x07", Action: "the partition stopped"},
		{ID: 4, Time: time.Now(), Last: time.Now(), Flow: "east->west", Partition: -1, Kind: mirror.KindFenced, SourceOffset: -1, TargetOffset: -1, Count: -1, Times: 1, Detail: "fenced"},
	}}
	path := daemonOf(t, engine)
	o := kmirror(t, "", "incidents", "-c", path).want(t, exitOK, `retention-loss  east->west  evil\x1b[2J/3  source 10  count 5  4 times`, `    offsets 10 to 14 are gone\x07`, "fenced  east->west\n    fenced\n")
	if strings.Contains(o.out, "\x1b") {
		t.Error("a topic's name steers the terminal")
	}
	if o := kmirror(t, "", "incidents", "--since", "1h", "-c", path).want(t, exitOK); strings.Contains(o.out, "retention-loss") {
		t.Errorf("--since 1h shows older ones:\n%s", o.out)
	}
	kmirror(t, "", "incidents", "--kind", "doubled", "-c", path).want(t, exitOK, "no incidents")
	kmirror(t, "", "incidents", "--limit", "1", "-c", path).want(t, exitOK, "and 1 before these")
	kmirror(t, "", "incidents", "--limit", "0", "-c", path).want(t, exitUsage, "1 to 1000")
	kmirror(t, "", "incidents", "--since", "yesterday", "-c", path).want(t, exitUsage, "--since \"yesterday\": it is a time such as")
	var answer console.IncidentsAnswer
	if o := kmirror(t, "", "incidents", "--flow", "east->west", "--since", "2026-01-01", "-o", "json", "-c", path).want(t, exitOK); json.Unmarshal([]byte(o.out), &answer) != nil || len(answer.Incidents) != 2 || answer.Newest != 4 {
		t.Errorf("-o json: %s", o.out)
	}
	kmirror(t, "", "status", "-c", path).want(t, exitOK, "incidents: 1 in the last day, the newest ", " ago: fenced of east->west; kmirror incidents shows them")

	ctx, cancel := context.WithTimeout(t.Context(), followInterval/2)
	defer cancel()
	followed := kmirrorUntil(ctx, t, "", "incidents", "--follow", "-o", "json", "-c", path).want(t, exitOK)
	if lines := strings.Split(strings.TrimSpace(followed.out), "\n"); len(lines) != 2 || !strings.Contains(lines[1], `"kind":"fenced"`) {
		t.Errorf("--follow -o json: %q", followed.out)
	}
	kmirror(t, "", "incidents", "-c", config(t, "http: 127.0.0.1:1\nclusters: {east: {bootstrap: [127.0.0.1:1]}}\n")).want(t, exitUnreachable, "kmirror run")
}

func TestPlanOfFlows(t *testing.T) {
	path, _, _ := twoClusters(t)
	// orders is there with its three partitions; empty is not.
	o := kmirror(t, "", "plan", "-c", path).want(t, exitOK, "no daemon runs", "mirrors 2 topics", "would make", "empty  east.empty           1         1  earliest")
	if strings.Contains(o.out, "orders") || strings.Contains(o.out, "__internal") {
		t.Errorf("it would make what is there, or is internal:\n%s", o.out)
	}
	var plan planResult
	if o := kmirror(t, "", "plan", "east->west", "-o", "json", "-c", path).want(t, exitOK); json.Unmarshal([]byte(o.out), &plan) != nil || len(plan.Flows[0].Make) != 1 || plan.Reload != nil {
		t.Errorf("-o json: %s", o.out)
	}
	kmirror(t, "", "plan", "west->east", "-c", path).want(t, exitNotFound, "there are east->west")
	grown, err := kfake.NewCluster(kfake.NumBrokers(1), kfake.ClusterID("grown"), kfake.SeedTopics(5, "orders", "paused"), kfake.SeedTopics(1, "west.x"))
	if err != nil {
		t.Fatal(err)
	}
	defer grown.Close()
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	west := topologyOf(t, path).Cluster("west").Bootstrap[0]
	if err := os.WriteFile(path, []byte(strings.Replace(twoClustersConfig(grown.ListenAddrs()[0], west), "to: west}", "to: west, topic_rules: [{topics: [paused], paused: true}]}", 1)), 0o600); err != nil {
		t.Fatal(err, text)
	}
	kmirror(t, "", "plan", "-c", path).want(t, exitOK, "mirrors 2 topics, 1 of them paused by the file; leaves out 1: by its name it came from the target",
		"would add partitions to", "orders  east.orders           5         1    3")
	kmirror(t, "", "plan", "-c", config(t, twoClustersConfig("127.0.0.1:1", west)), "--timeout", "2s").want(t, exitUnreachable, "cluster east does not answer")
}

func topologyOf(t *testing.T, path string) *topology.Config {
	t.Helper()
	config, err := topology.Load(path)
	if err != nil {
		t.Fatal(err)
	}
	return config
}
