package kafka

import (
	"context"
	"fmt"
	"maps"
	"net"
	"slices"
	"strconv"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"
)

// coordinatorKey names what a broker coordinates.
type coordinatorKey struct {
	kind int8
	name string
}

const (
	kindGroup       = 0
	kindTransaction = 1

	findCoordinatorBatch = 4 // the first version that takes many keys
)

// RequestGroup sends a request to the coordinator of a group, which is found,
// kept, and found again when it moves. Answers that say so anywhere
// (NOT_COORDINATOR, COORDINATOR_LOAD_IN_PROGRESS, COORDINATOR_NOT_AVAILABLE) and
// broken connections are tried again with back-off until ctx ends, so the
// request may be carried out more than once. A cluster without any live broker
// is an *UnreachableError at once.
func (c *Cluster) RequestGroup(ctx context.Context, group string, req kmsg.Request) (kmsg.Response, error) {
	resp, err := c.toCoordinator(ctx, coordinatorKey{kindGroup, group}, req)
	if err != nil {
		return nil, c.errorf(err, "%s of group %s", kmsg.NameForKey(req.Key()), group)
	}
	return resp, nil
}

// RequestTransaction is RequestGroup for the coordinator of a transactional id.
func (c *Cluster) RequestTransaction(ctx context.Context, id string, req kmsg.Request) (kmsg.Response, error) {
	resp, err := c.toCoordinator(ctx, coordinatorKey{kindTransaction, id}, req)
	if err != nil {
		return nil, c.errorf(err, "%s of transactional id %s", kmsg.NameForKey(req.Key()), id)
	}
	return resp, nil
}

func (c *Cluster) toCoordinator(ctx context.Context, key coordinatorKey, req kmsg.Request) (kmsg.Response, error) {
	var pause backoff
	var refused error // the answer to the try before
	for {
		resp, err := c.onceToCoordinator(ctx, key, req)
		switch {
		case err == nil:
			return resp, nil
		case ctx.Err() != nil && refused != nil: // that says more than that time is up
			return nil, fmt.Errorf("%w: %w", err, refused)
		case unreachable(err) || !temporary(ctx, err):
			return nil, err
		}
		refused = err
		c.forgetCoordinator(key)
		if stopped := pause.wait(ctx); stopped != nil {
			return nil, fmt.Errorf("%w: %w", stopped, err)
		}
	}
}

func (c *Cluster) onceToCoordinator(ctx context.Context, key coordinatorKey, req kmsg.Request) (kmsg.Response, error) {
	c.mu.Lock()
	broker, known := c.coordinators[key]
	c.mu.Unlock()
	if !known {
		found, err := c.findCoordinators(ctx, key.kind, []string{key.name})
		if err != nil {
			return nil, err
		}
		broker = found[key.name]
	}
	addr, err := c.brokerAddress(ctx, broker)
	if err != nil {
		return nil, err
	}
	resp, err := c.at(ctx, addr, req)
	if err != nil {
		return nil, err
	}
	if err := firstFault(resp, coordinatorMoved); err != nil {
		return nil, err
	}
	return resp, nil
}

func (c *Cluster) forgetCoordinator(key coordinatorKey) {
	c.mu.Lock()
	defer c.mu.Unlock()
	delete(c.coordinators, key)
}

// Coordinators finds the coordinators of many groups at once and returns the
// groups of each broker, for requests that take many groups. Coordinators that
// are not there yet are asked for again with back-off until ctx ends.
func (c *Cluster) Coordinators(ctx context.Context, groups []string) (map[int32][]string, error) {
	var pause backoff
	for {
		found, err := c.findCoordinators(ctx, kindGroup, groups)
		switch {
		case err == nil:
			by := make(map[int32][]string)
			for _, group := range groups {
				by[found[group]] = append(by[found[group]], group)
			}
			return by, nil
		case unreachable(err) || !temporary(ctx, err):
			return nil, c.errorf(err, "find coordinators of %d groups", len(groups))
		}
		if stopped := pause.wait(ctx); stopped != nil {
			return nil, c.errorf(fmt.Errorf("%w: %w", stopped, err), "find coordinators of %d groups", len(groups))
		}
	}
}

// findCoordinators asks any broker, and keeps the answers and the addresses in them.
func (c *Cluster) findCoordinators(ctx context.Context, kind int8, names []string) (map[string]int32, error) {
	if len(names) == 0 {
		return nil, nil
	}
	req := kmsg.NewPtrFindCoordinatorRequest()
	req.CoordinatorType = kind
	req.CoordinatorKeys = slices.Clone(names)
	req.CoordinatorKey = names[0] // for versions that take one
	resp, err := as[*kmsg.FindCoordinatorResponse](c.anyBroker(ctx, req))
	if err != nil {
		return nil, err
	}
	found := make(map[string]int32, len(names))
	if resp.GetVersion() < findCoordinatorBatch {
		if err := kerr.ErrorForCode(resp.ErrorCode); err != nil {
			return nil, explained(err, resp.ErrorMessage)
		}
		c.keepCoordinator(coordinatorKey{kind, names[0]}, resp.NodeID, resp.Host, resp.Port)
		found[names[0]] = resp.NodeID
		rest, err := c.findCoordinators(ctx, kind, names[1:])
		maps.Copy(found, rest)
		return found, err
	}
	for _, at := range resp.Coordinators {
		if err := kerr.ErrorForCode(at.ErrorCode); err != nil {
			return nil, fmt.Errorf("coordinator of %s: %w", at.Key, explained(err, at.ErrorMessage))
		}
		c.keepCoordinator(coordinatorKey{kind, at.Key}, at.NodeID, at.Host, at.Port)
		found[at.Key] = at.NodeID
	}
	for _, name := range names {
		if _, ok := found[name]; !ok {
			return nil, fmt.Errorf("coordinator of %s: %w", name, kerr.CoordinatorNotAvailable)
		}
	}
	return found, nil
}

func (c *Cluster) keepCoordinator(key coordinatorKey, broker int32, host string, port int32) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.coordinators[key] = broker
	c.brokers[broker] = net.JoinHostPort(host, strconv.Itoa(int(port)))
}
