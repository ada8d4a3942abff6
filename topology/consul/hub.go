package consul

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"
)

// hub is Consul in memory: keys with indexes, sessions that depend on checks with
// a TTL, blocking queries. Clients reach it over links that can be cut.
type hub struct {
	mu       sync.Mutex // guards the fields below
	index    uint64     // of the last change; only grows, but for forget
	pairs    map[string]pair
	sessions map[string]*hubSession
	checks   map[string]*time.Timer // end the sessions that depend on them
	changed  chan struct{}          // closed and replaced at every change
}

type hubSession struct {
	check  string // empty: none
	expiry *time.Timer
	ttl    time.Duration
}

// newHub returns an empty hub. Its indexes begin with the time, so that those of
// a process are above those of the process before it.
func newHub() *hub {
	return &hub{
		index:    uint64(max(time.Now().UnixMilli(), 1)),
		pairs:    map[string]pair{},
		sessions: map[string]*hubSession{},
		checks:   map[string]*time.Timer{},
		changed:  make(chan struct{}),
	}
}

// forget loses everything, and the index goes back: a Consul in development mode
// that was restarted.
func (h *hub) forget() {
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, timer := range h.checks {
		timer.Stop()
	}
	for _, s := range h.sessions {
		s.expiry.Stop()
	}
	clear(h.pairs)
	clear(h.sessions)
	clear(h.checks)
	h.index = 1
	h.wake()
}

// change makes a new index. h.mu is held.
func (h *hub) change() uint64 {
	h.index++
	h.wake()
	return h.index
}

func (h *hub) wake() {
	close(h.changed)
	h.changed = make(chan struct{})
}

// invalidate ends a session and releases what it holds. h.mu is held.
func (h *hub) invalidate(id string) {
	s, ok := h.sessions[id]
	if !ok {
		return
	}
	s.expiry.Stop()
	delete(h.sessions, id)
	index := h.change()
	for key, p := range h.pairs {
		if p.session == id {
			p.session, p.modifyIndex = "", index
			h.pairs[key] = p
		}
	}
}

func (h *hub) failCheck(id string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for session, s := range h.sessions {
		if s.check == id {
			h.invalidate(session)
		}
	}
}

// linkState is what a link does with calls.
type linkState int8

const (
	linkUp     linkState = iota
	linkDown             // they fail at once
	linkSilent           // they are never answered
)

// link is one client's way to the hub.
type link struct {
	hub *hub

	mu      sync.Mutex // guards the fields below
	state   linkState
	changed chan struct{} // closed and replaced when state changes
}

func (h *hub) link() *link { return &link{hub: h, changed: make(chan struct{})} }

func (l *link) set(state linkState) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.state = state
	close(l.changed)
	l.changed = make(chan struct{})
}

var errLinkDown = errors.New("connection refused")

// ready waits until a call can go through. The channel is closed when that changes.
func (l *link) ready(ctx context.Context) (<-chan struct{}, error) {
	for {
		l.mu.Lock()
		state, changed := l.state, l.changed
		l.mu.Unlock()
		switch state {
		case linkUp:
			return changed, ctx.Err()
		case linkDown:
			return nil, errLinkDown
		case linkSilent:
		}
		select {
		case <-ctx.Done():
			return nil, ctx.Err()
		case <-changed:
		}
	}
}

// call does one thing at the hub.
func (l *link) call(ctx context.Context, do func(h *hub) error) error {
	ctx, cancel := context.WithTimeout(ctx, answerTimeout)
	defer cancel()
	if _, err := l.ready(ctx); err != nil {
		return err
	}
	l.hub.mu.Lock()
	defer l.hub.mu.Unlock()
	return do(l.hub)
}

// ask blocks until latest, called with the hub's lock, is above index, or wait has passed.
func (l *link) ask(ctx context.Context, index uint64, wait time.Duration, latest func(h *hub) uint64) error {
	ctx, cancel := context.WithTimeout(ctx, answerTimeout+wait)
	defer cancel()
	patience := time.NewTimer(wait)
	defer patience.Stop()
	for over := false; ; {
		down, err := l.ready(ctx)
		if err != nil {
			return err
		}
		l.hub.mu.Lock()
		now, changed := latest(l.hub), l.hub.changed
		l.hub.mu.Unlock()
		if over || index == 0 || now > index {
			return nil
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-patience.C:
			over = true
		case <-changed:
		case <-down:
		}
	}
}

func (l *link) register(ctx context.Context, s service) error {
	return l.call(ctx, func(h *hub) error {
		h.checks[s.checkID] = time.AfterFunc(s.ttl, func() { h.failCheck(s.checkID) })
		return nil
	})
}

