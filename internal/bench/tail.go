package bench

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"
	"golang.org/x/sync/errgroup"

	"kmirror/internal/kafka"
	"kmirror/internal/wire"
)

// tail reads what is new in a topic, with one long poll at each leader and an
// incremental fetch session (KIP-227), so that many quiet partitions cost
// nothing.
type tail struct {
	topic   string
	cluster *kafka.Cluster
	starts  map[int32]map[int32]int64 // by leader and partition: where to begin
}

// newTail stands at the ends of all partitions.
func newTail(ctx context.Context, cluster *kafka.Cluster, topic string) (*tail, error) {
	leaders, err := leadersOf(ctx, cluster, topic)
	if err != nil {
		return nil, err
	}
	t := &tail{topic: topic, cluster: cluster, starts: map[int32]map[int32]int64{}}
	wanted := make([]int32, len(leaders))
	for i := range wanted {
		wanted[i] = int32(i)
	}
	ends, err := cluster.ListOffsets(ctx, map[string][]int32{topic: wanted}, kafka.Latest)
	if err != nil {
		return nil, err
	}
	for partition, leader := range leaders {
		if t.starts[leader] == nil {
			t.starts[leader] = map[int32]int64{}
		}
		t.starts[leader][int32(partition)] = ends[topic][int32(partition)]
	}
	return t, nil
}

// run hands over what comes until ctx ends, then it returns nil. arrived is
// called from one goroutine for each leader.
func (t *tail) run(ctx context.Context, arrived func(records []wire.Record, at time.Time)) error {
	g, ctx := errgroup.WithContext(ctx)
	for leader := range t.starts {
		g.Go(func() error {
			conn, err := t.cluster.Connect(ctx, leader)
			if err != nil {
				return err
			}
			defer func() { _ = conn.Close() }() // its error is always nil
			one := session{topic: t.topic, conn: conn, offsets: t.starts[leader], arrived: arrived}
			for ctx.Err() == nil {
				if err = one.poll(ctx); err != nil {
					break
				}
			}
			if ctx.Err() != nil {
				return nil
			}
			return fmt.Errorf("read %s: %w", t.topic, err)
		})
	}
	return g.Wait()
}

// session is a fetch session at one leader. It is owned by one goroutine.
type session struct {
	topic   string
	conn    *wire.Conn
	offsets map[int32]int64
	arrived func(records []wire.Record, at time.Time)

	id, epoch int32
	moved     []int32 // partitions whose offset the broker does not know yet
}

// poll waits for what is new, half a second at most.
func (s *session) poll(ctx context.Context) error {
	request := kmsg.NewPtrFetchRequest()
	request.MaxWaitMillis, request.MinBytes, request.MaxBytes = 500, 1, 16<<20
	request.SessionID, request.SessionEpoch = s.id, s.epoch
	t := kmsg.NewFetchRequestTopic()
	t.Topic = s.topic
	ask := func(partition int32) {
		p := kmsg.NewFetchRequestTopicPartition()
		p.Partition, p.FetchOffset, p.PartitionMaxBytes, p.CurrentLeaderEpoch = partition, s.offsets[partition], 1<<20, -1
		t.Partitions = append(t.Partitions, p)
	}
	if s.epoch == 0 {
		for partition := range s.offsets {
			ask(partition)
		}
	} else {
		for _, partition := range s.moved {
			ask(partition)
		}
	}
	if len(t.Partitions) > 0 {
		request.Topics = append(request.Topics, t)
	}
	s.moved = s.moved[:0]
	response, err := s.conn.DoMax(ctx, request, byName)
	at := time.Now()
	if err != nil {
		return err
	}
	answer, ok := response.(*kmsg.FetchResponse)
	if !ok {
		return errors.New("a broker's answer to Fetch is none")
	}
	switch err := kerr.ErrorForCode(answer.ErrorCode); {
	case errors.Is(err, kerr.FetchSessionIDNotFound), errors.Is(err, kerr.InvalidFetchSessionEpoch):
		s.id, s.epoch = 0, 0
		return nil
	case err != nil:
		return err
	}
	if s.id = answer.SessionID; s.id != 0 { // 0: the broker keeps none
		s.epoch++
	}
	for _, t := range answer.Topics {
		for i := range t.Partitions {
			if err := s.take(&t.Partitions[i], at); err != nil {
				return err
			}
		}
	}
	return nil
}

func (s *session) take(p *kmsg.FetchResponseTopicPartition, at time.Time) error {
	if err := kerr.ErrorForCode(p.ErrorCode); err != nil {
		return fmt.Errorf("partition %d: %w", p.Partition, err)
	}
	offset := s.offsets[p.Partition]
	for rest := p.RecordBatches; ; {
		var batch wire.Batch
		var err error
		if batch, rest, err = wire.NextBatch(rest); errors.Is(err, wire.ErrPartialBatch) {
			break
		} else if err != nil {
			return fmt.Errorf("partition %d: %w", p.Partition, err)
		}
		if batch.LastOffset() < offset {
			continue
		}
		offset = batch.LastOffset() + 1
		if batch.IsControl() {
			continue
		}
		records, err := batch.Records(inflateLimit)
		if err != nil {
			return fmt.Errorf("partition %d: %w", p.Partition, err)
		}
		s.arrived(records, at)
	}
	if offset != s.offsets[p.Partition] {
		s.offsets[p.Partition] = offset
		s.moved = append(s.moved, p.Partition)
	}
	return nil
}
