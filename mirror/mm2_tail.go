package mirror

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"

	"kmirror/internal/mm2"
	"kmirror/internal/wire"
)

// What is read of a partition's two logs to find where MirrorMaker 2 stopped. Beyond
// it, the operator decides.
const (
	mm2TailRecords = 400_000
	mm2TailBytes   = 256 << 20
)

// tailLimitError says that more would have to be compared than is.
type tailLimitError struct{ what string }

func (e *tailLimitError) Error() string {
	return fmt.Sprintf("more than %d records or %d MiB of %s would have to be compared", mm2TailRecords, mm2TailBytes>>20, e.what)
}

// undecidedError says that a log ends with a transaction that is neither committed nor
// aborted yet.
type undecidedError struct{ at int64 }

func (e *undecidedError) Error() string {
	return fmt.Sprintf("a transaction that began at %d is neither committed nor aborted yet", e.at)
}

// logReader reads one partition with what became of its transactions.
type logReader struct {
	from      partitionReader
	topic     string
	partition int32
	// undecided: records of transactions that are not decided yet are taken for aborted
	// ones; else they are an *undecidedError.
	undecided bool
}

// read calls fn with the fingerprint of every record in [offset, end), in order, until
// it returns false. Markers are left out.
func (r *logReader) read(ctx context.Context, offset, end int64, fn func(mm2.Record) bool) error {
	f, bytes := fetches{from: r.from, topic: r.topic, partition: r.partition, committed: true}, 0
	for offset < end {
		res, err := f.next(ctx, offset)
		if err != nil {
			return err
		}
		if bytes += len(res.Records); bytes > mm2TailBytes {
			return &tailLimitError{fmt.Sprintf("%s/%d", r.topic, r.partition)}
		}
		aborted := make([]abortedTxn, 0, len(res.Aborted))
		for _, a := range res.Aborted {
			aborted = append(aborted, abortedTxn{a.ProducerID, a.FirstOffset})
		}
		next, more, err := r.take(res.Records, offset, end, aborted, f.committed, fn)
		if err != nil || !more {
			return err
		}
		if next > offset {
			offset = next
			continue
		}
		again, err := f.again(res, offset)
		switch {
		case err != nil:
			return err
		case again:
		case f.committed && res.LastStable >= 0 && res.LastStable < min(end, res.HighWatermark):
			if !r.undecided {
				return &undecidedError{res.LastStable}
			}
			f.committed = false
		default:
			return nil // nothing up to the end: compaction or markers took it
		}
	}
	return nil
}

// take hands over the records of raw batches and says where the next fetch begins.
func (r *logReader) take(raw []byte, offset, end int64, aborted []abortedTxn, committed bool, fn func(mm2.Record) bool) (next int64, more bool, err error) {
	slices.SortFunc(aborted, func(a, b abortedTxn) int { return cmp.Compare(a.first, b.first) })
	open, next := map[int64]bool{}, offset
	fail := func(err error) (int64, bool, error) {
		return next, false, fmt.Errorf("read %s/%d at %d: %w", r.topic, r.partition, next, err)
	}
	give := func(records []wire.Record, dropped, stamped bool) bool {
		for i := range records {
			if x := &records[i]; x.Offset >= offset && x.Offset < end && !fn(fingerprint(x, dropped, stamped)) {
				return false
			}
		}
		return true
	}
	for len(raw) > 0 {
		b, rest, err := wire.NextBatch(raw)
		switch {
		case errors.Is(err, wire.ErrPartialBatch):
			return next, true, nil
		case errors.Is(err, wire.ErrLegacyMagic):
			old, stamped, rest, err := wire.DecodeLegacy(raw, inflateLimit)
			if err != nil {
				return fail(err)
			}
			if len(old) == 0 {
				return next, true, nil
			}
			if !give(old, false, stamped) {
				return next, false, nil
			}
			next, raw = old[len(old)-1].Offset+1, rest
			continue
		case err != nil:
			return fail(err)
		}
		raw = rest
		if b.LastOffset() < offset {
			continue
		}
		for len(aborted) > 0 && aborted[0].first <= b.LastOffset() {
			open[aborted[0].producer] = true
			aborted = aborted[1:]
		}
		switch {
		case b.IsControl():
			if abort, err := isAbortMarker(b, inflateLimit); err != nil {
				return fail(err)
			} else if abort {
				delete(open, b.ProducerID())
			}
		case b.NumRecords() > 0:
			if err := b.CheckCRC(); err != nil {
				return fail(err)
			}
			records, err := b.Records(inflateLimit)
			if err != nil {
				return fail(err)
			}
			dropped := b.IsTransactional() && (open[b.ProducerID()] || !committed)
			if !give(records, dropped, b.IsLogAppendTime()) {
				return next, false, nil
			}
		}
		next = b.LastOffset() + 1
	}
	return next, true, nil
}

// fingerprint is what is compared of a record.
func fingerprint(x *wire.Record, aborted, stamped bool) mm2.Record {
	headers := make([][]byte, 0, 2*len(x.Headers))
	for _, h := range x.Headers {
		headers = append(headers, []byte(h.Key), h.Value)
	}
	return mm2.Record{Offset: x.Offset, Content: mm2.Fingerprint(x.Key, x.Value, headers...), Time: x.Timestamp, Aborted: aborted, Stamped: stamped}
}

// target reads the records of the target that count, from an offset to an end.
func (r *logReader) target(ctx context.Context, offset, end int64) (records []mm2.Record, err error) {
	err = r.read(ctx, offset, end, func(x mm2.Record) bool {
		if !x.Aborted {
			records = append(records, x)
		}
		return len(records) <= mm2TailRecords
	})
	if err == nil && len(records) > mm2TailRecords {
		err = &tailLimitError{fmt.Sprintf("%s/%d", r.topic, r.partition)}
	}
	return records, err
}

// source reads the records of the source from an offset on: at least all up to past,
// and then as many committed ones as can have been copied.
func (r *logReader) source(ctx context.Context, offset, past int64, copied int) (records []mm2.Record, err error) {
	end, err := r.from.ListOffset(ctx, r.topic, r.partition, atLatest)
	if err != nil {
		return nil, fmt.Errorf("read the end of %s/%d: %w", r.topic, r.partition, err)
	}
	behind := 0
	err = r.read(ctx, offset, end, func(x mm2.Record) bool {
		records = append(records, x)
		x.Stamped = false
		if x.Offset > past && !x.Aborted {
			behind++
		}
		return behind <= copied && len(records) <= mm2TailRecords
	})
	if err == nil && len(records) > mm2TailRecords {
		err = &tailLimitError{fmt.Sprintf("%s/%d", r.topic, r.partition)}
	}
	return records, err
}
