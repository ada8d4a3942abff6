package checkpoint

import (
	"encoding/binary"

	"kmirror/internal/wire"
)

// TopicPair says which incarnation of a source topic was mirrored into which
// incarnation of a target topic, since when. It stands where a key of the topic
// without an id would, so that a later incarnation finds it.
type TopicPair struct {
	Flow        string
	SourceTopic string
	SourceID    [16]byte
	TargetTopic string
	TargetID    [16]byte
	TimeMillis  int64
}

// EncodePair returns the record that keeps p.
//
//	key    | 4 | flow | source topic | source id, 16 bytes | target topic | target id, 16 bytes |
//	value  | 1 | time, signed varint |
//
// Strings are an unsigned varint of their length and their bytes.
func EncodePair(p TopicPair) wire.Record {
	key := appendString([]byte{kindPair}, p.Flow)
	key = appendString(key, p.SourceTopic)
	key = append(key, p.SourceID[:]...)
	key = appendString(key, p.TargetTopic)
	key = append(key, p.TargetID[:]...)
	return wire.Record{Timestamp: p.TimeMillis, Key: key, Value: binary.AppendVarint([]byte{1}, p.TimeMillis)}
}

func decodePair(key, value *reader) any {
	p := TopicPair{Flow: key.string(), SourceTopic: key.string(), SourceID: key.id(), TargetTopic: key.string(), TargetID: key.id()}
	if value != nil {
		p.TimeMillis = value.varint()
	}
	return p
}
