package storage

import (
	"errors"
	"fmt"
	"io"

	"kmirror/internal/wire"
)

var errFound = errors.New("found") // ends a walk

// OffsetForTime returns the first record below the high watermark whose
// timestamp is ts (Unix milliseconds) or later.
func (l *Log) OffsetForTime(ts int64) (offset, timestamp int64, found bool, err error) {
	err = l.whileStanding(func(segments []*segment) error {
		found = false
		for _, s := range segments {
			times, maxTime, _, err := s.timeIndex()
			if err != nil {
				return err
			}
			if maxTime < ts {
				continue
			}
			from := s.base
			for _, e := range times {
				if e.timestamp >= ts {
					break
				}
				from = s.base + int64(e.rel) + 1 // all up to here are earlier
			}
			offset, timestamp, found, err = l.firstAtOrAfter(s, max(from, l.Start()), ts)
			if err != nil || found {
				return err
			}
		}
		return nil
	})
	return offset, timestamp, found, err
}

// MaxTimestamp returns the largest timestamp below the high watermark and the
// first record that has it (KIP-734).
func (l *Log) MaxTimestamp() (offset, timestamp int64, found bool, err error) {
	err = l.whileStanding(func(segments []*segment) error {
		found = false
		timestamp = -1
		for _, s := range segments {
			_, maxTime, _, err := s.timeIndex()
			if err != nil {
				return err
			}
			timestamp = max(timestamp, maxTime)
		}
		for timestamp >= 0 && !found {
			for _, s := range segments {
				_, maxTime, maxRel, err := s.timeIndex()
				if err != nil {
					return err
				}
				if maxTime < timestamp {
					continue
				}
				from := l.Start()
				if maxTime == timestamp {
					from = max(from, s.base+int64(maxRel)) // the batch that brought it ends there
				}
				if offset, timestamp, found, err = l.firstAtOrAfter(s, from, timestamp); err != nil || found {
					return err
				}
			}
			// It stands above the high watermark or below the log start, which
			// is rare: look at every batch.
			offset, timestamp, found, err = l.scanMaxTimestamp(segments)
			return err
		}
		return nil
	})
	return offset, timestamp, found, err
}

// whileStanding runs fn on the segments, again when retention took one away
// meanwhile.
func (l *Log) whileStanding(fn func([]*segment) error) error {
	for {
		err := fn(*l.segments.Load())
		switch {
		case err == nil:
			return nil
		case errors.Is(err, errGone) && l.broken.Load() == nil:
			continue
		}
		if e := l.broken.Load(); e != nil {
			return e
		}
		return storageError(err, "look up a timestamp in %s", l.name)
	}
}

// visible is how far the high watermark lets readers look into s.
func (l *Log) visible(s *segment) int64 {
	switch _, base, pos := l.high.get(); {
	case s.base < base:
		return s.size.Load()
	case s.base == base:
		return pos
	default:
		return 0
	}
}

// firstAtOrAfter finds the first record of s at or after offset from with a
// timestamp of at least ts.
func (l *Log) firstAtOrAfter(s *segment, from, ts int64) (offset, timestamp int64, found bool, err error) {
	h, err := s.acquire()
	if err != nil {
		return 0, 0, false, err
	}
	defer h.release()
	w := &walker{buf: make([]byte, walkBytes)}
	bound := l.visible(s)
	pos, _, ok, err := s.find(w, h.file, from, bound)
	if err != nil || !ok {
		return 0, 0, false, err
	}
	err = w.eachHeader(pos, func(pos int64, header wire.Batch) error {
		if header.MaxTimestamp() < ts {
			return nil
		}
		b, err := readBatch(h.file, pos, header.Size())
		if err != nil {
			return err
		}
		if offset, timestamp, found, err = firstRecord(b, from, ts); err != nil || found {
			return errors.Join(err, errFound)
		}
		return nil
	})
	if found {
		return offset, timestamp, true, nil
	}
	return 0, 0, false, err
}

func readBatch(file io.ReaderAt, pos int64, size int) (wire.Batch, error) {
	b := make(wire.Batch, size)
	if _, err := file.ReadAt(b, pos); err != nil && !errors.Is(err, io.EOF) {
		return nil, err
	}
	if err := b.CheckCRC(); err != nil {
		return nil, fmt.Errorf("batch at position %d: %w", pos, err)
	}
	return b, nil
}

// firstRecord finds the first record of b at or after offset from with a
// timestamp of at least ts.
func firstRecord(b wire.Batch, from, ts int64) (offset, timestamp int64, found bool, err error) {
	err = b.EachRecord(defaultInflate, func(r wire.RawRecord) error {
		timestamp = b.BaseTimestamp() + r.TimestampDelta
		if b.IsLogAppendTime() {
			timestamp = b.MaxTimestamp()
		}
		if offset = b.BaseOffset() + int64(r.OffsetDelta); offset >= from && timestamp >= ts {
			found = true
			return errFound
		}
		return nil
	})
	if found {
		return offset, timestamp, true, nil
	}
	return 0, 0, false, err
}

// scanMaxTimestamp finds the largest timestamp by the headers of all batches
// between log start and high watermark.
func (l *Log) scanMaxTimestamp(segments []*segment) (offset, timestamp int64, found bool, err error) {
	timestamp = -1
	var in *segment
	var at int64
	start := l.Start()
	for _, s := range segments {
		h, err := s.acquire()
		if err != nil {
			return 0, 0, false, err
		}
		w := &walker{buf: make([]byte, walkBytes)}
		w.reset(h.file, l.visible(s))
		err = w.eachHeader(0, func(_ int64, header wire.Batch) error {
			if t := header.MaxTimestamp(); t > timestamp && header.LastOffset() >= start {
				timestamp, in, at = t, s, header.BaseOffset()
			}
			return nil
		})
		h.release()
		if err != nil {
			return 0, 0, false, err
		}
	}
	if in == nil {
		return 0, 0, false, nil
	}
	return l.firstAtOrAfter(in, max(at, start), timestamp)
}
