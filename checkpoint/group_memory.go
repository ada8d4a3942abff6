package checkpoint

import (
	"encoding/binary"

	"kmirror/internal/wire"
)

// Checkpoint records carry what the next life has to know about our commits,
// in a header, so that key and value stay MirrorMaker 2's byte for byte.
//
//	| version = 1 | flags | standing: upstream, downstream |
//	| version = 2 | flags | standing: upstream, downstream | intended: upstream, downstream |
//
// Standing, unsigned varints, is where both sides stood at the same place when
// the record was written; it is there with flag 1. Intended is the commit that is
// about to be made, to the target or, with flag 4, to the source; there is one
// with flag 2. Flag 8: the target stood beyond the end of the map. The record is written before the commit, so a next life that
// finds either of the two places knows it for ours. In version 1 the checkpoint
// itself is what is intended, and it is always for the target; a reader that
// knows version 1 only takes a record of version 2 for MirrorMaker 2's.
const memoryHeader = "kmirror.committed"

const (
	memoryStands  = 1
	memoryIntends = 2
	memoryBack    = 4
	memoryShort   = 8
)

// turned is m as the flow the other way would have it.
func (m memory) turned() memory {
	m.standing, m.intended = m.standing.turned(), m.intended.turned()
	m.back = m.intends && !m.back
	return m
}

func (p position) turned() position { return position{up: p.down, down: p.up} }

// left is where the target's group stood when it left the source, which stands at
// up; -1: that is not known.
func (m memory) left(up int64) int64 {
	switch {
	case m.intends && (!m.back || m.intended.up == up):
		return m.intended.down
	case m.stands:
		return m.standing.down
	default:
		return -1
	}
}

// remember adds the header to the record of a checkpoint.
func remember(rec *wire.Record, here position, m memory) {
	value := []byte{1, 0}
	add := func(p position) {
		value = binary.AppendUvarint(value, uint64(p.up))
		value = binary.AppendUvarint(value, uint64(p.down))
	}
	if m.stands {
		value[1] |= memoryStands
		add(m.standing)
	}
	if m.short {
		value[1] |= memoryShort
	}
	if m.intends {
		value[1] |= memoryIntends
		if m.back || m.intended != here {
			value[0] = 2
			add(m.intended)
		}
		if m.back {
			value[1] |= memoryBack
		}
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
		m := memory{short: flags&memoryShort != 0}
		if flags&memoryStands != 0 {
			m.standing, m.stands = position{up: r.int64(), down: r.int64()}, true
		}
		if flags&memoryIntends != 0 {
			m.intended, m.intends, m.back = here, true, flags&memoryBack != 0
		}
		if m.intends && version == 2 {
			m.intended = position{up: r.int64(), down: r.int64()}
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
