package checkpoint_test

import (
	"errors"
	"os"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"pgregory.net/rapid"
)

// Whatever happens to a partition, in whatever order, every offset is translated
// to where the truth says, there and back.
func TestEveryTranslationIsTheTruth(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		roll := func(n int) int { return rapid.IntRange(0, n-1).Draw(t, "roll") }
		if err := play(roll, faults{}); err != nil && !errors.Is(err, errSeam) {
			t.Fatal(err)
		}
	})
}

// The same without a record of what was drawn, and so many more of them:
// KMIRROR_HISTORIES says how many.
func TestManyHistories(t *testing.T) {
	histories, from := uint64(2000), uint64(0)
	if n, err := strconv.ParseUint(os.Getenv("KMIRROR_HISTORIES"), 10, 64); err == nil {
		histories = n
	}
	if n, err := strconv.ParseUint(os.Getenv("KMIRROR_HISTORY_FROM"), 10, 64); err == nil {
		from = n
	}
	var next, wrong, stopped atomic.Uint64
	var all sync.WaitGroup
	began := time.Now()
	for range 2 {
		all.Go(func() {
			for {
				n := next.Add(1) - 1
				if n >= histories {
					return
				}
				err := play(seeded(from+n), faults{})
				if err == nil && n%8 == 0 {
					err = playHousekeeping(seeded(from+n), faults{})
				}
				if errors.Is(err, errSeam) {
					stopped.Add(1)
				} else if err != nil && wrong.Add(1) <= 5 {
					t.Errorf("history %d: %v", from+n, err)
				}
			}
		})
	}
	all.Wait()
	t.Logf("%d histories, %d wrong, %d stopped at the seam, %v", histories, wrong.Load(), stopped.Load(), time.Since(began).Round(time.Millisecond))
}

// An oracle that never complains proves nothing.
func TestTheOracleFindsWhatIsWrong(t *testing.T) {
	for name, tt := range map[string]struct {
		faults
		play func(dice, faults) error
		from uint64 // the first history worth a look, to save time
	}{
		"holes":        {faults{holes: true}, play, 0},
		"generations":  {faults{generations: true}, playHousekeeping, 0},
		"shorter":      {faults{shorter: true}, playHousekeeping, 1000},
		"looseness":    {faults{looseness: true}, playHousekeeping, 0},
		"slack":        {faults{slack: true}, playHousekeeping, 0},
		"delete order": {faults{deleteOrder: true}, playHousekeeping, 500},
		"thin order":   {faults{thinOrder: true}, playHousekeeping, 17000},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			for seed := tt.from; seed < tt.from+50_000; seed++ {
				if err := tt.play(seeded(seed), tt.faults); err != nil && !errors.Is(err, errSeam) {
					t.Logf("history %d: %v", seed, err)
					return
				}
			}
			t.Error("nothing was found")
		})
	}
}
