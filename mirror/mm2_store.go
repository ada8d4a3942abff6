package mirror

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"

	"kmirror/checkpoint"
	"kmirror/internal/kafka"
	"kmirror/internal/mm2"
	"kmirror/internal/wire"
	"kmirror/topology"
)

// mm2Legacy is what a MirrorMaker 2 that no longer runs has left in both clusters.
type mm2Legacy struct {
	positions *mm2.Positions
	syncs     map[mm2.Partition]*mm2.Syncs
}

// mm2Store reads it, for all partitions of a flow at once. It is read after a look
// that found no MirrorMaker 2 running, so that it is final.
type mm2Store struct {
	cfg            func() *topology.Flow
	source, target *kafka.Cluster
	log            *slog.Logger

	turn chan struct{} // capacity 1: whoever filled it owns the fields below
	last *mm2Legacy
	at   time.Time
}

// mm2Fresh is for how long what was read is believed: partitions begin together.
const mm2Fresh = 3 * time.Second

func newMM2Store(cfg func() *topology.Flow, source, target *kafka.Cluster, log *slog.Logger) *mm2Store {
	return &mm2Store{cfg: cfg, source: source, target: target, log: log, turn: make(chan struct{}, 1)}
}

// get is what MirrorMaker 2 left; a *waitError while it still runs.
func (s *mm2Store) get(ctx context.Context) (*mm2Legacy, error) {
	select {
	case s.turn <- struct{}{}:
		defer func() { <-s.turn }()
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	if s.last != nil && time.Since(s.at) < mm2Fresh {
		return s.last, nil
	}
	cfg := s.cfg()
	running, err := s.running(ctx, cfg)
	switch {
	case err != nil:
		return nil, err
	case running != "":
		return nil, &waitError{running + ": stop MirrorMaker 2 first; mirroring goes on by itself when it has ended"}
	}
	legacy := &mm2Legacy{syncs: map[mm2.Partition]*mm2.Syncs{}}
	if legacy.positions, err = s.positions(ctx, cfg); err != nil {
		return nil, err
	}
	if err := s.syncs(ctx, cfg, legacy.syncs); err != nil {
		return nil, err
	}
	s.log.Info("read what MirrorMaker 2 left", slog.Int("positions", legacy.positions.Len()), slog.Int("synced_partitions", len(legacy.syncs)))
	s.last, s.at = legacy, time.Now()
	return legacy, nil
}

// mm2Names are the names that the source connector may have: the configured one, and if
// that is the dedicated mode's, Strimzi's too.
func mm2Names(cfg *topology.Flow) []string {
	names := []string{cfg.MirrorMaker2.Connector}
	if cfg.MirrorMaker2.Connector == mm2Dedicated {
		names = append(names, cfg.Name+"."+mm2Dedicated)
	}
	return names
}

// mm2Dedicated is the connector's name in dedicated mode, where every pair of clusters
// has a group of workers of its own: <source>-mm2.
const mm2Dedicated = "MirrorSourceConnector"

// positions reads the offsets topic.
func (s *mm2Store) positions(ctx context.Context, cfg *topology.Flow) (*mm2.Positions, error) {
	positions, topic := mm2.NewPositions(cfg.From, mm2Names(cfg)...), cfg.MirrorMaker2.OffsetsTopic
	meta, err := s.target.Metadata(ctx, topic)
	if err != nil {
		return nil, fmt.Errorf("look for %s: %w", topic, err)
	}
	t := meta.Topics[topic]
	switch {
	case t == nil || errors.Is(t.Err, kerr.UnknownTopicOrPartition):
		s.log.Warn("MirrorMaker 2's positions are not there", slog.String("topic", topic), slog.String("cluster", s.target.Name()))
		return positions, nil
	case t.Err != nil:
		return nil, fmt.Errorf("look for %s: %w", topic, t.Err)
	}
	for n := range t.Partitions {
		at := int32(n)
		start, end, err := ends(ctx, s.target, topic, at)
		if err != nil {
			return nil, err
		}
		err = readCommitted(ctx, s.target, topic, at, start, end, func(x wire.Record) { positions.Add(x.Key, x.Value) })
		if undecided := (*undecidedError)(nil); errors.As(err, &undecided) {
			return nil, &waitError{fmt.Sprintf("%s/%d: %v", topic, at, err)}
		}
		if err != nil {
			return nil, err
		}
	}
	if positions.Faulty > 0 {
		s.log.Warn("positions of MirrorMaker 2 that cannot be read were passed over", slog.String("topic", topic), slog.Int("records", positions.Faulty))
	}
	return positions, nil
}

// ends are the first offset of a log and the one behind its last.
func ends(ctx context.Context, c partitionReader, topic string, partition int32) (start, end int64, err error) {
	if start, err = c.ListOffset(ctx, topic, partition, atEarliest); err == nil {
		end, err = c.ListOffset(ctx, topic, partition, atLatest)
	}
	if err != nil {
		return 0, 0, fmt.Errorf("read the ends of %s/%d: %w", topic, partition, err)
	}
	return start, end, nil
}

// readCommitted reads the records of a small internal topic that were not aborted.
func readCommitted(ctx context.Context, c *kafka.Cluster, topic string, partition int32, start, end int64, fn func(wire.Record)) error {
	dropped := map[int64]bool{}
	r := logReader{from: c, topic: topic, partition: partition}
	err := r.read(ctx, start, end, func(x mm2.Record) bool {
		if x.Aborted {
			dropped[x.Offset] = true
		}
		return true
	})
	if err != nil {
		return err
	}
	_, err = c.Read(ctx, topic, partition, start, func(x wire.Record) error {
		if x.Offset < end && !dropped[x.Offset] {
			fn(x)
		}
		return nil
	})
	if err != nil {
		return fmt.Errorf("read %s/%d: %w", topic, partition, err)
	}
	return nil
}

// syncs reads the offset syncs from wherever MirrorMaker 2 wrote them.
func (s *mm2Store) syncs(ctx context.Context, cfg *topology.Flow, all map[mm2.Partition]*mm2.Syncs) error {
	for _, place := range []struct {
		cluster *kafka.Cluster
		kind    topology.OffsetSyncs
	}{{s.source, topology.OffsetSyncsSource}, {s.target, topology.OffsetSyncsTarget}} {
		there := *cfg
		there.OffsetSyncs = place.kind
		topic := there.OffsetSyncsTopic()
		meta, err := place.cluster.Metadata(ctx, topic)
		if err != nil {
			return fmt.Errorf("look for %s: %w", topic, err)
		}
		if t := meta.Topics[topic]; t == nil || t.Err != nil { // without them there is less to go by, and that is told where it matters
			continue
		}
		start, err := place.cluster.ListOffset(ctx, topic, 0, atEarliest)
		if err != nil {
			return fmt.Errorf("read the start of %s: %w", topic, err)
		}
		_, err = place.cluster.Read(ctx, topic, 0, start, func(x wire.Record) error {
			if sync, err := checkpoint.DecodeOffsetSync(x); err == nil {
				at := mm2.Partition{Topic: sync.Topic, Partition: sync.Partition}
				if all[at] == nil {
					all[at] = &mm2.Syncs{}
				}
				all[at].Add(sync.Upstream, sync.Downstream)
			}
			return nil
		})
		if err != nil {
			return fmt.Errorf("read MirrorMaker 2's offset syncs: %w", err)
		}
	}
	return nil
}

// running says, in words, that a MirrorMaker 2 for this flow runs: its workers are
// members of a group on the target.
func (s *mm2Store) running(ctx context.Context, cfg *topology.Flow) (string, error) {
	meta, err := s.target.Metadata(ctx)
	if err != nil {
		return "", fmt.Errorf("look for MirrorMaker 2's workers: %w", err)
	}
	for broker := range meta.Brokers {
		req := kmsg.NewPtrListGroupsRequest()
		resp, err := s.target.RequestBroker(ctx, broker, req)
		if err != nil {
			return "", fmt.Errorf("list the groups of %s: %w", s.target.Name(), err)
		}
		listed, ok := resp.(*kmsg.ListGroupsResponse)
		if !ok {
			continue
		}
		for i := range listed.Groups {
			g := &listed.Groups[i]
			if g.ProtocolType != "connect" {
				continue
			}
			members, err := s.workers(ctx, cfg, g.Group)
			if err != nil {
				return "", err
			}
			if members > 0 {
				return fmt.Sprintf("MirrorMaker 2 still runs: group %s on %s has members (%d)", g.Group, s.target.Name(), members), nil
			}
		}
	}
	return "", nil
}

// workers counts the members of a group of Connect workers if they run our connector.
func (s *mm2Store) workers(ctx context.Context, cfg *topology.Flow, group string) (int, error) {
	req := kmsg.NewPtrDescribeGroupsRequest()
	req.Groups = []string{group}
	resp, err := s.target.RequestGroup(ctx, group, req)
	if err != nil {
		return 0, fmt.Errorf("describe group %s: %w", group, err)
	}
	described, ok := resp.(*kmsg.DescribeGroupsResponse)
	if !ok || len(described.Groups) == 0 {
		return 0, nil
	}
	g := &described.Groups[0]
	if err := kerr.ErrorForCode(g.ErrorCode); err != nil {
		return 0, fmt.Errorf("describe group %s: %w", group, err)
	}
	ours := group == cfg.From+"-mm2"
	for _, name := range mm2Names(cfg) {
		for i := range g.Members {
			ours = ours || name != mm2Dedicated && bytes.Contains(g.Members[i].MemberAssignment, []byte(name))
		}
	}
	if !ours {
		return 0, nil
	}
	return len(g.Members), nil
}
