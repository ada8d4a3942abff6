package integration_test

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
)

// The benchmarks measure; nothing here passes or fails by the clock. Each does
// its work once (-benchtime 1x) and reports figures of its own.

// value is 1 KB that compresses by half or so, as JSON does.
func value() []byte {
	h := newHistory("bench", 1, 1024)
	for number := range 1000 {
		if r := h.record(0, number); len(r.Value) > 1024 {
			return r.Value[:1024]
		}
	}
	return make([]byte, 1024)
}

// BenchmarkStart measures from exec to ready, with an empty data directory.
func BenchmarkStart(b *testing.B) {
	built(b)
	var took []time.Duration
	for range 10 {
		w := newWorld(b)
		d := w.daemon("main", twoClusters)
		began := time.Now()
		d.start()
		d.ready(readyWithin)
		took = append(took, time.Since(began))
		d.kill()
	}
	slices.Sort(took)
	b.ReportMetric(float64(took[len(took)/2].Microseconds())/1000, "ms-to-ready")
	b.ReportMetric(0, "ns/op")
}

// BenchmarkMirror measures how fast 1 KB records get from a producer into east
// and mirrored into west, client and daemon on the same cores, and the memory
// that the daemon takes for it.
func BenchmarkMirror(b *testing.B) {
	w := newWorld(b)
	d := w.run("main", twoClusters)
	w.create("east", "load", 4)
	w.produce("east", "load", 4, 4000) // the flow is up when these are there
	w.reaches("west", "east.load", 4000)

	const records = 1_500_000
	peak := d.watchMemory(b)
	began := time.Now()
	w.produce("east", "load", 4, records)
	written := time.Since(began)
	w.reaches("west", "east.load", 4000+records)
	mirrored := time.Since(began)
	megabytes := float64(records) * 1024 / 1e6
	b.ReportMetric(megabytes/mirrored.Seconds(), "MB/s-mirrored")
	b.ReportMetric(megabytes/written.Seconds(), "MB/s-produced")
	b.ReportMetric(float64(peak())/(1<<20), "MiB-resident")
	b.ReportMetric(0, "ns/op")
}

// BenchmarkCatchUp measures the mirror alone: everything is in east before the
// flow starts.
func BenchmarkCatchUp(b *testing.B) {
	w := newWorld(b)
	d := w.run("main", serverOnly)
	const records = 1_500_000
	w.create("east", "load", 4)
	w.produce("east", "load", 4, records)
	d.stop(time.Minute)
	d.configure(twoClusters)
	d.start()
	peak := d.watchMemory(b)
	began := time.Now()
	d.ready(readyWithin)
	w.reaches("west", "east.load", records)
	b.ReportMetric(float64(records)*1024/1e6/time.Since(began).Seconds(), "MB/s-mirrored")
	b.ReportMetric(float64(peak())/(1<<20), "MiB-resident")
	b.ReportMetric(0, "ns/op")
}

// BenchmarkLatency measures from produce in east to visible in west, at 1000
// records a second.
func BenchmarkLatency(b *testing.B) {
	w := newWorld(b)
	w.run("main", twoClusters)
	w.create("east", "pulse", 1)
	w.produce("east", "pulse", 1, 1)
	w.reaches("west", "east.pulse", 1)
	const records, warm = 12_000, 2_000
	reader := w.client("west", kgo.FetchMaxWait(5*time.Second), kgo.FetchMinBytes(1),
		kgo.ConsumePartitions(map[string]map[int32]kgo.Offset{"east.pulse": {0: kgo.NewOffset().At(1)}}))
	writer := w.client("east", kgo.DefaultProduceTopic("pulse"), kgo.ProducerLinger(0))
	body := value()
	go func() {
		ticker := time.NewTicker(time.Millisecond)
		defer ticker.Stop()
		for range records {
			now := <-ticker.C
			sent := fmt.Appendf(nil, "%d", now.UnixNano())
			writer.Produce(context.Background(), &kgo.Record{Key: sent, Value: body}, nil)
		}
	}()
	var took []time.Duration
	ctx := w.ctx(2 * time.Minute)
	for len(took) < records {
		fetches := reader.PollFetches(ctx)
		if err := fetches.Err(); err != nil {
			b.Fatalf("%d of %d records: %v", len(took), records, err)
		}
		now := time.Now().UnixNano()
		fetches.EachRecord(func(r *kgo.Record) {
			var sent int64
			_, _ = fmt.Sscan(string(r.Key), &sent)
			took = append(took, time.Duration(now-sent))
		})
	}
	took = took[warm:]
	slices.Sort(took)
	b.ReportMetric(float64(took[len(took)/2].Microseconds())/1000, "ms-p50")
	b.ReportMetric(float64(took[len(took)*99/100].Microseconds())/1000, "ms-p99")
	b.ReportMetric(0, "ns/op")
}

