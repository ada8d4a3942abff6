package consul

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"
)

// Lead runs term whenever the life of that id holds the leader's lock, again and
// again until ctx ends (nil) or the life does ([ErrLost]). The context of a term
// ends when the lock is lost, the life ends, or ctx ends. The fence grows from
// term to term over all instances, as long as Consul keeps its state. A term that
// returns nil or [ErrFenced] lets others lead; any other error, with its context
// still alive, ends Lead.
func (c *Client) Lead(ctx context.Context, id string, term func(ctx context.Context, fence uint64) error) error {
	l, alive := c.life(id)
	if !alive {
		return fmt.Errorf("lead as %s: %w", id, ErrLost)
	}
	ctx, release := l.bind(ctx)
	defer release()
	var retry backoff
	for ctx.Err() == nil {
		fence, ok := c.acquire(ctx, l)
		if !ok {
			break
		}
		began := time.Now()
		if err := c.reign(ctx, l, fence, term); err != nil {
			return err
		}
		if time.Since(began) > c.ttl {
			retry.reset()
		}
		retry.sleep(ctx) // let others lead who are better off
	}
	if lost := l.ended(); lost != nil {
		return fmt.Errorf("lead as %s: %w", id, lost)
	}
	return nil
}

// acquire waits until the leader's lock is free and takes it; false if ctx ended.
func (c *Client) acquire(ctx context.Context, l *life) (fence uint64, ok bool) {
	_ = c.watch(ctx, "the leader", func(ctx context.Context, index uint64) (uint64, error) {
		pairs, next, err := c.backend.list(ctx, c.leaderKey(), index, blockFor)
		if err != nil {
			return 0, err
		}
		for _, p := range pairs {
			if p.key == c.leaderKey() && p.session != "" && p.session != l.session {
				return next, nil
			}
		}
		written, err := c.backend.apply(ctx, []op{{verb: verbLock, key: c.leaderKey(), value: []byte(l.id), session: l.session}})
		var refused *refusedError
		switch {
		case errors.As(err, &refused) && refused.lostSession:
			l.end(fmt.Errorf("session %s is gone: %w", l.session, ErrLost))
			return 0, &stopError{ErrLost}
		case errors.As(err, &refused):
			sleep(ctx, jitter(50*time.Millisecond)) // another was quicker
			return 0, nil
		case err != nil:
			return 0, err
		}
		fence, ok = written[c.leaderKey()], true
		return 0, &stopError{nil}
	})
	return fence, ok
}

// reign runs one term and releases the lock.
func (c *Client) reign(ctx context.Context, l *life, fence uint64, term func(ctx context.Context, fence uint64) error) error {
	log := c.log.With(slog.String("life", l.id), slog.Uint64("fence", fence))
	log.Info("leading")
	reigning, depose := context.WithCancel(ctx)
	var keepers sync.WaitGroup
	keepers.Go(func() {
		_ = c.watch(reigning, "the term", func(ctx context.Context, index uint64) (uint64, error) {
			pairs, next, err := c.backend.list(ctx, c.leaderKey(), index, blockFor)
			if err != nil {
				return 0, err
			}
			for _, p := range pairs {
				if p.key == c.leaderKey() && p.session == l.session && p.modifyIndex == fence {
					return next, nil
				}
			}
			depose()
			return 0, &stopError{nil}
		})
	})
	keepers.Go(func() { c.sweep(reigning, fence) })
	err := term(reigning, fence)
	own := err != nil && reigning.Err() == nil && !errors.Is(err, ErrFenced) && !errors.Is(err, ErrLost)
	depose()
	keepers.Wait()
	if err == nil {
		log.Info("leading no more")
	} else {
		log.Info("leading no more", slog.Any("reason", err))
	}

	leaving, cancel := context.WithTimeout(context.WithoutCancel(ctx), leaveTimeout)
	defer cancel()
	var refused *refusedError
	_, unlockErr := c.backend.apply(leaving, []op{
		{verb: verbCheckIndex, key: c.leaderKey(), index: fence},
		{verb: verbUnlock, key: c.leaderKey(), value: []byte(l.id), session: l.session},
	})
	if unlockErr != nil && !errors.As(unlockErr, &refused) {
		log.Debug("release the lock; it goes with the session", slog.Any("error", unlockErr))
	}
	if own {
		return err
	}
	return nil
}

// Publish gives a life its assignment, in the name of a term. It insists until
// ctx ends. [ErrFenced] says that the term with that fence does not lead any more;
// then nothing was published.
func (c *Client) Publish(ctx context.Context, fence uint64, id string, assignment []byte) error {
	guard := op{verb: verbCheckIndex, key: c.leaderKey(), index: fence}
	err := c.insist(ctx, "publish the assignment of "+id, func() error {
		return c.put(ctx, kindAssignments, id, "", assignment, guard)
	})
	if _, refused := errors.AsType[*refusedError](err); refused {
		return fmt.Errorf("publish the assignment of %s with fence %d: %w", id, fence, ErrFenced)
	}
	if err != nil {
		return fmt.Errorf("publish the assignment of %s: %w", id, err)
	}
	return nil
}
