package mirror

import (
	"sync"
	"time"
)

const (
	// slabSize is how much one fetch asks for, and the size of the largest pooled
	// buffer. Larger ones cost more CPU per byte (cold cache), smaller ones more
	// wake-ups.
	slabSize = 2 << 20
	// smallestSlab is the size of the smallest pooled buffer; between the two, each
	// is twice as large as the one before.
	smallestSlab = 4 << 10
	slabClasses  = 10

	// laneBytes is how much may wait in one lane before its partition is left out
	// of the next fetch, so that a slow one never holds up others on its broker.
	// Where memory is short it is less.
	laneBytes = 4 << 20
	laneLeast = 64 << 10
)

// budget is a share in the memory that fetched batches may occupy in this
// instance: one flow's. All shares draw on one pot, and what one of them may
// take depends on what is left in it: a flow goes on fetching while it holds
// less than twice of what is free. So one flow alone may use most of the pot,
// and however many stand still with all that they may hold, some is left for
// the next. The last quarter is kept for partitions that are in step.
//
// A fetcher asks for room before it fetches; what the answer takes is charged
// when its size is known, and given back when the last batch of it has been
// acknowledged or dropped. So the limit may be passed by one answer of each
// fetcher, and a batch of any size passes.
type budget struct {
	pot  *pot
	used int64 // guarded by pot.mu
}

// pot is the memory of the instance.
type pot struct {
	limit int64

	mu    sync.Mutex // guards the fields below; nothing is locked while it is held
	used  int64
	freed chan struct{} // closed and replaced when some was given back; nil while nobody waits
	free  [slabClasses][]*slab
	kept  int64   // bytes in free
	spare []*slab // without a buffer
}

// keep is how much memory of slabs that are not used is kept for the next ones:
// as much as is in use, for what is given back now is wanted again at once, and
// a little when nothing is. Called with mu held.
func (p *pot) keep() int64 { return max(2*slabSize, p.limit/8, min(p.used, p.limit-p.used)) }

// trim lets go of the largest slabs that are kept beyond that. Called with mu held.
func (p *pot) trim() {
	for class := slabClasses - 1; class >= 0 && p.kept > p.keep(); class-- {
		for n := len(p.free[class]); n > 0 && p.kept > p.keep(); n-- {
			p.kept -= int64(cap(p.free[class][n-1].buf))
			p.free[class][n-1] = nil
			p.free[class] = p.free[class][:n-1]
		}
	}
}

// newBudget makes a pot of limit bytes, and a share in it.
func newBudget(limit int64) *budget { return &budget{pot: &pot{limit: max(limit, 4*slabSize)}} }

// share returns another share in the same pot.
func (b *budget) share() *budget { return &budget{pot: b.pot} }

// room says whether this share may fetch now; behind is for partitions that are
// far behind, which leave some to the others.
func (b *budget) room(behind bool) bool {
	b.pot.mu.Lock()
	defer b.pot.mu.Unlock()
	free := b.pot.limit - b.pot.used
	if behind {
		free -= b.pot.limit / 4
	}
	return b.used < 2*free || b.used < slabSize // what holds next to nothing always may
}

// changed is closed when something has been given back.
func (b *budget) changed() <-chan struct{} {
	b.pot.mu.Lock()
	defer b.pot.mu.Unlock()
	if b.pot.freed == nil {
		b.pot.freed = make(chan struct{})
	}
	return b.pot.freed
}

// lane is how much may wait in one lane at present.
func (b *budget) lane() int64 {
	b.pot.mu.Lock()
	defer b.pot.mu.Unlock()
	return min(laneBytes, max(laneLeast, (b.pot.limit-b.pot.used)/8))
}

// inUse is what this share holds at present, in bytes.
func (b *budget) inUse() int64 {
	b.pot.mu.Lock()
	defer b.pot.mu.Unlock()
	return b.used
}

// charge is called with pot.mu held.
func (b *budget) charge(n int64) {
	b.used += n
	b.pot.used += n
	if n < 0 && b.pot.freed != nil {
		close(b.pot.freed)
		b.pot.freed = nil
	}
}

// slab returns an empty slab that holds one reference.
func (b *budget) slab() *slab {
	b.pot.mu.Lock()
	defer b.pot.mu.Unlock()
	s := b.pot.bare()
	s.budget = b
	s.refs.Store(1)
	return s
}

// bare takes a slab without a buffer. Called with mu held.
func (p *pot) bare() *slab {
	if n := len(p.spare); n > 0 {
		s := p.spare[n-1]
		p.spare = p.spare[:n-1]
		return s
	}
	return &slab{}
}

// own charges a batch that has n bytes of its own.
func (b *budget) own(n int) *slab {
	s := b.slab()
	s.own, s.charged = true, int64(n)
	b.pot.mu.Lock()
	defer b.pot.mu.Unlock()
	b.charge(s.charged)
	return s
}

// give takes a buffer of at least n bytes from the pot; what it holds is
// arbitrary. It is nil where none of that size is pooled.
func (p *pot) give(n int) (buf []byte, class int8) {
	class = 0
	for size := smallestSlab; size < n; size *= 2 {
		class++
	}
	if class >= slabClasses {
		return nil, -1
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if free := p.free[class]; len(free) > 0 { // the one used last: it is the warmest
		s := free[len(free)-1]
		p.free[class] = free[:len(free)-1]
		p.kept -= int64(cap(s.buf))
		buf, s.buf = s.buf, nil
		p.spare = append(p.spare, s)
		return buf, class
	}
	return make([]byte, smallestSlab<<class), class
}

// back takes a slab that nothing refers to any more.
func (p *pot) back(s *slab) {
	b, buf, class := s.budget, s.buf, s.class
	p.mu.Lock()
	defer p.mu.Unlock()
	b.charge(-s.charged)
	s.reset()
	p.trim()
	if class >= 0 && buf != nil && p.kept+int64(cap(buf)) <= p.keep() {
		s.buf = buf[:cap(buf)]
		p.kept += int64(cap(buf))
		p.free[class] = append(p.free[class], s)
		return
	}
	if len(p.spare) < maxSpare {
		p.spare = append(p.spare, s)
	}
}

// maxSpare bounds the slabs without buffers that are kept.
const maxSpare = 1 << 12

// compactAfter is how old a slab is at least that is given up because little of
// it is still used.
const compactAfter = 250 * time.Millisecond
