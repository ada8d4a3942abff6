package verify

import (
	"cmp"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"

	"kmirror/internal/kafka"
	"kmirror/internal/wire"
)

// piece is one batch of a log, or messages from before batches.
type piece struct {
	batch   wire.Batch    // nil: messages of format 0 or 1
	records []wire.Record // these messages
	first   int64         // offset
	last    int64         // offset, also where compaction took the record
	hidden  bool          // a marker, or aborted: no consumer sees it
	loops   bool          // see Partition.Loops
	doubt   error         // the same
	stamped bool          // the broker gave it its timestamps
	size    int64
	corrupt error // its checksum is wrong
}

// haul is what one fetch brought.
type haul struct {
	pieces   []piece
	logStart int64 // -1: not told
	next     int64 // everything before was brought, or is not there
	ended    bool  // the log ends at next
	err      error // the last haul
}

// reader reads a stretch of one partition's log ahead of whoever compares it.
// Its channel is closed behind the last haul.
type reader struct {
	log       Log
	topic     string
	partition int32
	committed bool // only what consumers of committed records see
	compacts  bool // so that the end of the log may be a hole
	loops     func(producerID int64) (foreign bool, doubt error)
	next, end int64
	bytes     int32
	pace      *pace
	meter     *Meter
	out       chan haul

	empty int // fetches without anything, one after another
}

const (
	emptyBefore = 20 // fetches without anything below the end, before that is believed
	emptyWait   = 100 * time.Millisecond
	maxFetch    = 256 << 20 // bytes of one batch, for a broker that cuts what is larger than asked for
)

func (r *reader) run(ctx context.Context) {
	defer close(r.out)
	for r.next < r.end {
		h := r.fetch(ctx)
		select {
		case r.out <- h:
		case <-ctx.Done():
			return
		}
		if h.err != nil || h.ended {
			return
		}
	}
}

func (r *reader) fetch(ctx context.Context) haul {
	wait := time.Duration(0)
	if r.empty > 0 {
		wait = emptyWait
	}
	got, err := r.log.Fetch(ctx, r.topic, r.partition, r.next, r.bytes, r.committed, wait)
	if err == nil && errors.Is(got.Err, kerr.OffsetOutOfRange) {
		return r.relocate(ctx)
	}
	if err == nil {
		err = got.Err
	}
	if err != nil {
		return haul{err: fmt.Errorf("read %s/%d at %d: %w", r.topic, r.partition, r.next, err)}
	}
	r.meter.Bytes.Add(int64(len(got.Records)))
	if err := r.pace.spend(ctx, len(got.Records)); err != nil {
		return haul{err: err}
	}
	before := r.next
	h := haul{logStart: got.LogStart}
	if h.pieces, err = r.split(got); err != nil {
		h.err = fmt.Errorf("read %s/%d at %d: %w", r.topic, r.partition, r.next, err)
	}
	h.next = r.next
	readable := got.HighWatermark
	if r.committed && got.LastStable >= 0 {
		readable = min(readable, got.LastStable)
	}
	switch {
	case h.err != nil || r.next > before:
		r.empty = 0
	case r.next >= readable:
		h.ended = true
	case len(got.Records) >= int(r.bytes) && r.bytes < maxFetch/2:
		r.bytes *= 2
	default: // a quota; or compaction took what stood before the end
		if r.empty++; r.empty < emptyBefore {
			break
		}
		if h.next = r.end; r.compacts {
			r.next = r.end
		} else {
			h.err = fmt.Errorf("read %s/%d at %d: the broker returns nothing there, though the log goes on to %d", r.topic, r.partition, r.next, readable)
		}
	}
	return h
}

// relocate finds out where a log begins that no longer has the offset wanted.
func (r *reader) relocate(ctx context.Context) haul {
	start, err := r.log.ListOffset(ctx, r.topic, r.partition, kafka.Earliest)
	if err != nil {
		return haul{err: fmt.Errorf("read the start of %s/%d: %w", r.topic, r.partition, err)}
	}
	if r.next >= start {
		return haul{logStart: start, next: r.next, ended: true} // beyond the end
	}
	r.next = min(start, r.end)
	return haul{logStart: start, next: r.next}
}

// split takes apart what a fetch brought, and moves next behind it.
func (r *reader) split(got kafka.FetchResult) ([]piece, error) {
	var (
		pieces  []piece
		aborted = slices.Clone(got.Aborted)
		open    = map[int64]bool{} // producers inside an aborted transaction
	)
	slices.SortFunc(aborted, func(a, b kafka.AbortedTxn) int { return cmp.Compare(a.FirstOffset, b.FirstOffset) })
	for rest := got.Records; len(rest) > 0 && r.next < r.end; {
		b, after, err := wire.NextBatch(rest)
		switch {
		case errors.Is(err, wire.ErrPartialBatch):
			return pieces, nil
		case errors.Is(err, wire.ErrLegacyMagic):
			p, left, err := legacyPiece(rest)
			if errors.Is(err, wire.ErrPartialBatch) || err == nil && len(left) == len(rest) {
				return pieces, nil
			}
			if err != nil {
				return pieces, err
			}
			rest = left
			if len(p.records) > 0 && p.last >= r.next {
				pieces = append(pieces, p)
				r.next = p.last + 1
			}
			continue
		case err != nil:
			return pieces, err
		}
		rest = after
		for len(aborted) > 0 && aborted[0].FirstOffset <= b.LastOffset() {
			open[aborted[0].ProducerID] = true
			aborted = aborted[1:]
		}
		p := piece{batch: b, first: b.BaseOffset(), last: b.LastOffset(), size: int64(len(b)), stamped: b.IsLogAppendTime(), corrupt: b.CheckCRC()}
		p.hidden = b.IsControl() || b.IsTransactional() && open[b.ProducerID()]
		if b.IsControl() && open[b.ProducerID()] && marksAbort(b) {
			delete(open, b.ProducerID())
		}
		if r.loops != nil && b.ProducerID() >= 0 {
			p.loops, p.doubt = r.loops(b.ProducerID())
		}
		if p.last < r.next {
			continue
		}
		pieces = append(pieces, p)
		r.next = p.last + 1
	}
	return pieces, nil
}

func legacyPiece(buf []byte) (piece, []byte, error) {
	records, stamped, rest, err := wire.DecodeLegacy(buf, inflateLimit)
	if err != nil || len(records) == 0 {
		return piece{}, rest, err
	}
	return piece{
		records: records, first: records[0].Offset, last: records[len(records)-1].Offset,
		stamped: stamped, size: int64(len(buf) - len(rest)),
	}, rest, nil
}

// marksAbort reads a marker: its one record's key says what it marks.
func marksAbort(b wire.Batch) (abort bool) {
	_ = b.EachRecord(inflateLimit, func(r wire.RawRecord) error { // a marker that cannot be read marks nothing
		abort = len(r.Key) >= 4 && kmsg.ControlRecordKeyType(binary.BigEndian.Uint16(r.Key[2:])) == kmsg.ControlRecordKeyTypeAbort
		return nil
	})
	return abort
}
