package mirror

import (
	"context"
	"errors"
	"fmt"
	"net"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"

	"kmirror/internal/wire"
)

const (
	fetchWait     = 500 * time.Millisecond // long poll of those in step
	fetchWaitJoin = 20 * time.Millisecond  // while some are behind, who may be in step soon and then join
	fetchWaitFar  = 10 * time.Millisecond  // of those that are behind, should nothing be there for any of them
	fetchBytes    = slabSize - 64<<10      // of one response: with all around it, it fits a slab
	fetchLane     = 1 << 20                // of one partition in one response
	fetchLive     = 256 << 10              // the same of one that is in step: one that brings more is behind
	idleLimit     = 30 * time.Second       // a connection that nobody stands at is kept for so long
	roomPatience  = 100 * time.Millisecond // how often those who hold too much memory are looked for
)

// serve fetches over one connection until it fails or ctx ends, or nobody has
// stood at it for a while, which is no error.
func (f *feed) serve(ctx context.Context, conn *wire.Conn, retry *backoff) error {
	defer func() { _ = conn.Close() }()
	stop := context.AfterFunc(ctx, func() { _ = conn.Close() })
	defer stop()
	version, ok := conn.Version(int16(kmsg.Fetch), wire.FetchNewest)
	if !ok || version < wire.FetchOldest {
		return errors.New("fetch: the broker offers no version we know")
	}
	var (
		answers = make(chan *wire.Call, 1)
		options = wire.SendOptions{Call: wire.NewCall(answers), Alloc: func(n int) []byte { return f.slab.alloc(n) }}
		pieces  = make(net.Buffers, 1)
		req     wire.FetchRequest
		timer   = time.NewTimer(time.Hour)
	)
	defer timer.Stop()
	for ctx.Err() == nil {
		if hold := f.hold(time.Now()); hold > 0 {
			f.pause(ctx, timer, hold)
			continue
		}
		v, wait := f.request(&req, version, time.Now())
		if wait > 0 {
			timer.Reset(wait)
			select {
			case <-f.roster.wake:
			case <-timer.C:
				if !f.roster.busy() {
					return nil
				}
			case <-ctx.Done():
			case <-conn.Done():
				return fmt.Errorf("fetch from %s: %w", conn.Addr(), conn.Err())
			}
			continue
		}
		f.slab = f.budget.slab()
		pieces[0] = req.End()
		_, err := conn.Send(int16(kmsg.Fetch), v, pieces, options)
		var body []byte
		if err == nil {
			body, err = (<-answers).Result() // at the latest when the connection is closed
		}
		if !f.far {
			f.waiting.Store(false)
		}
		if err == nil {
			f.slab.adopt(body)
			f.throttle.spent(len(body))
			err = f.take(v, body)
		} else {
			_ = conn.Close() // waits for its reader, which may be filling the slab
		}
		f.slab.drop()
		if err != nil {
			return fmt.Errorf("fetch from %s: %w", conn.Addr(), err)
		}
		retry.reset()
	}
	return ctx.Err()
}

// hold says how long nothing may be asked for: the broker or the flow is
// throttled, or memory is short.
func (f *feed) hold(now time.Time) time.Duration {
	if d := f.quota.left(now); d > 0 {
		return d
	}
	if f.far {
		if d := f.throttle.delayBacklog(now); d > 0 {
			return d
		}
	} else if d := f.throttle.delay(now); d > 0 {
		return d
	}
	if f.budget.room(f.far) {
		return 0
	}
	if now.Sub(f.compacted) > roomPatience {
		f.compacted = now
		for _, x := range f.roster.all() {
			x.lane.compact(now)
		}
	}
	if f.budget.room(f.far) {
		return 0
	}
	return roomPatience
}

// pause waits until something has been given back, at most for d.
func (f *feed) pause(ctx context.Context, timer *time.Timer, d time.Duration) {
	timer.Reset(d)
	var freed <-chan struct{}
	if !f.budget.room(f.far) {
		freed = f.budget.changed()
		if f.budget.room(f.far) { // given back just before
			return
		}
	}
	select {
	case <-freed:
	case <-timer.C:
	case <-ctx.Done():
	}
}

