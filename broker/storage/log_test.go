package storage_test

import (
	"bytes"
	"fmt"
	"hash/crc32"
	"io"
	"net"
	"os"
	"path/filepath"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/twmb/franz-go/pkg/kerr"

	"kmirror/broker/storage"
	"kmirror/internal/wire"
)

func crcOf(b wire.Batch) uint32 {
	return crc32.Checksum(b[21:], crc32.MakeTable(crc32.Castagnoli))
}

func TestAppendAndRead(t *testing.T) {
	s, l := newLog(t, nil)
	run(t, s)
	first := mustAppend(t, l, plain(t, now, "a", "b"))
	second := mustAppend(t, l, plain(t, now, "c"))
	if first.BaseOffset != 0 || first.LastOffset != 1 || second.BaseOffset != 2 || second.LastOffset != 2 {
		t.Errorf("offsets %+v, %+v", first, second)
	}
	mustSync(t, l)
	if l.HighWatermark() != 3 {
		t.Errorf("high watermark %d", l.HighWatermark())
	}
	if got := readAll(t, l, 1); !cmp.Equal(got, []string{"b", "c"}) {
		t.Errorf("read %q", got)
	}
	_, err := l.Read(4, 100, true, l.HighWatermark())
	wantCode(t, err, kerr.OffsetOutOfRange)
	slice, err := l.Read(3, 100, true, l.HighWatermark())
	if err != nil || slice.Len != 0 {
		t.Errorf("at the end: %+v, %v", slice, err)
	}
}

func TestReadHonoursItsBounds(t *testing.T) {
	_, l := newLog(t, func(o *storage.Options, c *storage.LogConfig) { o.Fsync = storage.FsyncNever; c.SegmentBytes = 4000 })
	for i := range 100 {
		mustAppend(t, l, plain(t, now, fmt.Sprint(i), "x"))
	}
	if l.Segments() < 2 {
		t.Fatal("want several segments")
	}
	size := len(plain(t, now, "00", "x"))
	for offset := range l.End() {
		for _, upTo := range []int64{offset, offset + 1, offset + 7, l.End()} {
			slice, err := l.Read(offset, 3*size, false, upTo)
			if err != nil {
				t.Fatal(err)
			}
			content, err := slice.Bytes(nil)
			if err != nil {
				t.Fatal(err)
			}
			last := int64(-1)
			for rest := content; len(rest) > 0; {
				var b wire.Batch
				if b, rest, err = wire.NextBatch(rest); err != nil {
					break
				}
				last = b.LastOffset()
			}
			slice.Release()
			if len(content) > 3*size || last >= upTo {
				t.Fatalf("read %d up to %d: %d bytes, last offset %d", offset, upTo, len(content), last)
			}
			if upTo >= offset+2 && slice.FirstOffset > offset {
				t.Fatalf("read %d up to %d begins at %d", offset, upTo, slice.FirstOffset)
			}
		}
	}
	slice, err := l.Read(0, 10, false, l.End())
	if err != nil || slice.Len != 0 {
		t.Errorf("a batch larger than the limit: %+v, %v", slice, err)
	}
	slice, err = l.Read(0, 10, true, l.End())
	if err != nil || slice.Len != slice.FirstSize || slice.Len == 0 {
		t.Errorf("a batch larger than the limit, wanted whole: %+v, %v", slice, err)
	}
	slice.Release()
}

