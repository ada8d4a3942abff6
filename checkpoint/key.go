package checkpoint

import (
	"bytes"
	"cmp"
	"encoding/binary"
	"hash/fnv"
)

// MapTopic is the compacted topic on the target cluster that holds ledger,
// offset map and topic pairs of all flows into that cluster.
const MapTopic = "__kmirror_offset_map"

// MapPartitions is the partition count of MapTopic. It never changes: the
// place of a key is its hash modulo this number.
const MapPartitions = 8

// MapTopicConfigs returns the topic configs that MapTopic is created with.
// Segments are small, because a compacted topic is only compacted behind its
// active segment.
func MapTopicConfigs() map[string]string {
	return map[string]string{
		"cleanup.policy":                 "compact",
		"segment.bytes":                  "67108864",
		"unclean.leader.election.enable": "false",
	}
}

// Key names one mirrored partition: what the ledger and the offset map are
// kept by. A source topic that is deleted and created again has another id
// and so another key.
type Key struct {
	Flow      string   // "east->west"
	Topic     string   // name of the topic on the source
	TopicID   [16]byte // its id there; zero when the source has no topic ids
	Partition int32
}

// MapPartition returns the partition of MapTopic that holds everything kept
// by k: FNV-1a over the key's bytes, modulo MapPartitions.
func (k Key) MapPartition() int32 {
	h := fnv.New64a()
	_, _ = h.Write(k.append(nil)) // a hash never fails
	return int32(h.Sum64() % MapPartitions)
}

// append writes the part of a record key that all kinds share.
//
//	+---------------+----------+---------------+-----------+-----------+-----------+
//	| flow length   | flow     | topic length  | topic     | topic id  | partition |
//	| uvarint       | bytes    | uvarint       | bytes     | 16 bytes  | uvarint   |
//	+---------------+----------+---------------+-----------+-----------+-----------+
func (k Key) append(dst []byte) []byte {
	dst = appendString(dst, k.Flow)
	dst = appendString(dst, k.Topic)
	dst = append(dst, k.TopicID[:]...)
	return binary.AppendUvarint(dst, uint64(uint32(k.Partition)))
}

func (r *reader) key() Key {
	return Key{Flow: r.string(), Topic: r.string(), TopicID: r.id(), Partition: r.int32()}
}

func compareKeys(a, b Key) int {
	return cmp.Or(cmp.Compare(a.Flow, b.Flow), cmp.Compare(a.Topic, b.Topic), cmp.Compare(a.Partition, b.Partition), bytes.Compare(a.TopicID[:], b.TopicID[:]))
}
