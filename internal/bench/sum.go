package bench

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/maphash"
	"slices"
	"time"

	"golang.org/x/sync/errgroup"

	"kmirror/internal/kafka"
	"kmirror/internal/wire"
)

const (
	// every so many records a sum notes itself, so that a difference has a place.
	every = 1000
	// readers is how many partitions are read at the same time.
	readers = 4
	// inflateLimit bounds what one batch may hold uncompressed, in bytes.
	inflateLimit = 64 << 20
)

// Sum is what one partition holds: the records in their order, condensed.
type Sum struct {
	Records, Batches, Markers int64
	Bytes                     int64    // of the batches as they are stored
	marks                     []uint64 // the hash of all records so far: after every 1000 of them, and at the end
}

// Log is what a topic holds, by partition.
type Log []Sum

// Total adds up what the partitions hold, without their hashes.
func (l Log) Total() (t Sum) {
	for _, s := range l {
		t.Records += s.Records
		t.Batches += s.Batches
		t.Markers += s.Markers
		t.Bytes += s.Bytes
	}
	return t
}

// Compare says where a copy differs from this partition; empty: nowhere.
func (s Sum) Compare(mirrored Sum) string {
	at := int64(0)
	for i := range min(len(s.marks), len(mirrored.marks)) {
		if s.marks[i] != mirrored.marks[i] {
			return fmt.Sprintf("%d records, the copy %d; the first difference is among the records %d to %d", s.Records, mirrored.Records, at, at+every-1)
		}
		at += every
	}
	if s.Records != mirrored.Records {
		return fmt.Sprintf("%d records, the copy %d; as far as both go, they are the same", s.Records, mirrored.Records)
	}
	return ""
}

// Compare says where a copy of a topic differs from it; empty: nowhere.
func (l Log) Compare(mirrored Log) string {
	if len(l) != len(mirrored) {
		return fmt.Sprintf("%d partitions, the copy %d", len(l), len(mirrored))
	}
	for i := range l {
		if what := l[i].Compare(mirrored[i]); what != "" {
			return fmt.Sprintf("partition %d: %s", i, what)
		}
	}
	return ""
}

// Reader reads topics into sums that can be compared with each other.
type Reader struct{ seed maphash.Seed }

// NewReader makes one; sums of two readers differ whatever they read.
func NewReader() *Reader { return &Reader{maphash.MakeSeed()} }

// Read reads all partitions of a topic from their start to what is the end by
// then; markers are no records. atLeast: a partition that holds fewer records
// than that one is waited for, a few seconds long; nil: none is.
func (r *Reader) Read(ctx context.Context, cluster *kafka.Cluster, topic string, atLeast Log) (Log, error) {
	leaders, err := leadersOf(ctx, cluster, topic)
	if err != nil {
		return nil, err
	}
	log := make(Log, len(leaders))
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(readers)
	for i := range leaders {
		g.Go(func() error {
			var wanted int64
			if i < len(atLeast) {
				wanted = atLeast[i].Records
			}
			sum, err := r.partition(ctx, cluster, topic, int32(i), wanted)
			log[i] = sum
			return err
		})
	}
	return log, g.Wait()
}

// patience is how long a partition is waited for that holds too little.
const patience = 5 * time.Second

func (r *Reader) partition(ctx context.Context, cluster *kafka.Cluster, topic string, partition int32, wanted int64) (Sum, error) {
	s := summing{reader: r}
	s.hash.SetSeed(r.seed)
	var offset, gone int64
	idle := time.Now()
	for {
		fetched, err := cluster.Fetch(ctx, topic, partition, offset, 8<<20, false, 0)
		if err = errors.Join(err, fetched.Err); err != nil {
			return Sum{}, fmt.Errorf("read %s/%d at %d: %w", topic, partition, offset, err)
		}
		before := offset
		if offset, err = s.take(fetched.Records, offset); err != nil {
			return Sum{}, fmt.Errorf("read %s/%d at %d: %w", topic, partition, offset, err)
		}
		switch {
		case offset != before:
			idle = time.Now()
		case offset < fetched.HighWatermark:
			// Compaction may leave nothing where there were offsets.
			if gone++; gone > 100 {
				return Sum{}, fmt.Errorf("read %s/%d: nothing comes at %d, and the end is at %d", topic, partition, offset, fetched.HighWatermark)
			}
		case s.sum.Records >= wanted, time.Since(idle) > patience:
			return s.done(), nil
		default:
			select {
			case <-ctx.Done():
				return Sum{}, context.Cause(ctx)
			case <-time.After(20 * time.Millisecond):
			}
		}
	}
}

// summing is the sum of a partition while it is read.
type summing struct {
	reader *Reader
	sum    Sum
	hash   maphash.Hash
}

// take adds the batches of one fetch and returns the offset behind the last.
func (s *summing) take(records []byte, from int64) (next int64, err error) {
	next = from
	for {
		batch, rest, err := wire.NextBatch(records)
		if errors.Is(err, wire.ErrPartialBatch) {
			return next, nil
		}
		if err != nil {
			return next, err
		}
		records = rest
		if batch.LastOffset() < from {
			continue
		}
		if err := s.add(batch, from); err != nil {
			return next, err
		}
		next = batch.LastOffset() + 1
	}
}

func (s *summing) add(batch wire.Batch, from int64) error {
	if batch.IsControl() {
		s.sum.Markers++
		return nil
	}
	if err := batch.CheckCRC(); err != nil {
		return err
	}
	records, err := batch.Records(inflateLimit)
	if err != nil {
		return err
	}
	s.sum.Batches++
	s.sum.Bytes += int64(batch.Size())
	for i := range records {
		if r := &records[i]; r.Offset >= from {
			s.record(r)
		}
	}
	return nil
}

func (s *summing) record(r *wire.Record) {
	s.number(r.Timestamp)
	s.bytes(r.Key)
	s.bytes(r.Value)
	s.number(int64(len(r.Headers)))
	for _, h := range r.Headers {
		s.bytes([]byte(h.Key))
		s.bytes(h.Value)
	}
	if s.sum.Records++; s.sum.Records%every == 0 {
		s.sum.marks = append(s.sum.marks, s.hash.Sum64())
	}
}

// bytes tells null from empty, and where one ends and the next begins.
func (s *summing) bytes(b []byte) {
	length := int64(len(b))
	if b == nil {
		length = -1
	}
	s.number(length)
	_, _ = s.hash.Write(b) // a hash takes everything
}

func (s *summing) number(n int64) {
	var b [8]byte
	binary.LittleEndian.PutUint64(b[:], uint64(n))
	_, _ = s.hash.Write(b[:])
}

func (s *summing) done() Sum {
	s.sum.marks = append(slices.Clip(s.sum.marks), s.hash.Sum64())
	return s.sum
}
