package mirror_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"kmirror/mirror"
)

// town is a live world in memory that several engines share. The first life
// leads for as long as it lives.
type town struct {
	mu       sync.Mutex // guards the fields below
	changed  chan struct{}
	lives    map[string]*townLife
	order    []string
	assigned map[string][]byte
	fence    uint64
	count    int
}

type townLife struct {
	info, held []byte
	deadline   time.Time
	end        context.CancelFunc
}

func newTown() *town {
	return &town{changed: make(chan struct{}), lives: map[string]*townLife{}, assigned: map[string][]byte{}}
}

// change does something to the town and tells everybody.
func (w *town) change(do func()) {
	w.mu.Lock()
	defer w.mu.Unlock()
	do()
	close(w.changed)
	w.changed = make(chan struct{})
}

// look calls fn now and after every change, until it says stop or ctx ends.
func (w *town) look(ctx context.Context, fn func() (stop bool, err error)) error {
	for {
		w.mu.Lock()
		changed := w.changed
		w.mu.Unlock()
		if stop, err := fn(); stop || err != nil {
			return err
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return nil
		}
	}
}

// evict ends a life as a lost session does: its lease is over.
func (w *town) evict(id string) {
	w.change(func() {
		w.lives[id].deadline = time.Now()
		w.lives[id].end()
		delete(w.lives, id)
		w.order = slices.DeleteFunc(w.order, func(o string) bool { return o == id })
	})
}

func (w *town) first() string {
	w.mu.Lock()
	defer w.mu.Unlock()
	if len(w.order) == 0 {
		return ""
	}
	return w.order[0]
}

// citizen is one instance's way to the town.
type citizen struct {
	*town
	name string
}

func (c citizen) Join(ctx context.Context, info []byte, run func(ctx context.Context, id string, deadline func() time.Time) error) error {
	for ctx.Err() == nil {
		life, end := context.WithCancel(ctx)
		l := &townLife{info: info, deadline: time.Now().Add(time.Hour), end: end}
		var id string
		c.change(func() {
			c.count++
			id = fmt.Sprintf("%s/%d", c.name, c.count)
			c.lives[id] = l
			c.order = append(c.order, id)
		})
		err := run(life, id, func() time.Time {
			c.mu.Lock()
			defer c.mu.Unlock()
			return l.deadline
		})
		own := err != nil && life.Err() == nil
		end()
		c.change(func() {
			delete(c.lives, id)
			c.order = slices.DeleteFunc(c.order, func(o string) bool { return o == id })
		})
		var lost interface{ Lost() bool }
		if own && (!errors.As(err, &lost) || !lost.Lost()) {
			return err
		}
	}
	return nil
}

func (c citizen) Lead(ctx context.Context, id string, term func(ctx context.Context, fence uint64) error) error {
	return c.look(ctx, func() (bool, error) {
		if c.first() != id {
			return false, nil
		}
		var fence uint64
		c.change(func() { c.fence++; fence = c.fence })
		return true, term(ctx, fence)
	})
}

func (c citizen) Members(ctx context.Context, fn func(members, held map[string][]byte) error) error {
	return c.look(ctx, func() (bool, error) {
		members, held := map[string][]byte{}, map[string][]byte{}
		c.mu.Lock()
		for id, l := range c.lives {
			members[id] = l.info
			if l.held != nil {
				held[id] = l.held
			}
		}
		c.mu.Unlock()
		return false, fn(members, held)
	})
}

func (c citizen) Publish(_ context.Context, fence uint64, id string, assignment []byte) error {
	c.change(func() {
		if fence == c.fence {
			c.assigned[id] = assignment
		}
	})
	return nil
}

func (c citizen) Living(context.Context) (map[string]struct{}, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	living := map[string]struct{}{}
	for id := range c.lives {
		living[id] = struct{}{}
	}
	return living, nil
}

func (c citizen) Assignments(context.Context) (map[string][]byte, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return maps.Clone(c.assigned), nil
}

func (c citizen) Assignment(ctx context.Context, id string, fn func(value []byte) error) error {
	var last []byte
	return c.look(ctx, func() (bool, error) {
		c.mu.Lock()
		value := c.assigned[id]
		c.mu.Unlock()
		if value == nil || bytes.Equal(value, last) {
			return false, nil
		}
		last = value
		return false, fn(value)
	})
}

func (c citizen) Hold(_ context.Context, id string, held []byte) error {
	c.change(func() {
		if l := c.lives[id]; l != nil {
			l.held = held
		}
	})
	return nil
}

var _ mirror.Live = citizen{}

// owns counts the partitions of a status that mirror in its own hands.
func owns(status mirror.Status) (n int) {
	for _, f := range status.Flows {
		for _, t := range f.Topics {
			for _, p := range t.Partitions {
				if p.Owner == status.Life && p.State == "mirroring" && p.Position >= 0 {
					n++
				}
			}
		}
	}
	return n
}

// TestEnginesShareTheWork: a second instance takes half, the first one leaves in
// order, a third one comes, and records flow all the time. Each stands in the
// target once.
func TestEnginesShareTheWork(t *testing.T) {
	s := newSite(t, "orders", 4)
	town := newTown()
	s.live = citizen{town, "a"}
	a, stopA := s.run()
	ctx, cancel := context.WithCancel(t.Context())
	total := make(chan int, 1)
	cl := s.client(s.east)
	go func() {
		n := 0
		for ; ctx.Err() == nil; n++ {
			for p := range int32(4) {
				cl.Produce(context.Background(), &kgo.Record{Topic: "orders", Partition: p, Value: fmt.Appendf(nil, "%d", n)}, nil)
			}
			if n%20 == 0 {
				_ = cl.Flush(context.Background())
			}
		}
		_ = cl.Flush(context.Background())
		total <- n
	}()
	s.until(a, "the first has all", func(status mirror.Status) bool { return owns(status) == 4 })
	s.live = citizen{town, "b"}
	b, stopB := s.run()
	both := func(status mirror.Status) bool { return owns(status) == 2 }
	s.until(a, "the first has half", both)
	s.until(b, "the second has half", both)
	stopA()
	s.until(b, "the second has all", func(status mirror.Status) bool { return owns(status) == 4 })
	s.live = citizen{town, "c"}
	c, _ := s.run()
	s.until(c, "the third has half", both)
	stopB()
	s.until(c, "the third has all", func(status mirror.Status) bool { return owns(status) == 4 })
	cancel()
	s.mirrored("east.orders", 4, <-total)
}

// TestEngineLosesItsMembership: the life ends, nothing is waited for, and the
// next life of the same instance goes on.
func TestEngineLosesItsMembership(t *testing.T) {
	s := newSite(t, "orders", 3)
	town := newTown()
	s.live = citizen{town, "a"}
	e, _ := s.run()
	for i := range 3 {
		s.produce("orders", 3, i*20, 20)
		s.mirrored("east.orders", 3, (i+1)*20)
		life := town.first()
		town.evict(life)
		s.until(e, "a new life", func(status mirror.Status) bool { return status.Life != "" && status.Life != life })
	}
	s.produce("orders", 3, 60, 20)
	s.mirrored("east.orders", 3, 80)
}
