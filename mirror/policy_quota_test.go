package mirror_test

import (
	"sync"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
)

// TestQuota: a broker that asks to be left alone for a while is, on either side.
func TestQuota(t *testing.T) {
	const throttle = 1500 * time.Millisecond
	for _, tt := range []struct {
		side string
		key  kmsg.Key
	}{{"target", kmsg.Produce}, {"source", kmsg.Fetch}} {
		t.Run(tt.side, func(t *testing.T) {
			s := newSite(t, "orders", 1)
			cluster, topic := s.west, "east.orders"
			if tt.side == "source" {
				cluster, topic = s.east, "orders"
			}
			var mu sync.Mutex
			var asked []time.Time
			cluster.ControlKey(int16(tt.key), func(r kmsg.Request) (kmsg.Response, error, bool) {
				cluster.KeepControl()
				switch req := r.(type) {
				case *kmsg.ProduceRequest:
					id, _ := topicID(cluster, topic)
					if len(req.Topics) == 0 || req.Topics[0].Topic != topic && req.Topics[0].TopicID != id {
						return nil, nil, false
					}
				case *kmsg.FetchRequest:
					if req.MinBytes != 1 || req.IsolationLevel != 1 { // of the positions
						return nil, nil, false
					}
				}
				mu.Lock()
				defer mu.Unlock()
				asked = append(asked, time.Now())
				if len(asked) > 1 {
					return nil, nil, false
				}
				switch req := r.(type) {
				case *kmsg.ProduceRequest:
					resp := req.ResponseKind().(*kmsg.ProduceResponse)
					resp.ThrottleMillis = int32(throttle / time.Millisecond)
					for _, asked := range req.Topics {
						one := kmsg.NewProduceResponseTopic()
						one.Topic, one.TopicID = asked.Topic, asked.TopicID
						for _, p := range asked.Partitions {
							part := kmsg.NewProduceResponseTopicPartition()
							part.Partition, part.ErrorCode = p.Partition, kerr.NotEnoughReplicas.Code
							one.Partitions = append(one.Partitions, part)
						}
						resp.Topics = append(resp.Topics, one)
					}
					return resp, nil, true
				case *kmsg.FetchRequest:
					resp := req.ResponseKind().(*kmsg.FetchResponse)
					resp.ThrottleMillis = int32(throttle / time.Millisecond)
					return resp, nil, true
				}
				return nil, nil, false
			})
			s.produce("orders", 1, 0, 20)
			s.run()
			s.mirrored("east.orders", 1, 20)
			mu.Lock()
			defer mu.Unlock()
			if len(asked) < 2 {
				t.Fatalf("asked %d times", len(asked))
			}
			if waited := asked[1].Sub(asked[0]); waited < throttle {
				t.Errorf("asked again after %v, the broker wanted %v", waited, throttle)
			}
		})
	}
}

func topicID(c *kfake.Cluster, topic string) ([16]byte, bool) {
	info := c.TopicInfo(topic)
	if info == nil {
		return [16]byte{}, false
	}
	return info.TopicID, true
}

// TestCodecRefused: batches whose codec the target does not know go without one.
func TestCodecRefused(t *testing.T) {
	s := newSite(t, "orders", 1)
	s.west.Fault(kfake.Fault{
		Keys: []kmsg.Key{kmsg.Produce}, Err: kerr.UnsupportedCompressionType, Count: -1,
		When: func(r kmsg.Request) bool {
			for _, topic := range r.(*kmsg.ProduceRequest).Topics {
				for _, p := range topic.Partitions {
					if len(p.Records) > 22 && p.Records[22]&7 == 4 { // zstd
						return true
					}
				}
			}
			return false
		},
	})
	cl := s.client(s.east, kgo.ProducerBatchCompression(kgo.ZstdCompression()))
	for range 20 {
		if err := cl.ProduceSync(t.Context(), &kgo.Record{Topic: "orders", Value: make([]byte, 5000)}).FirstErr(); err != nil {
			t.Fatal(err)
		}
	}
	e, _ := s.run()
	s.read("east.orders", 20)
	if modes := e.Status().Flows[0].Topics[0].Modes; modes["raw"] != 0 {
		t.Errorf("modes %v", modes)
	}
}
