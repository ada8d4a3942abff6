package mirror

import (
	"fmt"
	"math/rand/v2"
	"slices"

	"github.com/twmb/franz-go/pkg/kerr"

	"kmirror/internal/kafka"
	"kmirror/internal/wire"
)

// simLog is a target partition as a broker keeps it: batches, a high watermark
// that follows them, and for each producer what the leader remembers, with
// Kafka's rules for accepting the next batch (ProducerAppendInfo) and for what a
// change of the leader does to all that.
type simLog struct {
	at      kafka.TopicPartition
	batches []wire.Batch // what is left
	history []wire.Batch // the same, with what retention took: for the oracle
	start   int64
	hw, end int64

	producers map[int64]*simProducer
	forgotten map[int64]int64 // producers that expired: their batches below this offset say nothing any more

	leader bool
	epoch  int32 // of the leader
}

// simProducer is what a partition knows of a producer id.
type simProducer struct {
	epoch int16
	last  []modelAppend // at most five, oldest first; none right after a marker
}

func newSimLog(at kafka.TopicPartition) *simLog {
	return &simLog{at: at, producers: map[int64]*simProducer{}, forgotten: map[int64]int64{}, leader: true}
}

// append takes a batch at the leader, or answers as Kafka would. It is
// acknowledged when the high watermark is behind it.
func (l *simLog) append(b wire.Batch) (base int64, err error) {
	if err := b.CheckCRC(); err != nil {
		return -1, kerr.CorruptMessage
	}
	if b.LastOffsetDelta()+1 != b.NumRecords() || b.BaseOffset() != 0 || b.IsControl() || b.IsTransactional() {
		return -1, kerr.InvalidRecord
	}
	if id := b.ProducerID(); id >= 0 {
		if p := l.producers[id]; p != nil {
			first, last := b.BaseSequence(), b.LastSequence()
			switch {
			case b.ProducerEpoch() < p.epoch:
				return -1, kerr.InvalidProducerEpoch
			case b.ProducerEpoch() > p.epoch:
				if first != 0 {
					return -1, kerr.OutOfOrderSequenceNumber
				}
			default:
				for _, a := range p.last {
					if a.first == first && a.last == last {
						return a.base, nil
					}
				}
				expected := int32(0)
				if n := len(p.last); n > 0 {
					expected = int32((int64(p.last[n-1].last) + 1) & 0x7fffffff)
				}
				if first != expected {
					return -1, kerr.OutOfOrderSequenceNumber
				}
			}
		} // no state: any first sequence is taken
	}
	return l.store(b), nil
}

// mark writes a marker, unless the partition knows a newer epoch of the producer.
func (l *simLog) mark(producer kafka.Producer) bool {
	if p := l.producers[producer.ID]; p != nil && producer.Epoch < p.epoch {
		return false
	}
	l.store(simMarker(producer))
	return true
}

// store puts a batch at the end, whatever it is.
func (l *simLog) store(b wire.Batch) (base int64) {
	own := slices.Clone(b)
	base = l.end
	own.SetBaseOffset(base)
	own.SetLeaderEpoch(l.epoch)
	l.batches, l.history = append(l.batches, own), append(l.history, own)
	l.end = own.LastOffset() + 1
	l.learn(own)
	return base
}

// learn updates what is known of the producer of a batch.
func (l *simLog) learn(b wire.Batch) {
	id := b.ProducerID()
	if id < 0 || b.BaseOffset() < l.forgotten[id] {
		return
	}
	p := l.producers[id]
	if p == nil || b.ProducerEpoch() > p.epoch {
		p = &simProducer{epoch: b.ProducerEpoch()}
		l.producers[id] = p
	}
	if b.IsControl() {
		return
	}
	p.last = append(p.last, modelAppend{b.BaseSequence(), b.LastSequence(), b.BaseOffset()})
	if len(p.last) > 5 {
		p.last = p.last[1:]
	}
}

// replicate moves the high watermark up.
func (l *simLog) replicate() {
	if l.leader {
		l.hw = l.end
	}
}

// truncate is a new leader whose log ends at (or in the batch around) to: what was
// known of producers is what the batches that are left say.
func (l *simLog) truncate(to int64) {
	cut := func(batches []wire.Batch) []wire.Batch {
		n := len(batches)
		for n > 0 && batches[n-1].LastOffset() >= to {
			n--
		}
		return batches[:n:n]
	}
	l.batches, l.history = cut(l.batches), cut(l.history)
	l.end = l.start
	if n := len(l.history); n > 0 {
		l.end = max(l.start, l.history[n-1].LastOffset()+1)
	}
	l.hw = min(l.hw, l.end)
	l.producers = map[int64]*simProducer{}
	for id, below := range l.forgotten {
		l.forgotten[id] = min(below, l.end)
	}
	for _, b := range l.history {
		l.learn(b)
	}
}

// forget is the expiration of what is known of all producers (a day without them).
func (l *simLog) forget() {
	for id := range l.producers {
		l.forgotten[id] = l.end
	}
	clear(l.producers)
}

