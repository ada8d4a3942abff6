package mirror

import "sync"

// verdicts are what an operator decided about stopped partitions: that this
// once a stop is no reason to stop (accept), and that it is to be looked at now.
type verdicts struct {
	mu       sync.Mutex // guards the fields below
	accepted map[verdict]struct{}
	wakes    map[partitionID]chan struct{}
}

type verdict struct {
	id   partitionID
	kind string
}

func newVerdicts() *verdicts {
	return &verdicts{accepted: map[verdict]struct{}{}, wakes: map[partitionID]chan struct{}{}}
}

// accept notes a verdict (kind "" is none) and wakes the partition.
func (v *verdicts) accept(id partitionID, kind string) {
	v.mu.Lock()
	if kind != "" {
		v.accepted[verdict{id, kind}] = struct{}{}
	}
	v.mu.Unlock()
	poke(v.wake(id))
}

// wake is the channel on which a partition that does not flow is told to look
// again. It holds at most one signal.
func (v *verdicts) wake(id partitionID) chan struct{} {
	v.mu.Lock()
	defer v.mu.Unlock()
	c := v.wakes[id]
	if c == nil {
		c = make(chan struct{}, 1)
		v.wakes[id] = c
	}
	return c
}

// accepted says whether the operator accepted this kind of incident for the
// partition, and uses the acceptance up: it holds for one attempt.
func (f *flow) accepted(id partitionID, kind string) bool {
	v := f.verdicts
	v.mu.Lock()
	defer v.mu.Unlock()
	_, ok := v.accepted[verdict{id, kind}]
	delete(v.accepted, verdict{id, kind})
	return ok
}

// woken is signalled when the operator wants the partition looked at now; a
// tenure that backs off waits for it too.
func (f *flow) woken(id partitionID) <-chan struct{} { return f.verdicts.wake(id) }
