package mirror

import (
	"testing"
	"testing/synctest"
	"time"
)

// TestThrottleRate: readers that ask whenever they may get the rate, whatever
// each read brings.
func TestThrottleRate(t *testing.T) {
	for _, read := range []int{1_000, 100_000, 3_000_000} {
		synctest.Test(t, func(t *testing.T) {
			const rate = 1 << 20
			bucket := newThrottle(rate)
			began, total := time.Now(), 0
			for time.Since(began) < time.Minute {
				if d := bucket.delay(time.Now()); d > 0 {
					time.Sleep(d)
					continue
				}
				bucket.spent(read)
				total += read
			}
			got := float64(total) / time.Since(began).Seconds()
			if over := float64(read)/60 + rate/4/60; got > rate+over+1 || got < rate*0.95 {
				t.Errorf("reads of %d bytes: %.0f bytes a second, want %d", read, got, rate)
			}
		})
	}
}

// TestThrottleLiveFirst: backlog gets what live traffic leaves, and nothing of
// what it needs.
func TestThrottleLiveFirst(t *testing.T) {
	for _, tt := range []struct {
		name          string
		live, backlog float64 // shares of the rate
	}{
		{"little live traffic", 0.25, 0.75},
		{"live traffic takes all", 1, 0},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				const rate, tick = 1 << 20, 10 * time.Millisecond
				bucket := newThrottle(rate)
				var live, backlog, waiting float64
				for range 6000 {
					waiting += rate * tt.live * tick.Seconds()
					if bucket.delay(time.Now()) == 0 {
						bucket.spent(int(waiting))
						live, waiting = live+waiting, 0
					}
					if bucket.delayBacklog(time.Now()) == 0 {
						n := bucket.room(time.Now(), 1<<20)
						bucket.spent(n)
						backlog += float64(n)
					}
					time.Sleep(tick)
				}
				if got := live / 60 / rate; got < tt.live*0.98 {
					t.Errorf("live traffic got %.2f of the rate, and needs %.2f", got, tt.live)
				}
				if got := backlog / 60 / rate; got < tt.backlog-0.05 || got > tt.backlog+0.05 {
					t.Errorf("backlog got %.2f of the rate, want %.2f", got, tt.backlog)
				}
			})
		})
	}
}

// TestThrottleChange: without a limit nobody waits, and a new limit holds at once.
func TestThrottleChange(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		bucket := newThrottle(0)
		bucket.spent(1 << 30)
		if d := bucket.delay(time.Now()); d != 0 {
			t.Errorf("no limit: wait %v", d)
		}
		if n := bucket.room(time.Now(), 8<<20); n != 8<<20 {
			t.Errorf("no limit: room for %d", n)
		}
		bucket.set(1 << 20)
		bucket.spent(2 << 20)
		if d := bucket.delay(time.Now()); d < time.Second || d > 2*time.Second {
			t.Errorf("2 MiB spent at 1 MiB/s: wait %v", d)
		}
		bucket.set(0)
		if d := bucket.delayBacklog(time.Now()); d != 0 {
			t.Errorf("limit lifted: wait %v", d)
		}
		if d := (*throttle)(nil).delay(time.Now()); d != 0 {
			t.Errorf("no throttle: wait %v", d)
		}
	})
}
