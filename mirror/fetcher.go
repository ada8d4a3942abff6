package mirror

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net"
	"slices"
	"sync"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"

	"kmirror/checkpoint"
	"kmirror/internal/wire"
)

const (
	fetchWait        = 500 * time.Millisecond // long poll
	fetchWaitFull    = 10 * time.Millisecond  // when a lane was left out and may have room soon
	fetchWaitResting = 100 * time.Millisecond // when one was left out that is in trouble
	fetchLane        = 1 << 20                // bytes of one partition in one response
)

// fetching is a lane and where to fetch it.
type fetching struct {
	lane        *lane
	topic       string
	id          [16]byte
	partition   int32
	leaderEpoch int32
	pausedUntil time.Time // after an error of this partition
	settled     func()    // the lane may have dropped its last batches
}

// fetcher reads from one source broker all partitions that it leads and this
// flow owns, over one connection, one long poll at a time. What a response
// brings is split, taken up the ladder and queued before the next request
// leaves, while appenders send what was queued before.
type fetcher struct {
	broker  int32
	connect func(ctx context.Context, broker int32) (*wire.Conn, error)
	budget  *budget
	ledger  func(steps []ledgerStep) // writes ahead, then opens the lanes' gates; does not wait
	filled  func()                   // lanes have something to send
	stale   func()                   // leaders have moved: look at the metadata again
	metrics flowMetrics
	log     *slog.Logger

	wake chan struct{} // capacity 1: lanes came, or have room

	mu    sync.Mutex // guards lanes
	lanes []*fetching
	turn  int // where the next request begins, so that each is first in turn
}

// ledgerStep is a lane's share of the steps of one fetch response.
type ledgerStep struct {
	lane  *lane
	steps []checkpoint.Step
	gate  uint64
}

func (f *fetcher) add(x *fetching) {
	f.mu.Lock()
	f.lanes = append(f.lanes, x)
	f.mu.Unlock()
	poke(f.wake)
}

func (f *fetcher) remove(l *lane) {
	f.mu.Lock()
	f.lanes = slices.DeleteFunc(f.lanes, func(x *fetching) bool { return x.lane == l })
	f.mu.Unlock()
}

// busy says whether there is anything to connect for.
func (f *fetcher) busy() bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	return len(f.lanes) > 0
}

// fail tells the lanes why nothing comes.
func (f *fetcher) fail(why string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, x := range f.lanes {
		x.lane.unread(why)
	}
}

// Run fetches until ctx ends. Connection faults are retried with back-off.
func (f *fetcher) Run(ctx context.Context) {
	retry := backoff{base: 50 * time.Millisecond, limit: 5 * time.Second}
	for ctx.Err() == nil {
		if !f.busy() { // brokers come and go; one without lanes is not asked
			select {
			case <-f.wake:
			case <-ctx.Done():
			}
			continue
		}
		conn, err := f.connect(ctx, f.broker)
		if err == nil {
			err = f.serve(ctx, conn, &retry)
			_ = conn.Close()
		}
		if ctx.Err() != nil {
			return
		}
		f.fail(fmt.Sprintf("source broker %d: %v", f.broker, err))
		f.log.Warn("source broker", slog.Int("broker", int(f.broker)), slog.Any("error", err))
		f.stale()
		retry.sleep(ctx)
	}
}

// serve fetches over one connection until it fails or ctx ends.
func (f *fetcher) serve(ctx context.Context, conn *wire.Conn, retry *backoff) error {
	stop := context.AfterFunc(ctx, func() { _ = conn.Close() })
	defer stop()
	version, ok := conn.Version(int16(kmsg.Fetch), 17)
	if !ok {
		return errors.New("fetch: the broker offers no version we know")
	}
	for ctx.Err() == nil {
		if err := f.budget.room(ctx); err != nil {
			return err
		}
		req, asked, left := f.request(version, time.Now())
		if req == nil {
			select {
			case <-f.wake:
			case <-time.After(left):
			case <-ctx.Done():
			}
			continue
		}
		s := f.budget.slab()
		body := req.AppendTo(nil)
		call, err := conn.Send(int16(kmsg.Fetch), req.GetVersion(), net.Buffers{body}, wire.SendOptions{Alloc: s.alloc})
		if err != nil {
			s.lose()
			s.drop()
			return fmt.Errorf("fetch from %s: %w", conn.Addr(), err)
		}
		raw, err := call.Wait(ctx)
		if err != nil {
			s.lose()
			s.drop()
			return fmt.Errorf("fetch from %s: %w", conn.Addr(), err)
		}
		err = f.take(req.GetVersion(), s.shrink(raw), asked, s)
		s.drop()
		if err != nil {
			return fmt.Errorf("fetch from %s: %w", conn.Addr(), err)
		}
		retry.reset()
	}
	return ctx.Err()
}

// asked is a partition of a request that is under way.
type asked struct {
	*fetching
	offset int64
}

type topicKey struct {
	name string
	id   [16]byte
}

