package mirror

import (
	"bytes"
	"cmp"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"

	"github.com/twmb/franz-go/pkg/kmsg"

	"kmirror/internal/wire"
	"kmirror/topology"
)

// mode is the step of the ladder by which a batch travels; the cheapest that is
// correct is taken, and each is counted.
type mode uint8

const (
	modeRaw      mode = iota // header fields change, nothing else
	modeDrop                 // nothing of it belongs in the target
	modeCrop                 // begins before the position: its tail is kept
	modeReencode             // must be opened and written anew
	modeMerge                // waited with others of its partition, and left with them as one
	modes
)

func (m mode) String() string {
	switch m {
	case modeRaw:
		return "raw"
	case modeDrop:
		return "drop"
	case modeCrop:
		return "crop"
	case modeReencode:
		return "reencode"
	case modeMerge:
		return "merge"
	case modes:
	}
	return "unknown"
}

// Reasons beside a mode, for the metrics: why not raw.
const (
	reasonNone      = ""
	reasonControl   = "control"
	reasonAborted   = "aborted"
	reasonEmpty     = "empty"
	reasonBehind    = "behind"    // wholly before the position: a fetch begins at the batch that holds it
	reasonPosition  = "position"  // partly before it
	reasonHoles     = "holes"     // compaction left offsets out
	reasonLegacy    = "legacy"    // message format before v2
	reasonLogAppend = "logappend" // the source stamped it; a producer may not send that
	reasonHorizon   = "horizon"   // the cleaner keeps a delete horizon in the base timestamp
	reasonSize      = "size"      // above what the target takes
	reasonCodec     = "codec"     // compressed in a way that the target refuses
	reasonFilter    = "filter"    // a filter of the flow leaves records out
	reasonLetter    = "dead-letter"
	reasonLoop      = "loop"   // another flow of the circle brought it to the source
	reasonOpened    = "opened" // beside merge: the batches were compressed
)

// piece says that count records in a row carry the source offsets from source.
type piece struct {
	source int64
	count  int32
}

func (p *piece) end() int64 { return p.source + int64(p.count) }

// pieces are one or more, in order. Nearly always it is one.
type pieces struct {
	first piece
	more  []piece
}

func (p *pieces) len() int { return 1 + len(p.more) }

func (p *pieces) at(i int) *piece {
	if i == 0 {
		return &p.first
	}
	return &p.more[i-1]
}

// add appends a piece, or makes the last one longer. It is not for pieces that
// are empty.
func (p *pieces) add(x piece) {
	last := p.at(len(p.more))
	switch {
	case p.first.count == 0:
		p.first = x
	case last.end() == x.source:
		last.count += x.count
	default:
		p.more = append(p.more, x)
	}
}

// prepared is one batch ready for the target but for producer id, epoch and
// sequence, which the lane gives it.
type prepared struct {
	batch  wire.Batch
	pieces pieces // more than one where the source has holes inside the batch
	count  int32
	mode   mode
	reason string
	owned  bool // the bytes are ours, not a slice of the fetch response
}

// dropped is what the ladder left out.
type dropped struct {
	records int64 // offsets, as the source counts
	reason  string
}

// climbed is the outcome of one partition's share of a fetch response.
type climbed struct {
	batches []prepared
	dropped []dropped
	letters []letter
	next    int64 // the source offset to ask for next
	limits  ladderLimits
	unknown []int64 // producer ids, of the batch at next and of some behind it, of which it has to be found out whose they are
}

// letter is a record that cannot stand in the target topic and goes to the
// dead-letter topic instead, at its source offset. It has memory of its own.
type letter struct {
	record wire.Record // as the source has it
	cause  string
	size   int // bytes of a batch that holds it alone
}

