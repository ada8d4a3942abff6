package verify

import (
	"encoding/binary"
	"fmt"

	"github.com/cespare/xxhash/v2"

	"kmirror/internal/wire"
)

// Digest is the XXH64 of what was compared, on both sides. It can be written
// down in the midst of a range and taken up again.
type Digest struct {
	Source string `json:"source"` // 16 hexadecimal digits
	Target string `json:"target"` // the same as Source as long as nothing differs

	SourceState []byte `json:"source_state,omitempty"` // of a range under way
	TargetState []byte `json:"target_state,omitempty"` // nil: as the source's
}

// folding makes the two digests of a range. As long as nothing differs there is
// one sum for both.
type folding struct {
	source xxhash.Digest
	target *xxhash.Digest // nil: the same as source
	buf    []byte
}

func newFolding(d Digest) *folding {
	f := &folding{}
	f.source.Reset()
	if len(d.SourceState) > 0 && f.source.UnmarshalBinary(d.SourceState) != nil {
		f.source.Reset() // a state file is checked before it is used; see Store
	}
	if len(d.TargetState) > 0 {
		f.target = xxhash.New()
		if f.target.UnmarshalBinary(d.TargetState) != nil {
			f.target = nil
		}
	}
	return f
}

// part makes two sums of the one, because now the sides differ.
func (f *folding) part(why Kind) {
	if f.target == nil {
		same := f.source
		f.target = &same
	}
	_, _ = f.target.WriteString(string(why))
}

// both folds in what both sides hold.
func (f *folding) both(b []byte) {
	_, _ = f.source.Write(b) // a hash never fails
	if f.target != nil {
		_, _ = f.target.Write(b)
	}
}

// batch folds in a batch that both sides hold, but for its place and producer.
func (f *folding) batch(b wire.Batch) {
	f.buf = append(f.buf[:0], 'b', byte(b.Codec()))
	f.buf = binary.BigEndian.AppendUint32(f.buf, uint32(b.NumRecords()))
	f.buf = binary.BigEndian.AppendUint64(f.buf, uint64(b.BaseTimestamp()))
	f.both(f.buf)
	f.both(b[wire.BatchHeaderSize:])
}

// same folds in a record that both sides hold.
func (f *folding) same(r *wire.Record, stamped bool) {
	f.buf = appendRecord(f.buf[:0], r, stamped)
	f.both(f.buf)
}

// differing folds in what stands at one place; nil: nothing does. It is for
// places where part has been.
func (f *folding) differing(source, target *wire.Record, stamped bool) {
	if source != nil {
		f.buf = appendRecord(f.buf[:0], source, stamped)
		_, _ = f.source.Write(f.buf)
	}
	if target != nil {
		f.buf = appendRecord(f.buf[:0], target, stamped)
		_, _ = f.target.Write(f.buf)
	}
}

// appendRecord writes a record in one way, whatever batch it came in. Numbers
// are big-endian; a length of -1 is null.
//
//	| 'r' | timestamp 64 | key length 32, key | value length 32, value |
//	| headers 32 | for each: name length 32, name, value length 32, value |
//
// Where the target stamps records by itself, the timestamp is left out.
func appendRecord(dst []byte, r *wire.Record, stamped bool) []byte {
	dst = append(dst, 'r')
	if !stamped {
		dst = binary.BigEndian.AppendUint64(dst, uint64(r.Timestamp))
	}
	dst = appendBytes(dst, r.Key)
	dst = appendBytes(dst, r.Value)
	dst = binary.BigEndian.AppendUint32(dst, uint32(len(r.Headers)))
	for _, h := range r.Headers {
		dst = binary.BigEndian.AppendUint32(dst, uint32(len(h.Key)))
		dst = append(dst, h.Key...)
		dst = appendBytes(dst, h.Value)
	}
	return dst
}

func appendBytes(dst, b []byte) []byte {
	if b == nil {
		return binary.BigEndian.AppendUint32(dst, 1<<32-1)
	}
	dst = binary.BigEndian.AppendUint32(dst, uint32(len(b)))
	return append(dst, b...)
}

// digest is the present sums; with state, so that folding can go on from there.
func (f *folding) digest(state bool) Digest {
	d := Digest{Source: hex64(f.source.Sum64()), Target: hex64(f.source.Sum64())}
	if f.target != nil {
		d.Target = hex64(f.target.Sum64())
	}
	if state {
		d.SourceState, _ = f.source.MarshalBinary() // it never fails
		if f.target != nil {
			d.TargetState, _ = f.target.MarshalBinary()
		}
	}
	return d
}

func hex64(n uint64) string { return fmt.Sprintf("%016x", n) }
