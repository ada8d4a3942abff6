package checkpoint

import (
	"encoding/binary"
	"math"

	"kmirror/internal/wire"
)

// Step says that from Sequence on, sequence Sequence+i carries source offset
// Source+i, until the next step.
type Step struct {
	Sequence int32
	Source   int64
}

// Anchor is one record of the ledger. It is acknowledged before the first
// batch that needs it is sent, and one that was sent is never written again
// with another meaning. Steps is not empty; sequences grow from step to step
// by less than 2^31 in all, and wrap from 2^31-1 to 0 as Kafka's do.
type Anchor struct {
	Key
	ProducerID int64
	Epoch      int16
	Steps      []Step
	TimeMillis int64 // when it was written
}

// maxSteps bounds the steps of one anchor record, so that it stays far below
// any max.message.bytes; LedgerWriter divides larger anchors.
const maxSteps = 16384

// EncodeAnchor returns the record that keeps a. Numbers are varints.
//
//	key    | 1 | key | producer id | epoch | sequence of the first step |
//
//	value  | 1 | time (signed) | steps | source of the first step |
//	       then for every further step
//	       | sequence - previous sequence, modulo 2^31 | source offsets skipped (signed) |
//
// The offsets skipped are what the source advanced beyond the sequence: the
// size of the hole.
func EncodeAnchor(a Anchor) wire.Record {
	key := a.append([]byte{kindAnchor})
	key = binary.AppendUvarint(key, uint64(a.ProducerID))
	key = binary.AppendUvarint(key, uint64(uint16(a.Epoch)))
	value := binary.AppendVarint([]byte{1}, a.TimeMillis)
	value = binary.AppendUvarint(value, uint64(len(a.Steps)))
	for i, s := range a.Steps {
		if i == 0 {
			key = binary.AppendUvarint(key, uint64(uint32(s.Sequence)))
			value = binary.AppendUvarint(value, uint64(s.Source))
			continue
		}
		last := a.Steps[i-1]
		advance := sequenceDistance(last.Sequence, s.Sequence)
		value = binary.AppendUvarint(value, uint64(advance))
		value = binary.AppendVarint(value, s.Source-last.Source-advance)
	}
	return wire.Record{Timestamp: a.TimeMillis, Key: key, Value: value}
}

func decodeAnchor(key, value *reader) any {
	a := Anchor{Key: key.key(), ProducerID: key.int64(), Epoch: key.int16()}
	step := Step{Sequence: key.int32()}
	if value == nil {
		a.Steps = []Step{step}
		return a
	}
	a.TimeMillis = value.varint()
	n := value.count(1)
	if n == 0 {
		value.fail("no step")
		return a
	}
	step.Source = value.int64()
	a.Steps = make([]Step, 1, min(n, 1+len(value.buf)/2))
	a.Steps[0] = step
	var total int64
	for i := 1; i < n && value.bad == ""; i++ {
		advance := value.int64()
		total += advance
		if advance < 1 || advance > math.MaxInt32 || total > math.MaxInt32 {
			value.fail("steps out of order")
			break
		}
		source := value.sum(step.Source, advance)
		skipped := value.varint()
		if skipped > 0 {
			source = value.sum(source, skipped)
		} else if source += skipped; source < 0 {
			value.fail("number out of range")
		}
		step = Step{Sequence: advanceSequence(step.Sequence, advance), Source: source}
		a.Steps = append(a.Steps, step)
	}
	return a
}

// advanceSequence is Kafka's DefaultRecordBatch.incrementSequence: the
// sequence after 2^31-1 is 0. n is not negative.
func advanceSequence(sequence int32, n int64) int32 {
	return int32((int64(sequence) + n) & math.MaxInt32)
}

// sequenceDistance returns how far to is ahead of from, 0 to 2^31-1.
func sequenceDistance(from, to int32) int64 {
	return (int64(to) - int64(from)) & math.MaxInt32
}
