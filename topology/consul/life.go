package consul

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"
)

const (
	// leaveTimeout bounds an orderly leave; what is left undone expires.
	leaveTimeout = 3 * time.Second
	// checkPatience is how long the catalog may take to learn of a new check.
	checkPatience = 5 * time.Second
)

// life is one membership, from its session's begin to its end.
type life struct {
	id      string // INSTANCE/xxxxxxxxxxxxxxxx
	session string
	service service
	checked bool // the session depends on the service's check

	deadline atomic.Pointer[time.Time] // until when the membership is certain

	mu    sync.Mutex // guards the fields below
	lost  error      // why the membership ended, wraps ErrLost; nil: it has not
	bound map[*context.CancelCauseFunc]struct{}
}

func (l *life) until() time.Time { return *l.deadline.Load() }

// end ends the life, and all contexts that are bound to it. The first reason stays.
func (l *life) end(lost error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.lost != nil {
		return
	}
	l.lost = lost
	for cancel := range l.bound {
		(*cancel)(lost)
	}
	l.bound = nil
}

// ended returns why the life ended, nil while it has not.
func (l *life) ended() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.lost
}

// bind returns a context that ends with the life too, which is then its cause.
// The function releases it.
func (l *life) bind(ctx context.Context) (context.Context, context.CancelFunc) {
	ctx, cancel := context.WithCancelCause(ctx)
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.lost != nil {
		cancel(l.lost)
	} else {
		l.bound[&cancel] = struct{}{}
	}
	return ctx, func() {
		l.mu.Lock()
		delete(l.bound, &cancel)
		l.mu.Unlock()
		cancel(nil)
	}
}

// Join makes this instance a member with info, and runs live. Its context ends
// when ctx does, or when the membership can no longer be proved; deadline tells
// until when it is certain. The id is unique for each life. A life whose context
// ended by itself, or that returns [ErrLost] or an error with a method Lost() bool
// that returns true, is followed by a new one, with back-off. When ctx ends, the membership is kept up until live has returned and
// then given back at once, and Join returns nil. Whatever else live returns ends
// Join.
func (c *Client) Join(ctx context.Context, info []byte, live func(ctx context.Context, id string, deadline func() time.Time) error) error {
	var retry backoff
	for ctx.Err() == nil {
		l, err := c.enter(ctx, info)
		if err != nil {
			if ctx.Err() == nil {
				c.trouble(ctx, &retry, "join as a member", err)
				retry.sleep(ctx)
			}
			continue
		}
		began := time.Now()
		err = c.run(ctx, l, live)
		if ctx.Err() != nil {
			break
		}
		switch {
		case errors.Is(err, ErrLost), lost(err):
			c.log.Warn("the membership is lost, joining again", slog.String("life", l.id), slog.Any("error", err))
		default:
			return err
		}
		if time.Since(began) > c.ttl {
			retry.reset()
		}
		retry.sleep(ctx)
	}
	return nil //nolint:nilerr // ctx ended, and a stop is no fault
}

// lost says whether an error of a life asks for another life.
func lost(err error) bool {
	var l interface {
		error
		Lost() bool
	}
	return errors.As(err, &l) && l.Lost()
}

// enter begins a life: service, session, member key, in this order.
func (c *Client) enter(ctx context.Context, info []byte) (*life, error) {
	if err := c.bury(ctx); err != nil {
		return nil, err
	}
	var random [8]byte
	_, _ = rand.Read(random[:]) // never fails, says crypto/rand
	name := hex.EncodeToString(random[:])
	l := &life{id: c.instance + "/" + name, bound: map[*context.CancelCauseFunc]struct{}{}}
	serviceID := c.service + "-" + c.instance + "-" + name
	l.service = service{id: serviceID, name: c.service, instance: c.instance, http: c.http, checkID: "service:" + serviceID, ttl: c.ttl}
	sent := time.Now()
	err := c.backend.register(ctx, l.service)
	if err == nil {
		err = c.openSession(ctx, l)
	}
	if err == nil {
		err = c.put(ctx, kindMembers, l.id, l.session, info)
	}
	if err == nil {
		sent = time.Now()
		err = c.prove(ctx, l)
	}
	if err != nil {
		l.end(ErrLost)
		c.leave(ctx, l)
		return nil, err
	}
	c.extend(l, sent)
	c.mu.Lock()
	c.lives[l.id] = l
	c.mu.Unlock()
	return l, nil
}

// openSession creates the session. It depends on the check of the service, so
// that it ends with the check's TTL. Where that cannot be, because requests do not
// all go to one agent, the session stands alone: a dead instance is then seen dead
// after twice the TTL.
func (c *Client) openSession(ctx context.Context, l *life) error {
	c.mu.Lock()
	l.checked = !c.unchecked
	c.mu.Unlock()
	var err error
	for began := time.Now(); l.checked; {
		l.session, err = c.backend.createSession(ctx, l.id, l.service.checkID, c.ttl)
		if !errors.Is(err, errUnknownCheck) {
			break
		}
		if time.Since(began) > checkPatience {
			c.distrustChecks()
			l.checked = false
		} else if !sleep(ctx, 20*time.Millisecond) {
			return ctx.Err()
		}
	}
	if !l.checked {
		l.session, err = c.backend.createSession(ctx, l.id, "", c.ttl)
	}
	if err != nil {
		return err
	}
	return c.remember(l)
}

