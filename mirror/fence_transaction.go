package mirror

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"golang.org/x/sync/errgroup"

	"kmirror/checkpoint"
	"kmirror/internal/kafka"
	"kmirror/internal/wire"
)

const (
	// fenceAtOnce bounds a fencing transaction, so that a partition that loses its
	// leader in its midst leaves most of the markers written. The identity itself
	// hangs until that leader is back, and with it what else it still owned.
	fenceAtOnce = 50
	// fencePatience is how long a fencing transaction may take before the
	// partitions that wait for it say so.
	fencePatience = 15 * time.Second
)

// fenceQueue is what waits for the transactions under one transactional id: one
// is under way at a time.
type fenceQueue struct {
	waiting []*fenceRequest
	busy    bool
}

type fenceRequest struct {
	owner     checkpoint.Owner
	partition kafka.TopicPartition
	from      int64          // where the marker is to be looked for
	as        kafka.Producer // its least epoch
	err       error
	done      chan struct{}
}

// end ends an owner's identity over a partition, and returns the epoch from which
// on the partition takes batches of that identity. It returns when the marker has
// been seen below the high watermark.
func (x *fence) end(ctx context.Context, owner checkpoint.Owner, partition kafka.TopicPartition) (kafka.Producer, error) {
	return x.endAll(ctx, owner, partition)
}

// endAll is end for partitions of which none may be left out; as few
// transactions as can be.
func (x *fence) endAll(ctx context.Context, owner checkpoint.Owner, partitions ...kafka.TopicPartition) (as kafka.Producer, err error) {
	requests := make([]*fenceRequest, 0, len(partitions))
	for _, p := range partitions {
		requests = append(requests, &fenceRequest{owner: owner, partition: p, done: make(chan struct{})})
	}
	if err := x.lock(ctx); err != nil {
		return kafka.NoProducer, err
	}
	q := x.queues[owner.TransactionalID]
	if q == nil {
		q = &fenceQueue{}
		x.queues[owner.TransactionalID] = q
	}
	q.waiting = append(q.waiting, requests...)
	mine := !q.busy
	q.busy = true
	x.unlock()
	if mine {
		x.serve(ctx, owner.TransactionalID, q)
	}
	var g errgroup.Group
	for _, r := range requests {
		g.Go(func() error { return x.await(ctx, r) })
	}
	if err := g.Wait(); err != nil {
		return kafka.NoProducer, err
	}
	return requests[0].as, nil
}

// await waits for a request's transaction, and then for its marker.
func (x *fence) await(ctx context.Context, r *fenceRequest) error {
	select {
	case <-r.done:
	case <-ctx.Done():
		return context.Cause(ctx)
	}
	if r.err == nil {
		r.err = x.awaitMarker(ctx, r)
	}
	if lapsed := (*lapsedError)(nil); errors.As(r.err, &lapsed) {
		return &lapsedError{lapsed.id, lapsed.was, lapsed.is, r.partition}
	}
	if r.err != nil {
		return &unfencedError{r.owner.TransactionalID, r.partition, r.err}
	}
	return nil
}

// serve runs transactions until nobody waits.
func (x *fence) serve(ctx context.Context, id string, q *fenceQueue) {
	for {
		x.asking <- struct{}{}
		batch := q.waiting
		if len(batch) > fenceAtOnce {
			batch = batch[:fenceAtOnce]
		}
		q.waiting = slices.Clone(q.waiting[len(batch):])
		if len(batch) == 0 {
			q.busy = false
			delete(x.queues, id)
			x.unlock()
			return
		}
		x.unlock()
		// A transaction that is begun is ended, whoever has given up meanwhile: one
		// that stays open would look to us like another's fence.
		limited, cancel := context.WithTimeoutCause(context.WithoutCancel(ctx), fencePatience, errFenceSlow)
		err := x.transaction(limited, id, batch)
		cancel()
		for _, r := range batch {
			if r.err == nil {
				r.err = err
			}
			close(r.done)
		}
	}
}

var errFenceSlow = errors.New("the target's transaction coordinator did not finish in time")

