package consul

import (
	"context"
	"errors"
	"log/slog"
	"slices"
	"strings"
	"time"
)

// sweepTimes says when the leading life clears away what the dead left.
type sweepTimes struct {
	every time.Duration
	grace time.Duration // for what a dead life was assigned; a new leader wants to know
}

// sweeper remembers, for one term, since when things have been of no use.
type sweeper struct {
	useless map[string]time.Time // by key
}

// sweep clears away keys of lives that are over, and pieces of values that no
// key refers to, until ctx ends.
func (c *Client) sweep(ctx context.Context, fence uint64) {
	s := &sweeper{useless: map[string]time.Time{}}
	for sleep(ctx, jitter(c.sweeping.every)) {
		keys, err := c.litter(ctx)
		if err == nil {
			err = c.remove(ctx, fence, s.due(keys, time.Now(), c.sweeping))
		}
		var refused *refusedError
		if err != nil && ctx.Err() == nil && !errors.As(err, &refused) {
			c.log.Debug("sweep", slog.Any("error", err))
		}
	}
}

// litter lists the keys that are of no use now. A life's member key is the first
// that it writes, and loses its session only with the life, which never comes back.
func (c *Client) litter(ctx context.Context) ([]string, error) {
	live, _, err := c.backend.list(ctx, c.prefix+"live/", 0, 0)
	if err != nil {
		return nil, err
	}
	assignments, _, err := c.backend.list(ctx, c.key(kindAssignments, ""), 0, 0)
	if err != nil {
		return nil, err
	}
	pieces, err := c.backend.keys(ctx, c.prefix+"chunks/")
	if err != nil {
		return nil, err
	}
	alive := map[string]bool{}
	for _, p := range live {
		if id, ok := c.idOf(kindMembers, p.key); ok && p.session != "" {
			alive[id] = true
		}
	}
	var useless []string
	referred := map[string]bool{}
	for _, p := range slices.Concat(live, assignments) {
		for _, kind := range []string{kindMembers, kindHeld, kindAssignments} {
			id, ok := c.idOf(kind, p.key)
			if !ok {
				continue
			}
			if !alive[id] {
				useless = append(useless, p.key)
			}
			if version := versionOf(p.value); version != "" {
				referred[c.chunkPrefix(kind, id)+version] = true
			}
		}
	}
	for _, key := range pieces {
		if i := strings.LastIndexByte(key, '/'); i < 0 || !referred[key[:i]] {
			useless = append(useless, key)
		}
	}
	return useless, nil
}

// due returns which keys have been useless for long enough. Pieces are written
// before the key that refers to them, so they too have a grace.
func (s *sweeper) due(keys []string, now time.Time, times sweepTimes) []string {
	before := s.useless
	s.useless = make(map[string]time.Time, len(keys))
	var due []string
	for _, key := range keys {
		since, known := before[key]
		if !known {
			since = now
		}
		s.useless[key] = since
		if now.Sub(since) >= times.grace {
			due = append(due, key)
		}
	}
	return due
}

// remove deletes keys in the name of a term.
func (c *Client) remove(ctx context.Context, fence uint64, keys []string) error {
	for some := range slices.Chunk(keys, maxOps-1) {
		ops := []op{{verb: verbCheckIndex, key: c.leaderKey(), index: fence}}
		for _, key := range some {
			ops = append(ops, op{verb: verbDelete, key: key})
		}
		if _, err := c.backend.apply(ctx, ops); err != nil {
			return err
		}
	}
	return nil
}
