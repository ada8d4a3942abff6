package consul

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
)

// reader reads the values at keys, and remembers what it read as long as the key
// does not change.
type reader struct {
	client *Client
	known  map[string]reading
}

type reading struct {
	pair  pair
	value []byte
}

// read returns the values of a kind among pairs, by life; only of pairs that a
// session holds, if held. A value that this version cannot read is left out.
func (r *reader) read(ctx context.Context, kind string, held bool, pairs []pair) (map[string][]byte, error) {
	values := map[string][]byte{}
	for _, p := range pairs {
		id, ok := r.client.idOf(kind, p.key)
		if !ok || held && p.session == "" {
			continue
		}
		last, ok := r.known[p.key]
		if !ok || last.pair.modifyIndex != p.modifyIndex || !bytes.Equal(last.pair.value, p.value) {
			value, err := r.client.value(ctx, kind, id, p.value)
			if errors.Is(err, errFormat) {
				r.client.log.Warn("a value in consul is left out", slog.Any("error", err))
				continue
			}
			if err != nil {
				return nil, err
			}
			last = reading{pair: p, value: value}
			r.known[p.key] = last
		}
		values[id] = last.value
	}
	return values, nil
}

// keep forgets what is not among pairs.
func (r *reader) keep(pairs []pair) {
	standing := make(map[string]bool, len(pairs))
	for _, p := range pairs {
		standing[p.key] = true
	}
	maps.DeleteFunc(r.known, func(key string, _ reading) bool { return !standing[key] })
}

// Members calls fn with all members and what each holds, by life: now, and after
// every change, until ctx ends (nil) or fn returns an error (that error). The maps
// are fn's own, the values must not be changed.
func (c *Client) Members(ctx context.Context, fn func(members, held map[string][]byte) error) error {
	values := &reader{client: c, known: map[string]reading{}}
	var lastMembers, lastHeld map[string][]byte
	return c.watch(ctx, "the members", func(ctx context.Context, index uint64) (uint64, error) {
		pairs, next, err := c.backend.list(ctx, c.prefix+"live/", index, blockFor)
		if err != nil {
			return 0, err
		}
		members, err := values.read(ctx, kindMembers, true, pairs)
		if err != nil {
			return 0, err
		}
		held, err := values.read(ctx, kindHeld, true, pairs)
		if err != nil {
			return 0, err
		}
		values.keep(pairs)
		maps.DeleteFunc(held, func(id string, _ []byte) bool { _, ok := members[id]; return !ok })
		if lastMembers != nil && maps.EqualFunc(members, lastMembers, bytes.Equal) && maps.EqualFunc(held, lastHeld, bytes.Equal) {
			return next, nil
		}
		lastMembers, lastHeld = members, held
		if err := fn(maps.Clone(members), maps.Clone(held)); err != nil {
			return 0, &stopError{err}
		}
		return next, nil
	})
}

// Living returns the lives that are members at a moment between the call and its
// return: a life whose end has had an effect anywhere before the call is not among
// them, whatever the watches of this client have told so far. It insists until
// ctx ends.
func (c *Client) Living(ctx context.Context) (map[string]struct{}, error) {
	living := map[string]struct{}{}
	err := c.insist(ctx, "read the members", func() error {
		pairs, _, err := c.backend.list(ctx, c.key(kindMembers, ""), 0, 0)
		if err != nil {
			return err
		}
		clear(living)
		for _, p := range pairs {
			if id, ok := c.idOf(kindMembers, p.key); ok && p.session != "" {
				living[id] = struct{}{}
			}
		}
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("read the members: %w", err)
	}
	return living, nil
}

// Assignments returns everything that terms have published, by life, that of the
// dead included for some time. It insists until ctx ends.
func (c *Client) Assignments(ctx context.Context) (map[string][]byte, error) {
	values := &reader{client: c, known: map[string]reading{}}
	var found map[string][]byte
	err := c.insist(ctx, "read the assignments", func() error {
		pairs, _, err := c.backend.list(ctx, c.key(kindAssignments, ""), 0, 0)
		if err == nil {
			found, err = values.read(ctx, kindAssignments, false, pairs)
		}
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("read the assignments: %w", err)
	}
	return found, nil
}

// Assignment calls fn with the assignment of a life, now and after every change,
// until ctx ends (nil) or fn returns an error (that error). Without an assignment
// fn is not called. Versions that follow each other quickly may be left out, the
// last one never.
func (c *Client) Assignment(ctx context.Context, id string, fn func(value []byte) error) error {
	values := &reader{client: c, known: map[string]reading{}}
	var last []byte
	called := false
	return c.watch(ctx, "the assignment", func(ctx context.Context, index uint64) (uint64, error) {
		pairs, next, err := c.backend.list(ctx, c.key(kindAssignments, id), index, blockFor)
		if err != nil {
			return 0, err
		}
		found, err := values.read(ctx, kindAssignments, false, pairs)
		if err != nil {
			return 0, err
		}
		value, ok := found[id]
		if !ok || called && bytes.Equal(value, last) {
			return next, nil
		}
		called, last = true, value
		if err := fn(value); err != nil {
			return 0, &stopError{err}
		}
		return next, nil
	})
}

// Hold publishes what a life holds. It is gone when the life's session is. It
// insists until ctx ends or the life does ([ErrLost]).
func (c *Client) Hold(ctx context.Context, id string, held []byte) error {
	l, alive := c.life(id)
	if !alive {
		return fmt.Errorf("hold as %s: %w", id, ErrLost)
	}
	ctx, release := l.bind(ctx)
	defer release()
	err := c.insist(ctx, "publish what is held", func() error {
		return c.put(ctx, kindHeld, id, l.session, held)
	})
	refused, isRefused := errors.AsType[*refusedError](err)
	switch lost := l.ended(); {
	case lost != nil:
		return fmt.Errorf("hold as %s: %w", id, lost)
	case isRefused:
		lost = fmt.Errorf("hold as %s: %w: %w", id, refused, ErrLost)
		l.end(lost)
		return lost
	case err != nil:
		return fmt.Errorf("hold as %s: %w", id, err)
	}
	return nil
}
