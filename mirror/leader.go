package mirror

import (
	"context"
	"fmt"
	"iter"
	"log/slog"
	"maps"
	"slices"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"kmirror/checkpoint"
	"kmirror/internal/kafka"
	"kmirror/topology"
)

// leader is one term: it keeps topics in step, places partitions, follows
// groups and writes heartbeats, for all flows. To leave it is to lose the role.
type leader struct {
	live  Live
	fence uint64
	log   *slog.Logger
	flows []*flow
	syncs map[string]*topicSync         // by flow
	group map[string]*checkpoint.Syncer // by flow; only where the flow tracks groups

	indexes     map[string]*checkpoint.Index        // by target cluster
	offsetSyncs map[string]*checkpoint.OffsetSyncer // by flow; only where they are written

	changed chan struct{} // capacity 1: members or worlds changed

	mu       sync.Mutex // guards the fields below
	members  []string
	held     map[string]assignment
	assigned map[string]assignment
}

// lead holds the term until ctx ends. A reload of mirror.yaml begins its work
// anew: the flows may be others by then.
func (e *Engine) lead(ctx context.Context, fence uint64, l *life) error {
	e.metrics.terms.Inc()
	e.log.Info("leading", slog.Uint64("term", fence))
	defer func() {
		e.mu.Lock()
		e.leading, e.term = nil, 0
		e.mu.Unlock()
	}()
	for again := true; again && ctx.Err() == nil; {
		e.mu.Lock()
		reloaded := e.reloaded
		e.mu.Unlock()
		work, stop := context.WithCancel(ctx)
		var watching sync.WaitGroup
		watching.Go(func() {
			select {
			case <-reloaded:
			case <-work.Done():
			}
			stop()
		})
		err := e.govern(work, fence, l.flows())
		stop()
		watching.Wait()
		select {
		case <-reloaded:
		default: // the term is over, or this or another instance begins a new one
			again = false
			if err != nil && ctx.Err() == nil {
				e.log.Error("the term ends", slog.Uint64("term", fence), slog.Any("error", err))
			}
		}
	}
	return nil
}

// govern does a leader's work for these flows until ctx ends.
func (e *Engine) govern(ctx context.Context, fence uint64, flows []*flow) error {
	l := &leader{
		live: e.live, fence: fence, log: e.log, flows: flows,
		syncs: map[string]*topicSync{}, group: map[string]*checkpoint.Syncer{}, indexes: map[string]*checkpoint.Index{},
		offsetSyncs: map[string]*checkpoint.OffsetSyncer{},
		changed:     make(chan struct{}, 1), held: map[string]assignment{}, assigned: map[string]assignment{},
	}
	indexes := map[*kafka.Cluster]*checkpoint.Index{}
	for _, f := range flows {
		cfg := f.cfg()
		l.syncs[cfg.Name] = newTopicSync(f)
		if indexes[f.target] == nil {
			indexes[f.target] = checkpoint.NewIndex(f.target, e.log)
		}
		l.indexes[cfg.To] = indexes[f.target]
	}
	for _, f := range flows {
		if s := syncer(f, flows, indexes); s != nil {
			l.group[f.cfg().Name] = s
		}
		if cluster := f.syncsCluster(); cluster != nil {
			l.offsetSyncs[f.cfg().Name] = checkpoint.NewOffsetSyncer(f.cfg(), indexes[f.target], cluster, f.log)
		}
	}
	e.mu.Lock()
	e.leading, e.term = l, fence
	e.mu.Unlock()

	g, ctx := errgroup.WithContext(ctx)
	ready := make(chan struct{})
	for _, f := range flows {
		g.Go(func() error { l.syncs[f.cfg().Name].Run(ctx); return nil })
		if s := l.group[f.cfg().Name]; s != nil {
			g.Go(func() error { return l.after(ctx, f, s.Run) })
		}
		if f.cfg().Heartbeats {
			g.Go(func() error { return l.after(ctx, f, checkpoint.NewHeartbeater(f.cfg(), f.target, f.log).Run) })
		}
		if s := l.offsetSyncs[f.cfg().Name]; s != nil {
			g.Go(func() error { return l.after(ctx, f, s.Run) })
		}
		g.Go(func() error { l.watch(ctx, f); return nil })
	}
	for target, index := range indexes {
		f := flows[slices.IndexFunc(flows, func(f *flow) bool { return f.target == target })]
		g.Go(func() error { return l.after(ctx, f, index.Run) })
	}
	g.Go(func() error {
		return l.live.Members(ctx, func(members, held map[string][]byte) error {
			l.noteMembers(members, held)
			select {
			case <-ready:
			default:
				close(ready)
			}
			return nil
		})
	})
	g.Go(func() error {
		select {
		case <-ready:
		case <-ctx.Done():
			return nil
		}
		return l.place(ctx)
	})
	return g.Wait()
}

// syncer makes what follows the groups of a flow; nil if nothing does: the flow
// does not sync groups, writes no checkpoints, and nobody carries groups back
// along it.
func syncer(f *flow, flows []*flow, indexes map[*kafka.Cluster]*checkpoint.Index) *checkpoint.Syncer {
	cfg := f.cfg()
	routes := checkpoint.Routes{Forward: checkpoint.Route{Flow: cfg, Maps: indexes[f.target]}}
	for _, other := range flows {
		if o := other.cfg(); o.From == cfg.To && o.To == cfg.From {
			routes.Opposite = checkpoint.Route{Flow: o, Maps: indexes[other.target]}
		}
	}
	if o := routes.Opposite.Flow; !cfg.Checkpoints && !cfg.GroupSync.Enabled && !cfg.GroupSync.Failback && (o == nil || !o.GroupSync.Enabled) {
		return nil
	}
	return checkpoint.NewSyncer(routes, f.source, f.target, f.log)
}

