package mirror

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"kmirror/checkpoint"
	"kmirror/internal/kafka"
	"kmirror/internal/wire"
	"kmirror/topology"
)

// ruleWorld is the target, the source and the coordinator of the simulation
// without its chance: a test says what happens, step by step. Lives run the
// production code for everything that decides.
type ruleWorld struct {
	*simWorld
	ctx  context.Context
	stop context.CancelFunc
	all  sync.WaitGroup

	mu    sync.Mutex // guards what is below, and the logs and the coordinator
	alive map[string]struct{}
	late  bool // markers over the data wait for settle
}

// ruleSource is a source whose batches hold two records from each of the offsets.
func ruleSource(offsets ...int64) *simSource {
	s := &simSource{}
	for _, offset := range offsets {
		var one []wire.Record
		for o := offset; o < offset+2; o++ {
			one = append(one, wire.Record{Offset: o, Timestamp: 1_700_000_000_000 + o%1000, Value: fmt.Appendf(nil, "s%d", o)})
		}
		o := wire.Plain(wire.CodecNone)
		o.KeepOffsets = true
		b, err := wire.EncodeBatch(nil, one, o)
		if err != nil {
			panic(err)
		}
		s.batches, s.want, s.end = append(s.batches, b), append(s.want, one...), b.LastOffset()+1
	}
	return s
}

// playRule runs a script in a bubble, against either version of transactions.
func playRule(t *testing.T, source *simSource, edit func(*topology.Flow), script func(t *testing.T, w *ruleWorld)) {
	for name, v2 := range map[string]bool{"transactions 1": false, "transactions 2": true} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := &ruleWorld{
					simWorld: &simWorld{
						t: t, logs: map[kafka.TopicPartition]*simLog{}, log: slog.New(slog.DiscardHandler), flow: flowOf(t, edit),
						coordinator: newSimCoordinator(v2), sources: []*simSource{source}, stuck: -1,
					},
					alive: map[string]struct{}{},
				}
				w.ctx, w.stop = context.WithCancel(context.Background())
				w.addLog(kafka.TopicPartition{Topic: "t"})
				for p := range int32(checkpoint.MapPartitions) {
					w.addLog(kafka.TopicPartition{Topic: checkpoint.MapTopic, Partition: p})
				}
				script(t, w)
				w.stop()
				w.all.Wait()
			})
		})
	}
}

// settle writes the markers that are due.
func (w *ruleWorld) settle() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.late = false
	w.mark()
}

// mark is settle, but for those that are late. Called with mu held.
func (w *ruleWorld) mark() {
	for i := range slices.Backward(w.coordinator.due) {
		at := w.coordinator.due[i].at
		if w.late && at.Topic == "t" {
			continue
		}
		for range 2 { // appended, then replicated
			w.coordinator.write(i, w.logs[at], false)
			w.logs[at].replicate()
		}
	}
}

// land lets a batch arrive at the target.
func (w *ruleWorld) land(b wire.Batch) (int64, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	base, err := w.target(0).append(b)
	w.target(0).replicate()
	return base, err
}

// die takes a life off the living; what it sent goes on its way.
func (w *ruleWorld) die(l *ruleLife) {
	w.mu.Lock()
	defer w.mu.Unlock()
	delete(w.alive, l.name)
}

// doubled is how many records of the source stand in the target once more.
func (w *ruleWorld) doubled() (n int) {
	w.mu.Lock()
	defer w.mu.Unlock()
	seen := map[int64]bool{}
	for _, s := range w.standings(0) {
		if seen[s.source] {
			n++
		}
		seen[s.source] = true
	}
	return n
}

// wantAll checks that each record of the source stands in the target once.
func (w *ruleWorld) wantAll(t *testing.T) {
	t.Helper()
	w.mu.Lock()
	defer w.mu.Unlock()
	if what := w.judgeRecords(0); what != "" {
		t.Error(what)
	}
}

// wantHole checks that a script went wrong with its rule off.
func (w *ruleWorld) wantHole(t *testing.T) {
	t.Helper()
	if w.doubled() == 0 {
		t.Error("nothing stands twice: the script does not show the hole")
	}
}

// ruleTarget is what a life asks of the target. Rules are switched off by what
// stands before it.
type ruleTarget interface {
	fenceTarget
	LastSequences(ctx context.Context, topic string, partition int32) (map[kafka.Producer]int32, error)
	LeaderEpoch(ctx context.Context, topic string, partition int32) (int32, error)
	Read(ctx context.Context, topic string, partition int32, from int64, fn func(wire.Record) error) (int64, error)
}

// rulePort answers at once, but for a long poll.
type rulePort struct{ w *ruleWorld }

