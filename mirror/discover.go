package mirror

import (
	"cmp"
	"context"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"kmirror/checkpoint"
	"kmirror/internal/kafka"
	"kmirror/topology"
)

// The metadata of both clusters is read every half second, or so seldom that
// it takes a twentieth of the time, but at least every lookEvery: new topics and
// partitions are seen within it.
const (
	lookOften = 500 * time.Millisecond
	lookEvery = 2 * time.Second
)

// world is what one look at both clusters of a flow showed. Immutable.
type world struct {
	sourceID, targetID string
	brokers            int          // of the target
	ledger             *kafka.Topic // the offset map's topic on the target; nil: not there
	sourceMapped       bool         // the source has one too: something mirrors into it
	topics             []*topicPair
	byName             map[string]*topicPair // by source name
}

// topicPair is a source topic that the flow selects, and its mirror.
type topicPair struct {
	source     *kafka.Topic
	targetName string
	target     *kafka.Topic // nil: not there
	problem    string       // why it cannot be mirrored; "" when it can
}

// look pairs the topics of a flow.
func look(flow *topology.Flow, source, target *kafka.Metadata) *world {
	w := &world{
		sourceID: source.ClusterID, targetID: target.ClusterID,
		brokers: len(target.Brokers), byName: map[string]*topicPair{}, ledger: target.Topics[checkpoint.MapTopic],
		sourceMapped: source.Topics[checkpoint.MapTopic] != nil,
	}
	for name, topic := range source.Topics {
		if topic.Internal || !flow.Selects(name) {
			continue
		}
		pair := &topicPair{source: topic, targetName: flow.TargetTopic(name)}
		if t := target.Topics[pair.targetName]; t != nil && t.Err == nil {
			pair.target = t
		}
		switch {
		case topic.Err != nil:
			pair.problem = fmt.Sprintf("source topic: %v", topic.Err)
		case len(pair.targetName) > topology.MaxTopicName:
			pair.problem = fmt.Sprintf("its name on the target, %q, has %d characters and Kafka takes %d: exclude it (exclude_topics) or use a shorter cluster name or naming: identity",
				pair.targetName, len(pair.targetName), topology.MaxTopicName)
		}
		w.topics = append(w.topics, pair)
		w.byName[name] = pair
	}
	slices.SortFunc(w.topics, func(a, b *topicPair) int { return cmp.Compare(a.source.Name, b.source.Name) })
	return w
}

// partition returns the leaders of one partition on both sides, or why it
// cannot be mirrored at present.
func (p *topicPair) partition(n int32) (source, target kafka.Partition, err error) {
	switch {
	case p.problem != "":
		return source, target, &waitError{p.problem}
	case int(n) >= len(p.source.Partitions):
		return source, target, &waitError{fmt.Sprintf("source topic %s has no partition %d", p.source.Name, n)}
	case p.target == nil:
		return source, target, &waitError{fmt.Sprintf("target topic %s is not there yet", p.targetName)}
	case int(n) >= len(p.target.Partitions):
		return source, target, &waitError{fmt.Sprintf("target topic %s has no partition %d yet", p.targetName, n)}
	}
	source, target = p.source.Partitions[n], p.target.Partitions[n]
	switch {
	case source.Leader < 0:
		return source, target, &waitError{fmt.Sprintf("source partition %s/%d has no leader", p.source.Name, n)}
	case target.Leader < 0:
		return source, target, &waitError{fmt.Sprintf("target partition %s/%d has no leader", p.targetName, n)}
	}
	return source, target, nil
}

// ledgerEpoch is the leader epoch of a partition of the offset map's topic; -1 unknown.
func (w *world) ledgerEpoch(mapPartition int32) int32 {
	if w == nil || w.ledger == nil || int(mapPartition) >= len(w.ledger.Partitions) || w.ledger.Partitions[mapPartition].Leader < 0 {
		return -1
	}
	return w.ledger.Partitions[mapPartition].LeaderEpoch
}

// waitError is a state of the world that may pass.
type waitError struct{ why string }

func (e *waitError) Error() string { return e.why }

