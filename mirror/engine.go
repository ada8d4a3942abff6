package mirror

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"golang.org/x/sync/errgroup"

	"kmirror/checkpoint"
	"kmirror/internal/kafka"
	"kmirror/topology"
)

// Options are what an engine is made of.
type Options struct {
	Topology   *topology.Config
	Clusters   map[string]*kafka.Cluster // every cluster that a flow names
	Live       Live
	Logger     *slog.Logger          // nil: discarded
	Registerer prometheus.Registerer // nil: a registry of its own
	Budget     int64                 // bytes that fetched batches may occupy, divided among the flows (4 MiB each at least); 0: 64 MiB
	Version    string
}

// Engine mirrors all flows of one instance. Make one with [New].
type Engine struct {
	topology  *topology.Config
	clusters  map[string]*kafka.Cluster
	live      Live
	log       *slog.Logger
	metrics   *metrics
	journal   *journal
	budgets   map[string]*budget // by flow, so that one that stands still takes nothing from the others
	version   string
	started   time.Time
	totals    map[string]*totals   // by flow
	counters  map[string]*counters // by flow
	throttles map[string]*throttle // by flow

	mu           sync.Mutex // guards the fields below
	life         string
	flows        []*flow // of the present life, in file order
	leading      *leader // nil while another leads
	term         uint64
	members      []string
	owners       map[partitionID]string
	clustersSeen map[string]ClusterStatus
}

// New makes an engine. It does no I/O.
func New(o Options) (*Engine, error) {
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	if o.Registerer == nil {
		o.Registerer = prometheus.NewRegistry()
	}
	if o.Budget == 0 {
		o.Budget = 64 << 20
	}
	e := &Engine{
		topology: o.Topology, clusters: o.Clusters, live: o.Live, log: o.Logger, budgets: map[string]*budget{},
		version: o.Version, started: time.Now(), totals: map[string]*totals{}, counters: map[string]*counters{}, throttles: map[string]*throttle{},
		owners: map[partitionID]string{}, clustersSeen: map[string]ClusterStatus{},
	}
	for _, f := range o.Topology.Flows {
		for _, name := range []string{f.From, f.To} {
			if o.Clusters[name] == nil {
				return nil, fmt.Errorf("flow %s: no connection to cluster %s", f.Name, name)
			}
		}
		e.totals[f.Name], e.counters[f.Name], e.throttles[f.Name] = newTotals(), &counters{}, newThrottle(0)
		e.budgets[f.Name] = newBudget(o.Budget / int64(len(o.Topology.Flows)))
	}
	var err error
	if e.metrics, err = newMetrics(o.Registerer); err != nil {
		return nil, fmt.Errorf("register metrics: %w", err)
	}
	e.journal = newJournal(o.Topology.DataDir, o.Topology.Instance, e.metrics.incidents, o.Logger)
	if err := o.Registerer.Register(&collector{engine: e}); err != nil {
		return nil, fmt.Errorf("register metrics: %w", err)
	}
	return e, nil
}

// Run mirrors until ctx ends. Then it lets go of everything in order: what is
// in flight is awaited, what was learned is written down, the membership is
// given back. When it returns, nothing it started still runs.
func (e *Engine) Run(ctx context.Context) error {
	whole := ctx
	if err := e.journal.load(); err != nil { // what happened before is worth knowing, not worth standing still for
		e.log.Error("incidents", slog.Any("error", err))
	}
	journal, done := context.WithCancel(context.WithoutCancel(whole))
	var writing sync.WaitGroup
	writing.Go(func() { e.journal.Run(journal) })
	defer writing.Wait()
	defer done()
	g, ctx := errgroup.WithContext(whole)
	g.Go(func() error { e.watchClusters(ctx); return nil })
	if len(e.topology.Flows) > 0 {
		info, err := json.Marshal(map[string]string{"instance": e.topology.Instance, "version": e.version, "http": e.topology.HTTP})
		if err != nil {
			return fmt.Errorf("describe this instance: %w", err)
		}
		g.Go(func() error {
			return e.live.Join(ctx, info, func(life context.Context, id string, deadline func() time.Time) error {
				return e.lifetime(ctx, life, id, deadline)
			})
		})
	}
	if err := g.Wait(); err != nil && whole.Err() == nil {
		return fmt.Errorf("mirror: %w", err)
	}
	return nil
}

