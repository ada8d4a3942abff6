package mirror

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"sync"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"

	"kmirror/internal/kafka"
	"kmirror/internal/wire"
)

// ControlTopic is the compacted topic on a target cluster that holds what
// operators ordered about flows into it: what is paused, and which stopped
// partitions are to go on. It has one partition, and records are few.
//
// Orders stand there, and not in Consul or on this machine, because they must
// hold for every instance, for a single one without Consul, and after the loss
// of any machine; and who cannot reach the target has nothing to pause.
const ControlTopic = "__kmirror_control"

func controlConfigs() map[string]string {
	return map[string]string{"cleanup.policy": "compact", "segment.bytes": "16777216", "unclean.leader.election.enable": "false"}
}

// acceptFor is how long an acceptance waits for the stop that it accepts: what
// stops later is another matter, and wants another look.
const acceptFor = 10 * time.Minute

// orderKey says what an order is about. Its JSON is the record's key.
type orderKey struct {
	Order     string `json:"order"` // "pause" or "go"
	Flow      string `json:"flow"`
	Topic     string `json:"topic,omitempty"`     // of the source; empty: the whole flow
	Partition int32  `json:"partition,omitempty"` // of a "go"
	Accept    string `json:"accept,omitempty"`    // of a "go": the kind of incident
}

const (
	orderPause = "pause"
	orderGo    = "go"
)

// orderValue is the record's value; a tombstone takes the order back.
type orderValue struct {
	Time     time.Time `json:"time"`
	Instance string    `json:"instance"` // where it was given
}

// control knows the orders about flows into one target. It lives as long as the
// engine; every instance reads all of them.
type control struct {
	cluster  *kafka.Cluster
	instance string
	log      *slog.Logger
	now      func() time.Time

	state linkState     // why it is not known yet
	known chan struct{} // closed when all orders were read once

	mu       sync.Mutex // guards the fields below
	next     int64      // offset behind the last order that was applied
	orders   map[orderKey]orderValue
	used     []orderKey // acceptances that were used up and stand in the topic still
	watchers map[chan struct{}]struct{}
	awake    map[orderKey]chan struct{} // of partitions, by a "go" without Accept

	usedUp chan struct{} // capacity 1
}

func newControl(cluster *kafka.Cluster, instance string, log *slog.Logger) *control {
	return &control{
		cluster: cluster, instance: instance, log: log, now: time.Now, known: make(chan struct{}),
		orders: map[orderKey]orderValue{}, watchers: map[chan struct{}]struct{}{}, awake: map[orderKey]chan struct{}{},
		usedUp: make(chan struct{}, 1),
	}
}

// Run follows the orders until ctx ends.
func (c *control) Run(ctx context.Context) {
	var cleaning sync.WaitGroup
	cleaning.Go(func() { c.clean(ctx) })
	defer cleaning.Wait()
	retry := backoff{base: 100 * time.Millisecond, limit: 5 * time.Second}
	for ctx.Err() == nil {
		err := c.cluster.EnsureInternalTopic(ctx, ControlTopic, 1, controlConfigs())
		if err == nil {
			c.mu.Lock()
			next := c.next
			c.mu.Unlock()
			err = c.cluster.Follow(ctx, ControlTopic, 0, next, c.caughtUp, c.apply)
		}
		if errors.Is(err, kerr.OffsetOutOfRange) { // the topic was made anew; what was ordered holds on here
			c.mu.Lock()
			c.next = 0
			c.mu.Unlock()
			continue
		}
		if ctx.Err() != nil {
			return
		}
		if c.state.get() == "" {
			c.log.Warn("read the orders on the target", slog.String("cluster", c.cluster.Name()), slog.String("topic", ControlTopic), slog.Any("error", err))
		}
		c.state.set(fmt.Sprintf("read what is paused: %v", err))
		retry.sleep(ctx)
	}
}

func (c *control) caughtUp() {
	c.state.set("")
	select {
	case <-c.known:
	default:
		close(c.known)
	}
	c.tell()
}

// apply takes one order. What cannot be read was not written by us, or by a
// later version: it orders nothing.
func (c *control) apply(r wire.Record) error {
	var key orderKey
	var value orderValue
	err := json.Unmarshal(r.Key, &key)
	if err == nil && r.Value != nil {
		err = json.Unmarshal(r.Value, &value)
	}
	c.mu.Lock()
	c.next = r.Offset + 1
	switch {
	case err != nil:
	case r.Value == nil:
		delete(c.orders, key)
	default:
		c.orders[key] = value
		if key.Order == orderGo && c.now().Sub(value.Time) < acceptFor {
			poke(c.wake(key.Flow, key.Topic, key.Partition))
		}
	}
	c.mu.Unlock()
	if err != nil {
		c.log.Warn("an order that cannot be read", slog.String("topic", ControlTopic), slog.Int64("offset", r.Offset), slog.Any("error", err))
	}
	select {
	case <-c.known:
		c.tell()
	default:
	}
	return nil
}

