package replica

import (
	"context"
	"fmt"
	"time"

	"kmirror/broker/storage"
	"kmirror/internal/wire"
)

// MetadataTopic is the name under which a node keeps its metadata log. No
// client sees it.
const MetadataTopic = "__kmirror_metadata"

// MetadataLogConfig is how the metadata log is kept: nothing expires, small
// segments so that a snapshot frees space soon.
func MetadataLogConfig() storage.LogConfig {
	c := storage.DefaultLogConfig()
	c.SegmentBytes = 1 << 20
	c.RetentionMillis, c.RetentionBytes = -1, -1
	c.MaxMessageBytes = 64 << 20
	return c
}

// OnStorage keeps the metadata in a storage log.
func OnStorage(l *storage.Log) Log { return storeLog{l} }

type storeLog struct{ log *storage.Log }

// metadataRead bounds one read of the log; a larger batch is read whole.
const metadataRead = 1 << 20

func (s storeLog) Name() string { return s.log.Dir() }

func (s storeLog) Append(ctx context.Context, records [][]byte) (int64, error) {
	now := time.Now().UnixMilli()
	list := make([]wire.Record, len(records))
	for i, r := range records {
		list[i] = wire.Record{Offset: int64(i), Timestamp: now, Value: r}
	}
	b, err := wire.EncodeBatch(nil, list, wire.Plain(wire.CodecNone))
	if err != nil {
		return 0, err
	}
	at, err := s.log.Append(b, 0, storage.AppendOptions{})
	if err != nil {
		return 0, err
	}
	return at.BaseOffset, s.log.WaitDurable(ctx, at.LastOffset)
}

func (s storeLog) Trim(before int64) error { return s.log.DeleteBefore(before) }

func (s storeLog) Read(ctx context.Context, fn func(offset int64, record []byte) error) error {
	next := s.log.Start()
	var buf []byte
	for next < s.log.End() {
		if err := ctx.Err(); err != nil {
			return err
		}
		slice, err := s.log.Read(next, metadataRead, true, storage.ToEnd)
		if err != nil {
			return fmt.Errorf("read at offset %d: %w", next, err)
		}
		buf, err = slice.Bytes(buf[:0])
		slice.Release()
		if err != nil {
			return fmt.Errorf("read at offset %d: %w", next, err)
		}
		before := next
		if next, err = eachRecord(buf, next, fn); err != nil {
			return err
		}
		if next == before {
			return fmt.Errorf("at offset %d: no whole batch can be read", next)
		}
	}
	return nil
}

// eachRecord hands over the records of whole batches from an offset on, and
// returns the offset after the last.
func eachRecord(buf []byte, from int64, fn func(offset int64, record []byte) error) (int64, error) {
	for len(buf) > 0 {
		b, rest, err := wire.NextBatch(buf)
		if err == wire.ErrPartialBatch {
			break // the limit of the read
		}
		if err == nil {
			err = b.CheckCRC()
		}
		if err != nil {
			return from, fmt.Errorf("at offset %d: %w", from, err)
		}
		records, err := b.Records(metadataRead * 64)
		if err != nil {
			return from, fmt.Errorf("at offset %d: %w", b.BaseOffset(), err)
		}
		for i := range records {
			if records[i].Offset < from {
				continue
			}
			if err := fn(records[i].Offset, records[i].Value); err != nil {
				return from, err
			}
		}
		from, buf = b.LastOffset()+1, rest
	}
	return from, nil
}
