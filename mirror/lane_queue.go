package mirror

// entry is one batch in a lane. From its first sending until it is resolved its
// bytes do not change: a retry is the same batch.
type entry struct {
	prepared
	slab     *slab // what the bytes belong to
	sequence int32
	sources  int32  // how many of the source's batches it is made of
	gate     uint64 // sendable once the ledger has acknowledged up to this gate
	anchored bool   // the ledger has a step for it, so it may not be read and numbered anew in this epoch
	sent     bool   // at least once: the target may have it, so its bytes stay as they are
	sentAt   int64  // when first, by the wall clock, in milliseconds
	doubtful bool   // sent, and nobody knows what became of it: a copy may still be on its way
	alone    bool   // is not merged
}

// entries is a queue that keeps its memory while it is in use.
type entries struct {
	buf  []entry
	head int // entries before it are gone
}

func (q *entries) len() int { return len(q.buf) - q.head }

func (q *entries) at(i int) *entry { return &q.buf[q.head+i] }

func (q *entries) push(e entry) {
	if q.head > len(q.buf)/2 && len(q.buf) == cap(q.buf) {
		n := copy(q.buf, q.buf[q.head:])
		clear(q.buf[n:])
		q.buf, q.head = q.buf[:n], 0
	}
	q.buf = append(q.buf, e)
}

func (q *entries) pop() {
	q.buf[q.head] = entry{}
	q.head++
	q.settle()
}

// cut drops what comes from the n-th on.
func (q *entries) cut(n int) {
	clear(q.buf[q.head+n:])
	q.buf = q.buf[:q.head+n]
	q.settle()
}

// join puts e in the place of the entries from the i-th up to the n-th; there
// are few before the i-th.
func (q *entries) join(i, n int, e entry) {
	gap := n - i - 1
	copy(q.buf[q.head+gap:], q.buf[q.head:q.head+i])
	clear(q.buf[q.head : q.head+gap])
	q.head += gap
	*q.at(i) = e
}

// settle starts again at the front of the memory once the queue is empty, and
// lets go of much of it.
func (q *entries) settle() {
	if q.len() > 0 {
		return
	}
	if q.buf, q.head = q.buf[:0], 0; cap(q.buf) > keptEntries {
		q.buf = nil
	}
}

// keptEntries is how large a queue may stay while it is empty.
const keptEntries = 32