// retain is retention: what lies below offset goes.
func (l *simLog) retain(offset int64) {
	n := 0
	for n < len(l.batches) && l.batches[n].LastOffset() < min(offset, l.hw) {
		n++
	}
	if n > 0 {
		l.start = l.batches[n-1].LastOffset() + 1
		l.batches = slices.Clone(l.batches[n:])
	}
}

// fetch reads up to the high watermark.
func (l *simLog) fetch(offset int64, maxBytes int32) kafka.FetchResult {
	res := kafka.FetchResult{HighWatermark: l.hw, LastStable: l.hw, LogStart: l.start}
	if offset < l.start || offset > l.end {
		res.Err = kerr.OffsetOutOfRange
		return res
	}
	for _, b := range l.batches {
		if b.LastOffset() < offset {
			continue
		}
		if b.LastOffset() >= l.hw || len(res.Records) > 0 && len(res.Records)+b.Size() > int(maxBytes) {
			break
		}
		res.Records = append(res.Records, b...)
	}
	return res
}

func simMarker(p kafka.Producer) wire.Batch {
	b, err := wire.EncodeBatch(nil, []wire.Record{{Key: []byte{0, 0, 0, 0}, Value: make([]byte, 6)}},
		wire.BatchOptions{ProducerID: p.ID, ProducerEpoch: p.Epoch, BaseSequence: -1, Transactional: true, Control: true, LeaderEpoch: -1})
	if err != nil {
		panic(err)
	}
	return b
}

// simSource is a source partition of which more and more can be seen.
type simSource struct {
	batches []wire.Batch
	want    []wire.Record // what a read_committed consumer gets of all of it
	aborted map[abortedTxn]int64
	start   int64
	end     int64 // how far it goes so far
}

// newSimSource makes a log of about n records: holes inside batches and between
// them, transactions committed and aborted, their markers. Records say where they
// stand.
func newSimSource(r *rand.Rand, n int) *simSource {
	s := &simSource{aborted: map[abortedTxn]int64{}}
	end := int64(0)
	for len(s.want) < n {
		count := 1 + r.IntN(5)
		recs := make([]wire.Record, 0, count)
		offset := end
		if r.IntN(8) == 0 {
			offset += int64(r.IntN(3))
		}
		for range count {
			recs = append(recs, wire.Record{Offset: offset, Timestamp: 1_700_000_000_000 + offset, Value: fmt.Appendf(nil, "s%d", offset)})
			offset++
			if r.IntN(12) == 0 {
				offset += 1 + int64(r.IntN(2))
			}
		}
		o := wire.Plain(wire.CodecNone)
		o.KeepOffsets = true
		transactional := r.IntN(6) == 0
		if transactional {
			o.ProducerID, o.ProducerEpoch, o.BaseSequence, o.Transactional = 900+int64(r.IntN(3)), 0, 0, true
		}
		b, err := wire.EncodeBatch(nil, recs, o)
		if err != nil {
			panic(err)
		}
		s.batches = append(s.batches, b)
		first := b.BaseOffset()
		end = b.LastOffset() + 1
		if transactional {
			abort := r.IntN(2) == 0
			s.batches = append(s.batches, controlBatch(end, o.ProducerID, abort))
			end++
			if abort {
				s.aborted[abortedTxn{o.ProducerID, first}] = end - 1
				continue
			}
		}
		s.want = append(s.want, recs...)
	}
	return s
}

// grow lets the next n batches be seen.
func (s *simSource) grow(n int) {
	for _, b := range s.batches {
		if n == 0 {
			return
		}
		if b.LastOffset() >= s.end {
			s.end = b.LastOffset() + 1
			n--
		}
	}
}

// retain is retention at the source.
func (s *simSource) retain(offset int64) {
	for _, b := range s.batches {
		if b.LastOffset() < min(offset, s.end) {
			s.start = max(s.start, b.LastOffset()+1)
		}
	}
}

func (s *simSource) fetch(offset int64, maxBytes int) kafka.FetchResult {
	res := kafka.FetchResult{HighWatermark: s.end, LastStable: s.end, LogStart: s.start}
	if offset < s.start || offset > s.end {
		res.Err = kerr.OffsetOutOfRange
		return res
	}
	for _, b := range s.batches {
		if b.LastOffset() < offset || b.LastOffset() < s.start {
			continue
		}
		if b.LastOffset() >= s.end || len(res.Records) > 0 && len(res.Records)+b.Size() > maxBytes {
			break
		}
		res.Records = append(res.Records, b...)
	}
	return res
}

// abortedFrom lists the aborted transactions that a fetch at offset may meet.
func (s *simSource) abortedFrom(offset int64) (list []abortedTxn) {
	for txn, marker := range s.aborted {
		if marker >= offset {
			list = append(list, txn)
		}
	}
	slices.SortFunc(list, func(a, b abortedTxn) int { return int(a.first - b.first) })
	return list
}
