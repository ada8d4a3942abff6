package mirror

import (
	"context"
	"errors"
	"log/slog"
	"testing"
	"testing/synctest"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"

	"kmirror/internal/kafka"
	"kmirror/topology"
)

// scriptedCoordinator answers for one transactional id.
type scriptedCoordinator struct {
	fenceTarget
	init func(current kafka.Producer) (kafka.Producer, error)
	end  func(who kafka.Producer) (kafka.Producer, error)
}

func (s *scriptedCoordinator) InitProducer(_ context.Context, _ string, current kafka.Producer) (kafka.Producer, error) {
	return s.init(current)
}

func (s *scriptedCoordinator) ListOffset(context.Context, string, int32, int64) (int64, error) {
	return 0, nil
}

func (s *scriptedCoordinator) AddPartitions(context.Context, string, kafka.Producer, []kafka.TopicPartition) (map[kafka.TopicPartition]error, error) {
	return nil, nil
}

func (s *scriptedCoordinator) EndTransaction(_ context.Context, _ string, who kafka.Producer, _ bool) (kafka.Producer, error) {
	return s.end(who)
}

func scriptedFence(s *scriptedCoordinator) *fence {
	x := newFence(&topology.Flow{Name: "f"}, "life", s, nil)
	x.log = slog.New(slog.DiscardHandler)
	x.mode.Store(int32(fenceFull))
	x.now = kafka.Producer{ID: 1, Epoch: 3}
	return x
}

// TestHungIdentity: a transaction of ours that cannot end, because a partition
// lost its leader in its midst, holds up only those who need an epoch.
func TestHungIdentity(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		x := scriptedFence(&scriptedCoordinator{init: func(kafka.Producer) (kafka.Producer, error) {
			return kafka.NoProducer, kerr.ConcurrentTransactions
		}})
		x.used[partitionID{"f", "t", 0}] = 3
		began := time.Now()
		got := make(chan error, 1)
		go func() {
			_, err := x.next(t.Context(), partitionID{"f", "t", 0})
			got <- err
		}()
		synctest.Wait()
		x.settled(partitionID{"f", "t", 1})
		if waited := time.Since(began); waited > time.Second {
			t.Errorf("another partition waited %v", waited)
		}
		if err := <-got; err == nil || time.Since(began) > 2*fencePatience {
			t.Errorf("%v after %v", err, time.Since(began))
		}
	})
}

// TestEpochDuringOwnTransaction: the coordinator aborts what is open when it is
// asked for the next epoch, and refuses its end then as that of a fenced producer.
func TestEpochDuringOwnTransaction(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		epoch, open := int16(3), false
		s := &scriptedCoordinator{}
		s.init = func(kafka.Producer) (kafka.Producer, error) {
			epoch++
			if open {
				open = false
				return kafka.NoProducer, kerr.ConcurrentTransactions
			}
			open = epoch == 4 // the first one begins the transaction
			return kafka.Producer{ID: 1, Epoch: epoch}, nil
		}
		s.end = func(who kafka.Producer) (kafka.Producer, error) {
			time.Sleep(5 * time.Second) // the coordinator moves
			if who.Epoch != epoch {
				return kafka.NoProducer, kerr.ProducerFenced
			}
			open = false
			return who, nil
		}
		x := scriptedFence(s)
		ended := make(chan error, 1)
		go func() {
			ended <- x.transaction(t.Context(), x.id, []*fenceRequest{{partition: kafka.TopicPartition{Topic: "t"}}})
		}()
		time.Sleep(time.Second)
		x.used[partitionID{"f", "t", 1}] = 4
		p, err := x.next(t.Context(), partitionID{"f", "t", 1})
		if err := <-ended; err != nil {
			t.Error(err)
		}
		if err != nil || p.Epoch != 5 {
			t.Errorf("%v, %v", p, err)
		}
		select {
		case err := <-x.fatal:
			if errors.As(err, new(*fencedError)) {
				t.Errorf("the life ended: %v", err)
			}
		default:
		}
	})
}
