package mirror

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"

	"kmirror/checkpoint"
	"kmirror/internal/kafka"
	"kmirror/internal/wire"
)

// simRequest is a request on its way: to the target, and its answer back. Each
// has a connection of its own, so they overtake each other; batches of lanes do
// not, see simConn.
type simRequest struct {
	life  *simLife
	name  string // what it is, for an order that does not depend on goroutines
	carry func(*simRequest) (any, error)
	safe  bool // not to the target: it is neither lost nor repeated

	held     bool  // the process was stopped before it was sent
	orphan   bool  // nobody waits for the answer
	epoch    int32 // of the leader it was sent to
	base     int64 // where a batch was appended, -1 before
	answered bool
	result   any
	err      error
	done     chan struct{}

	mu   sync.Mutex
	gone bool // the caller has given up
}

// simNetwork is what is on its way.
type simNetwork struct {
	mu    sync.Mutex
	inbox []*simRequest // posted since the last collect

	pending []*simRequest // owned by the driver
}

func (n *simNetwork) post(r *simRequest) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.inbox = append(n.inbox, r)
}

// collect takes in what goroutines have posted, when all of them wait.
func (n *simNetwork) collect() {
	n.mu.Lock()
	defer n.mu.Unlock()
	slices.SortStableFunc(n.inbox, func(a, b *simRequest) int {
		return cmp.Or(cmp.Compare(a.life.serial, b.life.serial), cmp.Compare(a.name, b.name))
	})
	for _, r := range n.inbox {
		r.held = r.life.paused && !r.safe
	}
	n.pending = append(n.pending, n.inbox...)
	n.inbox = nil
	n.pending = slices.DeleteFunc(n.pending, func(r *simRequest) bool {
		r.mu.Lock()
		defer r.mu.Unlock()
		if r.gone && !r.orphan { // it is under way all the same, if it was sent
			r.orphan = true
		}
		return r.orphan && (r.answered || r.held || r.safe)
	})
}

var errSimDead = errors.New("this process does not live any more")

// call sends a request and waits for its answer.
func (l *simLife) call(ctx context.Context, safe bool, name string, carry func(*simRequest) (any, error)) (any, error) {
	if l.dead.Load() {
		return nil, errSimDead
	}
	r := &simRequest{life: l, name: name, carry: carry, safe: safe, base: -1, done: make(chan struct{})}
	l.world.net.post(r)
	select {
	case <-r.done:
		return r.result, r.err
	case <-ctx.Done():
		r.mu.Lock()
		r.gone = true
		r.mu.Unlock()
		return nil, context.Cause(ctx)
	case <-l.killed:
		r.mu.Lock()
		r.gone = true
		r.mu.Unlock()
		return nil, errSimDead
	}
}

// simPort is the target as one life sees it: what *kafka.Cluster is.
type simPort struct{ life *simLife }

func (p simPort) log(topic string, partition int32) *simLog {
	return p.life.world.logs[kafka.TopicPartition{Topic: topic, Partition: partition}]
}

// errSimAgain says that the client asks again by itself, as *kafka.Cluster does
// while a partition has no leader.
var errSimAgain = errors.New("again")

func (p simPort) Fetch(ctx context.Context, topic string, partition int32, offset int64, maxBytes int32, _ bool, maxWait time.Duration) (kafka.FetchResult, error) {
	log := p.log(topic, partition)
	rules := p.life.world.rules
	got, err := p.life.call(ctx, false, fmt.Sprintf("fetch %v %d", log.at, offset), func(*simRequest) (any, error) {
		if rules.blindMarker && maxWait == markerWait || rules.openLedger && maxWait == markerWait && topic == checkpoint.MapTopic {
			b := simMarker(kafka.Producer{ID: p.life.fencing.ID, Epoch: 32000})
			b.SetBaseOffset(offset)
			return kafka.FetchResult{Records: b, HighWatermark: offset + 1}, nil
		}
		if !log.leader {
			return nil, errSimAgain
		}
		res := log.fetch(offset, maxBytes)
		if maxWait > 0 && len(res.Records) == 0 && res.Err == nil {
			return nil, errSimAgain
		}
		if p.life.blind != nil && log.at == *p.life.blind {
			p.life.blind = nil
			res.Records, res.HighWatermark = nil, offset
		}
		return res, nil
	})
	if err != nil {
		return kafka.FetchResult{}, err
	}
	return got.(kafka.FetchResult), nil
}

