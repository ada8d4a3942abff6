package wire

import "iter"

// FetchResponse reads a Fetch response where it stands, version [FetchOldest]
// to [FetchNewest]: a walk over its partitions that copies and allocates
// nothing. Every slice it gives is one of the body.
type FetchResponse struct {
	ThrottleMillis int32
	ErrorCode      int16
	SessionID      int32 // 0: the broker keeps none

	version int16
	in      cursor
	topics  int // not begun yet
	parts   int // of the present topic, not read yet
	at      FetchedPartition
}

// FetchedPartition is one partition of a response.
type FetchedPartition struct {
	Topic         []byte   // its name; nil where topics go by id
	ID            [16]byte // its id from version 13 on
	Partition     int32
	ErrorCode     int16
	HighWatermark int64
	LastStable    int64
	LogStart      int64  // -1 where the version does not say
	Records       []byte // whole batches, the last one perhaps cut off

	aborted []byte
	size    int // of one entry of aborted
}

// ReadFetch begins to read a response body. A body that ends too early is a
// *CorruptError.
func ReadFetch(version int16, body []byte) (FetchResponse, error) {
	r := FetchResponse{version: version, in: cursor{rest: body, flexible: version >= fetchFlexible}}
	r.ThrottleMillis = r.in.int32()
	if version >= FetchSession {
		r.ErrorCode = r.in.int16()
		r.SessionID = r.in.int32()
	}
	r.topics = r.in.array(2)
	if r.in.bad {
		return r, corrupt("fetch response v%d: head", version)
	}
	return r, nil
}

// Next moves to the next partition, which At then is. At the end it is false;
// then Err says whether that was the true end.
func (r *FetchResponse) Next() bool {
	for r.parts <= 0 {
		if r.topics <= 0 || r.in.bad {
			return false
		}
		r.topics--
		if r.version >= FetchByID {
			r.at.Topic, r.at.ID = nil, r.in.id()
		} else {
			r.at.Topic = r.in.text()
		}
		if r.parts = r.in.array(26); r.parts <= 0 {
			r.in.tags()
		}
	}
	p := &r.at
	p.Partition = r.in.int32()
	p.ErrorCode = r.in.int16()
	p.HighWatermark = r.in.int64()
	p.LastStable = r.in.int64()
	p.LogStart = -1
	if r.version >= 5 {
		p.LogStart = r.in.int64()
	}
	p.size = 16
	if r.in.flexible {
		p.size = 17
	}
	p.aborted = r.readAborted()
	if r.version >= 11 {
		r.in.int32() // preferred replica: only for those who name a rack
	}
	p.Records = r.in.bytes()
	r.in.tags()
	if r.parts--; r.parts == 0 {
		r.in.tags()
	}
	return !r.in.bad
}

// readAborted takes the list of aborted transactions as it stands. Its entries
// have one size as long as they bear no tags, and nobody has defined any.
func (r *FetchResponse) readAborted() []byte {
	n := r.in.array(r.at.size)
	if n <= 0 {
		return nil
	}
	list := r.in.rest
	for range n {
		if r.in.take(16); r.in.flexible {
			if r.in.uvarint() != 0 {
				r.in.bad = true
			}
		}
	}
	if r.in.bad {
		return nil
	}
	return list[:n*r.at.size]
}

// At is the present partition. It changes with the next call of Next.
func (r *FetchResponse) At() *FetchedPartition { return &r.at }

// Err is a *CorruptError when the response ended before its end.
func (r *FetchResponse) Err() error {
	if r.in.bad {
		return corrupt("fetch response v%d: cut off, or with lengths that cannot be true", r.version)
	}
	return nil
}

// Aborted yields the aborted transactions that the records may belong to: who
// wrote them, and their first offset.
func (p *FetchedPartition) Aborted() iter.Seq2[int64, int64] {
	return func(yield func(producer, first int64) bool) {
		for list := (cursor{rest: p.aborted}); len(list.rest) >= p.size && p.size > 0; {
			producer, first := list.int64(), list.int64()
			list.take(p.size - 16)
			if !yield(producer, first) {
				return
			}
		}
	}
}

// HasAborted says whether there are any.
func (p *FetchedPartition) HasAborted() bool { return len(p.aborted) > 0 }