// discovery looks at both clusters of a flow again and again.
type discovery struct {
	flow           func() *topology.Flow // as mirror.yaml has it now
	source, target *kafka.Cluster
	log            *slog.Logger

	current atomic.Pointer[world] // nil before the first look
	again   chan struct{}         // capacity 1: look now
	state   linkState

	first *world // of the first look; set before current, never changed

	mu       sync.Mutex // guards watchers
	watchers map[chan struct{}]struct{}
}

func newDiscovery(flow func() *topology.Flow, source, target *kafka.Cluster, log *slog.Logger) *discovery {
	return &discovery{
		flow: flow, source: source, target: target, log: log,
		again: make(chan struct{}, 1), watchers: map[chan struct{}]struct{}{},
	}
}

// Run looks until ctx ends: every lookEvery, and soon after being asked to.
func (d *discovery) Run(ctx context.Context) {
	retry := backoff{base: 100 * time.Millisecond, limit: lookEvery}
	for ctx.Err() == nil {
		started := time.Now()
		wait := lookEvery
		w, err := d.look(ctx)
		took := time.Since(started)
		switch {
		case ctx.Err() != nil:
			return
		case err != nil:
			if d.state.get() == "" {
				d.log.Warn("look at the clusters", slog.Any("error", err))
			}
			d.state.set(err.Error())
			wait = retry.next()
		case w.sourceID != "" && w.sourceID == w.targetID:
			why := fmt.Sprintf("%s and %s are one cluster (id %s): a flow needs two; correct the addresses in mirror.yaml", d.flow().From, d.flow().To, w.sourceID)
			if d.state.get() != why {
				d.log.Error("look at the clusters", slog.String("error", why))
			}
			d.state.set(why)
		default:
			wait = min(max(lookOften, 20*took), lookEvery)
			retry.reset()
			d.state.set("")
			if d.first == nil {
				d.first = w
			}
			d.current.Store(w)
			d.tell()
		}
		timer := time.NewTimer(wait)
		select {
		case <-ctx.Done():
			timer.Stop()
			return
		case <-timer.C:
		case <-d.again: // not more than ten looks a second
			timer.Stop()
			if rest := 100*time.Millisecond - time.Since(started); rest > 0 {
				pause := time.NewTimer(rest)
				select {
				case <-pause.C:
				case <-ctx.Done():
				}
				pause.Stop()
			}
		}
	}
}

func (d *discovery) look(ctx context.Context) (*world, error) {
	ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	source, err := d.source.Metadata(ctx)
	if err != nil {
		return nil, fmt.Errorf("source %s: %w", d.flow().From, err)
	}
	target, err := d.target.Metadata(ctx)
	if err != nil {
		return nil, fmt.Errorf("target %s: %w", d.flow().To, err)
	}
	return look(d.flow(), source, target), nil
}

// grown says that a partition came after the first look: everything in it was
// written while the flow ran. It is asked only after a look.
func (d *discovery) grown(pair *topicPair, partition int32) bool {
	before := d.first.byName[pair.source.Name]
	return before == nil || before.source.ID != pair.source.ID || int(partition) >= len(before.source.Partitions)
}

// refresh asks for a look soon.
func (d *discovery) refresh() { poke(d.again) }

// watch returns a channel that is signalled after each look, and its end.
func (d *discovery) watch() (<-chan struct{}, func()) {
	c := make(chan struct{}, 1)
	d.mu.Lock()
	d.watchers[c] = struct{}{}
	d.mu.Unlock()
	return c, func() {
		d.mu.Lock()
		delete(d.watchers, c)
		d.mu.Unlock()
	}
}

func (d *discovery) tell() {
	d.mu.Lock()
	defer d.mu.Unlock()
	for c := range d.watchers {
		poke(c)
	}
}

// pair waits until a partition of a source topic can be mirrored. While it
// waits, waiting is told why.
func (d *discovery) pair(ctx context.Context, topic string, partition int32, waiting func(string)) (*topicPair, error) {
	changed, stop := d.watch()
	defer stop()
	for {
		why := d.state.get()
		if w := d.current.Load(); w != nil && why == "" {
			pair := w.byName[topic]
			if pair == nil {
				why = fmt.Sprintf("source topic %s is not there", topic)
			} else if _, _, err := pair.partition(partition); err != nil {
				why = err.Error()
			} else {
				return pair, nil
			}
		}
		waiting(why)
		select {
		case <-changed:
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
}
