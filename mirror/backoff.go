package mirror

import (
	"context"
	"sync"
	"time"
)

// backoff waits longer after each failure in a row, with jitter.
type backoff struct {
	base, limit time.Duration
	failures    int
}

func (b *backoff) reset() { b.failures = 0 }

// next counts a failure and says how long to wait.
func (b *backoff) next() time.Duration {
	d := b.base << min(b.failures, 20)
	if d <= 0 || d > b.limit {
		d = b.limit
	}
	b.failures++
	return jitter(d)
}

// sleep waits next() or until ctx ends.
func (b *backoff) sleep(ctx context.Context) {
	t := time.NewTimer(b.next())
	defer t.Stop()
	select {
	case <-t.C:
	case <-ctx.Done():
	}
}

// sleepUnless is sleep, and ends early when somebody asks for it.
func (b *backoff) sleepUnless(ctx context.Context, woken <-chan struct{}) {
	t := time.NewTimer(b.next())
	defer t.Stop()
	select {
	case <-t.C:
	case <-woken:
	case <-ctx.Done():
	}
}

// linkState is what is wrong with a connection, for the status; "" when nothing is.
type linkState struct {
	mu  sync.Mutex
	why string
}

func (s *linkState) set(why string) {
	s.mu.Lock()
	s.why = why
	s.mu.Unlock()
}

func (s *linkState) get() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.why
}
