package consul_test

import (
	"bytes"
	"context"
	"errors"
	"maps"
	"slices"
	"sync"
	"testing"
	"time"

	"kmirror/topology/consul"
)

// world is a Consul: the real one or the twin.
type world interface {
	client(t *testing.T, instance, stateFile string) (*consul.Client, link)
	destroy(t *testing.T, life string) // its session, by hand
	loseState(t *testing.T)
	keys(t *testing.T) []string
}

// link is one instance's way to Consul.
type link interface {
	Up()
	Down()
	Silent()
}

const ttl = 10 * time.Second

// actor is an instance that does what the mirror does: it joins, leads when it
// can, watches members and its own assignment.
type actor struct {
	*consul.Client
	link link
	stop context.CancelFunc
	done chan error // what Join returned

	mu            sync.Mutex
	lives         []string
	alive         bool
	until         func() time.Time
	ended         time.Time // of the last life
	endedBy       error
	members, held map[string][]byte
	fences        []uint64
	leading       bool
	deposed       time.Time
	assignment    []byte
}

func start(t *testing.T, w world, instance, stateFile string) *actor {
	t.Helper()
	client, l := w.client(t, instance, stateFile)
	ctx, cancel := context.WithCancel(t.Context())
	a := &actor{Client: client, link: l, stop: cancel, done: make(chan error, 1)}
	var joined sync.WaitGroup
	joined.Go(func() { a.done <- a.Join(ctx, []byte("I am "+instance), a.live) })
	t.Cleanup(func() {
		cancel()
		joined.Wait()
	})
	return a
}

func (a *actor) live(ctx context.Context, id string, deadline func() time.Time) error {
	a.mu.Lock()
	a.lives, a.alive, a.until = append(a.lives, id), true, deadline
	a.mu.Unlock()
	var parts sync.WaitGroup
	parts.Go(func() {
		_ = a.Members(ctx, func(members, held map[string][]byte) error {
			a.mu.Lock()
			defer a.mu.Unlock()
			a.members, a.held = members, held
			return nil
		})
	})
	parts.Go(func() { _ = a.Lead(ctx, id, a.term) })
	parts.Go(func() {
		_ = a.Assignment(ctx, id, func(value []byte) error {
			a.mu.Lock()
			defer a.mu.Unlock()
			a.assignment = value
			return nil
		})
	})
	<-ctx.Done()
	a.mu.Lock()
	a.ended, a.endedBy, a.alive = time.Now(), context.Cause(ctx), false
	a.mu.Unlock()
	parts.Wait()
	a.mu.Lock()
	a.members, a.held, a.assignment = nil, nil, nil
	a.mu.Unlock()
	return nil
}

func (a *actor) term(ctx context.Context, fence uint64) error {
	a.mu.Lock()
	a.fences, a.leading = append(a.fences, fence), true
	a.mu.Unlock()
	<-ctx.Done()
	a.mu.Lock()
	a.leading, a.deposed = false, time.Now()
	a.mu.Unlock()
	return nil
}

// id is the life of now, empty if there is none.
func (a *actor) id() string {
	a.mu.Lock()
	defer a.mu.Unlock()
	if !a.alive {
		return ""
	}
	return a.lives[len(a.lives)-1]
}

func (a *actor) isLeading() bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.leading
}

func (a *actor) fence() uint64 {
	a.mu.Lock()
	defer a.mu.Unlock()
	if len(a.fences) == 0 {
		return 0
	}
	return a.fences[len(a.fences)-1]
}

// assigned reports whether this is the actor's assignment.
func (a *actor) assigned(value []byte) bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.assignment != nil && bytes.Equal(a.assignment, value)
}

// seesHeld reports whether the actor sees that a life holds this; nil: that it holds nothing.
func (a *actor) seesHeld(id string, value []byte) bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	held, ok := a.held[id]
	return ok == (value != nil) && bytes.Equal(held, value)
}

// sees reports whether these lives, and no others, are members by a's watch.
func (a *actor) sees(ids ...string) bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	slices.Sort(ids)
	return slices.Equal(slices.Sorted(maps.Keys(a.members)), ids) && !slices.Contains(ids, "")
}

func (a *actor) lifetimes() int {
	a.mu.Lock()
	defer a.mu.Unlock()
	return len(a.lives)
}

// within waits for something to become true, and returns how long that took.
func within(t *testing.T, limit time.Duration, what string, holds func() bool) time.Duration {
	t.Helper()
	began := time.Now()
	for !holds() {
		if time.Since(began) > limit {
			t.Fatalf("after %v still not: %s", limit, what)
		}
		time.Sleep(5 * time.Millisecond)
	}
	return time.Since(began)
}

// during checks that something stays true.
func during(t *testing.T, d time.Duration, what string, holds func() bool) {
	t.Helper()
	for began := time.Now(); time.Since(began) < d; time.Sleep(20 * time.Millisecond) {
		if !holds() {
			t.Fatalf("not any more after %v: %s", time.Since(began), what)
		}
	}
}

func (a *actor) leave(t *testing.T) {
	t.Helper()
	a.stop()
	select {
	case err := <-a.done:
		if err != nil {
			t.Errorf("Join returned %v, want nil", err)
		}
	case <-time.After(10 * time.Second):
		t.Fatal("Join does not return")
	}
}

// leaderOf waits for one of some to lead, and tells which.
func leaderOf(t *testing.T, limit time.Duration, actors ...*actor) (leader *actor, others []*actor) {
	t.Helper()
	within(t, limit, "one of them leads", func() bool { return slices.ContainsFunc(actors, (*actor).isLeading) })
	for _, a := range actors {
		if leader == nil && a.isLeading() {
			leader = a
		} else {
			others = append(others, a)
		}
	}
	return leader, others
}

func mustBe(t *testing.T, err, want error) {
	t.Helper()
	if !errors.Is(err, want) {
		t.Errorf("got %v, want %v", err, want)
	}
}
