package checkpoint

import (
	"encoding/binary"
	"fmt"
	"math"

	"kmirror/internal/wire"
)

// MirrorMaker 2's records, byte for byte (KIP-382; connect/mirror and
// connect/mirror-client of Apache Kafka, unchanged from 2.4 to 4.2).
//
// Numbers are big-endian and signed. A string is an INT16 length and UTF-8. All
// records go to partition 0, and none ever has a null value: Java's readers
// die of one. Readers ignore trailing bytes, and so do we.
//
//	               key                                      value
//	OffsetSync     | topic | partition 32 |                 | upstream 64 | downstream 64 |
//	Checkpoint     | group | topic | partition 32 |         | version 16 = 0 | upstream 64 | downstream 64 | metadata |
//	Heartbeat      | source alias | target alias |          | version 16 = 0 | time 64, ms |

// OffsetSync says that the record at Upstream of a source topic stands at
// Downstream of its copy.
type OffsetSync struct {
	Topic                string // its name on the source
	Partition            int32
	Upstream, Downstream int64
}

// Checkpoint says where a group goes on. Both offsets are the next to be read.
type Checkpoint struct {
	Group                string
	Topic                string // its name on the target
	Partition            int32
	Upstream, Downstream int64
	Metadata             string // of the commit on the source
}

// Heartbeat says that a flow was alive at a time.
type Heartbeat struct {
	Source, Target string // cluster names
	Millis         int64
}

// EncodeOffsetSync returns the record of an offset sync.
func EncodeOffsetSync(s OffsetSync) wire.Record {
	key := binary.BigEndian.AppendUint32(appendText(nil, s.Topic), uint32(s.Partition))
	value := binary.BigEndian.AppendUint64(nil, uint64(s.Upstream))
	return wire.Record{Key: key, Value: binary.BigEndian.AppendUint64(value, uint64(s.Downstream))}
}

// DecodeOffsetSync takes the record of an offset sync apart.
func DecodeOffsetSync(rec wire.Record) (OffsetSync, error) {
	key, value := text{rest: rec.Key}, text{rest: rec.Value}
	s := OffsetSync{Topic: key.string(), Partition: int32(key.int(4)), Upstream: value.int(8), Downstream: value.int(8)}
	return s, fault("offset sync", rec, key, value)
}

// EncodeCheckpoint returns the record of a checkpoint.
func EncodeCheckpoint(c Checkpoint) wire.Record {
	key := appendText(appendText(nil, c.Group), c.Topic)
	key = binary.BigEndian.AppendUint32(key, uint32(c.Partition))
	value := binary.BigEndian.AppendUint16(nil, 0)
	value = binary.BigEndian.AppendUint64(value, uint64(c.Upstream))
	value = binary.BigEndian.AppendUint64(value, uint64(c.Downstream))
	return wire.Record{Key: key, Value: appendText(value, c.Metadata)}
}

// DecodeCheckpoint takes the record of a checkpoint apart. Like Java's, it
// reads any version as 0: a later one keeps the layout of the first.
func DecodeCheckpoint(rec wire.Record) (Checkpoint, error) {
	key, value := text{rest: rec.Key}, text{rest: rec.Value}
	c := Checkpoint{Group: key.string(), Topic: key.string(), Partition: int32(key.int(4))}
	value.int(2)
	c.Upstream, c.Downstream, c.Metadata = value.int(8), value.int(8), value.string()
	return c, fault("checkpoint", rec, key, value)
}

// EncodeHeartbeat returns the record of a heartbeat; its timestamp is that of
// the heartbeat.
func EncodeHeartbeat(h Heartbeat) wire.Record {
	value := binary.BigEndian.AppendUint16(nil, 0)
	return wire.Record{
		Timestamp: h.Millis,
		Key:       appendText(appendText(nil, h.Source), h.Target),
		Value:     binary.BigEndian.AppendUint64(value, uint64(h.Millis)),
	}
}

// DecodeHeartbeat takes the record of a heartbeat apart.
func DecodeHeartbeat(rec wire.Record) (Heartbeat, error) {
	key, value := text{rest: rec.Key}, text{rest: rec.Value}
	h := Heartbeat{Source: key.string(), Target: key.string()}
	value.int(2)
	h.Millis = value.int(8)
	return h, fault("heartbeat", rec, key, value)
}

// appendText writes a STRING, cut at the longest that one can be. Kafka limits
// names and metadata to far less.
func appendText(dst []byte, s string) []byte {
	s = s[:min(len(s), math.MaxInt16)]
	return append(binary.BigEndian.AppendUint16(dst, uint16(len(s))), s...)
}

// text reads big-endian numbers and STRINGs; what is missing reads as zero.
type text struct {
	rest  []byte
	short bool
}

func (t *text) take(n int) []byte {
	if n < 0 || len(t.rest) < n {
		t.short, t.rest = true, nil
		return nil
	}
	taken := t.rest[:n]
	t.rest = t.rest[n:]
	return taken
}

// int reads a signed number of 2, 4 or 8 bytes.
func (t *text) int(size int) int64 {
	b := t.take(size)
	switch len(b) {
	case 2:
		return int64(int16(binary.BigEndian.Uint16(b)))
	case 4:
		return int64(int32(binary.BigEndian.Uint32(b)))
	case 8:
		return int64(binary.BigEndian.Uint64(b))
	default:
		return 0
	}
}

func (t *text) string() string { return string(t.take(int(t.int(2)))) }

func fault(what string, rec wire.Record, key, value text) error {
	if key.short || value.short {
		return fmt.Errorf("%s at %d: key of %d and value of %d bytes are too short", what, rec.Offset, len(rec.Key), len(rec.Value))
	}
	return nil
}
