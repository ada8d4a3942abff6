package mirror

import (
	"context"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"sync"
	"time"

	"kmirror/checkpoint"
	"kmirror/internal/wire"
	"kmirror/topology"
)

// origins tells whether a batch of a flow's source is to be left out, because
// another flow of the circle brought it there: by its producer id. Every flow
// writes down each of its producer ids on the cluster that it writes to, and sends
// nothing under it before that is acknowledged (see fence.makeKnown). So whoever
// has seen a batch, and then reads what is written down up to the high watermark of
// that moment, knows for certain; and what he knows of an id holds for ever.
//
// The ladder asks once per batch, and allocates nothing. What is not known yet
// stays at the source: the lane takes nothing in until Run has found it out.
type origins struct {
	rule     checkpoint.OriginRule
	known    *checkpoint.Provenances // owned by Run
	ensure   func(ctx context.Context) error
	clusters func() map[string]string // ids of the clusters, by name, as far as they have been seen
	log      *slog.Logger

	prepared chan struct{} // closed when the source has a topic in which ids can stand
	wake     chan struct{} // capacity 1: somebody asked

	mu       sync.RWMutex    // guards the fields below; taken before a lane's
	verdicts map[int64]bool  // true: foreign
	target   string          // the cluster id that they hold for
	waiting  map[*lane]int64 // the id that a lane waits for
	asked    map[int64]struct{}
	trouble  string // why nothing can be found out
}

// mostVerdicts bounds the memory for producers of the source's own, who come and go.
const mostVerdicts = 1 << 17

// originsPatience is how long a partition waits before it says what for.
const originsPatience = 5 * time.Second

func newOrigins(rule checkpoint.OriginRule, from checkpoint.Reader, ensure func(context.Context) error, clusters func() map[string]string, log *slog.Logger) *origins {
	return &origins{
		rule: rule, known: checkpoint.NewProvenances(from), ensure: ensure, clusters: clusters, log: log,
		prepared: make(chan struct{}), wake: make(chan struct{}, 1), verdicts: map[int64]bool{}, waiting: map[*lane]int64{}, asked: map[int64]struct{}{},
	}
}

// foreign says whether what bears a producer id was brought to the source by
// another flow of the circle.
func (o *origins) foreign(producerID int64) (foreign, known bool) {
	o.mu.RLock()
	foreign, known = o.verdicts[producerID]
	o.mu.RUnlock()
	return foreign, known
}

// ask wants to know about producer ids, of which the lane waits for the first: it
// takes nothing in until that is known.
func (o *origins) ask(l *lane, ids []int64) {
	o.mu.Lock()
	l.mu.Lock()
	l.unsure = true
	l.mu.Unlock()
	o.waiting[l] = ids[0]
	for i, id := range ids {
		if i == 0 || len(o.asked) < mostVerdicts {
			o.asked[id] = struct{}{}
		}
	}
	o.mu.Unlock()
	poke(o.wake)
}

// ready waits until something can be found out at all. A target that has become
// another cluster makes all verdicts void. It is for a nil *origins too.
func (o *origins) ready(ctx context.Context) error {
	if o == nil {
		return nil
	}
	patience := time.NewTimer(originsPatience)
	defer patience.Stop()
	select {
	case <-o.prepared:
	case <-patience.C:
		o.mu.RLock()
		defer o.mu.RUnlock()
		return &waitError{fmt.Sprintf("the flow is in a circle, and whose records are whose stands in %s of its source: %s", checkpoint.MapTopic, o.trouble)}
	case <-ctx.Done():
		return ctx.Err()
	}
	now := o.clusters()[o.rule.Target]
	o.mu.Lock()
	defer o.mu.Unlock()
	if now != "" && now != o.target {
		clear(o.verdicts)
		o.target = now
	}
	return nil
}

