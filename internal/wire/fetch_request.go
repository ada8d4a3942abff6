package wire

import (
	"encoding/binary"
)

// Fetch versions that the encoder and the reader of this package know, and
// where their layout changes.
const (
	FetchOldest  = 4  // aborted transactions, and brokers from 0.11 on
	FetchNewest  = 17 // KIP-853
	FetchSession = 7  // from here on, incremental sessions (KIP-227)
	FetchByID    = 13 // from here on, topics go by id (KIP-516)

	fetchFlexible = 12
)

// FetchRequest builds the bodies of Fetch requests of one connection, version
// [FetchOldest] to [FetchNewest], reading what is committed. It keeps its
// memory from one to the next. The order of calls is Begin, then the
// partitions by Topic and Partition, then the forgotten ones by Forget and
// Forgotten, then End. The counts are patched in, so nothing has to be known
// beforehand.
type FetchRequest struct {
	version int16
	buf     []byte
	topics  count
	parts   count

	forgetting bool // topics is the list of the forgotten
}

// count is where the length of an array stands until it is known. In flexible
// versions it is written as a uvarint of five bytes: longer than it need be, and
// a uvarint all the same.
type count struct {
	at int
	n  uint32
}

// FetchOptions are the fields of a request that are not about partitions.
type FetchOptions struct {
	MaxWaitMillis int32
	MinBytes      int32
	MaxBytes      int32
	SessionID     int32 // 0: none yet
	SessionEpoch  int32 // 0: a full request that asks for a session; -1: one without
}

// Begin starts a request.
func (f *FetchRequest) Begin(version int16, o FetchOptions) {
	f.version = version
	f.buf = f.buf[:0]
	if version < 15 {
		f.int32(-1) // replica: a consumer
	}
	f.int32(o.MaxWaitMillis)
	f.int32(o.MinBytes)
	f.int32(o.MaxBytes)
	f.buf = append(f.buf, 1) // read committed
	if version >= FetchSession {
		f.int32(o.SessionID)
		f.int32(o.SessionEpoch)
	}
	f.topics, f.parts, f.forgetting = f.open(), count{}, false
}

// Wait changes how long the broker may wait, in milliseconds.
func (f *FetchRequest) Wait(millis int32) {
	at := 4
	if f.version >= 15 {
		at = 0
	}
	binary.BigEndian.PutUint32(f.buf[at:], uint32(millis))
}

// Topic starts the next topic: by name, or by id from version 13 on.
func (f *FetchRequest) Topic(name string, id [16]byte) {
	f.closeTopic()
	f.topics.n++
	f.name(name, id)
	f.parts = f.open()
}

// Partition names a partition of the topic. A leader epoch of -1 is unknown.
func (f *FetchRequest) Partition(partition, leaderEpoch int32, offset int64, maxBytes int32) {
	f.parts.n++
	f.int32(partition)
	if f.version >= 9 {
		f.int32(leaderEpoch)
	}
	f.int64(offset)
	if f.version >= fetchFlexible {
		f.int32(-1) // last fetched epoch: for followers
	}
	if f.version >= 5 {
		f.int64(-1) // log start: for followers
	}
	f.int32(maxBytes)
	f.noTags()
}

// Forget starts the next topic of which the session forgets partitions; all
// others were named before. It needs a session.
func (f *FetchRequest) Forget(name string, id [16]byte) {
	if f.version < FetchSession {
		return
	}
	f.endTopics()
	f.closeTopic()
	f.topics.n++
	f.name(name, id)
	f.parts = f.open()
}

// Forgotten names a partition of that topic.
func (f *FetchRequest) Forgotten(partition int32) {
	if f.version < FetchSession {
		return
	}
	f.parts.n++
	f.int32(partition)
}

// End returns the body. It is good until the next Begin.
func (f *FetchRequest) End() []byte {
	f.endTopics()
	f.closeTopic()
	f.close(f.topics)
	if f.version >= 11 { // no rack
		if f.version >= fetchFlexible {
			f.buf = append(f.buf, 1)
		} else {
			f.buf = append(f.buf, 0, 0)
		}
	}
	f.noTags()
	return f.buf
}

// endTopics ends the list of named topics and begins that of the forgotten.
func (f *FetchRequest) endTopics() {
	if f.version < FetchSession || f.forgetting {
		return
	}
	f.closeTopic()
	f.close(f.topics)
	f.topics, f.forgetting = f.open(), true
}

func (f *FetchRequest) closeTopic() {
	if f.parts.at == 0 { // none is begun
		return
	}
	f.close(f.parts)
	f.noTags()
	f.parts = count{}
}

func (f *FetchRequest) name(name string, id [16]byte) {
	switch {
	case f.version >= FetchByID:
		f.buf = append(f.buf, id[:]...)
	case f.version >= fetchFlexible:
		f.buf = binary.AppendUvarint(f.buf, uint64(len(name))+1)
		f.buf = append(f.buf, name...)
	default:
		f.buf = binary.BigEndian.AppendUint16(f.buf, uint16(len(name)))
		f.buf = append(f.buf, name...)
	}
}

// open leaves room for a count.
func (f *FetchRequest) open() count {
	c := count{at: len(f.buf)}
	f.buf = append(f.buf, 0, 0, 0, 0)
	if f.version >= fetchFlexible {
		f.buf = append(f.buf, 0)
	}
	return c
}

// close writes a count where its room is.
func (f *FetchRequest) close(c count) {
	if f.version < fetchFlexible {
		binary.BigEndian.PutUint32(f.buf[c.at:], c.n)
		return
	}
	n := c.n + 1
	for i := range 4 {
		f.buf[c.at+i] = byte(n) | 0x80
		n >>= 7
	}
	f.buf[c.at+4] = byte(n)
}

func (f *FetchRequest) int32(v int32) { f.buf = binary.BigEndian.AppendUint32(f.buf, uint32(v)) }
func (f *FetchRequest) int64(v int64) { f.buf = binary.BigEndian.AppendUint64(f.buf, uint64(v)) }

func (f *FetchRequest) noTags() {
	if f.version >= fetchFlexible {
		f.buf = append(f.buf, 0)
	}
}
