package wire_test

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"math/rand/v2"
	"testing"

	"github.com/google/go-cmp/cmp"

	"kmirror/internal/wire"
)

func TestMergeBatches(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 9))
	for round := range 300 {
		codec := wire.Codec(round % 5)
		var batches []wire.Batch
		var want []wire.Record
		for range 1 + r.IntN(40) {
			var recs []wire.Record
			for range 1 + r.IntN(5) {
				rec := wire.Record{Offset: int64(len(want) + len(recs)), Timestamp: 1_700_000_000_000 + r.Int64N(1<<r.IntN(40)) - 1<<20, Key: fmt.Appendf(nil, "%d", r.IntN(9)), Value: bytes.Repeat([]byte("v"), r.IntN(300))}
				if r.IntN(5) == 0 {
					rec.Key = nil
				}
				if r.IntN(5) == 0 {
					rec.Value = nil
				}
				for range r.IntN(3) {
					rec.Headers = append(rec.Headers, wire.Header{Key: "h", Value: []byte{1}})
				}
				recs = append(recs, rec)
			}
			want = append(want, recs...)
			o := wire.Plain(codec)
			o.Transactional = r.IntN(4) == 0
			if o.Transactional {
				o.ProducerID = 9
			}
			b, err := wire.EncodeBatch(nil, recs, o)
			if err != nil {
				t.Fatal(err)
			}
			batches = append(batches, b)
		}
		before := bytes.Join(asBytes(batches), nil)
		got, err := wire.MergeBatches([]byte("before"), batches, wire.HeaderEdit{ProducerID: 5, ProducerEpoch: 6, BaseSequence: 7}, 1<<20)
		if err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(before, bytes.Join(asBytes(batches), nil)) {
			t.Fatal("the sources have changed")
		}
		if err := got.CheckCRC(); err != nil {
			t.Fatal(err)
		}
		if whole, rest, err := wire.NextBatch(got); err != nil || len(rest) > 0 || whole.Codec() != codec || whole.IsTransactional() || whole.ProducerID() != 5 || whole.ProducerEpoch() != 6 || whole.BaseSequence() != 7 || whole.BaseOffset() != 0 || whole.LeaderEpoch() != -1 || whole.LastOffsetDelta()+1 != whole.NumRecords() {
			t.Fatalf("header: %v %v", whole[:wire.BatchHeaderSize], err)
		}
		recs, err := got.Records(1 << 20)
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(want, recs); diff != "" {
			t.Fatal(diff)
		}
		latest := want[0].Timestamp
		for _, rec := range want {
			latest = max(latest, rec.Timestamp)
		}
		if got.MaxTimestamp() != latest {
			t.Fatalf("largest timestamp %d, want %d", got.MaxTimestamp(), latest)
		}
	}
}

func asBytes(batches []wire.Batch) (out [][]byte) {
	for _, b := range batches {
		out = append(out, b)
	}
	return out
}

