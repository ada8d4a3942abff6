package mirror_test

import (
	"bytes"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"kmirror/mirror"
)

// TestThrottledFlow: a flow reads no faster than it may, and at once as fast as
// it can when a reload lifts the throttle.
func TestThrottledFlow(t *testing.T) {
	s := newSite(t, "orders", 1)
	s.config = s.file("  - {from: east, to: west, heartbeats: false, fence: detect, throttle: 512KiB}\n")
	cl := s.client(s.east, kgo.ProducerBatchCompression(kgo.NoCompression()), kgo.ProducerBatchMaxBytes(64<<10))
	const records = 300 // of 10 KB: 3 MB, six seconds' worth
	for range records {
		cl.Produce(t.Context(), &kgo.Record{Topic: "orders", Value: bytes.Repeat([]byte("x"), 10_000)}, func(_ *kgo.Record, err error) {
			if err != nil {
				t.Errorf("produce: %v", err)
			}
		})
	}
	if err := cl.Flush(t.Context()); err != nil {
		t.Fatal(err)
	}
	e, _ := s.run()
	at := func(end int64) func(mirror.Status) bool {
		return func(status mirror.Status) bool {
			p, ok := partition(status, "orders", 0)
			return ok && p.TargetEnd >= end
		}
	}
	s.until(e, "the first records", at(1))
	began := time.Now()
	s.until(e, "half of the records", at(records/2))
	took := time.Since(began)
	read := float64(e.Status().Flows[0].Bytes)
	if rate := read / took.Seconds(); rate > 1.5*512<<10 || took < time.Second {
		t.Errorf("%.0f bytes in %v: %.0f a second", read, took, rate)
	}
	if _, err := e.Reload(s.like("  - {from: east, to: west, heartbeats: false, fence: detect}\n")); err != nil {
		t.Fatal(err)
	}
	began = time.Now()
	s.until(e, "all records", at(records))
	if took := time.Since(began); took > 2*time.Second {
		t.Errorf("without a throttle the rest took %v", took)
	}
}
