package bench

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"
	"golang.org/x/sync/errgroup"

	"kmirror/internal/kafka"
	"kmirror/internal/wire"
)

const (
	// fillers is how many requests of a load are under way: one-record batches
	// are bound by their number.
	fillers = 16
	// perRequest is how many partitions one of them writes to.
	perRequest = 64
	// byName is the last version of Produce and Fetch that names topics by name.
	byName = 12
)

// Fill writes the workload's records into the topic, as fast as the cluster
// takes them. step hears how many are written, from several goroutines. Which
// of two batches comes first is left to chance.
func (w Workload) Fill(ctx context.Context, cluster *kafka.Cluster, topic string, step func(records int64)) error {
	each := w.perBatch()
	batches := (w.Records + each - 1) / each
	var next, written atomic.Int64
	g, ctx := errgroup.WithContext(ctx)
	for range fillers {
		g.Go(func() error {
			m := &maker{w: w}
			p, err := connectLeaders(ctx, cluster, topic)
			if err != nil {
				return err
			}
			defer p.close()
			width := min(int64(w.Partitions), perRequest)
			if w.BatchSize > 0 || w.RecordSize > 64<<10 {
				width = min(width, 4)
			}
			for {
				first := next.Add(width) - width
				if first >= batches {
					return nil
				}
				var records int64
				for batch := first; batch < min(first+width, batches); batch++ {
					count := min(each, w.Records-batch*each)
					encoded, err := m.encode(batch*each, count, time.Now())
					if err != nil {
						return fmt.Errorf("make batch %d of %s: %w", batch, w.Name, err)
					}
					p.add(int32(batch%int64(w.Partitions)), append([]byte(nil), encoded...))
					records += count
				}
				if err := p.sendAll(ctx); err != nil {
					return fmt.Errorf("write %s: %w", topic, err)
				}
				step(written.Add(records))
			}
		})
	}
	return g.Wait()
}

// producer writes batches to the leaders of one topic, one request to each at a
// time. It is owned by one goroutine.
type producer struct {
	topic   string
	leaders []int32 // by partition
	conns   map[int32]*wire.Conn
	waiting map[int32]*kmsg.ProduceRequest // by leader
}

func connectLeaders(ctx context.Context, cluster *kafka.Cluster, topic string) (*producer, error) {
	leaders, err := leadersOf(ctx, cluster, topic)
	if err != nil {
		return nil, err
	}
	p := &producer{topic: topic, leaders: leaders, conns: map[int32]*wire.Conn{}, waiting: map[int32]*kmsg.ProduceRequest{}}
	for _, leader := range leaders {
		if p.conns[leader] != nil {
			continue
		}
		conn, err := cluster.Connect(ctx, leader)
		if err != nil {
			p.close()
			return nil, err
		}
		p.conns[leader] = conn
	}
	return p, nil
}

// leadersOf are the leaders of all partitions of a topic that is there.
func leadersOf(ctx context.Context, cluster *kafka.Cluster, topic string) ([]int32, error) {
	metadata, err := cluster.Metadata(ctx, topic)
	if err != nil {
		return nil, err
	}
	t := metadata.Topics[topic]
	if t == nil || t.Err != nil || len(t.Partitions) == 0 {
		return nil, fmt.Errorf("topic %s in %s: %w", topic, cluster.Name(), kerr.UnknownTopicOrPartition)
	}
	var leaders []int32
	for _, partition := range t.Partitions {
		if partition.Err != nil || partition.Leader < 0 {
			return nil, fmt.Errorf("%s/%d in %s: %w", topic, partition.ID, cluster.Name(), kerr.LeaderNotAvailable)
		}
		leaders = append(leaders, partition.Leader)
	}
	return leaders, nil
}

func (p *producer) add(partition int32, batch []byte) {
	leader := p.leaders[partition]
	request := p.waiting[leader]
	if request == nil {
		request = kmsg.NewPtrProduceRequest()
		request.Acks, request.TimeoutMillis = -1, 30_000
		t := kmsg.NewProduceRequestTopic()
		t.Topic = p.topic
		request.Topics = append(request.Topics, t)
		p.waiting[leader] = request
	}
	one := kmsg.NewProduceRequestTopicPartition()
	one.Partition, one.Records = partition, batch
	request.Topics[0].Partitions = append(request.Topics[0].Partitions, one)
}

// sendAll sends what waits and awaits the acknowledgements. What a partition
// refuses for the moment, as a new one does, is sent again.
func (p *producer) sendAll(ctx context.Context) error {
	for try := 0; ; try++ {
		refused, err := p.send(ctx)
		if err != nil || len(p.waiting) == 0 {
			return err
		}
		if try == 150 { // a topic of a thousand partitions takes its time
			return refused
		}
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-time.After(100 * time.Millisecond):
		}
	}
}

// send sends what waits once; what was refused for the moment waits again, and
// refused is the last word about it.
func (p *producer) send(ctx context.Context) (refused, err error) {
	requests := p.waiting
	p.waiting = make(map[int32]*kmsg.ProduceRequest, len(requests))
	for leader, request := range requests {
		response, err := p.conns[leader].DoMax(ctx, request, byName)
		if err != nil {
			return nil, err
		}
		answer, ok := response.(*kmsg.ProduceResponse)
		if !ok || len(answer.Topics) != 1 {
			return nil, errors.New("a broker's answer to Produce is none")
		}
		for _, partition := range answer.Topics[0].Partitions {
			err := kerr.ErrorForCode(partition.ErrorCode)
			switch {
			case err == nil:
			case !kerr.IsRetriable(err):
				return nil, fmt.Errorf("partition %d: %w", partition.Partition, err)
			default:
				refused = fmt.Errorf("partition %d: %w", partition.Partition, err)
				for _, sent := range request.Topics[0].Partitions {
					if sent.Partition == partition.Partition {
						p.add(sent.Partition, sent.Records)
					}
				}
			}
		}
	}
	return refused, nil
}

func (p *producer) close() {
	for _, conn := range p.conns {
		_ = conn.Close() // its error is always nil
	}
}
