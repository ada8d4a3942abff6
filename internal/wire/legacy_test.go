package wire_test

import (
	"encoding/binary"
	"errors"
	"hash/crc32"
	"testing"

	"github.com/google/go-cmp/cmp"

	"kmirror/internal/wire"
)

// message builds one message of format 0 or 1.
func message(magic int8, attributes byte, offset, timestamp int64, key, value []byte) []byte {
	field := func(dst, b []byte) []byte {
		if b == nil {
			return append(dst, 0xff, 0xff, 0xff, 0xff)
		}
		return append(binary.BigEndian.AppendUint32(dst, uint32(len(b))), b...)
	}
	body := []byte{byte(magic), attributes}
	if magic == 1 {
		body = binary.BigEndian.AppendUint64(body, uint64(timestamp))
	}
	body = field(field(body, key), value)
	m := binary.BigEndian.AppendUint64(nil, uint64(offset))
	m = binary.BigEndian.AppendUint32(m, uint32(len(body)+4))
	m = binary.BigEndian.AppendUint32(m, crc32.ChecksumIEEE(body))
	return append(m, body...)
}

func join(parts ...[]byte) (all []byte) {
	for _, p := range parts {
		all = append(all, p...)
	}
	return all
}

func wrapper(t testing.TB, magic int8, codec wire.Codec, more byte, offset, timestamp int64, inner ...[]byte) []byte {
	t.Helper()
	packed, err := wire.Compress(nil, codec, join(inner...))
	if err != nil {
		t.Fatal(err)
	}
	return message(magic, byte(codec)|more, offset, timestamp, nil, packed)
}

func TestDecodeLegacy(t *testing.T) {
	k, v := []byte("k"), []byte("v")
	batch := kmsgBatch(t, nil)
	for name, tc := range map[string]struct {
		buf        []byte
		want       []wire.Record
		appendTime bool
		left       int
	}{
		"format 0": {
			buf:  join(message(0, 0, 5, 0, k, v), message(0, 0, 6, 0, nil, []byte{})),
			want: []wire.Record{{Offset: 5, Timestamp: -1, Key: k, Value: v}, {Offset: 6, Timestamp: -1, Value: []byte{}}},
		},
		"format 1": {
			buf:  join(message(1, 0, 5, 77, k, nil), message(1, 0, 9, 78, k, v)),
			want: []wire.Record{{Offset: 5, Timestamp: 77, Key: k}, {Offset: 9, Timestamp: 78, Key: k, Value: v}},
		},
		"a cut end": {
			buf:  join(message(1, 0, 5, 77, k, v), message(1, 0, 6, 78, k, v)[:20]),
			want: []wire.Record{{Offset: 5, Timestamp: 77, Key: k, Value: v}}, left: 20,
		},
		"a batch follows": {
			buf:  join(message(1, 0, 5, 77, k, v), batch),
			want: []wire.Record{{Offset: 5, Timestamp: 77, Key: k, Value: v}}, left: len(batch),
		},
		"wrapper of format 0: absolute offsets": {
			buf:  wrapper(t, 0, wire.CodecSnappy, 0, 41, 0, message(0, 0, 40, 0, k, v), message(0, 0, 41, 0, k, nil)),
			want: []wire.Record{{Offset: 40, Timestamp: -1, Key: k, Value: v}, {Offset: 41, Timestamp: -1, Key: k}},
		},
		"wrapper of format 1: relative offsets with a hole": {
			buf:  wrapper(t, 1, wire.CodecLZ4, 0, 43, 99, message(1, 0, 0, 1, k, v), message(1, 0, 3, 2, k, v)),
			want: []wire.Record{{Offset: 40, Timestamp: 1, Key: k, Value: v}, {Offset: 43, Timestamp: 2, Key: k, Value: v}},
		},
		"wrapper with log append time": {
			buf:        wrapper(t, 1, wire.CodecGzip, 8, 43, 99, message(1, 0, 0, 1, k, v), message(1, 0, 1, 2, k, v)),
			want:       []wire.Record{{Offset: 42, Timestamp: 99, Key: k, Value: v}, {Offset: 43, Timestamp: 99, Key: k, Value: v}},
			appendTime: true,
		},
		"the kind of time changes": {
			buf:  join(message(1, 0, 5, 77, k, v), message(1, 8, 6, 78, k, v)),
			want: []wire.Record{{Offset: 5, Timestamp: 77, Key: k, Value: v}}, left: len(message(1, 8, 6, 78, k, v)),
		},
		"two formats": {
			buf:  join(message(0, 0, 5, 0, k, v), message(1, 0, 6, 78, k, v)),
			want: []wire.Record{{Offset: 5, Timestamp: -1, Key: k, Value: v}, {Offset: 6, Timestamp: 78, Key: k, Value: v}},
		},
		"an empty wrapper": {buf: wrapper(t, 1, wire.CodecGzip, 0, 43, 99), want: nil},
	} {
		got, appendTime, rest, err := wire.DecodeLegacy(tc.buf, limit)
		if err != nil || appendTime != tc.appendTime || len(rest) != tc.left {
			t.Errorf("%s: append time %t, %d left (want %d), %v", name, appendTime, len(rest), tc.left, err)
		}
		if diff := cmp.Diff(tc.want, got); diff != "" {
			t.Errorf("%s (-want +got):\n%s", name, diff)
		}
	}
}

