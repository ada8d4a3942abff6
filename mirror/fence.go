package mirror

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"

	"kmirror/checkpoint"
	"kmirror/internal/kafka"
	"kmirror/internal/wire"
	"kmirror/topology"
)

// fence is a flow's right to write, in one life of one instance: the identity
// under which it writes, and the means to end the identities of those who wrote
// before it. What it promises:
//
//   - What a partition's former owners still have under way can no longer land
//     once take has returned: the position may then be read off the target.
//   - The same holds for this life once another has taken a partition over: the
//     target refuses what it sends, whether it has noticed or not.
//
// The identity is a transactional id of this life's own, never used for a
// transaction with data: batches are plain idempotent ones, so that nothing is
// ever held back from readers. To end an identity over some partitions is to
// write an empty aborted transaction under its transactional id: its marker bears
// a greater epoch, and from then on these partitions refuse the smaller ones.
//
// Who has to be ended is read off the target too, in the offset map's topic:
//
//  1. A life writes down its identity (checkpoint.Writer) before anything else,
//     and then asks whether the live world still counts it among the living.
//  2. It writes down that it owns a partition (checkpoint.Owner) before its first
//     batch, and takes that back when it has let go in order: when all it sent
//     has been acknowledged.
//  3. Whoever takes a partition over, assigned by the live world, reads the
//     identities, and then who lives. It ends those of the dead over the offset
//     map's topic first: what they own can no longer grow. Then it reads the
//     owners, and ends each over the partition. When the markers have been seen,
//     ledger, map and tail are final.
//
// A record of step 1 or 2 that is still under way at step 3 does no harm: of
// step 1, because its writer, when it gets there, finds itself not among the
// living; of step 2, because the marker comes first and it is refused.
//
// Each change of epoch of this life's own is preceded by such a marker too,
// unless all that was sent has been acknowledged: what an earlier epoch still has
// under way must not land beside its repetition.
//
// A target without transactions gets detection instead: epochs of a producer id
// without a name, and a look at what arrived between reading the tail and the
// first acknowledgement.
type fence struct {
	flow    *topology.Flow
	life    string
	id      string // transactional id, of this fence alone
	target  fenceTarget
	load    func(ctx context.Context, key checkpoint.Key) (checkpoint.Loaded, error)
	living  func(ctx context.Context) (map[string]struct{}, error)
	allowed func() error // nil while the lease holds
	journal Journal
	log     *slog.Logger
	plain   *producers // of a target without transactions

	fatal chan error    // capacity 1: why this life may not write any more
	once  sync.Once     // closes gone
	gone  chan struct{} // closed when it may not

	// declare writes down that a producer id is this flow's, which reads from a
	// cluster of that id, and answers when it is certain. Before that no batch bears it.
	declare   func(ctx context.Context, producerID int64, source string) error
	source    func() string    // the id of the cluster that is read from now
	declaring chan struct{}    // capacity 1: whoever filled it owns declared
	declared  map[int64]string // by producer id, the source cluster

	owning func(ctx context.Context) (map[string]int, error) // how many partitions each transactional id is written down for
	deaths chan struct{}                                     // capacity 1: somebody was sealed

	mode atomic.Int32 // a fenceMode

	asking chan struct{}            // capacity 1: whoever filled it owns the fields below
	now    kafka.Producer           // the newest epoch
	ending bool                     // a transaction under our own identity is under way
	used   map[partitionID]int16    // the newest epoch that was written under
	writer *kafka.Writer            // of what goes to the offset map's topic
	plainW checkpoint.Appender      // the same without transactions
	owned  map[partitionID]struct{} // perhaps written down, and not taken back
	doubts map[partitionID]struct{} // owned, and not all that was sent was acknowledged
	queues map[string]*fenceQueue   // by transactional id
	sealed map[string]struct{}      // dead writers that were ended over the offset map's topic
	lapsed map[string]struct{}      // dead writers that can never be ended: the target forgot their id

	passes  sync.Mutex // guards the field below
	pending *admission // the next pass, not yet begun
	running bool
}

// fenceTarget is all that fencing asks of a target; *kafka.Cluster has it.
type fenceTarget interface {
	partitionReader
	kafka.Sender
	checkpoint.Appender
	Transactions(ctx context.Context) (bool, error)
	InitProducer(ctx context.Context, transactionalID string, current kafka.Producer) (kafka.Producer, error)
	AddPartitions(ctx context.Context, transactionalID string, who kafka.Producer, partitions []kafka.TopicPartition) (map[kafka.TopicPartition]error, error)
	EndTransaction(ctx context.Context, transactionalID string, who kafka.Producer, commit bool) (kafka.Producer, error)
}