// request builds the next fetch, or says how long nothing can be asked for.
func (f *fetcher) request(version int16, now time.Time) (*kmsg.FetchRequest, map[topicKey]map[int32]asked, time.Duration) {
	f.mu.Lock()
	defer f.mu.Unlock()
	byID := version >= 13
	for _, x := range f.lanes {
		if x.id == ([16]byte{}) { // one topic without an id, and all go by name
			byID = false
		}
	}
	if !byID {
		version = min(version, 12)
	}
	req := kmsg.NewPtrFetchRequest()
	req.SetVersion(version)
	req.ReplicaID, req.MaxWaitMillis, req.MinBytes = -1, int32(fetchWait/time.Millisecond), 1
	req.MaxBytes, req.IsolationLevel, req.SessionEpoch = slabSize-(64<<10), 1, -1
	out := map[topicKey]map[int32]asked{}
	index := map[topicKey]int{}
	idle := time.Second
	if len(f.lanes) > 0 {
		f.turn = (f.turn + 1) % len(f.lanes)
	}
	for i := range f.lanes {
		x := f.lanes[(f.turn+i)%len(f.lanes)]
		if pause := x.pausedUntil.Sub(now); pause > 0 {
			idle = min(idle, pause)
			req.MaxWaitMillis = min(req.MaxWaitMillis, max(1, int32(pause/time.Millisecond)))
			continue
		}
		offset, a := x.lane.wants()
		switch a {
		case hungry:
		case full:
			idle = min(idle, fetchWaitFull)
			req.MaxWaitMillis = int32(fetchWaitFull / time.Millisecond)
			continue
		case resting:
			idle = min(idle, fetchWaitResting)
			req.MaxWaitMillis = min(req.MaxWaitMillis, int32(fetchWaitResting/time.Millisecond))
			continue
		}
		key := topicKey{name: x.topic}
		if byID {
			key = topicKey{id: x.id}
		}
		at, ok := index[key]
		if !ok {
			at = len(req.Topics)
			index[key] = at
			rt := kmsg.NewFetchRequestTopic()
			rt.Topic, rt.TopicID = x.topic, x.id
			req.Topics = append(req.Topics, rt)
			out[key] = map[int32]asked{}
		}
		rp := kmsg.NewFetchRequestTopicPartition()
		rp.Partition, rp.CurrentLeaderEpoch = x.partition, x.leaderEpoch
		rp.FetchOffset, rp.PartitionMaxBytes, rp.LogStartOffset = offset, fetchLane, -1
		req.Topics[at].Partitions = append(req.Topics[at].Partitions, rp)
		out[key][x.partition] = asked{x, offset}
	}
	if len(req.Topics) == 0 {
		return nil, nil, idle
	}
	return req, out, 0
}

// take hands a response's partitions to their lanes.
func (f *fetcher) take(version int16, raw []byte, want map[topicKey]map[int32]asked, s *slab) error {
	resp := kmsg.NewPtrFetchResponse()
	resp.SetVersion(version)
	if err := resp.UnsafeReadFrom(raw); err != nil {
		return fmt.Errorf("read response: %w", err)
	}
	if err := kerr.ErrorForCode(resp.ErrorCode); err != nil {
		return err
	}
	var steps []ledgerStep
	stale, filled := false, false
	for i := range resp.Topics {
		rt := &resp.Topics[i]
		key := topicKey{name: rt.Topic}
		if version >= 13 {
			key = topicKey{id: rt.TopicID}
		}
		for j := range rt.Partitions {
			rp := &rt.Partitions[j]
			x, ok := want[key][rp.Partition]
			if !ok {
				continue
			}
			if rp.ErrorCode != 0 {
				f.metrics.failed("source", errorName(rp.ErrorCode))
				stale = f.refused(x, kerr.ErrorForCode(rp.ErrorCode)) || stale
				continue
			}
			if len(rp.RecordBatches) == 0 { // most of them, where there are many
				x.lane.barren(sourceEnd(rp))
				continue
			}
			filled = true
			if step := f.lane(x, rp, s); step.gate > 0 {
				steps = append(steps, step)
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
	return nil
}

// sourceEnd is how far a partition can be read.
func sourceEnd(rp *kmsg.FetchResponseTopicPartition) int64 {
	if rp.LastStableOffset >= 0 {
		return rp.LastStableOffset
	}
	return rp.HighWatermark
}

// lane takes one partition's records up the ladder and queues them.
func (f *fetcher) lane(x asked, rp *kmsg.FetchResponseTopicPartition, s *slab) ledgerStep {
	var aborted []abortedTxn
	for _, a := range rp.AbortedTransactions {
		aborted = append(aborted, abortedTxn{a.ProducerID, a.FirstOffset})
	}
	c, err := climb(rp.RecordBatches, x.offset, aborted, x.lane.limits())
	steps, gate := x.lane.take(x.offset, c, s, sourceEnd(rp))
	x.settled()
	if err != nil {
		x.lane.fault(err)
	}
	return ledgerStep{x.lane, steps, gate}
}

// refused deals with the error of one partition. It says whether the metadata
// may be stale.
func (f *fetcher) refused(x asked, err error) bool {
	if e := (*kerr.Error)(nil); errors.As(err, &e) && retriableFetch(e) {
		x.lane.unread((&sourceError{err}).Error())
		f.mu.Lock()
		x.pausedUntil = time.Now().Add(jitter(100 * time.Millisecond))
		f.mu.Unlock()
		return leaderMoved(e)
	}
	x.lane.fault(&sourceError{err})
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

// poke signals "there is work"; the work stands elsewhere.
func poke(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}
