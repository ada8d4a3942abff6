package storage_test

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/twmb/franz-go/pkg/kerr"

	"kmirror/broker/storage"
	"kmirror/internal/wire"
)

// crashed is a data directory as a killed process left it: five batches of a
// producer, the last beginning at lastAt and offset 8 of a log of 10 records.
func crashed(t testing.TB) (dir string, lastAt int64) {
	t.Helper()
	s, l := newLog(t, nil)
	for i := range 4 {
		mustAppend(t, l, numbered(t, 7, 0, int32(2*i), 2))
	}
	mustSync(t, l)
	lastAt = l.Size()
	mustAppend(t, l, numbered(t, 7, 0, 8, 2))
	mustSync(t, l)
	return copyDir(t, s.Dir()), lastAt
}

func reopen(t testing.TB, dir string) (*storage.Store, *storage.Log) {
	t.Helper()
	s, err := storage.Open(storage.Options{Dir: dir, NodeID: 1, Now: clockAt(now)})
	if err != nil {
		t.Fatalf("open: %v", err)
	}
	l := s.Log("orders", 0)
	if l == nil {
		t.Fatal("the log is gone")
	}
	return s, l
}

const firstLog = "orders-0/00000000000000000000.log"

// TestTornTail cuts the file at every byte of the last batch.
func TestTornTail(t *testing.T) {
	dir, lastAt := crashed(t)
	whole := mustReadFile(t, dir, firstLog)
	for size := lastAt; size <= int64(len(whole)); size++ {
		copied := copyDir(t, dir)
		mustWriteFile(t, whole[:size], copied, firstLog)
		checkRecovered(t, copied, size == int64(len(whole)), fmt.Sprintf("cut at %d", size))
	}
}

// TestZeroTail leaves pages of zeros behind the last batch, and in its place.
func TestZeroTail(t *testing.T) {
	dir, lastAt := crashed(t)
	whole := mustReadFile(t, dir, firstLog)
	for _, zeros := range []int{1, 11, 61, 4096} {
		copied := copyDir(t, dir)
		mustWriteFile(t, append(append([]byte{}, whole...), make([]byte, zeros)...), copied, firstLog)
		checkRecovered(t, copied, true, fmt.Sprintf("%d zeros behind", zeros))
		copied = copyDir(t, dir)
		mustWriteFile(t, append(append([]byte{}, whole[:lastAt]...), make([]byte, zeros)...), copied, firstLog)
		checkRecovered(t, copied, false, fmt.Sprintf("%d zeros instead", zeros))
	}
}

// TestFlippedBits flips every bit of the last batch, header and all.
func TestFlippedBits(t *testing.T) {
	dir, lastAt := crashed(t)
	whole := mustReadFile(t, dir, firstLog)
	copied := copyDir(t, dir)
	for at := lastAt; at < int64(len(whole)); at++ {
		for bit := range 8 {
			flipped := append([]byte{}, whole...)
			flipped[at] ^= 1 << bit
			if err := os.RemoveAll(copied); err != nil {
				t.Fatal(err)
			}
			if err := os.CopyFS(copied, os.DirFS(dir)); err != nil {
				t.Fatal(err)
			}
			mustWriteFile(t, flipped, copied, firstLog)
			s, l := reopen(t, copied)
			if l.End() != 8 {
				t.Errorf("bit %d of byte %d: end %d", bit, at-lastAt, l.End())
			}
			if err := s.Close(); err != nil {
				t.Fatal(err)
			}
		}
	}
}

