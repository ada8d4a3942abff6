package main

import (
	"context"
	"errors"
	"fmt"

	"github.com/IBM/sarama"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"

	"kmirror/internal/wire"
)

// readToEnd prints partition after partition up to where each ended when the
// command began. With a group it begins where the group stands and commits at
// the end, as a consumer that assigns its partitions itself.
func (c *consuming) readToEnd(ctx context.Context) error {
	spans, err := c.resolve(ctx)
	if err != nil {
		return err
	}
	if c.group != "" {
		if err := c.fromCommitted(ctx, spans); err != nil {
			return err
		}
	}
	next := map[int32]int64{}
	for _, id := range c.partitions {
		s := spans[id]
		if s.from >= s.end {
			continue
		}
		reached, readErr := c.readPartition(ctx, id, s)
		if reached > s.from {
			next[id] = reached
		}
		if err = readErr; err != nil {
			break
		}
	}
	if err != nil && !errors.Is(err, errEnough) && ctx.Err() == nil {
		return err
	}
	if flushErr := c.writer.flush(); flushErr != nil {
		return fmt.Errorf("write output: %w", flushErr)
	}
	if c.group != "" && len(next) > 0 {
		// Also after ctrl-c: what was printed was printed.
		return errors.Join(c.commit(context.WithoutCancel(ctx), next), err)
	}
	return err
}

// readPartition prints a span and returns the offset after the last record printed, or after the span.
func (c *consuming) readPartition(ctx context.Context, id int32, s span) (next int64, err error) {
	next = s.from
	ended := errors.New("end of span")
	_, err = c.cluster.Read(ctx, c.topic.Name, id, s.from, func(r wire.Record) error {
		if r.Offset >= s.end {
			return ended
		}
		out := record{topic: c.topic.Name, partition: id, offset: r.Offset, millis: r.Timestamp, key: r.Key, value: r.Value}
		for _, h := range r.Headers {
			out.headers = append(out.headers, header{h.Key, h.Value})
		}
		err := c.print(out)
		if err == nil || errors.Is(err, errEnough) {
			next = r.Offset + 1
		}
		if err == nil {
			err = ctx.Err()
		}
		return err
	})
	switch {
	case err == nil, errors.Is(err, ended):
		return s.end, nil // what is left of the span is markers and holes
	case errors.Is(err, errEnough):
		return next, errEnough
	default:
		return next, fmt.Errorf("read partition %d of %s at %d: %w", id, c.topic.Name, next, err)
	}
}

// fromCommitted moves the spans to where the group stands.
func (c *consuming) fromCommitted(ctx context.Context, spans map[int32]span) error {
	admin, err := c.cluster.Admin(ctx)
	if err != nil {
		return fmt.Errorf("ask for the offsets of group %s: %w", c.group, err)
	}
	answer, err := await(ctx, func() (*sarama.OffsetFetchResponse, error) {
		return admin.ListConsumerGroupOffsets(c.group, map[string][]int32{c.topic.Name: c.partitions})
	})
	if err != nil {
		return fmt.Errorf("ask for the offsets of group %s: %w", c.group, err)
	}
	for id, s := range spans {
		block := answer.GetBlock(c.topic.Name, id)
		if block != nil && block.Err == sarama.ErrNoError && block.Offset >= 0 {
			spans[id] = span{block.Offset, s.end}
		}
	}
	return nil
}

// commit writes offsets of a group that has no members.
func (c *consuming) commit(ctx context.Context, next map[int32]int64) error {
	ctx, cancel := context.WithTimeout(ctx, c.app.timeout)
	defer cancel()
	request := kmsg.NewPtrOffsetCommitRequest()
	request.Group = c.group
	request.Generation = -1
	topic := kmsg.NewOffsetCommitRequestTopic()
	topic.Topic = c.topic.Name
	for id, offset := range next {
		p := kmsg.NewOffsetCommitRequestTopicPartition()
		p.Partition, p.Offset = id, offset
		topic.Partitions = append(topic.Partitions, p)
	}
	request.Topics = append(request.Topics, topic)
	answer, err := c.cluster.RequestGroup(ctx, c.group, request)
	if err != nil {
		return fmt.Errorf("commit offsets of group %s: %w", c.group, err)
	}
	response, ok := answer.(*kmsg.OffsetCommitResponse)
	if !ok {
		return fmt.Errorf("commit offsets of group %s: unexpected answer %T", c.group, answer)
	}
	for _, t := range response.Topics {
		for _, p := range t.Partitions {
			switch err := kerr.ErrorForCode(p.ErrorCode); {
			case errors.Is(err, kerr.UnknownMemberID), errors.Is(err, kerr.IllegalGeneration):
				return withCode(exitBusy, fmt.Errorf("commit offsets of group %s: it has members; without --until-end this would join them", c.group))
			case err != nil:
				return fmt.Errorf("commit offset of group %s, partition %d: %w", c.group, p.Partition, err)
			}
		}
	}
	return nil
}