// restart makes the next request a full one: every partition says anew what it
// wants.
func (f *feed) restart() {
	f.session.reset()
	for _, x := range f.roster.all() {
		f.roster.offer(x)
	}
}

// request builds the next fetch, or says how long nothing can be asked for.
func (f *feed) request(req *wire.FetchRequest, version int16, now time.Time) (int16, time.Duration) {
	byID := version >= wire.FetchByID && f.allHaveIDs()
	if !byID {
		version = min(version, wire.FetchByID-1)
	}
	if f.session.names == nil || f.session.byID != byID {
		id := f.session.id
		f.restart()
		f.session.byID, f.session.id = byID, id // a full request that names a session ends it
	}
	idle := idleLimit
	if !f.far {
		f.waiting.Store(true) // whoever comes from here on may be too late
	}
	for i := len(f.paused) - 1; i >= 0; i-- {
		x := f.paused[i]
		if left := x.pausedUntil.Sub(now); left > 0 && f.roster.has(x) {
			idle = min(idle, left)
			continue
		}
		f.paused[i] = f.paused[len(f.paused)-1]
		f.paused = f.paused[:len(f.paused)-1]
		f.roster.offer(x)
	}
	options := wire.FetchOptions{
		MinBytes: 1, MaxBytes: int32(f.throttle.room(now, fetchBytes)),
		SessionID: f.session.id, SessionEpoch: f.session.epoch,
	}
	req.Begin(version, options)
	limit := f.budget.lane()
	topic := ""
	for n := f.roster.waiting(); n > 0; n-- {
		x, ok := f.roster.next()
		if !ok {
			break
		}
		if !f.roster.has(x) { // removed, or gone over to the other feed
			if x.feed.Load() == f {
				f.session.forget(x)
			}
			f.elsewhere(x)
			continue
		}
		if x.pausedUntil.After(now) {
			f.session.forget(x)
			f.paused = append(f.paused, x)
			idle = min(idle, x.pausedUntil.Sub(now))
			continue
		}
		offset, a := x.lane.wantsUpTo(limit)
		if a != hungry {
			f.session.forget(x)
			if !f.far {
				f.move(x, true)
			}
			continue
		}
		if x.in && x.asked == offset {
			continue
		}
		f.session.enter(x)
		x.asked = offset
		if topic != x.topic {
			req.Topic(x.topic, x.id)
			topic = x.topic
		}
		most := int32(fetchLane)
		if !f.far {
			most = fetchLive
		}
		req.Partition(x.partition, x.leaderEpoch, offset, max(x.most, min(most, int32(limit))))
	}
	f.tellForgotten(req)
	if f.far {
		f.behind.Store(int64(f.session.count))
		options.MaxWaitMillis = int32(fetchWaitFar / time.Millisecond)
	} else {
		long := f.behind.Load() == 0 && f.backlog.roster.waiting() == 0 && f.roster.waiting() == 0
		f.waiting.Store(long)
		options.MaxWaitMillis = int32(fetchWaitJoin / time.Millisecond)
		if long {
			options.MaxWaitMillis = int32(max(min(fetchWait, idle), time.Millisecond) / time.Millisecond)
		}
	}
	if f.session.count == 0 {
		if !f.far {
			f.waiting.Store(false)
		}
		return version, idle
	}
	req.Wait(options.MaxWaitMillis)
	return version, 0
}

// tellForgotten names what the session is to forget and does not name anew. What
// cannot be told (without a session, or in a request that is not sent) needs no
// telling.
func (f *feed) tellForgotten(req *wire.FetchRequest) {
	if f.session.count == 0 {
		return // nothing is asked for; it is told with what comes next
	}
	topic := ""
	for _, g := range f.session.gone {
		if f.session.knows(g) {
			continue
		}
		if topic != g.topic {
			req.Forget(g.topic, g.id)
			topic = g.topic
		}
		req.Forgotten(g.partition)
	}
	clear(f.session.gone)
	f.session.gone = f.session.gone[:0]
}