// after runs a part that needs the map topic, once it is there, again and again
// with back-off if it fails: a part of the term that fails does not end it.
func (l *leader) after(ctx context.Context, f *flow, run func(context.Context) error) error {
	if err := f.ready(ctx); err != nil {
		return nil //nolint:nilerr // the term ended first
	}
	retry := backoff{base: 200 * time.Millisecond, limit: 10 * time.Second}
	for ctx.Err() == nil {
		began := time.Now()
		if err := run(ctx); err != nil && ctx.Err() == nil {
			f.log.Warn("follow groups", slog.Any("error", err))
		}
		if time.Since(began) > time.Minute {
			retry.reset()
		}
		retry.sleep(ctx)
	}
	return nil
}

// syncsCluster is where the flow's offset syncs are written, nil for nowhere.
func (f *flow) syncsCluster() *kafka.Cluster {
	switch f.cfg().OffsetSyncs {
	case topology.OffsetSyncsSource:
		return f.source
	case topology.OffsetSyncsTarget:
		return f.target
	default:
		return nil
	}
}

// watch wakes the term when a flow's world has been looked at.
func (l *leader) watch(ctx context.Context, f *flow) {
	looked, stop := f.discovery.watch()
	defer stop()
	for {
		select {
		case <-looked:
			poke(l.changed)
		case <-ctx.Done():
			return
		}
	}
}

func (l *leader) noteMembers(members, held map[string][]byte) {
	now := map[string]assignment{}
	for id, value := range held {
		a, err := decodeAssignment(value)
		if err != nil {
			l.log.Warn("read what a member holds", slog.String("member", id), slog.Any("error", err))
			continue
		}
		now[id] = a
	}
	l.mu.Lock()
	l.members, l.held = slices.Sorted(maps.Keys(members)), now
	l.mu.Unlock()
	poke(l.changed)
}

// place places partitions until ctx ends. What is published already (by this
// term or those before it) is where it begins.
func (l *leader) place(ctx context.Context) error {
	published, err := l.live.Assignments(ctx)
	if err != nil {
		return fmt.Errorf("read the assignments: %w", err)
	}
	for id, value := range published {
		a, err := decodeAssignment(value)
		if err != nil {
			return fmt.Errorf("assignment of %s: %w", id, err)
		}
		l.assigned[id] = a
	}
	for {
		if err := l.round(ctx); err != nil {
			return err
		}
		select {
		case <-l.changed:
		case <-ctx.Done():
			return nil
		}
	}
}

// round publishes what follows from the world as it is now.
func (l *leader) round(ctx context.Context) error {
	l.mu.Lock()
	members, held := l.members, l.held
	l.mu.Unlock()
	partitions, complete := l.partitions()
	if !complete && len(partitions) == 0 {
		return nil
	}
	assigned := map[string]assignment{} // of the living
	current := map[partitionID]string{}
	for _, id := range members {
		a, ok := l.assigned[id]
		if !ok {
			continue
		}
		assigned[id] = a
		for p := range a.Partitions {
			current[p] = id
		}
	}
	granted := grant(members, place(members, partitions, current), assigned, held)
	paths := map[string]string{}
	for _, f := range l.flows {
		paths[f.cfg().Name] = dataPath(f.cfg())
	}
	for id, a := range assigned { // also whose partitions stay as they are
		if _, ok := granted[id]; !ok && !maps.Equal(a.Paths, paths) {
			granted[id] = assignment{Version: max(a.Version, held[id].Version) + 1, Partitions: a.Partitions}
		}
	}
	for id, a := range granted {
		a.Paths = paths
		if err := l.live.Publish(ctx, l.fence, id, a.encode()); err != nil {
			return fmt.Errorf("publish the assignment of %s: %w", id, err)
		}
		l.assigned[id] = a
		l.log.Info("assigned", slog.String("member", id), slog.Int("partitions", len(a.Partitions)), slog.Uint64("version", a.Version))
	}
	return nil
}

// partitions lists what there is to mirror: partitions that exist on both
// sides. A flow that was never seen keeps what it has, so that a cluster out of
// reach at the beginning of a term takes nothing away; complete is false then.
func (l *leader) partitions() (all []partitionID, complete bool) {
	complete = true
	for _, f := range l.flows {
		w := f.discovery.current.Load()
		if w == nil {
			complete = false
			for _, a := range l.assigned {
				for p := range a.Partitions {
					if p.Flow == f.cfg().Name {
						all = append(all, p)
					}
				}
			}
			continue
		}
		for _, pair := range w.topics {
			if pair.problem != "" || pair.target == nil {
				continue
			}
			for n := range min(len(pair.source.Partitions), len(pair.target.Partitions)) {
				all = append(all, partitionID{f.cfg().Name, pair.source.Name, int32(n)})
			}
		}
	}
	slices.SortFunc(all, partitionID.compare)
	return slices.Compact(all), complete
}

func (l *leader) problems(flow string) func(topic string) string {
	if s := l.syncs[flow]; s != nil {
		return s.problem
	}
	return func(string) string { return "" } // the flow is new, and this term has not begun again yet
}

func (l *leader) groups(flow string) iter.Seq[checkpoint.GroupStatus] {
	if s := l.group[flow]; s != nil {
		return s.Each()
	}
	return nil
}
