package storage_test

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/twmb/franz-go/pkg/kerr"

	"kmirror/broker/storage"
	"kmirror/internal/wire"
)

func TestRefusedBatches(t *testing.T) {
	const minute = 60_000
	good := func() wire.Batch { return plain(t, now, "a", "b") }
	tests := map[string]struct {
		config func(*storage.LogConfig)
		batch  func() wire.Batch
		want   *kerr.Error
		faults []int32
	}{
		"no batch at all": {batch: func() wire.Batch { return wire.Batch("garbage") }, want: kerr.CorruptMessage},
		"torn":            {batch: func() wire.Batch { b := good(); return b[:len(b)-1] }, want: kerr.CorruptMessage},
		"two batches":     {batch: func() wire.Batch { return append(good(), good()...) }, want: kerr.CorruptMessage},
		"wrong checksum":  {batch: func() wire.Batch { b := good(); b[len(b)-1] ^= 1; return b }, want: kerr.CorruptMessage},
		"magic 1":         {batch: func() wire.Batch { b := good(); b[16] = 1; return b }, want: kerr.UnsupportedForMessageFormat},
		"base offset 5":   {batch: func() wire.Batch { b := good(); b.SetBaseOffset(5); return b }, want: kerr.InvalidRecord},
		"too large": {
			config: func(c *storage.LogConfig) { c.MaxMessageBytes = 100 },
			batch:  func() wire.Batch { return plain(t, now, strings.Repeat("x", 100)) }, want: kerr.MessageTooLarge,
		},
		"larger than a segment": {
			config: func(c *storage.LogConfig) { c.SegmentBytes = 80 },
			batch:  func() wire.Batch { return plain(t, now, strings.Repeat("x", 100)) }, want: kerr.RecordListTooLarge,
		},
		"count too high": {batch: func() wire.Batch { b := good(); binary.BigEndian.PutUint32(b[57:], 3); return fixCRC(b) }, want: kerr.InvalidRecord},
		"count and delta too high": {batch: func() wire.Batch {
			b := good()
			binary.BigEndian.PutUint32(b[57:], 3)
			binary.BigEndian.PutUint32(b[23:], 2)
			return fixCRC(b)
		}, want: kerr.InvalidRecord},
		"no records": {batch: func() wire.Batch {
			b := good()[:wire.BatchHeaderSize]
			binary.BigEndian.PutUint32(b[8:], 49)
			binary.BigEndian.PutUint32(b[57:], 0)
			return fixCRC(b)
		}, want: kerr.InvalidRecord},
		"negative delta": {batch: func() wire.Batch { b := good(); binary.BigEndian.PutUint32(b[23:], 1<<31); return fixCRC(b) }, want: kerr.CorruptMessage},
		"control batch": {batch: func() wire.Batch {
			o := wire.Plain(wire.CodecNone)
			o.Control = true
			return batchOf(t, o, values(now, "a")...)
		}, want: kerr.InvalidRecord},
		"transactional": {batch: func() wire.Batch {
			o := wire.Plain(wire.CodecNone)
			o.Transactional, o.ProducerID, o.ProducerEpoch, o.BaseSequence = true, 1, 0, 0
			return batchOf(t, o, values(now, "a")...)
		}, want: kerr.InvalidTxnState},
		"producer without sequence": {batch: func() wire.Batch {
			o := wire.Plain(wire.CodecNone)
			o.ProducerID, o.ProducerEpoch = 1, 0
			return batchOf(t, o, values(now, "a")...)
		}, want: kerr.InvalidRecord},
		"unknown codec":           {batch: func() wire.Batch { b := good(); b[22] |= 6; return fixCRC(b) }, want: kerr.InvalidRecord},
		"not what its codec says": {batch: func() wire.Batch { b := good(); b[22] |= 4; return fixCRC(b) }, want: kerr.InvalidRecord},
		"no keys on a compacted topic": {
			config: func(c *storage.LogConfig) { c.Compact = true },
			batch: func() wire.Batch {
				rs := values(now, "a", "b", "c", "d")
				rs[1].Key, rs[3].Key = nil, nil
				rs[2].Key = []byte{}
				return batchOf(t, wire.Plain(wire.CodecLZ4), rs...)
			}, want: kerr.InvalidRecord, faults: []int32{1, 3},
		},
		"too old": {
			config: func(c *storage.LogConfig) { c.TimestampBeforeMax = minute },
			batch: func() wire.Batch {
				rs := values(now, "a", "b", "c")
				rs[2].Timestamp = now - minute - 1
				return batchOf(t, wire.Plain(wire.CodecNone), rs...)
			}, want: kerr.InvalidTimestamp, faults: []int32{2},
		},
		"too new": {
			config: func(c *storage.LogConfig) { c.TimestampAfterMax = minute },
			batch: func() wire.Batch {
				rs := values(now, "a", "b", "c")
				rs[0].Timestamp = now + minute + 1
				return batchOf(t, wire.Plain(wire.CodecZstd), rs...)
			}, want: kerr.InvalidTimestamp, faults: []int32{0},
		},
		"absurd timestamp": {batch: func() wire.Batch { return plain(t, 1<<62, "a") }, want: kerr.InvalidTimestamp, faults: []int32{0}},
		"append time set by the producer": {batch: func() wire.Batch {
			o := wire.Plain(wire.CodecNone)
			o.LogAppendTime = true
			return batchOf(t, o, values(now, "a", "b")...)
		}, want: kerr.InvalidTimestamp, faults: []int32{0, 1}},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			_, l := newLog(t, func(_ *storage.Options, c *storage.LogConfig) {
				if test.config != nil {
					test.config(c)
				}
			})
			_, err := l.Append(test.batch(), 0, storage.AppendOptions{FromClient: true})
			wantCode(t, err, test.want)
			var indexes []int32
			if e, ok := errors.AsType[*storage.Error](err); ok {
				for _, fault := range e.RecordErrors {
					indexes = append(indexes, fault.Index)
				}
			}
			if !cmp.Equal(indexes, test.faults) {
				t.Errorf("record errors %v, want %v (%v)", indexes, test.faults, err)
			}
			if l.End() != 0 || l.Size() != 0 {
				t.Errorf("something was written: end %d, %d bytes", l.End(), l.Size())
			}
		})
	}
}