// fenceMode is what a target makes possible.
type fenceMode int8

const (
	fenceUnknown fenceMode = iota // not asked yet
	fenceFull                     // dead owners are ended
	fenceDetect                   // what they still land is detected
)

func (m fenceMode) String() string {
	switch m {
	case fenceUnknown:
	case fenceFull:
		return "fenced"
	case fenceDetect:
		return "detection"
	}
	return ""
}

// lastEpoch is the one after which a life takes another identity: the last
// epochs of a producer id belong to the coordinator, and after them the
// transactional id gets another producer id, with which nobody is fenced.
const lastEpoch = 30_000

// newFence makes the fence of a flow that begins in a life. A flow may begin more
// than once in one, when mirror.yaml changes.
func newFence(flow *topology.Flow, life string, target fenceTarget, plain *producers) *fence {
	return &fence{
		flow: flow, life: life, id: fmt.Sprintf("kmirror.%s.%s.%s", flow.Name, life, rand.Text()[:8]), target: target, plain: plain,
		fatal: make(chan error, 1), gone: make(chan struct{}), asking: make(chan struct{}, 1), deaths: make(chan struct{}, 1), now: kafka.NoProducer,
		declare: func(context.Context, int64, string) error { return nil }, source: func() string { return "" },
		declaring: make(chan struct{}, 1), declared: map[int64]string{},
		used: map[partitionID]int16{}, owned: map[partitionID]struct{}{}, doubts: map[partitionID]struct{}{},
		queues: map[string]*fenceQueue{}, sealed: map[string]struct{}{}, lapsed: map[string]struct{}{},
	}
}

