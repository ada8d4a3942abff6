package kafka

import (
	"context"
	"fmt"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"

	"kmirror/internal/wire"
)

// produceTimeout is how long a leader may wait for its replicas, in milliseconds.
const produceTimeout = 15_000

// Append writes records as one batch, acknowledged by all replicas in sync, and
// returns the offset of the first. It is tried again until ctx ends on whatever
// is temporary, an unreachable cluster included. A try whose answer was lost
// may have been written: then the records are there twice. Other refusals come
// back at once.
func (c *Cluster) Append(ctx context.Context, topic string, partition int32, records []wire.Record) (base int64, err error) {
	batch, err := wire.EncodeBatch(nil, records, wire.Plain(wire.CodecNone))
	if err != nil {
		return -1, c.errorf(err, "append to %s/%d", topic, partition)
	}
	batch.SetBaseOffset(0)
	var pause backoff
	for {
		base, err := c.Produce(ctx, topic, partition, batch)
		if err == nil {
			return base, nil
		}
		if !temporary(ctx, err) {
			return -1, c.errorf(err, "append to %s/%d", topic, partition)
		}
		if stopped := pause.wait(ctx); stopped != nil {
			return -1, c.errorf(fmt.Errorf("%w: %w", stopped, err), "append to %s/%d", topic, partition)
		}
	}
}

// Produce sends one batch, as it is, to the leader of its partition, and waits for
// all replicas in sync. It retries as RequestLeader does, so the batch may be sent
// more than once: without a producer id in it, it may be written more than once.
func (c *Cluster) Produce(ctx context.Context, topic string, partition int32, batch wire.Batch) (int64, error) {
	build := func(t *Topic) kmsg.Request {
		req := kmsg.NewPtrProduceRequest()
		req.Acks = -1
		req.TimeoutMillis = produceTimeout
		rt := kmsg.NewProduceRequestTopic()
		rt.Topic, rt.TopicID = t.Name, t.ID
		rp := kmsg.NewProduceRequestTopicPartition()
		rp.Partition, rp.Records = partition, batch
		rt.Partitions = append(rt.Partitions, rp)
		req.Topics = append(req.Topics, rt)
		if t.ID != [16]byte{} {
			return AtMost(req, req.MaxVersion())
		}
		return req
	}
	base := int64(-1)
	_, err := c.toLeader(ctx, topic, partition, build, func(resp kmsg.Response) error {
		produced, err := as[*kmsg.ProduceResponse](resp, nil)
		if err != nil {
			return err
		}
		for _, t := range produced.Topics {
			for _, p := range t.Partitions {
				if p.Partition != partition {
					continue
				}
				base = p.BaseOffset
				return explained(kerr.ErrorForCode(p.ErrorCode), p.ErrorMessage)
			}
		}
		return fmt.Errorf("the response lacks partition %d", partition)
	})
	return base, err
}
