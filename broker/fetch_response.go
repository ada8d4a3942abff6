package broker

import (
	"encoding/binary"
	"fmt"
	"time"

	"github.com/twmb/franz-go/pkg/kbin"

	"kmirror/internal/wire"
)

const (
	sendfileFrom = 64 << 10  // below this a copy is cheaper than another system call
	writeAt      = 256 << 10 // bytes gathered before they are written
)

// fetchResponse is a Fetch response without its records: kmsg wants those in
// memory, we want them to go from the page cache to the socket. Its encoding is
// in one place, the records of entry i belong where marks[i] says.
type fetchResponse struct {
	version   int16
	code      int16
	sessionID int32
	committed bool // read_committed: the list of aborted transactions is not null
	entries   []*fetched
}

// appendTo appends everything but the records. marks[i] is the length of dst
// where the records of entry i belong.
func (f *fetchResponse) appendTo(dst []byte, marks []int) ([]byte, []int) {
	flexible := f.version >= 12
	dst = kbin.AppendInt32(dst, 0) // throttle time
	if f.version >= 7 {
		dst = kbin.AppendInt16(dst, f.code)
		dst = kbin.AppendInt32(dst, f.sessionID)
	}
	topics := 0
	for i := range f.entries {
		if i == 0 || !sameTopic(f.entries[i-1], f.entries[i]) {
			topics++
		}
	}
	dst = appendArrayLen(dst, topics, flexible)
	for i := 0; i < len(f.entries); {
		past := i + 1
		for past < len(f.entries) && sameTopic(f.entries[i], f.entries[past]) {
			past++
		}
		switch {
		case f.version >= 13:
			dst = kbin.AppendUuid(dst, f.entries[i].partition.key.id)
		case flexible:
			dst = kbin.AppendCompactString(dst, f.entries[i].topic)
		default:
			dst = kbin.AppendString(dst, f.entries[i].topic)
		}
		dst = appendArrayLen(dst, past-i, flexible)
		for ; i < past; i++ {
			var mark int
			dst, mark = f.appendEntry(dst, f.entries[i])
			marks = append(marks, mark)
		}
		if flexible {
			dst = append(dst, 0)
		}
	}
	if flexible {
		dst = append(dst, 0)
	}
	return dst, marks
}

func (f *fetchResponse) appendEntry(dst []byte, e *fetched) (_ []byte, mark int) {
	flexible := f.version >= 12
	dst = kbin.AppendInt32(dst, e.partition.key.partition)
	dst = kbin.AppendInt16(dst, e.code)
	dst = kbin.AppendInt64(dst, e.highWatermark)
	dst = kbin.AppendInt64(dst, e.lastStable)
	if f.version >= 5 {
		dst = kbin.AppendInt64(dst, e.logStart)
	}
	aborted := e.aborted
	if f.committed && e.code == 0 {
		dst = appendArrayLen(dst, len(aborted), flexible)
	} else {
		dst, aborted = appendArrayLen(dst, -1, flexible), nil // null
	}
	for _, a := range aborted {
		dst = kbin.AppendInt64(dst, a.ProducerID)
		dst = kbin.AppendInt64(dst, a.FirstOffset)
		if flexible {
			dst = append(dst, 0)
		}
	}
	if f.version >= 11 {
		dst = kbin.AppendInt32(dst, -1) // preferred read replica
	}
	if !flexible {
		dst = kbin.AppendInt32(dst, int32(e.bytes))
		return dst, len(dst)
	}
	dst = kbin.AppendUvarint(dst, uint32(e.bytes)+1)
	mark = len(dst)
	diverges, behind := e.divergingEpoch >= 0, e.leaderEpoch >= 0
	switch {
	case diverges:
		dst = append(dst, 1, 0, 13) // one tag: number 0, 13 bytes
		dst = kbin.AppendInt32(dst, e.divergingEpoch)
		dst = kbin.AppendInt64(dst, e.divergingEnd)
		dst = append(dst, 0)
	case behind:
		dst = append(dst, 1, 1, 9) // one tag: number 1, 9 bytes
		dst = kbin.AppendInt32(dst, e.leader)
		dst = kbin.AppendInt32(dst, e.leaderEpoch)
		dst = append(dst, 0)
	default:
		dst = append(dst, 0)
	}
	return dst, mark
}

func sameTopic(a, b *fetched) bool {
	return a.partition.key.topic == b.partition.key.topic && a.partition.key.id == b.partition.key.id
}

// appendArrayLen appends the length of an array; -1 is null.
func appendArrayLen(dst []byte, n int, flexible bool) []byte {
	if flexible {
		return kbin.AppendUvarint(dst, uint32(n+1))
	}
	return kbin.AppendInt32(dst, int32(n))
}

// respondFetch writes a Fetch response: its own bytes gathered with small
// slices, large slices by sendfile. Once the first byte is out an error ends
// the connection, because the promised length cannot be kept any more.
func (c *conn) respondFetch(r *request, f *fetchResponse) error {
	head := append(c.fetchHead[:0], 0, 0, 0, 0)
	head = wire.AppendResponseHeader(head, r.Key, r.Version, r.CorrelationID)
	head, marks := f.appendTo(head, c.fetchMarks[:0])
	size := len(head) - 4
	for _, e := range f.entries {
		size += e.bytes
	}
	binary.BigEndian.PutUint32(head, uint32(size))

	out, from := c.out[:0], 0
	for i, e := range f.entries {
		out = append(out, head[from:marks[i]]...)
		from = marks[i]
		if e.bytes == 0 {
			continue
		}
		if e.bytes >= sendfileFrom {
			if err := c.write(out); err != nil {
				return err
			}
			out = out[:0]
			if err := c.send(e); err != nil {
				return err
			}
			continue
		}
		var err error
		if out, err = e.slice.Bytes(out); err != nil {
			return fmt.Errorf("read %s/%d: %w", e.topic, e.partition.key.partition, err)
		}
		if len(out) >= writeAt {
			if err := c.write(out); err != nil {
				return err
			}
			out = out[:0]
		}
	}
	out = append(out, head[from:]...)
	err := c.write(out)
	c.out, c.fetchHead, c.fetchMarks = kept(out), kept(head), marks[:0]
	return err
}

// send moves an entry's records from the file to the socket.
func (c *conn) send(e *fetched) error {
	if err := c.net.SetWriteDeadline(time.Now().Add(stepTimeout)); err != nil {
		return fmt.Errorf("set write deadline: %w", err)
	}
	sent, err := e.slice.WriteTo(c.net)
	c.node.metrics.bytesOut.Add(float64(sent))
	if err != nil {
		return fmt.Errorf("send %s/%d: %w", e.topic, e.partition.key.partition, err)
	}
	return nil
}

// kept is b, unless it is too large to hold on to between requests.
func kept(b []byte) []byte {
	if cap(b) > 2*writeAt {
		return nil
	}
	return b[:0]
}