// ladderLimits bounds one climb.
type ladderLimits struct {
	inflate  int              // bytes one batch may inflate to
	maxBatch int              // bytes the target takes in one batch; 0 is no limit known
	filter   *topology.Filter // what it drops is left out; nil: nothing
	plain    bool             // the target refuses the codec: batches are written without one
	letters  bool             // a single record above maxBatch becomes a letter instead of an error
	origins  *origins         // what another flow of the circle brought is left out; nil: there is no circle
}

// recordTooLargeError is one record that the target cannot take.
type recordTooLargeError struct {
	offset int64
	size   int
	limit  int
}

func (e *recordTooLargeError) Error() string {
	return fmt.Sprintf("record at source offset %d takes %d bytes as a batch of its own and the target topic takes %d: raise max.message.bytes of the target topic", e.offset, e.size, e.limit)
}

// batchError is a source batch that cannot be read.
type batchError struct {
	offset int64
	err    error
}

func (e *batchError) Error() string {
	return fmt.Sprintf("source batch at offset %d: %v", e.offset, e.err)
}

func (e *batchError) Unwrap() error { return e.err }

// abortedTxn is an entry of the fetch response's list: what this producer wrote
// from first on, up to its next abort marker, never happened.
type abortedTxn struct {
	producer int64
	first    int64
}

// climb walks the record bytes of one partition from the position next and
// picks a step for each batch. A cut batch at the end is left for the next
// fetch. It returns what was prepared before an error together with it, so
// that the good part of a response is not lost.
func climb(records []byte, next int64, aborted []abortedTxn, limits ladderLimits) (climbed, error) {
	var out climbed
	err := out.climb(records, next, aborted, limits)
	return out, err
}

// climb is climb, in memory that was used before.
func (out *climbed) climb(records []byte, next int64, aborted []abortedTxn, limits ladderLimits) error {
	clear(out.batches)
	clear(out.letters)
	*out = climbed{batches: out.batches[:0], dropped: out.dropped[:0], letters: out.letters[:0], next: next, limits: limits, unknown: out.unknown[:0]}
	var open map[int64]bool // producers inside an aborted transaction
	if len(aborted) > 0 {
		aborted = slices.Clone(aborted)
		slices.SortFunc(aborted, func(a, b abortedTxn) int { return cmp.Compare(a.first, b.first) })
		open = map[int64]bool{}
	}

	for len(records) > 0 {
		b, rest, err := wire.NextBatch(records)
		switch {
		case errors.Is(err, wire.ErrPartialBatch):
			return nil
		case errors.Is(err, wire.ErrLegacyMagic):
			rest, err = out.legacy(records, limits)
			if err != nil {
				return &batchError{out.next, err}
			}
			if len(rest) == len(records) { // a cut message: the next fetch brings it whole
				return nil
			}
			records = rest
			continue
		case err != nil:
			return &batchError{out.next, err}
		}
		records = rest
		for len(aborted) > 0 && aborted[0].first <= b.LastOffset() {
			open[aborted[0].producer] = true
			aborted = aborted[1:]
		}
		if err := out.take(b, open, limits); err != nil {
			return err
		}
		if len(out.unknown) > 0 {
			out.survey(records)
			return nil
		}
	}
	return nil
}

// survey looks what else has to be found out in the rest of a response, so that it
// is asked for at once.
func (out *climbed) survey(rest []byte) {
	for len(rest) > 0 && len(out.unknown) < mostUnknown {
		b, after, err := wire.NextBatch(rest)
		if err != nil {
			return
		}
		if id := b.ProducerID(); id >= 0 && !b.IsControl() && !slices.Contains(out.unknown, id) {
			if _, known := out.limits.origins.foreign(id); !known {
				out.unknown = append(out.unknown, id)
			}
		}
		rest = after
	}
}

// mostUnknown bounds how many producer ids of one response are asked for at once.
const mostUnknown = 64

