package storage

import (
	"errors"
	"math"
	"sort"

	"github.com/twmb/franz-go/pkg/kerr"
)

// ToEnd as the upper bound of Read means up to the end of the log, beyond the
// high watermark: what followers read.
const ToEnd = math.MaxInt64

// Read returns the batches from the one that holds offset on, up to upTo
// (exclusive; the high watermark for consumers) and to about maxBytes. The
// first batch may begin before offset. With minOne it is whole even when it is
// larger than maxBytes; otherwise the Slice is then empty. One Slice never
// spans two segments. At or above upTo the Slice is empty; below Start or above
// End the error is an *Error with OFFSET_OUT_OF_RANGE.
//
// Read takes no lock.
func (l *Log) Read(offset int64, maxBytes int, minOne bool, upTo int64) (Slice, error) {
	for {
		slice, err := l.read(offset, maxBytes, minOne, upTo)
		if errors.Is(err, errGone) && l.broken.Load() == nil {
			continue // retention was quicker; the log start has moved by now
		}
		if err == nil {
			return slice, nil
		}
		if refusal, ok := errors.AsType[*Error](err); ok {
			return Slice{}, refusal
		}
		if e := l.broken.Load(); e != nil {
			return Slice{}, e
		}
		return Slice{}, storageError(err, "read %s at %d", l.name, offset)
	}
}

func (l *Log) read(offset int64, maxBytes int, minOne bool, upTo int64) (Slice, error) {
	limit, limitBase, limitPos := l.end.get()
	if start := l.start.Load(); offset < start || offset > limit {
		return Slice{}, refuse(kerr.OffsetOutOfRange, "%s has offsets %d to %d, not %d", l.name, start, limit, offset)
	}
	if upTo < limit {
		limit = upTo
		if high, base, pos := l.high.get(); high == upTo {
			limitBase, limitPos = base, pos
		} else {
			limitPos = -1 // to be found
		}
	}
	if offset >= limit {
		return Slice{}, nil
	}
	w := l.store.walkers.Get().(*walker)
	defer func() {
		w.file = nil
		l.store.walkers.Put(w)
	}()
	segments := *l.segments.Load()
	first := max(sort.Search(len(segments), func(i int) bool { return segments[i].base > offset })-1, 0)
	for _, s := range segments[first:] {
		if s.base >= limit {
			break
		}
		slice, ok, err := l.readSegment(w, s, offset, maxBytes, minOne, limit, limitBase, limitPos)
		if err != nil || ok {
			return slice, err
		}
	}
	return Slice{}, nil
}

func (l *Log) readSegment(w *walker, s *segment, offset int64, maxBytes int, minOne bool, limit, limitBase, limitPos int64) (slice Slice, ok bool, err error) {
	h, err := s.acquire()
	if err != nil {
		return Slice{}, false, err
	}
	defer func() {
		if slice.handle == nil {
			h.release()
		}
	}()
	bound := s.size.Load()
	switch {
	case limitPos < 0:
		pos, _, found, err := s.find(w, h.file, limit, bound)
		if err != nil {
			return Slice{}, false, err
		}
		if found {
			bound = pos
		}
	case s.base == limitBase:
		bound = limitPos
	}
	pos, header, found, err := s.find(w, h.file, offset, bound)
	if err != nil || !found {
		return Slice{}, false, err
	}
	size := header.Size()
	slice = Slice{Pos: pos, FirstOffset: header.BaseOffset(), FirstSize: size, copies: l.store.copies}
	room := bound - pos
	switch {
	case room <= int64(maxBytes):
		slice.Len = int(room)
	case maxBytes >= size:
		slice.Len = maxBytes
		// A cut at a batch start that is known saves sending a torn batch.
		if x := s.index.Load(); x != nil {
			if cut := x.boundary(pos + int64(maxBytes)); cut >= pos+int64(size) {
				slice.Len = int(cut - pos)
			}
		}
	case minOne:
		slice.Len = size
	default:
		return Slice{}, true, nil
	}
	slice.handle = h
	return slice, true, nil
}
