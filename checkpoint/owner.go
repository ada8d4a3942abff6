package checkpoint

import (
	"encoding/binary"

	"kmirror/internal/wire"
)

// Writer is one life of one instance that writes for a flow. It is in the topic
// before that life writes anything else, so that whoever comes after it knows by
// which transactional id it can be fenced. It is deleted when the life has ended
// in order, or when nothing is left of it that could still be fenced.
type Writer struct {
	Flow            string
	TransactionalID string // unique for each life
	ProducerID      int64  // the one that the transactional id stood for then
	Life            string // as the live world knows it
	TimeMillis      int64
}

// MapPartition returns the partition of MapTopic that holds the writers of w's flow.
func (w Writer) MapPartition() int32 { return Key{Flow: w.Flow}.MapPartition() }

// Owner says that a writer may have written to a mirrored partition. It is in the
// topic before the writer's first batch is sent, and deleted when the writer has
// let go of the partition in order, or when the marker that ends it has been
// seen. The key has no topic id, so that the owners of an earlier incarnation
// are found too: they wrote into the same target topic.
type Owner struct {
	Key
	TransactionalID string
	ProducerID      int64
	TimeMillis      int64
}

// EncodeWriter returns the record that keeps w.
//
//	key    | 5 | flow | transactional id |
//	value  | 1 | time, signed varint | producer id | life |
func EncodeWriter(w Writer) wire.Record {
	key := appendString([]byte{kindWriter}, w.Flow)
	key = appendString(key, w.TransactionalID)
	value := binary.AppendVarint([]byte{1}, w.TimeMillis)
	value = binary.AppendUvarint(value, uint64(w.ProducerID))
	value = appendString(value, w.Life)
	return wire.Record{Timestamp: w.TimeMillis, Key: key, Value: value}
}

func decodeWriter(key, value *reader) any {
	w := Writer{Flow: key.string(), TransactionalID: key.string()}
	if value != nil {
		w.TimeMillis = value.varint()
		w.ProducerID = value.int64()
		w.Life = value.string()
	}
	return w
}

// EncodeOwner returns the record that keeps o.
//
//	key    | 6 | key | transactional id |
//	value  | 1 | time, signed varint | producer id |
func EncodeOwner(o Owner) wire.Record {
	key := o.append([]byte{kindOwner})
	key = appendString(key, o.TransactionalID)
	value := binary.AppendVarint([]byte{1}, o.TimeMillis)
	value = binary.AppendUvarint(value, uint64(o.ProducerID))
	return wire.Record{Timestamp: o.TimeMillis, Key: key, Value: value}
}

func decodeOwner(key, value *reader) any {
	o := Owner{Key: key.key(), TransactionalID: key.string()}
	if value != nil {
		o.TimeMillis = value.varint()
		o.ProducerID = value.int64()
	}
	return o
}
