package main

import (
	"context"
	"errors"
	"fmt"

	"github.com/IBM/sarama"
)

// consumer fits sarama onto this command: read_committed, errors told.
func consumer(c *sarama.Config) {
	c.Consumer.IsolationLevel = sarama.ReadCommitted
	c.Consumer.Return.Errors = true
}

// follow prints from the chosen place on, without a group.
func (c *consuming) follow(ctx context.Context) error {
	spans, err := c.resolve(ctx)
	if err != nil {
		return err
	}
	cfg, err := c.cluster.saramaFor(consumer) //nolint:contextcheck // sarama dials later, with contexts of its own
	if err != nil {
		return err
	}
	source, err := await(ctx, func() (sarama.Consumer, error) { return sarama.NewConsumer(c.cluster.topology.Addresses(), cfg) })
	if err != nil {
		return fmt.Errorf("consume from %s: %w", c.cluster.Name(), err)
	}
	// The readers end when done is closed; the consumer is closed once they have.
	done := make(chan struct{})
	messages, faults := make(chan *sarama.ConsumerMessage, 1024), make(chan error)
	var readers []sarama.PartitionConsumer
	defer func() {
		close(done)
		for _, r := range readers {
			r.AsyncClose()
		}
		_ = source.Close()
	}()
	for id, s := range spans {
		reader, err := await(ctx, func() (sarama.PartitionConsumer, error) { return source.ConsumePartition(c.topic.Name, id, s.from) })
		if err != nil {
			return fmt.Errorf("consume partition %d of %s from %d: %w", id, c.topic.Name, s.from, err)
		}
		readers = append(readers, reader)
		go forward(reader, messages, faults, done)
	}
	for {
		var message *sarama.ConsumerMessage
		select {
		case message = <-messages:
		default: // nothing waits: let the reader see what there is
			if err := c.writer.flush(); err != nil {
				return fmt.Errorf("write output: %w", err)
			}
			select {
			case message = <-messages:
			case err := <-faults:
				return err
			case <-ctx.Done():
				return ctx.Err()
			}
		}
		if err := c.print(fromMessage(message)); err != nil {
			return err
		}
		if ctx.Err() != nil {
			return ctx.Err()
		}
	}
}

// forward joins one partition to the common channels until done. Faults that
// pass are sarama's own business: it tries again for ever.
func forward(reader sarama.PartitionConsumer, messages chan<- *sarama.ConsumerMessage, faults chan<- error, done <-chan struct{}) {
	for {
		select {
		case m, ok := <-reader.Messages():
			if !ok {
				return
			}
			select {
			case messages <- m:
			case <-done:
				return
			}
		case e, ok := <-reader.Errors():
			if !ok {
				return
			}
			if !errors.Is(e.Err, sarama.ErrOffsetOutOfRange) && !errors.Is(e.Err, sarama.ErrTopicAuthorizationFailed) {
				continue
			}
			select {
			case faults <- fmt.Errorf("consume partition %d of %s: %w", e.Partition, e.Topic, e.Err):
			case <-done:
			}
			return
		case <-done:
			return
		}
	}
}

func fromMessage(m *sarama.ConsumerMessage) record {
	r := record{topic: m.Topic, partition: m.Partition, offset: m.Offset, millis: m.Timestamp.UnixMilli(), key: m.Key, value: m.Value}
	for _, h := range m.Headers {
		r.headers = append(r.headers, header{string(h.Key), h.Value})
	}
	return r
}
