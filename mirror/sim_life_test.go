package mirror

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"kmirror/checkpoint"
	"kmirror/internal/kafka"
	"kmirror/internal/wire"
	"kmirror/topology"
)

// simLife is one life of one instance: production code for everything that
// decides, and around it, in short, what flow and tenure do.
type simLife struct {
	world    *simWorld
	instance int
	serial   int
	name     string
	log      *slog.Logger

	work   context.Context
	finish context.CancelFunc
	flow   context.Context // ends in order
	stop   context.CancelFunc
	over   chan struct{} // the membership is known to be lost
	killed chan struct{}
	dead   atomic.Bool
	ended  atomic.Bool

	fence    *fence
	ledger   *checkpoint.LedgerWriter
	recorder *checkpoint.Recorder
	takeover *takeover
	keeper   *housekeeper
	tidying  atomic.Bool // it is at it
	loader   *loader
	budget   *budget

	workers sync.WaitGroup
	fencing kafka.Producer        // what InitProducer answered last
	mapped  int64                 // the end of the map as it was loaded last
	blind   *kafka.TopicPartition // see rules.staleMap

	mu      sync.Mutex
	tenures map[int32]*simTenure
	closing bool

	// The driver's.
	paused  bool
	joined  atomic.Bool  // among the living
	lostAt  atomic.Int64 // nanoseconds
	noticed atomic.Bool
	conns   map[int32]*simConn
}

func (w *simWorld) newLife(instance int) *simLife {
	w.serial++
	l := &simLife{
		world: w, instance: instance, serial: w.serial, name: fmt.Sprintf("life%d.%d", instance, w.serial),
		over: make(chan struct{}), killed: make(chan struct{}), tenures: map[int32]*simTenure{}, conns: map[int32]*simConn{},
		log: w.log, budget: newBudget(1 << 30),
	}
	l.joined.Store(true)
	l.work, l.finish = context.WithCancel(context.Background())
	l.flow, l.stop = context.WithCancel(l.work)
	port := simPort{l}
	l.loader = newLoader(func(ctx context.Context, mapPartition int32, keys []checkpoint.Key) (map[checkpoint.Key]checkpoint.Loaded, error) {
		return checkpoint.LoadPartitions(ctx, port, mapPartition, keys)
	})
	x := newFence(w.flow, l.name, port, nil)
	x.id = fmt.Sprintf("kmirror.%s", l.name)
	if w.rules.sharedIdentity {
		x.id = "kmirror"
	}
	x.load, x.living, x.allowed, x.journal, x.log = l.load, l.living, l.allowed, w, l.log
	x.owning = func(ctx context.Context) (map[string]int, error) { return checkpoint.CountOwned(ctx, port) }
	l.fence = x
	l.ledger, l.recorder = checkpoint.NewLedgerWriter(x, l.log), checkpoint.NewRecorder(x, l.log)
	source := simSourcePort{l}
	l.takeover = &takeover{
		cfg: func() *topology.Flow { return w.flow }, fence: x, source: source, target: port, load: l.load, put: l.put,
		settle: l.recorder.Settle, proof: newLoader(provenLedgers(port)).get, accepted: func(partitionID, string) bool { return w.accepting }, doubled: func(int64) {}, journal: w, log: l.log,
		start: func(ctx context.Context, _ *topicPair, partition int32) (int64, error) {
			return source.ListOffset(ctx, "s", partition, atEarliest)
		},
	}
	if w.rules.trustLedger {
		l.takeover.proof = l.load
	}
	if w.house != nil {
		l.keep()
	}
	w.lives = append(w.lives, l)
	go l.run()
	return l
}

func (l *simLife) load(ctx context.Context, key checkpoint.Key) (checkpoint.Loaded, error) {
	loaded, err := l.loader.get(ctx, key)
	if err != nil {
		return loaded, err
	}
	rules := l.world.rules
	if rules.noOwners {
		loaded.Owners = nil
	}
	if rules.noMap && key.TopicID != [16]byte{} {
		loaded.Runs = &checkpoint.Runs{}
	}
	if key.TopicID != [16]byte{} {
		_, l.mapped, _ = loaded.Runs.End()
	}
	return loaded, nil
}

