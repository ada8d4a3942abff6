package kafka

import (
	"context"
	"math/rand/v2"
	"time"
)

const (
	backoffFirst = 30 * time.Millisecond
	backoffMost  = time.Second
)

// backoff is the pause between tries: it doubles up to a second, give or take a
// quarter. The zero value is ready.
type backoff struct {
	next  time.Duration
	tries int
}

// wait pauses; it returns the cause when ctx ends first.
func (b *backoff) wait(ctx context.Context) error {
	b.next = max(backoffFirst, min(2*b.next, backoffMost))
	b.tries++
	pause := b.next*3/4 + rand.N(b.next/2)
	t := time.NewTimer(pause)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// reset starts over after a success.
func (b *backoff) reset() { *b = backoff{} }
