package mirror

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/twmb/franz-go/pkg/kmsg"

	"kmirror/internal/wire"
)

// serve sends over one connection until it fails or ctx ends, or nobody has
// stood at it for a while, which is no error.
func (a *appender) serve(ctx context.Context, conn *wire.Conn, retry *backoff) error {
	defer func() { _ = conn.Close() }()
	stop := context.AfterFunc(ctx, func() { _ = conn.Close() }) // a target that reads nothing holds up a request for long
	defer stop()
	version, ok := conn.Version(int16(kmsg.Produce), 13)
	if !ok || version < 3 {
		return errors.New("produce: the broker offers no version we know")
	}
	answers := make(chan *wire.Call, inFlight)
	for i := range a.flight.ring {
		a.flight.ring[i].call = wire.NewCall(answers)
	}
	timer := time.NewTimer(time.Hour)
	defer timer.Stop()
	var heard time.Time // of the last answer, or when the first request since left
	silent := false
	for {
		if err := ctx.Err(); err != nil {
			return err
		}
		wait := idleLimit
		if left := a.quota.left(time.Now()); left > 0 {
			wait = left
		} else if !a.flight.full() && !silent {
			if err := a.alive(); err != nil {
				return err
			}
			v, pause := a.collect(version, time.Now())
			if len(a.batch) > 0 {
				if err := a.send(conn, v); err != nil {
					return err
				}
				if a.flight.count == 1 {
					heard = time.Now()
				}
				continue
			}
			wait = min(wait, pause)
		}
		if a.flight.count > 0 {
			if left := silence - time.Since(heard); !silent && left > 0 {
				wait = min(wait, left)
			} else if !silent {
				silent = true
				a.flow(fmt.Sprintf("target broker %d has answered nothing for %v", a.broker, silence))
			}
		}
		timer.Reset(wait)
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-a.roster.wake:
		case <-timer.C:
			if a.flight.count == 0 && !a.roster.busy() {
				return nil
			}
		case call := <-answers:
			body, err := call.Result()
			if err == nil {
				err = a.resolve(a.flight.oldest(), body)
			}
			if err != nil {
				return fmt.Errorf("produce to %s: %w", conn.Addr(), err)
			}
			a.flight.pop()
			retry.reset()
			heard = time.Now()
			if a.quota.until.After(heard) { // till then it may leave the next ones unanswered
				heard = a.quota.until
			}
			if silent {
				silent = false
				a.flow("")
			}
		case <-conn.Done():
			if err := conn.Err(); err != nil {
				return fmt.Errorf("produce to %s: %w", conn.Addr(), err)
			}
			return fmt.Errorf("produce to %s: connection closed", conn.Addr())
		}
	}
}

// send sends the request that was collected.
func (a *appender) send(conn *wire.Conn, version int16) error {
	p := a.flight.next()
	p.version, p.sent = version, time.Now()
	p.lanes, a.batch = append(p.lanes[:0], a.batch...), a.batch[:0]
	a.flight.push() // also if it fails now: the connection is lost, and all that it carried in doubt
	_, err := conn.Send(int16(kmsg.Produce), version, a.request.End(), wire.SendOptions{Call: p.call})
	for i := range p.lanes {
		p.lanes[i].entry = entry{} // the lane keeps it
	}
	if err != nil {
		return fmt.Errorf("produce to %s: %w", conn.Addr(), err)
	}
	return nil
}

// collect takes one batch of each lane that has one, in the order in which they
// said so, up to the size of a request, into a.batch and a.request. With nothing
// to send it says after how long that may change by itself.
func (a *appender) collect(version int16, now time.Time) (int16, time.Duration) {
	wait := time.Hour
	for i := len(a.later) - 1; i >= 0; i-- {
		x := a.later[i]
		left := x.lane.pauses(now)
		if left > 0 && a.roster.has(x) {
			wait = min(wait, left)
			continue
		}
		a.later[i] = a.later[len(a.later)-1]
		a.later = a.later[:len(a.later)-1]
		a.roster.offer(x)
	}
	a.batch = a.batch[:0]
	size, topics, byID := 0, 0, version >= 13
	for n := a.roster.waiting(); n > 0 && size < produceBytes; n-- {
		x, ok := a.roster.next()
		if !ok {
			break
		}
		if !a.roster.has(x) || !a.mayFlow(x) {
			continue
		}
		e, ok, pause := x.lane.sendable(now)
		if !ok {
			if pause > 0 {
				a.later = append(a.later, x)
				wait = min(wait, pause)
			}
			continue
		}
		a.batch = append(a.batch, sending{at: x, entry: e})
		size += e.batch.Size()
		byID = byID && x.lane.targetID != [16]byte{}
	}
	if len(a.batch) == 0 {
		return version, wait
	}
	if !byID {
		version = min(version, 12)
	}
	a.sort()
	for i := range a.batch {
		if i == 0 || a.batch[i].at.lane.target != a.batch[i-1].at.lane.target {
			topics++
		}
	}
	a.request.Begin(version, -1, int32(produceTimeout/time.Millisecond), topics)
	for i := range a.batch {
		l := a.batch[i].at.lane
		if i == 0 || l.target != a.batch[i-1].at.lane.target {
			n := 1
			for i+n < len(a.batch) && a.batch[i+n].at.lane.target == l.target {
				n++
			}
			a.request.Topic(l.target, l.targetID, n)
		}
		a.request.Partition(l.partition, a.batch[i].entry.batch)
	}
	return version, 0
}

// sort brings the lanes of one topic together; they are few, or together already.
func (a *appender) sort() {
	for i := 1; i < len(a.batch); i++ {
		for j := i; j > 0 && a.batch[j].at.lane.target < a.batch[j-1].at.lane.target; j-- {
			a.batch[j], a.batch[j-1] = a.batch[j-1], a.batch[j]
		}
	}
}

// mayFlow says whether the lane may send here. One that should flow at the other
// appender sends no more here, and goes there when nothing of it is in flight.
func (a *appender) mayFlow(x *appending) bool {
	to := a.other(x.lane)
	if to == nil {
		return true
	}
	if x.lane.depart() {
		a.hand(x, to)
	}
	return false
}
