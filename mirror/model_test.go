package mirror

import (
	"context"
	"encoding/binary"
	"fmt"
	"hash/crc32"
	"math/rand/v2"
	"slices"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"

	"kmirror/internal/kafka"
	"kmirror/internal/wire"
)

// modelLog is a partition as a broker keeps it: batches, and for each producer
// the last epoch and its last five batches, with Kafka's rules for accepting
// the next (ProducerAppendInfo, ProducerStateEntry).
type modelLog struct {
	batches   []wire.Batch
	start     int64
	end       int64
	aborted   map[abortedTxn]int64 // to the offset of its marker
	producers map[int64]*modelProducer
}

type modelProducer struct {
	epoch int16
	last  []modelAppend // at most five, oldest first
}

type modelAppend struct {
	first, last int32
	base        int64
}

// append takes a producer's batch, or answers as Kafka would.
func (l *modelLog) append(b wire.Batch) (base int64, err error) {
	if err := b.CheckCRC(); err != nil {
		return 0, kerr.CorruptMessage
	}
	if b.LastOffsetDelta()+1 != b.NumRecords() || b.BaseOffset() != 0 || b.IsControl() || b.IsTransactional() || b.IsLogAppendTime() {
		return 0, kerr.InvalidRecord
	}
	if l.producers == nil {
		l.producers = map[int64]*modelProducer{}
	}
	if id := b.ProducerID(); id >= 0 {
		p := l.producers[id]
		first, last := b.BaseSequence(), b.LastSequence()
		switch {
		case p == nil: // no state: any first sequence is taken
			p = &modelProducer{epoch: b.ProducerEpoch()}
			l.producers[id] = p
		case b.ProducerEpoch() < p.epoch:
			return 0, kerr.InvalidProducerEpoch
		case b.ProducerEpoch() > p.epoch:
			if first != 0 {
				return 0, kerr.OutOfOrderSequenceNumber
			}
			*p = modelProducer{epoch: b.ProducerEpoch()}
		default:
			for _, a := range p.last {
				if a.first == first && a.last == last {
					return a.base, nil
				}
			}
			if n := len(p.last); n > 0 && first != p.last[n-1].last+1 {
				return 0, kerr.OutOfOrderSequenceNumber
			}
		}
		p.last = append(p.last, modelAppend{first, last, l.end})
		if len(p.last) > 5 {
			p.last = p.last[1:]
		}
	}
	return l.store(b), nil
}

// store puts a batch at the end, whatever it is.
func (l *modelLog) store(b wire.Batch) (base int64) {
	own := slices.Clone(b)
	base = l.end
	own.SetBaseOffset(base)
	l.batches = append(l.batches, own)
	l.end = own.LastOffset() + 1
	return base
}

// Fetch is partitionReader's: whole batches from the one that holds offset on,
// the last one cut to size as a broker does, but never the first.
func (l *modelLog) Fetch(_ context.Context, _ string, _ int32, offset int64, maxBytes int32, _ bool, _ time.Duration) (kafka.FetchResult, error) {
	res := kafka.FetchResult{HighWatermark: l.end, LastStable: l.end, LogStart: l.start}
	if offset < l.start || offset > l.end {
		res.Err = kerr.OffsetOutOfRange
		return res, nil
	}
	for _, b := range l.batches {
		if b.LastOffset() < offset {
			continue
		}
		if room := int(maxBytes) - len(res.Records); len(res.Records) > 0 && b.Size() > room {
			res.Records = append(res.Records, b[:max(0, room)]...)
			break
		}
		res.Records = append(res.Records, b...)
	}
	return res, nil
}

// ListOffset is partitionReader's.
func (l *modelLog) ListOffset(_ context.Context, _ string, _ int32, timestamp int64) (int64, error) {
	switch timestamp {
	case atLatest:
		return l.end, nil
	case atEarliest:
		return l.start, nil
	}
	return 0, fmt.Errorf("model: no offset for time %d", timestamp)
}

