package wire_test

import (
	"bytes"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/twmb/franz-go/pkg/kmsg"

	"kmirror/internal/wire"
)

func TestEncodeProduceAgreesWithKmsg(t *testing.T) {
	big, err := wire.EncodeBatch(nil, []wire.Record{{Value: make([]byte, 70_000)}}, wire.Plain(wire.CodecNone))
	if err != nil {
		t.Fatal(err)
	}
	small := kmsgBatch(t, nil)
	topics := []wire.ProduceTopic{
		{Name: "orders", ID: [16]byte{1, 2, 3}, Partitions: []wire.ProducePartition{{Partition: 0, Batch: small}, {Partition: 300, Batch: big}}},
		{Name: "east.a-topic-with-a-long-name", ID: [16]byte{4}, Partitions: []wire.ProducePartition{{Partition: 7, Batch: big}}},
	}
	for range 200 { // names and counts that need more than one byte of length
		topics[1].Partitions = append(topics[1].Partitions, wire.ProducePartition{Partition: 9, Batch: small})
	}
	for version := int16(3); version <= 13; version++ {
		for _, some := range [][]wire.ProduceTopic{nil, topics[:1], topics} {
			req := kmsg.NewPtrProduceRequest()
			req.SetVersion(version)
			req.Acks, req.TimeoutMillis = -1, 12_345
			for _, topic := range some {
				rt := kmsg.ProduceRequestTopic{Topic: topic.Name, TopicID: topic.ID}
				for _, p := range topic.Partitions {
					rt.Partitions = append(rt.Partitions, kmsg.ProduceRequestTopicPartition{Partition: p.Partition, Records: p.Batch})
				}
				req.Topics = append(req.Topics, rt)
			}
			pieces := wire.EncodeProduce(version, -1, 12_345, some)
			got := bytes.Join(pieces, nil)
			if want := req.AppendTo(nil); !bytes.Equal(got, want) {
				t.Fatalf("v%d, %d topics: %d bytes, kmsg has %d:\n%s", version, len(some), len(got), len(want), cmp.Diff(want, got))
			}
			if len(some) > 0 && &pieces[1][0] != &small[0] {
				t.Errorf("v%d: the batch was copied", version)
			}
		}
	}
	if n := testing.AllocsPerRun(50, func() { wire.EncodeProduce(13, -1, 1, topics) }); n > 2 {
		t.Errorf("EncodeProduce allocates %v times, want 2 at most", n)
	}
}