func (p rulePort) Fetch(_ context.Context, topic string, partition int32, offset int64, maxBytes int32, _ bool, maxWait time.Duration) (kafka.FetchResult, error) {
	ask := func() kafka.FetchResult {
		p.w.mu.Lock()
		defer p.w.mu.Unlock()
		return p.w.logs[kafka.TopicPartition{Topic: topic, Partition: partition}].fetch(offset, maxBytes)
	}
	res := ask()
	for began := time.Now(); len(res.Records) == 0 && res.Err == nil && time.Since(began) < maxWait; res = ask() {
		time.Sleep(10 * time.Millisecond)
	}
	return res, nil
}

func (p rulePort) ListOffset(ctx context.Context, topic string, partition int32, timestamp int64) (int64, error) {
	p.w.mu.Lock()
	defer p.w.mu.Unlock()
	return simReader{p.w.simWorld}.ListOffset(ctx, topic, partition, timestamp)
}

func (p rulePort) Read(ctx context.Context, topic string, partition int32, from int64, fn func(wire.Record) error) (int64, error) {
	p.w.mu.Lock()
	defer p.w.mu.Unlock()
	return simReader{p.w.simWorld}.Read(ctx, topic, partition, from, fn)
}

func (p rulePort) Produce(_ context.Context, topic string, partition int32, batch wire.Batch) (int64, error) {
	p.w.mu.Lock()
	defer p.w.mu.Unlock()
	log := p.w.logs[kafka.TopicPartition{Topic: topic, Partition: partition}]
	base, err := log.append(batch)
	log.replicate()
	return base, err
}

func (p rulePort) Append(context.Context, string, int32, []wire.Record) (int64, error) {
	return -1, errors.New("a fenced flow writes under its identity")
}

func (p rulePort) Transactions(context.Context) (bool, error) { return true, nil }

func (p rulePort) InitProducer(_ context.Context, id string, current kafka.Producer) (kafka.Producer, error) {
	p.w.mu.Lock()
	defer p.w.mu.Unlock()
	return p.w.coordinator.init(id, current)
}

func (p rulePort) AddPartitions(_ context.Context, id string, who kafka.Producer, partitions []kafka.TopicPartition) (map[kafka.TopicPartition]error, error) {
	p.w.mu.Lock()
	defer p.w.mu.Unlock()
	return nil, p.w.coordinator.add(id, who, partitions)
}

func (p rulePort) EndTransaction(_ context.Context, id string, who kafka.Producer, _ bool) (kafka.Producer, error) {
	p.w.mu.Lock()
	defer p.w.mu.Unlock()
	after, err := p.w.coordinator.end(id, who)
	p.w.mark()
	return after, err
}

func (p rulePort) LeaderEpoch(_ context.Context, topic string, partition int32) (int32, error) {
	p.w.mu.Lock()
	defer p.w.mu.Unlock()
	return p.w.logs[kafka.TopicPartition{Topic: topic, Partition: partition}].epoch, nil
}

func (p rulePort) LastSequences(context.Context, string, int32) (map[kafka.Producer]int32, error) {
	return nil, nil
}

// ruleSourcePort is the source.
type ruleSourcePort struct{ source *simSource }

func (p ruleSourcePort) Fetch(_ context.Context, _ string, _ int32, offset int64, maxBytes int32, _ bool, _ time.Duration) (kafka.FetchResult, error) {
	return p.source.fetch(offset, int(maxBytes)), nil
}

func (p ruleSourcePort) ListOffset(_ context.Context, _ string, _ int32, timestamp int64) (int64, error) {
	if timestamp == atLatest {
		return p.source.end, nil
	}
	return p.source.start, nil
}

// ruleLife is a life with one partition.
type ruleLife struct {
	w        *ruleWorld
	name     string
	id       partitionID
	key      checkpoint.Key
	fence    *fence
	ledger   *checkpoint.LedgerWriter
	takeover *takeover
	seen     witness
	lane     *lane
	greedy   bool // takes more than the lane wants
}

