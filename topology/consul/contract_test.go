package consul_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"kmirror/topology/consul"
)

const soon = 3 * time.Second // for what happens at once

// story is one thing that every Consul must let happen.
type story struct {
	name string
	tell func(t *testing.T, w world)
}

func stories() []story {
	return []story{
		{"members come and go", membersComeAndGo},
		{"one leads, and its fences grow", oneLeads},
		{"a term publishes until it is fenced", termPublishes},
		{"what is held goes with its life", heldGoesWithLife},
		{"large values are whole", largeValues},
		{"own errors end Join, Lead and the watches", ownErrors},
		{"two processes of one name are two members", twoOfOneName},
		{"a session destroyed by hand", sessionDestroyed},
		{"an orderly end keeps the life up", orderlyEnd},
		{"a killed process does not wait for itself", killedProcess},
		{"a leader cut off", leaderCutOff},
		{"Consul away for less than a TTL", awayForAShortTime},
		{"the dead are swept", deadAreSwept},
	}
}

func membersComeAndGo(t *testing.T, w world) {
	a := start(t, w, "edge-1", "")
	within(t, soon, "it sees itself", func() bool { return a.sees(a.id()) })
	a.mu.Lock()
	if info := string(a.members[a.lives[0]]); info != "I am edge-1" {
		t.Errorf("its info is %q", info)
	}
	a.mu.Unlock()
	if !strings.HasPrefix(a.id(), "edge-1/") {
		t.Errorf("its id is %q", a.id())
	}
	b := start(t, w, "edge-2", "")
	within(t, soon, "both see both", func() bool { return a.sees(a.id(), b.id()) && b.sees(a.id(), b.id()) })
	if lives := living(t, a); len(lives) != 2 {
		t.Errorf("living: %v", lives)
	}
	left := b.id()
	b.leave(t)
	if lives := living(t, a); len(lives) != 1 {
		t.Errorf("%s has left, and living are %v", left, lives)
	}
	if took := within(t, soon, "the one that stays is alone", func() bool { return a.sees(a.id()) }); took > time.Second {
		t.Errorf("an orderly leave was seen after %v", took)
	}
	mustBe(t, b.Hold(t.Context(), b.lives[0], nil), consul.ErrLost)
	mustBe(t, b.Lead(t.Context(), b.lives[0], nil), consul.ErrLost)
}

func oneLeads(t *testing.T, w world) {
	actors := []*actor{start(t, w, "edge-1", ""), start(t, w, "edge-2", ""), start(t, w, "edge-3", "")}
	var last uint64
	for len(actors) > 0 {
		leader, others := leaderOf(t, soon, actors...)
		if fence := leader.fence(); fence <= last {
			t.Errorf("fence %d follows %d", fence, last)
		}
		last = leader.fence()
		during(t, 200*time.Millisecond, "the others do not lead", func() bool {
			for _, other := range others {
				if other.isLeading() {
					return false
				}
			}
			return leader.isLeading()
		})
		leader.leave(t)
		actors = others
	}
}

func termPublishes(t *testing.T, w world) {
	a, b := start(t, w, "edge-1", ""), start(t, w, "edge-2", "")
	within(t, soon, "both see both", func() bool { return a.sees(a.id(), b.id()) && b.sees(a.id(), b.id()) })
	leader, others := leaderOf(t, soon, a, b)
	other := others[0]
	fence := leader.fence()
	for i := range 3 {
		value := fmt.Sprintf("plan %d", i)
		if err := leader.Publish(t.Context(), fence, other.id(), []byte(value)); err != nil {
			t.Fatal(err)
		}
		within(t, soon, "it arrives", func() bool { return other.assigned([]byte(value)) })
	}
	// Whoever knows the fence may publish, as long as its term leads.
	if err := other.Publish(t.Context(), fence, leader.id(), []byte("yours")); err != nil {
		t.Fatal(err)
	}
	within(t, soon, "it arrives", func() bool { return leader.assigned([]byte("yours")) })
	mustBe(t, leader.Publish(t.Context(), fence-1, other.id(), []byte("from the past")), consul.ErrFenced)
	mustBe(t, leader.Publish(t.Context(), fence+1, other.id(), []byte("from the future")), consul.ErrFenced)

	oldLife := leader.id()
	leader.leave(t)
	within(t, soon, "the other leads", other.isLeading)
	mustBe(t, leader.Publish(t.Context(), fence, other.id(), []byte("from the grave")), consul.ErrFenced)
	all, err := other.Assignments(t.Context())
	if err != nil || string(all[other.id()]) != "plan 2" || string(all[oldLife]) != "yours" {
		t.Errorf("the new leader finds %q, %v", all, err)
	}
	if !other.assigned([]byte("plan 2")) {
		t.Error("the assignment has changed")
	}
}