// lifetime is one life: it ends when its membership does, or when whole ends.
func (e *Engine) lifetime(whole, life context.Context, id string, deadline func() time.Time) error {
	over := make(chan struct{})
	stop := context.AfterFunc(life, func() {
		if whole.Err() == nil { // not by our own wish
			close(over)
		}
	})
	defer stop()
	lease := func() error {
		if d := deadline(); !time.Now().Before(d) {
			return &leaseError{time.Since(d)}
		}
		return nil
	}
	flows := make([]*flow, 0, len(e.topology.Flows))
	for _, cfg := range e.topology.Flows {
		flows = append(flows, e.newFlow(life, cfg, lease, over))
	}
	e.mu.Lock()
	e.life, e.flows = id, flows
	e.mu.Unlock()
	defer func() {
		e.mu.Lock()
		e.life, e.flows, e.members, e.owners = "", nil, nil, map[partitionID]string{}
		e.mu.Unlock()
	}()
	e.log.Info("member", slog.String("life", id))

	g, ctx := errgroup.WithContext(life)
	for _, f := range flows {
		g.Go(func() error { f.Run(ctx); return nil })
	}
	g.Go(func() error { return e.follow(ctx, id, flows) })
	g.Go(func() error { return e.live.Members(ctx, e.noteMembers) })
	g.Go(func() error {
		return e.live.Lead(ctx, id, func(ctx context.Context, fence uint64) error { return e.lead(ctx, fence, flows) })
	})
	g.Go(func() error { e.sample(ctx); return nil })
	if err := g.Wait(); err != nil && life.Err() == nil {
		return err
	}
	return nil
}

func (e *Engine) newFlow(life context.Context, cfg *topology.Flow, lease func() error, over <-chan struct{}) *flow {
	source, target := e.clusters[cfg.From], e.clusters[cfg.To]
	log := e.log.With(slog.String("flow", cfg.Name))
	work, stop := context.WithCancel(context.WithoutCancel(life)) // it lets go in order when the life ends
	f := &flow{
		work: work, stop: stop,
		source: source, target: target, log: log,
		discovery: newDiscovery(cfg, source, target, log),
		budget:    e.budgets[cfg.Name],
		loader: newLoader(func(ctx context.Context, mapPartition int32, keys []checkpoint.Key) (map[checkpoint.Key]checkpoint.Loaded, error) {
			return checkpoint.LoadPartitions(ctx, target, mapPartition, keys)
		}),
		producers: newProducers(target),
		ledger:    checkpoint.NewLedgerWriter(target, log),
		recorder:  checkpoint.NewRecorder(target, log),
		totals:    e.totals[cfg.Name], counters: e.counters[cfg.Name],
		metrics: flowMetrics{e.metrics, cfg.Name},
		lease:   lease, over: over, prepared: make(chan struct{}),
		throttle: e.throttles[cfg.Name], incidents: e.journal.of(cfg.Name), verdicts: newVerdicts(),
		fetchers: map[int32]*fetcher{}, appenders: map[int32]*appender{}, tenures: map[partitionID]*holding{},
	}
	f.settings.Store(cfg)
	return f
}

// follow makes this life mirror what it is assigned: it lets go of what it lost,
// publishes what it will hold, and only then begins what is new.
func (e *Engine) follow(ctx context.Context, id string, flows []*flow) error {
	return e.live.Assignment(ctx, id, func(value []byte) error {
		a, err := decodeAssignment(value)
		if err != nil {
			return err
		}
		byFlow := map[string]map[partitionID]struct{}{}
		for p := range a.Partitions {
			if byFlow[p.Flow] == nil {
				byFlow[p.Flow] = map[partitionID]struct{}{}
			}
			byFlow[p.Flow][p] = struct{}{}
		}
		var released sync.WaitGroup
		for _, f := range flows {
			released.Go(func() { f.release(byFlow[f.cfg().Name]) }) //nolint:contextcheck // an order to stop does not cut the release short
		}
		released.Wait()
		if err := e.live.Hold(ctx, id, a.encode()); err != nil {
			return fmt.Errorf("publish what this instance holds: %w", err)
		}
		for _, f := range flows {
			f.begin(ctx, byFlow[f.cfg().Name])
		}
		e.log.Debug("assignment", slog.Uint64("version", a.Version), slog.Int("partitions", len(a.Partitions)))
		return nil
	})
}

// noteMembers keeps who is there and who holds what, for the status and the leader.
func (e *Engine) noteMembers(members, held map[string][]byte) error {
	owners := map[partitionID]string{}
	for id, value := range held {
		a, err := decodeAssignment(value)
		if err != nil {
			e.log.Warn("read what a member holds", slog.String("member", id), slog.Any("error", err))
			continue
		}
		for p := range a.Partitions {
			owners[p] = id
		}
	}
	e.mu.Lock()
	e.members, e.owners = slices.Sorted(maps.Keys(members)), owners
	leading := e.leading
	e.mu.Unlock()
	if leading != nil {
		leading.noteMembers(members, held)
	}
	return nil
}

