package mirror

import (
	"kmirror/internal/wire"
)

const (
	// mergeBelow is the size of the batches that are merged: what a batch of its
	// own costs, here and at the target, is more than it costs to copy so much.
	mergeBelow = 16 << 10
	// mergeUpTo is how large they may become together.
	mergeUpTo = 112 << 10 // with what the new varints may take, it fits a pooled buffer
	// mergeMost is how many.
	mergeMost = 1 << 12
)

// merge makes one batch of those that wait from the i-th entry on, if that
// saves anything, and returns what is the i-th entry then. It is called when a
// request is being built: only what waits already is merged, nothing waits for
// more to come, and nothing that was ever sent is touched (a retry is the same
// batch). Sequences and their meaning stay as they are, so the ledger knows the
// merged batch as it knew the single ones. Called with mu held.
//
// What cannot be merged goes as it is: if it is corrupt, the target says so.
func (l *lane) merge(i int) *entry {
	head := l.queue.at(i)
	n, size := l.mergeable(i)
	if n-i < 2 {
		return head
	}
	from := make([]wire.Batch, 0, 64)
	e := entry{sequence: head.sequence, gate: head.gate}
	e.mode = modeMerge
	if head.batch.Codec() != wire.CodecNone {
		e.reason = reasonOpened
	}
	for j := i; j < n; j++ {
		x := l.queue.at(j)
		from = append(from, x.batch)
		for k := range x.pieces.len() {
			e.pieces.add(*x.pieces.at(k))
		}
		e.count += x.count
		e.sources += x.sources
		e.gate = max(e.gate, x.gate)
		e.anchored = e.anchored || x.anchored
	}
	own := head.slab.budget.slab()
	room := size + size/8 + wire.BatchHeaderSize // offsets and timestamps may take more than they did
	dst := own.alloc(room)
	b, err := wire.MergeBatches(dst[:0], from, l.numbered(e.sequence), l.inflate)
	if err != nil || l.maxBatch > 0 && b.Size() > l.maxBatch {
		own.drop()
		for j := i; j < n; j++ {
			l.queue.at(j).alone = true
		}
		return head
	}
	if &b[0] != &dst[0] { // it outgrew its room
		own.drop()
		own = head.slab.budget.own(b.Size())
	}
	own.own = true
	own.live.Store(int64(b.Size()))
	e.batch, e.slab = b, own
	l.bytes += int64(b.Size())
	for j := i; j < n; j++ {
		x := l.queue.at(j)
		gone := x.batch.Size()
		l.bytes -= int64(gone)
		x.slab.release(gone)
	}
	l.queue.join(i, n, e)
	return l.queue.at(i)
}

// mergeable says up to which entry those from the i-th on make one batch, and
// how many bytes they are. Called with mu held.
func (l *lane) mergeable(i int) (n, size int) {
	limit := mergeUpTo
	if l.maxBatch > 0 {
		limit = min(limit, l.maxBatch)
	}
	codec := l.queue.at(i).batch.Codec()
	for n = i; n < l.queue.len() && n-i < mergeMost; n++ {
		e := l.queue.at(n)
		own := e.batch.Size()
		if e.sent || e.alone || e.gate > l.opened || own > mergeBelow || own+size > limit || e.batch.Codec() != codec || !e.batch.Mergeable() {
			break
		}
		size += own
	}
	return n, size
}