func TestMergeRefusesWhatIsNotTrue(t *testing.T) {
	one := func(o wire.BatchOptions) wire.Batch {
		b, err := wire.EncodeBatch(nil, []wire.Record{{Value: bytes.Repeat([]byte("x"), 1000)}}, o)
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
	good, torn, stamped := one(wire.Plain(wire.CodecLZ4)), one(wire.Plain(wire.CodecLZ4)), one(wire.Plain(wire.CodecLZ4))
	torn[len(torn)-1] ^= 1
	stamped.SetLogAppendTime(5)
	if _, err := wire.MergeBatches(nil, []wire.Batch{good, torn}, wire.HeaderEdit{}, 1<<20); !errors.As(err, new(*wire.CorruptError)) {
		t.Errorf("a torn batch: %v", err)
	}
	if _, err := wire.MergeBatches(nil, []wire.Batch{good, good}, wire.HeaderEdit{}, 1500); !errors.As(err, new(*wire.InflateError)) {
		t.Errorf("beyond the limit: %v", err)
	}
	for name, other := range map[string]wire.Batch{"codec": one(wire.Plain(wire.CodecNone)), "log append time": stamped} {
		if _, err := wire.MergeBatches(nil, []wire.Batch{good, other}, wire.HeaderEdit{}, 1<<20); err == nil {
			t.Errorf("%s: merged", name)
		}
	}
	if _, err := wire.MergeBatches(nil, nil, wire.HeaderEdit{}, 1); err == nil {
		t.Error("merged nothing")
	}
}

func TestMergeAllocatesNothing(t *testing.T) {
	for _, codec := range []wire.Codec{wire.CodecNone, wire.CodecSnappy, wire.CodecZstd} {
		var batches []wire.Batch
		for range 100 {
			b, err := wire.EncodeBatch(nil, []wire.Record{{Value: bytes.Repeat([]byte("x"), 200)}}, wire.Plain(codec))
			if err != nil {
				t.Fatal(err)
			}
			batches = append(batches, b)
		}
		dst := make([]byte, 0, 64<<10)
		if n := testing.AllocsPerRun(20, func() {
			if _, err := wire.MergeBatches(dst, batches, wire.HeaderEdit{}, 1<<20); err != nil {
				t.Fatal(err)
			}
		}); n > 1 && !raceDetector { // of a hundred batches; the pools may be emptied meanwhile
			t.Errorf("%s: %v allocations", codec, n)
		}
	}
}

func BenchmarkMerge(b *testing.B) {
	for _, codec := range []wire.Codec{wire.CodecNone, wire.CodecLZ4, wire.CodecZstd} {
		b.Run(codec.String(), func(b *testing.B) {
			var batches []wire.Batch
			size := 0
			for range 100 {
				x, err := wire.EncodeBatch(nil, []wire.Record{{Value: bytes.Repeat([]byte("x"), 200)}}, wire.Plain(codec))
				if err != nil {
					b.Fatal(err)
				}
				batches = append(batches, x)
				size += x.Size()
			}
			b.SetBytes(int64(size))
			b.ReportAllocs()
			dst := make([]byte, 0, 64<<10)
			for b.Loop() {
				if _, err := wire.MergeBatches(dst, batches, wire.HeaderEdit{}, 1<<20); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

// FuzzMerge: whatever two batches hold, what comes out can be read again.
func FuzzMerge(f *testing.F) {
	b, err := wire.EncodeBatch(nil, []wire.Record{{Key: []byte("k"), Value: []byte("v"), Headers: []wire.Header{{Key: "h"}}}}, wire.Plain(wire.CodecNone))
	if err != nil {
		f.Fatal(err)
	}
	f.Add([]byte(b[wire.BatchHeaderSize:]), int32(1), int64(7))
	f.Fuzz(func(t *testing.T, payload []byte, count int32, stamp int64) {
		own := sealed(payload, count, stamp)
		whole, rest, err := wire.NextBatch(own)
		if err != nil || len(rest) > 0 || !whole.Mergeable() {
			return
		}
		want, before := whole.Records(1 << 20)
		got, err := wire.MergeBatches(nil, []wire.Batch{b, whole}, wire.HeaderEdit{}, 1<<20)
		if err != nil {
			return
		}
		recs, err := got.Records(1 << 20)
		if before != nil { // headers are not decoded by a merge: what was torn stays torn
			return
		}
		if err != nil || len(recs) != len(want)+1 {
			t.Fatalf("%d records of %d, %v", len(recs), len(want)+1, err)
		}
		for i, r := range want {
			if r.Offset = int64(i + 1); !cmp.Equal(r, recs[i+1]) {
				t.Fatal(cmp.Diff(r, recs[i+1]))
			}
		}
	})
}

// sealed is a batch around payload with a checksum that is right.
func sealed(payload []byte, count int32, stamp int64) []byte {
	b := make([]byte, wire.BatchHeaderSize, wire.BatchHeaderSize+len(payload))
	b = append(b, payload...)
	binary.BigEndian.PutUint32(b[8:], uint32(len(b)-12))
	b[16] = 2
	binary.BigEndian.PutUint32(b[23:], uint32(count-1))
	binary.BigEndian.PutUint64(b[27:], uint64(stamp))
	binary.BigEndian.PutUint64(b[35:], uint64(stamp))
	binary.BigEndian.PutUint32(b[57:], uint32(count))
	binary.BigEndian.PutUint32(b[17:], crc32.Checksum(b[21:], crc32.MakeTable(crc32.Castagnoli)))
	return b
}
