package mirror

import (
	"context"
	"sync"
	"sync/atomic"

	"golang.org/x/sync/semaphore"
)

// slabSize is how much one fetch asks for, and the size of a pooled buffer.
// Larger ones cost more CPU per byte (cold cache), smaller ones more wake-ups.
const slabSize = 2 << 20

// budget bounds the bytes that fetched batches may occupy in this instance.
// A fetcher reserves before it asks and gives back when the last batch of the
// response has been acknowledged or dropped.
type budget struct {
	sem   *semaphore.Weighted
	limit int64
	used  atomic.Int64
	pool  sync.Pool // of *[]byte, each slabSize long
}

func newBudget(limit int64) *budget {
	limit = max(limit, 2*slabSize)
	return &budget{sem: semaphore.NewWeighted(limit), limit: limit}
}

// acquire reserves n bytes, waiting for room. More than the whole budget is
// reserved as the whole budget: a batch larger than it must still pass.
func (b *budget) acquire(ctx context.Context, n int64) (int64, error) {
	n = min(n, b.limit)
	if err := b.sem.Acquire(ctx, n); err != nil {
		return 0, err
	}
	b.used.Add(n)
	return n, nil
}

func (b *budget) release(n int64) {
	b.used.Add(-n)
	b.sem.Release(n)
}

// slab is one fetch response's memory. Batches are slices of it, and it lives
// until the last of them lets go.
type slab struct {
	budget   *budget
	reserved int64
	buf      []byte
	pooled   *[]byte
	refs     atomic.Int32
}

// slab returns an empty slab that holds a reservation and one reference.
func (b *budget) slab(reserved int64) *slab {
	s := &slab{budget: b, reserved: reserved}
	s.refs.Store(1)
	return s
}

// alloc is given to the connection, which knows the size of the response.
func (s *slab) alloc(n int) []byte {
	if n > slabSize {
		s.buf = make([]byte, n)
		return s.buf
	}
	p, ok := s.budget.pool.Get().(*[]byte)
	if !ok {
		buf := make([]byte, slabSize)
		p = &buf
	}
	s.pooled, s.buf = p, (*p)[:n]
	return s.buf
}

// shrink moves the contents of a nearly empty slab into memory of their own
// size, so that a trickle does not hold the budget. It returns the contents and
// must be called before anything refers to them.
func (s *slab) shrink(contents []byte) []byte {
	if s.pooled == nil || len(contents) > slabSize/16 {
		return contents
	}
	own := append([]byte(nil), contents...)
	s.budget.pool.Put(s.pooled)
	s.buf, s.pooled = own, nil
	if spare := s.reserved - int64(len(own)); spare > 0 {
		s.reserved -= spare
		s.budget.release(spare)
	}
	return own
}

func (s *slab) retain() { s.refs.Add(1) }

// drop lets go of one reference; the last one gives memory and budget back.
func (s *slab) drop() {
	if s == nil || s.refs.Add(-1) != 0 {
		return
	}
	if s.pooled != nil {
		s.budget.pool.Put(s.pooled)
	}
	s.buf, s.pooled = nil, nil
	s.budget.release(s.reserved)
}
