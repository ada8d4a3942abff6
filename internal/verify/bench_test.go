package verify_test

import (
	"context"
	"math/rand"
	"testing"

	"kmirror/checkpoint"
	"kmirror/internal/verify"
	"kmirror/internal/wire"
)

// BenchmarkCompare measures what comparing costs without any cluster: batches of
// 64 records of 1 KB, lz4, as they stand and opened.
func BenchmarkCompare(b *testing.B) {
	w, random := &world{source: &fakeLog{few: 100}, target: &fakeLog{few: 100}}, rand.New(rand.NewSource(1))
	size := int64(0)
	for at := int64(0); at < 64*200; at += 64 {
		records := make([]wire.Record, 64)
		for i := range records {
			value := make([]byte, 1024)
			_, _ = random.Read(value[:512])
			records[i] = wire.Record{Offset: at + int64(i), Timestamp: 1, Value: value}
		}
		batch, err := wire.EncodeBatch(nil, records, wire.Plain(wire.CodecLZ4))
		if err != nil {
			b.Fatal(err)
		}
		size += 2 * int64(len(batch))
		w.source.batches, w.target.batches = append(w.source.batches, batch), append(w.target.batches, batch)
		w.through = at + 64
	}
	w.source.end, w.target.end, w.runs = w.through, w.through, []checkpoint.Run{{Count: w.through}}
	for name, canonical := range map[string]bool{"as they stand": false, "opened": true} {
		b.Run(name, func(b *testing.B) {
			b.SetBytes(size)
			b.ReportAllocs()
			for b.Loop() {
				j := w.job(verify.All())
				o := verify.Options{Source: w.source, Target: w.target, Canonical: canonical}
				if err := verify.Run(context.Background(), o, []*verify.Job{j}, &verify.Meter{}); err != nil {
					b.Fatal(err)
				}
				if tally, _ := total(j); tally.Records != w.through || tally.Differences != 0 {
					b.Fatalf("%+v", tally)
				}
			}
		})
	}
}
