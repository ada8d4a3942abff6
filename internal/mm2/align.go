package mm2

import (
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
)

// MirrorMaker 2 stores the offset of the last source record that the target has
// acknowledged, every 60 seconds and when it is stopped in order. After a kill the
// target holds more. How much more is found by laying the end of the target's log
// against the source.
//
// What is taken for granted, by the way in which Connect works:
//
//  1. An attempt (one life of a task) reads the source from the stored position + 1 on
//     and appends in that order: its part of the target's log is a stretch of the
//     source, without holes.
//  2. Stored positions only grow. So every attempt began at or before Stored + 1, and
//     everything up to Stored is in the target.
//
// Hence the target's log is a row of such stretches, and the next record to copy is
// the one behind the furthest that any of them reached.
//
//   - straight: the target's records from an anchor to the end are, one for one, the
//     source's from the anchor on. Then the target holds precisely what stands between
//     them, whatever attempts made it so: the next record is the one behind. This holds
//     for records that are all alike too; they are counted from the anchor. The anchor
//     is a record known to be the copy of a source record (the newest offset sync), or,
//     without one, any place at or before Stored + 1, if all that fit lead to one end.
//   - rows: else every way to cut the target's records into stretches is followed, all
//     at once. If all of them reach equally far, that is proven. If not (records alike
//     on both sides of a cut), the answer is *AmbiguousError.
//   - neither: *MismatchError. The records were changed on their way (transforms), or
//     somebody else wrote, or one of the topics is not the one that was copied.
//
// By default MirrorMaker 2 reads uncommitted records, so it copies aborted ones too;
// with isolation.level=read_committed it does not. Both are tried, and must lead to
// the same place.

// Record is what is compared of a record.
type Record struct {
	Offset  int64
	Content [16]byte // of key, value and headers
	Time    int64    // milliseconds; below 0: none
	// Aborted: of a source record, in a transaction that was aborted.
	Aborted bool
	// Stamped: of a target record, its time is the target's own
	// (message.timestamp.type=LogAppendTime) and proves nothing.
	Stamped bool
}

// Fingerprint is the Content of a record. Headers are given by turns: key, value, key,
// value; nil is not the same as empty.
func Fingerprint(key, value []byte, headers ...[]byte) [16]byte {
	h := sha256.New()
	var size [9]byte
	part := func(b []byte) {
		size[0] = 1
		if b == nil {
			size[0] = 0
		}
		binary.BigEndian.PutUint64(size[1:], uint64(len(b)))
		_, _ = h.Write(size[:]) // a hash never fails
		_, _ = h.Write(b)
	}
	part(key)
	part(value)
	for _, b := range headers {
		part(b)
	}
	return [16]byte(h.Sum(nil))
}

// copies says whether the target record may be a copy of the source record.
// Where the source has no time, the producer took the clock's.
func (r *Record) copies(source *Record) bool {
	return r.Content == source.Content && (r.Stamped || source.Time < 0 || r.Time == source.Time)
}

// Copies says whether a target record may be a copy of a source record.
func (r *Record) Copies(source Record) bool { return r.copies(&source) }

// Tail is the end of both logs.
type Tail struct {
	Source []Record // ascending, as far as it can have been copied; markers left out
	Target []Record // ascending, to the end of the log; not empty
	Stored int64    // the last offset that MirrorMaker 2 stored
	// Anchor is the index in Source of the record that Target[0] is a copy of; -1
	// when that is not known.
	Anchor int
}

// Place is where MirrorMaker 2's copy ends.
type Place struct {
	// Next is the source offset behind the last one copied.
	Next int64
	// Pairs are source offsets and where they stand in the target, ascending on both
	// sides: all that were compared where the copy is straight, else the last one.
	Pairs []Pair
	// Again counts the target's records that stand there twice: MirrorMaker 2 had
	// copied them once more after it was killed.
	Again int64
}

// Pair is a source record's offset, and that of a copy of it.
type Pair struct{ Source, Target int64 }

// MismatchError says that the target's records are no copy of the source's.
type MismatchError struct {
	Target int64 // offset of the first record that fits nothing
	First  bool  // it is the first one that was looked at: it may be a copy of an older one
	What   string
}

func (e *MismatchError) Error() string { return fmt.Sprintf("target offset %d: %s", e.Target, e.What) }

// AmbiguousError says that records are alike, so that the place cannot be told.
type AmbiguousError struct {
	Lowest, Highest int64 // source offsets: the next record is at one of them, or between; Lowest is behind the stored position
}

func (e *AmbiguousError) Error() string {
	return fmt.Sprintf("records are alike: the copy may end before source offset %d, or before %d", e.Lowest, e.Highest)
}

// maxWork bounds the steps of Align.
const maxWork = 20_000_000

// Align finds where the copy ends. Its errors are *MismatchError and *AmbiguousError.
func Align(t Tail) (Place, error) {
	place, err := align(t)
	var alike *AmbiguousError
	if errors.As(err, &alike) && t.unread(alike.Lowest) == t.unread(alike.Highest) { // nothing that counts lies between
		return Place{Next: alike.Lowest}, nil
	}
	if alike != nil {
		alike.Lowest = t.Stored + 1 // so much is sure, whatever the history was
	}
	return place, err
}

func align(t Tail) (Place, error) {
	all := newAlignment(t, true)
	place, err := all.place()
	if !all.some {
		return place, err
	}
	other, otherErr := newAlignment(t, false).place()
	var none *MismatchError
	switch {
	case errors.As(err, &none) && otherErr == nil:
		return other, nil
	case err == nil && errors.As(otherErr, &none):
		return place, nil
	case err != nil || otherErr != nil:
		return Place{}, worse(place, other, err, otherErr)
	case t.unread(place.Next) != t.unread(other.Next):
		return Place{}, &AmbiguousError{Lowest: min(place.Next, other.Next), Highest: max(place.Next, other.Next)}
	case other.Next < place.Next:
		return other, nil
	}
	return place, nil
}

// worse is the error of two views of which at least one fits nothing, or fits in
// several ways.
func worse(a, b Place, errA, errB error) error {
	var lowest, highest int64
	alike := false
	for _, view := range []struct {
		place Place
		err   error
	}{{a, errA}, {b, errB}} {
		low, high := view.place.Next, view.place.Next
		var x *AmbiguousError
		switch {
		case errors.As(view.err, &x):
			low, high = x.Lowest, x.Highest
		case view.err != nil:
			continue
		}
		if !alike {
			lowest, highest, alike = low, high, true
		}
		lowest, highest = min(lowest, low), max(highest, high)
	}
	if alike {
		return &AmbiguousError{Lowest: lowest, Highest: highest}
	}
	var x, y *MismatchError
	if errors.As(errA, &x) && errors.As(errB, &y) && y.Target > x.Target {
		return y
	}
	return errA
}

// unread counts the committed records at or behind an offset.
func (t Tail) unread(next int64) int {
	n := 0
	for i := len(t.Source) - 1; i >= 0 && t.Source[i].Offset >= next; i-- {
		if !t.Source[i].Aborted {
			n++
		}
	}
	return n
}
