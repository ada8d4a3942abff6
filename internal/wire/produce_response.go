package wire

// ProduceResponse reads a Produce response where it stands, version 3 to 13, as
// [FetchResponse] reads those of Fetch.
type ProduceResponse struct {
	version int16
	in      cursor
	topics  int
	parts   int
	at      ProducedPartition
}

// ProducedPartition is the answer to one partition's batch.
type ProducedPartition struct {
	Topic      []byte   // its name; nil where topics go by id
	ID         [16]byte // its id from version 13 on
	Partition  int32
	ErrorCode  int16
	BaseOffset int64
	LogStart   int64  // where the partition's log begins; -1 where the broker does not say
	Message    []byte // the broker's words on the error; nil without
}

// ReadProduce begins to read a response body.
func ReadProduce(version int16, body []byte) (ProduceResponse, error) {
	r := ProduceResponse{version: version, in: cursor{rest: body, flexible: version >= produceFlexible}}
	r.topics = r.in.array(2)
	if r.in.bad {
		return r, corrupt("produce response v%d: head", version)
	}
	return r, nil
}

// Next moves to the next partition, which At then is. At the end it is false;
// then Err says whether that was the true end.
func (r *ProduceResponse) Next() bool {
	for r.parts <= 0 {
		if r.topics <= 0 || r.in.bad {
			return false
		}
		r.topics--
		if r.version >= produceTopicID {
			r.at.Topic, r.at.ID = nil, r.in.id()
		} else {
			r.at.Topic = r.in.text()
		}
		if r.parts = r.in.array(22); r.parts <= 0 {
			r.in.tags()
		}
	}
	p := &r.at
	p.Partition = r.in.int32()
	p.ErrorCode = r.in.int16()
	p.BaseOffset = r.in.int64()
	r.in.int64() // log append time
	p.LogStart = -1
	if r.version >= 5 {
		p.LogStart = r.in.int64()
	}
	p.Message = nil
	if r.version >= 8 {
		for n := r.in.array(6); n > 0 && !r.in.bad; n-- { // the records at fault: the message tells
			r.in.int32()
			r.in.text()
			r.in.tags()
		}
		p.Message = r.in.text()
	}
	r.in.tags()
	if r.parts--; r.parts == 0 {
		r.in.tags()
	}
	return !r.in.bad
}

// At is the present partition. It changes with the next call of Next.
func (r *ProduceResponse) At() *ProducedPartition { return &r.at }

// ThrottleMillis is how long the broker holds this client back. It is known
// once Next has returned false.
func (r *ProduceResponse) ThrottleMillis() int32 {
	rest := r.in
	return rest.int32()
}

// Err is a *CorruptError when the response ended before its end.
func (r *ProduceResponse) Err() error {
	if r.in.bad {
		return corrupt("produce response v%d: cut off, or with lengths that cannot be true", r.version)
	}
	return nil
}
