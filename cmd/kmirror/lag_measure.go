package main

import (
	"context"
	"fmt"
	"time"

	"kmirror/checkpoint"
	"kmirror/internal/console"
	"kmirror/internal/kafka"
	"kmirror/mirror"
	"kmirror/topology"
)

// measure is a flow as its two clusters show it, without a daemon.
type measure struct {
	*bridge

	flow           *topology.Flow
	source, target *remote         // source is nil when it does not answer
	sourceMeta     *kafka.Metadata // the same
	targetMeta     *kafka.Metadata
	sourceFault    error             // why
	index          *checkpoint.Index // nil: nothing was ever mirrored into the target
}

// openMeasure connects to both clusters of a flow and reads the offset map. A
// source that does not answer is a sourceFault, no error.
func (a *app) openMeasure(ctx context.Context, cfg *topology.Config, flow *topology.Flow) (*measure, error) {
	b, err := a.bridge(ctx, cfg, flow.From, flow.To)
	if err != nil {
		return nil, err
	}
	m := &measure{bridge: b, flow: flow}
	if m.target, m.targetMeta, err = b.remote(ctx, flow.To); err == nil {
		m.index, err = b.mapOf(ctx, flow.To)
	}
	if err != nil {
		b.close()
		return nil, err
	}
	m.source, m.sourceMeta, m.sourceFault = b.remote(ctx, flow.From)
	return m, ctx.Err()
}

// topics are the source's topics that the flow mirrors.
func (m *measure) topics() []*kafka.Topic {
	var topics []*kafka.Topic
	for name, topic := range m.sourceMeta.Topics {
		if m.flow.Selects(name) && !topic.Internal && topic.Err == nil {
			topics = append(topics, topic)
		}
	}
	return topics
}

// lag measures.
func (m *measure) lag(ctx context.Context, q console.LagQuery) (mirror.FlowLag, error) {
	now := time.Now().UTC()
	out := mirror.FlowLag{Flow: m.flow.Name, From: m.flow.From, To: m.flow.To, AsOf: now, SourceReachable: true, Complete: true, Topics: []mirror.TopicLag{}}
	reach := mirror.Reach{}
	for _, topic := range m.topics() {
		if q.Topic != "" && topic.Name != q.Topic {
			continue
		}
		reach[topic.Name] = map[int32]int64{}
		for _, p := range topic.Partitions {
			reach[topic.Name][p.ID] = m.through(topic.Name, p.ID)
		}
	}
	if q.Topic != "" && len(reach) == 0 {
		return out, withCode(exitNotFound, fmt.Errorf("no topic %q in flow %s", q.Topic, m.flow.Name))
	}
	found, err := mirror.MeasureLag(ctx, m.source.Cluster, m.flow, reach, now)
	if ctx.Err() != nil {
		return out, ctx.Err()
	}
	measured := 0
	for topic, partitions := range reach {
		one := mirror.TopicLag{Topic: topic, Target: m.flow.TargetTopic(topic)}
		for id := range int32(len(partitions)) {
			p, ok := found[topic][id]
			if ok {
				measured++
			} else { // it has no leader: it must not hide the others
				p = mirror.PartitionLag{Partition: id, SourceEnd: -1, Mirrored: partitions[id], Lag: mirror.UnknownLag()}
			}
			one.Partitions = append(one.Partitions, p)
		}
		out.Topics = append(out.Topics, one)
	}
	if err != nil && measured == 0 {
		return out, err
	}
	out.Total()
	if !q.Partitions {
		out.Brief()
	}
	return out, nil
}

// through is the source offset up to which a partition is in the target, -1 if
// nothing of it is.
func (m *measure) through(topic string, partition int32) int64 {
	if m.index != nil {
		if through, ok := m.index.Through(m.flow.Name, topic, partition); ok {
			return through
		}
	}
	return -1
}
