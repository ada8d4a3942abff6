package mirror

import (
	"context"
	"sync"
	"sync/atomic"
)

// slabSize is how much one fetch asks for, and the size of a pooled buffer.
// Larger ones cost more CPU per byte (cold cache), smaller ones more wake-ups.
const slabSize = 2 << 20

// budget bounds the bytes that fetched batches of one flow may occupy. A
// fetcher waits for room before it asks; what the answer takes is charged when
// its size is known, and given back when the last batch of it has been
// acknowledged or dropped. So the limit may be passed by one answer of each
// fetcher, and a batch of any size passes.
type budget struct {
	limit int64
	pool  sync.Pool // of *[]byte, each slabSize long

	mu    sync.Mutex // guards the fields below
	used  int64
	freed chan struct{} // closed and replaced when there is room again
}

func newBudget(limit int64) *budget {
	return &budget{limit: max(limit, 2*slabSize), freed: make(chan struct{})}
}

// room waits until there is some.
func (b *budget) room(ctx context.Context) error {
	for {
		b.mu.Lock()
		free, freed := b.used < b.limit, b.freed
		b.mu.Unlock()
		if free {
			return nil
		}
		select {
		case <-freed:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

func (b *budget) charge(n int64) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.used += n
}

func (b *budget) release(n int64) {
	b.mu.Lock()
	defer b.mu.Unlock()
	was := b.used >= b.limit
	b.used -= n
	if was && b.used < b.limit {
		close(b.freed)
		b.freed = make(chan struct{})
	}
}

// inUse is what is charged at present, in bytes.
func (b *budget) inUse() int64 {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.used
}

// slab is the memory of one fetch response, or of one batch. Batches are slices
// of it, and it lives until the last of them lets go.
type slab struct {
	budget *budget
	own    bool // of one batch
	refs   atomic.Int32

	mu      sync.Mutex // guards the fields below
	charged int64
	pooled  *[]byte
	lost    bool // a connection that has failed may still write into it
}

// slab returns an empty slab that holds one reference.
func (b *budget) slab() *slab {
	s := &slab{budget: b}
	s.refs.Store(1)
	return s
}

// own charges a batch that has n bytes of its own.
func (b *budget) own(n int) *slab {
	s := &slab{budget: b, own: true, charged: int64(n)}
	s.refs.Store(1)
	b.charge(s.charged)
	return s
}

// alloc is given to the connection, which knows the size of the response.
func (s *slab) alloc(n int) []byte {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.lost {
		return make([]byte, n)
	}
	s.charged = int64(max(n, slabSize))
	s.budget.charge(s.charged)
	if n > slabSize {
		return make([]byte, n)
	}
	p, ok := s.budget.pool.Get().(*[]byte)
	if !ok {
		buf := make([]byte, slabSize)
		p = &buf
	}
	s.pooled = p
	return (*p)[:n]
}

// lose says that the call has failed: whoever was to fill the slab may still be
// at it, so its memory is left to the collector.
func (s *slab) lose() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.lost, s.pooled = true, nil
}

// shrink moves the contents of a nearly empty slab into memory of their own
// size, so that a trickle does not hold the budget. It returns the contents and
// must be called before anything refers to them.
func (s *slab) shrink(contents []byte) []byte {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.pooled == nil || len(contents) > slabSize/16 {
		return contents
	}
	own := append([]byte(nil), contents...)
	s.budget.pool.Put(s.pooled)
	s.budget.release(s.charged - int64(len(own)))
	s.pooled, s.charged = nil, int64(len(own))
	return own
}

func (s *slab) retain() { s.refs.Add(1) }

// drop lets go of one reference; the last one gives memory and budget back.
func (s *slab) drop() {
	if s.refs.Add(-1) != 0 {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.pooled != nil {
		s.budget.pool.Put(s.pooled)
	}
	s.budget.release(s.charged)
	s.pooled, s.charged = nil, 0
}
