// Package storage keeps partition logs on disk in Apache Kafka's own format:
// 20-digit segment files of record batches, sparse offset and time indexes,
// transaction indexes, producer snapshots, leader epochs and checkpoints.
// Kafka's tools read them.
//
// Its promises:
//
//   - A batch is stored as it came. Append changes header fields in place and
//     writes straight from the caller's buffer; nothing is copied.
//   - What WaitDurable has let through survives a crash: under FsyncBatch it
//     stands below what fdatasync has covered. The high watermark never runs
//     ahead of that, so nobody reads a record that could still vanish.
//   - After a crash, Open cuts each log at the first batch that is not whole
//     and right, and rebuilds indexes and producer state from what remains.
//   - A failed fdatasync is never taken back: its log is read-only from then on
//     and says why. A full disk fails single appends and leaves no torn bytes.
//   - A transaction's records are committed for readers once its marker is safe,
//     and not before: the last stable offset never passes an undecided one, and
//     with every aborted one in what is read comes word of it. Batches of a
//     transaction that nobody verified, of a producer that was fenced, or markers
//     of a coordinator that was, are refused by Kafka's rules.
//   - Readers take no lock. A [Slice] stays readable until it is released, also
//     when retention or topic deletion takes the file away meanwhile.
//
// It knows neither network nor requests, and of the cluster only names and ids.
//
// Lock order: Store.flushMu, Log.flushMu, Log.mu, Store.mu, segment.mu, then the
// leaves (clock.mu, segment.timeMu, Log.watchMu, Store.dirtyMu, Store.roundMu,
// trash.mu); Store.pointMu before Store.startMu before Store.mu. Log.mu is held
// over the write of an append, which is what serialises a partition, and over
// what must be durable before a new segment begins.
package storage

import (
	"log/slog"
	"time"
)

// Fsync says when appended bytes are forced to disk.
type Fsync int8

// The ways to force bytes to disk.
const (
	FsyncBatch    Fsync = iota // before WaitDurable lets a batch through; many batches share one fdatasync
	FsyncInterval              // every FsyncInterval; a power failure may lose that much
	FsyncNever                 // when the operating system likes; sealed segments and an orderly stop are still forced
)

// Options say where a store is and how it behaves. Dir is required.
type Options struct {
	Dir       string
	Cluster   string // the cluster's name in the configuration, checked against the directory's when not empty
	ClusterID string // expected id; empty: take the directory's, or make one
	NodeID    int32

	Fsync              Fsync
	FsyncInterval      time.Duration // default 1 s
	RetentionInterval  time.Duration // default 5 min
	CheckpointInterval time.Duration // default 1 min
	ProducerExpiry     time.Duration // default 24 h (producer.id.expiration.ms)
	OpenFiles          int           // cap of idle open segment files, default 4096
	IndexBytes         int64         // cap of cached indexes of sealed segments, default 64 MiB

	Logger *slog.Logger     // default: discard
	Now    func() time.Time // default: time.Now
	FS     FS               // default: the operating system's
}

func (o *Options) setDefaults() {
	if o.FsyncInterval <= 0 {
		o.FsyncInterval = time.Second
	}
	if o.RetentionInterval <= 0 {
		o.RetentionInterval = 5 * time.Minute
	}
	if o.CheckpointInterval <= 0 {
		o.CheckpointInterval = time.Minute
	}
	if o.ProducerExpiry <= 0 {
		o.ProducerExpiry = 24 * time.Hour
	}
	if o.OpenFiles <= 0 {
		o.OpenFiles = 4096
	}
	if o.IndexBytes <= 0 {
		o.IndexBytes = 64 << 20
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	if o.Now == nil {
		o.Now = time.Now
	}
	if o.FS == nil {
		o.FS = OSFS{}
	}
}
