package mirror

import (
	"cmp"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"

	"github.com/twmb/franz-go/pkg/kmsg"

	"kmirror/internal/wire"
)

// mode is the step of the ladder by which a batch travels; the cheapest that is
// correct is taken, and each is counted.
type mode uint8

const (
	modeRaw      mode = iota // header fields change, nothing else
	modeDrop                 // nothing of it belongs in the target
	modeCrop                 // begins before the position: its tail is kept
	modeReencode             // must be opened and written anew
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
)

// piece says that count records in a row carry the source offsets from source.
type piece struct {
	source int64
	count  int32
}

// prepared is one batch ready for the target but for producer id, epoch and
// sequence, which the lane gives it.
type prepared struct {
	batch  wire.Batch
	pieces []piece // in order, never empty; more than one where the source has holes inside the batch
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
	next    int64 // the source offset to ask for next
}

// ladderLimits bounds one climb.
type ladderLimits struct {
	inflate  int // bytes one batch may inflate to
	maxBatch int // bytes the target takes in one batch; 0 is no limit known
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
	out := climbed{next: next}
	aborted = slices.Clone(aborted)
	slices.SortFunc(aborted, func(a, b abortedTxn) int { return cmp.Compare(a.first, b.first) })
	open := map[int64]bool{} // producers inside an aborted transaction

	for len(records) > 0 {
		b, rest, err := wire.NextBatch(records)
		switch {
		case errors.Is(err, wire.ErrPartialBatch):
			return out, nil
		case errors.Is(err, wire.ErrLegacyMagic):
			rest, err = out.legacy(records, limits)
			if err != nil {
				return out, &batchError{out.next, err}
			}
			if len(rest) == len(records) { // a cut message: the next fetch brings it whole
				return out, nil
			}
			records = rest
			continue
		case err != nil:
			return out, &batchError{out.next, err}
		}
		records = rest
		for len(aborted) > 0 && aborted[0].first <= b.LastOffset() {
			open[aborted[0].producer] = true
			aborted = aborted[1:]
		}
		if err := out.take(b, open, limits); err != nil {
			return out, err
		}
	}
	return out, nil
}

// take picks the step for one v2 batch.
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
	case limits.maxBatch > 0 && b.Size() > limits.maxBatch:
		m, reason = modeReencode, reasonSize
	}
	if m == modeRaw {
		out.batches = append(out.batches, prepared{
			batch: b, pieces: []piece{{b.BaseOffset(), b.NumRecords()}}, count: b.NumRecords(),
		})
		out.next = end
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
	if err := out.encode(recs[first:], b.Codec(), m, reason, limits); err != nil {
		return err
	}
	out.next = end
	return nil
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
	recs = recs[first:]
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
	var pieces []piece
	for i := range recs {
		if n := len(pieces); n > 0 && pieces[n-1].source+int64(pieces[n-1].count) == recs[i].Offset {
			pieces[n-1].count++
		} else {
			pieces = append(pieces, piece{recs[i].Offset, 1})
		}
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
			return &recordTooLargeError{recs[0].Offset, b.Size(), limits.maxBatch}
		}
		half := len(recs) / 2
		if err := out.encode(recs[:half], codec, modeReencode, reasonSize, limits); err != nil {
			return err
		}
		return out.encode(recs[half:], codec, modeReencode, reasonSize, limits)
	}
	out.batches = append(out.batches, prepared{
		batch: b, pieces: pieces, count: int32(len(recs)), mode: m, reason: reason, owned: true,
	})
	out.next = recs[len(recs)-1].Offset + 1
	return nil
}

func (out *climbed) drop(records int64, reason string) {
	out.dropped = append(out.dropped, dropped{records, reason})
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
