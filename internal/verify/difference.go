package verify

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"slices"

	"kmirror/internal/wire"
)

// Kind is what is wrong at a place.
type Kind string

// The kinds.
const (
	Changed     Kind = "changed"     // the record is not the same on both sides
	Missing     Kind = "missing"     // a record of the source is not in the target
	Extra       Kind = "extra"       // a record of the target carries nothing that the source holds
	Unexplained Kind = "unexplained" // the flow wrote a record into the target that its map does not know: it stands twice, or too much
	Corrupt     Kind = "corrupt"     // a batch's checksum does not fit its bytes
)

// Difference is one place where source and target do not hold the same.
type Difference struct {
	Kind         Kind   `json:"kind"`
	Topic        string `json:"topic"`
	Partition    int32  `json:"partition"`
	SourceOffset int64  `json:"source_offset"` // -1: none is known
	TargetTopic  string `json:"target_topic"`
	TargetOffset int64  `json:"target_offset"`   // -1: none is known
	Field        string `json:"field,omitempty"` // of a changed record: key, value, timestamp, headers, header "NAME"
	Detail       string `json:"detail"`
	Source       *Side  `json:"source,omitempty"` // of a changed record: that field
	Target       *Side  `json:"target,omitempty"`
}

// Side is one side's bytes of a field. The bytes themselves may be secret, and
// are there only when asked for.
type Side struct {
	Null   bool   `json:"null,omitempty"`
	Size   int    `json:"size"`             // bytes
	SHA256 string `json:"sha256,omitempty"` // the first 16 of its 64 digits
	Bytes  []byte `json:"bytes,omitempty"`  // at most shownBytes
}

// shownBytes is how much of a field is put into the report.
const shownBytes = 1024

func side(b []byte, show bool) *Side {
	s := &Side{Null: b == nil, Size: len(b)}
	if b == nil {
		return s
	}
	sum := sha256.Sum256(b)
	s.SHA256 = hex.EncodeToString(sum[:8])
	if show {
		s.Bytes = bytes.Clone(b[:min(len(b), shownBytes)])
	}
	return s
}

// String is one line that names the place and what is wrong there.
func (d *Difference) String() string {
	at := fmt.Sprintf("%s/%d", d.Topic, d.Partition)
	if d.SourceOffset >= 0 {
		at += fmt.Sprintf(" @ source %d", d.SourceOffset)
	}
	if d.TargetOffset >= 0 {
		at += fmt.Sprintf(" @ target %d", d.TargetOffset)
	}
	return at + ": " + d.Detail
}

// equal says whether two records are the same. stamped: the target gives records
// its own timestamps, which prove nothing.
func equal(source, target *wire.Record, stamped bool) bool {
	return (stamped || source.Timestamp == target.Timestamp) && same(source.Key, target.Key) && same(source.Value, target.Value) && slices.EqualFunc(source.Headers, target.Headers, sameHeader)
}

func sameHeader(a, b wire.Header) bool { return a.Key == b.Key && same(a.Value, b.Value) }

func same(a, b []byte) bool { return bytes.Equal(a, b) && (a == nil) == (b == nil) }

// changed says in what two records that are not equal differ first.
func changed(source, target *wire.Record, stamped, show bool) Difference {
	d := Difference{Kind: Changed, SourceOffset: source.Offset, TargetOffset: target.Offset}
	switch {
	case !same(source.Key, target.Key):
		d.Field, d.Source, d.Target = "key", side(source.Key, show), side(target.Key, show)
	case !same(source.Value, target.Value):
		d.Field, d.Source, d.Target = "value", side(source.Value, show), side(target.Value, show)
	case !stamped && source.Timestamp != target.Timestamp:
		d.Field = "timestamp"
		d.Detail = fmt.Sprintf("the timestamp is %d in the source and %d in the target", source.Timestamp, target.Timestamp)
		return d
	default:
		d.Field, d.Source, d.Target = "headers", side(headerBytes(source), show), side(headerBytes(target), show)
		for i := range min(len(source.Headers), len(target.Headers)) {
			a, b := source.Headers[i], target.Headers[i]
			if a.Key == b.Key && !same(a.Value, b.Value) {
				d.Field, d.Source, d.Target = fmt.Sprintf("header %q", a.Key), side(a.Value, show), side(b.Value, show)
			}
			if !sameHeader(a, b) {
				break
			}
		}
	}
	d.Detail = fmt.Sprintf("the %s differs: in the source %s, in the target %s", d.Field, d.Source, d.Target)
	if d.Field == "headers" {
		d.Detail = fmt.Sprintf("the headers differ: in the source %d of them, %s, in the target %d, %s", len(source.Headers), d.Source, len(target.Headers), d.Target)
	}
	return d
}

// String is size and hash, and the bytes where they may be shown.
func (s *Side) String() string {
	if s.Null {
		return "null"
	}
	if s.Bytes != nil {
		return fmt.Sprintf("%d bytes (sha256 %s) %q", s.Size, s.SHA256, s.Bytes)
	}
	return fmt.Sprintf("%d bytes (sha256 %s)", s.Size, s.SHA256)
}

// headerBytes are the headers in one piece, for a hash.
func headerBytes(r *wire.Record) []byte {
	out := binary.BigEndian.AppendUint32(nil, uint32(len(r.Headers)))
	for _, h := range r.Headers {
		out = appendBytes(appendBytes(out, []byte(h.Key)), h.Value)
	}
	return out
}
