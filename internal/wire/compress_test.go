package wire_test

import (
	"bytes"
	"encoding/binary"
	"errors"
	"io"
	"testing"

	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/snappy"
	"github.com/klauspost/compress/zstd"
	"github.com/pierrec/lz4/v4"
	"pgregory.net/rapid"

	"kmirror/internal/wire"
)

func TestCodecNames(t *testing.T) {
	for codec, want := range map[wire.Codec]string{0: "none", 1: "gzip", 2: "snappy", 3: "lz4", 4: "zstd", 5: "codec 5"} {
		if got := codec.String(); got != want {
			t.Errorf("codec %d is %q, want %q", int8(codec), got, want)
		}
	}
}

func TestDecompressUndoesCompress(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		piece := rapid.SliceOfN(rapid.Byte(), 0, 500).Draw(t, "piece")
		want := bytes.Repeat(piece, rapid.IntRange(0, 2000).Draw(t, "times"))
		codec := rapid.SampledFrom(codecs).Draw(t, "codec")
		prefix := rapid.SliceOfN(rapid.Byte(), 0, 5).Draw(t, "prefix")
		packed, err := wire.Compress(bytes.Clone(prefix), codec, want)
		if err != nil || !bytes.HasPrefix(packed, prefix) {
			t.Fatalf("Compress: %v", err)
		}
		packed = packed[len(prefix):]
		got, err := wire.Decompress(bytes.Clone(prefix), codec, packed, len(want))
		if err != nil || !bytes.Equal(got, append(prefix, want...)) {
			t.Fatalf("%s: %d bytes came back of %d, %v", codec, len(got), len(want), err)
		}
		if len(want) > 0 {
			var inflate *wire.InflateError
			if got, err := wire.Decompress(nil, codec, packed, len(want)-1); !errors.As(err, &inflate) {
				t.Fatalf("%s: one byte above the limit: %d bytes, %v, want *InflateError", codec, len(got), err)
			}
		}
	})
}

// Every form in which Kafka's clients are known to write the codecs.
func TestDecompressReadsTheFormsOfOtherClients(t *testing.T) {
	want := bytes.Repeat([]byte("one record and another one, "), 20_000) // 560 KB
	written := func(w io.WriteCloser, out *bytes.Buffer, parts int) []byte {
		t.Helper()
		for i := range parts {
			if _, err := w.Write(want[i*len(want)/parts : (i+1)*len(want)/parts]); err != nil {
				t.Fatal(err)
			}
		}
		if err := w.Close(); err != nil {
			t.Fatal(err)
		}
		return out.Bytes()
	}
	lz4Form := func(options ...lz4.Option) []byte {
		var out bytes.Buffer
		w := lz4.NewWriter(&out)
		if err := w.Apply(options...); err != nil {
			t.Fatal(err)
		}
		return written(w, &out, 3)
	}
	xerial := func(data []byte) []byte {
		out := []byte("\x82SNAPPY\x00\x00\x00\x00\x01\x00\x00\x00\x01")
		for len(data) > 0 {
			n := min(32<<10, len(data))
			block := snappy.Encode(nil, data[:n])
			out = binary.BigEndian.AppendUint32(out, uint32(len(block)))
			out, data = append(out, block...), data[n:]
		}
		return out
	}
	var gz, zs bytes.Buffer
	zw, err := zstd.NewWriter(&zs, zstd.WithWindowSize(128<<20)) // streamed: the size is not declared, the window is large
	if err != nil {
		t.Fatal(err)
	}
	half := len(want) / 2
	forms := map[string]struct {
		codec wire.Codec
		data  []byte
	}{
		"gzip":                        {wire.CodecGzip, written(gzip.NewWriter(&gz), &gz, 2)},
		"snappy raw":                  {wire.CodecSnappy, snappy.Encode(nil, want)},
		"snappy of Java":              {wire.CodecSnappy, xerial(want)},
		"snappy of Java, joined":      {wire.CodecSnappy, append(xerial(want[:half]), xerial(want[half:])...)},
		"lz4 with blocks of 64 KiB":   {wire.CodecLZ4, lz4Form(lz4.BlockSizeOption(lz4.Block64Kb))},
		"lz4 with blocks of 4 MiB":    {wire.CodecLZ4, lz4Form(lz4.BlockSizeOption(lz4.Block4Mb))},
		"lz4 with checksums":          {wire.CodecLZ4, lz4Form(lz4.ChecksumOption(true), lz4.BlockChecksumOption(true))},
		"lz4 with its size":           {wire.CodecLZ4, lz4Form(lz4.SizeOption(uint64(len(want))))},
		"zstd streamed":               {wire.CodecZstd, written(zw, &zs, 3)},
		"lz4, two frames":             {wire.CodecLZ4, nil},
		"lz4 with dependent blocks":   {wire.CodecLZ4, nil},
		"lz4 with a wrong header sum": {wire.CodecLZ4, nil},
	}
	two := forms["lz4, two frames"]
	for _, part := range [][]byte{want[:half], want[half:]} {
		if two.data, err = wire.Compress(two.data, wire.CodecLZ4, part); err != nil {
			t.Fatal(err)
		}
	}
	forms["lz4, two frames"] = two
	wrong := forms["lz4 with blocks of 64 KiB"]
	wrong.data = bytes.Clone(wrong.data)
	wrong.data[6] ^= 0xff
	forms["lz4 with a wrong header sum"] = wrong
	forms["lz4 with dependent blocks"] = struct {
		codec wire.Codec
		data  []byte
	}{wire.CodecLZ4, dependentLZ4(t, want)}
	for name, form := range forms {
		if got, err := wire.Decompress(nil, form.codec, form.data, len(want)); err != nil || !bytes.Equal(got, want) {
			t.Errorf("%s: %d bytes of %d, %v", name, len(got), len(want), err)
		}
	}
}

