package wire

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"sync"

	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/snappy"
	"github.com/klauspost/compress/zstd"
	"github.com/pierrec/lz4/v4"
)

// The pools hold what is dear to set up and carries nothing from one use to
// the next.
//
//nolint:gochecknoglobals // caches without a visible state
var (
	scratches    = sync.Pool{New: func() any { return new(scratch) }}
	gzipReaders  = sync.Pool{New: func() any { return new(gzip.Reader) }}
	gzipWriters  = sync.Pool{New: func() any { return gzip.NewWriter(io.Discard) }}
	lz4Writers   = sync.Pool{New: newLZ4Writer}
	zstdDecoders = sync.Pool{New: newZstdDecoder}
	zstdEncoders = sync.Pool{New: newZstdEncoder}
)

// maxScratch is the largest buffer that goes back to the pool.
const maxScratch = 4 << 20

// scratch is a pooled buffer for uncompressed records.
type scratch struct{ buf []byte }

func takeScratch() *scratch { return scratches.Get().(*scratch) }

// keep makes b, grown from buf, the buffer that goes back.
func (s *scratch) keep(b []byte) { s.buf = b[:0] }

func (s *scratch) giveBack() {
	if cap(s.buf) <= maxScratch {
		scratches.Put(s)
	}
}

func newLZ4Writer() any {
	w := lz4.NewWriter(io.Discard)
	// Kafka's own clients write blocks of 64 KiB without a content checksum.
	if err := w.Apply(lz4.BlockSizeOption(lz4.Block64Kb), lz4.ChecksumOption(false), lz4.ConcurrencyOption(1)); err != nil {
		return err
	}
	return w
}

func newZstdDecoder() any {
	// A window of 128 MiB is what the highest level declares. DecodeAll works
	// in its destination and allocates no window.
	d, err := zstd.NewReader(nil, zstd.WithDecoderConcurrency(1), zstd.WithDecodeAllCapLimit(true), zstd.WithDecoderMaxWindow(128<<20))
	if err != nil {
		return err
	}
	return d
}

func newZstdEncoder() any {
	e, err := zstd.NewWriter(nil, zstd.WithEncoderConcurrency(1), zstd.WithWindowSize(1<<20))
	if err != nil {
		return err
	}
	return e
}

// pooled takes a T from the pool; what the pool's New returned instead is an error.
func pooled[T any](p *sync.Pool) (v T, err error) {
	switch got := p.Get().(type) {
	case T:
		return got, nil
	case error:
		return v, got
	default:
		return v, fmt.Errorf("pool holds a %T", got)
	}
}

// Compress appends src, compressed, to dst: gzip, snappy (one raw block), lz4
// (frame) or zstd. CodecNone appends src as it is.
func Compress(dst []byte, codec Codec, src []byte) ([]byte, error) {
	switch codec {
	case CodecNone:
		return append(dst, src...), nil
	case CodecGzip:
		w, err := pooled[*gzip.Writer](&gzipWriters)
		if err != nil {
			return nil, err
		}
		defer gzipWriters.Put(w)
		return compressTo(dst, src, w)
	case CodecSnappy:
		start := len(dst)
		n := snappy.MaxEncodedLen(len(src))
		if n < 0 {
			return nil, fmt.Errorf("compress %d bytes with %s: too large", len(src), codec)
		}
		dst = slices.Grow(dst, n)
		encoded := snappy.Encode(dst[start:start+n], src)
		return dst[:start+len(encoded)], nil
	case CodecLZ4:
		w, err := pooled[*lz4.Writer](&lz4Writers)
		if err != nil {
			return nil, err
		}
		defer lz4Writers.Put(w)
		return compressTo(dst, src, w)
	case CodecZstd:
		e, err := pooled[*zstd.Encoder](&zstdEncoders)
		if err != nil {
			return nil, err
		}
		defer zstdEncoders.Put(e)
		return e.EncodeAll(src, dst), nil
	default:
		return nil, fmt.Errorf("compress: unknown %s", codec)
	}
}

// compressTo appends what w makes of src to dst.
func compressTo(dst, src []byte, w interface {
	io.WriteCloser
	Reset(io.Writer)
},
) ([]byte, error) {
	out := bytes.NewBuffer(dst)
	w.Reset(out)
	defer w.Reset(io.Discard) // the pool keeps no reference to dst
	if _, err := w.Write(src); err != nil {
		return nil, err
	}
	if err := w.Close(); err != nil {
		return nil, err
	}
	return out.Bytes(), nil
}

