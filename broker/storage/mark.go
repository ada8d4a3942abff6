package storage

import "sync/atomic"

// mark is an offset and where it stands: the position pos in the segment with
// that base. It has one writer at a time and readers that never wait for a
// lock; they see all three values of one set.
type mark struct {
	turn   atomic.Uint32 // odd while a set is under way
	offset atomic.Int64
	base   atomic.Int64
	pos    atomic.Int64
}

func (m *mark) set(offset, base, pos int64) {
	m.turn.Add(1)
	m.offset.Store(offset)
	m.base.Store(base)
	m.pos.Store(pos)
	m.turn.Add(1)
}

func (m *mark) get() (offset, base, pos int64) {
	for {
		turn := m.turn.Load()
		offset, base, pos = m.offset.Load(), m.base.Load(), m.pos.Load()
		if turn&1 == 0 && m.turn.Load() == turn {
			return offset, base, pos
		}
	}
}
