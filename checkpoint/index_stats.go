package checkpoint

import (
	"slices"
	"sync"
	"unsafe"
)

// MapStats says how much an Index holds and has read.
type MapStats struct {
	Partitions int        // mirrored partitions with a map, of every incarnation
	Runs       int        // that their maps hold
	Memory     int64      // bytes that they take, about
	Records    int64      // of MapTopic that were read, those that others replaced since among them
	Skipped    int64      // of these, corrupt or foreign ones
	Faults     []MapFault // the first few of those
}

// MapFault is a record of MapTopic that could not be used.
type MapFault struct {
	Partition int32 // of MapTopic
	Offset    int64
	Reason    string
}

// Stats returns what is held and what was read so far.
func (x *Index) Stats() MapStats {
	s := MapStats{Records: x.records.Load()}
	s.Skipped, s.Faults = x.faults.all()
	x.mu.RLock()
	parts := make([]*part, 0, len(x.parts))
	for _, p := range x.parts {
		parts = append(parts, p)
	}
	x.mu.RUnlock()
	s.Partitions = len(parts)
	for _, p := range parts {
		runs, memory := p.size()
		s.Runs += runs
		s.Memory += memory
	}
	return s
}

// size returns how many runs p holds and about how many bytes it takes, with
// its place in the index.
func (p *part) size() (runs int, memory int64) {
	const place = 2 * (unsafe.Sizeof(Key{}) + unsafe.Sizeof(p))
	p.read(func(r *Runs) {
		runs = r.Len()
		memory = int64(place + unsafe.Sizeof(*p) + uintptr(cap(r.chunks))*unsafe.Sizeof(chunk{}))
		for _, c := range r.chunks {
			memory += int64(uintptr(cap(c.runs)) * unsafe.Sizeof(Run{}))
		}
	})
	return runs, memory
}

// maxFaults bounds how many faults are remembered.
const maxFaults = 8

// faultList counts records that could not be used, and remembers the first few.
type faultList struct {
	mu    sync.Mutex // guards the fields below
	count int64
	first []MapFault
}

// add says whether the fault is among the first few.
func (l *faultList) add(f MapFault) (first bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.count++
	if first = len(l.first) < maxFaults; first {
		l.first = append(l.first, f)
	}
	return first
}

func (l *faultList) all() (count int64, first []MapFault) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.count, slices.Clone(l.first)
}
