package storage_test

import (
	"context"
	"fmt"
	"io"
	"maps"
	"net"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"kmirror/broker/storage"
	"kmirror/internal/wire"
)

// TestCommittedSliceToSocket sends what read_committed sees by sendfile.
func TestCommittedSliceToSocket(t *testing.T) {
	s := newStory(t)
	s.plain(9, 0, 0, 3, "0")
	s.data(1, 0, 0, 2, "3")
	s.marker(storage.Marker{ProducerID: 1, Epoch: 1}, "5")
	s.plain(9, 0, 3, 1, "6")
	s.data(2, 0, 0, 2, "7")
	s.plain(9, 0, 4, 1, "9")

	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = listener.Close() }()
	got := make(chan []byte, 1)
	go func() {
		conn, err := listener.Accept()
		if err != nil {
			got <- nil
			return
		}
		defer func() { _ = conn.Close() }()
		content, _ := io.ReadAll(conn)
		got <- content
	}()
	conn, err := net.Dial("tcp", listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	slice, list, err := s.l.ReadCommitted(1, 1<<20, true)
	if err != nil {
		t.Fatal(err)
	}
	defer slice.Release()
	if want := []storage.AbortedTransaction{{ProducerID: 1, FirstOffset: 3}}; !cmp.Equal(list, want) {
		t.Errorf("aborted %v, want %v", list, want)
	}
	if _, err := slice.WriteTo(conn); err != nil {
		t.Fatal(err)
	}
	_ = conn.Close()
	last := int64(-1)
	for rest := <-got; len(rest) > 0; {
		var b wire.Batch
		if b, rest, err = wire.NextBatch(rest); err != nil {
			t.Fatal(err)
		}
		last = b.LastOffset()
	}
	if last != 6 {
		t.Errorf("sent up to %d, want 6", last)
	}
}

// TestCommittedReadersAndWriters: while transactions come and go, a reader sees
// those committed, whole and in order, and nothing else.
func TestCommittedReadersAndWriters(t *testing.T) {
	for name, fsync := range map[string]storage.Fsync{"batch": storage.FsyncBatch, "never": storage.FsyncNever} {
		t.Run(name, func(t *testing.T) {
			f := newFaultFS()
			f.lazy = true
			s, l := newLog(t, func(o *storage.Options, c *storage.LogConfig) {
				o.Fsync, o.FS, o.IndexBytes = fsync, f, 2000
				c.SegmentBytes, c.IndexIntervalBytes = 4000, 200
			})
			run(t, s)
			const writers, transactions = 4, 60
			var done atomic.Int32
			var wait sync.WaitGroup
			for id := range int64(writers) {
				wait.Go(func() {
					defer done.Add(1)
					for n := range transactions {
						epoch := int16(n)
						for part := range int32(3) {
							r, err := appendVerified(l, transactional(t, id, epoch, part, 1))
							if err != nil {
								t.Errorf("producer %d: %v", id, err)
								return
							}
							if part == 2 {
								_ = l.WaitDurable(t.Context(), r.LastOffset)
							}
						}
						if _, err := l.AppendMarker(storage.Marker{ProducerID: id, Epoch: epoch + 1, Commit: n%2 == 0, TransactionVersion: 2}, 0); err != nil {
							t.Errorf("producer %d: %v", id, err)
							return
						}
					}
				})
			}
			for range 2 {
				wait.Go(func() { readWhileWritten(t, l, &done, writers, transactions) })
			}
			wait.Wait()
			mustSync(t, l)
			if stable := l.LastStableOffset(); stable != l.End() {
				t.Errorf("in the end: last stable offset %d, end %d", stable, l.End())
			}
		})
	}
}

// readWhileWritten reads committed records until the writers are done.
func readWhileWritten(t *testing.T, l *storage.Log, done *atomic.Int32, writers int32, transactions int) {
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	w := storage.NewWaiter()
	l.Watch(w)
	defer l.Unwatch(w)
	offset := int64(0)
	next := make(map[int64]int) // producer to the number of its records so far
	for {
		last := done.Load() == writers
		if last {
			mustSync(t, l)
		}
		before := l.LastStableOffset()
		seen := readCommitted(t, l, offset, 700)
		for _, at := range slices.Sorted(maps.Keys(seen)) {
			var id int64
			var epoch, sequence int
			if _, err := fmt.Sscanf(seen[at], "t%d-e%d-%d", &id, &epoch, &sequence); err != nil {
				t.Errorf("value %q", seen[at])
				return
			}
			if n := next[id]; epoch != n/3*2 || sequence != n%3 {
				t.Errorf("record %d of producer %d is %q", n, id, seen[at])
				return
			}
			next[id]++
			offset = max(offset, at+1)
		}
		if after := l.LastStableOffset(); after < before {
			t.Errorf("last stable offset fell from %d to %d", before, after)
		}
		if last {
			break
		}
		select {
		case <-w.C:
		case <-time.After(10 * time.Millisecond): // the writers may be done
		case <-ctx.Done():
			t.Error("the writers do not end")
			return
		}
	}
	for id, n := range next {
		if n != transactions/2*3 {
			t.Errorf("%d committed records of producer %d", n, id)
		}
	}
	if len(next) != int(writers) {
		t.Errorf("producers %v", next)
	}
}