// Decompress appends src, uncompressed, to dst. More than limit bytes are an
// *InflateError, and no more than that are ever allocated, whatever src
// declares (the codecs' own working memory, at most a few hundred KiB, aside).
// Bytes that do not decode are a *CorruptError. CodecNone appends src as it is.
//
// It reads what Kafka's clients write: gzip members, snappy as one raw block or
// in the framing of Java's xerial library, lz4 frames and zstd frames.
func Decompress(dst []byte, codec Codec, src []byte, limit int) ([]byte, error) {
	switch codec {
	case CodecNone:
		if len(src) > limit {
			return nil, &InflateError{Codec: codec, Limit: limit}
		}
		return append(dst, src...), nil
	case CodecGzip:
		return gunzip(dst, src, limit)
	case CodecSnappy:
		return unsnappy(dst, src, limit)
	case CodecLZ4:
		return unlz4(dst, src, limit)
	case CodecZstd:
		return unzstd(dst, src, limit)
	default:
		return nil, corrupt("unknown %s", codec)
	}
}

// inflate is Decompress into memory of its own, of the size that is needed: an lz4
// frame may declare blocks of 4 MiB around a few KiB, and other codecs declare no
// size. So what is small is unpacked into a pooled buffer and copied.
func inflate(codec Codec, src []byte, limit int) ([]byte, error) {
	scratch := takeScratch()
	defer scratch.giveBack()
	out, err := Decompress(scratch.buf[:0], codec, src, limit)
	if err != nil {
		return nil, err
	}
	if cap(out) > maxScratch {
		return out, nil // the pool would not keep it
	}
	scratch.keep(out)
	return append(make([]byte, 0, len(out)), out...), nil
}

// reserve makes room for n more bytes, or for all that the limit still allows
// when that is less, without rounding up. What it returns has len(dst).
func reserve(dst []byte, n, start, limit int) []byte {
	n = min(n, start+limit-len(dst))
	if cap(dst)-len(dst) >= n {
		return dst
	}
	grown := make([]byte, len(dst), len(dst)+n)
	copy(grown, dst)
	return grown
}

func gunzip(dst, src []byte, limit int) ([]byte, error) {
	r, err := pooled[*gzip.Reader](&gzipReaders)
	if err != nil {
		return nil, err
	}
	defer gzipReaders.Put(r)
	if err := r.Reset(bytes.NewReader(src)); err != nil {
		return nil, corrupt("gzip: %v", err)
	}
	start := len(dst)
	for {
		if len(dst)-start == limit {
			var beyond [1]byte
			switch n, err := io.ReadFull(r, beyond[:]); {
			case n > 0:
				return nil, &InflateError{Codec: CodecGzip, Limit: limit}
			case err == io.EOF:
				return dst, nil
			default:
				return nil, corrupt("gzip: %v", err)
			}
		}
		if len(dst) == cap(dst) {
			room := max(len(dst)-start, 4*len(src), 512)
			if len(dst)-start+room > measureFrom && limit > measureFrom {
				whole, err := measureGzip(src, limit)
				if err != nil {
					return nil, err
				}
				room = whole - (len(dst) - start) + 1 // one more, in which the end is met
			}
			dst = reserve(dst, room, start, limit)
		}
		n, err := r.Read(dst[len(dst):min(cap(dst), start+limit)])
		dst = dst[:len(dst)+n]
		switch {
		case err == io.EOF: //nolint:errorlint // a Reader returns it bare
			return dst, nil
		case err != nil:
			return nil, corrupt("gzip: %v", err)
		}
	}
}

func unzstd(dst, src []byte, limit int) ([]byte, error) {
	d, err := pooled[*zstd.Decoder](&zstdDecoders)
	if err != nil {
		return nil, err
	}
	defer zstdDecoders.Put(d)
	start := len(dst)
	room := max(8*len(src), 4<<10)
	var header zstd.Header
	if err := header.Decode(src); err == nil && header.HasFCS {
		if header.FrameContentSize > uint64(limit) {
			return nil, &InflateError{Codec: CodecZstd, Limit: limit}
		}
		room = int(header.FrameContentSize)
	}
	for measured := false; ; {
		if room > measureFrom && limit > measureFrom && !measured {
			whole, known, err := measureZstd(src, limit)
			if err != nil {
				return nil, err
			}
			if measured = true; known {
				room = max(whole, 1)
			}
		}
		dst = reserve(dst, room, start, limit)
		// Into a slice of its own: the decoder takes the room from the capacity
		// as a whole and not from what a prefix leaves of it.
		whole, err := d.DecodeAll(src, dst[start:start:min(cap(dst), start+limit)])
		switch {
		case err == nil && len(whole) <= cap(dst)-start:
			return append(dst[:start], whole...), nil // in place, unless the decoder moved
		case err != nil && !outOfRoom(err):
			return nil, corrupt("zstd: %v", err)
		case cap(dst)-start >= limit:
			return nil, &InflateError{Codec: CodecZstd, Limit: limit}
		}
		room = 4 * (cap(dst) - start) // the size was not declared: try again with more room
	}
}

// outOfRoom tells a decoder that met the end of its destination from one that
// met damage. In the middle of a block the library has no typed error for it.
func outOfRoom(err error) bool {
	return errors.Is(err, zstd.ErrDecoderSizeExceeded) || strings.HasPrefix(err.Error(), "output bigger than max block size")
}
