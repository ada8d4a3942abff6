package main

import (
	"bytes"
	"context"
	"encoding/json"
	"flag"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/spf13/cobra"

	"kmirror/topology"
)

var update = flag.Bool("update", false, "write what the commands print into testdata")

// outcome is how one command line ended.
type outcome struct {
	code     int
	out, err string
}

// kmirror runs one command line in this process.
func kmirror(t *testing.T, stdin string, args ...string) outcome {
	t.Helper()
	return kmirrorUntil(t.Context(), t, stdin, args...)
}

func kmirrorUntil(ctx context.Context, t *testing.T, stdin string, args ...string) outcome {
	t.Helper()
	var out, err bytes.Buffer
	a := &app{in: strings.NewReader(stdin), out: &out, err: &err, started: time.Now()}
	code := a.main(ctx, args)
	return outcome{code, out.String(), err.String()}
}

// want fails unless the command ended with code and said these things.
func (o outcome) want(t *testing.T, code int, says ...string) outcome {
	t.Helper()
	if o.code != code {
		t.Fatalf("exit code = %d, want %d\nstdout:\n%s\nstderr:\n%s", o.code, code, o.out, o.err)
	}
	for _, s := range says {
		if !strings.Contains(o.out+o.err, s) {
			t.Errorf("it does not say %q\nstdout:\n%s\nstderr:\n%s", s, o.out, o.err)
		}
	}
	if strings.Contains(o.err, "goroutine ") || strings.Contains(o.err, "panic") {
		t.Errorf("a stack trace is no answer:\n%s", o.err)
	}
	return o
}