// take picks the step for one v2 batch. Where it has to be found out who wrote
// it, it is left where it is.
func (out *climbed) take(b wire.Batch, open map[int64]bool, limits ladderLimits) error {
	end := b.LastOffset() + 1
	if end <= out.next {
		out.drop(int64(b.NumRecords()), reasonBehind)
		return nil
	}
	if b.IsControl() {
		if open[b.ProducerID()] {
			abort, err := isAbortMarker(b, limits.inflate)
			if err != nil {
				return &batchError{b.BaseOffset(), err}
			}
			if abort {
				delete(open, b.ProducerID())
			}
		}
		out.drop(end-max(out.next, b.BaseOffset()), reasonControl)
		out.next = end
		return nil
	}
	if b.IsTransactional() && open[b.ProducerID()] {
		out.drop(end-max(out.next, b.BaseOffset()), reasonAborted)
		out.next = end
		return nil
	}
	if b.NumRecords() == 0 {
		out.drop(end-max(out.next, b.BaseOffset()), reasonEmpty)
		out.next = end
		return nil
	}

	if limits.origins != nil && b.ProducerID() >= 0 { // -1: nobody's that mirrors
		switch foreign, known := limits.origins.foreign(b.ProducerID()); {
		case !known:
			out.unknown = append(out.unknown, b.ProducerID())
			return nil
		case foreign:
			out.drop(end-max(out.next, b.BaseOffset()), reasonLoop)
			out.next = end
			return nil
		}
	}

	m, reason := modeRaw, reasonNone
	switch {
	case b.BaseOffset() < out.next:
		m, reason = modeCrop, reasonPosition
	case b.LastOffsetDelta()+1 != b.NumRecords():
		m, reason = modeReencode, reasonHoles
	case b.HasDeleteHorizon():
		m, reason = modeReencode, reasonHorizon
	case b.IsLogAppendTime():
		m, reason = modeReencode, reasonLogAppend
	case limits.plain && b.Codec() != wire.CodecNone:
		m, reason = modeReencode, reasonCodec
	case limits.maxBatch > 0 && b.Size() > limits.maxBatch:
		m, reason = modeReencode, reasonSize
	}
	if m == modeRaw && limits.filter == nil {
		out.raw(b)
		return nil
	}
	if err := b.CheckCRC(); err != nil { // what is opened is verified first
		return &batchError{b.BaseOffset(), err}
	}
	recs, err := b.Records(limits.inflate)
	if err != nil {
		return &batchError{b.BaseOffset(), err}
	}
	first, _ := slices.BinarySearchFunc(recs, out.next, func(r wire.Record, next int64) int {
		return cmp.Compare(r.Offset, next)
	})
	kept := out.filter(recs[first:], limits)
	if m == modeRaw {
		if len(kept) == len(recs) {
			out.raw(b)
			return nil
		}
		m, reason = modeReencode, reasonFilter
	}
	codec := b.Codec()
	if limits.plain {
		codec = wire.CodecNone
	}
	if err := out.encode(kept, codec, m, reason, limits); err != nil {
		return err
	}
	out.next = end
	return nil
}

// raw takes a batch as it is.
func (out *climbed) raw(b wire.Batch) {
	out.batches = append(out.batches, prepared{batch: b, pieces: pieces{first: piece{b.BaseOffset(), b.NumRecords()}}, count: b.NumRecords()})
	out.next = b.LastOffset() + 1
}

// filter returns the records that the flow's filter leaves, in the same memory.
func (out *climbed) filter(recs []wire.Record, limits ladderLimits) []wire.Record {
	if limits.filter == nil {
		return recs
	}
	kept := recs[:0]
	for i := range recs {
		r := &recs[i]
		if !limits.filter.Drops(r.Key, func(yield func(name string, value []byte) bool) {
			for _, h := range r.Headers {
				if !yield(h.Key, h.Value) {
					return
				}
			}
		}) {
			kept = append(kept, *r)
		}
	}
	if n := len(recs) - len(kept); n > 0 {
		out.drop(int64(n), reasonFilter)
	}
	return kept
}

