package kafka

import (
	"context"
	"fmt"
	"time"

	"github.com/twmb/franz-go/pkg/kmsg"
)

const (
	// leaderPatience is how long a partition may be without a leader that
	// answers before a request says so.
	leaderPatience = 30 * time.Second
	// topicPatience is how long a topic may be unknown: one made a moment ago is
	// not known to all brokers yet.
	topicPatience = 3 * time.Second
)

// RequestLeader sends what build returns to the leader of a partition. build is
// called for every try, with the topic as known then. While the leader moves,
// fails or is not elected (any such code in the answer, or a broken
// connection), metadata are asked for again, with back-off, for half a minute
// or until ctx ends; an unknown topic, for three seconds. A cluster without any
// live broker is an *UnreachableError at once.
func (c *Cluster) RequestLeader(ctx context.Context, topic string, partition int32, build func(topic *Topic) kmsg.Request) (kmsg.Response, error) {
	resp, err := c.toLeader(ctx, topic, partition, build, func(resp kmsg.Response) error { return firstFault(resp, moved) })
	if err != nil {
		return nil, c.errorf(err, "request to the leader of %s/%d", topic, partition)
	}
	return resp, nil
}

// toLeader is RequestLeader; fault finds in a response the error of the partition.
func (c *Cluster) toLeader(ctx context.Context, topic string, partition int32,
	build func(*Topic) kmsg.Request, fault func(kmsg.Response) error,
) (kmsg.Response, error) {
	var pause backoff
	start := time.Now()
	for {
		resp, err := c.onceToLeader(ctx, topic, partition, build, fault)
		if err == nil || unreachable(err) || !temporary(ctx, err) {
			return resp, err
		}
		c.forgetTopic(topic)
		patience := leaderPatience
		if unknownTopic(err) {
			patience = topicPatience
		}
		if waited := time.Since(start); waited > patience {
			return nil, fmt.Errorf("after %s: %w", waited.Round(time.Second), err)
		}
		if stopped := pause.wait(ctx); stopped != nil {
			return nil, fmt.Errorf("%w: %w", stopped, err)
		}
	}
}

func (c *Cluster) onceToLeader(ctx context.Context, topic string, partition int32,
	build func(*Topic) kmsg.Request, fault func(kmsg.Response) error,
) (kmsg.Response, error) {
	t, err := c.topic(ctx, topic)
	if err != nil {
		return nil, err
	}
	p, err := t.partition(partition)
	if err != nil {
		return nil, err
	}
	addr, err := c.brokerAddress(ctx, p.Leader)
	if err != nil {
		return nil, err
	}
	req := build(t)
	resp, err := c.at(ctx, addr, req)
	if err != nil {
		return nil, err
	}
	if err := fault(resp); err != nil {
		return nil, err
	}
	return resp, nil
}
