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

// flow is one flow in one life of this instance. It owns what moves the data of
// the partitions that are assigned to it.
type flow struct {
	settings       atomic.Pointer[topology.Flow] // a reload changes them: see cfg
	source, target *kafka.Cluster
	discovery      *discovery
	budget         *budget
	loader         *loader
	fence          *fence
	takeover       *takeover
	origins        *origins     // nil: the flow is in no circle
	circles        *circleWatch // nil: its naming breaks circles, or mirror.yaml shows the one that it is in
	ledger         *checkpoint.LedgerWriter
	recorder       *checkpoint.Recorder
	keeper         *housekeeper
	totals         *totals // outlives the life
	survey         *survey // of what does not flow
	counters       *counters
	metrics        flowMetrics
	lease          func() error    // nil while this instance may write
	over           <-chan struct{} // closed when the membership was lost: nothing is waited for any more
	throttle       *throttle       // outlives the life, as totals do
	incidents      Journal         // knows the instance and the flow
	orders         *control        // what operators paused and accepted
	halts          halts           // what waits for an operator's word
	fatal          func(error)     // ends the life
	log            *slog.Logger

	prepared chan struct{} // closed when the map topic is there
	trouble  linkState     // why it is not

	work    context.Context // of fetchers and appenders
	stop    context.CancelFunc
	workers sync.WaitGroup

	counting sync.RWMutex // held for reading while lanes and totals are added up, for writing while one becomes the other

	mu        sync.Mutex // guards the fields below
	fetchers  map[int32]*fetcher
	appenders map[int32]*appender
	tenures   map[partitionID]*holding
	ended     bool // nothing is begun any more
}

// cfg is the flow as mirror.yaml has it now. A reload may change it between two
// calls: what must agree with itself is read from one.
func (f *flow) cfg() *topology.Flow { return f.settings.Load() }

// arm makes what writes to the target, under an identity of this life.
func (f *flow) arm(life string, living func(context.Context) (map[string]struct{}, error)) {
	x := newFence(f.cfg(), life, f.target, newProducers(f.target))
	x.load, x.living, x.allowed, x.journal, x.log = f.loader.get, living, f.lease, f.incidents, f.log
	x.owning = func(ctx context.Context) (map[string]int, error) { return checkpoint.CountOwned(ctx, f.target) }
	x.declare = f.declare
	x.source = func() string { return f.discovery.current.Load().sourceID }
	f.fence = x
	f.ledger, f.recorder = checkpoint.NewLedgerWriter(x, f.log), checkpoint.NewRecorder(x, f.log)
	f.keeper = newHousekeeper(f)
	f.takeover = &takeover{
		cfg: f.cfg, fence: x, source: f.source, target: f.target, load: f.loader.get, put: f.put, accepted: f.accepted,
		settle: f.recorder.Settle, proof: newLoader(provenLedgers(f.target)).get,
		start: f.startOf, doubled: func(n int64) { f.counters.doubled.Add(uint64(n)) }, journal: f.incidents, log: f.log,
	}
	f.takeover.inherit = newMM2Heir(f).inherit
}

// counters are what a flow counts beside its lanes; they outlive a life.
type counters struct {
	doubled atomic.Uint64 // records that stand twice in the target
}

// holding is a running tenure.
type holding struct {
	tenure *tenure
	cancel context.CancelFunc
	done   chan struct{}
}

// Run moves data until ctx ends. It then lets go of every partition in order:
// what is in flight is awaited, what was learned is written down.
func (f *flow) Run(ctx context.Context) {
	defer f.stop()
	spawn := func(run func(context.Context)) {
		f.workers.Go(func() { run(f.work) })
	}
	spawn(f.discovery.Run)
	spawn(func(ctx context.Context) { f.report("ledger", f.ledger.Run(ctx)) })
	spawn(func(ctx context.Context) { f.report("offset map", f.recorder.Run(ctx)) })
	spawn(f.prepare)
	if f.origins != nil {
		spawn(f.origins.Run)
	}
	if f.circles != nil {
		spawn(f.circles.Run)
	}
	spawn(f.keeper.Run)
	spawn(f.survey.Run)
	spawn(func(ctx context.Context) { f.report("identity", f.fence.Run(ctx)) })
	select {
	case <-ctx.Done():
	case err := <-f.fence.fatal:
		f.fatal(err)
		<-ctx.Done()
	}
	f.mu.Lock()
	f.ended = true
	f.mu.Unlock()
	f.release(nil) //nolint:contextcheck // ctx has ended; what is let go of is written down all the same
	f.leave()      //nolint:contextcheck // the same
	f.stop()
	f.workers.Wait()
}

// leave takes this life's identity back.
func (f *flow) leave() {
	if f.banned() {
		return
	}
	ctx, cancel := context.WithTimeout(f.work, letGoLimit)
	defer cancel()
	f.report("identity", f.fence.leave(ctx, f.put))
}

func (f *flow) report(what string, err error) {
	if err != nil && f.work.Err() == nil {
		f.log.Error("write behind", slog.String("what", what), slog.Any("error", err))
	}
}

// prepare makes the map topic on the target.
func (f *flow) prepare(ctx context.Context) {
	retry := backoff{base: 100 * time.Millisecond, limit: 5 * time.Second}
	for ctx.Err() == nil {
		err := f.target.EnsureInternalTopic(ctx, checkpoint.MapTopic, checkpoint.MapPartitions, checkpoint.MapTopicConfigs())
		if err == nil {
			f.trouble.set("")
			close(f.prepared)
			return
		}
		if ctx.Err() == nil && f.trouble.get() == "" {
			f.log.Warn("create the offset map on the target", slog.String("topic", checkpoint.MapTopic), slog.Any("error", err))
		}
		f.trouble.set(err.Error())
		retry.sleep(ctx)
	}
}

