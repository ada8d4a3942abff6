package wire

import (
	"bytes"
	"io"

	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/zstd"
)

// measureFrom is the size from which a destination no longer grows by guesses:
// what is left is measured first, by unpacking it to nowhere, and reserved
// exactly. That is work done twice for the rare large batch, but one that would
// go beyond the limit costs no memory beyond this, and buffers that were
// outgrown do not pile up.
const measureFrom = 16 << 20

// discardUpTo counts what r yields. It is ok when that is at most limit bytes.
func discardUpTo(r io.Reader, limit int) (n int, ok bool, err error) {
	count, err := io.Copy(io.Discard, io.LimitReader(r, int64(limit)+1))
	return int(count), count <= int64(limit), err
}

// measureGzip returns to how many bytes src unpacks, or an error: an
// *InflateError when that is more than limit.
func measureGzip(src []byte, limit int) (int, error) {
	r, err := pooled[*gzip.Reader](&gzipReaders)
	if err != nil {
		return 0, err
	}
	defer gzipReaders.Put(r)
	if err := r.Reset(bytes.NewReader(src)); err != nil {
		return 0, corrupt("gzip: %v", err)
	}
	n, ok, err := discardUpTo(r, limit)
	switch {
	case err != nil:
		return 0, corrupt("gzip: %v", err)
	case !ok:
		return 0, &InflateError{Codec: CodecGzip, Limit: limit}
	}
	return n, nil
}

// measuredWindow is the largest zstd window that measureZstd takes the memory
// for. No level that clients use by default declares more.
const measuredWindow = 8 << 20

// measureZstd is measureGzip for zstd; it is not known for a frame with an
// unusually large window.
func measureZstd(src []byte, limit int) (n int, known bool, err error) {
	d, err := zstd.NewReader(bytes.NewReader(src), zstd.WithDecoderConcurrency(1), zstd.WithDecoderLowmem(true), zstd.WithDecoderMaxWindow(measuredWindow))
	if err != nil {
		return 0, false, nil // the caller meets what is wrong with it
	}
	defer d.Close()
	n, ok, err := discardUpTo(d, limit)
	switch {
	case err != nil:
		return 0, false, nil
	case !ok:
		return 0, false, &InflateError{Codec: CodecZstd, Limit: limit}
	}
	return n, true, nil
}