// lock waits for its turn at the fields that asking guards.
func (x *fence) lock(ctx context.Context) error {
	select {
	case x.asking <- struct{}{}:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

func (x *fence) unlock() { <-x.asking }

func (x *fence) modeNow() fenceMode { return fenceMode(x.mode.Load()) }

// fail ends the life, and says so to whoever asked.
func (x *fence) fail(err error) error {
	x.once.Do(func() {
		x.fatal <- err
		close(x.gone)
	})
	return err
}

// open takes the identity and writes it down, once.
func (x *fence) open(ctx context.Context) error {
	if err := x.lock(ctx); err != nil {
		return err
	}
	defer x.unlock()
	if x.modeNow() == fenceUnknown {
		mode := fenceDetect
		if x.flow.Fence != topology.FenceDetect {
			offered, err := x.target.Transactions(ctx)
			if err != nil {
				return fmt.Errorf("ask whether the target offers transactions: %w", err)
			}
			if offered {
				mode = fenceFull
			}
		}
		if mode == fenceDetect {
			x.log.Warn("the target is not fenced: what an instance that died still has under way is detected, not prevented")
			x.plainW = x.target
		}
		x.mode.Store(int32(mode))
	}
	if x.modeNow() == fenceDetect || x.writer != nil {
		return nil
	}
	if x.now == kafka.NoProducer {
		p, err := x.target.InitProducer(ctx, x.id, kafka.NoProducer)
		if err != nil {
			return explainIdentity(x.id, err)
		}
		x.now = p
	}
	writer := kafka.NewWriter(x.target, x.now, x.allowed)
	me := checkpoint.Writer{Flow: x.flow.Name, TransactionalID: x.id, ProducerID: x.now.ID, Life: x.life, TimeMillis: time.Now().UnixMilli()}
	if _, err := writer.Append(ctx, checkpoint.MapTopic, me.MapPartition(), []wire.Record{checkpoint.EncodeWriter(me)}); err != nil {
		if fenced := (*kafka.FencedError)(nil); errors.As(err, &fenced) {
			return x.fail(&fencedError{x.id, err})
		}
		return fmt.Errorf("write down the identity of this life: %w", err)
	}
	x.writer = writer
	return nil
}

// explainIdentity says what to do where the target does not let us have an
// identity at all.
func explainIdentity(id string, err error) error {
	if errors.Is(err, kerr.TransactionalIDAuthorizationFailed) {
		return fmt.Errorf("%w: grant WRITE and DESCRIBE on the transactional ids that begin with kmirror. on the target cluster, or set fence: detect for this flow", err)
	}
	return fmt.Errorf("take the transactional id %s: %w", id, err)
}

// Append writes to the offset map's topic under this life's identity; what is
// refused because of it ends the life. It is checkpoint.Appender.
func (x *fence) Append(ctx context.Context, topic string, partition int32, records []wire.Record) (int64, error) {
	if err := x.open(ctx); err != nil {
		return -1, err
	}
	if x.plainW != nil {
		if err := x.allowed(); err != nil {
			return -1, err
		}
		base, err := x.plainW.Append(ctx, topic, partition, records)
		if err != nil {
			return -1, fmt.Errorf("write to the offset map's topic: %w", err)
		}
		return base, nil
	}
	base, err := x.writer.Append(ctx, topic, partition, records)
	if fenced := (*kafka.FencedError)(nil); errors.As(err, &fenced) {
		return -1, x.fail(&fencedError{x.id, err})
	}
	if err != nil {
		return -1, fmt.Errorf("write to the offset map's topic: %w", err)
	}
	return base, nil
}

// next returns an epoch under which nothing was written to the partition, of a
// producer id that everybody can know to be this flow's.
func (x *fence) next(ctx context.Context, id partitionID) (kafka.Producer, error) {
	p, err := x.nextEpoch(ctx, id)
	if err != nil {
		return kafka.NoProducer, err
	}
	if err := x.makeKnown(ctx, p.ID); err != nil {
		return kafka.NoProducer, err
	}
	return p, nil
}

// makeKnown declares a producer id, once. Where the flow's source has become
// another cluster meanwhile, what the id says would not be true of what comes now:
// the life ends, and the next one has another id.
func (x *fence) makeKnown(ctx context.Context, producerID int64) error {
	select {
	case x.declaring <- struct{}{}:
		defer func() { <-x.declaring }()
	case <-ctx.Done():
		return context.Cause(ctx)
	}
	source := x.source()
	if was, ok := x.declared[producerID]; ok {
		if was != source {
			return x.fail(&movedError{was, source})
		}
		return nil
	}
	if err := x.declare(ctx, producerID, source); err != nil {
		return fmt.Errorf("write down whose producer id %d is: %w", producerID, err)
	}
	x.declared[producerID] = source
	return nil
}

func (x *fence) nextEpoch(ctx context.Context, id partitionID) (kafka.Producer, error) {
	if x.modeNow() == fenceDetect {
		pid, epoch, err := x.plain.next(ctx, id)
		return kafka.Producer{ID: pid, Epoch: epoch}, err
	}
	var p kafka.Producer
	err := x.patiently(ctx, func(ctx context.Context) error {
		if last, ok := x.used[id]; ok && last >= x.now.Epoch {
			if err := x.bump(ctx); err != nil {
				return err
			}
		}
		p, x.used[id] = x.now, x.now.Epoch
		return nil
	})
	if err != nil {
		return kafka.NoProducer, err
	}
	return p, nil
}

// patiently calls fn with asking held, and again while a transaction under our
// own identity is ending, without it in between: a partition that has lost its
// leader may keep one from ending for long, and others are not to wait for it.
func (x *fence) patiently(ctx context.Context, fn func(ctx context.Context) error) error {
	ctx, cancel := context.WithTimeoutCause(ctx, fencePatience, errFenceSlow)
	defer cancel()
	for retry := (backoff{base: 10 * time.Millisecond, limit: time.Second}); ; retry.sleep(ctx) {
		if err := x.lock(ctx); err != nil {
			return err
		}
		err := fn(ctx)
		x.unlock()
		if !errors.Is(err, kerr.ConcurrentTransactions) || ctx.Err() != nil {
			return err
		}
	}
}

// bump takes the next epoch of our own identity, naming the present one: if that
// is not the newest any more, a successor is there. CONCURRENT_TRANSACTIONS is for
// the caller to repeat. Called with asking held.
func (x *fence) bump(ctx context.Context) error {
	if x.now.Epoch >= lastEpoch {
		return x.fail(&spentError{x.id})
	}
	if x.ending { // it would be aborted under another epoch, and its end refused as if we were fenced
		return fmt.Errorf("take the next epoch of %s: %w", x.id, kerr.ConcurrentTransactions)
	}
	p, err := x.target.InitProducer(ctx, x.id, x.now)
	switch {
	case errors.Is(err, kerr.ProducerFenced), errors.Is(err, kerr.InvalidProducerEpoch):
		return x.fail(&fencedError{x.id, err})
	case err != nil:
		return fmt.Errorf("take the next epoch of %s: %w", x.id, err)
	case p.ID != x.now.ID: // the target had forgotten the id: nobody could fence us by it
		return x.fail(&fencedError{x.id, fmt.Errorf("the transactional id expired: producer id %d became %d", x.now.ID, p.ID)})
	}
	x.now = p
	return nil
}

// Run keeps the transactional id from expiring, and the books short, until ctx ends.
func (x *fence) Run(ctx context.Context) error {
	renew := time.NewTicker(renewIdentity)
	defer renew.Stop()
	bury := time.NewTimer(buryAfter)
	bury.Stop() // until somebody has died
	for {
		select {
		case <-renew.C:
			x.renew(ctx)
		case <-x.deaths:
			bury.Reset(buryAfter)
		case <-bury.C:
			done, err := x.bury(ctx)
			if err != nil && ctx.Err() == nil {
				x.log.Warn("remove the dead from the books", slog.Any("error", err))
			}
			if !done {
				bury.Reset(10 * buryAfter)
			}
		case <-x.gone:
			return nil
		case <-ctx.Done():
			return nil
		}
	}
}

func (x *fence) renew(ctx context.Context) {
	err := x.patiently(ctx, func(ctx context.Context) error {
		if x.writer == nil {
			return nil
		}
		return x.bump(ctx)
	})
	if err != nil && ctx.Err() == nil {
		x.log.Warn("renew the transactional id", slog.String("id", x.id), slog.Any("error", err))
	}
}

// buryAfter is how long after a death it is worth looking whether all that was
// owned has been taken over.
const buryAfter = 2 * time.Second

// renewIdentity is far below any transactional.id.expiration.ms that makes sense
// (7 days by default), and takes three years to use up the epochs.
const renewIdentity = time.Hour

// own writes down that this life may write to a partition from now on, and that
// the former owners have been ended.
func (x *fence) own(ctx context.Context, put putter, id partitionID, key checkpoint.Key, ended []checkpoint.Owner) error {
	if x.modeNow() == fenceDetect {
		return nil
	}
	if err := x.lock(ctx); err != nil {
		return err
	}
	x.owned[id] = struct{}{}
	producer := x.now.ID
	x.unlock()
	key = pairKey(key)
	// Each time anew: somebody who ended us in between has taken us off the list.
	records := []wire.Record{checkpoint.EncodeOwner(checkpoint.Owner{
		Key: key, TransactionalID: x.id, ProducerID: producer, TimeMillis: time.Now().UnixMilli(),
	})}
	for _, o := range ended {
		if o.TransactionalID != x.id {
			records = append(records, checkpoint.EncodeDeleted(o))
		}
	}
	if err := put(ctx, key.MapPartition(), records); err != nil {
		return fmt.Errorf("write down who owns the partition: %w", err)
	}
	x.asking <- struct{}{}
	defer x.unlock()
	x.doubts[id] = struct{}{} // from now on something may be under way
	return nil
}

// putter writes records to a partition of the offset map's topic and waits.
type putter func(ctx context.Context, mapPartition int32, records []wire.Record) error

// settled says that nothing that this life sent to a partition is under way.
func (x *fence) settled(id partitionID) {
	x.asking <- struct{}{}
	defer x.unlock()
	delete(x.doubts, id)
}

// letGo takes back that this life owns a partition, if it left nothing under way.
func (x *fence) letGo(ctx context.Context, put putter, id partitionID, key checkpoint.Key) error {
	if err := x.lock(ctx); err != nil {
		return err
	}
	_, owned := x.owned[id]
	_, doubt := x.doubts[id]
	x.unlock()
	if !owned || doubt {
		return nil
	}
	key = pairKey(key)
	if err := put(ctx, key.MapPartition(), []wire.Record{checkpoint.EncodeDeleted(checkpoint.Owner{Key: key, TransactionalID: x.id})}); err != nil {
		return fmt.Errorf("take back who owns the partition: %w", err)
	}
	x.asking <- struct{}{}
	delete(x.owned, id)
	x.unlock()
	return nil
}

// finish is letGo, after ending what may still be under way.
func (x *fence) finish(ctx context.Context, put putter, id partitionID, key checkpoint.Key, partition kafka.TopicPartition) error {
	if err := x.lock(ctx); err != nil {
		return err
	}
	_, doubt := x.doubts[id]
	me := checkpoint.Owner{Key: pairKey(key), TransactionalID: x.id, ProducerID: x.now.ID}
	x.unlock()
	if doubt {
		if _, err := x.end(ctx, me, partition); err != nil {
			return err
		}
		x.settled(id)
	}
	return x.letGo(ctx, put, id, key)
}

// leave takes the identity back, at the end of a life that owns nothing any more.
func (x *fence) leave(ctx context.Context, put putter) error {
	if err := x.lock(ctx); err != nil {
		return err
	}
	open, owned := x.writer != nil, len(x.owned)
	x.unlock()
	if !open || owned > 0 {
		return nil
	}
	me := checkpoint.Writer{Flow: x.flow.Name, TransactionalID: x.id}
	if err := put(ctx, me.MapPartition(), []wire.Record{checkpoint.EncodeDeleted(me)}); err != nil {
		return fmt.Errorf("take back the identity of this life: %w", err)
	}
	return nil
}