func TestDecodeLegacyRefuses(t *testing.T) {
	good := message(1, 0, 5, 77, []byte("k"), []byte("v"))
	damaged := append([]byte{}, good...)
	damaged[len(damaged)-1] ^= 1
	nested := wrapper(t, 1, wire.CodecGzip, 0, 43, 99, wrapper(t, 1, wire.CodecGzip, 0, 43, 99, good))
	tiny := append([]byte{}, good...)
	binary.BigEndian.PutUint32(tiny[8:], 3)
	for name, buf := range map[string][]byte{
		"a wrong checksum":         damaged,
		"a small size":             tiny,
		"a wrapper in a wrapper":   nested,
		"a cut inside a wrapper":   wrapper(t, 1, wire.CodecGzip, 0, 43, 99, good[:20]),
		"format 0 inside format 1": wrapper(t, 1, wire.CodecGzip, 0, 43, 99, message(0, 0, 5, 0, nil, nil)),
		"zstd":                     wrapper(t, 1, wire.CodecZstd, 0, 43, 99, good),
		"an offset below zero":     wrapper(t, 1, wire.CodecGzip, 0, 1, 99, message(1, 0, 0, 0, nil, nil), message(1, 0, 7, 0, nil, nil)),
		"garbage where gzip goes":  message(1, 1, 5, 0, nil, []byte("garbage")),
	} {
		var corrupt *wire.CorruptError
		records, _, rest, err := wire.DecodeLegacy(buf, limit)
		if !errors.As(err, &corrupt) || records != nil || len(rest) != len(buf) {
			t.Errorf("%s: %d records, %v, want *CorruptError", name, len(records), err)
		}
		// behind a good message, the good one comes first
		records, _, rest, err = wire.DecodeLegacy(join(good, buf), limit)
		if err != nil || len(records) != 1 || len(rest) != len(buf) {
			t.Errorf("%s behind a good message: %d records, %d left, %v", name, len(records), len(rest), err)
		}
	}
	if _, _, _, err := wire.DecodeLegacy(good[:10], limit); !errors.Is(err, wire.ErrPartialBatch) {
		t.Errorf("a cut message: %v, want ErrPartialBatch", err)
	}
	var inflate *wire.InflateError
	deep := wrapper(t, 1, wire.CodecGzip, 0, 43, 99, message(1, 0, 0, 0, nil, make([]byte, 1<<20)))
	if _, _, _, err := wire.DecodeLegacy(deep, 1<<19); !errors.As(err, &inflate) {
		t.Errorf("a deep wrapper: %v, want *InflateError", err)
	}
	records, _, rest, err := wire.DecodeLegacy(join(deep, deep), 3<<19)
	if err != nil || len(records) != 1 || len(rest) != len(deep) {
		t.Errorf("two wrappers above the limit: %d records, %d left, %v", len(records), len(rest), err)
	}
}

func FuzzDecodeLegacy(f *testing.F) {
	f.Add(message(0, 0, 5, 0, []byte("k"), nil))
	f.Add(wrapper(f, 1, wire.CodecGzip, 0, 43, 99, message(1, 0, 0, 1, nil, nil), message(1, 0, 1, 2, nil, nil)))
	f.Fuzz(func(t *testing.T, buf []byte) {
		if len(buf) > 20 { // let mutations past the checksum
			size := int(int32(binary.BigEndian.Uint32(buf[8:])))
			if size > 8 && size <= len(buf)-12 {
				binary.BigEndian.PutUint32(buf[12:], crc32.ChecksumIEEE(buf[16:12+size]))
			}
		}
		for range 10 {
			records, _, rest, err := wire.DecodeLegacy(buf, 1<<16)
			if err != nil || len(rest) == 0 {
				return
			}
			if len(rest) >= len(buf) && len(records) > 0 {
				t.Fatal("records but no progress")
			}
			buf = rest
		}
	})
}
