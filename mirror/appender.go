package mirror

import (
	"context"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"kmirror/checkpoint"
	"kmirror/internal/wire"
)

const (
	produceBytes   = 1 << 20          // of one request, unless its first batch alone is larger
	produceTimeout = 15 * time.Second // the broker's own, for the in-sync replicas; below what a connection waits for its answer
	silence        = 10 * time.Second // a broker that answers nothing for so long keeps no memory waiting
)

// appending is a lane at the appender of its target leader.
type appending struct {
	lane    *lane
	acked   func(runs []checkpoint.Run, foreign, base int64) // runs are good during the call
	settled func()                                           // called after acked: what follows may have been dropped; may be nil
}

func (x *appending) of() *lane { return x.lane }

// appender writes to one target broker, over one connection with up to five
// requests in flight. A request carries at most one batch of each lane, so the
// order of a lane is kept by the connection, and across retries by sequence
// numbers. Answers come in order; each resolves one batch of each of its lanes.
//
// What is in step does not wait behind what is far behind: it has an appender of
// its own, the express, with its own connection. A lane goes over from one to the
// other when nothing of it is in flight.
type appender struct {
	broker  int32
	connect func(ctx context.Context, broker int32) (*wire.Conn, error)
	stale   func()
	alive   func() error // nil while the lease holds; asked before each request
	metrics flowMetrics
	log     *slog.Logger

	express *appender // for lanes in step; nil in the express itself
	slow    *appender // in the express: for those that are not
	roster  roster[*appending]

	mu  sync.Mutex // guards the field below
	why string     // why nothing is sent; "" while there is a connection that answers

	// Owned by Run.
	flight  flight
	request wire.ProduceRequest
	batch   []sending    // of the request that is built
	later   []*appending // those that pause after a refusal
	seconds prometheus.Observer
	acks    prometheus.Counter
	quota   quota
}

// newAppender makes a, whose world is filled in, ready to Run.
func newAppender(a *appender) *appender {
	a.express = &appender{
		broker: a.broker, connect: a.connect, stale: a.stale, alive: a.alive, metrics: a.metrics, log: a.log,
		roster: newRoster[*appending](), slow: a,
	}
	a.roster = newRoster[*appending]()
	return a
}

func (a *appender) add(x *appending) {
	x.lane.sit(x)
	a.roster.enter(x)
	x.lane.board(a, a.silent())
	poke(a.roster.wake)
}

// remove takes a lane away. What it has in flight is still resolved here.
func (a *appender) remove(l *lane) {
	a.roster.leave(l)
	if a.express != nil {
		a.express.roster.leave(l)
	}
}

// other is where a lane should flow instead of here; nil: it is right here.
func (a *appender) other(l *lane) *appender {
	behind := l.behind()
	switch {
	case a.express != nil && !behind:
		return a.express
	case a.slow != nil && behind:
		return a.slow
	}
	return nil
}

// hand gives a lane that has nothing in flight to another appender.
func (a *appender) hand(x *appending, to *appender) {
	if _, ok := a.roster.leave(x.lane); !ok {
		return // it was removed
	}
	to.roster.enter(x)
	x.lane.board(to, to.silent())
	poke(to.roster.wake)
}

// silent is why nothing is sent.
func (a *appender) silent() string {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.why
}

// rouse wakes those that have something to send.
func (a *appender) rouse() {
	a.roster.rouse()
	if a.express != nil {
		a.express.roster.rouse()
	}
}

// flow stops all lanes, or with an empty why lets them flow again.
func (a *appender) flow(why string) {
	a.mu.Lock()
	a.why = why
	a.mu.Unlock()
	for _, x := range a.roster.all() {
		if why == "" {
			x.lane.attach(a)
		} else {
			x.lane.hush(a, why)
		}
	}
}

// Run sends until ctx ends. When a connection fails, what it carried is in
// doubt: the lanes turn back and send the same batches again on the next one,
// and the broker, which knows their sequences, answers those it has with the
// offsets they got.
func (a *appender) Run(ctx context.Context) {
	var both sync.WaitGroup
	defer both.Wait()
	if a.express != nil {
		both.Go(func() { a.express.Run(ctx) })
	}
	retry := backoff{base: 50 * time.Millisecond, limit: 5 * time.Second}
	for ctx.Err() == nil {
		if !a.roster.busy() { // brokers come and go; one without lanes is not asked
			select {
			case <-a.roster.wake:
			case <-ctx.Done():
			}
			continue
		}
		conn, err := a.connect(ctx, a.broker)
		if err == nil {
			a.flow("")
			err = a.serve(ctx, conn, &retry)
		}
		if ctx.Err() != nil {
			break
		}
		if err == nil { // nobody is left
			continue
		}
		a.lose(fmt.Sprintf("target broker %d: %v", a.broker, err))
		a.log.Warn("target broker", slog.Int("broker", int(a.broker)), slog.Any("error", err))
		a.stale()
		retry.sleep(ctx)
	}
	a.lose("the flow has ended")
}

// lose turns back every lane that flows here or has something in flight here.
func (a *appender) lose(why string) {
	a.mu.Lock()
	a.why = why
	a.mu.Unlock()
	lost := map[*lane]struct{}{}
	for _, p := range a.flight.drain() {
		for _, s := range p.lanes {
			if !s.done {
				lost[s.at.lane] = struct{}{}
			}
		}
	}
	for _, x := range a.roster.all() {
		lost[x.lane] = struct{}{}
	}
	for l := range lost {
		l.detach(a, why)
		poke(l.events)
	}
}

// doubtError ends a tenure because positions are no longer certain: a new epoch
// begins and the position is read again.
type doubtError struct{ why string }

func (e *doubtError) Error() string { return e.why }

// targetError is a target broker's answer that ends a tenure.
type targetError struct {
	err  error
	text string
}

func (e *targetError) Error() string {
	if e.text != "" {
		return fmt.Sprintf("produce: %v (%s)", e.err, e.text)
	}
	return "produce: " + e.err.Error()
}

func (e *targetError) Unwrap() error { return e.err }
