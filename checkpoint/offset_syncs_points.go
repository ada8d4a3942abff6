package checkpoint

import (
	"encoding/binary"
	"hash/fnv"
	"slices"
)

// offsetLagMax is MirrorMaker 2's default of offset.lag.max: a partition that
// moved on by so many target offsets gets a sync at once.
const offsetLagMax = 100

// syncPoint says that the source record at up stands at down, or, where no
// record is meant, that nothing is skipped by whoever translates by it.
type syncPoint struct{ up, down int64 }

// MirrorMaker 2's OffsetSyncStore answers for an offset g by the newest sync
// whose up is at most g: down if it is equal, else down+1. A sync is therefore
// safe if it names a record where it stands, for as long as the map holds:
// everything behind the record stands behind down. What the store keeps of
// older syncs gets sparser with their distance, by powers of two; so it is
// enough to write them in that way, and a store loses nothing by it.
//
// When the map no longer holds (the target lost its tail or was made anew),
// older syncs would skip records. The store forgets them when it sees a sync
// that begins before the newest one, so that is what comes first.

// syncPoints returns what to write about a partition after a point that was
// written, in ascending order: its newest record, and records 100, 200, 400 ...
// offsets before it. Without a point before it (or where anew says that what was
// written no longer holds) its first record is among them, and the first point
// lies before the one that was written, if there was one.
func syncPoints(r *Runs, last syncPoint, written, anew bool) []syncPoint {
	end, endTarget, ok := r.End()
	if !ok {
		return nil
	}
	after := last.up
	if !written || anew {
		after = -1
	}
	var points []syncPoint
	for distance := int64(0); distance < end; distance = max(offsetLagMax, 2*distance) {
		t := r.Forward(end - 1 - distance)
		if t.Before {
			break
		}
		p, ok := recordAt(r, t)
		if ok && p.up <= after {
			break
		}
		if ok && (len(points) == 0 || p.up < points[len(points)-1].up) {
			points = append(points, p)
		}
	}
	if after < 0 {
		if p, ok := recordAt(r, r.Forward(0)); ok && (len(points) == 0 || p.up < points[len(points)-1].up) {
			points = append(points, p)
		}
	}
	slices.Reverse(points)
	switch {
	case !written || !anew:
		return points
	case len(points) == 0: // nothing is mirrored now: all that comes stands at the end or behind it
		return []syncPoint{{up: last.up - 1, down: endTarget - 1}}
	case points[0].up >= last.up: // before the first record there is nothing to skip
		return slices.Insert(points, 0, syncPoint{up: last.up - 1, down: points[0].down - 1})
	default:
		return points
	}
}

// recordAt returns the record at the place that an offset was translated to,
// or, where the map knows of none there, the last one before it that it knows.
func recordAt(r *Runs, t Translation) (p syncPoint, ok bool) {
	if t.Exact || t.Before {
		if p, ok = record(r, t.Offset); ok {
			return p, true
		}
	}
	return record(r, t.Offset-1)
}

// record returns the record of the source that stands at a target offset. An
// exact place is not enough: where a loose run ends there may be none, and who
// translates by it would go on behind it.
func record(r *Runs, down int64) (p syncPoint, ok bool) {
	if down < 0 {
		return p, false
	}
	p = syncPoint{up: r.Backward(down).Offset, down: down}
	return p, r.Forward(p.up).Offset == down && p.holds(r)
}

// holds reports whether a point skips nothing by the map as it is now.
func (p syncPoint) holds(r *Runs) bool {
	end, endTarget, ok := r.End()
	if !ok || p.up >= end || p.down >= endTarget {
		return false
	}
	return p.down <= r.Forward(p.up).Offset && p.down < r.Forward(p.up+1).Offset
}

// syncOrigin names the map that a sync follows from: its two topics and its
// generation. It stands in a header, so that a next writer knows whether what
// was written still holds; MirrorMaker 2's readers pass it over.
//
//	| version = 1 | FNV-1a of source topic id, target topic id, generation: 8 bytes |
const syncHeader = "kmirror.map"

const (
	syncHeaderVersion = 1
	originNothing     = 0 // the map holds no record
)

// nothingMirrored reports whether a map only says where it will begin.
func nothingMirrored(r *Runs) bool {
	empty := true
	r.All(func(Run) bool { empty = false; return false })
	return empty
}

func syncOrigin(k Key, r *Runs) uint64 {
	h := fnv.New64a()
	_, _ = h.Write(k.TopicID[:]) // a hash never fails
	_, _ = h.Write(r.TargetID[:])
	_, _ = h.Write(binary.BigEndian.AppendUint32(nil, r.generation))
	return h.Sum64()
}

func appendOrigin(origin uint64) []byte {
	return binary.BigEndian.AppendUint64([]byte{syncHeaderVersion}, origin)
}

func readOrigin(value []byte) (origin uint64, ok bool) {
	if len(value) < 9 || value[0] != syncHeaderVersion {
		return 0, false
	}
	return binary.BigEndian.Uint64(value[1:]), true
}
