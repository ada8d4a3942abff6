package storage

import (
	"encoding/binary"
	"fmt"
	"sort"
	"sync/atomic"
)

// The offset index: for a batch now and then, the last offset of that batch
// relative to the segment's base, and where the batch begins.
//
//	0                 4          8
//	+-----------------+----------+
//	| relative offset | position |   ascending in both
//	+-----------------+----------+
const indexEntrySize = 8

type indexEntry struct{ rel, pos uint32 }

// sparseIndex is an offset index in memory. One writer appends while readers
// look up without a lock.
type sparseIndex struct {
	n       atomic.Int64 // entries published
	entries atomic.Pointer[[]indexEntry]
	hot     atomic.Bool
	of      *segment // set when cached
}

func newSparseIndex(entries []indexEntry) *sparseIndex {
	x := &sparseIndex{}
	if len(entries) > 0 {
		x.entries.Store(&entries)
		x.n.Store(int64(len(entries)))
	}
	return x
}

// append adds an entry above all others.
func (x *sparseIndex) append(e indexEntry) {
	n := x.n.Load()
	entries := x.entries.Load()
	if entries == nil || int(n) == len(*entries) {
		grown := make([]indexEntry, max(16, 2*n))
		if entries != nil {
			copy(grown, *entries)
		}
		entries = &grown
		x.entries.Store(entries)
	}
	(*entries)[n] = e
	x.n.Store(n + 1)
}

// all are the entries so far; the caller does not change them.
func (x *sparseIndex) all() []indexEntry {
	n := x.n.Load() // before entries: those only grow
	if n == 0 {
		return nil
	}
	return (*x.entries.Load())[:n]
}

func (x *sparseIndex) len() int { return int(x.n.Load()) }

// lookup is the last entry at or below the relative offset.
func (x *sparseIndex) lookup(rel uint32) (indexEntry, bool) {
	entries := x.all()
	i := sort.Search(len(entries), func(i int) bool { return entries[i].rel > rel })
	if i == 0 {
		return indexEntry{}, false
	}
	return entries[i-1], true
}

// boundary is the last batch start known at or before the position.
func (x *sparseIndex) boundary(pos int64) int64 {
	entries := x.all()
	i := sort.Search(len(entries), func(i int) bool { return int64(entries[i].pos) > pos })
	if i == 0 {
		return 0
	}
	return int64(entries[i-1].pos)
}

func (x *sparseIndex) weight() int64 { return int64(x.len()*indexEntrySize) + 256 }
func (x *sparseIndex) takeHot() bool { return x.hot.Swap(false) }
func (x *sparseIndex) dead() bool    { return x.of.index.Load() != x }

// drop forgets the index of a sealed segment; the active one's is never cached.
func (x *sparseIndex) drop() { x.of.index.CompareAndSwap(x, nil) }

func encodeIndex(entries []indexEntry) []byte {
	out := make([]byte, 0, len(entries)*indexEntrySize)
	for _, e := range entries {
		out = binary.BigEndian.AppendUint32(out, e.rel)
		out = binary.BigEndian.AppendUint32(out, e.pos)
	}
	return out
}

// decodeIndex reads an offset index of a segment of size bytes. Kafka leaves
// zeros at the end of an index after a crash; that and every other contradiction
// is an error, since the index can be rebuilt.
func decodeIndex(content []byte, size int64) ([]indexEntry, error) {
	if len(content)%indexEntrySize != 0 {
		return nil, fmt.Errorf("offset index of %d bytes", len(content))
	}
	entries := make([]indexEntry, len(content)/indexEntrySize)
	for i := range entries {
		e := indexEntry{
			rel: binary.BigEndian.Uint32(content[i*indexEntrySize:]),
			pos: binary.BigEndian.Uint32(content[i*indexEntrySize+4:]),
		}
		if int64(e.pos) >= size || i > 0 && (e.rel <= entries[i-1].rel || e.pos <= entries[i-1].pos) {
			return nil, fmt.Errorf("offset index: entry %d (%d at %d) contradicts the one before or the size %d", i, e.rel, e.pos, size)
		}
		entries[i] = e
	}
	return entries, nil
}

// The time index: the largest timestamp so far and the last offset of the batch
// that brought it, whenever the offset index gets an entry and at the end.
//
//	0           8                 12
//	+-----------+-----------------+
//	| timestamp | relative offset |   ascending in both
//	+-----------+-----------------+
const timeEntrySize = 12

type timeEntry struct {
	timestamp int64
	rel       uint32
}

func encodeTimes(entries []timeEntry) []byte {
	out := make([]byte, 0, len(entries)*timeEntrySize)
	for _, e := range entries {
		out = binary.BigEndian.AppendUint64(out, uint64(e.timestamp))
		out = binary.BigEndian.AppendUint32(out, e.rel)
	}
	return out
}

func decodeTimes(content []byte) ([]timeEntry, error) {
	if len(content)%timeEntrySize != 0 {
		return nil, fmt.Errorf("time index of %d bytes", len(content))
	}
	entries := make([]timeEntry, len(content)/timeEntrySize)
	for i := range entries {
		e := timeEntry{
			timestamp: int64(binary.BigEndian.Uint64(content[i*timeEntrySize:])),
			rel:       binary.BigEndian.Uint32(content[i*timeEntrySize+8:]),
		}
		if e.timestamp < 0 || i > 0 && (e.timestamp <= entries[i-1].timestamp || e.rel <= entries[i-1].rel) {
			return nil, fmt.Errorf("time index: entry %d (%d at %d) contradicts the one before", i, e.timestamp, e.rel)
		}
		entries[i] = e
	}
	return entries, nil
}
