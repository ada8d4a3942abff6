package mirror

import (
	"time"

	"kmirror/internal/wire"
)

// sending is one lane's batch in a request.
type sending struct {
	at    *appending
	entry entry
	done  bool // answered
}

// produced is a request in flight and the lanes whose batches it carries, in
// the order of the request.
type produced struct {
	call    *wire.Call
	version int16
	lanes   []sending
	sent    time.Time
}

// flight are the requests in flight, oldest first, in memory that is used again.
type flight struct {
	ring  [inFlight]produced
	first int
	count int
}

// next is the place of the next request; it counts once push is called.
func (f *flight) next() *produced { return &f.ring[(f.first+f.count)%inFlight] }

func (f *flight) push() { f.count++ }

func (f *flight) full() bool { return f.count == inFlight }

func (f *flight) oldest() *produced { return &f.ring[f.first] }

func (f *flight) pop() {
	f.oldest().clear()
	f.first = (f.first + 1) % inFlight
	f.count--
}

func (p *produced) clear() {
	clear(p.lanes)
	p.lanes = p.lanes[:0]
}

// drain empties the flight and returns what was in it.
func (f *flight) drain() []produced {
	var all []produced
	for f.count > 0 {
		p := *f.oldest()
		*f.oldest() = produced{call: p.call}
		all = append(all, p)
		f.first = (f.first + 1) % inFlight
		f.count--
	}
	return all
}