// wake is the channel on which a partition is told to look again. Called with mu held.
func (c *control) wake(flow, topic string, partition int32) chan struct{} {
	key := orderKey{Flow: flow, Topic: topic, Partition: partition}
	w := c.awake[key]
	if w == nil {
		w = make(chan struct{}, 1)
		c.awake[key] = w
	}
	return w
}

// give writes orders (nil value: taken back) and waits until they are applied
// here; elsewhere they are within a moment.
func (c *control) give(ctx context.Context, orders map[orderKey]*orderValue) error {
	select {
	case <-c.known:
	default:
		return fmt.Errorf("cluster %s cannot be asked what is paused: %s", c.cluster.Name(), c.state.get())
	}
	changed := make(chan struct{}, 1)
	defer c.watch(changed)()
	end, err := c.write(ctx, orders)
	if err != nil {
		return err
	}
	for {
		c.mu.Lock()
		next := c.next
		c.mu.Unlock()
		if next >= end {
			return nil
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return fmt.Errorf("the order is written to %s, and not read back yet: %w", ControlTopic, ctx.Err())
		}
	}
}

// write writes orders and returns the offset behind them.
func (c *control) write(ctx context.Context, orders map[orderKey]*orderValue) (end int64, err error) {
	records := make([]wire.Record, 0, len(orders))
	for key, value := range orders {
		r := wire.Record{Offset: int64(len(records)), Timestamp: c.now().UnixMilli()}
		if r.Key, err = json.Marshal(key); err != nil {
			return 0, err
		}
		if value != nil {
			if r.Value, err = json.Marshal(*value); err != nil {
				return 0, err
			}
		}
		records = append(records, r)
	}
	base, err := c.cluster.Append(ctx, ControlTopic, 0, records)
	if err != nil {
		return 0, fmt.Errorf("write to %s: %w", ControlTopic, err)
	}
	return base + int64(len(records)), nil
}

func (c *control) order() *orderValue {
	return &orderValue{Time: c.now().UTC().Round(time.Millisecond), Instance: c.instance}
}

// paused says what paused a topic (the whole flow for an empty one): "" when
// no order did.
func (c *control) paused(flow, topic string) string {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, name := range []string{"", topic} {
		if o, ok := c.orders[orderKey{Order: orderPause, Flow: flow, Topic: name}]; ok {
			return fmt.Sprintf("paused by command at %s on %s", o.Time.Format(time.RFC3339), o.Instance)
		}
	}
	return ""
}

// accepted says whether a stop of this kind was accepted for a partition, and
// uses that up.
func (c *control) accepted(id partitionID, kind string) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	key := orderKey{Order: orderGo, Flow: id.Flow, Topic: id.Topic, Partition: id.Partition, Accept: kind}
	o, ok := c.orders[key]
	if !ok {
		return false
	}
	delete(c.orders, key)
	c.used = append(c.used, key)
	poke(c.usedUp)
	return c.now().Sub(o.Time) < acceptFor
}

// accepts says the same and leaves it.
func (c *control) accepts(id partitionID, kind string) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	o, ok := c.orders[orderKey{Order: orderGo, Flow: id.Flow, Topic: id.Topic, Partition: id.Partition, Accept: kind}]
	return ok && c.now().Sub(o.Time) < acceptFor
}

// clean takes back what was used up, so that it is not used again after a
// restart, until ctx ends and then what is left.
func (c *control) clean(ctx context.Context) {
	retry := backoff{base: 200 * time.Millisecond, limit: 10 * time.Second}
	for ctx.Err() == nil {
		select {
		case <-c.usedUp:
		case <-ctx.Done():
		}
		write, cancel := context.WithTimeout(context.WithoutCancel(ctx), cleanLimit)
		err := c.takeBack(write)
		cancel()
		if err != nil && ctx.Err() == nil {
			retry.sleep(ctx)
			poke(c.usedUp)
			continue
		}
		retry.reset()
	}
}

// cleanLimit is how long an end waits for the target to take back what was used up.
const cleanLimit = 2 * time.Second

func (c *control) takeBack(ctx context.Context) error {
	c.mu.Lock()
	used := c.used
	c.used = nil
	c.mu.Unlock()
	if len(used) == 0 {
		return nil
	}
	back := map[orderKey]*orderValue{}
	for _, key := range used {
		back[key] = nil
	}
	_, err := c.write(ctx, back)
	if err != nil {
		c.mu.Lock()
		c.used = append(c.used, used...)
		c.mu.Unlock()
	}
	return err
}

// woken is signalled when a partition is to be looked at now.
func (c *control) woken(id partitionID) <-chan struct{} {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.wake(id.Flow, id.Topic, id.Partition)
}

// watch has w signalled after every change, until stop is called.
func (c *control) watch(w chan struct{}) (stop func()) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.watchers[w] = struct{}{}
	return func() {
		c.mu.Lock()
		defer c.mu.Unlock()
		delete(c.watchers, w)
	}
}

func (c *control) tell() {
	c.mu.Lock()
	watchers := maps.Clone(c.watchers)
	c.mu.Unlock()
	for w := range watchers {
		poke(w)
	}
}