// BenchmarkBroker measures the embedded broker beside Apache Kafka: the same
// client and load for both, by turns, medians of three; and prints the ratios
// (above 1: we are faster). Kafka answers from the page cache; fsync says what
// the embedded broker does before it answers.
func BenchmarkBroker(b *testing.B) {
	w := newWorld(b)
	w.kafka("kafka")
	const config = `
clusters:
  ours: {embedded: {nodes: [{{addr "ours"}}], fsync: FSYNC}}
`
	const records, rounds = 1_000_000, 3
	rate := func(began time.Time) float64 { return records * 1024 / 1e6 / time.Since(began).Seconds() }
	for _, fsync := range []string{"batch", "interval"} {
		b.Run("fsync="+fsync, func(b *testing.B) {
			w := w.in(b)
			w.addresses["ours"] = freeAddress(b)
			d := w.run("ours-"+fsync, strings.Replace(config, "FSYNC", fsync, 1))
			produced, consumed := map[string][]float64{}, map[string][]float64{}
			for round := range rounds {
				for _, cluster := range []string{"ours", "kafka"} {
					topic := fmt.Sprintf("load-%s-%d", fsync, round)
					w.create(cluster, topic, 4)
					w.produce(cluster, topic, 4, 20_000)
					began := time.Now()
					w.produce(cluster, topic, 4, records)
					produced[cluster] = append(produced[cluster], rate(began))
					began = time.Now()
					w.drain(cluster, topic, records)
					consumed[cluster] = append(consumed[cluster], rate(began))
				}
			}
			d.kill()
			median := func(of []float64) float64 { return slices.Sorted(slices.Values(of))[len(of)/2] }
			for what, rates := range map[string]map[string][]float64{"produce": produced, "consume": consumed} {
				ours, kafkas := median(rates["ours"]), median(rates["kafka"])
				b.ReportMetric(ours, "MB/s-"+what)
				b.ReportMetric(kafkas, "MB/s-"+what+"-kafka")
				b.ReportMetric(ours/kafkas, "x-"+what)
			}
			b.ReportMetric(0, "ns/op")
		})
	}
}

// produce writes so many records of 1 KB, uncompressed, as fast as they go.
func (w *world) produce(cluster, topic string, partitions int32, records int) {
	w.t.Helper()
	client := w.client(cluster, kgo.RecordPartitioner(kgo.ManualPartitioner()), kgo.ProducerBatchCompression(kgo.NoCompression()),
		kgo.ProducerBatchMaxBytes(1_000_000), kgo.ProducerLinger(2*time.Millisecond), kgo.MaxBufferedRecords(50_000))
	defer client.Close()
	var failed atomic.Int64
	body := value()
	for i := range records {
		client.Produce(context.Background(), &kgo.Record{Topic: topic, Partition: int32(i) % partitions, Value: body}, func(_ *kgo.Record, err error) {
			if err != nil {
				failed.Add(1)
			}
		})
	}
	if err := client.Flush(w.ctx(5 * time.Minute)); err != nil || failed.Load() > 0 {
		w.t.Fatalf("produce %d records to %s: %d failed, %v", records, cluster, failed.Load(), err)
	}
}

// reaches waits until the topic's end offsets add up to so many records.
func (w *world) reaches(cluster, topic string, records int64) {
	w.t.Helper()
	admin := w.admin(cluster)
	for deadline := time.Now().Add(5 * time.Minute); ; time.Sleep(2 * time.Millisecond) {
		var sum int64
		for _, end := range w.ends(admin, topic) {
			sum += end
		}
		if sum >= records {
			return
		}
		if time.Now().After(deadline) {
			w.t.Fatalf("%s in %s has %d of %d records", topic, cluster, sum, records)
		}
	}
}

// drain reads so many records of the topic from its start.
func (w *world) drain(cluster, topic string, records int) {
	w.t.Helper()
	client := w.client(cluster, kgo.ConsumeTopics(topic), kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()),
		kgo.FetchMaxPartitionBytes(8<<20), kgo.FetchMaxBytes(64<<20))
	defer client.Close()
	ctx := w.ctx(5 * time.Minute)
	for read := 0; read < records; {
		fetches := client.PollFetches(ctx)
		if err := fetches.Err(); err != nil {
			w.t.Fatalf("%d of %d records: %v", read, records, err)
		}
		read += fetches.NumRecords()
	}
}

// watchMemory samples the daemon's resident memory until the returned function
// is called, which says what the most was.
func (d *daemon) watchMemory(b *testing.B) (peak func() int64) {
	b.Helper()
	quit, done := make(chan struct{}), make(chan int64)
	go func() {
		var most int64
		for {
			most = max(most, d.resident())
			select {
			case <-quit:
				done <- most
				return
			case <-time.After(50 * time.Millisecond):
			}
		}
	}()
	return func() int64 {
		close(quit)
		return <-done
	}
}
