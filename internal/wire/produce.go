package wire

import (
	"encoding/binary"
	"net"
)

// ProducePartition is one partition's batch in a Produce request. The bytes of
// the batch are referred to, not copied.
type ProducePartition struct {
	Partition int32
	Batch     Batch
}

// ProduceTopic is one topic of a Produce request: by name up to version 12, by
// id from version 13 on (KIP-516).
type ProduceTopic struct {
	Name       string
	ID         [16]byte
	Partitions []ProducePartition
}

const (
	produceFlexible = 9
	produceTopicID  = 13
)

// EncodeProduce encodes the body of a Produce request without a transactional
// id, versions 3 to 13, for [Conn.Send]. See [ProduceRequest], which does the
// same again and again without allocating.
func EncodeProduce(version, acks int16, timeoutMillis int32, topics []ProduceTopic) net.Buffers {
	size, batches := 32, 0
	for i := range topics {
		size += 32 + len(topics[i].Name) + 16*len(topics[i].Partitions)
		batches += len(topics[i].Partitions)
	}
	r := ProduceRequest{small: make([]byte, 0, size), out: make(net.Buffers, 0, 2*batches+1)}
	r.Begin(version, acks, timeoutMillis, len(topics))
	for i := range topics {
		t := &topics[i]
		r.Topic(t.Name, t.ID, len(t.Partitions))
		for _, p := range t.Partitions {
			r.Partition(p.Partition, p.Batch)
		}
	}
	return r.End()
}

// ProduceRequest builds the bodies of Produce requests of one connection and
// keeps its memory from one to the next. The result alternates between short
// pieces of one buffer and the batches where they stand. The order of calls is
// Begin, then each topic by Topic and Partition, then End.
type ProduceRequest struct {
	version int16
	begun   bool // a topic
	small   []byte
	from    int // the start of the piece that is not cut yet
	out     net.Buffers
}

// Begin starts a request. timeoutMillis is how long the broker may wait for its
// replicas.
func (e *ProduceRequest) Begin(version, acks int16, timeoutMillis int32, topics int) {
	clear(e.out)
	*e = ProduceRequest{version: version, small: e.small[:0], out: e.out[:0]}
	if version >= produceFlexible {
		e.small = append(e.small, 0) // transactional id: null
	} else {
		e.small = append(e.small, 0xff, 0xff)
	}
	e.small = binary.BigEndian.AppendUint16(e.small, uint16(acks))
	e.small = binary.BigEndian.AppendUint32(e.small, uint32(timeoutMillis))
	e.length(topics)
}

// Topic starts the next topic: by name, or by id from version 13 on.
func (e *ProduceRequest) Topic(name string, id [16]byte, partitions int) {
	e.endTopic()
	e.begun = true
	switch {
	case e.version >= produceTopicID:
		e.small = append(e.small, id[:]...)
	case e.version >= produceFlexible:
		e.length(len(name))
		e.small = append(e.small, name...)
	default:
		e.small = binary.BigEndian.AppendUint16(e.small, uint16(len(name)))
		e.small = append(e.small, name...)
	}
	e.length(partitions)
}

// Partition is the next partition of the topic, with its one batch.
func (e *ProduceRequest) Partition(partition int32, b Batch) {
	e.small = binary.BigEndian.AppendUint32(e.small, uint32(partition))
	e.length(len(b))
	e.refer(b)
	e.noTags()
}

// End returns the body. It is good until the next Begin; the batches must not
// change before the call is done.
func (e *ProduceRequest) End() net.Buffers {
	e.endTopic()
	e.noTags()
	e.cut()
	return e.out
}

func (e *ProduceRequest) endTopic() {
	if e.begun {
		e.noTags()
	}
}

func (e *ProduceRequest) length(n int) {
	if e.version >= produceFlexible {
		e.small = binary.AppendUvarint(e.small, uint64(n)+1)
	} else {
		e.small = binary.BigEndian.AppendUint32(e.small, uint32(n))
	}
}

func (e *ProduceRequest) noTags() {
	if e.version >= produceFlexible {
		e.small = append(e.small, 0)
	}
}

// cut ends a piece. Should small outgrow its memory later, the piece stays
// behind in the old one, unchanged.
func (e *ProduceRequest) cut() {
	if e.from < len(e.small) {
		e.out = append(e.out, e.small[e.from:len(e.small):len(e.small)])
		e.from = len(e.small)
	}
}

func (e *ProduceRequest) refer(b Batch) {
	e.cut()
	if len(b) > 0 {
		e.out = append(e.out, b)
	}
}
