package wire_test

import (
	"bytes"
	"encoding/binary"
	"errors"
	"hash/crc32"
	"math"
	"math/rand/v2"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/twmb/franz-go/pkg/kmsg"

	"kmirror/internal/wire"
)

func castagnoli(b []byte) uint32 { return crc32.Checksum(b, crc32.MakeTable(crc32.Castagnoli)) }

// kmsgBatch is a batch as franz-go writes it.
func kmsgBatch(t testing.TB, mutate func(*kmsg.RecordBatch)) wire.Batch {
	t.Helper()
	var payload []byte
	for i := range int32(3) {
		r := kmsg.Record{TimestampDelta64: int64(i), OffsetDelta: i, Key: []byte("key"), Value: bytes.Repeat([]byte{'v'}, 10*int(i))}
		r.Headers = []kmsg.Header{{Key: "h", Value: []byte{1, 2}}}
		body := r.AppendTo(nil)[1:] // all lengths here take one byte of varint
		r.Length = int32(len(body))
		payload = r.AppendTo(payload)
	}
	b := kmsg.RecordBatch{
		FirstOffset: 1000, PartitionLeaderEpoch: 7, Magic: 2, LastOffsetDelta: 2,
		FirstTimestamp: 5_000, MaxTimestamp: 5_002, ProducerID: 42, ProducerEpoch: 3, FirstSequence: 17,
		NumRecords: 3, Records: payload,
	}
	if mutate != nil {
		mutate(&b)
	}
	raw := b.AppendTo(nil)
	binary.BigEndian.PutUint32(raw[8:], uint32(len(raw)-12))
	binary.BigEndian.PutUint32(raw[17:], castagnoli(raw[21:]))
	batch, rest, err := wire.NextBatch(raw)
	if err != nil || len(rest) > 0 {
		t.Fatalf("NextBatch of a kmsg batch: %d bytes left, %v", len(rest), err)
	}
	return batch
}

func TestBatchAccessorsAgreeWithKmsg(t *testing.T) {
	b := kmsgBatch(t, func(b *kmsg.RecordBatch) { b.Attributes = 0x10 | 0x20 | 0x08 | 0x40 | 4 })
	var want kmsg.RecordBatch
	if err := want.ReadFrom(b); err != nil {
		t.Fatal(err)
	}
	got := kmsg.RecordBatch{
		FirstOffset: b.BaseOffset(), Length: int32(b.Size() - 12), PartitionLeaderEpoch: b.LeaderEpoch(), Magic: b.Magic(),
		CRC: int32(b.CRC()), Attributes: b.Attributes(), LastOffsetDelta: b.LastOffsetDelta(),
		FirstTimestamp: b.BaseTimestamp(), MaxTimestamp: b.MaxTimestamp(), ProducerID: b.ProducerID(),
		ProducerEpoch: b.ProducerEpoch(), FirstSequence: b.BaseSequence(), NumRecords: b.NumRecords(), Records: b[61:],
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("accessors (-kmsg +ours):\n%s", diff)
	}
	if b.LastOffset() != 1002 || b.LastSequence() != 19 || b.Codec() != wire.CodecZstd ||
		!b.IsTransactional() || !b.IsControl() || !b.IsLogAppendTime() || !b.HasDeleteHorizon() {
		t.Errorf("derived: last offset %d, last sequence %d, codec %s, flags %#x", b.LastOffset(), b.LastSequence(), b.Codec(), b.Attributes())
	}
	if err := b.CheckCRC(); err != nil {
		t.Errorf("CheckCRC: %v", err)
	}
}

func TestLastSequenceWraps(t *testing.T) {
	b := kmsgBatch(t, func(b *kmsg.RecordBatch) { b.FirstSequence = math.MaxInt32 })
	if got := b.LastSequence(); got != 1 {
		t.Errorf("last sequence behind 2^31-1 with three records: %d, want 1", got)
	}
	b = kmsgBatch(t, func(b *kmsg.RecordBatch) { b.FirstSequence = -1 })
	if got := b.LastSequence(); got != -1 {
		t.Errorf("last sequence without a producer: %d, want -1", got)
	}
}

func TestNextBatchSplits(t *testing.T) {
	first, second := kmsgBatch(t, nil), kmsgBatch(t, func(b *kmsg.RecordBatch) { b.FirstOffset = 1003 })
	buf := append(append([]byte{}, first...), second...)
	for cut := range len(second) { // the second batch is cut at every byte
		b, rest, err := wire.NextBatch(buf[:len(first)+cut])
		if err != nil || !bytes.Equal(b, first) || len(rest) != cut {
			t.Fatalf("cut at %d: batch of %d bytes, %d left, %v", cut, len(b), len(rest), err)
		}
		if _, again, err := wire.NextBatch(rest); !errors.Is(err, wire.ErrPartialBatch) || len(again) != cut {
			t.Fatalf("cut at %d: %v with %d left, want ErrPartialBatch", cut, err, len(again))
		}
	}
}