// randomSource makes a source log of about n records: batches of all codecs,
// single records, compaction holes, transactions committed and aborted, their
// markers, batches left empty, batches that the broker stamped. It returns the
// records that a read_committed consumer gets.
func randomSource(r *rand.Rand, n int) (*modelLog, []wire.Record) {
	l := &modelLog{aborted: map[abortedTxn]int64{}}
	var want []wire.Record
	for len(want) < n {
		count := 1 + r.IntN(8)
		recs := make([]wire.Record, 0, count)
		stamped := r.IntN(8) == 0
		offset := l.end + int64(r.IntN(3)/2) // a hole before the batch, now and then
		for i := range count {
			rec := wire.Record{
				Offset: offset, Timestamp: 4_000_000_000_000 + int64(r.IntN(1000)),
				Key: fmt.Appendf(nil, "k%d", r.IntN(50)), Value: fmt.Appendf(nil, "value %d of %d at %d", i, count, offset),
			}
			if r.IntN(10) == 0 {
				rec.Key = nil
			}
			if r.IntN(10) == 0 {
				rec.Value = nil
			}
			if r.IntN(5) == 0 {
				rec.Headers = []wire.Header{{Key: "h", Value: []byte{byte(i)}}}
			}
			recs = append(recs, rec)
			offset += 1 + int64(r.IntN(6)/5) // a hole inside, seldom
		}
		transactional, abort := r.IntN(6) == 0, r.IntN(2) == 0
		o := wire.BatchOptions{Codec: wire.Codec(r.IntN(5)), ProducerID: -1, ProducerEpoch: -1, BaseSequence: -1, KeepOffsets: true}
		if transactional {
			o.ProducerID, o.ProducerEpoch, o.BaseSequence, o.Transactional = 900+int64(r.IntN(3)), 0, 0, true
		}
		b, err := wire.EncodeBatch(nil, recs, o)
		if err != nil {
			panic(err)
		}
		if stamped {
			b.SetLogAppendTime(1_800_000_000_000)
			for i := range recs {
				recs[i].Timestamp = 1_800_000_000_000
			}
		}
		l.batches = append(l.batches, b)
		first := b.BaseOffset()
		l.end = b.LastOffset() + 1
		if transactional {
			l.batches = append(l.batches, controlBatch(l.end, o.ProducerID, abort))
			l.end++
			if abort {
				l.aborted[abortedTxn{o.ProducerID, first}] = l.end - 1
				continue
			}
		}
		want = append(want, recs...)
		if r.IntN(12) == 0 { // compaction keeps an emptied batch
			b, err := wire.EncodeBatch(nil, recs[:1], wire.Plain(wire.CodecNone))
			if err != nil {
				panic(err)
			}
			b.SetBaseOffset(l.end)
			empty := slices.Clone(b[:wire.BatchHeaderSize])
			binary.BigEndian.PutUint32(empty[8:], wire.BatchHeaderSize-12)
			binary.BigEndian.PutUint32(empty[23:], uint32(r.IntN(4))) // last offset delta
			binary.BigEndian.PutUint32(empty[57:], 0)                 // records
			reseal(empty)
			l.batches = append(l.batches, empty)
			l.end = empty.LastOffset() + 1
		}
	}
	return l, want
}

// controlBatch is a transaction marker.
func controlBatch(offset, producer int64, abort bool) wire.Batch {
	kind := byte(1)
	if abort {
		kind = 0
	}
	b, err := wire.EncodeBatch(nil, []wire.Record{{Offset: offset, Key: []byte{0, 0, 0, kind}, Value: make([]byte, 6)}},
		wire.BatchOptions{ProducerID: producer, BaseSequence: -1, Transactional: true, Control: true, KeepOffsets: true})
	if err != nil {
		panic(err)
	}
	return b
}

// reseal computes the checksum anew.
func reseal(b wire.Batch) {
	binary.BigEndian.PutUint32(b[17:], crc32.Checksum(b[21:], crc32.MakeTable(crc32.Castagnoli)))
}

// abortedFrom lists the aborted transactions that a fetch at offset may meet.
func (l *modelLog) abortedFrom(offset int64) (list []abortedTxn) {
	for txn, marker := range l.aborted {
		if marker >= offset {
			list = append(list, txn)
		}
	}
	return list
}

// legacyMessage is one message of format 0 or 1, uncompressed.
func legacyMessage(magic int8, offset int64, key, value string) []byte {
	body := []byte{byte(magic), 0}
	if magic == 1 {
		body = binary.BigEndian.AppendUint64(body, 1000)
	}
	for _, s := range []string{key, value} {
		body = binary.BigEndian.AppendUint32(body, uint32(len(s)))
		body = append(body, s...)
	}
	out := binary.BigEndian.AppendUint64(nil, uint64(offset))
	out = binary.BigEndian.AppendUint32(out, uint32(4+len(body)))
	out = binary.BigEndian.AppendUint32(out, crc32.ChecksumIEEE(body))
	return append(out, body...)
}
