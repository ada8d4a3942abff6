package kafka

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"
)

// AtMost limits the version in which a request is sent, for those whose fields
// the caller filled for certain versions only.
func AtMost(req kmsg.Request, version int16) kmsg.Request {
	return bounded{Request: req, high: min(version, req.MaxVersion())}
}

// atLeast refuses brokers that do not know the version.
func atLeast(req kmsg.Request, version int16) kmsg.Request {
	return bounded{Request: req, low: version, high: req.MaxVersion()}
}

// bounded is a request with bounds on its version.
type bounded struct {
	kmsg.Request
	low, high int16
}

// MaxVersion is what wire negotiates with.
func (b bounded) MaxVersion() int16 { return b.high }

// bounds are the versions in which req may go out. Where the newest versions
// name topics by id only (KIP-516), an unbounded request stays below them,
// because it may not hold the ids.
func bounds(req kmsg.Request) (low, high int16) {
	if b, ok := req.(bounded); ok {
		return b.low, b.high
	}
	high = req.MaxVersion()
	switch req.Key() {
	case keyProduce, keyFetch:
		high = min(high, lastByName)
	case keyOffsetCommit, keyOffsetFetch:
		high = min(high, lastOffsetsByName)
	}
	return 0, high
}

const (
	keyProduce      = 0
	keyFetch        = 1
	keyOffsetCommit = 8
	keyOffsetFetch  = 9

	lastByName        = 12 // of Produce and Fetch
	lastOffsetsByName = 9  // of OffsetCommit and OffsetFetch
)

// mayWait reports whether a broker may hold back the answer: for records, for
// replicas, for the other members of a group.
func mayWait(key int16) bool {
	switch key {
	case keyProduce, keyFetch,
		11, 14, // JoinGroup, SyncGroup
		19, 20, 21, 37: // CreateTopics, DeleteTopics, DeleteRecords, CreatePartitions
		return true
	}
	return false
}

// Request sends a request to any live broker: those known first, then the
// bootstrap addresses, each at most once. A connection that breaks moves on to
// the next, so the request may be carried out twice. When none is left, the
// error is an *UnreachableError. Error codes inside the response are the
// caller's to read.
func (c *Cluster) Request(ctx context.Context, req kmsg.Request) (kmsg.Response, error) {
	resp, err := c.anyBroker(ctx, req)
	if err != nil {
		return nil, c.errorf(err, "%s", kmsg.NameForKey(req.Key()))
	}
	return resp, nil
}

func (c *Cluster) anyBroker(ctx context.Context, req kmsg.Request) (kmsg.Response, error) {
	failure := &UnreachableError{Cluster: c.Name()}
	for _, addr := range c.candidates() {
		resp, err := c.at(ctx, addr, req)
		switch {
		case err == nil:
			return resp, nil
		case ctx.Err() != nil && len(failure.Tried) > 0: // what failed before explains it better than the clock
			return nil, fmt.Errorf("%w: %w", context.Cause(ctx), failure)
		case ctx.Err() != nil:
			return nil, fmt.Errorf("%s: %w", addr, err)
		case !brokenConnection(err):
			return nil, err
		}
		failure.Tried = append(failure.Tried, Attempt{Addr: addr, Err: err})
	}
	return nil, failure
}

// candidates are the addresses to try, in order, each once.
func (c *Cluster) candidates() []string {
	c.mu.Lock()
	defer c.mu.Unlock()
	known := make([]string, 0, len(c.brokers))
	for _, addr := range c.brokers {
		known = append(known, addr)
	}
	slices.Sort(known)
	c.next++
	if n := len(known); n > 0 {
		first := c.next % n
		known = append(known[first:n:n], known[:first]...)
	}
	// An address that is connected answers at once; another may take its time to fail.
	slices.SortStableFunc(known, func(a, b string) int { return c.pool.connected(b) - c.pool.connected(a) })
	for _, addr := range c.topology.Addresses() {
		if !slices.Contains(known, addr) {
			known = append(known, addr)
		}
	}
	return known
}

// at sends a request to an address, over a connection of the pool. One that
// was idle may have been closed by the broker just now, so a break on it is
// tried once more on a fresh one.
func (c *Cluster) at(ctx context.Context, addr string, req kmsg.Request) (kmsg.Response, error) {
	low, high := bounds(req)
	for again := false; ; again = true {
		conn, err := c.pool.acquire(ctx, addr, mayWait(req.Key()))
		if err != nil {
			return nil, err
		}
		if offered, ok := conn.Version(req.Key(), high); ok && offered < low {
			c.pool.release(conn, false)
			return nil, fmt.Errorf("broker %s offers %s only up to version %d, %d is needed", addr, kmsg.NameForKey(req.Key()), offered, low)
		}
		used := conn.used.Swap(true)
		resp, err := conn.DoMax(ctx, req, high)
		c.pool.release(conn, err != nil)
		if err != nil && used && !again && brokenConnection(err) && ctx.Err() == nil {
			continue
		}
		return resp, err
	}
}

// RequestBroker sends a request to one broker. A broken connection is tried
// again twice, with the broker's address asked for anew, so the request may be
// carried out more than once.
func (c *Cluster) RequestBroker(ctx context.Context, broker int32, req kmsg.Request) (kmsg.Response, error) {
	resp, err := c.toBroker(ctx, broker, req)
	if err != nil {
		return nil, c.errorf(err, "%s at broker %d", kmsg.NameForKey(req.Key()), broker)
	}
	return resp, nil
}

func (c *Cluster) toBroker(ctx context.Context, broker int32, req kmsg.Request) (kmsg.Response, error) {
	var pause backoff
	for {
		addr, err := c.brokerAddress(ctx, broker)
		if err != nil {
			return nil, err
		}
		resp, err := c.at(ctx, addr, req)
		if err == nil || !brokenConnection(err) || ctx.Err() != nil || pause.tries == 2 {
			return resp, err
		}
		if err := pause.wait(ctx); err != nil {
			return nil, err
		}
		if _, refresh := c.fetchMetadata(ctx, nil, false); refresh != nil {
			return nil, refresh
		}
	}
}

// RequestController sends a request to the controller, and again with back-off
// while the answer is NOT_CONTROLLER, until ctx ends. (With KRaft any broker
// counts as the controller.) Connection faults are as in RequestBroker.
func (c *Cluster) RequestController(ctx context.Context, req kmsg.Request) (kmsg.Response, error) {
	resp, err := c.toController(ctx, req)
	if err != nil {
		return nil, c.errorf(err, "%s at the controller", kmsg.NameForKey(req.Key()))
	}
	return resp, nil
}

func (c *Cluster) toController(ctx context.Context, req kmsg.Request) (kmsg.Response, error) {
	var pause backoff
	for {
		c.mu.Lock()
		controller := c.controller
		c.mu.Unlock()
		if controller < 0 || pause.tries > 0 {
			m, err := c.fetchMetadata(ctx, nil, false)
			if err != nil {
				return nil, err
			}
			controller = m.Controller
		}
		var last error = kerr.NotController
		if controller >= 0 {
			resp, err := c.toBroker(ctx, controller, req)
			switch {
			case errors.Is(err, kerr.BrokerNotAvailable): // the controller known is gone
				last = err
			case err != nil:
				return nil, err
			case !holdsCode(resp, kerr.NotController.Code):
				return resp, nil
			}
		}
		if err := pause.wait(ctx); err != nil {
			return nil, fmt.Errorf("%w: %w", err, last)
		}
	}
}
