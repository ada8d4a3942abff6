package wire_test

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"runtime"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"github.com/twmb/franz-go/pkg/kmsg"
	"pgregory.net/rapid"

	"kmirror/internal/wire"
)

const limit = 64 << 20

var codecs = []wire.Codec{wire.CodecNone, wire.CodecGzip, wire.CodecSnappy, wire.CodecLZ4, wire.CodecZstd}

func drawRecords(t *rapid.T) []wire.Record {
	nullable := rapid.Custom(func(t *rapid.T) []byte {
		if rapid.Bool().Draw(t, "null") {
			return nil
		}
		return append([]byte{}, rapid.SliceOfN(rapid.Byte(), 0, 300).Draw(t, "bytes")...)
	})
	offset := rapid.Int64Range(0, 1<<40).Draw(t, "offset")
	records := make([]wire.Record, rapid.IntRange(1, 20).Draw(t, "count"))
	for i := range records {
		r := wire.Record{Offset: offset, Timestamp: rapid.Int64Range(-1, 1<<42).Draw(t, "timestamp"), Key: nullable.Draw(t, "key"), Value: nullable.Draw(t, "value")}
		for range rapid.IntRange(0, 3).Draw(t, "headers") {
			r.Headers = append(r.Headers, wire.Header{Key: rapid.String().Draw(t, "header"), Value: nullable.Draw(t, "header value")})
		}
		records[i] = r
		offset += rapid.Int64Range(1, 1000).Draw(t, "hole")
	}
	return records
}

func TestRecordsComeBackAsTheyWereEncoded(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		records := drawRecords(t)
		o := wire.BatchOptions{
			Codec: rapid.SampledFrom(codecs).Draw(t, "codec"), ProducerID: 7, ProducerEpoch: 1, BaseSequence: 3, LeaderEpoch: 2, KeepOffsets: true,
			Transactional: rapid.Bool().Draw(t, "transactional"),
		}
		prefix := []byte("prefix")
		b, err := wire.EncodeBatch(prefix, records, o)
		if err != nil {
			t.Fatal(err)
		}
		if err := b.CheckCRC(); err != nil {
			t.Fatal(err)
		}
		if next, rest, err := wire.NextBatch(b); err != nil || len(rest) > 0 || len(next) != b.Size() {
			t.Fatalf("NextBatch: %d left, %v", len(rest), err)
		}
		got, err := b.Records(limit)
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(records, got); diff != "" {
			t.Fatalf("records (-want +got):\n%s", diff)
		}
		if b.LastOffset() != records[len(records)-1].Offset || b.IsTransactional() != o.Transactional || b.ProducerID() != 7 || b.LeaderEpoch() != 2 {
			t.Fatalf("header: %+v", b[:61])
		}
		i := 0
		err = b.EachRecord(limit, func(r wire.RawRecord) error {
			want := records[i]
			if int64(r.OffsetDelta)+b.BaseOffset() != want.Offset || r.TimestampDelta+b.BaseTimestamp() != want.Timestamp ||
				(r.Key == nil) != (want.Key == nil) || !bytes.Equal(r.Key, want.Key) || !bytes.Equal(r.Value, want.Value) || r.NumHeaders != len(want.Headers) {
				return fmt.Errorf("record %d is %+v, want %+v", i, r, want)
			}
			i++
			return nil
		})
		if err != nil || i != len(records) {
			t.Fatalf("EachRecord: %d of %d, %v", i, len(records), err)
		}
	})
}

func TestRecordsAgreeWithKmsg(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		records := drawRecords(t)
		b, err := wire.EncodeBatch(nil, records, wire.Plain(wire.CodecNone))
		if err != nil {
			t.Fatal(err)
		}
		rest := []byte(b[61:])
		for i, want := range records {
			size, n := binary.Varint(rest)
			var got kmsg.Record
			if err := got.ReadFrom(rest[:n+int(size)]); err != nil {
				t.Fatal(err)
			}
			rest = rest[n+int(size):]
			var headers []wire.Header
			for _, h := range got.Headers {
				headers = append(headers, wire.Header{Key: h.Key, Value: h.Value})
			}
			if diff := cmp.Diff(wire.Record{Timestamp: want.Timestamp, Key: want.Key, Value: want.Value, Headers: want.Headers, Offset: int64(i)},
				wire.Record{Timestamp: got.TimestampDelta64 + b.BaseTimestamp(), Key: got.Key, Value: got.Value, Headers: headers, Offset: int64(got.OffsetDelta)}, cmpopts.EquateEmpty()); diff != "" {
				t.Fatalf("record %d (-want +kmsg):\n%s", i, diff)
			}
		}
		if len(rest) > 0 {
			t.Fatalf("%d bytes left", len(rest))
		}
	})
}

func TestLogAppendTimeOverridesTheRecords(t *testing.T) {
	b, err := wire.EncodeBatch(nil, []wire.Record{{Timestamp: 1}, {Timestamp: 2}}, wire.Plain(wire.CodecNone))
	if err != nil {
		t.Fatal(err)
	}
	b.SetLogAppendTime(99)
	records, err := b.Records(limit)
	if err != nil || records[0].Timestamp != 99 || records[1].Timestamp != 99 || records[1].Offset != 1 {
		t.Errorf("records %+v, %v", records, err)
	}
}