func checkRecovered(t *testing.T, dir string, withLast bool, what string) {
	t.Helper()
	s, l := reopen(t, dir)
	defer func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	}()
	want := []string{"p7-e0-0", "p7-e0-1", "p7-e0-2", "p7-e0-3", "p7-e0-4", "p7-e0-5", "p7-e0-6", "p7-e0-7", "p7-e0-8", "p7-e0-9"}
	if !withLast {
		want = want[:8]
	}
	if got := readAll(t, l, 0); !cmp.Equal(got, want) {
		t.Fatalf("%s: read %q", what, got)
	}
	if l.HighWatermark() != int64(len(want)) {
		t.Fatalf("%s: high watermark %d", what, l.HighWatermark())
	}
	// The producer state is that of the records: what was kept is known, what
	// was lost is expected next.
	again, err := l.Append(numbered(t, 7, 0, 6, 2), 0, storage.AppendOptions{FromClient: true})
	if err != nil || !again.Duplicate || again.BaseOffset != 6 {
		t.Fatalf("%s: a kept batch again: %+v, %v", what, again, err)
	}
	last, err := l.Append(numbered(t, 7, 0, 8, 2), 0, storage.AppendOptions{FromClient: true})
	if err != nil || last.Duplicate != withLast || last.BaseOffset != 8 {
		t.Fatalf("%s: the last batch again: %+v, %v", what, last, err)
	}
	_, err = l.Append(numbered(t, 7, 0, 12, 1), 0, storage.AppendOptions{FromClient: true})
	wantCode(t, err, kerr.OutOfOrderSequenceNumber)
}

// TestDamagedInTheMiddle damages a segment that was sealed but not yet known to
// be on disk: everything after it goes.
func TestDamagedInTheMiddle(t *testing.T) {
	s, l := newLog(t, func(o *storage.Options, c *storage.LogConfig) { o.Fsync = storage.FsyncNever; c.SegmentBytes = 500 })
	for i := range 30 {
		mustAppend(t, l, plain(t, now, fmt.Sprintf("%02d", i)))
	}
	if l.Segments() < 4 {
		t.Fatalf("%d segments", l.Segments())
	}
	dir := copyDir(t, s.Dir())
	files, _ := filepath.Glob(filepath.Join(dir, "orders-0", "*.log"))
	content := mustReadFile(t, files[1])
	content[len(content)-1] ^= 1
	mustWriteFile(t, content, files[1])
	s, l = reopen(t, dir)
	defer s.Close()
	if l.Segments() != 2 {
		t.Errorf("%d segments are left", l.Segments())
	}
	got := readAll(t, l, 0)
	for i, v := range got {
		if v != fmt.Sprintf("%02d", i) {
			t.Fatalf("record %d is %s", i, v)
		}
	}
	if int64(len(got)) != l.End() || len(got) == 0 {
		t.Errorf("%d records, end %d", len(got), l.End())
	}
	if r := mustAppend(t, l, plain(t, now, "new")); r.BaseOffset != int64(len(got)) {
		t.Errorf("next offset %d", r.BaseOffset)
	}
	if left, _ := filepath.Glob(filepath.Join(dir, "orders-0", "*.log")); len(left) != 2 {
		t.Errorf("files %q", left)
	}
}