// distrustChecks makes the sessions to come independent of checks.
func (c *Client) distrustChecks() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.unchecked {
		c.unchecked = true
		c.log.Warn("consul does not find this instance's health check, so its death would be seen after twice the ttl only; let the address be that of one agent, not of several",
			slog.Duration("ttl", c.ttl))
	}
}

// prove renews the check and the session. Either alone does not prove a life.
func (c *Client) prove(ctx context.Context, l *life) error {
	unknown := false
	if l.checked {
		err := c.backend.pass(ctx, l.service.checkID)
		unknown = errors.Is(err, errUnknownCheck)
		if err != nil && !unknown {
			return err
		}
	}
	found, err := c.backend.renewSession(ctx, l.session)
	switch {
	case err != nil:
		return err
	case !found:
		return fmt.Errorf("session %s is gone: %w", l.session, ErrLost)
	case unknown:
		c.distrustChecks()
		return fmt.Errorf("the agent does not know check %s: %w", l.service.checkID, ErrLost)
	}
	return nil
}

func (c *Client) extend(l *life, sent time.Time) {
	deadline := sent.Add(c.ttl)
	l.deadline.Store(&deadline)
}

// run runs live for a life, keeps the life up meanwhile, and gives it back. It
// returns what live returned, or why the life ended before it did.
func (c *Client) run(ctx context.Context, l *life, live func(ctx context.Context, id string, deadline func() time.Time) error) error {
	// Not ended by ctx: while live ends in order, the life goes on.
	keep, stop := l.bind(context.WithoutCancel(ctx))
	var keepers sync.WaitGroup
	keepers.Go(func() { c.renew(keep, l) })
	keepers.Go(func() { expire(keep, l) })
	keepers.Go(func() { c.observe(keep, l) })

	living, die := l.bind(ctx)
	c.log.Debug("joined", slog.String("life", l.id), slog.String("session", l.session))
	err := live(living, l.id, l.until)
	die()
	stop()
	keepers.Wait()
	if lost := l.ended(); lost != nil {
		err = lost
	}

	c.mu.Lock()
	delete(c.lives, l.id)
	c.mu.Unlock()
	c.leave(ctx, l)
	return err
}

// renew proves the life three times per TTL. After a failure it tries more often,
// until the deadline.
func (c *Client) renew(ctx context.Context, l *life) {
	var trouble backoff
	for {
		pause := c.ttl / 3
		if trouble.tries > 0 {
			pause = jitter(c.ttl / 20)
		}
		if !sleep(ctx, pause) {
			return
		}
		sent := time.Now()
		one, cancel := context.WithTimeout(ctx, c.ttl/4)
		err := c.prove(one, l)
		cancel()
		switch {
		case ctx.Err() != nil:
			return
		case errors.Is(err, ErrLost):
			l.end(err)
			return
		case err != nil:
			c.trouble(ctx, &trouble, "renew the membership", err)
			trouble.tries++
		default:
			if trouble.tries > 0 {
				c.log.Info("consul answers again", slog.String("operation", "renew the membership"))
			}
			trouble.reset()
			c.extend(l, sent)
		}
	}
}

// expire ends the life at its deadline.
func expire(ctx context.Context, l *life) {
	for {
		left := time.Until(l.until())
		if left <= 0 {
			l.end(fmt.Errorf("not renewed in time: %w", ErrLost))
			return
		}
		if !sleep(ctx, left) {
			return
		}
	}
}

// observe ends the life when Consul says that its session is gone.
func (c *Client) observe(ctx context.Context, l *life) {
	_ = c.watch(ctx, "the session", func(ctx context.Context, index uint64) (uint64, error) {
		found, next, err := c.backend.session(ctx, l.session, index, blockFor)
		if err == nil && !found {
			l.end(fmt.Errorf("session %s is gone: %w", l.session, ErrLost))
			return 0, &stopError{ErrLost}
		}
		return next, err
	})
}

// leave gives a life back: keys, session, service. What fails expires by itself.
func (c *Client) leave(ctx context.Context, l *life) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), leaveTimeout)
	defer cancel()
	l.end(fmt.Errorf("left: %w", ErrLost))
	var errs []error
	if l.session != "" {
		_, err := c.backend.apply(ctx, []op{{verb: verbDelete, key: c.key(kindHeld, l.id)}, {verb: verbDelete, key: c.key(kindMembers, l.id)}})
		errs = append(errs, err)
		err = c.backend.destroySession(ctx, l.session)
		if errs = append(errs, err); err == nil {
			errs = append(errs, c.forget())
		}
	}
	errs = append(errs, c.backend.deregister(ctx, l.service.id))
	if err := errors.Join(errs...); err != nil {
		c.log.Warn("leave consul in order; the rest expires", slog.String("life", l.id), slog.Any("error", err))
	}
}
