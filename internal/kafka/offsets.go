package kafka

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"
	"golang.org/x/sync/errgroup"
)

// Timestamps that ListOffset takes in place of a time.
const (
	Latest   = -1 // the high watermark
	Earliest = -2 // the start of the log
)

// ListOffset is the offset of the first record of a partition at or after a
// time (Unix milliseconds), or Latest or Earliest; -1 when no record is that
// young. Retries are those of RequestLeader.
func (c *Cluster) ListOffset(ctx context.Context, topic string, partition int32, timestamp int64) (int64, error) {
	found, err := c.ListOffsets(ctx, map[string][]int32{topic: {partition}}, timestamp)
	if err != nil {
		return -1, err
	}
	return found[topic][partition], nil
}

// ListOffsets is ListOffset for many partitions, with one request per leader.
// When some fail, the error names each and the rest is returned with it.
func (c *Cluster) ListOffsets(ctx context.Context, partitions map[string][]int32, timestamp int64) (map[string]map[int32]int64, error) {
	l := offsetLister{cluster: c, timestamp: timestamp, found: make(map[string]map[int32]int64, len(partitions)), open: make(map[partitionKey]error)}
	for topic, ids := range partitions {
		for _, id := range ids {
			l.open[partitionKey{topic, id}] = nil
		}
	}
	start := time.Now()
	var pause backoff
	var final []error
	for len(l.open) > 0 {
		l.round(ctx)
		waited := time.Since(start)
		for key, err := range l.open {
			patience := leaderPatience
			if unknownTopic(err) {
				patience = topicPatience
			}
			if !temporary(ctx, err) || unreachable(err) || waited > patience {
				final = append(final, c.errorf(err, "list offset of %s/%d", key.topic, key.partition))
				delete(l.open, key)
				continue
			}
			c.forgetTopic(key.topic)
		}
		if len(l.open) == 0 {
			break
		}
		if err := pause.wait(ctx); err != nil {
			for key, last := range l.open {
				final = append(final, c.errorf(fmt.Errorf("%w: %w", err, last), "list offset of %s/%d", key.topic, key.partition))
			}
			break
		}
	}
	return l.found, errors.Join(final...)
}

type partitionKey struct {
	topic     string
	partition int32
}

// offsetLister asks the leaders of many partitions at once.
type offsetLister struct {
	cluster   *Cluster
	timestamp int64

	mu    sync.Mutex // guards the fields below
	found map[string]map[int32]int64
	open  map[partitionKey]error // what is still to be found, with its last error
}

// round asks every leader once. Afterwards, what is open has an error.
func (l *offsetLister) round(ctx context.Context) {
	c := l.cluster
	unknown := make(map[string]bool)
	for key := range l.open {
		c.mu.Lock()
		if c.topics[key.topic] == nil {
			unknown[key.topic] = true
		}
		c.mu.Unlock()
	}
	if len(unknown) > 0 {
		names := make([]string, 0, len(unknown))
		for name := range unknown {
			names = append(names, name)
		}
		if _, err := c.fetchMetadata(ctx, names, false); err != nil {
			for key := range l.open {
				l.open[key] = err
			}
			return
		}
	}
	leaders := make(map[string][]partitionKey)
	epochs := make(map[partitionKey]int32, len(l.open))
	for key := range l.open {
		addr, epoch, err := l.leader(ctx, key)
		if err != nil {
			l.open[key] = err
			continue
		}
		leaders[addr] = append(leaders[addr], key)
		epochs[key] = epoch
	}
	var g errgroup.Group
	g.SetLimit(16)
	for addr, keys := range leaders {
		g.Go(func() error {
			l.ask(ctx, addr, keys, epochs)
			return nil
		})
	}
	_ = g.Wait() // every outcome is in open and found
}

func (l *offsetLister) leader(ctx context.Context, key partitionKey) (string, int32, error) {
	c := l.cluster
	c.mu.Lock()
	t := c.topics[key.topic]
	c.mu.Unlock()
	if t == nil {
		return "", -1, kerr.UnknownTopicOrPartition
	}
	p, err := t.partition(key.partition)
	if err != nil {
		return "", -1, err
	}
	addr, err := c.brokerAddress(ctx, p.Leader)
	return addr, p.LeaderEpoch, err
}

// ask asks one leader for its partitions.
func (l *offsetLister) ask(ctx context.Context, addr string, keys []partitionKey, epochs map[partitionKey]int32) {
	req := kmsg.NewPtrListOffsetsRequest()
	req.ReplicaID = -1
	place := make(map[string]int)
	for _, key := range keys {
		i, ok := place[key.topic]
		if !ok {
			i = len(req.Topics)
			place[key.topic] = i
			t := kmsg.NewListOffsetsRequestTopic()
			t.Topic = key.topic
			req.Topics = append(req.Topics, t)
		}
		p := kmsg.NewListOffsetsRequestTopicPartition()
		p.Partition = key.partition
		p.Timestamp = l.timestamp
		p.CurrentLeaderEpoch = epochs[key]
		req.Topics[i].Partitions = append(req.Topics[i].Partitions, p)
	}
	resp, err := as[*kmsg.ListOffsetsResponse](l.cluster.at(ctx, addr, atLeast(req, 1)))

	l.mu.Lock()
	defer l.mu.Unlock()
	if err == nil {
		err = errors.New("the response lacks it") // unless it is found below
	}
	for _, key := range keys {
		l.open[key] = err
	}
	if resp == nil {
		return
	}
	for _, t := range resp.Topics {
		for _, p := range t.Partitions {
			key := partitionKey{t.Topic, p.Partition}
			if _, asked := epochs[key]; !asked {
				continue
			}
			if err := kerr.ErrorForCode(p.ErrorCode); err != nil {
				l.open[key] = err
				continue
			}
			delete(l.open, key)
			if l.found[t.Topic] == nil {
				l.found[t.Topic] = make(map[int32]int64)
			}
			l.found[t.Topic][p.Partition] = p.Offset
		}
	}
}