// allHaveIDs says whether topics can go by id: one without makes all go by name.
func (f *feed) allHaveIDs() bool { return f.nameless.Load() == 0 }

// take hands a response's partitions to their lanes.
func (f *feed) take(version int16, body []byte) error {
	r, err := wire.ReadFetch(version, body)
	if err != nil {
		return err
	}
	f.quota.heed(time.Now(), r.ThrottleMillis)
	keeps, err := f.session.answered(r.ErrorCode, r.SessionID)
	if err != nil {
		return err
	}
	if r.ErrorCode != 0 {
		if f.restarts++; f.restarts > 3 { // in a row
			return kerr.ErrorForCode(r.ErrorCode)
		}
		f.restart()
		return nil
	}
	f.restarts = 0
	var steps []ledgerStep
	var stale, filled, anything bool
	for r.Next() {
		p := r.At()
		x := f.session.find(p)
		if x == nil || !f.roster.has(x) {
			continue
		}
		anything = true
		if p.ErrorCode != 0 {
			stale = f.refused(x, p.ErrorCode) || stale
			f.roster.offer(x)
			continue
		}
		end := p.LastStable
		if end < 0 {
			end = p.HighWatermark
		}
		if len(p.Records) == 0 { // most of them, where there are many
			x.lane.barren(end)
			f.place(x, x.asked >= end, 0)
			continue
		}
		filled = true
		if step := f.lane(x, p, end); step.gate > 0 {
			steps = append(steps, step)
		}
		f.place(x, f.climbed.next >= end, len(p.Records))
	}
	if !keeps {
		f.restart()
	} else if f.far && !anything {
		f.session.all(func(x *fetching) { f.place(x, true, 0) }) // nothing is there for anybody
	}
	for ; len(f.guests) > 0 && !f.waiting.Load(); f.guests = f.guests[:len(f.guests)-1] {
		if x := f.guests[len(f.guests)-1]; x.guest {
			x.guest = false
			if x.in {
				f.move(x, false)
			}
		}
	}
	if stale {
		f.stale()
	}
	if len(steps) > 0 {
		f.ledger(steps)
	}
	if filled {
		f.filled()
	}
	return r.Err()
}

// place says where a partition goes on after a response that had so many bytes
// of it.
func (f *feed) place(x *fetching, caughtUp bool, size int) {
	switch {
	case f.far && caughtUp && !f.waiting.Load():
		f.move(x, false)
	case f.far && caughtUp && !x.guest: // until the long poll is over
		x.guest = true
		f.guests = append(f.guests, x)
		f.roster.offer(x)
	case !f.far && !caughtUp && (size >= fetchLive/2 || size > 0 && x.short):
		f.move(x, false)
	case size > 0:
		x.short = !caughtUp
		f.roster.offer(x)
	}
}

// lane takes one partition's records up the ladder and queues them.
func (f *feed) lane(x *fetching, p *wire.FetchedPartition, end int64) ledgerStep {
	f.aborted = f.aborted[:0]
	if p.HasAborted() {
		for producer, first := range p.Aborted() {
			f.aborted = append(f.aborted, abortedTxn{producer, first})
		}
	}
	err := f.climbed.climb(p.Records, x.asked, f.aborted, x.lane.limits())
	steps, gate := x.lane.take(x.asked, f.climbed, f.slab, end)
	if err != nil {
		x.lane.fault(err)
	} else if len(f.climbed.unknown) > 0 {
		x.most = 0
		f.climbed.limits.origins.ask(x.lane, f.climbed.unknown)
	} else if x.most = 0; f.climbed.next == x.asked { // not one whole batch: ask for more
		x.most = int32(min(2*max(len(p.Records), fetchLane), wire.DefaultMaxResponse/2))
		f.session.forget(x)
	}
	x.settled()
	var letters []letter
	if len(f.climbed.letters) > 0 {
		letters = append(letters, f.climbed.letters...)
	}
	return ledgerStep{lane: x.lane, steps: steps, letters: letters, gate: gate}
}
