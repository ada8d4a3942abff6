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
// offset; at 0 if it is the open one), TopicPair, Writer, Owner or Provenance
// that it deletes; only the fields of its key are set.
type Deleted struct{ Of any }

// Decode takes a record of MapTopic apart into an Anchor, a Block, a TopicPair,
// a Writer, an Owner, a Provenance or a Deleted. It accepts every version ever
// written. Anything else is a *FormatError. The result does not refer to the
// record's memory.
func Decode(rec wire.Record) (any, error) {
	var d decoder
	what, err := d.decode(rec)
	if b, ok := what.(*Block); ok {
		return *b, err
	}
	return what, err
}

// decoder decodes many records, and uses the memory of blocks and the strings
// of keys again: a topic of a million records has few of these.
type decoder struct {
	names map[string]string
	block Block
}

func newDecoder() *decoder { return &decoder{names: make(map[string]string)} }

// decode is Decode, but for a block: that is returned as a *Block, which is the
// decoder's own until the next record.
func (d *decoder) decode(rec wire.Record) (any, error) {
	key := reader{buf: rec.Key, names: d.names}
	kind := key.byte()
	if key.bad != "" {
		return nil, &FormatError{Offset: rec.Offset, Kind: kind, Reason: "key: " + key.bad}
	}
	newest := newest(kind)
	if newest == 0 {
		return nil, &FormatError{Offset: rec.Offset, Kind: kind, Reason: "unknown kind"}
	}
	var value *reader // nil: deleted
	if rec.Value != nil {
		value = &reader{buf: rec.Value}
		if value.version = value.byte(); value.version < 1 || value.version > newest {
			return nil, &FormatError{Offset: rec.Offset, Kind: kind, Version: value.version, Reason: "unknown version"}
		}
	}
	what := d.decodeKind(kind, &key, value)
	key.end()
	if key.bad != "" {
		fault := &FormatError{Offset: rec.Offset, Kind: kind, Reason: "key: " + key.bad}
		if value != nil {
			fault.Version = value.version
		}
		return nil, fault
	}
	if value == nil {
		if b, ok := what.(*Block); ok {
			what = *b
		}
		return Deleted{Of: what}, nil
	}
	value.end()
	if value.bad != "" {
		return nil, &FormatError{Offset: rec.Offset, Kind: kind, Version: value.version, Reason: "value: " + value.bad}
	}
	return what, nil
}

// newest returns the newest version that values of a kind have had, 0 for an
// unknown kind.
func newest(kind byte) byte {
	switch kind {
	case kindBlock, kindOpen:
		return 2
	case kindAnchor, kindPair, kindWriter, kindOwner, kindProvenance:
		return 1
	default:
		return 0
	}
}

// decodeKind reads a key and a value of a known kind and any version; without a
// value it fills what the key says.
func (d *decoder) decodeKind(kind byte, key, value *reader) any {
	switch kind {
	case kindBlock, kindOpen:
		d.block = Block{Open: kind == kindOpen, Runs: d.block.Runs[:0]}
		d.block.decode(key, value)
		return &d.block
	case kindAnchor:
		return decodeAnchor(key, value)
	case kindPair:
		return decodePair(key, value)
	case kindWriter:
		return decodeWriter(key, value)
	case kindOwner:
		return decodeOwner(key, value)
	default:
		return decodeProvenance(key, value)
	}
}

// EncodeDeleted returns the record that deletes what is an Anchor, a Block, a
// TopicPair, a Writer, an Owner or a Provenance. It panics on other types: those
// are never records.
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
