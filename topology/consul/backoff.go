package consul

import (
	"context"
	"math/rand/v2"
	"time"
)

// backoff is how long to wait before a thing is tried again: 100 ms, doubled up
// to 2 s, each time with jitter so that many instances do not come at once.
type backoff struct{ tries int }

func (b *backoff) reset() { b.tries = 0 }

// sleep waits, and reports false if ctx ended first.
func (b *backoff) sleep(ctx context.Context) bool {
	wait := min(100*time.Millisecond<<min(b.tries, 10), 2*time.Second)
	b.tries++
	return sleep(ctx, jitter(wait))
}

// jitter is a duration from half of d to one and a half.
func jitter(d time.Duration) time.Duration {
	return d/2 + time.Duration(rand.Int64N(int64(d)+1))
}

// sleep waits, and reports false if ctx ended first.
func sleep(ctx context.Context, d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-timer.C:
		return true
	}
}
