package broker

import (
	"errors"

	"github.com/twmb/franz-go/pkg/kbin"
)

// maxProduceEntries bounds the topics and partitions of one Produce request, so
// that a request full of empty entries cannot grow to many times its size.
const maxProduceEntries = 200_000

var errTooManyEntries = errors.New("more topics and partitions than a request may have")

// produceRequest is a decoded Produce request. Its records and names alias the
// request's frame. It is decoded by hand because it is the hot path: one pass,
// and the slices are used again for the connection's next request.
type produceRequest struct {
	transactionalID *string
	acks            int16
	timeoutMillis   int32
	topics          []produceTopic
	partitions      []producePartition // of all topics, in order
}

type produceTopic struct {
	name        string   // up to v12
	id          [16]byte // from v13
	first, past int      // its partitions are partitions[first:past]
}

type producePartition struct {
	partition int32
	records   []byte // nil when null
}

// decode reads a request body of version 3 to 13.
func (q *produceRequest) decode(version int16, body []byte) error {
	q.topics, q.partitions = q.topics[:0], q.partitions[:0]
	flexible := version >= 9
	r := kbin.Reader{Src: body}
	if flexible {
		q.transactionalID = r.CompactNullableString()
	} else {
		q.transactionalID = r.NullableString()
	}
	q.acks = r.Int16()
	q.timeoutMillis = r.Int32()
	for range produceArray(&r, flexible) {
		t := produceTopic{first: len(q.partitions)}
		switch {
		case version >= 13:
			t.id = r.Uuid()
		case flexible:
			t.name = r.UnsafeCompactString()
		default:
			t.name = r.UnsafeString()
		}
		for range produceArray(&r, flexible) {
			p := producePartition{partition: r.Int32()}
			if flexible {
				p.records = r.CompactNullableBytes()
				skipTags(&r)
			} else {
				p.records = r.NullableBytes()
			}
			if !r.Ok() {
				return kbin.ErrNotEnoughData
			}
			if len(q.topics)+len(q.partitions) >= maxProduceEntries {
				return errTooManyEntries
			}
			q.partitions = append(q.partitions, p)
		}
		if flexible {
			skipTags(&r)
		}
		if !r.Ok() {
			return kbin.ErrNotEnoughData
		}
		if len(q.topics)+len(q.partitions) >= maxProduceEntries {
			return errTooManyEntries
		}
		t.past = len(q.partitions)
		q.topics = append(q.topics, t)
	}
	if flexible {
		skipTags(&r)
	}
	return r.Complete()
}

// produceArray reads an array's length; a null array counts as empty.
func produceArray(r *kbin.Reader, flexible bool) int32 {
	var n int32
	if flexible {
		n = r.CompactArrayLen()
	} else {
		n = r.ArrayLen()
	}
	return max(n, 0)
}

func skipTags(r *kbin.Reader) {
	for n := r.Uvarint(); n > 0 && r.Ok(); n-- {
		r.Uvarint()
		r.Span(int(r.Uvarint()))
	}
}