func (p simPort) ListOffset(ctx context.Context, topic string, partition int32, timestamp int64) (int64, error) {
	log := p.log(topic, partition)
	got, err := p.life.call(ctx, false, fmt.Sprintf("list %v %d", log.at, timestamp), func(*simRequest) (any, error) {
		if !log.leader && !p.life.world.rules.fenceLeaderless {
			return nil, errSimAgain
		}
		if timestamp == atEarliest {
			return log.start, nil
		}
		if p.life.world.rules.staleMap && topic != checkpoint.MapTopic && p.life.mapped > 0 && p.life.mapped <= log.hw {
			p.life.blind = &log.at // the next read of this partition would be verify's
		}
		return log.hw, nil
	})
	if err != nil {
		return -1, err
	}
	return got.(int64), nil
}

func (p simPort) Read(ctx context.Context, topic string, partition int32, from int64, fn func(wire.Record) error) (int64, error) {
	log := p.log(topic, partition)
	got, err := p.life.call(ctx, false, fmt.Sprintf("read %v %d", log.at, from), func(*simRequest) (any, error) {
		if !log.leader {
			return nil, errSimAgain
		}
		return log.fetch(max(from, log.start), 1<<30), nil
	})
	if err != nil {
		return from, err
	}
	res := got.(kafka.FetchResult)
	for rest := res.Records; len(rest) > 0; {
		b, after, err := wire.NextBatch(rest)
		if err != nil {
			return from, err
		}
		rest = after
		if b.IsControl() {
			continue
		}
		recs, err := b.Records(inflateLimit)
		if err != nil {
			return from, err
		}
		for _, rec := range recs {
			if err := fn(rec); err != nil {
				return from, err
			}
		}
	}
	return res.HighWatermark, nil
}

func (p simPort) Produce(ctx context.Context, topic string, partition int32, batch wire.Batch) (int64, error) {
	log := p.log(topic, partition)
	batch = slices.Clone(batch)
	if p.life.world.rules.openLedger {
		batch.Rewrite(wire.HeaderEdit{ProducerID: -1, ProducerEpoch: -1, BaseSequence: -1})
	}
	got, err := p.life.call(ctx, false, fmt.Sprintf("produce %v %d", log.at, batch.BaseSequence()), func(r *simRequest) (any, error) {
		if !log.leader {
			return nil, errSimAgain
		}
		if r.epoch != log.epoch { // it was sent to a leader that is none any more: the client asks the new one
			r.epoch, r.base = log.epoch, -1
		}
		if r.base < 0 {
			var err error
			if r.base, err = p.life.world.appendReviving(log, batch, p.life.fence.id); err != nil {
				r.base = -1
				return int64(-1), err
			}
			if p.life.world.r.IntN(3) > 0 {
				log.replicate()
			}
		}
		if log.hw <= r.base {
			return nil, errSimAgain // it waits for the replicas
		}
		return r.base, nil
	})
	if err != nil {
		return -1, err
	}
	return got.(int64), nil
}

// Append is not what a fenced flow writes by.
func (p simPort) Append(context.Context, string, int32, []wire.Record) (int64, error) {
	return -1, errors.New("a fenced flow writes under its identity")
}

func (p simPort) Transactions(ctx context.Context) (bool, error) {
	_, err := p.life.call(ctx, false, "api versions", func(*simRequest) (any, error) { return true, nil })
	return err == nil, err
}

