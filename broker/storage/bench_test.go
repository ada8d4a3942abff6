package storage_test

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"

	"kmirror/broker/storage"
	"kmirror/internal/wire"
)

// benchBatch is 64 records of 1 KB.
func benchBatch(b *testing.B) wire.Batch {
	rs := make([]wire.Record, 64)
	for i := range rs {
		rs[i] = wire.Record{Timestamp: now, Key: []byte("key"), Value: []byte(strings.Repeat("v", 1000))}
	}
	return batchOf(b, plainOptions(), rs...)
}

func benchLog(b *testing.B, fsync storage.Fsync) (*storage.Store, *storage.Log) {
	s, l := newLog(b, func(o *storage.Options, c *storage.LogConfig) {
		o.Fsync = fsync
		c.SegmentBytes, c.RetentionBytes, c.FileDeleteDelay = 64<<20, 256<<20, 0
	})
	run(b, s)
	return s, l
}

// BenchmarkAppend appends batches of 64 KB. Under batch every producer waits
// for its own to be durable before the next, and eight do so at once.
func BenchmarkAppend(b *testing.B) {
	b.Run("never", func(b *testing.B) {
		s, l := benchLog(b, storage.FsyncNever)
		batch := benchBatch(b)
		b.SetBytes(int64(len(batch)))
		b.ReportAllocs()
		for n := 0; b.Loop(); n++ {
			batch.SetBaseOffset(0)
			if _, err := l.Append(batch, 0, storage.AppendOptions{FromClient: true}); err != nil {
				b.Fatal(err)
			}
			if n%4096 == 4095 {
				b.StopTimer()
				s.Expire()
				b.StartTimer()
			}
		}
	})
	for _, partitions := range []int{1, 8} {
		b.Run(fmt.Sprintf("batch/partitions=%d", partitions), func(b *testing.B) {
			s, l := benchLog(b, storage.FsyncBatch)
			logs := []*storage.Log{l}
			for p := 1; p < partitions; p++ {
				l, err := s.Create("orders", topicID, int32(p), l.Config())
				if err != nil {
					b.Fatal(err)
				}
				logs = append(logs, l)
			}
			var next atomic.Int32
			b.SetBytes(int64(len(benchBatch(b))))
			b.ReportAllocs()
			b.SetParallelism(4) // eight producers on two cores
			b.RunParallel(func(pb *testing.PB) {
				l, batch := logs[int(next.Add(1))%partitions], benchBatch(b)
				for pb.Next() {
					batch.SetBaseOffset(0)
					r, err := l.Append(batch, 0, storage.AppendOptions{FromClient: true})
					if err == nil {
						err = l.WaitDurable(b.Context(), r.LastOffset)
					}
					if err != nil {
						b.Error(err)
						return
					}
				}
			})
		})
	}
}

// BenchmarkRead reads 1 MB at a time: to find it, and with its bytes.
func BenchmarkRead(b *testing.B) {
	_, l := benchLog(b, storage.FsyncNever)
	for range 1500 {
		if _, err := l.Append(benchBatch(b), 0, storage.AppendOptions{FromClient: true}); err != nil {
			b.Fatal(err)
		}
	}
	for _, copied := range []bool{false, true} {
		b.Run(fmt.Sprintf("copied=%v", copied), func(b *testing.B) {
			buf := make([]byte, 0, 2<<20)
			offset := int64(0)
			b.ReportAllocs()
			for b.Loop() {
				slice, err := l.Read(offset, 1<<20, true, l.HighWatermark())
				if err != nil {
					b.Fatal(err)
				}
				b.SetBytes(int64(slice.Len))
				if copied {
					if _, err := slice.Bytes(buf); err != nil {
						b.Fatal(err)
					}
				}
				slice.Release()
				if offset += 64 * 15; offset >= l.End() {
					offset = 0
				}
			}
		})
	}
}

// BenchmarkOpen opens an empty directory, and one with a thousand partitions
// that was closed in order.
func BenchmarkOpen(b *testing.B) {
	b.Run("empty", func(b *testing.B) {
		root := b.TempDir()
		for n := 0; b.Loop(); n++ {
			s, err := storage.Open(storage.Options{Dir: filepath.Join(root, fmt.Sprint(n))})
			if err != nil {
				b.Fatal(err)
			}
			b.StopTimer()
			_ = s.Close()
			b.StartTimer()
		}
	})
	for _, clean := range []bool{true, false} {
		b.Run(fmt.Sprintf("partitions=1000/clean=%v", clean), func(b *testing.B) {
			o := storage.Options{Dir: filepath.Join(b.TempDir(), "data"), Fsync: storage.FsyncNever}
			s, err := storage.Open(o)
			if err != nil {
				b.Fatal(err)
			}
			for p := range int32(1000) {
				l, err := s.Create("orders", topicID, p, storage.DefaultLogConfig())
				if err != nil {
					b.Fatal(err)
				}
				mustAppend(b, l, numbered(b, 1, 0, 0, 10))
			}
			if err := s.Close(); err != nil {
				b.Fatal(err)
			}
			for b.Loop() {
				if !clean {
					if err := os.Remove(filepath.Join(o.Dir, ".kafka_cleanshutdown")); err != nil {
						b.Fatal(err)
					}
				}
				s, err := storage.Open(o)
				if err != nil {
					b.Fatal(err)
				}
				b.StopTimer()
				if err := s.Close(); err != nil {
					b.Fatal(err)
				}
				b.StartTimer()
			}
		})
	}
}