// TestInflatedBatch offers a small batch that unpacks to gigabytes' worth.
func TestInflatedBatch(t *testing.T) {
	_, l := newLog(t, nil)
	for _, codec := range []wire.Codec{wire.CodecGzip, wire.CodecZstd, wire.CodecLZ4, wire.CodecSnappy} {
		b := batchOf(t, wire.Plain(codec), wire.Record{Timestamp: now, Value: bytes.Repeat([]byte("x"), 8<<20)})
		_, err := l.Append(b, 0, storage.AppendOptions{FromClient: true, InflateLimit: 1 << 20})
		wantCode(t, err, kerr.MessageTooLarge)
	}
}

func TestTimestampsAreSet(t *testing.T) {
	_, l := newLog(t, func(_ *storage.Options, c *storage.LogConfig) { c.LogAppendTime = true })
	r := mustAppend(t, l, plain(t, 5, "a", "b"))
	if r.LogAppendTime != now {
		t.Errorf("append time %d", r.LogAppendTime)
	}
	for _, rec := range recordsOf(t, l) {
		if rec.Timestamp != now {
			t.Errorf("record %d has time %d", rec.Offset, rec.Timestamp)
		}
	}
	// A header that lies about the largest timestamp is put right.
	_, l = newLog(t, nil)
	b := plain(t, now-7, "a")
	b.SetMaxTimestamp(now + 5)
	mustAppend(t, l, b)
	mustSync(t, l)
	if _, timestamp, _, err := l.OffsetForTime(now - 7); err != nil || timestamp != now-7 {
		t.Errorf("time %d, %v", timestamp, err)
	}
	if _, timestamp, found, err := l.MaxTimestamp(); err != nil || timestamp != now-7 || !found {
		t.Errorf("largest time %d, %v", timestamp, err)
	}
}

func recordsOf(t *testing.T, l *storage.Log) (all []wire.Record) {
	t.Helper()
	mustSync(t, l)
	slice, err := l.Read(l.Start(), 1<<30, true, l.End())
	if err != nil {
		t.Fatal(err)
	}
	defer slice.Release()
	content, err := slice.Bytes(nil)
	if err != nil {
		t.Fatal(err)
	}
	for len(content) > 0 {
		b, rest, err := wire.NextBatch(content)
		if err != nil {
			t.Fatal(err)
		}
		if err := b.CheckCRC(); err != nil {
			t.Error(err)
		}
		records, err := b.Records(1 << 30)
		if err != nil {
			t.Fatal(err)
		}
		all, content = append(all, records...), rest
	}
	return all
}

