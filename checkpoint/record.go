package checkpoint

import (
	"fmt"

	"kmirror/internal/wire"
)

// Every record of MapTopic begins its key with a kind, which fixes the layout
// of the key, and its value with a version, which fixes the layout of the
// value. A new layout of a value is a new version, and old versions stay
// readable; a new layout of a key is a new kind. A null value deletes.
//
//	key    +------+---------------------+----------------------+
//	       | kind | key (see Key)       | rest, by kind        |
//	       +------+---------------------+----------------------+
//	value  +---------+----------------------------------------+
//	       | version | by kind and version                    |
//	       +---------+----------------------------------------+
//
// Varints are those of encoding/binary: little-endian groups of seven bits,
// signed ones zig-zag.
const (
	kindAnchor     byte = 1
	kindBlock      byte = 2
	kindOpen       byte = 3
	kindPair       byte = 4
	kindWriter     byte = 5
	kindOwner      byte = 6
	kindProvenance byte = 7
)

// FormatError says why a record of MapTopic cannot be used. Whoever reads the
// topic skips the record and counts it.
type FormatError struct {
	Offset  int64 // of the record
	Kind    byte
	Version byte // 0: it did not come to that
	Reason  string
}

func (e *FormatError) Error() string {
	return fmt.Sprintf("offset map record at %d (kind %d, version %d): %s", e.Offset, e.Kind, e.Version, e.Reason)
}

// Deleted is what a null value decodes to. Of is the Anchor (with its first
// sequence as its only step), Block (with an empty run at its first source
// offset; at 0 if it is the open one), TopicPair, Writer, Owner or Provenance that it deletes;
// only the fields of its key are set.
type Deleted struct{ Of any }

// Decode takes a record of MapTopic apart into an Anchor, a Block, a TopicPair,
// a Writer, an Owner, a Provenance or a Deleted. It accepts every version ever written. Anything else is a
// *FormatError. The result does not refer to the record's memory.
func Decode(rec wire.Record) (any, error) {
	key := &reader{buf: rec.Key}
	kind := key.byte()
	fault := &FormatError{Offset: rec.Offset, Kind: kind}
	if key.bad != "" {
		fault.Reason = "key: " + key.bad
		return nil, fault
	}
	decode, known := decoders()[kind]
	if !known {
		fault.Reason = "unknown kind"
		return nil, fault
	}
	var value *reader // nil: deleted
	if rec.Value != nil {
		value = &reader{buf: rec.Value}
		value.version = value.byte()
		fault.Version = value.version
		if fault.Version < 1 || fault.Version > newest(kind) {
			fault.Reason = "unknown version"
			return nil, fault
		}
	}
	result := decode(key, value)
	key.end()
	if key.bad != "" {
		fault.Reason = "key: " + key.bad
		return nil, fault
	}
	if value == nil {
		return Deleted{Of: result}, nil
	}
	value.end()
	if value.bad != "" {
		fault.Reason = "value: " + value.bad
		return nil, fault
	}
	return result, nil
}

// newest returns the newest version that values of a kind have had.
func newest(kind byte) byte {
	if kind == kindBlock || kind == kindOpen {
		return 2
	}
	return 1
}

// decoders returns for each kind what reads a key and a value of any version;
// without a value it fills what the key says.
func decoders() map[byte]func(key, value *reader) any {
	return map[byte]func(key, value *reader) any{
		kindAnchor:     decodeAnchor,
		kindBlock:      decodeFull,
		kindOpen:       decodeOpen,
		kindPair:       decodePair,
		kindWriter:     decodeWriter,
		kindOwner:      decodeOwner,
		kindProvenance: decodeProvenance,
	}
}

// EncodeDeleted returns the record that deletes what is an Anchor, a Block, a
// TopicPair, a Writer, an Owner or a Provenance. It panics on other types: those are never
// records.
func EncodeDeleted(what any) wire.Record {
	var rec wire.Record
	switch what := what.(type) {
	case Anchor:
		rec = EncodeAnchor(what)
	case Block:
		rec = EncodeBlock(what)
	case TopicPair:
		rec = EncodePair(what)
	case Writer:
		rec = EncodeWriter(what)
	case Owner:
		rec = EncodeOwner(what)
	case Provenance:
		rec = EncodeProvenance(what)
	default:
		panic(fmt.Sprintf("checkpoint: %T is not kept in %s", what, MapTopic))
	}
	rec.Value = nil
	return rec
}