func (p simPort) InitProducer(ctx context.Context, id string, current kafka.Producer) (kafka.Producer, error) {
	w := p.life.world
	if w.rules.unconditional {
		current = kafka.NoProducer
	}
	got, err := p.life.call(ctx, false, fmt.Sprintf("init %s %v", id, current), func(*simRequest) (any, error) {
		return w.coordinator.init(id, current)
	})
	if err != nil {
		return kafka.NoProducer, err
	}
	p.life.fencing = got.(kafka.Producer)
	return got.(kafka.Producer), nil
}

func (p simPort) AddPartitions(ctx context.Context, id string, who kafka.Producer, partitions []kafka.TopicPartition) (map[kafka.TopicPartition]error, error) {
	w := p.life.world
	partitions = slices.Clone(partitions)
	_, err := p.life.call(ctx, false, fmt.Sprintf("add %s %v %v", id, who, partitions[0]), func(*simRequest) (any, error) {
		if w.rules.openLedger && partitions[0].Topic == checkpoint.MapTopic {
			return nil, nil
		}
		return nil, w.coordinator.add(id, who, partitions)
	})
	return nil, err
}

func (p simPort) EndTransaction(ctx context.Context, id string, who kafka.Producer, _ bool) (kafka.Producer, error) {
	w := p.life.world
	got, err := p.life.call(ctx, false, fmt.Sprintf("end %s %v", id, who), func(*simRequest) (any, error) {
		if t := w.coordinator.txns[id]; w.rules.openLedger && t != nil && t.status == simEmpty {
			return who, nil
		}
		return w.coordinator.end(id, who)
	})
	if err != nil {
		return kafka.NoProducer, err
	}
	return got.(kafka.Producer), nil
}

func (p simPort) LastSequences(ctx context.Context, topic string, partition int32) (map[kafka.Producer]int32, error) {
	log := p.log(topic, partition)
	got, err := p.life.call(ctx, false, fmt.Sprintf("producers %v", log.at), func(*simRequest) (any, error) {
		if !log.leader {
			return nil, errSimAgain
		}
		found := map[kafka.Producer]int32{}
		for id, s := range log.producers {
			sequence := int32(-1)
			if n := len(s.last); n > 0 {
				sequence = s.last[n-1].last
			}
			found[kafka.Producer{ID: id, Epoch: s.epoch}] = sequence
		}
		return found, nil
	})
	if err != nil {
		return nil, err
	}
	return got.(map[kafka.Producer]int32), nil
}

func (p simPort) LeaderEpoch(ctx context.Context, topic string, partition int32) (int32, error) {
	log := p.log(topic, partition)
	got, err := p.life.call(ctx, false, fmt.Sprintf("epoch %v", log.at), func(*simRequest) (any, error) {
		if !log.leader {
			return nil, errSimAgain
		}
		return log.epoch, nil
	})
	if err != nil {
		return -1, err
	}
	return got.(int32), nil
}

// simSourcePort is the source as one life sees it.
type simSourcePort struct{ life *simLife }

func (p simSourcePort) Fetch(ctx context.Context, _ string, partition int32, offset int64, maxBytes int32, _ bool, _ time.Duration) (kafka.FetchResult, error) {
	got, err := p.life.call(ctx, false, fmt.Sprintf("source fetch %d %d", partition, offset), func(*simRequest) (any, error) {
		return p.life.world.sources[partition].fetch(offset, int(maxBytes)), nil
	})
	if err != nil {
		return kafka.FetchResult{}, err
	}
	return got.(kafka.FetchResult), nil
}

func (p simSourcePort) ListOffset(ctx context.Context, _ string, partition int32, timestamp int64) (int64, error) {
	got, err := p.life.call(ctx, false, fmt.Sprintf("source list %d %d", partition, timestamp), func(*simRequest) (any, error) {
		if s := p.life.world.sources[partition]; timestamp == atLatest {
			return s.end, nil
		} else {
			return s.start, nil
		}
	})
	if err != nil {
		return -1, err
	}
	return got.(int64), nil
}