func TestEncodeBatchRefuses(t *testing.T) {
	keep := wire.Plain(wire.CodecNone)
	keep.KeepOffsets = true
	for name, records := range map[string][]wire.Record{
		"no records":           nil,
		"the same offset":      {{Offset: 5}, {Offset: 5}},
		"descending offsets":   {{Offset: 5}, {Offset: 4}},
		"too wide a span":      {{Offset: 5}, {Offset: 5 + 1<<31}},
		"descending after two": {{Offset: 5}, {Offset: 6}, {Offset: 4}},
	} {
		if _, err := wire.EncodeBatch(nil, records, keep); err == nil {
			t.Errorf("%s: no error", name)
		}
	}
}

func TestRecordsRefuseContradictions(t *testing.T) {
	for name, spoil := range map[string]func(b wire.Batch){
		"one record too many":  func(b wire.Batch) { binary.BigEndian.PutUint32(b[57:], 4); binary.BigEndian.PutUint32(b[23:], 3) },
		"one record too few":   func(b wire.Batch) { binary.BigEndian.PutUint32(b[57:], 2) },
		"2^31-1 records":       func(b wire.Batch) { binary.BigEndian.PutUint32(b[57:], 1<<31-1) },
		"a delta past the end": func(b wire.Batch) { binary.BigEndian.PutUint32(b[23:], 1) },
		"a delta that repeats": func(b wire.Batch) { b[len(b)-4] = 2 },
		"an unknown codec":     func(b wire.Batch) { b[22] |= 7 },
		"a length that lies":   func(b wire.Batch) { b[61] = 0x7e },
		"a negative length":    func(b wire.Batch) { b[61] = 0x01 },
		"a key that lies":      func(b wire.Batch) { b[65] = 0x7e },
	} {
		b, err := wire.EncodeBatch(nil, []wire.Record{{}, {}, {}}, wire.Plain(wire.CodecNone))
		if err != nil {
			t.Fatal(err)
		}
		spoil(b)
		var corrupt *wire.CorruptError
		if _, err := b.Records(limit); !errors.As(err, &corrupt) {
			t.Errorf("%s: %v, want *CorruptError", name, err)
		}
		if err := b.EachRecord(limit, func(wire.RawRecord) error { return nil }); !errors.As(err, &corrupt) {
			t.Errorf("%s: EachRecord: %v, want *CorruptError", name, err)
		}
	}
}

func TestEachRecordHandsOnTheCallersError(t *testing.T) {
	b, err := wire.EncodeBatch(nil, []wire.Record{{}, {}}, wire.Plain(wire.CodecZstd))
	if err != nil {
		t.Fatal(err)
	}
	stop := errors.New("stop")
	if err := b.EachRecord(limit, func(wire.RawRecord) error { return stop }); !errors.Is(err, stop) {
		t.Errorf("got %v, want the error of fn itself", err)
	}
}

// A batch of a few KiB that inflates to 48 MiB.
func TestDeepCompressionStopsAtTheLimit(t *testing.T) {
	const inflated, limit = 48 << 20, 1 << 20
	value := make([]byte, inflated)
	for _, codec := range codecs[1:] {
		b, err := wire.EncodeBatch(nil, []wire.Record{{Value: value}}, wire.Plain(codec))
		if err != nil {
			t.Fatal(err)
		}
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		_, err = b.Records(limit)
		runtime.ReadMemStats(&after)
		var inflate *wire.InflateError
		if !errors.As(err, &inflate) || inflate.Limit != limit || inflate.Codec != codec {
			t.Errorf("%s: %v, want *InflateError", codec, err)
		}
		if err := b.EachRecord(limit, func(wire.RawRecord) error { return nil }); !errors.As(err, &inflate) {
			t.Errorf("%s: EachRecord: %v, want *InflateError", codec, err)
		}
		if took := after.TotalAlloc - before.TotalAlloc; took > 4*limit {
			t.Errorf("%s: %d bytes allocated under a limit of %d", codec, took, limit)
		}
		if records, err := b.Records(inflated + 100); err != nil || len(records[0].Value) != inflated {
			t.Errorf("%s: within the limit: %v", codec, err)
		}
	}
}

func BenchmarkEachRecord(b *testing.B) {
	records := make([]wire.Record, 64)
	for i := range records {
		records[i].Value = bytes.Repeat([]byte("kmirror "), 128)
	}
	for _, codec := range codecs {
		batch, err := wire.EncodeBatch(nil, records, wire.Plain(codec))
		if err != nil {
			b.Fatal(err)
		}
		b.Run(codec.String(), func(b *testing.B) {
			b.SetBytes(64 << 10)
			b.ReportAllocs()
			for range b.N {
				if err := batch.EachRecord(limit, func(wire.RawRecord) error { return nil }); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
