package broker

import (
	"context"
	"errors"
	"fmt"

	"kmirror/broker/replica"
	"kmirror/broker/storage"
	"kmirror/internal/wire"
)

// metadataTopic names the log that the metadata is kept in. It is no topic:
// clients do not see it.
const metadataTopic = "__cluster_metadata"

const metadataSegment = 8 << 20 // bytes; the log is rewritten as it grows, and old segments go

// metadataLog is the log behind the controller, one partition of the store. A
// call's records are one batch, so a crash leaves all of them or none.
type metadataLog struct{ log *storage.Log }

func openMetadataLog(store *storage.Store) (metadataLog, error) {
	cfg := storage.DefaultLogConfig()
	cfg.Delete = false // the controller trims it
	cfg.SegmentBytes, cfg.MaxMessageBytes = metadataSegment, metadataSegment
	id := [16]byte{15: 1} // Kafka's id of its metadata topic
	log, err := store.Create(metadataTopic, id, 0, cfg)
	if err != nil {
		return metadataLog{}, fmt.Errorf("open metadata log: %w", err)
	}
	log.SetConfig(cfg)
	return metadataLog{log}, nil
}

// Name is the log's directory.
func (m metadataLog) Name() string { return m.log.Dir() }

// Append writes records as one batch and waits until it is durable.
func (m metadataLog) Append(ctx context.Context, records [][]byte) (int64, error) {
	batch := make([]wire.Record, len(records))
	for i, r := range records {
		batch[i].Value = r
	}
	encoded, err := wire.EncodeBatch(nil, batch, wire.Plain(wire.CodecNone))
	if err != nil {
		return 0, fmt.Errorf("encode %d records: %w", len(records), err)
	}
	result, err := m.log.Append(encoded, 0, storage.AppendOptions{})
	if err != nil {
		return 0, err
	}
	return result.BaseOffset, m.log.WaitDurable(ctx, result.LastOffset)
}

// Read calls fn for every record.
func (m metadataLog) Read(ctx context.Context, fn func(offset int64, record []byte) error) error {
	return readLog(ctx, m.log, func(r wire.Record) error { return fn(r.Offset, r.Value) })
}

// Trim lets go of what stands before an offset.
func (m metadataLog) Trim(before int64) error { return m.log.DeleteBefore(before) }

// readLog calls fn for every record of a log from its start to its end, markers
// left out. fn keeps nothing of the record.
func readLog(ctx context.Context, log *storage.Log, fn func(wire.Record) error) error {
	return readBatches(ctx, log, func(b wire.Batch, r wire.Record) error {
		if b.IsControl() {
			return nil
		}
		return fn(r)
	})
}

// readBatches calls fn for every record of a log from its start to its end, with
// the batch that holds it. fn keeps nothing of either.
func readBatches(ctx context.Context, log *storage.Log, fn func(wire.Batch, wire.Record) error) error {
	var buf []byte
	for at, end := log.Start(), log.End(); at < end; {
		if err := ctx.Err(); err != nil {
			return err
		}
		slice, err := log.Read(at, 1<<20, true, end)
		if err != nil {
			return err
		}
		buf, err = slice.Bytes(buf[:0])
		slice.Release()
		if err != nil {
			return fmt.Errorf("read %s at %d: %w", log.Dir(), at, err)
		}
		next, err := eachRecord(buf, at, fn)
		if err != nil {
			return fmt.Errorf("read %s at %d: %w", log.Dir(), next, err)
		}
		if next == at {
			return fmt.Errorf("read %s at %d: no whole batch", log.Dir(), at)
		}
		at = next
	}
	return nil
}

// eachRecord calls fn for the records from offset from on in a run of batches,
// and returns the offset behind the last whole batch.
func eachRecord(buf []byte, from int64, fn func(wire.Batch, wire.Record) error) (next int64, err error) {
	next = from
	for {
		var batch wire.Batch
		batch, buf, err = wire.NextBatch(buf)
		if errors.Is(err, wire.ErrPartialBatch) {
			return next, nil
		}
		if err != nil {
			return next, err
		}
		if err := batch.CheckCRC(); err != nil { // recovery does not read again what an orderly stop left
			return next, err
		}
		records, err := batch.Records(defaultInflate)
		if err != nil {
			return next, err
		}
		for _, r := range records {
			if r.Offset < from {
				continue
			}
			if err := fn(batch, r); err != nil {
				return next, err
			}
		}
		next = batch.LastOffset() + 1
	}
}

// openMetadata opens the data directory and the controller, and reads the
// settings in force.
func (n *Node) openMetadata(ctx context.Context, cfg Config) (err error) {
	static := n.staticSettings(cfg)
	before := newSettings(func(name string) string { return static[name] })
	n.static = static
	n.store, err = storage.Open(storage.Options{
		Dir: cfg.DataDir, Cluster: cfg.Cluster, NodeID: cfg.NodeID,
		Fsync: cfg.Fsync, FsyncInterval: cfg.FsyncInterval,
		RetentionInterval: before.retentionCheck, ProducerExpiry: before.producerExpiry,
		Logger: n.logger,
	})
	if err != nil {
		return err
	}
	n.clusterID = n.store.ClusterID()
	log, err := openMetadataLog(n.store)
	if err != nil {
		return err
	}
	n.controller, err = replica.Open(ctx, replica.Options{
		Log: log, Brokers: []int32{n.id}, Static: static, Changed: n.topicsChanged, Logger: n.logger,
	})
	if err != nil {
		return err
	}
	// Each life leads in epochs of its own, so that clients notice a log that
	// may have lost its end (KIP-320).
	if err := n.controller.RenewLeadership(ctx, n.id); err != nil {
		return fmt.Errorf("begin new leader epochs: %w", err)
	}
	settings := n.controller.Settings(n.id)
	n.settings = newSettings(settings.Get)
	return nil
}

// closeMetadata closes what openMetadata opened.
func (n *Node) closeMetadata() error {
	if n.store == nil {
		return nil
	}
	return n.store.Close()
}