func TestCompressionType(t *testing.T) {
	codecs := map[string]wire.Codec{"uncompressed": wire.CodecNone, "gzip": wire.CodecGzip, "snappy": wire.CodecSnappy, "lz4": wire.CodecLZ4, "zstd": wire.CodecZstd, "producer": wire.CodecSnappy}
	for name, want := range codecs {
		s, l := newLog(t, func(_ *storage.Options, c *storage.LogConfig) { c.Compression = name })
		o := wire.Plain(wire.CodecSnappy)
		o.ProducerID, o.ProducerEpoch, o.BaseSequence = 4, 2, 0
		mustAppend(t, l, batchOf(t, o, values(now, "a", "b")...))
		mustSync(t, l)
		slice, err := l.Read(0, 1000, true, 2)
		if err != nil {
			t.Fatal(err)
		}
		content, _ := slice.Bytes(nil)
		slice.Release()
		b, _, err := wire.NextBatch(content)
		if err != nil || b.CheckCRC() != nil || b.Codec() != want || b.ProducerID() != 4 || b.ProducerEpoch() != 2 || b.BaseSequence() != 0 || b.LeaderEpoch() != 0 {
			t.Errorf("%s: stored as %s, %v", name, b.Codec(), err)
		}
		if got := readAll(t, l, 0); !cmp.Equal(got, []string{"a", "b"}) {
			t.Errorf("%s: read %q", name, got)
		}
		_ = s.Close()
	}
}

// TestIdempotence is a history of one log: what producers send and what they
// are told. Offsets: *N is the original offset of a duplicate.
func TestIdempotence(t *testing.T) {
	const wrap = 1<<31 - 1
	_, l := newLog(t, nil)
	step := func(id int64, epoch int16, sequence int32, n int, want string) {
		t.Helper()
		r, err := l.Append(numbered(t, id, epoch, sequence, n), 0, storage.AppendOptions{FromClient: true})
		got := fmt.Sprint(r.BaseOffset)
		if r.Duplicate {
			got = "*" + got
		}
		if err != nil {
			got = kerr.TypedErrorForCode(codeOf(err)).Message
		}
		if got != want {
			t.Errorf("producer %d epoch %d sequence %d+%d: got %s, want %s", id, epoch, sequence, n, got, want)
		}
	}
	step(1, 0, 5, 2, "0") // unknown: any first sequence
	step(1, 0, 7, 1, "2")
	step(1, 0, 5, 2, "*0")
	step(1, 0, 9, 1, "OUT_OF_ORDER_SEQUENCE_NUMBER")
	step(1, 0, 5, 1, "OUT_OF_ORDER_SEQUENCE_NUMBER") // part of a batch is no duplicate
	for i := range int32(5) {
		step(1, 0, 8+i, 1, fmt.Sprint(3+i))
	}
	step(1, 0, 8, 1, "*3")
	step(1, 0, 7, 1, "OUT_OF_ORDER_SEQUENCE_NUMBER") // the sixth last is forgotten
	step(1, 1, 3, 1, "OUT_OF_ORDER_SEQUENCE_NUMBER") // a new epoch begins at 0
	step(1, 1, 0, 2, "8")
	step(1, 0, 12, 1, "INVALID_PRODUCER_EPOCH")
	step(1, 1, 0, 2, "*8")
	step(1, 1, 2, 1, "10")
	step(2, 9, wrap, 1, "11")
	step(2, 9, 0, 1, "12") // sequences wrap
	step(2, 9, wrap, 1, "*11")
	step(3, 0, wrap-1, 4, "13") // also within a batch
	step(3, 0, 2, 1, "17")
	step(3, 0, wrap-1, 4, "*13")
	if n := len(l.Producers()); n != 3 {
		t.Errorf("%d producers", n)
	}
	_, err := l.Append(plain(t, now, "x"), -1, storage.AppendOptions{FromClient: true})
	wantCode(t, err, kerr.FencedLeaderEpoch)
}
