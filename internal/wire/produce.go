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
// id, versions 3 to 13, for [Conn.Send]. The result alternates between short
// pieces of one buffer and the batches where they stand, which must not change
// before the call is done. timeoutMillis is how long the broker may wait for
// its replicas.
func EncodeProduce(version, acks int16, timeoutMillis int32, topics []ProduceTopic) net.Buffers {
	e := produceEncoder{version: version}
	size, batches := 32, 0
	for i := range topics {
		size += 32 + len(topics[i].Name) + 16*len(topics[i].Partitions)
		batches += len(topics[i].Partitions)
	}
	e.small = make([]byte, 0, size)
	e.out = make(net.Buffers, 0, 2*batches+1)

	if version >= produceFlexible {
		e.small = append(e.small, 0) // transactional id: null
	} else {
		e.small = append(e.small, 0xff, 0xff)
	}
	e.small = binary.BigEndian.AppendUint16(e.small, uint16(acks))
	e.small = binary.BigEndian.AppendUint32(e.small, uint32(timeoutMillis))
	e.length(len(topics))
	for i := range topics {
		t := &topics[i]
		switch {
		case version >= produceTopicID:
			e.small = append(e.small, t.ID[:]...)
		case version >= produceFlexible:
			e.length(len(t.Name))
			e.small = append(e.small, t.Name...)
		default:
			e.small = binary.BigEndian.AppendUint16(e.small, uint16(len(t.Name)))
			e.small = append(e.small, t.Name...)
		}
		e.length(len(t.Partitions))
		for _, p := range t.Partitions {
			e.small = binary.BigEndian.AppendUint32(e.small, uint32(p.Partition))
			e.length(len(p.Batch))
			e.refer(p.Batch)
			e.noTags()
		}
		e.noTags()
	}
	e.noTags()
	e.cut()
	return e.out
}

// produceEncoder writes short pieces into one buffer and cuts it where a batch
// goes between. Invariant: small never outgrows its first capacity, or pieces
// already cut would stay behind in the old buffer, which is correct but wasteful.
type produceEncoder struct {
	version int16
	small   []byte
	from    int // the start of the piece that is not cut yet
	out     net.Buffers
}

func (e *produceEncoder) length(n int) {
	if e.version >= produceFlexible {
		e.small = binary.AppendUvarint(e.small, uint64(n)+1)
	} else {
		e.small = binary.BigEndian.AppendUint32(e.small, uint32(n))
	}
}

func (e *produceEncoder) noTags() {
	if e.version >= produceFlexible {
		e.small = append(e.small, 0)
	}
}

func (e *produceEncoder) cut() {
	if e.from < len(e.small) {
		e.out = append(e.out, e.small[e.from:len(e.small):len(e.small)])
		e.from = len(e.small)
	}
}

func (e *produceEncoder) refer(b Batch) {
	e.cut()
	if len(b) > 0 {
		e.out = append(e.out, b)
	}
}
