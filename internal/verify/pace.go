package verify

import (
	"context"
	"sync"
	"time"
)

// pace keeps what is read below a rate, over all readers together. Who has read
// waits until that much may have been read.
type pace struct {
	rate int64 // bytes per second; 0: no limit

	mu   sync.Mutex // guards the field below
	free time.Time  // when all that was read so far is paid for
}

func newPace(rate int64) *pace { return &pace{rate: rate} }

// spend waits until n bytes more are within the rate, or ctx ends.
func (p *pace) spend(ctx context.Context, n int) error {
	if p.rate <= 0 || n == 0 {
		return nil
	}
	now := time.Now()
	p.mu.Lock()
	if p.free.Before(now) {
		p.free = now
	}
	p.free = p.free.Add(time.Duration(float64(n) / float64(p.rate) * float64(time.Second)))
	wait := p.free.Sub(now)
	p.mu.Unlock()
	timer := time.NewTimer(wait)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}