func (l *link) deregister(ctx context.Context, serviceID string) error {
	return l.call(ctx, func(h *hub) error {
		check := "service:" + serviceID
		if timer, ok := h.checks[check]; ok {
			timer.Stop()
			delete(h.checks, check)
			for id, s := range h.sessions {
				if s.check == check {
					h.invalidate(id)
				}
			}
		}
		return nil
	})
}

func (l *link) pass(ctx context.Context, checkID string) error {
	return l.call(ctx, func(h *hub) error {
		timer, ok := h.checks[checkID]
		if !ok {
			return errUnknownCheck
		}
		for _, s := range h.sessions {
			if s.check == checkID {
				timer.Reset(s.ttl)
			}
		}
		return nil
	})
}

func (l *link) createSession(ctx context.Context, _, checkID string, ttl time.Duration) (string, error) {
	var random [16]byte
	_, _ = rand.Read(random[:]) // never fails, says crypto/rand
	id := hex.EncodeToString(random[:])
	return id, l.call(ctx, func(h *hub) error {
		if _, known := h.checks[checkID]; checkID != "" && !known {
			return errUnknownCheck
		}
		h.sessions[id] = &hubSession{check: checkID, ttl: ttl, expiry: time.AfterFunc(2*ttl, func() { // twice, as Consul does
			h.mu.Lock()
			defer h.mu.Unlock()
			h.invalidate(id)
		})}
		h.change()
		return nil
	})
}

func (l *link) renewSession(ctx context.Context, id string) (found bool, err error) {
	err = l.call(ctx, func(h *hub) error {
		s, ok := h.sessions[id]
		if ok {
			s.expiry.Reset(2 * s.ttl)
		}
		found = ok
		return nil
	})
	return found, err
}

func (l *link) destroySession(ctx context.Context, id string) error {
	return l.call(ctx, func(h *hub) error {
		h.invalidate(id)
		return nil
	})
}

func (l *link) session(ctx context.Context, id string, index uint64, wait time.Duration) (found bool, next uint64, err error) {
	err = l.ask(ctx, index, wait, func(h *hub) uint64 {
		_, found = h.sessions[id]
		next = h.index
		return next
	})
	return found, next, err
}

func (l *link) list(ctx context.Context, prefix string, index uint64, wait time.Duration) (found []pair, next uint64, err error) {
	err = l.ask(ctx, index, wait, func(h *hub) uint64 {
		found, next = nil, h.index
		for _, key := range slices.Sorted(maps.Keys(h.pairs)) {
			if strings.HasPrefix(key, prefix) {
				found = append(found, h.pairs[key])
			}
		}
		return next
	})
	return found, next, err
}

func (l *link) keys(ctx context.Context, prefix string) ([]string, error) {
	pairs, _, err := l.list(ctx, prefix, 0, 0)
	keys := make([]string, 0, len(pairs))
	for _, p := range pairs {
		keys = append(keys, p.key)
	}
	return keys, err
}

func (l *link) apply(ctx context.Context, ops []op) (map[string]uint64, error) {
	written := map[string]uint64{}
	err := l.call(ctx, func(h *hub) error {
		for i, o := range ops {
			if lost, reason := h.objection(o); reason != "" {
				return &refusedError{op: i, lostSession: lost, reason: reason}
			}
		}
		for _, o := range ops {
			if o.verb == verbCheckIndex {
				continue
			}
			index := h.change()
			if o.verb == verbDelete {
				delete(h.pairs, o.key)
				continue
			}
			p := pair{key: o.key, value: slices.Clone(o.value), session: h.pairs[o.key].session, modifyIndex: index}
			switch o.verb {
			case verbLock:
				p.session = o.session
			case verbUnlock:
				p.session = ""
			case verbSet, verbDelete, verbCheckIndex:
			}
			h.pairs[o.key] = p
			written[o.key] = index
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	return written, nil
}

// objection says why an operation is refused, empty if it is not. h.mu is held.
func (h *hub) objection(o op) (lostSession bool, reason string) {
	p, exists := h.pairs[o.key]
	_, alive := h.sessions[o.session]
	switch o.verb {
	case verbLock:
		if !alive {
			return true, "invalid session " + o.session
		}
		if p.session != "" && p.session != o.session {
			return false, "lock is already held"
		}
	case verbUnlock:
		if p.session != o.session {
			return false, "lock isn't held, or held by another session"
		}
	case verbCheckIndex:
		if !exists || p.modifyIndex != o.index {
			return false, fmt.Sprintf("current modify index %d is not %d", p.modifyIndex, o.index)
		}
	case verbSet, verbDelete:
	}
	return false, ""
}