// legacy re-encodes the message set (magic 0 or 1) at the head of records.
func (out *climbed) legacy(records []byte, limits ladderLimits) (rest []byte, err error) {
	recs, _, rest, err := wire.DecodeLegacy(records, limits.inflate)
	if err != nil {
		return nil, err
	}
	if len(recs) == 0 {
		return rest, nil
	}
	first, _ := slices.BinarySearchFunc(recs, out.next, func(r wire.Record, next int64) int {
		return cmp.Compare(r.Offset, next)
	})
	end := recs[len(recs)-1].Offset + 1
	if first == len(recs) {
		out.drop(int64(len(recs)), reasonBehind)
		return rest, nil
	}
	// A message set can be as large as the fetch; the target wants batches.
	recs = out.filter(recs[first:], limits)
	for len(recs) > 0 {
		n, size := 0, 0
		for n < len(recs) && (n == 0 || size < legacyBatch) {
			size += len(recs[n].Key) + len(recs[n].Value) + 16
			n++
		}
		if err := out.encode(recs[:n], wire.CodecNone, modeReencode, reasonLegacy, limits); err != nil {
			return nil, err
		}
		recs = recs[n:]
	}
	out.next = end
	return rest, nil
}

// legacyBatch is how many bytes of old messages go into one batch.
const legacyBatch = 256 << 10

// encode writes records (absolute source offsets, ascending) as one batch, or
// as several where the target would refuse one.
func (out *climbed) encode(recs []wire.Record, codec wire.Codec, m mode, reason string, limits ladderLimits) error {
	if len(recs) == 0 {
		return nil
	}
	var from pieces
	for i := range recs {
		from.add(piece{recs[i].Offset, 1})
	}
	contiguous := slices.Clone(recs)
	for i := range contiguous {
		contiguous[i].Offset = int64(i)
	}
	b, err := wire.EncodeBatch(nil, contiguous, wire.Plain(codec))
	if err != nil {
		return &batchError{recs[0].Offset, err}
	}
	if limits.maxBatch > 0 && b.Size() > limits.maxBatch {
		if len(recs) == 1 {
			large := &recordTooLargeError{recs[0].Offset, b.Size(), limits.maxBatch}
			if !limits.letters {
				return large
			}
			out.letters = append(out.letters, letter{ownRecord(&recs[0]), large.Error(), b.Size()})
			out.drop(1, reasonLetter)
			out.next = recs[0].Offset + 1
			return nil
		}
		half := len(recs) / 2
		if err := out.encode(recs[:half], codec, modeReencode, reasonSize, limits); err != nil {
			return err
		}
		return out.encode(recs[half:], codec, modeReencode, reasonSize, limits)
	}
	out.batches = append(out.batches, prepared{
		batch: b, pieces: from, count: int32(len(recs)), mode: m, reason: reason, owned: true,
	})
	out.next = recs[len(recs)-1].Offset + 1
	return nil
}

func (out *climbed) drop(records int64, reason string) {
	out.dropped = append(out.dropped, dropped{records, reason})
}

// ownRecord copies a record out of the memory it was decoded from.
func ownRecord(r *wire.Record) wire.Record {
	own := *r
	own.Key, own.Value, own.Headers = bytes.Clone(r.Key), bytes.Clone(r.Value), slices.Clone(r.Headers)
	for i := range own.Headers {
		own.Headers[i].Value = bytes.Clone(own.Headers[i].Value)
	}
	return own
}

// isAbortMarker reads a control batch: its one record's key says what it marks.
func isAbortMarker(b wire.Batch, inflate int) (bool, error) {
	recs, err := b.Records(inflate)
	if err != nil {
		return false, err
	}
	if len(recs) == 0 || len(recs[0].Key) < 4 {
		return false, nil
	}
	return kmsg.ControlRecordKeyType(binary.BigEndian.Uint16(recs[0].Key[2:])) == kmsg.ControlRecordKeyTypeAbort, nil
}
