package mirror

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"slices"

	"golang.org/x/sync/errgroup"

	"kmirror/checkpoint"
	"kmirror/internal/kafka"
	"kmirror/internal/wire"
)

// admission is one pass over the identities of a flow, for all who wait for it.
type admission struct {
	done chan struct{}
	err  error
}

// admit returns when the dead can no longer write down that they own something.
// Those who call it while a pass is under way share the next one: what they want
// to know is who was alive after they were given their partition.
func (x *fence) admit(ctx context.Context) error {
	if x.modeNow() == fenceDetect {
		return nil
	}
	x.passes.Lock()
	if x.pending == nil {
		x.pending = &admission{done: make(chan struct{})}
	}
	mine := x.pending
	serve := !x.running
	x.running = true
	x.passes.Unlock()
	if serve {
		x.pass(ctx)
	}
	select {
	case <-mine.done:
		return mine.err
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// pass runs passes until nobody waits.
func (x *fence) pass(ctx context.Context) {
	for {
		x.passes.Lock()
		now := x.pending
		x.pending = nil
		if now == nil {
			x.running = false
			x.passes.Unlock()
			return
		}
		x.passes.Unlock()
		now.err = x.sealDead(ctx)
		close(now.done)
	}
}

// sealDead ends the identities of the dead over the offset map's topic.
//
// The identities are read before the living: one that joined and wrote down its
// identity in between is then not taken for dead.
func (x *fence) sealDead(ctx context.Context) error {
	loaded, err := x.load(ctx, checkpoint.Key{Flow: x.flow.Name})
	if err != nil {
		return fmt.Errorf("read who writes for the flow: %w", err)
	}
	living, err := x.living(ctx)
	if err != nil {
		return fmt.Errorf("ask who lives: %w", err)
	}
	if _, ok := living[x.life]; !ok {
		return x.fail(&fencedError{x.id, errors.New("the live world does not count this life among the living")})
	}
	g, sealing := errgroup.WithContext(ctx)
	g.SetLimit(sealAtOnce)
	for _, w := range loaded.Writers {
		if _, alive := living[w.Life]; !alive && w.TransactionalID != x.id {
			g.Go(func() error { return x.seal(sealing, w) })
		}
	}
	return g.Wait()
}

// sealAtOnce bounds how many dead identities are ended at the same time.
const sealAtOnce = 8

func (x *fence) seal(ctx context.Context, w checkpoint.Writer) error {
	if err := x.lock(ctx); err != nil {
		return err
	}
	_, sealed := x.sealed[w.TransactionalID]
	_, lapsed := x.lapsed[w.TransactionalID]
	x.unlock()
	if sealed || lapsed {
		return nil
	}
	var all []kafka.TopicPartition
	for p := range int32(checkpoint.MapPartitions) {
		all = append(all, kafka.TopicPartition{Topic: checkpoint.MapTopic, Partition: p})
	}
	_, err := x.endAll(ctx, ownerOf(w), all...)
	if gone := (*lapsedError)(nil); errors.As(err, &gone) {
		// Nothing of it can be under way for as long as a transactional id lives
		// unused. What it is known to own waits, see take.
		x.log.Warn("a dead writer cannot be fenced", slog.Any("error", err))
		x.asking <- struct{}{}
		x.lapsed[w.TransactionalID] = struct{}{}
		x.unlock()
		poke(x.deaths)
		return nil
	}
	if err != nil {
		return fmt.Errorf("the identity of a dead instance is not ended yet: %w", err)
	}
	x.log.Info("ended the identity of a dead instance", slog.String("life", w.Life), slog.String("transactional_id", w.TransactionalID))
	in := about(partitionID{Flow: x.flow.Name, Partition: -1}, KindFenced, "the instance of life "+w.Life+" ended without letting go", "fenced it; what it owned is taken over")
	x.journal.Record(in)
	x.asking <- struct{}{}
	x.sealed[w.TransactionalID] = struct{}{}
	x.unlock()
	poke(x.deaths)
	return nil
}

// bury removes from the books the dead who own nothing any more, and says whether
// none is left. What they own can no longer grow, so that it is enough to look.
func (x *fence) bury(ctx context.Context) (done bool, err error) {
	if err := x.lock(ctx); err != nil {
		return false, err
	}
	dead := maps.Clone(x.sealed)
	maps.Copy(dead, x.lapsed)
	x.unlock()
	loaded, err := x.load(ctx, checkpoint.Key{Flow: x.flow.Name})
	if err != nil {
		return false, fmt.Errorf("read who writes for the flow: %w", err)
	}
	buried := slices.DeleteFunc(loaded.Writers, func(w checkpoint.Writer) bool {
		_, ok := dead[w.TransactionalID]
		return !ok
	})
	if len(buried) == 0 {
		return true, nil
	}
	owning, err := x.owning(ctx)
	if err != nil {
		return false, err
	}
	all := len(buried)
	buried = slices.DeleteFunc(buried, func(w checkpoint.Writer) bool { return owning[w.TransactionalID] > 0 })
	records := make([]wire.Record, 0, len(buried))
	for _, w := range buried {
		records = append(records, checkpoint.EncodeDeleted(w))
	}
	if len(records) > 0 {
		if _, err := x.Append(ctx, checkpoint.MapTopic, buried[0].MapPartition(), records); err != nil {
			return false, err
		}
	}
	return len(buried) == all, nil
}

// ended is an owner that has been ended over a partition.
type ended struct {
	checkpoint.Owner
	as kafka.Producer // it may write again from this epoch on; no producer: it was given up on
}

// take ends everybody who may still have something under way to a partition. It
// returns them, so that own can write down that they are no owners any more.
// lost decides about an owner that can never be ended: nil goes on without.
func (x *fence) take(ctx context.Context, id partitionID, key checkpoint.Key, partition kafka.TopicPartition, lost func(*lapsedError) error) ([]ended, error) {
	if x.modeNow() == fenceDetect {
		return nil, nil
	}
	loaded, err := x.load(ctx, pairKey(key))
	if err != nil {
		return nil, fmt.Errorf("read who owns the partition: %w", err)
	}
	if err := x.lock(ctx); err != nil {
		return nil, err
	}
	_, doubt := x.doubts[id]
	x.unlock()
	var all []ended
	for _, o := range loaded.Owners {
		if o.TransactionalID == x.id && !doubt {
			continue // ourselves, and nothing is under way
		}
		as, err := x.end(ctx, o, partition)
		if gone := (*lapsedError)(nil); errors.As(err, &gone) {
			if err := lost(gone); err != nil {
				return nil, err
			}
			as, err = kafka.NoProducer, nil
		}
		if err != nil {
			return nil, err
		}
		all = append(all, ended{o, as})
	}
	return all, nil
}

// check says whether an owner that was ended had written under a greater epoch
// than it was ended with: then it was not ended.
func (e ended) check(ledger *checkpoint.Ledger) error {
	if e.as == kafka.NoProducer {
		return nil
	}
	for _, p := range ledger.Producers() {
		if p.ID == e.ProducerID && p.Epoch > e.as.Epoch {
			return fmt.Errorf("the former owner %s was fenced with epoch %d and has written with %d", e.TransactionalID, e.as.Epoch, p.Epoch)
		}
	}
	return nil
}