func TestNextBatchRefuses(t *testing.T) {
	for name, spoil := range map[string]func(b []byte){
		"a length below a header": func(b []byte) { binary.BigEndian.PutUint32(b[8:], 48) },
		"a negative length":       func(b []byte) { binary.BigEndian.PutUint32(b[8:], 0xffffffff) },
		"an unknown format":       func(b []byte) { b[16] = 3 },
		"a negative format":       func(b []byte) { b[16] = 0xff },
		"a negative offset":       func(b []byte) { b[0] = 0x80 },
		"a negative last delta":   func(b []byte) { b[23] = 0x80 },
		"an offset overflow":      func(b []byte) { binary.BigEndian.PutUint64(b, math.MaxInt64) },
		"a negative count":        func(b []byte) { b[57] = 0x80 },
	} {
		b := kmsgBatch(t, nil)
		spoil(b)
		var corrupt *wire.CorruptError
		if _, _, err := wire.NextBatch(b); !errors.As(err, &corrupt) {
			t.Errorf("%s: %v, want *CorruptError", name, err)
		}
	}
	for magic := range byte(2) {
		b := kmsgBatch(t, nil)
		b[16] = magic
		_, _, err := wire.NextBatch(b)
		var legacy *wire.LegacyMagicError
		if !errors.Is(err, wire.ErrLegacyMagic) || !errors.As(err, &legacy) || legacy.Magic != int8(magic) {
			t.Errorf("format %d: %v, want *LegacyMagicError", magic, err)
		}
	}
}

func TestShiftCRCAgreesWithThePlainComputation(t *testing.T) {
	random := rand.New(rand.NewPCG(1, 2))
	lengths := []int{0, 1, 2, 255, 256, 257, 65535, 65536, 65537, 1 << 20}
	for range 300 {
		lengths = append(lengths, random.IntN(200_000))
	}
	for _, n := range lengths {
		tail := make([]byte, n)
		for i := range tail {
			tail[i] = byte(random.Uint32())
		}
		a, b := make([]byte, 40), make([]byte, 40)
		for i := range a {
			a[i], b[i] = byte(random.Uint32()), byte(random.Uint32())
		}
		want := castagnoli(append(a[:40:40], tail...)) ^ castagnoli(append(b[:40:40], tail...))
		if got := wire.ShiftCRC(castagnoli(a)^castagnoli(b), n); got != want {
			t.Fatalf("%d bytes behind: %08x, want %08x", n, got, want)
		}
	}
}

func TestEditsKeepTheChecksumRight(t *testing.T) {
	random := rand.New(rand.NewPCG(3, 4))
	for range 2_000 {
		b := kmsgBatch(t, func(b *kmsg.RecordBatch) {
			b.Attributes = int16(random.Uint32()) & 0x7f
			b.ProducerID, b.FirstSequence = random.Int64(), random.Int32()
			b.Records = make([]byte, random.IntN(3_000))
			for i := range b.Records {
				b.Records[i] = byte(random.Uint32())
			}
		})
		payload := bytes.Clone(b[61:])
		e := wire.HeaderEdit{ProducerID: random.Int64(), ProducerEpoch: int16(random.Uint32()), BaseSequence: random.Int32(), ClearTransactional: random.IntN(2) == 0}
		attributes := b.Attributes()
		b.Rewrite(e)
		if err := b.CheckCRC(); err != nil {
			t.Fatalf("after Rewrite: %v", err)
		}
		if e.ClearTransactional {
			attributes &^= 0x10
		}
		got := []int64{b.BaseOffset(), int64(b.LeaderEpoch()), b.ProducerID(), int64(b.ProducerEpoch()), int64(b.BaseSequence()), int64(b.Attributes())}
		want := []int64{0, -1, e.ProducerID, int64(e.ProducerEpoch), int64(e.BaseSequence), int64(attributes)}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Fatalf("after Rewrite (-want +got):\n%s", diff)
		}
		ts := random.Int64()
		b.SetMaxTimestamp(ts)
		if err := b.CheckCRC(); err != nil || b.MaxTimestamp() != ts || b.Attributes() != attributes {
			t.Fatalf("after SetMaxTimestamp: %v", err)
		}
		b.SetLogAppendTime(ts + 1)
		if err := b.CheckCRC(); err != nil || b.MaxTimestamp() != ts+1 || !b.IsLogAppendTime() {
			t.Fatalf("after SetLogAppendTime: %v", err)
		}
		b.SetBaseOffset(77)
		b.SetLeaderEpoch(5)
		if err := b.CheckCRC(); err != nil || b.BaseOffset() != 77 || b.LeaderEpoch() != 5 {
			t.Fatalf("after SetBaseOffset and SetLeaderEpoch: %v", err)
		}
		if !bytes.Equal(payload, b[61:]) {
			t.Fatal("the payload changed")
		}
	}
}

func TestRewriteKeepsAWrongChecksumWrong(t *testing.T) {
	b := kmsgBatch(t, nil)
	b[len(b)-1] ^= 1 // the payload was damaged on the way
	b.Rewrite(wire.HeaderEdit{ProducerID: 1, BaseSequence: 2})
	if err := b.CheckCRC(); err == nil {
		t.Error("a damaged payload passed after Rewrite")
	}
}

func TestRewriteAllocatesNothing(t *testing.T) {
	b := kmsgBatch(t, nil)
	if n := testing.AllocsPerRun(100, func() {
		b.Rewrite(wire.HeaderEdit{ProducerID: 9, ProducerEpoch: 1, BaseSequence: 4, ClearTransactional: true})
	}); n != 0 {
		t.Errorf("Rewrite allocates %v times", n)
	}
}

func BenchmarkRewrite(b *testing.B) {
	batch, err := wire.EncodeBatch(nil, []wire.Record{{Value: make([]byte, 64<<10)}}, wire.Plain(wire.CodecNone))
	if err != nil {
		b.Fatal(err)
	}
	b.ReportAllocs()
	for i := range b.N {
		batch.Rewrite(wire.HeaderEdit{ProducerID: 9, ProducerEpoch: 1, BaseSequence: int32(i)})
	}
}