func heldGoesWithLife(t *testing.T, w world) {
	a, b := start(t, w, "edge-1", ""), start(t, w, "edge-2", "")
	within(t, soon, "both see both", func() bool { return a.sees(a.id(), b.id()) && b.sees(a.id(), b.id()) })
	id := b.id()
	for _, value := range []string{"one", "one, two", ""} {
		if err := b.Hold(t.Context(), id, []byte(value)); err != nil {
			t.Fatal(err)
		}
		within(t, soon, "the other sees it", func() bool { return a.seesHeld(id, []byte(value)) })
	}
	b.leave(t)
	within(t, soon, "it is gone", func() bool { return a.seesHeld(id, nil) && a.sees(a.id()) })
}

func largeValues(t *testing.T, w world) {
	a, b := start(t, w, "edge-1", ""), start(t, w, "edge-2", "")
	within(t, soon, "both see both", func() bool { return a.sees(a.id(), b.id()) && b.sees(a.id(), b.id()) })
	leader, others := leaderOf(t, soon, a, b)
	other := others[0]
	random := rand.NewChaCha8([32]byte{1})
	for i, size := range []int{10, 300 << 10, 1 << 20, 600 << 10, 100} {
		value := make([]byte, size)
		_, _ = random.Read(value)
		if err := leader.Publish(t.Context(), leader.fence(), other.id(), value); err != nil {
			t.Fatalf("%d bytes: %v", size, err)
		}
		if err := other.Hold(t.Context(), other.id(), value); err != nil {
			t.Fatalf("%d bytes: %v", size, err)
		}
		within(t, 5*soon, fmt.Sprintf("value %d of %d bytes arrives", i, size), func() bool {
			return other.assigned(value) && leader.seesHeld(other.id(), value)
		})
		all, err := leader.Assignments(t.Context())
		if err != nil || !bytes.Equal(all[other.id()], value) {
			t.Errorf("%d bytes: the assignments are not what was published (%v)", size, err)
		}
	}
	for _, key := range w.keys(t) {
		if strings.Contains(key, "/chunks/") {
			t.Errorf("a piece is left: %s", key)
		}
	}
	even := bytes.Repeat([]byte(`{"flow":"east->west","topic":"orders","partition":17}`), 200_000) // 10 MB, but even
	if err := leader.Publish(t.Context(), leader.fence(), other.id(), even); err != nil {
		t.Fatal(err)
	}
	within(t, 5*soon, "10 MB arrive", func() bool { return other.assigned(even) })
	mustBe(t, leader.Publish(t.Context(), leader.fence(), other.id(), make([]byte, consul.MaxValue+1)), consul.ErrTooLarge)
	mustBe(t, leader.Hold(t.Context(), leader.id(), make([]byte, consul.MaxValue+1)), consul.ErrTooLarge)
}

type lostError struct{}

func (lostError) Error() string { return "a successor is there" }
func (lostError) Lost() bool    { return true }