// deliver brings one request a step further: to the target, with its effect, or
// its answer home. Connections break before and after; what is under way then is
// sent again by the client, and may arrive twice.
func (w *simWorld) deliver(i int, calm bool) {
	r := w.net.pending[i]
	drop := func() { w.net.pending = slices.Delete(w.net.pending, i, i+1) }
	if !r.answered {
		n := w.r.IntN(100)
		if calm || r.safe {
			n = 99
		}
		switch {
		case n < 3 && r.orphan: // the broker threw away what came over a broken connection
			drop()
			return
		case n < 3: // the connection broke before it arrived; the client asks again
			w.trace("lost   ", r)
			return
		case n < 6 && !r.orphan: // the connection broke; it arrives later, and the client asks again now
			w.trace("doubled", r)
			w.net.pending = append(w.net.pending, &simRequest{life: r.life, name: r.name, carry: r.carry, orphan: true, base: -1, done: make(chan struct{})})
		}
		result, err := r.carry(r)
		if errors.Is(err, errSimAgain) {
			w.idle++
			return
		}
		w.idle = 0
		w.trace("carried", r)
		if r.orphan {
			drop()
			return
		}
		if n := w.r.IntN(100); n < 4 && !calm && !r.safe { // the answer is lost: the client asks again
			w.trace("unheard", r)
			r.base = -1
			return
		}
		if err == nil && w.r.IntN(100) < 2 && !calm && !r.safe {
			err = &wire.ConnError{Addr: "broker", Err: errors.New("reset")}
		}
		r.answered, r.result, r.err = true, result, err
		return
	}
	w.trace("answer ", r)
	drop()
	close(r.done)
}

// ready lists the requests that can get further.
func (w *simWorld) ready() (at []int) {
	for i, r := range w.net.pending {
		switch {
		case r.held:
		case r.answered && r.life.paused:
		case r.safe && r.life.paused:
		default:
			at = append(at, i)
		}
	}
	return at
}

// simConn is the connection that the batches of one partition leave by: the
// target takes them in order, one at a time, and answers in order.
type simConn struct {
	life   *simLife
	queue  []*simFlying
	broken bool
}

// simFlying is a batch on its way.
type simFlying struct {
	at      *appending
	batch   wire.Batch
	log     *simLog
	held    bool // the process was stopped before it was sent
	deposed bool // it was sent to a leader that is none any more
	taken   bool
	base    int64
	replied bool
	err     error
}

// take lets the target work on the first request that it has not answered.
func (c *simConn) take(w *simWorld, calm bool) {
	for i, f := range c.queue {
		if f.replied {
			continue
		}
		if f.held || !f.log.leader && !f.deposed {
			return
		}
		n := w.r.IntN(40)
		if calm {
			n = 99
		}
		switch {
		case f.deposed:
			f.replied, f.err = true, kerr.NotLeaderForPartition
		case !f.taken && n == 0:
			f.replied, f.err = true, kerr.NotEnoughReplicas
		case !f.taken:
			f.taken = true
			if f.base, f.err = w.appendReviving(f.log, f.batch, ""); f.err != nil {
				f.replied = true
			}
			w.tracef("data    %s %s seq %d x%d epoch %d/%d -> %d %v", f.log.at, c.life.name, f.batch.BaseSequence(), f.batch.NumRecords(), f.batch.ProducerID(), f.batch.ProducerEpoch(), f.base, f.err)
		case n == 1:
			f.replied, f.err = true, kerr.NotEnoughReplicasAfterAppend
		case f.log.hw > f.base:
			f.replied = true
		}
		if f.replied && c.broken {
			c.queue = slices.Delete(c.queue, i, i+1)
		}
		return
	}
}
