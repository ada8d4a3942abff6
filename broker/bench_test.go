package broker_test

import (
	"context"
	"testing"

	"github.com/twmb/franz-go/pkg/kgo"

	"kmirror/broker"
	"kmirror/broker/storage"
)

const (
	benchRecord     = 1000
	benchPartitions = 4
)

func fsync(f storage.Fsync) func(*broker.Config) { return func(c *broker.Config) { c.Fsync = f } }

// BenchmarkProduce measures records of 1 KB in large batches, client and node
// in this process.
func BenchmarkProduce(b *testing.B) {
	for _, mode := range []struct {
		name  string
		fsync storage.Fsync
	}{{"batch", storage.FsyncBatch}, {"never", storage.FsyncNever}} {
		b.Run("fsync="+mode.name, func(b *testing.B) {
			node := start(b, fsync(mode.fsync))
			createTopic(dial(b, node), "t", benchPartitions)
			produceMany(b, node, b.N)
		})
	}
}

func produceMany(b *testing.B, node *broker.Node, n int) {
	c := newKgo(b, node, kgo.DefaultProduceTopic("t"), kgo.ProducerBatchCompression(kgo.NoCompression()),
		kgo.ProducerBatchMaxBytes(1_000_000), kgo.MaxBufferedRecords(50_000), kgo.RecordPartitioner(kgo.RoundRobinPartitioner()))
	value := make([]byte, benchRecord)
	b.SetBytes(benchRecord)
	b.ResetTimer()
	for range n {
		c.Produce(context.Background(), &kgo.Record{Value: value}, func(_ *kgo.Record, err error) {
			if err != nil {
				b.Error(err)
			}
		})
	}
	if err := c.Flush(context.Background()); err != nil {
		b.Fatal(err)
	}
	b.StopTimer()
}

// BenchmarkConsume measures reading the same records back from the page cache.
func BenchmarkConsume(b *testing.B) {
	node := start(b, fsync(storage.FsyncNever))
	createTopic(dial(b, node), "t", benchPartitions)
	produceMany(b, node, b.N)
	c := newKgo(b, node, kgo.ConsumeTopics("t"), kgo.FetchMaxPartitionBytes(4<<20))
	b.ResetTimer()
	b.StartTimer()
	for read := 0; read < b.N; {
		fetches := c.PollFetches(context.Background())
		for _, e := range fetches.Errors() {
			b.Fatal(e.Err)
		}
		read += fetches.NumRecords()
	}
}
