package checkpoint

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"sync"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"
	"golang.org/x/sync/errgroup"

	"kmirror/internal/kafka"
	"kmirror/internal/wire"
)

const (
	fetchesAtOnce   = 8
	groupsAtOnce    = 1000  // in one OffsetFetch
	offsetsAtOnce   = 50000 // expected in one answer: some 2 MB
	fetchManyGroups = 8     // the version of OffsetFetch that takes several groups (KIP-709)
)

// offsets is the answer about one group.
type offsets struct {
	at  map[kafka.TopicPartition]GroupOffset
	err error
}

// fetch returns all offsets of each group, or an error for it. A group that
// does not exist has none.
func (g *groups) fetch(ctx context.Context, names []string) map[string]offsets {
	all := make(map[string]offsets, len(names))
	by, faults := g.locate(ctx, names)
	for name, err := range faults {
		all[name] = offsets{err: err}
	}
	var (
		each errgroup.Group
		mu   sync.Mutex // guards all
	)
	each.SetLimit(fetchesAtOnce)
	for broker, names := range by {
		each.Go(func() error {
			for len(names) > 0 {
				n := g.inOne(broker, names)
				answers := g.fetchAt(ctx, broker, names[:n])
				mu.Lock()
				maps.Copy(all, answers)
				mu.Unlock()
				names = names[n:]
			}
			return nil
		})
	}
	_ = each.Wait() // none returns one
	for name, answer := range all {
		g.moved(name, answer.err)
	}
	return all
}

// inOne says how many of the groups to ask a broker about at once: several only
// where it is known to take them, and as many as make an answer of moderate
// size, going by the last ones.
func (g *groups) inOne(broker int32, names []string) int {
	g.mu.Lock()
	defer g.mu.Unlock()
	if !g.many[broker] {
		return 1
	}
	return atMost(names, min(groupsAtOnce, max(1, int(offsetsAtOnce/max(1, g.each)))))
}

// answered learns how much an answer holds.
func (g *groups) answered(broker int32, groups, offsets int, many bool) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if many {
		g.many[broker] = true
	}
	now := float64(offsets) / float64(max(1, groups))
	g.each = max(now, 0.8*g.each+0.2*now) // up at once, down slowly
}

// fetchAt asks one coordinator about groups.
func (g *groups) fetchAt(ctx context.Context, broker int32, names []string) map[string]offsets {
	answers := make(map[string]offsets, len(names))
	fail := func(err error) map[string]offsets {
		for _, name := range names {
			answers[name] = offsets{err: fmt.Errorf("fetch offsets: %w", err)}
		}
		return answers
	}
	if g.avoided(broker) {
		return fail(fmt.Errorf("broker %d does not answer", broker))
	}
	req := kmsg.NewPtrOffsetFetchRequest()
	req.Group = names[0] // for versions that take one; no topics: all of them
	for _, name := range names {
		one := kmsg.NewOffsetFetchRequestGroup()
		one.Group = name
		req.Groups = append(req.Groups, one)
	}
	resp, err := ask[*kmsg.OffsetFetchResponse](ctx, func(ctx context.Context) (kmsg.Response, error) {
		return g.cluster.RequestBroker(ctx, broker, req)
	})
	if err != nil {
		var large *wire.FrameSizeError
		switch {
		case errors.As(err, &large):
			g.answered(broker, len(names), 8*offsetsAtOnce*len(names), false) // one at a time, for a while
		case ctx.Err() == nil:
			g.unanswered(broker)
		}
		return fail(err)
	}
	if resp.Version < fetchManyGroups {
		resp.Groups = []kmsg.OffsetFetchResponseGroup{{Group: names[0], ErrorCode: resp.ErrorCode, Topics: ofOne(resp.Topics)}}
	}
	for _, name := range names {
		answers[name] = offsets{err: errors.New("fetch offsets: no answer about the group")}
	}
	n := 0
	for _, one := range resp.Groups {
		if _, asked := answers[one.Group]; asked {
			answer := readOffsets(one)
			answers[one.Group] = answer
			n += len(answer.at)
		}
	}
	g.answered(broker, len(names), n, resp.Version >= fetchManyGroups)
	return answers
}

// ofOne brings the answer about one group into the shape of that about many.
func ofOne(topics []kmsg.OffsetFetchResponseTopic) (all []kmsg.OffsetFetchResponseGroupTopic) {
	for _, t := range topics {
		topic := kmsg.OffsetFetchResponseGroupTopic{Topic: t.Topic}
		for _, p := range t.Partitions {
			topic.Partitions = append(topic.Partitions, kmsg.OffsetFetchResponseGroupTopicPartition{
				Partition: p.Partition, Offset: p.Offset, LeaderEpoch: p.LeaderEpoch, Metadata: p.Metadata, ErrorCode: p.ErrorCode,
			})
		}
		all = append(all, topic)
	}
	return all
}

// readOffsets leaves out partitions without an offset, and what no partition
// can be.
func readOffsets(g kmsg.OffsetFetchResponseGroup) offsets {
	if err := kerr.ErrorForCode(g.ErrorCode); err != nil && !errors.Is(err, kerr.GroupIDNotFound) {
		return offsets{err: fmt.Errorf("fetch offsets: %w", err)}
	}
	o := offsets{at: make(map[kafka.TopicPartition]GroupOffset)}
	for _, t := range g.Topics {
		for _, p := range t.Partitions {
			if err := kerr.ErrorForCode(p.ErrorCode); err != nil {
				return offsets{err: fmt.Errorf("fetch offsets of %s/%d: %w", t.Topic, p.Partition, err)}
			}
			if p.Offset < 0 || p.Partition < 0 || t.Topic == "" {
				continue
			}
			c := GroupOffset{Offset: p.Offset, Epoch: max(-1, p.LeaderEpoch)}
			if p.Metadata != nil {
				c.Metadata = *p.Metadata
			}
			o.at[kafka.TopicPartition{Topic: t.Topic, Partition: p.Partition}] = c
		}
	}
	return o
}