// living is Living, which must not fail.
func living(t *testing.T, a *actor) map[string]struct{} {
	t.Helper()
	lives, err := a.Living(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return lives
}

func ownErrors(t *testing.T, w world) {
	client, _ := w.client(t, "edge-1", "")
	boom := errors.New("boom")
	err := client.Join(t.Context(), nil, func(ctx context.Context, id string, _ func() time.Time) error {
		mustBe(t, client.Members(ctx, func(_, _ map[string][]byte) error { return boom }), boom)
		mustBe(t, client.Lead(ctx, id, func(ctx context.Context, fence uint64) error {
			if err := client.Publish(ctx, fence, id, nil); err != nil {
				t.Error(err)
			}
			return boom
		}), boom)
		mustBe(t, client.Assignment(ctx, id, func([]byte) error { return boom }), boom)
		// A term that only ends is followed by the next.
		terms := 0
		leading, stop := context.WithCancel(ctx)
		if err := client.Lead(leading, id, func(context.Context, uint64) error {
			if terms++; terms == 3 {
				stop()
			}
			return fmt.Errorf("over: %w", consul.ErrFenced)
		}); err != nil || terms != 3 {
			t.Errorf("%d terms, then %v", terms, err)
		}
		return boom
	})
	mustBe(t, err, boom)
	lives := 0
	mustBe(t, client.Join(t.Context(), nil, func(context.Context, string, func() time.Time) error {
		if lives++; lives == 1 {
			return fmt.Errorf("the target says: %w", lostError{})
		}
		return boom
	}), boom)
	if lives != 2 {
		t.Errorf("%d lives, want a second one after an error that asks for it", lives)
	}
	if err := client.Join(t.Context(), nil, func(context.Context, string, func() time.Time) error { return nil }); err != nil {
		t.Errorf("a life that returns nil: %v", err)
	}
}

func twoOfOneName(t *testing.T, w world) {
	a, b := start(t, w, "edge-1", ""), start(t, w, "edge-1", "")
	within(t, soon, "both see both", func() bool { return a.id() != b.id() && a.sees(a.id(), b.id()) && b.sees(a.id(), b.id()) })
	leader, others := leaderOf(t, soon, a, b)
	during(t, 200*time.Millisecond, "the other does not lead", func() bool { return leader.isLeading() && !others[0].isLeading() })
	leader.leave(t)
	within(t, soon, "the other is alone and leads", func() bool { return others[0].isLeading() && others[0].sees(others[0].id()) })
}

func sessionDestroyed(t *testing.T, w world) {
	a, b := start(t, w, "edge-1", ""), start(t, w, "edge-2", "")
	within(t, soon, "both see both", func() bool { return a.sees(a.id(), b.id()) && b.sees(a.id(), b.id()) })
	victim, others := leaderOf(t, soon, a, b)
	first, fence := victim.id(), victim.fence()
	w.destroy(t, first)
	within(t, soon, "its life ends", func() bool { return victim.id() != first })
	mustBe(t, victim.endedBy, consul.ErrLost)
	mustBe(t, victim.Publish(t.Context(), fence, first, nil), consul.ErrFenced)
	within(t, 2*soon, "it is back as another", func() bool { return victim.id() != "" && victim.lifetimes() == 2 })
	within(t, soon, "all see the two", func() bool {
		return victim.sees(victim.id(), others[0].id()) && others[0].sees(victim.id(), others[0].id())
	})
	leader, _ := leaderOf(t, soon, a, b)
	if leader.fence() <= fence {
		t.Errorf("fence %d follows %d", leader.fence(), fence)
	}
	if others[0].lifetimes() != 1 {
		t.Errorf("the other one has had %d lives", others[0].lifetimes())
	}
}

// While live ends in order, for longer than a TTL here, nobody takes the life away.
func orderlyEnd(t *testing.T, w world) {
	b := start(t, w, "edge-2", "")
	client, _ := w.client(t, "edge-1", "")
	ctx, stop := context.WithCancel(t.Context())
	var id atomic.Value
	done := make(chan error, 1)
	go func() {
		done <- client.Join(ctx, nil, func(ctx context.Context, life string, deadline func() time.Time) error {
			id.Store(life)
			<-ctx.Done()
			for began := time.Now(); time.Since(began) < ttl+2*time.Second; time.Sleep(50 * time.Millisecond) {
				if !time.Now().Before(deadline()) {
					t.Error("the deadline passed while live was ending")
					break
				}
			}
			return nil
		})
	}()
	within(t, soon, "both are there", func() bool { l, _ := id.Load().(string); return b.sees(l, b.id()) })
	stop()
	during(t, ttl+time.Second, "it is still a member", func() bool { return b.sees(id.Load().(string), b.id()) })
	if err := <-done; err != nil {
		t.Error(err)
	}
	within(t, soon, "it is gone", func() bool { return b.sees(b.id()) })
}

func killedProcess(t *testing.T, w world) {
	file := filepath.Join(t.TempDir(), "consul.session")
	b := start(t, w, "edge-2", "")
	killed := start(t, w, "edge-1", file)
	within(t, soon, "both are there", func() bool { return b.sees(killed.id(), b.id()) })
	first := killed.id()
	killed.link.Silent() // from now on it might as well be dead
	again := start(t, w, "edge-1", file)
	took := within(t, soon, "the new life has replaced the old one", func() bool { return again.id() != "" && b.sees(again.id(), b.id()) })
	t.Logf("took %v", took)
	if again.id() == first {
		t.Error("the new life has the old one's id")
	}
	killed.link.Up()
	within(t, ttl+soon, "the zombie has noticed", func() bool { return killed.id() != first })
	killed.leave(t)
}

func leaderCutOff(t *testing.T, w world) {
	a, b := start(t, w, "edge-1", ""), start(t, w, "edge-2", "")
	within(t, soon, "both see both", func() bool { return a.sees(a.id(), b.id()) && b.sees(a.id(), b.id()) })
	leader, others := leaderOf(t, soon, a, b)
	other := others[0]
	lost, fence := leader.id(), leader.fence()
	if err := leader.Hold(t.Context(), lost, []byte("all")); err != nil {
		t.Fatal(err)
	}
	leader.link.Silent()
	cut := time.Now()
	within(t, ttl+2*time.Second, "its life ends", func() bool { return leader.id() != lost })
	within(t, 500*time.Millisecond, "its term ends with it", func() bool { return !leader.isLeading() })
	leader.mu.Lock()
	ended, deadline, deposed := leader.ended, leader.until(), leader.deposed
	leader.mu.Unlock()
	mustBe(t, leader.endedBy, consul.ErrLost)
	if ended.Before(cut.Add(ttl/2)) || ended.After(cut.Add(ttl+500*time.Millisecond)) || ended.Before(deadline) {
		t.Errorf("cut off, it ended after %v, %v after its deadline", ended.Sub(cut), ended.Sub(deadline))
	}
	within(t, 2*time.Second, "the other leads", other.isLeading)
	took := time.Since(cut)
	if other.fence() <= fence {
		t.Errorf("fence %d does not follow %d", other.fence(), fence)
	}
	t.Logf("ended after %v, its term after %v; taken over after %v", ended.Sub(cut), deposed.Sub(cut), took)
	if took > ttl+time.Second {
		t.Errorf("taken over %v after the cut, want a TTL and a second at most", took)
	}
	within(t, soon, "the other is alone", func() bool { return other.sees(other.id()) && other.seesHeld(lost, nil) })
	leader.link.Up()
	within(t, 4*soon+ttl, "it is back as another", func() bool { return leader.id() != "" && leader.id() != lost && other.sees(leader.id(), other.id()) })
	mustBe(t, leader.Publish(t.Context(), fence, other.id(), nil), consul.ErrFenced)
	if !other.isLeading() || leader.isLeading() {
		t.Error("it took the term back")
	}
}

func awayForAShortTime(t *testing.T, w world) {
	a, b := start(t, w, "edge-1", ""), start(t, w, "edge-2", "")
	within(t, soon, "both see both", func() bool { return a.sees(a.id(), b.id()) && b.sees(a.id(), b.id()) })
	leader, others := leaderOf(t, soon, a, b)
	other := others[0]
	leader.link.Down()
	other.link.Silent()
	published := make(chan error, 2)
	go func() { published <- leader.Publish(t.Context(), leader.fence(), other.id(), []byte("waited for")) }()
	go func() { published <- other.Hold(t.Context(), other.id(), []byte("waited too")) }()
	during(t, ttl/2, "all goes on", func() bool { return leader.isLeading() && leader.id() != "" && other.id() != "" })
	leader.link.Up()
	other.link.Up()
	for range 2 {
		if err := <-published; err != nil {
			t.Error(err)
		}
	}
	within(t, 2*ttl, "what was waiting arrives", func() bool {
		return other.assigned([]byte("waited for")) && leader.seesHeld(other.id(), []byte("waited too"))
	})
	if a.lifetimes() != 1 || b.lifetimes() != 1 || !leader.isLeading() {
		t.Errorf("lives: %d and %d; leading still: %v", a.lifetimes(), b.lifetimes(), leader.isLeading())
	}
}

func deadAreSwept(t *testing.T, w world) {
	client, _ := w.client(t, "edge-1", "")
	client.SweepAfter(100*time.Millisecond, 400*time.Millisecond)
	b := start(t, w, "edge-2", "")
	within(t, soon, "it is there", func() bool { return b.sees(b.id()) })
	dead := b.id()
	large := make([]byte, 700<<10)
	_, _ = rand.NewChaCha8([32]byte{2}).Read(large)
	if err := b.Hold(t.Context(), dead, large); err != nil {
		t.Fatal(err)
	}
	if err := b.Publish(t.Context(), b.fence(), dead, large); err != nil {
		t.Fatal(err)
	}
	ofDead := func() (n int) {
		for _, key := range w.keys(t) {
			if strings.Contains(key, dead) {
				n++
			}
		}
		return n
	}
	if n := ofDead(); n != 3+6 {
		t.Errorf("%d keys of it, want 3 and 6 pieces", n)
	}
	w.destroy(t, dead)
	b.leave(t)
	ctx, stop := context.WithCancel(t.Context())
	err := client.Join(ctx, nil, func(ctx context.Context, id string, _ func() time.Time) error {
		return client.Lead(ctx, id, func(ctx context.Context, fence uint64) error {
			if err := client.Publish(ctx, fence, id, large); err != nil {
				t.Error(err)
			}
			within(t, 2*soon, "nothing of the dead is left", func() bool { return ofDead() == 0 })
			all, err := client.Assignments(ctx)
			if err != nil || !bytes.Equal(all[id], large) {
				t.Errorf("the living one's assignment has suffered: %d bytes, %v", len(all[id]), err)
			}
			stop()
			return nil
		})
	})
	if err != nil {
		t.Error(err)
	}
}

// stateIsLost is told for worlds of their own only.
func stateIsLost(t *testing.T, w world) {
	a, b := start(t, w, "edge-1", filepath.Join(t.TempDir(), "session")), start(t, w, "edge-2", "")
	within(t, soon, "both see both", func() bool { return a.sees(a.id(), b.id()) && b.sees(a.id(), b.id()) })
	firstA, firstB := a.id(), b.id()
	w.loseState(t)
	within(t, 4*soon, "both are back as others", func() bool {
		return a.id() != firstA && b.id() != firstB && a.sees(a.id(), b.id()) && b.sees(a.id(), b.id())
	})
	leader, others := leaderOf(t, 2*soon, a, b)
	if err := leader.Publish(t.Context(), leader.fence(), others[0].id(), []byte("anew")); err != nil {
		t.Fatal(err)
	}
	within(t, soon, "it arrives", func() bool { return others[0].assigned([]byte("anew")) })
}
