package storage

import "sync"

// cached is a thing that can be dropped and made again.
type cached interface {
	weight() int64
	takeHot() bool // whether it was used since the last call
	dead() bool    // it is gone already
	drop()
}

// clock holds things up to a weight and drops those that nobody used since its
// hand last came by.
type clock struct {
	limit int64

	mu    sync.Mutex // guards the fields below
	items []cached
	hand  int
	total int64
}

// add takes x in and drops others to make room.
func (c *clock) add(x cached) {
	for _, victim := range c.admit(x) {
		victim.drop()
	}
}

func (c *clock) admit(x cached) (victims []cached) {
	c.mu.Lock()
	defer c.mu.Unlock()
	// Two turns suffice: the first may only clear marks.
	for turns := 2 * len(c.items); turns > 0 && len(c.items) > 0 && c.total+x.weight() > c.limit; turns-- {
		if c.hand >= len(c.items) {
			c.hand = 0
		}
		candidate := c.items[c.hand]
		if !candidate.dead() {
			if candidate.takeHot() {
				c.hand++
				continue
			}
			victims = append(victims, candidate)
		}
		c.total -= candidate.weight()
		last := len(c.items) - 1
		c.items[c.hand], c.items[last] = c.items[last], nil
		c.items = c.items[:last]
	}
	c.items = append(c.items, x)
	c.total += x.weight()
	return victims
}
