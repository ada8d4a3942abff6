package checkpoint

import (
	"encoding/binary"

	"kmirror/internal/wire"
)

// Checkpoint records carry what the next life has to know about our commits,
// in a header, so that key and value stay MirrorMaker 2's byte for byte.
//
//	| version | flags | upstream | downstream |
//
// Upstream and downstream, unsigned varints, are where both sides stood at the
// same place when the record was written (flag 1: they did). Flag 2: the
// checkpoint itself is about to be committed, to the target or, with flag 4, to
// the source; the record is written before the commit, so a next life that finds
// either of the two places knows it for ours. The version is 1, or 2 if flag 4
// is set: a reader that knows version 1 only takes such a record for
// MirrorMaker 2's.
const memoryHeader = "kmirror.committed"

const (
	memoryStands  = 1
	memoryIntends = 2
	memoryBack    = 4
)

// remember adds the header to the record of a checkpoint.
func remember(rec *wire.Record, m memory) {
	value := []byte{1, 0}
	if m.intends {
		value[1] |= memoryIntends
	}
	if m.intends && m.back {
		value[0], value[1] = 2, value[1]|memoryBack
	}
	if m.stands {
		value[1] |= memoryStands
		value = binary.AppendUvarint(value, uint64(m.standing.up))
		value = binary.AppendUvarint(value, uint64(m.standing.down))
	}
	rec.Headers = append(rec.Headers, wire.Header{Key: memoryHeader, Value: value})
}

// recall reads what a checkpoint record says about our commits, before what
// earlier records of the same key said. One without the header is
// MirrorMaker 2's, which commits what it checkpoints some time later: then the
// checkpoint before may still be what stands.
func recall(rec wire.Record, c Checkpoint, before memory) memory {
	here := position{up: c.Upstream, down: c.Downstream}
	for _, h := range rec.Headers {
		if h.Key != memoryHeader {
			continue
		}
		r := reader{buf: h.Value}
		version, flags := r.byte(), r.byte()
		if version != 1 && version != 2 {
			break
		}
		var m memory
		if flags&memoryIntends != 0 {
			m.intended, m.intends, m.back = here, true, flags&memoryBack != 0
		}
		if flags&memoryStands != 0 {
			m.standing, m.stands = position{up: r.int64(), down: r.int64()}, true
		}
		if r.bad != "" {
			break
		}
		return m
	}
	m := memory{intended: here, intends: true}
	if before.intends && !before.back {
		m.standing, m.stands = before.intended, true
	}
	return m
}
