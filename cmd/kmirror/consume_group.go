package main

import (
	"context"
	"errors"
	"fmt"
	"sync"

	"github.com/IBM/sarama"
)

// followAsMember prints as a member of a group. What was printed is committed,
// no less and, when it stops in order, no more.
func (c *consuming) followAsMember(ctx context.Context) error {
	cfg, err := c.cluster.saramaFor(func(s *sarama.Config) { //nolint:contextcheck // sarama dials later, with contexts of its own
		consumer(s)
		s.Consumer.Offsets.Initial = sarama.OffsetOldest
		if c.from.kind == atLatest {
			s.Consumer.Offsets.Initial = sarama.OffsetNewest
		}
	})
	if err != nil {
		return err
	}
	group, err := await(ctx, func() (sarama.ConsumerGroup, error) {
		return sarama.NewConsumerGroup(c.cluster.topology.Addresses(), c.group, cfg)
	})
	if err != nil {
		return fmt.Errorf("join group %s: %w", c.group, err)
	}
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	faults := make(chan error, 1)
	go func() {
		for err := range group.Errors() {
			select {
			case faults <- err:
			default: // one is enough to tell
			}
		}
	}()
	member := &member{consuming: c, stop: cancel}
	for ctx.Err() == nil {
		// Returns at every rebalance, and is called again.
		if err = group.Consume(ctx, []string{c.topic.Name}, member); err != nil {
			break
		}
	}
	if closeErr := group.Close(); err == nil && ctx.Err() == nil {
		err = closeErr
	}
	if errors.Is(context.Cause(ctx), errEnough) {
		return nil
	}
	if cause := context.Cause(ctx); cause != nil {
		if _, ok := errors.AsType[*signalError](cause); ok {
			return nil
		}
		return cause
	}
	if err != nil {
		return fmt.Errorf("consume as a member of group %s: %w", c.group, err)
	}
	select {
	case err := <-faults:
		return fmt.Errorf("consume as a member of group %s: %w", c.group, err)
	default:
		return nil
	}
}

// member is one membership; its claims run at the same time and print in turn.
type member struct {
	*consuming
	stop context.CancelCauseFunc

	mu sync.Mutex // guards printing and the flush before each mark
}

func (*member) Setup(sarama.ConsumerGroupSession) error { return nil }

func (m *member) Cleanup(session sarama.ConsumerGroupSession) error {
	session.Commit()
	return nil
}

func (m *member) ConsumeClaim(session sarama.ConsumerGroupSession, claim sarama.ConsumerGroupClaim) error {
	for {
		select {
		case message, ok := <-claim.Messages():
			if !ok {
				return nil
			}
			if err := m.take(session, message, len(claim.Messages()) == 0); err != nil {
				m.stop(err)
				return nil
			}
		case <-session.Context().Done():
			return nil
		}
	}
}

// take prints a record, then marks it: a record that nobody saw is never committed.
func (m *member) take(session sarama.ConsumerGroupSession, message *sarama.ConsumerMessage, flush bool) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if session.Context().Err() != nil || m.count > 0 && m.printed >= m.count {
		return errEnough
	}
	err := m.print(fromMessage(message))
	if err != nil && !errors.Is(err, errEnough) {
		return err
	}
	if flush || err != nil {
		if flushErr := m.writer.flush(); flushErr != nil {
			return fmt.Errorf("write output: %w", flushErr)
		}
	}
	session.MarkMessage(message, "")
	return err
}
