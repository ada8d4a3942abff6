package mirror

import (
	"sync/atomic"
	"time"
)

// slab is the memory of one fetch response, or of one batch. Batches are slices
// of it, and it lives until the last of them lets go.
//
// Its buffer is of the smallest size of the pool that holds the response, whose
// size is known before its bytes are read: a trickle does not hold large
// buffers, and nothing needs to be copied out of them for that. What is copied
// is the last little that keeps a large slab alive, when memory is short: see
// lane.compact.
type slab struct {
	budget  *budget
	own     bool  // of one batch
	class   int8  // of the pool; -1: not pooled
	charged int64 // bytes
	buf     []byte
	born    time.Time
	live    atomic.Int64 // bytes of the batches that refer to it
	refs    atomic.Int32
}

// reset forgets everything. Called when nothing refers to it.
func (s *slab) reset() {
	s.budget, s.own, s.class, s.charged, s.buf, s.born = nil, false, -1, 0, nil, time.Time{}
	s.live.Store(0)
	s.refs.Store(0)
}

// alloc gives the slab a buffer of n bytes, once. It is nil when n is more than
// a pooled buffer holds: the buffer then grows as its bytes arrive, and adopt
// takes it in.
func (s *slab) alloc(n int) []byte {
	buf, class := s.budget.pot.give(n)
	if buf == nil {
		return nil
	}
	s.adopt(buf)
	s.class = class
	return buf[:n]
}

// adopt makes buf the slab's memory, if it is not that already.
func (s *slab) adopt(buf []byte) {
	if s.buf != nil {
		return
	}
	s.buf, s.class, s.charged, s.born = buf, -1, int64(cap(buf)), time.Now()
	s.budget.pot.mu.Lock()
	defer s.budget.pot.mu.Unlock()
	s.budget.charge(s.charged)
}

// retain is for a batch of n bytes that refers to the slab.
func (s *slab) retain(n int) {
	s.refs.Add(1)
	s.live.Add(int64(n))
}

// release ends what retain began.
func (s *slab) release(n int) {
	s.live.Add(-int64(n))
	s.drop()
}

// drop lets go of one reference; the last one gives memory and budget back.
func (s *slab) drop() {
	if s.refs.Add(-1) == 0 {
		s.budget.pot.back(s)
	}
}

// sparse says that hardly anything of a slab is used and that it has been so for
// a while.
func (s *slab) sparse(now time.Time) bool {
	return !s.own && s.live.Load()*4 < s.charged && now.Sub(s.born) > compactAfter
}
