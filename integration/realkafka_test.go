package integration_test

import (
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
)

// The clusters of these stories are called east and west as everywhere; which
// of them is Apache Kafka is the story.

// TestFromKafka mirrors from Apache Kafka to an embedded cluster: codecs of all
// kinds, transactions committed and aborted, and kill -9 in between.
func TestFromKafka(t *testing.T) {
	w := newWorld(t)
	w.kafka("east")
	d := w.run("main", `
clusters:
  east: {bootstrap: [{{addr "east"}}]}
  west: {embedded: {nodes: [{{addr "west"}}]}}
flows:
  - {from: east, to: west, topics: [".*"], naming: prefixed, start: earliest}
`)
	w.storyOfRealKafka(t, d)
	t.Run("transactions", func(t *testing.T) {
		w := w.in(t)
		h := newHistory("payments", 2, 200)
		w.create("east", "payments", 2)
		w.transactions("east", h, 40)
		w.exact(h, "east", "west", "east.payments")
	})
}

// TestToKafka mirrors from an embedded cluster to Apache Kafka.
func TestToKafka(t *testing.T) {
	w := newWorld(t)
	w.kafka("west")
	d := w.run("main", `
clusters:
  east: {embedded: {nodes: [{{addr "east"}}]}}
  west: {bootstrap: [{{addr "west"}}]}
flows:
  - {from: east, to: west, topics: [".*"], naming: prefixed, start: earliest}
`)
	w.storyOfRealKafka(t, d)
}

// TestBetweenKafkas mirrors from one Apache Kafka to another.
func TestBetweenKafkas(t *testing.T) {
	w := newWorld(t)
	w.kafka("east")
	w.kafka("west")
	d := w.run("main", mirrorOnly)
	w.storyOfRealKafka(t, d)
	t.Run("transactions", func(t *testing.T) {
		w := w.in(t)
		h := newHistory("payments", 2, 200)
		w.create("east", "payments", 2)
		w.transactions("east", h, 40)
		w.exact(h, "east", "west", "east.payments")
	})
}

// storyOfRealKafka is what all pairs must do: every codec, a load with the
// mirror killed in between, a group that fails over.
func (w *world) storyOfRealKafka(t *testing.T, d *daemon) {
	t.Run("codecs", func(t *testing.T) {
		w := w.in(t)
		h := newHistory("codecs", 2, 800)
		w.create("east", "codecs", 2)
		for _, codec := range []kgo.CompressionCodec{
			kgo.NoCompression(), kgo.GzipCompression(), kgo.SnappyCompression(), kgo.Lz4Compression(), kgo.ZstdCompression(),
		} {
			w.write("east", h, 300, kgo.ProducerBatchCompression(codec))
		}
		w.exact(h, "east", "west", "east.codecs")
	})
	t.Run("kill under load", func(t *testing.T) {
		w := w.in(t)
		h := newHistory("orders", 3, 400)
		w.create("east", "orders", 3)
		load := w.load("east", h, 2000)
		for range min(3, rounds(t)) {
			time.Sleep(randomly(300*time.Millisecond, 2*time.Second))
			d.kill()
			d.start()
			d.ready(readyWithin)
		}
		load.finish()
		w.exact(h, "east", "west", "east.orders")
	})
	t.Run("group", func(t *testing.T) {
		w := w.in(t)
		const group = "billing"
		h := newHistory("ledger", 2, 100)
		w.create("east", "ledger", 2)
		w.write("east", h, 500)
		w.mirrored("east", "ledger", "west", "east.ledger")
		first := w.consumeHere("east", "ledger", group, map[int32]int{0: 123, 1: 321})
		d.inStep(w, group, "ledger", "east.ledger")
		second := w.consumeHere("west", "east.ledger", group, nil)
		for partition := range int32(2) {
			for i, number := range append(append([]int{}, first[partition]...), second[partition]...) {
				if number != i {
					t.Fatalf("partition %d: record %d where %d was due (%d read in east)", partition, number, i, len(first[partition]))
				}
			}
			if n := len(first[partition]) + len(second[partition]); n != 500 {
				t.Errorf("partition %d: the group read %d records, want 500", partition, n)
			}
		}
	})
}

// transactions writes the history's records in transactions, and other records
// in transactions that are aborted: those must be nowhere.
func (w *world) transactions(cluster string, h *history, times int) {
	w.t.Helper()
	client := w.client(cluster, kgo.RecordPartitioner(kgo.ManualPartitioner()), kgo.TransactionalID("story-"+h.topic))
	ctx := w.ctx(2 * time.Minute)
	partitions := int32(len(h.fates))
	for i := range times {
		abort := i%3 == 1
		if err := client.BeginTransaction(); err != nil {
			w.t.Fatal(err)
		}
		for n := range int32(1 + i%7) {
			r := &kgo.Record{Topic: h.topic, Partition: n % partitions, Value: []byte("aborted")}
			if !abort {
				r = h.next(n % partitions)
			}
			if err := client.ProduceSync(ctx, r).FirstErr(); err != nil {
				w.t.Fatalf("write in a transaction: %v", err)
			}
			if !abort {
				h.ack(r)
			}
		}
		if err := client.EndTransaction(ctx, kgo.TransactionEndTry(!abort)); err != nil {
			w.t.Fatalf("end a transaction: %v", err)
		}
	}
}
