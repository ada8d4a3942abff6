package wire

import (
	"encoding/binary"
	"fmt"
	"math"

	"github.com/twmb/franz-go/pkg/kmsg"
)

// keyApiVersions is the one request whose response header is never flexible,
// because it is read before any version is agreed upon (KIP-511).
const keyAPIVersions = 18

// UnknownKeyError says that a request bears an API key that this build does
// not know. The rest of such a request cannot be read, so its connection is to
// be closed.
type UnknownKeyError struct {
	Key     int16
	Version int16
}

func (e *UnknownKeyError) Error() string {
	return fmt.Sprintf("unknown API key %d (version %d)", e.Key, e.Version)
}

// RequestHeader is what stands before every request body.
type RequestHeader struct {
	Key           int16
	Version       int16
	CorrelationID int32
	ClientID      *string // nil: null
}

// neverFlexible is above every version.
const neverFlexible = math.MaxInt16

// flexibleFrom holds, by API key, the first version with compact fields and
// tags (KIP-482). Keys beyond it are unknown.
//
//nolint:gochecknoglobals // an immutable table, computed from kmsg once
var flexibleFrom = firstFlexibleVersions()

func firstFlexibleVersions() []int16 {
	table := make([]int16, 0, kmsg.MaxKey+1)
	for key := int16(0); key <= kmsg.MaxKey; key++ {
		first := int16(-1)
		if req := kmsg.RequestForKey(key); req != nil {
			first = neverFlexible
			for v := int16(0); v <= req.MaxVersion(); v++ {
				req.SetVersion(v)
				if req.IsFlexible() {
					first = v
					break
				}
			}
		}
		table = append(table, first)
	}
	return table
}

func knownKey(key int16) bool {
	return key >= 0 && int(key) < len(flexibleFrom) && flexibleFrom[key] >= 0
}

// Flexible reports whether a version of an API uses compact fields and tags
// (KIP-482), and with them request header v2. An unknown key is not flexible.
func Flexible(key, version int16) bool {
	return knownKey(key) && version >= flexibleFrom[key]
}

// flexibleResponse reports whether the response header is v1.
func flexibleResponse(key, version int16) bool {
	return key != keyAPIVersions && Flexible(key, version)
}

// ParseRequestHeader splits a frame into its header, v1 or v2 as key and
// version demand, and the body, which aliases frame. The tags of a v2 header
// are skipped. An unknown key is read as header v1 and reported as
// *UnknownKeyError, a header that ends early as *CorruptError.
func ParseRequestHeader(frame []byte) (h RequestHeader, body []byte, err error) {
	if len(frame) < 10 {
		return h, nil, &CorruptError{Reason: fmt.Sprintf("request header cut off after %d bytes", len(frame))}
	}
	h.Key = int16(binary.BigEndian.Uint16(frame))
	h.Version = int16(binary.BigEndian.Uint16(frame[2:]))
	h.CorrelationID = int32(binary.BigEndian.Uint32(frame[4:]))
	n := int(int16(binary.BigEndian.Uint16(frame[8:])))
	body = frame[10:]
	switch {
	case n > len(body):
		return h, nil, &CorruptError{Reason: fmt.Sprintf("client id of %d bytes in a frame with %d left", n, len(body))}
	case n >= 0:
		id := string(body[:n])
		h.ClientID, body = &id, body[n:]
	case n < -1:
		return h, nil, &CorruptError{Reason: fmt.Sprintf("client id of %d bytes", n)}
	}
	if !knownKey(h.Key) {
		return h, body, &UnknownKeyError{Key: h.Key, Version: h.Version}
	}
	if Flexible(h.Key, h.Version) {
		if body, err = skipTags(body); err != nil {
			return h, nil, err
		}
	}
	return h, body, nil
}

// AppendRequestHeader appends a request header, without the size of the frame.
func AppendRequestHeader(dst []byte, h RequestHeader) []byte {
	dst = binary.BigEndian.AppendUint16(dst, uint16(h.Key))
	dst = binary.BigEndian.AppendUint16(dst, uint16(h.Version))
	dst = binary.BigEndian.AppendUint32(dst, uint32(h.CorrelationID))
	if h.ClientID == nil {
		dst = binary.BigEndian.AppendUint16(dst, 0xffff)
	} else {
		id := *h.ClientID
		id = id[:min(len(id), math.MaxInt16)]
		dst = binary.BigEndian.AppendUint16(dst, uint16(len(id)))
		dst = append(dst, id...) // not compact, even in header v2
	}
	if Flexible(h.Key, h.Version) {
		dst = append(dst, 0) // no tags
	}
	return dst
}

// AppendResponseHeader appends a response header, without the size of the
// frame: v1 for flexible versions, else v0; ApiVersions always v0 (KIP-511).
func AppendResponseHeader(dst []byte, key, version int16, correlationID int32) []byte {
	dst = binary.BigEndian.AppendUint32(dst, uint32(correlationID))
	if flexibleResponse(key, version) {
		dst = append(dst, 0) // no tags
	}
	return dst
}

// skipTags returns what follows the tagged fields at the start of b.
func skipTags(b []byte) ([]byte, error) {
	count, b, err := takeUvarint(b)
	if err != nil {
		return nil, err
	}
	for ; count > 0; count-- {
		var size uint64
		if _, b, err = takeUvarint(b); err != nil {
			return nil, err
		}
		if size, b, err = takeUvarint(b); err != nil {
			return nil, err
		}
		if size > uint64(len(b)) {
			return nil, &CorruptError{Reason: fmt.Sprintf("tag of %d bytes with %d left", size, len(b))}
		}
		b = b[size:]
	}
	return b, nil
}

func takeUvarint(b []byte) (v uint64, rest []byte, err error) {
	v, n := binary.Uvarint(b)
	if n <= 0 || v > math.MaxUint32 {
		return 0, nil, &CorruptError{Reason: "bad tag varint"}
	}
	return v, b[n:], nil
}
