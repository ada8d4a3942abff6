package broker

import (
	"errors"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/twmb/franz-go/pkg/kmsg"
)

func produceOf(version int16) *kmsg.ProduceRequest {
	req := kmsg.NewPtrProduceRequest()
	req.Version, req.Acks, req.TimeoutMillis = version, -1, 1234
	for i, name := range []string{"a", "bb"} {
		t := kmsg.NewProduceRequestTopic()
		t.Topic, t.TopicID = name, [16]byte{byte(i + 1)}
		for p := range 2 {
			rp := kmsg.NewProduceRequestTopicPartition()
			rp.Partition, rp.Records = int32(p), []byte(name+"-records")
			t.Partitions = append(t.Partitions, rp)
		}
		req.Topics = append(req.Topics, t)
	}
	return req
}

func TestProduceRequestDecodesLikeKmsg(t *testing.T) {
	var q produceRequest
	for version := int16(3); version <= 13; version++ {
		if err := q.decode(version, produceOf(version).AppendTo(nil)); err != nil {
			t.Fatalf("version %d: %v", version, err)
		}
		want := produceOf(version)
		if q.acks != -1 || q.timeoutMillis != 1234 || len(q.topics) != 2 {
			t.Fatalf("version %d: %+v", version, q)
		}
		for i, topic := range q.topics {
			if version >= 13 && topic.id != want.Topics[i].TopicID || version < 13 && topic.name != want.Topics[i].Topic {
				t.Errorf("version %d: topic %+v", version, topic)
			}
			for j, p := range q.partitions[topic.first:topic.past] {
				if diff := cmp.Diff(want.Topics[i].Partitions[j].Records, p.records); p.partition != int32(j) || diff != "" {
					t.Errorf("version %d, topic %d: partition %d: %s", version, i, p.partition, diff)
				}
			}
		}
	}
}

func FuzzProduceRequest(f *testing.F) {
	for version := int16(3); version <= 13; version++ {
		f.Add(version, produceOf(version).AppendTo(nil))
	}
	f.Fuzz(func(t *testing.T, version int16, body []byte) {
		if version < 3 || version > 13 {
			return
		}
		var q produceRequest
		ours := q.decode(version, body)
		req := kmsg.NewPtrProduceRequest()
		req.SetVersion(version)
		theirs := req.ReadFrom(body)
		if (ours == nil) != (theirs == nil) && !errors.Is(ours, errTooManyEntries) {
			t.Fatalf("ours: %v, kmsg: %v", ours, theirs)
		}
		if ours == nil && len(q.topics) != len(req.Topics) {
			t.Fatalf("ours has %d topics, kmsg %d", len(q.topics), len(req.Topics))
		}
	})
}
