package mirror

import (
	"os"
	"strconv"
	"strings"
	"testing"
)

// TestSimulation plays the takeover of partitions against everything that can go
// wrong, over many seeds. KMIRROR_SEEDS says how many, KMIRROR_SEED_FROM where to
// begin.
func TestSimulation(t *testing.T) {
	seeds, from := 300, 0
	if n, err := strconv.Atoi(os.Getenv("KMIRROR_SEEDS")); err == nil {
		seeds = n
	}
	if n, err := strconv.Atoi(os.Getenv("KMIRROR_SEED_FROM")); err == nil {
		from = n
	}
	bad, steps, gone := 0, 0, int64(0)
	for seed := from; seed < from+seeds; seed++ {
		got := simulate(t, simOptions{seed: uint64(seed), tracing: os.Getenv("KMIRROR_TRACE") != "", untidy: os.Getenv("KMIRROR_UNTIDY") != ""})
		steps += got.steps
		gone += got.gone
		if got.fault == "" {
			continue
		}
		t.Errorf("seed %d: %s", seed, got.fault)
		if len(got.lines) > 0 {
			t.Log(strings.Join(got.lines, "\n"))
		}
		if bad++; bad > 20 {
			break
		}
	}
	t.Logf("%d steps, %d records deleted by housekeeping", steps, gone)
}
