package mirror

import (
	"sync"
	"time"
)

// throttle holds a flow to so many bytes per second on the wire. It is a bucket
// that fills at that rate and holds a quarter of a second of it. Who has read
// takes out what it was, and may by that overdraw; nobody reads before the
// bucket has something again.
//
// Live traffic goes before backlog: partitions that are far behind read only
// while the bucket is more than half full, so that they get what the live ones
// leave over, and never the last of it.
//
// A nil throttle and one with rate 0 hold nobody.
type throttle struct {
	now func() time.Time

	mu    sync.Mutex // guards the fields below
	rate  float64    // bytes per second; 0: no limit
	level float64    // bytes; below 0 while it is overdrawn
	at    time.Time  // when the level was that
}

// throttleBurst is how long the bucket takes to fill.
const throttleBurst = 250 * time.Millisecond

// throttleLeast is what one read may bring at least: a smaller one costs more
// in requests than it saves.
const throttleLeast = 64 << 10

func newThrottle(rate int64) *throttle {
	t := &throttle{now: time.Now}
	t.set(rate)
	return t
}

// set changes the rate, in bytes per second; 0 is no limit. What was overdrawn
// at the former rate is forgotten.
func (t *throttle) set(rate int64) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if float64(rate) == t.rate {
		return
	}
	t.rate, t.at = float64(rate), t.now()
	t.level = t.full()
}

func (t *throttle) full() float64 { return max(t.rate*throttleBurst.Seconds(), throttleLeast) }

// fill brings the level up to date. Called with mu held.
func (t *throttle) fill(now time.Time) {
	if gone := now.Sub(t.at); gone > 0 {
		t.level, t.at = min(t.full(), t.level+gone.Seconds()*t.rate), now
	}
}

// delay says after how long a partition that is in step may read; 0 is now.
func (t *throttle) delay(now time.Time) time.Duration { return t.after(now, 0) }

// delayBacklog says the same of a partition that is far behind.
func (t *throttle) delayBacklog(now time.Time) time.Duration { return t.after(now, 0.5) }

func (t *throttle) after(now time.Time, reserve float64) time.Duration {
	if t == nil {
		return 0
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.rate == 0 {
		return 0
	}
	t.fill(now)
	lacking := reserve*t.full() - t.level
	if lacking < 0 || lacking == 0 && reserve > 0 {
		return 0
	}
	return max(time.Millisecond, time.Duration(lacking/t.rate*float64(time.Second)))
}

// room is how many bytes a read should ask for at most, so that it overdraws
// the bucket by little; limit is what it would ask for otherwise.
func (t *throttle) room(now time.Time, limit int) int {
	if t == nil {
		return limit
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.rate == 0 {
		return limit
	}
	t.fill(now)
	return min(limit, max(throttleLeast, int(t.level)))
}

// spent takes out what was read: n bytes.
func (t *throttle) spent(n int) {
	if t == nil {
		return
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.rate == 0 {
		return
	}
	t.fill(t.now())
	t.level -= float64(n)
}
