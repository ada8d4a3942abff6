package integration_test

import (
	"strings"
	"testing"
	"time"

	"kmirror/internal/bench"
)

// A profile is sorted by what its stacks are about.
func TestBenchReadsProfiles(t *testing.T) {
	const text = `File: kmirror
Type: cpu
Time: 2026-11-22 10:20:30 UTC
Duration: 2s, Total samples = 90ms
-----------+-------------------------------------------------------
      30ms   internal/runtime/syscall/linux.Syscall6
             syscall.write
             internal/poll.(*FD).Write
             net.(*conn).Write
             kmirror/internal/wire.(*frameWriter).write
-----------+-------------------------------------------------------
      20ms   runtime.memmove
             internal/poll.(*FD).Read (inline)
             kmirror/internal/wire.(*Conn).read
-----------+-------------------------------------------------------
      10ms   runtime.scanobject
             runtime.gcDrain
             runtime.gcBgMarkWorker
-----------+-------------------------------------------------------
      30ms   runtime.memmove
             kmirror/mirror.(*lane).take
-----------+-------------------------------------------------------
`
	sums := map[string]time.Duration{}
	for _, s := range readTraces(text) {
		sums[kindOf(s.frames)] += s.time
	}
	for kind, want := range map[string]time.Duration{
		"writes to sockets (the kernel's copy, and what TCP does with it)": 30 * time.Millisecond,
		"reads from sockets (the kernel's copy)":                           20 * time.Millisecond,
		"garbage collection":                                               10 * time.Millisecond,
		"copies in user space":                                             30 * time.Millisecond,
	} {
		if sums[kind] != want {
			t.Errorf("%s: %v, want %v; all: %v", kind, sums[kind], want, sums)
		}
	}
}

// The table has ratios against kmirror, and says what failed.
func TestBenchTable(t *testing.T) {
	c := &contest{rows: []row{
		{workload: "lz4", who: ours, rate: 400, cpu: .8, copied: "equal"},
		{workload: "lz4", who: tuned, rate: 80, cpu: 16, copied: "equal"},
		{workload: "lz4", who: relayed, rate: 1200, cpu: .4},
		{workload: "zstd", who: ours, failure: "the copy is not what the source is: 1 record\nmore lines"},
		{workload: "latency-1000", who: ours, cores: .1, latency: bench.Latency{Records: 1, P50: time.Millisecond, P99: 2 * time.Millisecond, P999: 3 * time.Millisecond}},
	}}
	lines := strings.Split(c.table(), "\n")
	row := func(words ...string) {
		t.Helper()
		for _, line := range lines {
			var cells []string
			for cell := range strings.SplitSeq(line, "|") {
				cells = append(cells, strings.TrimSpace(cell))
			}
			if strings.Contains(strings.Join(cells, "|"), strings.Join(words, "|")) {
				return
			}
		}
		t.Errorf("no row with %q in\n%s", words, strings.Join(lines, "\n"))
	}
	row("lz4", ours, "400", "", "", "0.80 (0.00)")
	row("lz4", tuned, "80", "5.00", "", "16.00 (0.00)", "20.00")
	row("lz4", relayed, "1200", "0.33", "", "0.40 (0.00)", "0.50")
	row("zstd", ours)
	row("FAILED: the copy is not what the source is: 1 record")
	row("1.0 / 2.0 / 3.0")
}