// dependentLZ4 writes data twice over a frame whose second block refers to the
// first: one literal run, then one match that reaches back over the border.
func dependentLZ4(t *testing.T, data []byte) []byte {
	t.Helper()
	out := []byte{0x04, 0x22, 0x4d, 0x18, 0x40, 0x70, 0} // flags: version 1, dependent blocks; 4 MiB; no checksum that counts
	period := 28
	first := data[:64<<10]
	out = binary.LittleEndian.AppendUint32(out, uint32(len(first))|1<<31)
	out = append(out, first...)
	// token: no literals, match; offset 28*k; the last five bytes are literals
	rest := len(data) - len(first)
	match := rest - 12
	offset := len(first) / period * period
	block := []byte{0x0f, byte(offset), byte(offset >> 8)}
	for n := match - 4 - 15; ; n -= 255 {
		if n < 255 {
			block = append(block, byte(n))
			break
		}
		block = append(block, 255)
	}
	block = append(block, 12<<4)
	block = append(block, data[len(data)-12:]...)
	out = binary.LittleEndian.AppendUint32(out, uint32(len(block)))
	out = append(out, block...)
	return append(out, 0, 0, 0, 0)
}

func TestDecompressRefusesDamage(t *testing.T) {
	want := bytes.Repeat([]byte("one record and another one, "), 200)
	for _, codec := range codecs[1:] {
		packed, err := wire.Compress(nil, codec, want)
		if err != nil {
			t.Fatal(err)
		}
		for cut := range len(packed) {
			if got, err := wire.Decompress(nil, codec, packed[:cut], 1<<20); err == nil && bytes.Equal(got, want) {
				// gzip and lz4 end with checksums and marks that carry no data
				t.Errorf("%s cut to %d of %d bytes: no error", codec, cut, len(packed))
			}
		}
	}
	if _, err := wire.Decompress(nil, 5, nil, 10); err == nil {
		t.Error("codec 5: no error")
	}
	if _, err := wire.Compress(nil, 5, nil); err == nil {
		t.Error("codec 5: no error")
	}
}

func FuzzDecompress(f *testing.F) {
	for _, codec := range codecs {
		packed, err := wire.Compress(nil, codec, bytes.Repeat([]byte("kafka"), 100))
		if err != nil {
			f.Fatal(err)
		}
		f.Add(int8(codec), packed)
	}
	f.Fuzz(func(t *testing.T, codec int8, data []byte) {
		const limit = 100_000
		got, err := wire.Decompress(nil, wire.Codec(codec), data, limit)
		if len(got) > limit || cap(got) > 2*limit+len(data) {
			t.Errorf("codec %d: %d bytes (capacity %d) under a limit of %d, %v", codec, len(got), cap(got), limit, err)
		}
	})
}
