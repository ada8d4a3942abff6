package wire

// callQueue is a first-in-first-out queue of calls.
// Invariant: ring is empty or a power of two long; count <= len(ring).
type callQueue struct {
	ring  []*Call
	first int
	count int
}

func (q *callQueue) len() int { return q.count }

func (q *callQueue) push(call *Call) {
	if q.count == len(q.ring) {
		grown := make([]*Call, max(8, 2*len(q.ring)))
		for i := range q.count {
			grown[i] = q.ring[(q.first+i)&(len(q.ring)-1)]
		}
		q.ring, q.first = grown, 0
	}
	q.ring[(q.first+q.count)&(len(q.ring)-1)] = call
	q.count++
}

// front is the oldest call, nil when there is none.
func (q *callQueue) front() *Call {
	if q.count == 0 {
		return nil
	}
	return q.ring[q.first]
}

func (q *callQueue) pop() {
	q.ring[q.first] = nil
	q.first = (q.first + 1) & (len(q.ring) - 1)
	q.count--
}

// drain empties the queue and returns what it held, oldest first.
func (q *callQueue) drain() []*Call {
	var calls []*Call
	for q.count > 0 {
		calls = append(calls, q.front())
		q.pop()
	}
	return calls
}
