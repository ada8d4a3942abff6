package storage

import (
	"errors"
	"fmt"
	"sync"

	"github.com/twmb/franz-go/pkg/kerr"

	"kmirror/internal/wire"
)

const (
	defaultInflate  = 256 << 20
	maxRecordErrors = 1000 // faulty records named in one answer
)

// prepare checks a batch as Kafka does before it looks at the log, in Kafka's
// order, and sets its timestamps. The batch returned is b itself unless the
// topic's compression.type asks for another codec.
func (l *Log) prepare(b wire.Batch, cfg *LogConfig, now int64, o AppendOptions) (wire.Batch, error) {
	if len(b) < wire.BatchHeaderSize || b.Size() != len(b) || b.LastOffsetDelta() < 0 {
		return nil, refuse(kerr.CorruptMessage, "batch for %s: %d bytes are not one whole batch", l.name, len(b))
	}
	if b.Magic() != 2 {
		return nil, refuse(kerr.UnsupportedForMessageFormat, "batch for %s: message format %d; only format 2 is stored", l.name, b.Magic())
	}
	if o.FromClient && b.BaseOffset() != 0 {
		return nil, refuse(kerr.InvalidRecord, "The baseOffset of the record batch in the append to %s should be 0, but it is %d", l.name, b.BaseOffset())
	}
	if len(b) > cfg.MaxMessageBytes {
		return nil, tooLarge(l.name, len(b), cfg)
	}
	if err := b.CheckCRC(); err != nil {
		return nil, &Error{Code: kerr.CorruptMessage.Code, Message: "Record is corrupt in the append to " + l.name.String(), Err: err}
	}
	if b.NumRecords() <= 0 || b.NumRecords()-1 != b.LastOffsetDelta() {
		return nil, refuse(kerr.InvalidRecord, "batch for %s: %d records cannot span %d offsets", l.name, b.NumRecords(), int64(b.LastOffsetDelta())+1)
	}
	if b.ProducerID() >= 0 && b.BaseSequence() < 0 && !b.IsControl() {
		return nil, refuse(kerr.InvalidRecord, "Invalid sequence number %d in record batch with producerId %d", b.BaseSequence(), b.ProducerID())
	}
	if b.IsControl() && b.ProducerID() >= 0 && !o.FromClient {
		return nil, refuse(kerr.InvalidRecord, "batch for %s: markers are appended as such", l.name)
	}
	if o.FromClient {
		switch {
		case b.IsControl():
			return nil, refuse(kerr.InvalidRecord, "Clients are not allowed to write control records")
		case b.IsTransactional() && b.ProducerID() < 0:
			return nil, refuse(kerr.InvalidRecord, "batch for %s: transactional without a producer id", l.name)
		case b.Codec() > wire.CodecZstd:
			return nil, refuse(kerr.InvalidRecord, "batch for %s: unknown compression %d", l.name, b.Codec())
		}
		largest, err := l.checkRecords(b, cfg, now, o)
		if err != nil {
			return nil, err
		}
		if !cfg.LogAppendTime && largest != b.MaxTimestamp() {
			b.SetMaxTimestamp(largest)
		}
	}
	if codec, fixed := targetCodec(cfg.Compression); fixed && codec != b.Codec() && !b.IsControl() {
		var err error
		if b, err = l.recompress(b, codec, o); err != nil {
			return nil, err
		}
		if len(b) > cfg.MaxMessageBytes {
			return nil, tooLarge(l.name, len(b), cfg)
		}
	}
	if cfg.LogAppendTime && !b.IsControl() {
		b.SetLogAppendTime(now)
	}
	if len(b) > cfg.SegmentBytes {
		return nil, refuse(kerr.RecordListTooLarge, "Message batch size is %d bytes in append to partition %s, which exceeds the maximum configured segment size of %d",
			len(b), l.name, cfg.SegmentBytes)
	}
	return b, nil
}

func tooLarge(p Partition, size int, cfg *LogConfig) *Error {
	return refuse(kerr.MessageTooLarge, "The record batch size in the append to %s is %d bytes which exceeds the maximum configured value of %d", p, size, cfg.MaxMessageBytes)
}

func targetCodec(name string) (codec wire.Codec, fixed bool) {
	switch name {
	case "uncompressed", "none":
		return wire.CodecNone, true
	case "gzip":
		return wire.CodecGzip, true
	case "snappy":
		return wire.CodecSnappy, true
	case "lz4":
		return wire.CodecLZ4, true
	case "zstd":
		return wire.CodecZstd, true
	default:
		return 0, false
	}
}

func (l *Log) recompress(b wire.Batch, codec wire.Codec, o AppendOptions) (out wire.Batch, _ error) {
	fault := l.store.inflation.unpack(o.inflate(), func(limit int) error {
		records, err := b.Records(limit)
		if err == nil {
			out, err = l.encode(b, records, codec)
		}
		return err
	})
	if own, ok := errors.AsType[*Error](fault); ok {
		return nil, own
	}
	if fault != nil {
		return nil, l.recordsFault(fault)
	}
	return out, nil
}