// TestMissingFiles removes or spoils everything that can be made again.
func TestMissingFiles(t *testing.T) {
	s, l := newLog(t, func(_ *storage.Options, c *storage.LogConfig) { c.SegmentBytes = 6000; c.IndexIntervalBytes = 100 })
	var want []string
	for i := range 200 {
		b := numbered(t, 5, 0, int32(i), 1)
		mustAppend(t, l, b)
		want = append(want, fmt.Sprintf("p5-e0-%d", i))
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	for _, pattern := range []string{"*.index", "*.timeindex", "*.snapshot", "leader-epoch-checkpoint", "../.kafka_cleanshutdown", "../recovery-point*", "../log-start*"} {
		for _, how := range []string{"removed", "emptied", "random", "zeros"} {
			t.Run(filepath.Base(pattern)+" "+how, func(t *testing.T) {
				dir := copyDir(t, s.Dir())
				files, err := filepath.Glob(filepath.Join(dir, "orders-0", pattern))
				if err != nil || len(files) == 0 {
					t.Fatalf("no %s", pattern)
				}
				for _, file := range files {
					switch how {
					case "removed":
						if err := os.Remove(file); err != nil {
							t.Fatal(err)
						}
					case "emptied":
						mustWriteFile(t, nil, file)
					case "random":
						mustWriteFile(t, []byte("the quick brown fox jumps over it all ...")[:36], file)
					case "zeros":
						mustWriteFile(t, make([]byte, 120), file)
					}
				}
				s, l := reopen(t, dir)
				if got := readAll(t, l, 0); !cmp.Equal(got, want) {
					t.Errorf("read %d records of %d", len(got), len(want))
				}
				for _, offset := range []int64{0, 1, 77, 199} {
					slice, err := l.Read(offset, 1, true, 200)
					if err != nil || slice.FirstOffset != offset {
						t.Errorf("read at %d: %+v, %v", offset, slice, err)
					}
					slice.Release()
				}
				if offset, _, found, err := l.OffsetForTime(now); err != nil || !found || offset != 0 {
					t.Errorf("first of that time: %d %v %v", offset, found, err)
				}
				for sequence := int32(195); sequence < 200; sequence++ { // the last five are known
					r, err := l.Append(numbered(t, 5, 0, sequence, 1), 0, storage.AppendOptions{FromClient: true})
					if err != nil || !r.Duplicate || r.BaseOffset != int64(sequence) {
						t.Errorf("sequence %d again: %+v, %v", sequence, r, err)
					}
				}
				if err := s.Close(); err != nil {
					t.Fatal(err)
				}
			})
		}
	}
}

// TestWrongIndex gives a sealed segment an index that is well-formed and false.
func TestWrongIndex(t *testing.T) {
	s, l := newLog(t, func(_ *storage.Options, c *storage.LogConfig) { c.SegmentBytes = 6000; c.IndexIntervalBytes = 100 })
	for i := range 200 {
		mustAppend(t, l, plain(t, now, fmt.Sprint(i)))
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(s.Dir(), "orders-0", "00000000000000000000.index")
	content := mustReadFile(t, file)
	for i := 3; i < len(content); i += 8 {
		content[i]++ // each entry names the batch after its own
	}
	mustWriteFile(t, content, file)
	s, l = reopen(t, s.Dir())
	defer s.Close()
	for offset := range int64(200) {
		slice, err := l.Read(offset, 1, true, 200)
		if err != nil || slice.FirstOffset != offset {
			t.Fatalf("read at %d: %+v, %v", offset, slice, err)
		}
		slice.Release()
	}
}

// TestEpochsAfterLoss takes the epochs from the batches when the checkpoint is
// gone.
func TestEpochsAfterLoss(t *testing.T) {
	s, l := newLog(t, nil)
	for epoch := range int32(4) {
		mustAppendEpoch(t, l, plain(t, now, "a", "b"), epoch)
	}
	mustSync(t, l)
	dir := copyDir(t, s.Dir())
	if err := os.Remove(filepath.Join(dir, "orders-0", "leader-epoch-checkpoint")); err != nil {
		t.Fatal(err)
	}
	s, l = reopen(t, dir)
	defer s.Close()
	for epoch := range int32(4) {
		if e, end := l.EpochEnd(epoch); e != epoch || end != int64(epoch+1)*2 {
			t.Errorf("epoch %d ends at %d, %d", epoch, e, end)
		}
	}
}

// TestEpochWithoutRecords begins an epoch, crashes, and begins the next.
func TestEpochWithoutRecords(t *testing.T) {
	s, l := newLog(t, nil)
	mustAppendEpoch(t, l, plain(t, now, "a"), 0)
	if err := l.AssignEpoch(5); err != nil {
		t.Fatal(err)
	}
	mustSync(t, l)
	dir := copyDir(t, s.Dir())
	s, l = reopen(t, dir)
	defer s.Close()
	if l.LastEpoch() != 0 {
		t.Errorf("epoch %d, though it wrote nothing", l.LastEpoch())
	}
	mustAppendEpoch(t, l, plain(t, now, "b"), 6)
	if e, end := l.EpochEnd(5); e != 0 || end != 1 {
		t.Errorf("epoch 5 ends at %d, %d", e, end)
	}
}

// FuzzRecover opens a log whose file holds anything at all.
func FuzzRecover(f *testing.F) {
	b := func(o wire.BatchOptions, vs ...string) []byte {
		batch, err := wire.EncodeBatch(nil, values(now, vs...), o)
		if err != nil {
			f.Fatal(err)
		}
		return batch
	}
	o := wire.Plain(wire.CodecNone)
	o.LeaderEpoch = 0
	first := b(o, "a", "b")
	second := append([]byte{}, b(o, "c")...)
	wire.Batch(second).SetBaseOffset(2)
	f.Add(append(append([]byte{}, first...), second...), uint16(0), byte(0), true)
	f.Add(append(append([]byte{}, first...), second...), uint16(len(first)+8), byte(0x40), false)
	f.Add([]byte("\x00\x00\x00\x00\x00\x00\x00\x00\x7f\xff\xff\xff"), uint16(0), byte(0), true)
	for name := range goldenPartitions { // with transactions
		f.Add(mustReadFile(f, goldenDir(name), firstLog[len("orders-0/"):]), uint16(0), byte(0), false)
	}
	lazy := newFaultFS()
	lazy.lazy = true
	f.Fuzz(func(t *testing.T, content []byte, at uint16, flip byte, clean bool) {
		dir := t.TempDir()
		o := storage.Options{Dir: dir, NodeID: 1, Fsync: storage.FsyncNever, FS: lazy}
		s, err := storage.Open(o)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := s.Create("orders", topicID, 0, storage.DefaultLogConfig()); err != nil {
			t.Fatal(err)
		}
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
		if len(content) > 0 {
			content[int(at)%len(content)] ^= flip
		}
		mustWriteFile(t, content, dir, firstLog)
		if !clean {
			if err := os.Remove(filepath.Join(dir, ".kafka_cleanshutdown")); err != nil {
				t.Fatal(err)
			}
		}
		s, err = storage.Open(o)
		if err != nil && clean {
			return // without its producers there is no log
		}
		if err != nil {
			t.Fatalf("open: %v", err)
		}
		l := s.Log("orders", 0)
		end := l.End()
		if stable := l.LastStableOffset(); stable < l.Start() || stable > end {
			t.Fatalf("last stable offset %d of %d to %d", stable, l.Start(), end)
		}
		if _, err := l.AbortedTransactions(l.Start(), end); err != nil {
			t.Fatalf("aborted transactions: %v", err)
		}
		if !clean {
			if _, err := tryWalk(l); err != nil {
				t.Fatalf("a recovered log cannot be read: %v", err)
			}
			if end > 0 || l.Size() == 0 {
				if r, err := l.Append(plain(t, now, "next"), max(l.LastEpoch(), 0), storage.AppendOptions{}); err != nil || r.BaseOffset != end {
					t.Fatalf("append: %+v, %v", r, err)
				}
			}
		} else {
			_, _ = tryWalk(l) // an end in order is trusted: an error is fine, a panic is not
		}
		_, _, _, _ = l.OffsetForTime(now)
		_, _, _, _ = l.MaxTimestamp()
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
	})
}

// tryWalk reads all batches of a log, headers and checksums.
func tryWalk(l *storage.Log) (n int, err error) {
	for offset := l.Start(); offset < l.End(); {
		slice, err := l.Read(offset, 1<<20, true, storage.ToEnd)
		if err != nil {
			return n, err
		}
		content, err := slice.Bytes(nil)
		slice.Release()
		if err != nil || len(content) == 0 {
			return n, fmt.Errorf("%d bytes at %d: %w", len(content), offset, err)
		}
		for len(content) > 0 {
			b, rest, err := wire.NextBatch(content)
			if err != nil {
				return n, err
			}
			if err := b.CheckCRC(); err != nil {
				return n, err
			}
			n, offset, content = n+1, b.LastOffset()+1, rest
		}
	}
	return n, nil
}
