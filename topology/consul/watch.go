package consul

import (
	"context"
	"errors"
	"log/slog"
	"time"
)

// blockFor is how long a query waits for a change. It bounds how long a dead
// connection or an index that went back can go unnoticed.
const blockFor = 10 * time.Second

// stopError ends a watch with an error of its caller's.
type stopError struct{ err error }

func (e *stopError) Error() string { return e.err.Error() }
func (e *stopError) Unwrap() error { return e.err }

// watch looks again and again, each time blocking until something is newer than
// index, until ctx ends (nil) or look returns a *stopError (what it wraps). Any
// other error is a fault of the way to Consul: it is waited out. Afterwards, and
// when the index goes back (Consul was restored or lost its state), everything is
// looked at afresh; look must bear seeing the same state again.
func (c *Client) watch(ctx context.Context, what string, look func(ctx context.Context, index uint64) (next uint64, err error)) error {
	var retry backoff
	var index uint64
	for ctx.Err() == nil {
		next, err := look(ctx, index)
		if stop, ok := errors.AsType[*stopError](err); ok {
			return stop.err
		}
		if ctx.Err() != nil {
			break
		}
		switch {
		case err != nil:
			c.trouble(ctx, &retry, "watch "+what, err)
			index = 0
			retry.sleep(ctx)
			continue
		case retry.tries > 0:
			c.log.Info("consul answers again", slog.String("operation", "watch "+what))
			retry.reset()
		}
		index = following(index, next)
	}
	return nil //nolint:nilerr // ctx ended, and a stop is no fault
}

// following is the index to block on after an answer.
func following(index, next uint64) uint64 {
	switch {
	case next < index:
		return 0
	case next == 0:
		return 1 // 0 would not block
	}
	return next
}

// insist repeats a call until it succeeds, can never succeed, or ctx ends.
func (c *Client) insist(ctx context.Context, what string, call func() error) error {
	var retry backoff
	for {
		err := call()
		var refused *refusedError
		switch {
		case err == nil, errors.As(err, &refused), errors.Is(err, ErrLost), errors.Is(err, ErrTooLarge):
			return err
		case ctx.Err() != nil:
			return ctx.Err()
		}
		c.trouble(ctx, &retry, what, err)
		if !retry.sleep(ctx) {
			return ctx.Err()
		}
	}
}

// trouble logs the first of a row of failures aloud.
func (c *Client) trouble(ctx context.Context, retry *backoff, what string, err error) {
	level := slog.LevelDebug
	if retry.tries == 0 {
		level = slog.LevelWarn
	}
	c.log.Log(ctx, level, "consul does not answer as it should, trying again", slog.String("operation", what), slog.Any("error", err))
}
