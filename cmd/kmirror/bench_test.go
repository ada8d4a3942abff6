package main

import (
	"encoding/json"
	"os"
	"strings"
	"testing"
)

// Without clusters it starts a pair of its own, mirrors, compares, and leaves
// nothing behind.
func TestBenchOfEmbeddedClusters(t *testing.T) {
	t.Setenv(beKmirror, "1") // for its children
	t.Setenv("TMPDIR", t.TempDir())
	result := kmirror(t, "", "bench", "-w", "lz4,zstd,uncompressed,one-record,1MB-records,latency", "--megabytes", "11", "--length", "1s", "-o", "json")
	result.want(t, exitOK)
	var report benchReport
	if err := json.Unmarshal([]byte(result.out), &report); err != nil {
		t.Fatalf("%v\n%s", err, result.out)
	}
	if len(report.Results) != 6 {
		t.Fatalf("%d results, want 6\n%s", len(report.Results), result.out)
	}
	for _, r := range report.Results {
		if !r.Verified || r.Error != "" || r.Records == 0 || r.Bytes == 0 || r.First <= 0 {
			t.Errorf("%+v", r)
		}
		// So little may all be there at the first look: then there is no rate.
		if timed := r.Workload == benchLatency; timed != (r.Latency != nil) || (!timed && r.Seconds > 0) != (r.Rate > 0) {
			t.Errorf("%+v", r)
		}
	}
	if left, err := os.ReadDir(os.Getenv("TMPDIR")); err != nil || len(left) > 0 {
		t.Errorf("left behind: %v, %v", left, err)
	}
}

// Between clusters that are given it deletes what it made, and nothing else.
func TestBenchOfGivenClusters(t *testing.T) {
	t.Setenv(beKmirror, "1")
	r := startDaemon(t, "")
	kmirror(t, "1\n2\n", "produce", "west", "ours", "-c", r.config).want(t, exitOK)
	kmirror(t, "", "bench", "east", "west", "-w", "lz4", "--megabytes", "2", "-c", r.config).want(t, exitOK, "lz4", "equal", "east -> west")
	topics := kmirror(t, "", "topics", "--all", "-c", r.config)
	topics.want(t, exitOK, "ours")
	if strings.Contains(topics.out, benchPrefix) {
		t.Errorf("topics are left:\n%s", topics.out)
	}
	kmirror(t, "", "consume", "west", "ours", "-e", "-c", r.config).want(t, exitOK, "1\n2\n")
}

func TestBenchRefusesWhatCannotBeMeant(t *testing.T) {
	path := config(t, "clusters:\n  east: {bootstrap: ['127.0.0.1:1']}\n  west: {bootstrap: ['127.0.0.1:2']}\n")
	for _, c := range []struct {
		args string
		code int
		word string
	}{
		{"east", exitUsage, "two clusters"},
		{"east east", exitUsage, "two clusters"},
		{"east north", exitNotFound, "north"},
		{"east west", exitUnreachable, "east"},
		{"-w fast", exitUsage, "one-record"},
		{"--megabytes 0", exitUsage, "--megabytes"},
		{"--partitions 0", exitUsage, "--partitions"},
		{"--rate 0", exitUsage, "--rate"},
		{"--length 1ms", exitUsage, "--length"},
		{"--limit 1s", exitUsage, "--limit"},
	} {
		kmirror(t, "", append([]string{"bench", "-c", path}, strings.Fields(c.args)...)...).want(t, c.code, c.word)
	}
}
