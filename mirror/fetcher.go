package mirror

import (
	"context"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"

	"kmirror/checkpoint"
	"kmirror/internal/wire"
)

// fetching is a lane and where to fetch it.
type fetching struct {
	lane        *lane
	topic       string
	id          [16]byte
	partition   int32
	leaderEpoch int32
	settled     func() // the lane may have dropped its last batches

	feed atomic.Pointer[feed] // over which it is fetched; changed by that feed alone

	// Owned by the feed's goroutine.
	in          bool  // the session knows it, or the request under way does
	asked       int64 // the offset that the session knows
	most        int32 // bytes in one response at least, where a batch was larger than what was asked for
	pausedUntil time.Time
	short       bool // the last response did not bring all there is
	guest       bool // has caught up, and waits for the other feed's long poll to end
}

func (x *fetching) of() *lane { return x.lane }

// again is called by the lane when it has room again.
func (x *fetching) again() {
	if f := x.feed.Load(); f != nil {
		f.roster.offer(x)
		poke(f.roster.wake)
	}
}

// fetcher reads from one source broker all partitions that it leads and this
// flow owns, over two connections. One is for the partitions that are in step:
// it names each once (an incremental session, KIP-227) and then waits in long
// polls for what comes. The other is for those that are behind: it asks for much
// and never waits long, so that a lane that has room again is asked for at once.
// The one is not held up by the size of the other's responses. A partition that
// has caught up goes over to the first, one that brings more than it should
// there goes over to the second; while none is behind there is no second
// connection.
//
// What a response brings is split, taken up the ladder and queued, then the next
// request leaves, while appenders send what was queued.
type fetcher struct {
	broker   int32
	connect  func(ctx context.Context, broker int32) (*wire.Conn, error)
	budget   *budget
	throttle *throttle
	ledger   func(steps []ledgerStep) // writes ahead, then opens the lanes' gates; does not wait
	filled   func()                   // lanes have something to send
	stale    func()                   // leaders have moved: look at the metadata again
	metrics  flowMetrics
	log      *slog.Logger

	live, backlog *feed
	waiting       atomic.Bool  // the live feed is in a long poll: who joins it now waits for its end
	behind        atomic.Int64 // partitions that the backlog feed asks for at present
	nameless      atomic.Int64 // partitions whose topic has no id
}

// ledgerStep is a lane's share of the steps of one fetch response.
type ledgerStep struct {
	lane    *lane
	steps   []checkpoint.Step
	letters []letter
	gate    uint64
}

// newFetcher makes f, whose world is filled in, ready to Run.
func newFetcher(f *fetcher) *fetcher {
	f.live, f.backlog = newFeed(f, false), newFeed(f, true)
	return f
}

// add begins to fetch a lane: as one that is behind, until a response tells.
func (f *fetcher) add(x *fetching) {
	x.feed.Store(f.backlog)
	x.lane.setBehind(true)
	x.lane.stand(x)
	if x.id == ([16]byte{}) {
		f.nameless.Add(1)
	}
	f.backlog.roster.enter(x)
	f.backlog.roster.offer(x)
	poke(f.backlog.roster.wake)
}

func (f *fetcher) remove(l *lane) {
	for _, feed := range []*feed{f.backlog, f.live} {
		if x, ok := feed.roster.leave(l); ok {
			if x.id == ([16]byte{}) {
				f.nameless.Add(-1)
			}
			feed.roster.offer(x) // the session is to forget it
			poke(feed.roster.wake)
		}
	}
}

// Run fetches until ctx ends. Connection faults are retried with back-off.
func (f *fetcher) Run(ctx context.Context) {
	var both sync.WaitGroup
	both.Go(func() { f.live.Run(ctx) })
	both.Go(func() { f.backlog.Run(ctx) })
	both.Wait()
}

// feed is one of the two connections.
type feed struct {
	*fetcher
	far    bool // for those that are behind
	roster roster[*fetching]

	// Owned by Run.
	session session
	paused  []*fetching // after an error of theirs
	climbed climbed
	aborted []abortedTxn
	slab    *slab // of the request under way

	guests    []*fetching
	restarts  int       // of the session, in a row
	compacted time.Time // when lanes were asked to hold less
	quota     quota
}

func newFeed(f *fetcher, far bool) *feed {
	return &feed{fetcher: f, far: far, roster: newRoster[*fetching]()}
}

// Run fetches until ctx ends.
func (f *feed) Run(ctx context.Context) {
	retry := backoff{base: 50 * time.Millisecond, limit: 5 * time.Second}
	for ctx.Err() == nil {
		if !f.roster.busy() { // brokers come and go; one without lanes is not asked
			f.turnAway()
			select {
			case <-f.roster.wake:
			case <-ctx.Done():
			}
			continue
		}
		conn, err := f.connect(ctx, f.broker)
		if err == nil {
			err = f.serve(ctx, conn, &retry)
		}
		f.restart()
		if !f.far {
			f.waiting.Store(false)
		}
		if ctx.Err() != nil {
			return
		}
		if err == nil { // nobody is left
			continue
		}
		for _, x := range f.roster.all() {
			x.lane.unread(fmt.Sprintf("source broker %d: %v", f.broker, err))
		}
		f.log.Warn("source broker", slog.Int("broker", int(f.broker)), slog.Any("error", err))
		f.stale()
		retry.sleep(ctx)
	}
}

// turnAway sends on who said something here and is elsewhere meanwhile.
func (f *feed) turnAway() {
	for n := f.roster.waiting(); n > 0; n-- {
		if x, ok := f.roster.next(); ok {
			f.elsewhere(x)
		}
	}
}

// elsewhere tells the feed where x is now what it said here.
func (f *feed) elsewhere(x *fetching) {
	if now := x.feed.Load(); now != f && now.roster.has(x) {
		now.roster.offer(x)
		poke(now.roster.wake)
	}
}

// move hands a partition over to the other feed. With quiet it comes there only
// when it says something.
func (f *feed) move(x *fetching, quiet bool) {
	to := f.live
	if !f.far {
		to = f.backlog
	}
	f.session.forget(x)
	x.guest, x.short = false, false
	if _, ok := f.roster.leave(x.lane); !ok {
		return // it was removed
	}
	x.lane.setBehind(to.far)
	to.roster.enter(x)
	x.feed.Store(to)
	if !quiet {
		to.roster.offer(x)
		poke(to.roster.wake)
	}
}

// refused deals with the error of one partition. It says whether the metadata
// may be stale.
func (f *feed) refused(x *fetching, code int16) bool {
	f.metrics.failed("source", errorName(code))
	err := kerr.TypedErrorForCode(code)
	if err != nil && retriableFetch(err) {
		x.lane.unread((&sourceError{err}).Error())
		x.pausedUntil = time.Now().Add(jitter(100 * time.Millisecond))
		return leaderMoved(err)
	}
	x.pausedUntil = time.Now().Add(time.Second) // the tenure takes it away before
	x.lane.fault(&sourceError{kerr.ErrorForCode(code)})
	return false
}

// sourceError is a source broker's answer that ends a tenure.
type sourceError struct{ err error }

func (e *sourceError) Error() string { return "fetch: " + e.err.Error() }
func (e *sourceError) Unwrap() error { return e.err }

// jitter spreads d over 50 to 150 percent.
func jitter(d time.Duration) time.Duration {
	return d/2 + time.Duration(rand.Int64N(int64(d)+1))
}
