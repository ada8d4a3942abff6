package mirror

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"

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
	lane  *lane
	acked func(runs []checkpoint.Run, foreign, base int64)
}

// appender writes to one target broker, over one connection with up to five
// requests in flight. A request carries at most one batch of each lane, so the
// order of a lane is kept by the connection, and across retries by sequence
// numbers. Answers come in order; each resolves one batch of each of its lanes.
type appender struct {
	broker  int32
	connect func(ctx context.Context, broker int32) (*wire.Conn, error)
	stale   func()
	alive   func() error // nil while the lease holds; asked before each request
	metrics flowMetrics
	log     *slog.Logger

	wake chan struct{} // capacity 1: a lane may have something to send

	mu    sync.Mutex // guards the fields below
	lanes []*appending
	turn  int
	why   string // why nothing is sent; "" while there is a connection that answers

	flight []produced // oldest first; owned by Run
}

func (a *appender) add(x *appending) {
	a.mu.Lock()
	a.lanes = append(a.lanes, x)
	x.lane.board(a, a.why)
	a.mu.Unlock()
	poke(a.wake)
}

// remove takes a lane away. What it has in flight is still resolved here.
func (a *appender) remove(l *lane) {
	a.mu.Lock()
	a.lanes = slices.DeleteFunc(a.lanes, func(x *appending) bool { return x.lane == l })
	a.mu.Unlock()
}

// busy says whether there is anything to connect for.
func (a *appender) busy() bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	return len(a.lanes) > 0
}