// sample keeps the rates up to date while nobody asks.
func (e *Engine) sample(ctx context.Context) {
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
			e.describe(time.Now())
		case <-ctx.Done():
			return
		}
	}
}

// watchClusters asks every cluster now and then who it is, for the status.
func (e *Engine) watchClusters(ctx context.Context) {
	var g sync.WaitGroup
	for _, c := range e.topology.Clusters {
		cluster := e.clusters[c.Name]
		if cluster == nil {
			continue
		}
		g.Go(func() {
			every := 100 * time.Millisecond
			for {
				ask, cancel := context.WithTimeout(ctx, 10*time.Second)
				id, err := clusterID(ask, cluster)
				cancel()
				if ctx.Err() != nil {
					return
				}
				e.mu.Lock()
				s := e.clustersSeen[c.Name]
				s.Reachable, s.Error = err == nil, ""
				if err != nil {
					s.Error = err.Error()
				} else {
					s.ID = id
				}
				e.clustersSeen[c.Name] = s
				e.mu.Unlock()
				timer := time.NewTimer(every)
				select {
				case <-timer.C:
				case <-ctx.Done():
					timer.Stop()
					return
				}
				every = min(every*2, 5*time.Second)
			}
		})
	}
	g.Wait()
}

// flowReport is one flow, as status and metrics show it.
type flowReport struct {
	status  FlowStatus
	topics  []topicReport
	doubled uint64
}

func (e *Engine) describe(now time.Time) (Status, []flowReport) {
	e.mu.Lock()
	out := Status{
		Instance: e.topology.Instance, Version: e.version, Started: e.started, Life: e.life,
		Leading: e.leading != nil, Term: e.term, Members: slices.Clone(e.members),
		Clusters: []ClusterStatus{}, Flows: []FlowStatus{},
	}
	for _, c := range e.topology.Clusters {
		s := e.clustersSeen[c.Name]
		s.Name, s.Kind, s.Addresses = c.Name, "external", c.Addresses()
		if c.Embedded != nil {
			s.Kind = "embedded"
		}
		out.Clusters = append(out.Clusters, s)
	}
	flows, owners, leading := slices.Clone(e.flows), e.owners, e.leading
	e.mu.Unlock()

	owner := func(p partitionID) string { return owners[p] }
	var reports []flowReport
	if len(flows) == 0 {
		for _, f := range e.topology.Flows {
			s, topics := e.totals[f.Name].describe(f)
			s.Error = "this instance is not a member"
			if c := e.topology.Coordination.Consul; c != nil {
				s.Error += ": Consul at " + c.Address + " has not confirmed it; the log says why"
			}
			out.Flows = append(out.Flows, s)
			reports = append(reports, flowReport{s, topics, e.counters[f.Name].doubled.Load()})
		}
		return out, reports
	}
	for _, f := range flows {
		problem := func(string) string { return "" }
		if leading != nil {
			problem = leading.problems(f.cfg().Name)
		}
		s, topics := f.describe(now, out.Life, owner, problem)
		out.Flows = append(out.Flows, s)
		reports = append(reports, flowReport{s, topics, f.counters.doubled.Load()})
	}
	return out, reports
}

// Status is this instance's view at this moment.
func (e *Engine) Status() Status {
	s, _ := e.describe(time.Now())
	return s
}

// Ready says whether this instance is a member and has seen both clusters of
// every flow; without flows it is ready at once.
func (e *Engine) Ready() bool {
	if len(e.topology.Flows) == 0 {
		return true
	}
	e.mu.Lock()
	flows := slices.Clone(e.flows)
	e.mu.Unlock()
	for _, f := range flows {
		select {
		case <-f.prepared:
		default:
			return false
		}
		if f.discovery.current.Load() == nil {
			return false
		}
	}
	return len(flows) > 0
}

// Incidents returns what went wrong, as far as it is kept: those with an ID
// greater than since, oldest first.
func (e *Engine) Incidents(since uint64) []Incident { return e.journal.since(since) }

// Groups returns where the groups of a flow stand, as the leader knows it; it is
// not ok for an unknown flow. On an instance that does not lead it is empty.
func (e *Engine) Groups(flow string) ([]checkpoint.GroupStatus, bool) {
	if e.topology.Flow(flow) == nil {
		return nil, false
	}
	e.mu.Lock()
	leading := e.leading
	e.mu.Unlock()
	if leading == nil {
		return nil, true
	}
	return leading.groups(flow), true
}

// buffered is how many bytes lie between sources and targets.
func (e *Engine) buffered() (n int64) {
	for _, b := range e.budgets {
		n += b.inUse()
	}
	return n
}
