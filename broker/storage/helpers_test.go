package storage_test

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"

	"kmirror/broker/storage"
	"kmirror/internal/wire"
)

// now is the time in these tests, where it matters.
const now = 1_700_000_000_000

func clockAt(millis int64) func() time.Time {
	return func() time.Time { return time.UnixMilli(millis) }
}

func mustOpen(t testing.TB, o storage.Options) *storage.Store {
	t.Helper()
	s, err := storage.Open(o)
	if err != nil {
		t.Fatalf("open: %v", err)
	}
	t.Cleanup(func() { _ = s.Close() })
	return s
}

// run runs the store until the test ends or the function returned is called.
func run(t testing.TB, s *storage.Store) (stop func()) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- s.Run(ctx) }()
	stopped := false
	stop = func() {
		if !stopped {
			stopped = true
			cancel()
			if err := <-done; err != nil {
				t.Errorf("run: %v", err)
			}
		}
	}
	t.Cleanup(stop)
	return stop
}

var topicID = [16]byte{1, 2, 3, 4, 5, 6, 0x47, 8, 0x89, 10, 11, 12, 13, 14, 15, 16}

func mustCreate(t testing.TB, s *storage.Store, cfg storage.LogConfig) *storage.Log {
	t.Helper()
	l, err := s.Create("orders", topicID, 0, cfg)
	if err != nil {
		t.Fatalf("create: %v", err)
	}
	return l
}

// newLog opens a store on a fresh directory with one log.
func newLog(t testing.TB, change func(*storage.Options, *storage.LogConfig)) (*storage.Store, *storage.Log) {
	t.Helper()
	o := storage.Options{Dir: filepath.Join(t.TempDir(), "data"), NodeID: 1, Now: clockAt(now)}
	cfg := storage.DefaultLogConfig()
	if change != nil {
		change(&o, &cfg)
	}
	s := mustOpen(t, o)
	return s, mustCreate(t, s, cfg)
}

// values makes records with these values and the same timestamp.
func values(timestamp int64, values ...string) []wire.Record {
	records := make([]wire.Record, len(values))
	for i, v := range values {
		records[i] = wire.Record{Timestamp: timestamp, Key: []byte("k" + v), Value: []byte(v)}
	}
	return records
}

// fatal is what testing.T and rapid.T share.
type fatal interface {
	Helper()
	Fatalf(format string, args ...any)
}

func batchOf(t fatal, o wire.BatchOptions, records ...wire.Record) wire.Batch {
	t.Helper()
	b, err := wire.EncodeBatch(nil, records, o)
	if err != nil {
		t.Fatalf("encode: %v", err)
	}
	return b
}

// plain is a batch without a producer, all records of one timestamp.
func plain(t testing.TB, timestamp int64, vs ...string) wire.Batch {
	t.Helper()
	return batchOf(t, wire.Plain(wire.CodecNone), values(timestamp, vs...)...)
}

// numbered is a batch of n records of an idempotent producer.
func numbered(t testing.TB, id int64, epoch int16, sequence int32, n int) wire.Batch {
	t.Helper()
	o := wire.Plain(wire.CodecNone)
	o.ProducerID, o.ProducerEpoch, o.BaseSequence = id, epoch, sequence
	vs := make([]string, n)
	for i := range vs {
		vs[i] = fmt.Sprintf("p%d-e%d-%d", id, epoch, int(sequence)+i)
	}
	return batchOf(t, o, values(now, vs...)...)
}

func mustAppend(t testing.TB, l *storage.Log, b wire.Batch) storage.AppendResult {
	t.Helper()
	r, err := l.Append(b, 0, storage.AppendOptions{FromClient: true})
	if err != nil {
		t.Fatalf("append: %v", err)
	}
	return r
}

func mustSync(t testing.TB, l *storage.Log) {
	t.Helper()
	if l.End() == l.Start() {
		return
	}
	if err := l.WaitDurable(t.Context(), l.End()-1); err != nil {
		t.Fatalf("wait: %v", err)
	}
}

// readAll reads the values from offset to the end of the log.
func readAll(t testing.TB, l *storage.Log, offset int64) []string {
	t.Helper()
	vs, err := tryReadAll(l, offset)
	if err != nil {
		t.Fatalf("read: %v", err)
	}
	return vs
}

func tryReadAll(l *storage.Log, offset int64) (vs []string, err error) {
	for offset < l.End() {
		slice, err := l.Read(offset, 1<<20, true, storage.ToEnd)
		if err != nil {
			return vs, err
		}
		if slice.Len == 0 {
			return vs, fmt.Errorf("nothing at %d, the end is %d", offset, l.End())
		}
		content, err := slice.Bytes(nil)
		slice.Release()
		if err != nil {
			return vs, err
		}
		for len(content) > 0 {
			b, rest, err := wire.NextBatch(content)
			if errors.Is(err, wire.ErrPartialBatch) {
				break
			}
			if err != nil {
				return vs, err
			}
			if err := b.CheckCRC(); err != nil {
				return vs, err
			}
			records, err := b.Records(1 << 30)
			if err != nil {
				return vs, err
			}
			for _, r := range records {
				if r.Offset >= offset {
					if r.Offset != offset {
						return vs, fmt.Errorf("record %d where %d was expected", r.Offset, offset)
					}
					vs = append(vs, string(r.Value))
					offset++
				}
			}
			content = rest
		}
	}
	return vs, nil
}

func codeOf(err error) int16 {
	var e *storage.Error
	switch {
	case err == nil:
		return 0
	case errors.As(err, &e):
		return e.Code
	default:
		return -99
	}
}

func wantCode(t testing.TB, err error, want *kerr.Error) {
	t.Helper()
	if got := codeOf(err); got != want.Code {
		t.Errorf("got code %d (%v), want %s", got, err, want.Message)
	}
}

// quickDir is a temporary directory in memory where there is one, for tests of
// what files hold and not of whether disks keep it.
func quickDir(t testing.TB) string {
	t.Helper()
	dir, err := os.MkdirTemp("/dev/shm", "storage-test-") //nolint:usetesting // TempDir is on disk
	if err != nil {
		return t.TempDir()
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	return dir
}

// copyDir copies a data directory as a crash would leave it, without what only
// a living process holds.
func copyDir(t testing.TB, from string) string {
	t.Helper()
	to := filepath.Join(quickDir(t), "copy")
	err := filepath.WalkDir(from, func(path string, d os.DirEntry, err error) error {
		if err != nil {
			return err
		}
		target := to + strings.TrimPrefix(path, from)
		if d.IsDir() {
			return os.MkdirAll(target, 0o755)
		}
		content, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		return os.WriteFile(target, content, 0o644)
	})
	if err != nil {
		t.Fatal(err)
	}
	return to
}

func mustReadFile(t testing.TB, elements ...string) []byte {
	t.Helper()
	content, err := os.ReadFile(filepath.Join(elements...))
	if err != nil {
		t.Fatal(err)
	}
	return content
}

func mustWriteFile(t testing.TB, content []byte, elements ...string) {
	t.Helper()
	if err := os.WriteFile(filepath.Join(elements...), content, 0o644); err != nil {
		t.Fatal(err)
	}
}

// fixCRC makes the checksum of a tampered batch right again.
func fixCRC(b wire.Batch) wire.Batch {
	binary.BigEndian.PutUint32(b[17:], crcOf(b))
	return b
}

func plainOptions() wire.BatchOptions { return wire.Plain(wire.CodecNone) }

func castagnoli(b []byte) uint32 { return crc32.Checksum(b, crc32.MakeTable(crc32.Castagnoli)) }
