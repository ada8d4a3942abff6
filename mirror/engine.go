package mirror

import (
	"context"
	"encoding/json"
	"fmt"
	"iter"
	"log/slog"
	"maps"
	"slices"
	"sync"
	"sync/atomic"
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
	settings atomic.Pointer[topology.Config] // see config
	clusters map[string]*kafka.Cluster
	live     Live
	log      *slog.Logger
	metrics  *metrics
	journal  *journal
	version  string
	started  time.Time
	pot      *budget // of all flows together

	mu           sync.Mutex  // guards the fields below
	fenced       []time.Time // when lives of this instance were, lately
	life         *life       // nil while this instance is no member
	parts        map[string]*lasting
	controls     map[string]*control         // by target cluster
	spawn        func(func(context.Context)) // nil while the engine does not run
	reloaded     chan struct{}               // closed and replaced by a reload
	leading      *leader                     // nil while another leads
	term         uint64
	members      []string
	owners       map[partitionID]string
	clustersSeen map[string]ClusterStatus

	reloading sync.Mutex // one reload at a time; taken before mu
}

// lasting is what stays of a flow when a life ends.
type lasting struct {
	budget   *budget // a share, of which no flow that stands still takes all
	totals   *totals
	counters *counters
	throttle *throttle
}

// config is mirror.yaml as it was taken last.
func (e *Engine) config() *topology.Config { return e.settings.Load() }

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
		clusters: o.Clusters, live: o.Live, log: o.Logger, pot: newBudget(o.Budget),
		version: o.Version, started: time.Now(), parts: map[string]*lasting{}, controls: map[string]*control{},
		reloaded: make(chan struct{}), owners: map[partitionID]string{}, clustersSeen: map[string]ClusterStatus{},
	}
	if err := e.adopt(o.Topology); err != nil {
		return nil, err
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

// adopt takes a configuration: what its flows need for longer than a life is
// there afterwards.
func (e *Engine) adopt(config *topology.Config) error {
	for _, f := range config.Flows {
		for _, name := range []string{f.From, f.To} {
			if e.clusters[name] == nil {
				return fmt.Errorf("flow %s: no connection to cluster %s", f.Name, name)
			}
		}
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	for _, f := range config.Flows {
		if e.parts[f.Name] == nil {
			e.parts[f.Name] = &lasting{e.pot.share(), newTotals(), &counters{}, newThrottle(0)}
		}
		if e.controls[f.To] == nil {
			c := newControl(e.clusters[f.To], config.Instance, e.log)
			e.controls[f.To] = c
			if e.spawn != nil {
				e.spawn(c.Run)
			}
		}
	}
	e.settings.Store(config)
	return nil
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
	obey := e.obey(ctx)
	defer obey()
	if config := e.config(); len(config.Flows) > 0 {
		info, err := json.Marshal(map[string]string{"instance": config.Instance, "version": e.version, "http": config.HTTP})
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
func (e *Engine) lifetime(whole, present context.Context, id string, deadline func() time.Time) error {
	over := make(chan struct{})
	stop := context.AfterFunc(present, func() {
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
	g, ctx := errgroup.WithContext(present)
	l := newLife(ctx, e, id, lease, over)
	e.mu.Lock()
	e.life = l
	e.mu.Unlock()
	defer func() {
		e.mu.Lock()
		e.life, e.members, e.owners = nil, nil, map[partitionID]string{}
		e.mu.Unlock()
	}()
	e.log.Info("member", slog.String("life", id))

	g.Go(l.Run)
	g.Go(func() error { return e.live.Members(ctx, e.noteMembers) })
	g.Go(func() error {
		return e.live.Lead(ctx, id, func(ctx context.Context, fence uint64) error { return e.lead(ctx, fence, l) })
	})
	g.Go(func() error { e.sample(ctx); return nil })
	if err := g.Wait(); err != nil && present.Err() == nil {
		return err
	}
	return nil
}

// duel notes that a life of this instance was fenced, and says whether that came
// to be a habit: without Consul there is nobody to say which of two processes is
// to go on. Once proves nothing: who lost the answers to its own requests has lost
// count of its epochs, and a new life is all it takes.
func (e *Engine) duel() bool {
	if e.config().Coordination.Consul != nil {
		return false
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	now := time.Now()
	e.fenced = append(slices.DeleteFunc(e.fenced, func(at time.Time) bool { return now.Sub(at) > duelWindow }), now)
	return len(e.fenced) >= duelRounds
}

const (
	duelWindow = 2 * time.Minute
	duelRounds = 4
)

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
	e.shareThrottles()
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
			e.describe(time.Now(), true)
		case <-ctx.Done():
			return
		}
	}
}

// watchClusters asks every cluster now and then who it is, for the status.
func (e *Engine) watchClusters(ctx context.Context) {
	var g sync.WaitGroup
	for _, c := range e.config().Clusters {
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
					s.ID, s.LastSeen = id, new(time.Now().UTC())
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

func (e *Engine) describe(now time.Time, brief bool) (Status, []flowReport) {
	config := e.config()
	e.mu.Lock()
	l := e.life
	out := Status{
		Instance: config.Instance, Version: e.version, Started: e.started,
		Leading: e.leading != nil, Term: e.term, Members: slices.Clone(e.members),
		Clusters: []ClusterStatus{}, Flows: []FlowStatus{},
	}
	for _, c := range config.Clusters {
		s := e.clustersSeen[c.Name]
		s.Name, s.Kind, s.Addresses = c.Name, "external", c.Addresses()
		if c.Embedded != nil {
			s.Kind = "embedded"
		}
		out.Clusters = append(out.Clusters, s)
	}
	owners, leading := e.owners, e.leading
	e.mu.Unlock()

	owner := func(p partitionID) string { return owners[p] }
	var reports []flowReport
	if l == nil {
		for _, f := range config.Flows {
			part := e.part(f.Name)
			s, topics := part.totals.describe(f)
			s.Error = "this instance is not a member"
			if c := config.Coordination.Consul; c != nil {
				s.Error += ": Consul at " + c.Address + " has not confirmed it; the log says why"
			}
			out.Flows = append(out.Flows, s)
			reports = append(reports, flowReport{s, topics, part.counters.doubled.Load()})
		}
		return out, reports
	}
	out.Life = l.id
	for _, f := range l.flows() {
		problem := func(string) string { return "" }
		if leading != nil {
			problem = leading.problems(f.cfg().Name)
		}
		s, topics := f.describe(now, l, owner, problem, brief)
		out.Flows = append(out.Flows, s)
		reports = append(reports, flowReport{s, topics, f.counters.doubled.Load()})
	}
	return out, reports
}

// obey follows the orders on every target until ctx ends; what it returns waits
// for the end.
func (e *Engine) obey(ctx context.Context) (wait func()) {
	var following sync.WaitGroup
	ctx, stop := context.WithCancel(ctx)
	e.mu.Lock()
	defer e.mu.Unlock()
	e.spawn = func(run func(context.Context)) { following.Go(func() { run(ctx) }) }
	for _, c := range e.controls {
		e.spawn(c.Run)
	}
	return func() {
		e.mu.Lock()
		e.spawn = nil
		e.mu.Unlock()
		stop()
		following.Wait()
	}
}

// shareThrottles gives this instance its part of what a flow may read: as many
// parts as there are instances that carry partitions of the flow.
func (e *Engine) shareThrottles() {
	config := e.config()
	e.mu.Lock()
	defer e.mu.Unlock()
	carriers := map[string]map[string]struct{}{}
	for p, owner := range e.owners {
		if carriers[p.Flow] == nil {
			carriers[p.Flow] = map[string]struct{}{}
		}
		carriers[p.Flow][owner] = struct{}{}
	}
	for _, f := range config.Flows {
		share := int64(0)
		if f.Throttle > 0 {
			share = max(1, f.Throttle/int64(max(1, len(carriers[f.Name]))))
		}
		e.parts[f.Name].throttle.set(share)
	}
}

// ownerOf is the life that mirrors a partition, empty while nobody does.
func (e *Engine) ownerOf(id partitionID) string {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.owners[id]
}

func (e *Engine) part(flow string) *lasting {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.parts[flow]
}

// Status is this instance's view at this moment.
func (e *Engine) Status() Status {
	s, _ := e.describe(time.Now(), false)
	if l := e.leads(); l != nil {
		s.Maps, s.Skipped = l.maps()
	}
	return s
}

// Ready says whether this instance is a member and has seen both clusters of
// every flow; without flows it is ready at once.
func (e *Engine) Ready() bool {
	if len(e.config().Flows) == 0 {
		return true
	}
	e.mu.Lock()
	l := e.life
	e.mu.Unlock()
	if l == nil {
		return false
	}
	flows := l.flows()
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
// not ok for an unknown flow. On an instance that does not lead it is nil.
func (e *Engine) Groups(flow string) (iter.Seq[checkpoint.GroupStatus], bool) {
	if e.config().Flow(flow) == nil {
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
	e.mu.Lock()
	defer e.mu.Unlock()
	for _, part := range e.parts {
		n += part.budget.inUse()
	}
	return n
}
