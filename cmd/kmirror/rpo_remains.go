package main

import (
	"context"
	"errors"
	"maps"
	"slices"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"kmirror/checkpoint"
	"kmirror/internal/console"
	"kmirror/internal/kafka"
	"kmirror/internal/wire"
	"kmirror/mirror"
	"kmirror/topology"
)

// remains is what the target alone tells about a flow whose source does not
// answer: how old the copy is.
func (m *measure) remains(ctx context.Context, q console.LagQuery) (mirror.RPO, error) {
	out := mirror.RPO{
		FlowLag: mirror.FlowLag{
			Flow: m.flow.Name, From: m.flow.From, To: m.flow.To, Complete: true, Topics: []mirror.TopicLag{},
			Lag: mirror.Lag{Records: -1, Bytes: -1, Seconds: -1},
		},
		Groups: []mirror.GroupBeyond{},
	}
	var ends []kafka.TopicPartition
	for _, name := range slices.Sorted(maps.Keys(m.targetMeta.Topics)) {
		source, ok := m.flow.SourceTopic(name)
		if !ok || !m.flow.Selects(source) || m.flow.TargetTopic(source) != name || topology.InternalTopic(name, m.flow.InternalSeparator) || q.Topic != "" && q.Topic != source {
			continue
		}
		out.Topics = append(out.Topics, mirror.TopicLag{Topic: source, Target: name, Lag: mirror.Lag{Records: -1, Bytes: -1, Seconds: -1, Unknown: len(m.targetMeta.Topics[name].Partitions)}})
		for _, p := range m.targetMeta.Topics[name].Partitions {
			if p.Leader >= 0 {
				ends = append(ends, kafka.TopicPartition{Topic: name, Partition: p.ID})
			}
		}
	}
	newest := m.newest(ctx, ends)
	for i := range out.Topics {
		t := &out.Topics[i]
		out.Unknown += t.Unknown
		if at, ok := newest[t.Target]; ok {
			t.NewestMirrored = &at
			if out.NewestMirrored == nil || at.After(*out.NewestMirrored) {
				out.NewestMirrored = &at
			}
		}
	}
	out.Heartbeat = m.heartbeat(ctx)
	return out, ctx.Err()
}

// newest reads the last record of ours in each partition and returns the
// greatest timestamp of each topic.
func (m *measure) newest(ctx context.Context, partitions []kafka.TopicPartition) map[string]time.Time {
	newest := map[string]time.Time{}
	if m.index == nil {
		return newest
	}
	var mu sync.Mutex // guards newest
	var each errgroup.Group
	each.SetLimit(8)
	for _, at := range partitions {
		source, _ := m.flow.SourceTopic(at.Topic)
		runs := m.index.Runs(m.flow.Name, source, at.Partition)
		if runs == nil {
			continue
		}
		_, end, ok := runs.End()
		if !ok || end == 0 {
			continue
		}
		each.Go(func() error {
			got, err := m.target.Fetch(ctx, at.Topic, at.Partition, end-1, 1, false, 0)
			if err != nil || got.Err != nil {
				return nil // retention may have taken it: of this partition nothing is known
			}
			b, _, err := wire.NextBatch(got.Records)
			if err != nil || b.MaxTimestamp() <= 0 {
				return nil // the same
			}
			mu.Lock()
			defer mu.Unlock()
			if stamp := time.UnixMilli(b.MaxTimestamp()).UTC(); stamp.After(newest[at.Topic]) {
				newest[at.Topic] = stamp
			}
			return nil
		})
	}
	_ = each.Wait() // none returns one
	return newest
}

// beatsRead is how many of the newest heartbeats are looked through for those of
// one flow: a few minutes of several flows.
const beatsRead = 1000

// heartbeat is the time of the newest heartbeat of the flow in its target.
func (m *measure) heartbeat(ctx context.Context) *time.Time {
	if m.targetMeta.Topics[topology.HeartbeatsTopic] == nil {
		return nil
	}
	end, err := m.target.ListOffset(ctx, topology.HeartbeatsTopic, 0, kafka.Latest)
	if err != nil {
		return nil
	}
	var newest int64
	_, err = m.target.Read(ctx, topology.HeartbeatsTopic, 0, max(0, end-beatsRead), func(rec wire.Record) error {
		if beat, err := checkpoint.DecodeHeartbeat(rec); err == nil && beat.Source == m.flow.From && beat.Target == m.flow.To {
			newest = max(newest, beat.Millis)
		}
		return nil // a foreign record is passed over
	})
	if newest == 0 || err != nil && errors.Is(err, ctx.Err()) {
		return nil
	}
	return new(time.UnixMilli(newest).UTC())
}
