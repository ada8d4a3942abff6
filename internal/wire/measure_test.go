package wire_test

import (
	"bytes"
	"compress/gzip"
	"errors"
	"runtime"
	"testing"

	"github.com/klauspost/compress/zstd"

	"kmirror/internal/wire"
)

// TestDeeplyCompressed: a few hundred KiB that unpack to a gigabyte are refused
// without taking the memory that the limit allows, and what stays within the
// limit takes its size once, not the sum of buffers that were outgrown.
func TestDeeplyCompressed(t *testing.T) {
	const limit = 256 << 20
	zeros := make([]byte, 1<<20)
	pack := map[wire.Codec]func(megabytes int) []byte{
		wire.CodecGzip: func(megabytes int) []byte {
			var out bytes.Buffer
			w := gzip.NewWriter(&out)
			for range megabytes {
				_, _ = w.Write(zeros)
			}
			_ = w.Close()
			return out.Bytes()
		},
		wire.CodecZstd: func(megabytes int) []byte {
			var out bytes.Buffer
			w, err := zstd.NewWriter(&out, zstd.WithEncoderConcurrency(1))
			if err != nil {
				t.Fatal(err)
			}
			for range megabytes {
				_, _ = w.Write(zeros)
			}
			_ = w.Close()
			return out.Bytes()
		},
	}
	for codec, pack := range pack {
		for _, tt := range []struct {
			megabytes, most int
			fits            bool
		}{{1024, 48, false}, {100, 160, true}, {3, 16, true}} {
			src := pack(tt.megabytes)
			var before, after runtime.MemStats
			runtime.ReadMemStats(&before)
			got, err := wire.Decompress(nil, codec, src, limit)
			runtime.ReadMemStats(&after)
			if inflate := (*wire.InflateError)(nil); tt.fits && (err != nil || len(got) != tt.megabytes<<20) || !tt.fits && !errors.As(err, &inflate) {
				t.Errorf("%s, %d MiB: %d bytes, %v", codec, tt.megabytes, len(got), err)
			}
			if took := int(after.TotalAlloc-before.TotalAlloc) >> 20; took > tt.most {
				t.Errorf("%s, %d MiB: %d MiB were allocated, want at most %d", codec, tt.megabytes, took, tt.most)
			}
		}
	}
}
