package integration_test

import (
	"math/rand/v2"
	"testing"
	"time"
)

// TestCrashOfTheDaemon kills the daemon, with both clusters and the mirror in
// it, at random moments under load. No record that was confirmed is lost, none
// is doubled, none changed, and the mirror is exact.
func TestCrashOfTheDaemon(t *testing.T) {
	w := newWorld(t)
	d := w.run("main", twoClusters)
	h := newHistory("orders", 3, 400)
	w.create("east", "orders", 3)
	load := w.load("east", h, 2000)
	for round := range rounds(t) {
		alive := randomly(200*time.Millisecond, 2500*time.Millisecond)
		time.Sleep(alive)
		d.kill()
		t.Logf("round %d: killed after %v", round+1, alive)
		time.Sleep(randomly(0, 300*time.Millisecond))
		d.start()
		if round%3 != 2 { // every third time it is killed again while it starts
			d.ready(readyWithin)
		}
	}
	d.ready(readyWithin)
	load.finish()
	w.exact(h, "east", "west", "east.orders")
}

// TestCrashOfTheBrokers kills the process that serves both clusters, while the
// mirror in another process goes on and finds them again.
func TestCrashOfTheBrokers(t *testing.T) {
	w := newWorld(t)
	brokers := w.run("brokers", serverOnly)
	mirror := w.run("mirror", mirrorOnly)
	h := newHistory("orders", 3, 400)
	w.create("east", "orders", 3)
	load := w.load("east", h, 2000)
	for round := range rounds(t) {
		alive := randomly(500*time.Millisecond, 3*time.Second)
		time.Sleep(alive)
		brokers.kill()
		t.Logf("round %d: killed after %v", round+1, alive)
		time.Sleep(randomly(0, time.Second))
		brokers.start()
		brokers.ready(readyWithin)
	}
	load.finish()
	w.exact(h, "east", "west", "east.orders")
	if !mirror.running() {
		t.Errorf("the mirror ended: %v", mirror.err)
	}
}

// TestCrashOfTheMirror kills the mirror alone while the clusters stay.
func TestCrashOfTheMirror(t *testing.T) {
	w := newWorld(t)
	w.run("brokers", serverOnly)
	mirror := w.run("mirror", mirrorOnly)
	h := newHistory("orders", 3, 400)
	w.create("east", "orders", 3)
	load := w.load("east", h, 2000)
	for round := range rounds(t) {
		alive := randomly(100*time.Millisecond, 2*time.Second)
		time.Sleep(alive)
		mirror.kill()
		t.Logf("round %d: killed after %v", round+1, alive)
		mirror.start()
	}
	mirror.ready(readyWithin)
	load.finish()
	w.exact(h, "east", "west", "east.orders")
}

func randomly(from, to time.Duration) time.Duration {
	return from + rand.N(to-from)
}