func TestReopenInOrder(t *testing.T) {
	s, l := newLog(t, func(_ *storage.Options, c *storage.LogConfig) { c.SegmentBytes = 1000 })
	want := []string{}
	for i := range 50 {
		mustAppend(t, l, plain(t, now+int64(i), fmt.Sprint(i)))
		want = append(want, fmt.Sprint(i))
	}
	if err := l.AssignEpoch(7); err != nil {
		t.Fatal(err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	s = mustOpen(t, storage.Options{Dir: s.Dir(), NodeID: 1, Now: clockAt(now)})
	l = s.Log("orders", 0)
	if l == nil || l.TopicID() != topicID {
		t.Fatal("the log or its id is gone")
	}
	if got := readAll(t, l, 0); !cmp.Equal(got, want) {
		t.Errorf("read %q", got)
	}
	if l.HighWatermark() != 50 {
		t.Errorf("high watermark %d", l.HighWatermark())
	}
	r := mustAppendEpoch(t, l, plain(t, now, "x"), 7)
	if r.BaseOffset != 50 {
		t.Errorf("next offset %d", r.BaseOffset)
	}
}

func mustAppendEpoch(t testing.TB, l *storage.Log, b wire.Batch, epoch int32) storage.AppendResult {
	t.Helper()
	r, err := l.Append(b, epoch, storage.AppendOptions{FromClient: true})
	if err != nil {
		t.Fatalf("append: %v", err)
	}
	return r
}

func TestSliceOutlivesItsLog(t *testing.T) {
	s, l := newLog(t, func(_ *storage.Options, c *storage.LogConfig) { c.FileDeleteDelay = 0 })
	mustAppend(t, l, plain(t, now, "a"))
	mustSync(t, l)
	slice, err := l.Read(0, 1000, true, 1)
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Delete("orders", 0); err != nil {
		t.Fatal(err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	if left, _ := filepath.Glob(filepath.Join(s.Dir(), "orders*")); len(left) > 0 {
		t.Errorf("left behind: %q", left)
	}
	content, err := slice.Bytes(nil)
	if err != nil || len(content) != slice.Len {
		t.Errorf("after deletion: %d bytes, %v", len(content), err)
	}
	slice.Release()
	_, err = l.Append(plain(t, now, "b"), 0, storage.AppendOptions{})
	wantCode(t, err, kerr.KafkaStorageError)
	_, err = l.Read(0, 100, true, 1)
	wantCode(t, err, kerr.KafkaStorageError)
}

func TestSliceToSocket(t *testing.T) {
	_, l := newLog(t, func(o *storage.Options, _ *storage.LogConfig) { o.Fsync = storage.FsyncNever })
	payload := string(bytes.Repeat([]byte("0123456789"), 50_000))
	mustAppend(t, l, plain(t, now, payload))
	mustAppend(t, l, plain(t, now, payload+"2"))
	slice, err := l.Read(1, 1<<20, true, 2)
	if err != nil {
		t.Fatal(err)
	}
	defer slice.Release()
	want, err := slice.Bytes(nil)
	if err != nil {
		t.Fatal(err)
	}
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	received := make(chan []byte, 1)
	go func() {
		conn, err := listener.Accept()
		if err != nil {
			return
		}
		defer conn.Close()
		content, _ := io.ReadAll(conn)
		received <- content
	}()
	conn, err := net.Dial("tcp", listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	n, err := slice.WriteTo(conn)
	_ = conn.Close()
	if err != nil || n != int64(slice.Len) {
		t.Errorf("sent %d of %d: %v", n, slice.Len, err)
	}
	if got := <-received; !bytes.Equal(got, want) {
		t.Errorf("received %d bytes, other than the %d sent", len(got), len(want))
	}
	var buffer bytes.Buffer
	if n, err := slice.WriteTo(&buffer); err != nil || n != int64(slice.Len) || !bytes.Equal(buffer.Bytes(), want) {
		t.Errorf("copied %d of %d: %v", n, slice.Len, err)
	}
}

func TestDeletedTopicComesBackEmpty(t *testing.T) {
	s, l := newLog(t, nil)
	mustAppend(t, l, plain(t, now, "a"))
	if err := s.Delete("orders", 0); err != nil {
		t.Fatal(err)
	}
	if s.Log("orders", 0) != nil || len(s.Logs()) != 0 {
		t.Error("still listed")
	}
	other := topicID
	other[0]++
	l, err := s.Create("orders", other, 0, storage.DefaultLogConfig())
	if err != nil {
		t.Fatal(err)
	}
	if l.End() != 0 {
		t.Errorf("end %d", l.End())
	}
	_, err = s.Create("orders", topicID, 0, storage.DefaultLogConfig())
	wantCode(t, err, kerr.KafkaStorageError)
	if _, err := s.Create("../escape", topicID, 0, storage.DefaultLogConfig()); err == nil {
		t.Error("a topic name led out of the directory")
	}
	if _, err := os.Stat(filepath.Join(s.Dir(), "orders-0", "partition.metadata")); err != nil {
		t.Error(err)
	}
}

// TestNameIsReused deletes a partition whose checkpoints are high and makes one
// of the same name, which must not inherit them.
func TestNameIsReused(t *testing.T) {
	s, l := newLog(t, nil)
	for i := range 10 {
		mustAppend(t, l, plain(t, now, fmt.Sprint(i)))
	}
	mustSync(t, l)
	if err := l.DeleteBefore(8); err != nil {
		t.Fatal(err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	s, _ = reopen(t, s.Dir())
	defer s.Close()
	if err := s.Delete("orders", 0); err != nil {
		t.Fatal(err)
	}
	other := [16]byte{9}
	l, err := s.Create("orders", other, 0, storage.DefaultLogConfig())
	if err != nil {
		t.Fatal(err)
	}
	mustAppend(t, l, plain(t, now, "new"))
	mustSync(t, l)
	s2, l2 := reopen(t, copyDir(t, s.Dir()))
	defer s2.Close()
	if got := readAll(t, l2, l2.Start()); !cmp.Equal(got, []string{"new"}) || l2.Start() != 0 {
		t.Errorf("read %q from %d", got, l2.Start())
	}
}

// TestManyPartitions keeps few files open and few indexes in memory.
func TestManyPartitions(t *testing.T) {
	o := storage.Options{Dir: filepath.Join(t.TempDir(), "data"), NodeID: 1, Fsync: storage.FsyncNever, OpenFiles: 8, IndexBytes: 2000, Now: clockAt(now)}
	s := mustOpen(t, o)
	cfg := storage.DefaultLogConfig()
	cfg.SegmentBytes, cfg.IndexIntervalBytes = 1000, 50
	const partitions, batches = 50, 40
	open := func() int {
		entries, err := os.ReadDir("/proc/self/fd")
		if err != nil {
			t.Skip("no /proc: ", err)
		}
		return len(entries)
	}
	before := open()
	for round := range 2 {
		stop := run(t, s)
		for i := range batches {
			for p := range int32(partitions) {
				l, err := s.Create("orders", topicID, p, cfg)
				if err != nil {
					t.Fatal(err)
				}
				mustAppend(t, l, plain(t, now, fmt.Sprint(round*batches+i)))
			}
		}
		for p := range int32(partitions) {
			if got := readAll(t, s.Log("orders", p), 0); len(got) != (round+1)*batches {
				t.Fatalf("partition %d: %d records", p, len(got))
			}
		}
		stop()
		if n := open() - before; n > 20 {
			t.Errorf("%d more files are open", n)
		}
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
		s = mustOpen(t, o)
	}
}

// TestReadersAndWriters runs appends, reads, waits, retention and deletion at
// once; the race detector looks on.
func TestReadersAndWriters(t *testing.T) {
	f := newFaultFS()
	f.lazy = true
	s, l := newLog(t, func(o *storage.Options, c *storage.LogConfig) {
		o.FS, o.OpenFiles, o.IndexBytes = f, 2, 500
		c.SegmentBytes, c.IndexIntervalBytes, c.RetentionBytes, c.FileDeleteDelay = 2000, 100, 6000, 0
	})
	stop := run(t, s)
	var wait sync.WaitGroup
	done := make(chan struct{})
	for p := range 3 {
		wait.Go(func() {
			for i := range 300 {
				r, err := l.Append(numbered(t, int64(p), 0, int32(i), 1), 0, storage.AppendOptions{FromClient: true})
				if err == nil && i%10 == 0 {
					err = l.WaitDurable(t.Context(), r.LastOffset)
				}
				if err != nil {
					t.Error(err)
				}
			}
		})
	}
	var readers sync.WaitGroup
	for range 3 {
		readers.Go(func() {
			w := storage.NewWaiter()
			l.Watch(w)
			defer l.Unwatch(w)
			offset := int64(0)
			for {
				slice, err := l.Read(offset, 700, true, l.HighWatermark())
				if codeOf(err) == kerr.OffsetOutOfRange.Code {
					offset = l.Start()
					continue
				}
				if err != nil {
					t.Error(err)
					return
				}
				content, err := slice.Bytes(nil)
				slice.Release()
				if err != nil {
					t.Error(err)
				}
				for len(content) > 0 {
					b, rest, err := wire.NextBatch(content)
					if err != nil {
						break // cut at the limit
					}
					if err := b.CheckCRC(); err != nil || b.LastOffset() < offset {
						t.Errorf("at %d: %d, %v", offset, b.LastOffset(), err)
						return
					}
					offset, content = b.LastOffset()+1, rest
				}
				if offset == l.HighWatermark() {
					select {
					case <-w.C:
					case <-done:
						return
					}
				}
			}
		})
	}
	readers.Go(func() {
		for {
			select {
			case <-done:
				return
			default:
				s.Expire()
				_, _, _, _ = l.OffsetForTime(now)
				_, _, _, _ = l.MaxTimestamp()
				_ = l.DeleteBefore(l.Start() + 1)
				_ = l.Producers()
				_ = l.Size()
			}
		}
	})
	wait.Wait()
	mustSync(t, l)
	close(done)
	readers.Wait()
	stop()
	if l.End() != 900 {
		t.Errorf("end %d", l.End())
	}
}