// flow stops all lanes, or with an empty why lets them flow again.
func (a *appender) flow(why string) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.why = why
	for _, x := range a.lanes {
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
	retry := backoff{base: 50 * time.Millisecond, limit: 5 * time.Second}
	for ctx.Err() == nil {
		if !a.busy() { // brokers come and go; one without lanes is not asked
			select {
			case <-a.wake:
			case <-ctx.Done():
			}
			continue
		}
		conn, err := a.connect(ctx, a.broker)
		if err == nil {
			a.flow("")
			err = a.serve(ctx, conn, &retry)
			_ = conn.Close()
		}
		if ctx.Err() != nil {
			break
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
	lost := map[*lane]struct{}{}
	for _, p := range a.flight {
		for _, x := range p.lanes {
			lost[x.lane] = struct{}{}
		}
	}
	a.flight = nil
	a.mu.Lock()
	defer a.mu.Unlock()
	a.why = why
	for _, x := range a.lanes {
		lost[x.lane] = struct{}{}
	}
	for l := range lost {
		l.detach(a, why)
		poke(l.events)
	}
}

// produced is a request in flight and the lanes whose batches it carries, in
// the order of the request.
type produced struct {
	call    *wire.Call
	version int16
	lanes   []*appending
	sent    time.Time
}

func (a *appender) serve(ctx context.Context, conn *wire.Conn, retry *backoff) error {
	version, ok := conn.Version(int16(kmsg.Produce), 13)
	if !ok || version < 3 {
		return errors.New("produce: the broker offers no version we know")
	}
	timer := time.NewTimer(time.Hour)
	defer timer.Stop()
	var heard time.Time // of the last answer, or when the first request since left
	silent := false
	for {
		if err := ctx.Err(); err != nil {
			return err
		}
		wait := time.Hour
		if len(a.flight) < inFlight && !silent {
			if err := a.alive(); err != nil {
				return err
			}
			topics, lanes, v, pause := a.collect(version, time.Now())
			if len(lanes) > 0 {
				body := wire.EncodeProduce(v, -1, int32(produceTimeout/time.Millisecond), topics)
				call, err := conn.Send(int16(kmsg.Produce), v, body, wire.SendOptions{})
				if err != nil {
					return fmt.Errorf("produce to %s: %w", conn.Addr(), err)
				}
				if len(a.flight) == 0 {
					heard = time.Now()
				}
				a.flight = append(a.flight, produced{call, v, lanes, time.Now()})
				continue
			}
			wait = pause
		}
		var oldest <-chan struct{}
		if len(a.flight) > 0 {
			oldest = a.flight[0].call.Done()
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
		case <-a.wake:
		case <-timer.C:
		case <-oldest:
			p := a.flight[0]
			body, err := p.call.Result()
			if err == nil {
				a.flight[0] = produced{}
				a.flight = a.flight[1:]
				err = a.resolve(p, body)
			}
			if err != nil {
				return fmt.Errorf("produce to %s: %w", conn.Addr(), err)
			}
			retry.reset()
			heard = time.Now()
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

// collect takes one batch of each lane that has one, in turn, up to the size of
// a request. With nothing to send it says after how long that may change by
// itself.
func (a *appender) collect(version int16, now time.Time) ([]wire.ProduceTopic, []*appending, int16, time.Duration) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if len(a.lanes) == 0 {
		return nil, nil, version, time.Hour
	}
	a.turn = (a.turn + 1) % len(a.lanes)
	wait := time.Hour
	var lanes []*appending
	var entries []entry
	size := 0
	for i := range a.lanes {
		x := a.lanes[(a.turn+i)%len(a.lanes)]
		e, ok, later := x.lane.sendable(now)
		if !ok {
			if later > 0 {
				wait = min(wait, later)
			}
			continue
		}
		lanes, entries = append(lanes, x), append(entries, e)
		if size += e.batch.Size(); size >= produceBytes {
			break
		}
	}
	if len(lanes) == 0 {
		return nil, nil, version, wait
	}
	byID := version >= 13
	for _, x := range lanes {
		byID = byID && x.lane.targetID != [16]byte{}
	}
	if !byID {
		version = min(version, 12)
	}
	var topics []wire.ProduceTopic
	at := map[string]int{}
	for i, x := range lanes {
		n, ok := at[x.lane.target]
		if !ok {
			n = len(topics)
			at[x.lane.target] = n
			topics = append(topics, wire.ProduceTopic{Name: x.lane.target, ID: x.lane.targetID})
		}
		topics[n].Partitions = append(topics[n].Partitions, wire.ProducePartition{Partition: x.lane.partition, Batch: entries[i].batch})
	}
	return topics, lanes, version, 0
}

// resolve hands an answer's partitions to their lanes. A partition that the
// answer leaves out makes the whole connection unusable: its batch would be in
// doubt for ever.
func (a *appender) resolve(p produced, body []byte) error {
	resp := kmsg.NewPtrProduceResponse()
	resp.SetVersion(p.version)
	if err := resp.ReadFrom(body); err != nil {
		a.flight = append(a.flight, p) // nothing of it is known: all of it is lost with the connection
		return fmt.Errorf("read response: %w", err)
	}
	type answer struct {
		code int16
		base int64
		text string
	}
	type place struct {
		topic     topicKey
		partition int32
	}
	answers := map[place]answer{}
	for i := range resp.Topics {
		rt := &resp.Topics[i]
		key := topicKey{name: rt.Topic}
		if p.version >= 13 {
			key = topicKey{id: rt.TopicID}
		}
		for j := range rt.Partitions {
			rp := &rt.Partitions[j]
			text := ""
			if rp.ErrorMessage != nil {
				text = *rp.ErrorMessage
			}
			answers[place{key, rp.Partition}] = answer{rp.ErrorCode, rp.BaseOffset, text}
		}
	}
	stale, acked := false, 0
	var missing error
	for _, x := range p.lanes {
		key := topicKey{name: x.lane.target}
		if p.version >= 13 {
			key = topicKey{id: x.lane.targetID}
		}
		got, ok := answers[place{key, x.lane.partition}]
		switch {
		case x.lane.orphan():
		case !ok:
			missing = fmt.Errorf("the answer has no word on %s/%d", x.lane.target, x.lane.partition)
			x.lane.refuse(time.Now())
		case got.code == 0:
			acked++
			a.acknowledged(x, got.base)
		default:
			a.metrics.failed("target", errorName(got.code))
			stale = a.refused(x, kerr.ErrorForCode(got.code), got.text) || stale
		}
		poke(x.lane.events)
	}
	if stale {
		a.stale()
	}
	a.metrics.appended(time.Since(p.sent), acked)
	return missing
}

func (a *appender) acknowledged(x *appending, base int64) {
	if x.lane.rewound() {
		// The earlier batch was appended all the same (NOT_ENOUGH_REPLICAS_AFTER_APPEND,
		// a time-out of the replicas), or this one could not have been. Both are sent
		// again, and the broker answers with the offsets they have.
		x.lane.refuse(time.Now())
		return
	}
	runs, foreign, ok := x.lane.ack(base)
	if !ok {
		x.lane.refuse(time.Now())
		x.lane.fault(&doubtError{fmt.Sprintf("the target acknowledged offset %d, below the end of what it had acknowledged before: it has lost records", base)})
		return
	}
	x.acked(runs, foreign, base)
	x.lane.recorded()
}

// refused deals with the error of one batch. It says whether the metadata may
// be stale.
func (a *appender) refused(x *appending, err error, text string) bool {
	follows := x.lane.rewound() // a consequence of an earlier refusal in the same window
	e := (*kerr.Error)(nil)
	if !errors.As(err, &e) {
		x.lane.refuse(time.Now())
		x.lane.fault(&targetError{err, text})
		return false
	}
	switch {
	case follows && (e == kerr.OutOfOrderSequenceNumber || retriableProduce(e)):
		x.lane.refuse(time.Now())
		return false
	case retriableProduce(e):
		x.lane.refuseLater(time.Now(), (&targetError{err, text}).Error())
		return leaderMoved(e)
	case e == kerr.DuplicateSequenceNumber, e == kerr.OutOfOrderSequenceNumber, e == kerr.UnknownProducerID, e == kerr.InvalidProducerEpoch, e == kerr.ProducerFenced:
		x.lane.refuse(time.Now())
		x.lane.fault(&doubtError{"the target answered " + e.Message})
		return false
	default:
		x.lane.refuse(time.Now())
		x.lane.fault(&targetError{err, text})
		return false
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