// live begins a life. allowed is its lease.
func (w *ruleWorld) live(name string, target ruleTarget, allowed func() error) *ruleLife {
	l := &ruleLife{
		w: w, name: name, id: partitionID{w.flow.Name, "s", 0},
		key: checkpoint.Key{Flow: w.flow.Name, Topic: "s", TopicID: [16]byte{1}},
	}
	w.mu.Lock()
	w.alive[name] = struct{}{}
	w.mu.Unlock()
	loader := newLoader(func(ctx context.Context, mapPartition int32, keys []checkpoint.Key) (map[checkpoint.Key]checkpoint.Loaded, error) {
		return checkpoint.LoadPartitions(ctx, target, mapPartition, keys)
	})
	x := newFence(w.flow, name, target, nil)
	x.load, x.allowed, x.journal, x.log = loader.get, allowed, w, w.log
	x.living = func(context.Context) (map[string]struct{}, error) {
		w.mu.Lock()
		defer w.mu.Unlock()
		all := map[string]struct{}{}
		for name := range w.alive {
			all[name] = struct{}{}
		}
		return all, nil
	}
	l.fence, l.ledger = x, checkpoint.NewLedgerWriter(x, w.log)
	w.all.Go(func() { _ = l.ledger.Run(w.ctx) })
	l.takeover = &takeover{
		cfg: func() *topology.Flow { return w.flow }, fence: x, source: ruleSourcePort{w.sources[0]}, target: target, load: loader.get, put: l.put,
		settle: func(context.Context, checkpoint.Key) error { return nil }, proof: newLoader(provenLedgers(target)).get, accepted: func(partitionID, string) bool { return false }, doubled: func(int64) {}, journal: w, log: w.log,
		start: func(context.Context, *topicPair, int32) (int64, error) { return w.sources[0].start, nil },
	}
	return l
}

func (l *ruleLife) put(ctx context.Context, mapPartition int32, records []wire.Record) error {
	done := make(chan error, 1)
	l.ledger.Put(mapPartition, records, func(err error) { done <- err })
	select {
	case err := <-done:
		return err
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// take takes the partition over.
func (l *ruleLife) take() error {
	pair := &topicPair{source: &kafka.Topic{Name: "s", ID: [16]byte{1}}, targetName: "t", target: &kafka.Topic{Name: "t", ID: [16]byte{2}}}
	b, err := l.takeover.run(l.w.ctx, l.id, l.key, pair, &l.seen)
	if err != nil {
		return err
	}
	l.lane = newLane(l.key, "t", [16]byte{2}, b.producer.ID, b.producer.Epoch, b.origin, func() ladderLimits { return ladderLimits{inflate: inflateLimit} })
	return nil
}

// mustTake is take, which has to succeed.
func (l *ruleLife) mustTake(t *testing.T) {
	t.Helper()
	if err := l.take(); err != nil {
		t.Fatalf("%s takes over: %v", l.name, err)
	}
}

// fetch queues the next batch of the source, its steps written; false at the end
// and where the lane wants none.
func (l *ruleLife) fetch(t *testing.T) bool {
	t.Helper()
	offset, appetite := l.lane.wants()
	s := l.w.sources[0]
	if offset >= s.end || appetite != hungry && !l.greedy {
		return false
	}
	c, err := climb(slices.Clone(s.fetch(offset, 1).Records), offset, nil, l.lane.limits())
	if err != nil {
		t.Fatal(err)
	}
	slab := newBudget(1 << 20).slab()
	slab.alloc(1)
	steps, gate := l.lane.take(offset, c, slab, s.end)
	slab.drop()
	if gate > 0 {
		anchor := checkpoint.Anchor{Key: l.key, ProducerID: l.lane.producer, Epoch: l.lane.epoch, Steps: steps}
		if err := l.put(l.w.ctx, l.key.MapPartition(), []wire.Record{checkpoint.EncodeAnchor(anchor)}); err != nil {
			t.Fatal(err)
		}
		l.lane.open(gate)
	}
	return true
}

// send is the next batch as it leaves.
func (l *ruleLife) send(t *testing.T) wire.Batch {
	t.Helper()
	if !l.fetch(t) {
		t.Fatalf("%s has nothing to send", l.name)
	}
	l.lane.attach(nil)
	e, ok, _ := l.lane.sendable(time.Now())
	if !ok {
		t.Fatalf("the lane of %s sends nothing", l.name)
	}
	return slices.Clone(e.batch)
}

// mirror sends up to n batches and takes the answers.
func (l *ruleLife) mirror(t *testing.T, n int) {
	t.Helper()
	for range n {
		if offset, appetite := l.lane.wants(); offset >= l.w.sources[0].end || appetite != hungry && !l.greedy {
			return
		}
		base, err := l.w.land(l.send(t))
		if err != nil {
			t.Fatalf("%s: %v", l.name, err)
		}
		if _, _, ok := l.lane.ack(base); !ok {
			t.Fatalf("%s was told that a batch stands at %d", l.name, base)
		}
		l.lane.recorded()
	}
}

// ruleLease is a lease that ends after d.
func ruleLease(d time.Duration) func() error {
	end := time.Now().Add(d)
	return func() error {
		if time.Now().Before(end) {
			return nil
		}
		return &leaseError{time.Since(end)}
	}
}

func endless() error { return nil }

// written is how many records stand in the target.
func (w *ruleWorld) written() int {
	w.mu.Lock()
	defer w.mu.Unlock()
	return len(w.standings(0))
}