// transaction writes an empty aborted transaction over the partitions of batch.
// Requests that are at fault themselves have their err set.
func (x *fence) transaction(ctx context.Context, id string, batch []*fenceRequest) error {
	x.locate(ctx, batch)
	alive := slices.DeleteFunc(slices.Clone(batch), func(r *fenceRequest) bool { return r.err != nil })
	if len(alive) == 0 {
		return nil
	}
	who, err := x.identify(ctx, id, alive[0].owner)
	if err != nil {
		return err
	}
	if id == x.id {
		defer func() {
			x.asking <- struct{}{}
			x.ending = false
			x.unlock()
		}()
	}
	for len(alive) > 0 {
		partitions := make([]kafka.TopicPartition, 0, len(alive))
		for _, r := range alive {
			partitions = append(partitions, r.partition)
		}
		refused, err := x.target.AddPartitions(ctx, id, who, partitions)
		if err != nil {
			return x.outrun(id, fmt.Errorf("begin the fencing transaction: %w", err))
		}
		if len(refused) == 0 {
			break
		}
		alive = slices.DeleteFunc(alive, func(r *fenceRequest) bool {
			r.err = refused[r.partition]
			return r.err != nil
		})
	}
	if len(alive) == 0 {
		return nil
	}
	after, err := x.target.EndTransaction(ctx, id, who, false)
	if err != nil {
		return x.outrun(id, fmt.Errorf("end the fencing transaction: %w", err))
	}
	if id == x.id {
		if err := x.adopt(after); err != nil {
			return err
		}
	}
	for _, r := range alive {
		r.as = who
	}
	return nil
}

// locate finds where each partition ends now: its marker will be behind. It also
// finds those that have no leader, over which a transaction would hang.
func (x *fence) locate(ctx context.Context, batch []*fenceRequest) {
	var g errgroup.Group
	g.SetLimit(16)
	for _, r := range batch {
		g.Go(func() error {
			r.from, r.err = x.target.ListOffset(ctx, r.partition.Topic, r.partition.Partition, atLatest)
			return nil
		})
	}
	_ = g.Wait()
}

// identify takes an epoch of the identity that is to be ended.
func (x *fence) identify(ctx context.Context, id string, owner checkpoint.Owner) (kafka.Producer, error) {
	if id == x.id {
		var who kafka.Producer
		err := x.patiently(ctx, func(ctx context.Context) error {
			if err := x.bump(ctx); err != nil {
				return err
			}
			who, x.ending = x.now, true
			return nil
		})
		return who, err
	}
	who, err := x.initialise(ctx, id, kafka.NoProducer)
	if err != nil {
		return kafka.NoProducer, fmt.Errorf("take the transactional id of a former owner: %w", err)
	}
	if who.ID != owner.ProducerID {
		return kafka.NoProducer, &lapsedError{id: id, was: owner.ProducerID, is: who.ID}
	}
	return who, nil
}

// adopt goes on with the epoch that the end of our own transaction left.
func (x *fence) adopt(after kafka.Producer) error {
	x.asking <- struct{}{}
	defer x.unlock()
	if after.ID != x.now.ID || after.Epoch < x.now.Epoch {
		return x.fail(&fencedError{x.id, fmt.Errorf("the end of our own transaction left producer %d epoch %d after %d epoch %d", after.ID, after.Epoch, x.now.ID, x.now.Epoch)})
	}
	x.now = after
	return nil
}

// outrun makes of a refusal of our own identity the end of the life. Another's
// only says that somebody else fences it too: his marker will do, next time.
func (x *fence) outrun(id string, err error) error {
	if id == x.id && (errors.Is(err, kerr.ProducerFenced) || errors.Is(err, kerr.InvalidProducerEpoch)) {
		return x.fail(&fencedError{x.id, err})
	}
	return err
}

// initialise is InitProducer, with patience for a transaction that is ending.
func (x *fence) initialise(ctx context.Context, id string, current kafka.Producer) (kafka.Producer, error) {
	for retry := (backoff{base: 10 * time.Millisecond, limit: time.Second}); ; retry.sleep(ctx) {
		p, err := x.target.InitProducer(ctx, id, current)
		if !errors.Is(err, kerr.ConcurrentTransactions) || ctx.Err() != nil {
			return p, err
		}
	}
}

// awaitMarker reads the partition until the marker is there: EndTxn answers before.
func (x *fence) awaitMarker(ctx context.Context, r *fenceRequest) error {
	ctx, cancel := context.WithTimeoutCause(ctx, fencePatience, errors.New("the marker has not come"))
	defer cancel()
	at := r.from
	for {
		res, err := x.target.Fetch(ctx, r.partition.Topic, r.partition.Partition, at, scanBytes, false, markerWait)
		if err == nil {
			err = res.Err
		}
		if err != nil {
			return fmt.Errorf("wait for the marker in %s: %w", r.partition, err)
		}
		for rest := res.Records; len(rest) > 0; {
			b, after, err := wire.NextBatch(rest)
			if errors.Is(err, wire.ErrPartialBatch) {
				break
			}
			if err != nil {
				return fmt.Errorf("wait for the marker in %s: %w", r.partition, err)
			}
			rest = after
			if b.IsControl() && b.ProducerID() == r.as.ID && b.ProducerEpoch() >= r.as.Epoch {
				return nil
			}
			at = max(at, b.LastOffset()+1)
		}
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
	}
}

// markerWait is a long poll.
const markerWait = 500 * time.Millisecond
