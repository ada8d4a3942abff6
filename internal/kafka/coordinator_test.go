package kafka_test

import (
	"context"
	"errors"
	"sync/atomic"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kmsg"

	"kmirror/internal/kafka"
)

func commit(group, topic string, offset int64) kmsg.Request {
	req := kmsg.NewPtrOffsetCommitRequest()
	req.Group, req.Generation = group, -1
	rt := kmsg.NewOffsetCommitRequestTopic()
	rt.Topic = topic
	rp := kmsg.NewOffsetCommitRequestTopicPartition()
	rp.Offset = offset
	rt.Partitions = append(rt.Partitions, rp)
	req.Topics = append(req.Topics, rt)
	return req
}

func TestRequestGroupFollowsTheCoordinator(t *testing.T) {
	fake, c := start(t, kfake.NumBrokers(3), kfake.SeedTopics(1, "orders"))
	var refused atomic.Int32
	fake.ControlKey(8, func(req kmsg.Request) (kmsg.Response, error, bool) {
		codes := []int16{kerr.CoordinatorLoadInProgress.Code, kerr.CoordinatorNotAvailable.Code, kerr.NotCoordinator.Code}
		n := int(refused.Add(1)) - 1
		if n >= len(codes) {
			return nil, nil, false
		}
		fake.KeepControl()
		resp := req.ResponseKind().(*kmsg.OffsetCommitResponse)
		rt := kmsg.NewOffsetCommitResponseTopic()
		rt.Topic = "orders"
		rp := kmsg.NewOffsetCommitResponseTopicPartition()
		rp.ErrorCode = codes[n]
		rt.Partitions = append(rt.Partitions, rp)
		resp.Topics = append(resp.Topics, rt)
		return resp, nil, true
	})
	for i := range int64(5) {
		if i > 0 {
			fake.RehashCoordinators()
		}
		resp, err := c.RequestGroup(t.Context(), "readers", commit("readers", "orders", i))
		if err != nil {
			t.Fatal(err)
		}
		if code := resp.(*kmsg.OffsetCommitResponse).Topics[0].Partitions[0].ErrorCode; code != 0 {
			t.Errorf("commit %d: code %d", i, code)
		}
	}
	if refused.Load() < 4 {
		t.Errorf("%d commits reached a coordinator", refused.Load())
	}
	by, err := c.Coordinators(t.Context(), []string{"readers", "b", "c", "d"})
	if err != nil {
		t.Fatal(err)
	}
	n := 0
	for broker, groups := range by {
		for _, g := range groups {
			n++
			if want := fake.CoordinatorFor(g); broker != want {
				t.Errorf("coordinator of %s is %d, want %d", g, broker, want)
			}
		}
	}
	if n != 4 {
		t.Errorf("%d groups of 4", n)
	}
	if _, err := c.RequestTransaction(t.Context(), "tx", initProducer("tx")); err != nil {
		t.Errorf("RequestTransaction: %v", err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
	defer cancel()
	refused.Store(-1000)
	fake.ControlKey(10, func(req kmsg.Request) (kmsg.Response, error, bool) {
		fake.KeepControl()
		resp := req.ResponseKind().(*kmsg.FindCoordinatorResponse)
		resp.Coordinators = append(resp.Coordinators, kmsg.FindCoordinatorResponseCoordinator{Key: "late", ErrorCode: kerr.CoordinatorNotAvailable.Code})
		return resp, nil, true
	})
	if _, err := c.RequestGroup(ctx, "late", commit("late", "orders", 1)); !errors.Is(err, context.DeadlineExceeded) || !errors.Is(err, kerr.CoordinatorNotAvailable) {
		t.Errorf("no coordinator in time: %v", err)
	}
}

func initProducer(id string) kmsg.Request {
	req := kmsg.NewPtrInitProducerIDRequest()
	req.TransactionalID, req.TransactionTimeoutMillis = &id, 10_000
	req.ProducerID, req.ProducerEpoch = -1, -1
	return req
}

// An old broker finds one coordinator at a time.
func TestCoordinatorsOneByOne(t *testing.T) {
	_, c := start(t, kfake.NumBrokers(2), kfake.SeedTopics(1, "orders"))
	for _, group := range []string{"a", "b"} {
		if _, err := c.RequestGroup(t.Context(), group, kafka.AtMost(commit(group, "orders", 1), 2)); err != nil {
			t.Error(err)
		}
	}
}
