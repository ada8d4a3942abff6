package coordinator

import (
	"context"
	"time"
)

// loop is what a runner of shards does all its life.
type loop[S comparable] struct {
	work   chan S // shards with something to append; one place for each
	timers *timerQueue[S]
	drain  func(S)             // appends what a shard has; does not wait for it
	fire   func(now time.Time) // ticks what is due
	expire func()
}

// run serves until ctx ends. expire is called every so often.
func (l loop[S]) run(ctx context.Context, every time.Duration) {
	expiry := time.NewTicker(every)
	defer expiry.Stop()
	alarm := time.NewTimer(time.Hour)
	defer alarm.Stop()
	for {
		wait := time.Hour
		if at, ok := l.timers.next(); ok {
			wait = max(0, time.Until(at))
		}
		alarm.Reset(wait)
		select {
		case <-ctx.Done():
			return
		case s := <-l.work:
			l.drain(s)
		case <-alarm.C:
			l.fire(time.Now())
		case <-l.timers.wake:
		case <-expiry.C:
			l.expire()
		}
	}
}
