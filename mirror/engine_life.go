package mirror

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"sync"

	"kmirror/checkpoint"
	"kmirror/topology"
)

// life is one membership of this instance: it makes the flows carry what is
// assigned, as far as that is neither paused nor in doubt between two versions
// of mirror.yaml.
type life struct {
	engine *Engine
	id     string
	ctx    context.Context //nolint:containedctx // flows begin whenever mirror.yaml changes, and end with the life
	cancel context.CancelFunc
	lease  func() error
	over   <-chan struct{}

	running sync.WaitGroup // of flows

	// applying is held while what is carried changes: by an assignment, a pause
	// or a reload. It guards the fields below, and is held over the release of
	// partitions.
	applying sync.Mutex
	ended    bool
	assigned assignment

	mu      sync.Mutex // guards the fields below
	carried []*carried // in file order
	shares  map[partitionID]struct{}
	paths   map[string]string // of the assignment
	failure error             // why a flow ended the life; nil: none did
}

// carried is a flow that runs.
type carried struct {
	*flow
	cancel context.CancelFunc
	done   chan struct{}
}

// newLife begins the flows of the present configuration.
func newLife(ctx context.Context, e *Engine, id string, lease func() error, over <-chan struct{}) *life {
	l := &life{engine: e, id: id, lease: lease, over: over, assigned: newAssignment(0)}
	l.ctx, l.cancel = context.WithCancel(ctx)
	l.applying.Lock()
	defer l.applying.Unlock()
	l.reload(nil) //nolint:contextcheck // what begins has the life's own
	return l
}

// fail ends the life: a flow may not write under its identity any more.
func (l *life) fail(err error) {
	if fenced := (*fencedError)(nil); errors.As(err, &fenced) && l.engine.duel() {
		err = fmt.Errorf("another process mirrors the same flow into the same cluster, and each ends the other: give only one of them the flow, or let Consul divide the work (coordination.consul): %s", err) //nolint:errorlint // not to be followed by another life
	}
	l.mu.Lock()
	if l.failure == nil {
		l.failure = err
	}
	l.mu.Unlock()
	l.engine.log.Error("this life ends", slog.String("life", l.id), slog.Any("error", err))
	l.cancel()
}

// Run carries what is assigned until the life's context ends and all is let go of.
func (l *life) Run() error {
	var heeding sync.WaitGroup
	heeding.Go(l.heed)
	err := l.engine.live.Assignment(l.ctx, l.id, l.follow)
	l.cancel() // also when only the assignments failed
	heeding.Wait()
	l.applying.Lock()
	l.ended = true
	l.applying.Unlock()
	l.running.Wait()
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.failure != nil {
		return l.failure
	}
	return err
}

// flows are those that run, in file order.
func (l *life) flows() []*flow {
	l.mu.Lock()
	defer l.mu.Unlock()
	flows := make([]*flow, 0, len(l.carried))
	for _, c := range l.carried {
		flows = append(flows, c.flow)
	}
	return flows
}

// begin starts a flow. Called with applying held.
func (l *life) begin(cfg *topology.Flow) *carried {
	ctx, cancel := context.WithCancel(l.ctx)
	c := &carried{flow: l.newFlow(cfg), cancel: cancel, done: make(chan struct{})}
	l.running.Go(func() {
		defer close(c.done)
		c.flow.Run(ctx)
	})
	return c
}

func (l *life) newFlow(cfg *topology.Flow) *flow {
	e := l.engine
	source, target := e.clusters[cfg.From], e.clusters[cfg.To]
	log := e.log.With(slog.String("flow", cfg.Name))
	part := e.part(cfg.Name)
	e.mu.Lock()
	orders := e.controls[cfg.To]
	e.mu.Unlock()
	work, stop := context.WithCancel(context.WithoutCancel(l.ctx)) // it lets go in order when the life ends
	f := &flow{
		work: work, stop: stop,
		source: source, target: target, log: log,
		budget: part.budget,
		loader: newLoader(func(ctx context.Context, mapPartition int32, keys []checkpoint.Key) (map[checkpoint.Key]checkpoint.Loaded, error) {
			return checkpoint.LoadPartitions(ctx, target, mapPartition, keys)
		}),
		totals: part.totals, counters: part.counters,
		metrics: flowMetrics{e.metrics, cfg.Name},
		lease:   l.lease, over: l.over, prepared: make(chan struct{}),
		throttle: part.throttle, incidents: e.journal.of(cfg.Name), orders: orders,
		fetchers: map[int32]*fetcher{}, appenders: map[int32]*appender{}, tenures: map[partitionID]*holding{},
	}
	f.settings.Store(cfg)
	f.discovery = newDiscovery(f.cfg, source, target, log)
	f.fatal = l.fail
	switch { // a flow of another naming, or circle, begins anew
	case len(cfg.Drops) > 0:
		f.origins = l.newOrigins(f)
	case cfg.Naming == topology.Identity:
		f.circles = f.newCircleWatch(checkpoint.ReadsOf(func(name string) *topology.Flow { return e.config().Flow(name) }))
	}
	f.survey = newSurvey(f, func(id partitionID) bool {
		owner := e.ownerOf(id)
		return owner != "" && owner != l.id && !l.holds(id)
	})
	f.arm(l.id, e.live.Living)
	return f
}

