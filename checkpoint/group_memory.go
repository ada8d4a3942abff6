package checkpoint

import (
	"encoding/binary"

	"kmirror/internal/wire"
)

// Checkpoint records carry what the next life has to know about our commits,
// in a header, so that key and value stay MirrorMaker 2's byte for byte.
//
//	| version = 1 | flags | upstream | downstream |
//
// Upstream and downstream, unsigned varints, are the commit that stood when
// the record was written (flag 1: there was one). Flag 2: the checkpoint itself
// is about to be committed; the record is written before the commit, so a next
// life that finds either of the two at the target knows it for ours.
const memoryHeader = "kmirror.committed"

const (
	memoryStands  = 1
	memoryIntends = 2
)

// remember adds the header to the record of a checkpoint.
func remember(rec *wire.Record, m memory) {
	value := []byte{1, 0}
	if m.intends {
		value[1] |= memoryIntends
	}
	if m.stands {
		value[1] |= memoryStands
		value = binary.AppendUvarint(value, uint64(m.standing.up))
		value = binary.AppendUvarint(value, uint64(m.standing.down))
	}
	rec.Headers = append(rec.Headers, wire.Header{Key: memoryHeader, Value: value})
}

// recall reads what a checkpoint record says about our commits. One without
// the header is MirrorMaker 2's, which commits what it checkpoints.
func recall(rec wire.Record, c Checkpoint) memory {
	here := position{up: c.Upstream, down: c.Downstream}
	for _, h := range rec.Headers {
		if h.Key != memoryHeader {
			continue
		}
		r := reader{buf: h.Value}
		version, flags := r.byte(), r.byte()
		if version != 1 {
			break
		}
		var m memory
		if flags&memoryIntends != 0 {
			m.intended, m.intends = here, true
		}
		if flags&memoryStands != 0 {
			m.standing, m.stands = position{up: r.int64(), down: r.int64()}, true
		}
		if r.bad != "" {
			break
		}
		return m
	}
	return memory{intended: here, intends: true}
}