// config writes a mirror.yaml into a fresh directory and returns its path.
func config(t *testing.T, text string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "mirror.yaml")
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// golden compares with testdata/name, or writes it with -update.
func golden(t *testing.T, name, got string) {
	t.Helper()
	path := filepath.Join("testdata", name)
	if *update {
		if err := os.WriteFile(path, []byte(got), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(want), got); diff != "" {
		t.Errorf("%s differs (-want +got):\n%s", path, diff)
	}
}

func TestCommandLineFaults(t *testing.T) {
	good := config(t, string(topology.Sample()))
	for name, c := range map[string]struct {
		args []string
		code int
		says string
	}{
		"unknown command":       {[]string{"frobnicate"}, exitUsage, `unknown command "frobnicate"`},
		"unknown flag":          {[]string{"topics", "--nope"}, exitUsage, "see `kmirror topics --help`"},
		"too few arguments":     {[]string{"consume", "east"}, exitUsage, "accepts 2 arg(s)"},
		"bad output":            {[]string{"version", "-o", "xml"}, exitUsage, "it is text or json"},
		"no configuration":      {[]string{"topics", "-c", "/nowhere/mirror.yaml"}, exitUsage, "kmirror init"},
		"run, no configuration": {[]string{"run", "-c", "/nowhere/mirror.yaml"}, exitUsage, "kmirror init"},
		"unknown cluster":       {[]string{"topics", "esat", "-c", good}, exitNotFound, "there are east, west"},
		"unknown flow":          {[]string{"groups", "a->b", "-c", good}, exitNotFound, "east->west"},
		"no flow between":       {[]string{"translate", "west", "west", "g", "-c", good}, exitNotFound, "no flow between west and west"},
		"translate what":        {[]string{"translate", "east", "west", "-c", good}, exitUsage, "what to translate?"},
		"translate both":        {[]string{"translate", "east", "west", "g", "--topic", "t", "-c", good}, exitUsage, "either a GROUP"},
		"translate negative":    {[]string{"translate", "east", "west", "--topic", "t", "--offset", "-4", "-c", good}, exitUsage, "0 or more"},
		"bad position":          {[]string{"consume", "east", "t", "--from", "yesterday", "-c", good}, exitUsage, "it is earliest, latest"},
		"bad format":            {[]string{"consume", "east", "t", "--format", "xml", "-c", good}, exitUsage, "it is value, kv or json"},
		"bad count":             {[]string{"consume", "east", "t", "-n", "-1", "-c", good}, exitUsage, "1 or more"},
		"group and partition":   {[]string{"consume", "east", "t", "-g", "g", "-p", "1", "-c", good}, exitUsage, "exclude each other"},
		"group and offset":      {[]string{"consume", "east", "t", "-g", "g", "--from", "5", "-c", good}, exitUsage, "earliest or latest"},
		"bad header":            {[]string{"produce", "east", "t", "-H", "=x", "-c", good}, exitUsage, "NAME=VALUE"},
		"no such file":          {[]string{"produce", "east", "t", "-f", "/nowhere/lines", "-c", good}, exitUsage, "/nowhere/lines"},
		"bad log level":         {[]string{"run", "--log-level", "loud", "-c", good}, exitUsage, "debug, info, warn or error"},
		"bad log format":        {[]string{"run", "--log-format", "xml", "-c", good}, exitUsage, "text or json"},
	} {
		t.Run(name, func(t *testing.T) { kmirror(t, "", c.args...).want(t, c.code, c.says) })
	}
}

func TestFaultyConfigurationIsToldWhole(t *testing.T) {
	file := filepath.Join("testdata", "faulty.yaml")
	o := kmirror(t, "", "check", "-c", file).want(t, exitUsage, "20 faults in "+file)
	if o.err != "" {
		t.Errorf("stderr = %q", o.err)
	}
	lines := strings.Split(strings.TrimSpace(o.out), "\n")
	for _, line := range lines[:20] { // file, line, place, problem, remedy; the words are topology's
		if !regexp.MustCompile(`^testdata/faulty\.yaml:\d+: [^:]+: .+; .+$`).MatchString(line) {
			t.Errorf("a fault without place or remedy: %s", line)
		}
	}

	var answer checkResult
	o = kmirror(t, "", "check", "-c", file, "-o", "json").want(t, exitUsage)
	if err := json.Unmarshal([]byte(o.out), &answer); err != nil || answer.OK || len(answer.Faults) < 12 {
		t.Errorf("%v: %d faults, ok %v", err, len(answer.Faults), answer.OK)
	}
	// Every other command says the same, on stderr.
	kmirror(t, "", "topics", "-c", file).want(t, exitUsage, answer.Faults[0].Problem, answer.Faults[11].Problem)
	kmirror(t, "", "run", "-c", file).want(t, exitUsage, answer.Faults[0].Problem, answer.Faults[11].Problem)
}

func TestCheckOfTheSample(t *testing.T) {
	t.Chdir(t.TempDir())
	kmirror(t, "", "init").want(t, exitOK, "kmirror run")
	o := kmirror(t, "", "check").want(t, exitOK)
	const want = `mirror.yaml is good: 2 clusters, 1 flow

CLUSTER  KIND      ADDRESSES
east     embedded  127.0.0.1:19092
west     embedded  127.0.0.1:29092

FLOW        NAMES
east->west  prefixed
`
	if diff := cmp.Diff(want, o.out); diff != "" {
		t.Errorf("check differs (-want +got):\n%s", diff)
	}
}

func TestInitNeverOverwrites(t *testing.T) {
	path := filepath.Join(t.TempDir(), "mirror.yaml")
	kmirror(t, "", "init", "-c", path).want(t, exitOK, "--config "+path)
	if got, err := os.ReadFile(path); err != nil || !bytes.Equal(got, topology.Sample()) {
		t.Errorf("init wrote %d bytes, %v", len(got), err)
	}
	if err := os.WriteFile(path, []byte("mine"), 0o600); err != nil {
		t.Fatal(err)
	}
	kmirror(t, "", "init", "-c", path).want(t, exitUsage, "--force")
	if got, _ := os.ReadFile(path); string(got) != "mine" {
		t.Errorf("init without --force wrote over a file: %q", got)
	}
	kmirror(t, "", "init", "-c", path, "--force").want(t, exitOK)
	if got, _ := os.ReadFile(path); !bytes.Equal(got, topology.Sample()) {
		t.Error("init --force did not write")
	}
	kmirror(t, "", "init", "-c", filepath.Join(path, "x", "mirror.yaml")).want(t, exitFailure)
	kmirror(t, "", "init", "-c", filepath.Join(t.TempDir(), "no", "mirror.yaml")).want(t, exitFailure, "does not exist")
}

func TestVersion(t *testing.T) {
	kmirror(t, "", "version").want(t, exitOK, "kmirror ", "go1.")
	var b buildInfo
	if err := json.Unmarshal([]byte(kmirror(t, "", "version", "-o", "json").want(t, exitOK).out), &b); err != nil || b.Version == "" {
		t.Errorf("%v: %+v", err, b)
	}
}

// Every command explains itself, with an example.
func TestHelp(t *testing.T) {
	a := &app{}
	var walk func(c *cobra.Command)
	walk = func(c *cobra.Command) {
		for _, sub := range c.Commands() {
			if sub.Name() == "help" || sub.Name() == "completion" || !sub.Runnable() {
				continue
			}
			if sub.Short == "" || sub.Example == "" {
				t.Errorf("%s lacks a summary or an example", sub.CommandPath())
			}
			walk(sub)
		}
	}
	walk(a.root())
	kmirror(t, "", "help", "exit-codes").want(t, exitOK, "130", "cannot be reached")
	kmirror(t, "", "--help").want(t, exitOK, "kmirror init")
	kmirror(t, "", "completion", "bash").want(t, exitOK, "complete")
	kmirror(t, "", "__complete", "topics", "-c", config(t, string(topology.Sample())), "").want(t, exitOK, "east\nwest\n")
}
