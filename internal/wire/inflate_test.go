package wire_test

import (
	"bytes"
	"math/rand"
	"runtime"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/pierrec/lz4/v4"

	"kmirror/internal/wire"
)

// largeBlocks packs the records of a plain batch in an lz4 frame that declares
// blocks of 4 MiB, as franz-go's producers write it.
func largeBlocks(t testing.TB, plain wire.Batch) wire.Batch {
	t.Helper()
	var out bytes.Buffer
	w := lz4.NewWriter(&out)
	if err := w.Apply(lz4.BlockSizeOption(lz4.Block4Mb)); err != nil {
		t.Fatal(err)
	}
	if _, err := w.Write(plain[wire.BatchHeaderSize:]); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return repacked(plain, wire.CodecLZ4, out.Bytes())
}

// repacked is a batch with another payload.
func repacked(b wire.Batch, codec wire.Codec, payload []byte) wire.Batch {
	b = append(append(wire.Batch{}, b[:wire.BatchHeaderSize]...), payload...)
	const attributes = 22 // their lower byte
	b[attributes] = b[attributes]&^7 | byte(codec)
	return b
}

// plainBatch holds records of 1 KiB, half of it random.
func plainBatch(t testing.TB, records int) wire.Batch {
	t.Helper()
	random, list := rand.New(rand.NewSource(1)), make([]wire.Record, records)
	for i := range list {
		value := make([]byte, 1024)
		_, _ = random.Read(value[:512])
		list[i] = wire.Record{Offset: int64(i), Value: value}
	}
	b, err := wire.EncodeBatch(nil, list, wire.Plain(wire.CodecNone))
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// What a frame declares costs nothing: a batch takes the memory that its records
// do, and the records stay as they are when others are opened after them.
func TestOpeningABatchTakesWhatItHolds(t *testing.T) {
	plain := plainBatch(t, 64)
	want, err := plain.Records(limit)
	if err != nil {
		t.Fatal(err)
	}
	forms := map[string]wire.Batch{"lz4 with blocks of 4 MiB": largeBlocks(t, plain)}
	for _, codec := range codecs[1:] {
		packed, err := wire.Compress(nil, codec, plain[wire.BatchHeaderSize:])
		if err != nil {
			t.Fatal(err)
		}
		forms[codec.String()] = repacked(plain, codec, packed)
	}
	other := largeBlocks(t, plainBatch(t, 200))
	for name, b := range forms {
		got, err := b.Records(limit)
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		for range 8 {
			if _, err := other.Records(limit); err != nil {
				t.Fatal(err)
			}
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("%s: %s", name, diff)
		}
		if raceDetector {
			continue // it empties the pools
		}
		const rounds = 50 // a collection may empty the pools in between
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		for range rounds {
			if _, err := b.Records(limit); err != nil {
				t.Fatal(err)
			}
		}
		runtime.ReadMemStats(&after)
		if took, most := (after.TotalAlloc-before.TotalAlloc)/rounds, uint64(8*len(plain)); took > most {
			t.Errorf("%s: %d bytes are allocated for a batch of %d, want at most %d", name, took, len(plain), most)
		}
	}
}

// BenchmarkRecords opens 64 KiB, with lz4 in the form of franz-go's producers, too.
func BenchmarkRecords(b *testing.B) {
	plain := plainBatch(b, 64)
	forms := map[string]wire.Batch{"lz4-4MiB-blocks": largeBlocks(b, plain)}
	for _, codec := range codecs {
		packed, err := wire.Compress(nil, codec, plain[wire.BatchHeaderSize:])
		if err != nil {
			b.Fatal(err)
		}
		forms[codec.String()] = repacked(plain, codec, packed)
	}
	for name, batch := range forms {
		b.Run(name, func(b *testing.B) {
			b.SetBytes(int64(len(plain)))
			b.ReportAllocs()
			for b.Loop() {
				if _, err := batch.Records(limit); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

// Whatever a batch claims, opening it yields what walking it does, and never more
// than the limit.
func FuzzRecords(f *testing.F) {
	plain := plainBatch(f, 3)
	f.Add(int8(0), int32(3), []byte(plain[wire.BatchHeaderSize:]))
	for _, codec := range codecs[1:] {
		packed, err := wire.Compress(nil, codec, plain[wire.BatchHeaderSize:])
		if err != nil {
			f.Fatal(err)
		}
		f.Add(int8(codec), int32(3), packed)
	}
	f.Add(int8(wire.CodecLZ4), int32(3), []byte(largeBlocks(f, plain)[wire.BatchHeaderSize:]))
	f.Fuzz(func(t *testing.T, codec int8, count int32, payload []byte) {
		const limit = 100_000
		b := repacked(plain, wire.Codec(codec&7), payload)
		const numRecords = 57
		b[numRecords], b[numRecords+1], b[numRecords+2], b[numRecords+3] = byte(count>>24), byte(count>>16), byte(count>>8), byte(count)
		var walked []wire.RawRecord
		walkErr := b.EachRecord(limit, func(r wire.RawRecord) error {
			r.Key, r.Value = bytes.Clone(r.Key), bytes.Clone(r.Value)
			walked = append(walked, r)
			return nil
		})
		records, err := b.Records(limit)
		if err != nil {
			return // headers may be at fault that are walked over
		}
		if walkErr != nil || len(records) != len(walked) {
			t.Fatalf("%d records, walked %d, %v", len(records), len(walked), walkErr)
		}
		size := 0
		for i, r := range records {
			size += len(r.Key) + len(r.Value)
			if !bytes.Equal(r.Key, walked[i].Key) || !bytes.Equal(r.Value, walked[i].Value) {
				t.Errorf("record %d is not the same when it is walked", i)
			}
		}
		if size > max(limit, len(payload)) {
			t.Errorf("%d bytes under a limit of %d", size, limit)
		}
	})
}
