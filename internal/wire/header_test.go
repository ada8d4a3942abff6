package wire_test

import (
	"bytes"
	"encoding/binary"
	"errors"
	"io"
	"runtime"
	"testing"
	"testing/iotest"

	"github.com/twmb/franz-go/pkg/kmsg"

	"kmirror/internal/wire"
)

func TestFlexibleAgreesWithKmsg(t *testing.T) {
	for key := int16(0); key <= kmsg.MaxKey; key++ {
		req := kmsg.RequestForKey(key)
		if req == nil {
			continue
		}
		for v := int16(0); v <= req.MaxVersion()+3; v++ {
			req.SetVersion(v)
			if got := wire.Flexible(key, v); got != req.IsFlexible() {
				t.Errorf("%s v%d: flexible %t, kmsg says %t", kmsg.NameForKey(key), v, got, req.IsFlexible())
			}
		}
	}
	if wire.Flexible(-1, 1) || wire.Flexible(kmsg.MaxKey+1, 1) || wire.Flexible(3, -1) {
		t.Error("unknown keys and negative versions are not flexible")
	}
}

func TestRequestHeadersThereAndBack(t *testing.T) {
	for _, id := range []*string{nil, new(string), new("client")} {
		for _, kv := range [][2]int16{{0, 3}, {0, 9}, {18, 0}, {18, 3}, {18, 99}, {17, 1}, {1, 18}} {
			want := wire.RequestHeader{Key: kv[0], Version: kv[1], CorrelationID: -5, ClientID: id}
			frame := append(wire.AppendRequestHeader(nil, want), "body"...)
			got, body, err := wire.ParseRequestHeader(frame)
			if err != nil || string(body) != "body" || got.Key != want.Key || got.Version != want.Version || got.CorrelationID != -5 ||
				(got.ClientID == nil) != (id == nil) || id != nil && *got.ClientID != *id {
				t.Errorf("%+v: got %+v, body %q, %v", want, got, body, err)
			}
			for cut := range len(frame) - 4 {
				var corrupt *wire.CorruptError
				if _, _, err := wire.ParseRequestHeader(frame[:cut]); !errors.As(err, &corrupt) {
					t.Errorf("%+v cut to %d: %v, want *CorruptError", want, cut, err)
				}
			}
		}
	}
}

func TestRequestHeaderOfKmsgFormatter(t *testing.T) {
	req := kmsg.NewPtrMetadataRequest()
	req.SetVersion(12)
	frame := kmsg.NewRequestFormatter(kmsg.FormatterClientID("me")).AppendRequest(nil, req, 77)[4:]
	h, body, err := wire.ParseRequestHeader(frame)
	if err != nil || h.Key != 3 || h.Version != 12 || h.CorrelationID != 77 || *h.ClientID != "me" || !bytes.Equal(body, req.AppendTo(nil)) {
		t.Errorf("header %+v, %v", h, err)
	}
}

func TestParseRequestHeaderSkipsTagsAndTellsUnknownKeys(t *testing.T) {
	frame := wire.AppendRequestHeader(nil, wire.RequestHeader{Key: 3, Version: 12})
	frame[len(frame)-1] = 2
	frame = append(frame, 0, 3, 'a', 'b', 'c', 200, 1, 0)
	if _, body, err := wire.ParseRequestHeader(append(frame, 'x')); err != nil || string(body) != "x" {
		t.Errorf("behind two tags: %q, %v", body, err)
	}
	var unknown *wire.UnknownKeyError
	h, _, err := wire.ParseRequestHeader(wire.AppendRequestHeader(nil, wire.RequestHeader{Key: 9999, Version: 2, CorrelationID: 3}))
	if !errors.As(err, &unknown) || unknown.Key != 9999 || unknown.Version != 2 || h.CorrelationID != 3 {
		t.Errorf("unknown key: %+v, %v", h, err)
	}
}

func TestResponseHeaders(t *testing.T) {
	for _, tc := range []struct {
		key, version int16
		want         int
	}{{0, 8, 4}, {0, 9, 5}, {18, 3, 4}, {18, 0, 4}, {17, 1, 4}} {
		if got := wire.AppendResponseHeader(nil, tc.key, tc.version, 9); len(got) != tc.want || binary.BigEndian.Uint32(got) != 9 {
			t.Errorf("%s v%d: %x, want %d bytes", kmsg.NameForKey(tc.key), tc.version, got, tc.want)
		}
	}
}