// Run finds out what is asked until ctx ends.
func (o *origins) Run(ctx context.Context) {
	retry := backoff{base: 50 * time.Millisecond, limit: 5 * time.Second}
	for !o.attempt(ctx, o.ensure) {
		if ctx.Err() != nil {
			return
		}
		retry.sleep(ctx)
	}
	close(o.prepared)
	retry.reset()
	for {
		select {
		case <-o.wake:
		case <-ctx.Done():
			return
		}
		for !o.attempt(ctx, o.find) {
			if ctx.Err() != nil {
				return
			}
			retry.sleep(ctx)
		}
		retry.reset()
	}
}

// attempt does a step and keeps why it failed.
func (o *origins) attempt(ctx context.Context, step func(context.Context) error) bool {
	err := step(ctx)
	if ctx.Err() != nil {
		return false
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	before := o.trouble
	o.trouble = ""
	if err == nil {
		return true
	}
	if o.trouble = err.Error(); before == "" {
		o.log.Warn("find out which flow brought which records to the source; trying again", slog.Any("error", err))
	}
	maps.DeleteFunc(o.waiting, func(l *lane, _ int64) bool { return l.over() })
	for l := range o.waiting {
		l.unread("find out who wrote the next batch: " + o.trouble)
	}
	return false
}

// find answers what was asked before it was called.
func (o *origins) find(ctx context.Context) error {
	o.mu.RLock()
	asked := slices.Collect(maps.Keys(o.asked))
	o.mu.RUnlock()
	if len(asked) == 0 {
		return nil
	}
	if err := o.known.Update(ctx); err != nil {
		return err
	}
	ids := o.clusters()
	found := make(map[int64]bool, len(asked))
	var doubt error
	for _, id := range asked {
		p, ok := o.known.Of(id)
		if !ok {
			found[id] = false
			continue
		}
		foreign, err := o.rule.Foreign(p, ids)
		if err != nil {
			doubt = err
			continue
		}
		found[id] = foreign
	}
	o.settle(found, ids[o.rule.Target])
	return doubt
}

// settle keeps what was found and lets the lanes go on that waited for it.
func (o *origins) settle(found map[int64]bool, target string) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if len(o.verdicts) > mostVerdicts || target != "" && target != o.target {
		clear(o.verdicts)
		o.target = target
	}
	for id, foreign := range found {
		o.verdicts[id] = foreign
		delete(o.asked, id)
	}
	for l, id := range o.waiting {
		if _, ok := o.verdicts[id]; ok {
			delete(o.waiting, l)
			l.sure()
		}
	}
}

// over says whether the lane takes in no more for good.
func (l *lane) over() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.closed
}

// sure lets the lane take in more.
func (l *lane) sure() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.unsure = false
	l.beckon()
}

// newOrigins is for a flow in a circle.
func (l *life) newOrigins(f *flow) *origins {
	e, cfg := l.engine, f.cfg()
	rule := checkpoint.NewOriginRule(cfg, func(name string) *topology.Flow { return e.config().Flow(name) })
	clusters := func() map[string]string {
		ids := map[string]string{}
		e.mu.Lock()
		for name, s := range e.clustersSeen {
			ids[name] = s.ID
		}
		e.mu.Unlock()
		if w := f.discovery.current.Load(); w != nil {
			ids[cfg.From], ids[cfg.To] = w.sourceID, w.targetID
		}
		return ids
	}
	ensure := func(ctx context.Context) error {
		return f.source.EnsureInternalTopic(ctx, checkpoint.MapTopic, checkpoint.MapPartitions, checkpoint.MapTopicConfigs())
	}
	return newOrigins(rule, f.source, ensure, clusters, f.log)
}

// declare writes down, where it will stand, that a producer id is this flow's.
func (f *flow) declare(ctx context.Context, producerID int64, source string) error {
	cfg := f.cfg()
	p := checkpoint.Provenance{
		Flow: cfg.Name, ProducerID: producerID, Source: source, Target: f.discovery.current.Load().targetID,
		KeepsNames: cfg.Naming == topology.Identity, TimeMillis: time.Now().UnixMilli(),
	}
	return f.put(ctx, p.MapPartition(), []wire.Record{checkpoint.EncodeProvenance(p)})
}