// ready waits for the map topic.
func (f *flow) ready(ctx context.Context) error {
	select {
	case <-f.prepared:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// release lets go of every partition that is not wanted, and waits until
// nothing of it is in flight.
func (f *flow) release(wanted map[partitionID]struct{}) {
	var leaving []*holding
	f.mu.Lock()
	for id, h := range f.tenures {
		if _, ok := wanted[id]; !ok {
			leaving = append(leaving, h)
			delete(f.tenures, id)
		}
	}
	f.mu.Unlock()
	for _, h := range leaving {
		h.cancel()
	}
	for _, h := range leaving {
		<-h.done
	}
	if len(leaving) == 0 {
		return
	}
	if f.banned() {
		return
	}
	flush, cancel := context.WithTimeout(f.work, 5*time.Second) // the next owner reads what this one learned
	defer cancel()
	f.report("offset map", f.recorder.Flush(flush))
}

// begin starts the tenures among wanted that do not run yet.
func (f *flow) begin(ctx context.Context, wanted map[partitionID]struct{}) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for id := range wanted {
		if f.ended || f.tenures[id] != nil {
			continue
		}
		own, cancel := context.WithCancel(ctx)
		h := &holding{tenure: newTenure(f, id), cancel: cancel, done: make(chan struct{})}
		f.tenures[id] = h
		f.workers.Go(func() {
			defer close(h.done)
			defer cancel()
			h.tenure.Run(own)
		})
	}
}

// fetcher returns the fetcher of a source broker, starting it if need be.
func (f *flow) fetcher(broker int32) *fetcher {
	f.mu.Lock()
	defer f.mu.Unlock()
	x := f.fetchers[broker]
	if x == nil {
		x = newFetcher(&fetcher{
			broker: broker, connect: f.source.Connect, budget: f.budget, throttle: f.throttle, ledger: f.writeAhead, filled: f.wakeAppenders, metrics: f.metrics,
			stale: f.discovery.refresh, log: f.log,
		})
		f.fetchers[broker] = x
		f.workers.Go(func() { x.Run(f.work) })
	}
	return x
}

// appender returns the appender of a target broker, starting it if need be.
func (f *flow) appender(broker int32) *appender {
	f.mu.Lock()
	defer f.mu.Unlock()
	x := f.appenders[broker]
	if x == nil {
		x = newAppender(&appender{
			broker: broker, connect: f.target.Connect, stale: f.discovery.refresh, alive: f.lease, metrics: f.metrics, log: f.log,
		})
		f.appenders[broker] = x
		f.workers.Go(func() { x.Run(f.work) })
	}
	return x
}

// writeAhead writes the ledger steps of one fetch response, then its letters,
// and opens the gates of their lanes when the target has acknowledged them. It
// does not wait.
func (f *flow) writeAhead(steps []ledgerStep) {
	anchors := make([]checkpoint.Anchor, 0, len(steps))
	now := time.Now().UnixMilli()
	for _, s := range steps {
		if len(s.steps) > 0 {
			anchors = append(anchors, checkpoint.Anchor{
				Key: s.lane.key, ProducerID: s.lane.producer, Epoch: s.lane.epoch, Steps: s.steps, TimeMillis: now,
			})
		}
	}
	written := func(err error) {
		if err != nil { // the life ends
			return
		}
		for _, s := range steps {
			if len(s.letters) > 0 {
				f.post(s)
			} else {
				s.lane.open(s.gate)
			}
		}
		f.wakeAppenders()
	}
	if len(anchors) == 0 {
		written(nil)
		return
	}
	f.ledger.Write(anchors, written)
}

// post writes the letters of a step and opens its gate.
func (f *flow) post(s ledgerStep) {
	key := s.lane.key
	f.bury(partitionID{key.Flow, key.Topic, key.Partition}, s.letters, func(err error) {
		if err != nil {
			s.lane.fault(err)
			return
		}
		s.lane.open(s.gate)
		f.wakeAppenders()
	})
}

// put writes records to a partition of the offset map's topic and waits. If ctx
// ends first, they may be written later.
func (f *flow) put(ctx context.Context, mapPartition int32, records []wire.Record) error {
	done := make(chan error, 1)
	f.ledger.Put(mapPartition, records, func(err error) { done <- err })
	select {
	case err := <-done:
		return err
	case <-f.fence.gone:
		return errNotOurs
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

var errNotOurs = errors.New("this life may not write any more")

// banned says whether this life may not write any more, or is over.
func (f *flow) banned() bool {
	select {
	case <-f.fence.gone:
		return true
	case <-f.over: // another may own what it owned
		return true
	default:
		return false
	}
}

func (f *flow) wakeAppenders() {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, a := range f.appenders {
		a.rouse()
	}
}

// retire adds what a lane did to the flow's totals.
func (f *flow) retire(topic string, l *lane) {
	done := l.progress(time.Now())
	f.totals.add(topic, done.stats)
	f.totals.date(topic, l.newest())
	f.survey.ended(partitionID{l.key.Flow, topic, l.partition}, done.position)
}

// leaseError says that this instance may not write any more.
type leaseError struct{ since time.Duration }

func (e *leaseError) Error() string {
	return fmt.Sprintf("the membership of this instance has not been confirmed for too long (its lease ended %v ago): nothing more is written", e.since.Round(time.Millisecond))
}
