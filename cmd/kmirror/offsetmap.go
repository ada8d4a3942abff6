package main

import (
	"context"
	"fmt"
	"log/slog"

	"kmirror/checkpoint"
	"kmirror/topology"
)

// crossing translates offsets along one flow, forward or against it.
type crossing struct {
	flow    *topology.Flow
	inverse bool // from the flow's target to its source
	index   *checkpoint.Index
}

// crossed is where an offset stands on the other side.
type crossed struct {
	topic string
	// known is false when nothing of the partition is mirrored yet, or the topic is no part of the flow.
	known bool
	checkpoint.Translation
}

// takes tells whether a topic of the side we come from belongs to this crossing, and its name on the other side.
func (c *crossing) takes(topic string) (other string, ok bool) {
	if !c.inverse {
		return c.flow.TargetTopic(topic), c.flow.Selects(topic)
	}
	source, ok := c.flow.SourceTopic(topic)
	return source, ok && c.flow.Selects(source)
}

func (c *crossing) translate(topic string, partition int32, offset int64) crossed {
	other, ok := c.takes(topic)
	if !ok {
		return crossed{}
	}
	out := crossed{topic: other}
	if c.inverse {
		out.Translation, out.known = c.index.Invert(c.flow.Name, other, partition, offset)
	} else {
		out.Translation, out.known = c.index.Translate(c.flow.Name, topic, partition, offset)
	}
	return out
}

// crossings are the ways from one cluster to another: along the flow between
// them, and against the flow the other way round.
func crossings(cfg *topology.Config, from, to string) ([]*crossing, error) {
	var ways []*crossing
	for _, f := range cfg.Flows {
		switch {
		case f.From == from && f.To == to:
			ways = append(ways, &crossing{flow: f})
		case f.From == to && f.To == from:
			ways = append(ways, &crossing{flow: f, inverse: true})
		}
	}
	if len(ways) == 0 {
		return nil, withCode(exitNotFound, fmt.Errorf("no flow between %s and %s in %s: there are %v", from, to, cfg.Path, flowNames(cfg)))
	}
	return ways, nil
}

// loadIndex reads the offset map of a target cluster. The index lives until ctx ends.
func (a *app) loadIndex(ctx context.Context, target *remote) (*checkpoint.Index, error) {
	index := checkpoint.NewIndex(target.Cluster, slog.New(slog.DiscardHandler))
	done := make(chan error, 1)
	go func() { done <- index.Run(ctx) }()
	select {
	case <-index.Ready():
		return index, nil
	case err := <-done:
		if ctx.Err() != nil {
			return nil, ctx.Err()
		}
		return nil, fmt.Errorf("read the offset map of %s: %w", target.Name(), err)
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// mapMissing tells whether nothing was ever mirrored into a cluster, and in which words.
func mapMissing(cluster string) error {
	return withCode(exitNotFound, fmt.Errorf("nothing was mirrored into %s yet: it has no topic %s; flows run with `kmirror run`", cluster, checkpoint.MapTopic))
}