// reload makes the flows those of the present configuration. Those that are to
// begin anew are in anew, by name; they drain first. Called with applying held.
func (l *life) reload(anew map[string]bool) {
	if l.ended {
		return
	}
	config := l.engine.config()
	l.mu.Lock()
	former := map[string]*carried{}
	for _, c := range l.carried {
		former[c.cfg().Name] = c
	}
	l.mu.Unlock()
	var leaving []*carried
	for name, c := range former {
		if config.Flow(name) == nil || anew[name] {
			c.cancel()
			leaving = append(leaving, c)
			delete(former, name)
		}
	}
	for _, c := range leaving {
		<-c.done
	}
	var now []*carried
	for _, cfg := range config.Flows {
		c := former[cfg.Name]
		if c == nil {
			c = l.begin(cfg)
		} else {
			c.settings.Store(cfg)
			c.discovery.refresh()
		}
		now = append(now, c)
	}
	l.mu.Lock()
	l.carried = now
	l.mu.Unlock()
}

// follow makes this life mirror what it is assigned: it lets go of what it lost,
// publishes what it will hold, and only then begins what is new.
func (l *life) follow(value []byte) error {
	a, err := decodeAssignment(value)
	if err != nil {
		return err
	}
	l.applying.Lock()
	defer l.applying.Unlock()
	l.assigned = a
	l.mu.Lock()
	l.shares, l.paths = a.Partitions, a.Paths
	l.mu.Unlock()
	wanted := l.wanted()
	l.release(wanted)
	if err := l.engine.live.Hold(l.ctx, l.id, a.encode()); err != nil {
		return fmt.Errorf("publish what this instance holds: %w", err)
	}
	l.start(wanted)
	l.engine.log.Debug("assignment", slog.Uint64("version", a.Version), slog.Int("partitions", len(a.Partitions)))
	return nil
}

// heed applies pauses as they come and go, until the life ends.
func (l *life) heed() {
	any := make(chan struct{}, 1)
	watched := map[*control]func(){}
	defer func() {
		for _, stop := range watched {
			stop()
		}
	}()
	for {
		l.engine.mu.Lock()
		reloaded := l.engine.reloaded
		for _, c := range l.engine.controls {
			if watched[c] == nil {
				watched[c] = c.watch(any)
				poke(any)
			}
		}
		l.engine.mu.Unlock()
		select {
		case <-any:
			l.settle()
		case <-reloaded:
		case <-l.ctx.Done():
			return
		}
	}
}

// settle carries what is assigned and not paused.
func (l *life) settle() {
	l.applying.Lock()
	defer l.applying.Unlock()
	l.apply()
}

// apply is settle with applying held.
func (l *life) apply() {
	wanted := l.wanted()
	l.release(wanted)
	l.start(wanted)
}

// wanted is what the flows are to carry now. Called with applying held.
func (l *life) wanted() map[*flow]map[partitionID]struct{} {
	wanted := map[*flow]map[partitionID]struct{}{}
	byName := map[string]*flow{}
	paused := map[string]map[string]bool{} // by flow and topic
	for _, f := range l.flows() {
		wanted[f] = map[partitionID]struct{}{}
		if l.disagrees(f, l.assigned.Paths) == "" {
			byName[f.cfg().Name] = f
			paused[f.cfg().Name] = map[string]bool{}
		}
	}
	for id := range l.assigned.Partitions {
		f := byName[id.Flow]
		if f == nil {
			continue
		}
		stays, known := paused[id.Flow][id.Topic]
		if !known {
			stays = f.paused(id.Topic) != ""
			paused[id.Flow][id.Topic] = stays
		}
		if !stays {
			wanted[f][id] = struct{}{}
		}
	}
	return wanted
}

// release lets go of what is not wanted. Called with applying held.
func (l *life) release(wanted map[*flow]map[partitionID]struct{}) {
	var released sync.WaitGroup
	for f, partitions := range wanted {
		released.Go(func() { f.release(partitions) })
	}
	released.Wait()
}

// start begins what is wanted and does not run. Called with applying held.
func (l *life) start(wanted map[*flow]map[partitionID]struct{}) {
	if l.ended {
		return
	}
	for f, partitions := range wanted {
		f.begin(l.ctx, partitions)
	}
}

// holds says whether a partition is assigned to this life.
func (l *life) holds(id partitionID) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	_, ok := l.shares[id]
	return ok
}

// disagreement says why this instance does not carry a flow that the leader
// placed: their files differ in where its records go. "" when they agree.
func (l *life) disagreement(f *flow) string {
	l.mu.Lock()
	paths := l.paths
	l.mu.Unlock()
	return l.disagrees(f, paths)
}

func (l *life) disagrees(f *flow, paths map[string]string) string {
	cfg := f.cfg()
	if leaders, ok := paths[cfg.Name]; ok && leaders != dataPath(cfg) {
		return "mirror.yaml of the leading instance says otherwise where this flow's records go (naming, separator, rename, filters, fence, the circle of flows that it is in): nothing is mirrored here until both agree; bring this file in line and reload it"
	}
	return ""
}

// flowNamed is a flow that runs, nil if there is none of that name.
func (l *life) flowNamed(name string) *flow {
	flows := l.flows()
	if i := slices.IndexFunc(flows, func(f *flow) bool { return f.cfg().Name == name }); i >= 0 {
		return flows[i]
	}
	return nil
}