func TestReadFrame(t *testing.T) {
	big := bytes.Repeat([]byte("0123456789abcdef"), 300_000) // 4.8 MB
	stream := binary.BigEndian.AppendUint32(nil, uint32(len(big)))
	stream = append(append(stream, big...), 0, 0, 0, 2, 'h', 'i', 0, 0, 0, 0)
	r := iotest.HalfReader(bytes.NewReader(stream))
	for i, want := range []string{string(big), "hi", ""} {
		if got, err := wire.ReadFrame(r, nil, 8<<20); err != nil || string(got) != want {
			t.Fatalf("frame %d: %d bytes, %v", i, len(got), err)
		}
	}
	if _, err := wire.ReadFrame(r, nil, 8<<20); !errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		t.Errorf("behind the last frame: %v, want io.EOF", err)
	}

	buf := make([]byte, 10, 100)
	got, err := wire.ReadFrame(bytes.NewReader([]byte{0, 0, 0, 2, 'h', 'i'}), buf, 10)
	if err != nil || &got[0] != &buf[0] {
		t.Errorf("a buffer that suffices is not reused: %v", err)
	}
	for _, cut := range []int{1, 3, 4, 5} {
		if _, err := wire.ReadFrame(bytes.NewReader([]byte{0, 0, 0, 2, 'h', 'i'}[:cut]), nil, 10); !errors.Is(err, io.ErrUnexpectedEOF) {
			t.Errorf("cut to %d bytes: %v, want io.ErrUnexpectedEOF", cut, err)
		}
	}
	for _, prefix := range [][]byte{{0, 0, 0, 11}, {0xff, 0xff, 0xff, 0xff}, {0x7f, 0xff, 0xff, 0xff}} {
		var size *wire.FrameSizeError
		if _, err := wire.ReadFrame(bytes.NewReader(prefix), nil, 10); !errors.As(err, &size) || size.Limit != 10 {
			t.Errorf("size %x: %v, want *FrameSizeError", prefix, err)
		}
	}
}

func TestALengthThatLiesAllocatesLittle(t *testing.T) {
	lie := append([]byte{0x7f, 0xff, 0xff, 0xff}, make([]byte, 3<<20)...)
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	_, err := wire.ReadFrame(bytes.NewReader(lie), nil, 0x7fffffff)
	runtime.ReadMemStats(&after)
	if !errors.Is(err, io.ErrUnexpectedEOF) {
		t.Errorf("got %v, want io.ErrUnexpectedEOF", err)
	}
	if took := after.TotalAlloc - before.TotalAlloc; took > 8<<20 {
		t.Errorf("%d bytes allocated for 3 MiB that came", took)
	}
}

func FuzzParseRequestHeader(f *testing.F) {
	f.Add(wire.AppendRequestHeader(nil, wire.RequestHeader{Key: 3, Version: 12, ClientID: new("x")}))
	f.Fuzz(func(t *testing.T, frame []byte) {
		h, body, err := wire.ParseRequestHeader(frame)
		if err != nil {
			return
		}
		again, body2, err := wire.ParseRequestHeader(append(wire.AppendRequestHeader(nil, h), body...))
		if err != nil || again.Key != h.Key || again.CorrelationID != h.CorrelationID || !bytes.Equal(body, body2) {
			t.Errorf("%+v came back as %+v, %v", h, again, err)
		}
	})
}

func FuzzReadFrame(f *testing.F) {
	f.Add([]byte{0, 0, 0, 2, 'h', 'i'}, int32(10))
	f.Fuzz(func(t *testing.T, stream []byte, limit int32) {
		got, err := wire.ReadFrame(bytes.NewReader(stream), nil, limit)
		if err == nil && !bytes.Equal(got, stream[4:4+len(got)]) {
			t.Error("other bytes than came")
		}
	})
}

// Whatever NextBatch lets through can be read, edited and walked.
func FuzzBatch(f *testing.F) {
	f.Add([]byte(kmsgBatch(f, nil)))
	for _, codec := range codecs {
		b, err := wire.EncodeBatch(nil, []wire.Record{{Key: []byte("k")}, {Value: []byte("v"), Headers: []wire.Header{{Key: "h"}}}}, wire.Plain(codec))
		if err != nil {
			f.Fatal(err)
		}
		f.Add([]byte(b))
	}
	f.Fuzz(func(t *testing.T, buf []byte) {
		b, _, err := wire.NextBatch(buf)
		if err != nil {
			return
		}
		right := b.CheckCRC() == nil
		records, err := b.Records(1 << 16)
		walked := 0
		walkErr := b.EachRecord(1<<16, func(wire.RawRecord) error { walked++; return nil })
		if err == nil && (walkErr != nil || walked != len(records) || walked != int(b.NumRecords())) {
			t.Errorf("%d records, %d walked: %v", len(records), walked, walkErr)
		}
		b.Rewrite(wire.HeaderEdit{ProducerID: 1, ProducerEpoch: 2, BaseSequence: 3, ClearTransactional: true})
		b.SetLogAppendTime(7)
		if right != (b.CheckCRC() == nil) {
			t.Error("an edit changed whether the checksum is right")
		}
		if err == nil && len(records) > 0 {
			o := wire.Plain(wire.CodecNone)
			o.KeepOffsets = true
			if _, err := wire.EncodeBatch(nil, records, o); err != nil {
				t.Errorf("encode what was decoded: %v", err)
			}
		}
	})
}
