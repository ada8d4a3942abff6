package wire_test

import (
	"context"
	"fmt"
	"net"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"kmirror/internal/wire"
)

// Records that kgo writes come out of our fetch as they went in; rewritten as
// a mirror does, appended by EncodeProduce, and read by kgo again, they are the
// same still.
func TestBatchesOfAnotherClientThereAndBack(t *testing.T) {
	cluster, err := kfake.NewCluster(kfake.NumBrokers(1), kfake.SeedTopics(1, "source", "target"))
	if err != nil {
		t.Fatal(err)
	}
	defer cluster.Close()
	ctx := t.Context()
	compressions := map[wire.Codec]kgo.CompressionCodec{
		wire.CodecNone: kgo.NoCompression(), wire.CodecGzip: kgo.GzipCompression(), wire.CodecSnappy: kgo.SnappyCompression(),
		wire.CodecLZ4: kgo.Lz4Compression(), wire.CodecZstd: kgo.ZstdCompression(),
	}
	var want []wire.Record
	for _, codec := range codecs {
		producer, err := kgo.NewClient(kgo.SeedBrokers(cluster.ListenAddrs()...), kgo.DefaultProduceTopic("source"), kgo.ProducerBatchCompression(compressions[codec]))
		if err != nil {
			t.Fatal(err)
		}
		var records []*kgo.Record
		for i := range 30 {
			r := &kgo.Record{Key: fmt.Appendf(nil, "key %d", i), Value: fmt.Appendf(nil, "%s value %d of many of the same kind", codec, i)}
			r.Headers = []kgo.RecordHeader{{Key: "n", Value: []byte{byte(i)}}}
			records = append(records, r)
		}
		results := producer.ProduceSync(ctx, records...)
		if err := results.FirstErr(); err != nil {
			t.Fatal(err)
		}
		for _, result := range results {
			r := result.Record
			want = append(want, wire.Record{Offset: r.Offset, Timestamp: r.Timestamp.UnixMilli(), Key: r.Key, Value: r.Value, Headers: []wire.Header{{Key: "n", Value: r.Headers[0].Value}}})
		}
		producer.Close()
	}

	conn, err := (&wire.Dialer{}).Connect(ctx, cluster.ListenAddrs()[0])
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	var got []wire.Record
	seen := map[wire.Codec]bool{}
	sequence := int32(0)
	for rest := fetchAll(ctx, t, conn, "source"); len(rest) > 0; {
		var b wire.Batch
		if b, rest, err = wire.NextBatch(rest); err != nil {
			t.Fatal(err)
		}
		if err := b.CheckCRC(); err != nil {
			t.Fatal(err)
		}
		records, err := b.Records(limit)
		if err != nil {
			t.Fatal(err)
		}
		got = append(got, records...)
		seen[b.Codec()] = true
		b.Rewrite(wire.HeaderEdit{ProducerID: 4000, ProducerEpoch: 0, BaseSequence: sequence})
		sequence += b.LastOffsetDelta() + 1
		produceOne(ctx, t, conn, "target", b)
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("fetched (-want +got):\n%s", diff)
	}
	if len(seen) != len(codecs) {
		t.Errorf("codecs seen: %v", seen)
	}

	consumer, err := kgo.NewClient(kgo.SeedBrokers(cluster.ListenAddrs()...), kgo.ConsumeTopics("target"))
	if err != nil {
		t.Fatal(err)
	}
	defer consumer.Close()
	for n := 0; n < len(want); {
		fetches := consumer.PollFetches(ctx)
		if err := fetches.Err(); err != nil {
			t.Fatal(err)
		}
		fetches.EachRecord(func(r *kgo.Record) {
			if w := want[n]; string(r.Key) != string(w.Key) || string(r.Value) != string(w.Value) || r.Offset != int64(n) || r.Timestamp.UnixMilli() != w.Timestamp || r.ProducerID != 4000 {
				t.Errorf("record %d: %+v, want %+v", n, r, w)
			}
			n++
		})
	}
}

func fetchAll(ctx context.Context, t *testing.T, conn *wire.Conn, topic string) []byte {
	t.Helper()
	req := kmsg.NewPtrFetchRequest()
	req.MaxBytes, req.MaxWaitMillis, req.SessionEpoch = 10<<20, 100, -1
	rt := kmsg.NewFetchRequestTopic()
	rt.Topic = topic
	rp := kmsg.NewFetchRequestTopicPartition()
	rp.PartitionMaxBytes = 10 << 20
	rt.Partitions = append(rt.Partitions, rp)
	req.Topics = append(req.Topics, rt)
	resp, err := conn.DoMax(ctx, req, 12)
	if err != nil {
		t.Fatal(err)
	}
	return resp.(*kmsg.FetchResponse).Topics[0].Partitions[0].RecordBatches
}

func produceOne(ctx context.Context, t *testing.T, conn *wire.Conn, topic string, b wire.Batch) {
	t.Helper()
	version, ok := conn.Version(0, 12)
	if !ok {
		t.Fatal("no Produce")
	}
	body := wire.EncodeProduce(version, -1, 10_000, []wire.ProduceTopic{{Name: topic, Partitions: []wire.ProducePartition{{Batch: b}}}})
	call, err := conn.Send(0, version, body, wire.SendOptions{})
	if err != nil {
		t.Fatal(err)
	}
	raw, err := call.Wait(ctx)
	if err != nil {
		t.Fatal(err)
	}
	var resp kmsg.ProduceResponse
	resp.SetVersion(version)
	if err := resp.ReadFrom(raw); err != nil || resp.Topics[0].Partitions[0].ErrorCode != 0 {
		t.Fatalf("produce: %+v, %v", resp.Topics, err)
	}
}

// Garbage on a broker's port, or a broker that is none, ends in an error.
func TestConnectToSomethingElse(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	go func() {
		nc, err := l.Accept()
		if err != nil {
			return
		}
		_, _ = nc.Write([]byte("HTTP/1.1 400 Bad Request\r\n\r\n"))
		_ = nc.Close()
	}()
	if _, err := (&wire.Dialer{}).Connect(t.Context(), l.Addr().String()); err == nil {
		t.Error("connected to an HTTP server")
	} else {
		t.Log(err)
	}
}
