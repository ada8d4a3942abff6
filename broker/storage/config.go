package storage

import (
	"math"
	"time"
)

// LogConfig are the topic settings that a log heeds, in Kafka's meaning. Sizes
// are bytes, times milliseconds, -1 means no limit where Kafka says so.
type LogConfig struct {
	SegmentBytes       int   // segment.bytes
	SegmentMillis      int64 // segment.ms
	SegmentIndexBytes  int   // segment.index.bytes
	IndexIntervalBytes int   // index.interval.bytes
	MaxMessageBytes    int   // max.message.bytes: largest batch

	RetentionMillis int64 // retention.ms, -1: keep for ever
	RetentionBytes  int64 // retention.bytes, -1: no limit
	Delete          bool  // cleanup.policy contains delete
	Compact         bool  // cleanup.policy contains compact: records need keys

	LogAppendTime      bool          // message.timestamp.type
	TimestampBeforeMax int64         // message.timestamp.before.max.ms
	TimestampAfterMax  int64         // message.timestamp.after.max.ms
	Compression        string        // compression.type: producer (also ""), uncompressed, gzip, snappy, lz4, zstd
	FileDeleteDelay    time.Duration // file.delete.delay.ms
}

// DefaultLogConfig is the configuration of a topic that sets nothing.
func DefaultLogConfig() LogConfig {
	return LogConfig{
		SegmentBytes:       1 << 30,
		SegmentMillis:      7 * 24 * 3600 * 1000,
		SegmentIndexBytes:  10 << 20,
		IndexIntervalBytes: 4096,
		MaxMessageBytes:    1048588,
		RetentionMillis:    7 * 24 * 3600 * 1000,
		RetentionBytes:     -1,
		Delete:             true,
		TimestampBeforeMax: math.MaxInt64,
		TimestampAfterMax:  3600 * 1000,
		Compression:        "producer",
		FileDeleteDelay:    time.Minute,
	}
}

// sane replaces what cannot work by the nearest that can.
func (c LogConfig) sane() LogConfig {
	d := DefaultLogConfig()
	if c.SegmentBytes <= 0 {
		c.SegmentBytes = d.SegmentBytes
	}
	c.SegmentBytes = min(c.SegmentBytes, math.MaxInt32)
	if c.SegmentMillis <= 0 {
		c.SegmentMillis = d.SegmentMillis
	}
	if c.SegmentIndexBytes < timeEntrySize {
		c.SegmentIndexBytes = d.SegmentIndexBytes
	}
	if c.IndexIntervalBytes < 0 {
		c.IndexIntervalBytes = d.IndexIntervalBytes
	}
	if c.MaxMessageBytes <= 0 {
		c.MaxMessageBytes = d.MaxMessageBytes
	}
	return c
}