func (l *Log) encode(b wire.Batch, records []wire.Record, codec wire.Codec) (wire.Batch, error) {
	if len(records) == 0 {
		return nil, refuse(kerr.InvalidRecord, "batch for %s holds no record", l.name)
	}
	out, err := wire.EncodeBatch(nil, records, wire.BatchOptions{
		Codec: codec, Transactional: b.IsTransactional(), ProducerID: b.ProducerID(),
		ProducerEpoch: b.ProducerEpoch(), BaseSequence: b.BaseSequence(), LeaderEpoch: -1,
	})
	if err != nil {
		return nil, &Error{Code: kerr.UnknownServerError.Code, Message: "compress the batch for " + l.name.String(), Err: err}
	}
	return out, nil
}

func (l *Log) recordsFault(err error) *Error {
	if _, ok := errors.AsType[*wire.InflateError](err); ok {
		return &Error{Code: kerr.MessageTooLarge.Code, Message: "batch for " + l.name.String(), Err: err}
	}
	return &Error{Code: kerr.InvalidRecord.Code, Message: "batch for " + l.name.String(), Err: err}
}

// recordCheck walks the records of one batch. It is pooled, with its visit
// bound once, so that a walk allocates nothing.
type recordCheck struct {
	visit func(wire.RawRecord) error

	batch   wire.Batch
	cfg     *LogConfig
	name    Partition
	now     int64
	base    int64
	largest int64
	next    int32
	faults  []RecordError
	badTime bool
}

func newRecordChecks() *sync.Pool {
	return &sync.Pool{New: func() any {
		c := &recordCheck{}
		c.visit = c.record
		return c
	}}
}

// checkRecords applies the rules for single records and returns the largest
// timestamp.
func (l *Log) checkRecords(b wire.Batch, cfg *LogConfig, now int64, o AppendOptions) (largest int64, err error) {
	c := l.store.checks.Get().(*recordCheck)
	defer func() {
		*c = recordCheck{visit: c.visit}
		l.store.checks.Put(c)
	}()
	c.batch, c.cfg, c.name, c.now, c.base, c.largest = b, cfg, l.name, now, b.BaseTimestamp(), -1
	if b.Codec() == wire.CodecNone {
		err = b.EachRecord(o.inflate(), c.visit)
	} else {
		err = l.store.inflation.unpack(o.inflate(), func(limit int) error { return b.EachRecord(limit, c.visit) })
	}
	if err != nil {
		return 0, l.recordsFault(err)
	}
	switch {
	case len(c.faults) == 0:
		return c.largest, nil
	case c.badTime:
		return 0, &Error{Code: kerr.InvalidTimestamp.Code, Message: "One or more records have been rejected due to invalid timestamp", RecordErrors: c.faults}
	default:
		return 0, &Error{
			Code:         kerr.InvalidRecord.Code,
			Message:      fmt.Sprintf("One or more records have been rejected due to %d record errors in total, and only showing the first three errors at most: %v", len(c.faults), c.faults[:min(3, len(c.faults))]),
			RecordErrors: c.faults,
		}
	}
}

func (c *recordCheck) record(r wire.RawRecord) error {
	index := c.next
	c.next++
	timestamp := c.base + r.TimestampDelta
	c.largest = max(c.largest, timestamp)
	switch {
	case r.OffsetDelta != index:
		c.fault(index, fmt.Sprintf("record offset delta %d where %d was expected", r.OffsetDelta, index))
	case c.cfg.Compact && r.Key == nil:
		c.fault(index, "Compacted topic cannot accept message without key in topic partition "+c.name.String()+".")
	case c.batch.IsLogAppendTime():
		c.badTime = true
		c.fault(index, "Producer should not set timestamp type to LogAppendTime.")
	case !c.cfg.LogAppendTime && timestamp != -1 && !within(timestamp, c.now, c.cfg):
		c.badTime = true
		c.fault(index, fmt.Sprintf("Timestamp %d of message with offset %d is out of range. The timestamp should be within [%d, %d]",
			timestamp, index, saturate(c.now, -c.cfg.TimestampBeforeMax), saturate(c.now, c.cfg.TimestampAfterMax)))
	}
	return nil
}

func (c *recordCheck) fault(index int32, message string) {
	if len(c.faults) < maxRecordErrors {
		c.faults = append(c.faults, RecordError{Index: index, Message: message})
	}
}

func within(timestamp, now int64, cfg *LogConfig) bool {
	return timestamp >= saturate(now, -cfg.TimestampBeforeMax) && timestamp <= saturate(now, cfg.TimestampAfterMax)
}

// saturate is a + b, held within 64 bits.
func saturate(a, b int64) int64 {
	sum := a + b
	switch {
	case a > 0 && b > 0 && sum < 0:
		return 1<<63 - 1
	case a < 0 && b < 0 && sum >= 0:
		return -1 << 63
	}
	return sum
}