func (l *simLife) put(ctx context.Context, mapPartition int32, records []wire.Record) error {
	done := make(chan error, 1)
	l.ledger.Put(mapPartition, records, func(err error) { done <- err })
	select {
	case err := <-done:
		return err
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

func (l *simLife) living(ctx context.Context) (map[string]struct{}, error) {
	got, err := l.call(ctx, true, "living", func(*simRequest) (any, error) {
		all := map[string]struct{}{}
		for _, o := range l.world.lives {
			if o.joined.Load() {
				all[o.name] = struct{}{}
			}
		}
		return all, nil
	})
	if err != nil {
		return nil, err
	}
	return got.(map[string]struct{}), nil
}

// allowed is the lease: by its own clock a process knows that it was away for
// longer than its membership lasts.
func (l *simLife) allowed() error {
	if l.world.rules.endlessLease {
		return nil
	}
	if !l.joined.Load() && (l.noticed.Load() || time.Since(time.Unix(0, l.lostAt.Load())) > time.Minute) {
		return &leaseError{}
	}
	return nil
}

// run is flow.Run.
func (l *simLife) run() {
	l.workers.Go(func() { _ = l.ledger.Run(l.work) })
	l.workers.Go(func() { _ = l.fence.Run(l.work) })
	select {
	case <-l.flow.Done():
	case err := <-l.fence.fatal:
		l.world.tracef("a life ends: %v", err)
		l.stop()
	}
	l.mu.Lock()
	l.closing = true
	leaving := make([]*simTenure, 0, len(l.tenures))
	for p := range int32(len(l.world.sources)) {
		if t := l.tenures[p]; t != nil {
			leaving = append(leaving, t)
		}
	}
	l.mu.Unlock()
	for _, t := range leaving {
		t.cancel()
	}
	for _, t := range leaving {
		<-t.done
	}
	select {
	case <-l.over:
	default:
		ctx, cancel := context.WithTimeout(l.work, 5*time.Second)
		_ = l.recorder.Flush(ctx)
		cancel()
		ctx, cancel = context.WithTimeout(l.work, letGoLimit)
		_ = l.fence.leave(ctx, l.put)
		cancel()
	}
	l.finish()
	l.workers.Wait()
	l.ended.Store(true)
}

// kill is kill -9: what was sent goes on its way.
func (l *simLife) kill() {
	if l.dead.Swap(true) {
		return
	}
	close(l.killed)
	l.notice()
	l.finish()
	for _, c := range l.conns {
		c.broken = true
	}
}

// notice tells the process that its membership is lost.
func (l *simLife) notice() {
	if l.noticed.Load() {
		return
	}
	l.noticed.Store(true)
	close(l.over)
	l.stop()
}

// simTenure is a partition in the hands of a life.
type simTenure struct {
	life      *simLife
	partition int32
	cancel    context.CancelFunc
	done      chan struct{}
	moved     chan struct{} // capacity 1: the target's leader changed

	mu   sync.Mutex
	lane *lane
	at   *appending
	err  error

	seen witness
	key  checkpoint.Key
}

func (l *simLife) begin(partition int32) *simTenure {
	ctx, cancel := context.WithCancel(l.flow)
	t := &simTenure{
		life: l, partition: partition, cancel: cancel, done: make(chan struct{}), moved: make(chan struct{}, 1),
		key: checkpoint.Key{Flow: l.world.flow.Name, Topic: "s", TopicID: [16]byte{1}, Partition: partition},
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closing {
		cancel()
		close(t.done)
		return t
	}
	l.tenures[partition] = t
	go t.run(ctx)
	return t
}

func (t *simTenure) ended() bool {
	select {
	case <-t.done:
		return true
	default:
		return false
	}
}

func (t *simTenure) current() (*lane, *appending) {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.lane, t.at
}

func (t *simTenure) failure() error {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.err
}

// run is tenure.Run.
func (t *simTenure) run(ctx context.Context) {
	l := t.life
	defer close(t.done)
	defer t.letGo()
	if _, err := l.call(ctx, true, fmt.Sprintf("assignment %d", t.partition), func(*simRequest) (any, error) { return nil, nil }); err != nil {
		return
	}
	for ctx.Err() == nil {
		err := t.attempt(ctx)
		t.mu.Lock()
		t.err = err
		t.mu.Unlock()
		if again := (*leaderError)(nil); errors.As(err, &again) {
			continue
		}
		pause := time.NewTimer(time.Second)
		select {
		case <-pause.C:
		case <-ctx.Done():
		}
		pause.Stop()
	}
}

func (t *simTenure) letGo() {
	l := t.life
	select {
	case <-l.over:
		return
	default:
	}
	ctx, cancel := context.WithTimeout(l.work, letGoLimit)
	defer cancel()
	_ = l.fence.finish(ctx, l.put, partitionID{t.key.Flow, "s", t.partition}, t.key, kafka.TopicPartition{Topic: "t", Partition: t.partition})
	flush, done := context.WithTimeout(l.work, 5*time.Second)
	_ = l.recorder.Flush(flush)
	done()
}

// attempt is tenure.attempt and tenure.mirror.
func (t *simTenure) attempt(ctx context.Context) error {
	l, w := t.life, t.life.world
	id := partitionID{t.key.Flow, "s", t.partition}
	pair := &topicPair{source: &kafka.Topic{Name: "s", ID: [16]byte{1}}, targetName: "t", target: &kafka.Topic{Name: "t", ID: [16]byte{2}}}
	select {
	case <-t.moved:
	default:
	}
	b, err := l.takeover.run(ctx, id, t.key, pair, &t.seen)
	if err != nil {
		return err
	}
	w.tracef("%s holds %d from %d, epoch %v, target end %d", l.name, t.partition, b.origin.source, b.producer, b.origin.targetEnd)
	l.recorder.Resume(t.key, b.runs)
	if b.runs.Unsettled() {
		if err := l.recorder.Flush(ctx); err != nil {
			l.recorder.Forget(t.key)
			return err
		}
	}
	lane := newLane(t.key, "t", [16]byte{2}, b.producer.ID, b.producer.Epoch, b.origin, func() ladderLimits {
		return ladderLimits{inflate: inflateLimit, maxBatch: 400}
	})
	at := &appending{lane: lane, acked: func(runs []checkpoint.Run, _, _ int64) {
		for _, run := range runs {
			if err := l.recorder.Acked(t.key, run); err != nil && !w.rules.trustingAcks {
				lane.fault(&doubtError{"an acknowledgement does not fit the offset map: " + err.Error()})
				return
			}
		}
	}, settled: func() { t.settled(lane) }}
	lane.sit(at)
	lane.stand(&fetching{lane: lane, settled: func() { t.settled(lane) }})
	lane.board(nil, "")
	t.mu.Lock()
	t.lane, t.at = lane, at
	t.mu.Unlock()
	leave := func() {
		lane.close()
		limit := time.NewTimer(drainLimit)
		defer limit.Stop()
		for !lane.idle() {
			select {
			case <-lane.events:
			case <-l.over:
				return
			case <-limit.C:
				return
			}
		}
	}
	for err == nil {
		select {
		case <-ctx.Done():
			leave()
			err = ctx.Err()
		case err = <-lane.faults:
			leave()
		case <-lane.events:
		case <-t.moved:
			if w.rules.trustingAcks {
				continue
			}
			leave()
			err = &leaderError{"moved"}
		}
	}
	w.tracef("%s leaves %d: %v, clean %v", l.name, t.partition, err, lane.clean())
	if lane.clean() || w.rules.unmarkedEpochs {
		l.fence.settled(id)
	}
	if !w.rules.trustingAcks {
		t.seen.targetEnd = max(t.seen.targetEnd, lane.progress(time.Now()).targetEnd)
	}
	lane.abandon()
	l.recorder.Forget(t.key)
	t.mu.Lock()
	t.lane, t.at = nil, nil
	t.mu.Unlock()
	if fenced := (*fencedError)(nil); errors.As(err, &fenced) {
		return l.fence.fail(&fencedError{l.fence.id, fenced.cause})
	}
	return err
}

// settled is tenure.settled.
func (t *simTenure) settled(l *lane) {
	for source, news := l.settled(); news; source, news = l.settled() {
		if err := t.life.recorder.Passed(t.key, source); err != nil {
			l.fault(&doubtError{"the offset map: " + err.Error()})
		}
		l.recorded()
		poke(l.events)
	}
}
