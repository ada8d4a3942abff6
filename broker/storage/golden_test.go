package storage_test

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"kmirror/broker/storage"
	"kmirror/internal/wire"
)

// The directories in testdata/kafka-4.1.1 are partitions as Apache Kafka 4.1.1
// left them when it was stopped, with internal.segment.bytes=3000 and
// index.interval.bytes=300. Five transactional producers, three of transaction
// version 2 and two older ones, wrote into each at once, committed and aborted;
// so did one without transactions; one aborted a transaction without having
// written; and one was cut off in the middle of its transaction. A record's value
// begins with what became of it, or would have.
var goldenPartitions = map[string]struct {
	config func(*storage.LogConfig)
	stable int64 // what Kafka told as the last stable offset
}{
	"create-time":     {func(*storage.LogConfig) {}, 152},
	"log-append-time": {func(c *storage.LogConfig) { c.LogAppendTime = true }, 183},
	"gzip":            {func(c *storage.LogConfig) { c.Compression = "gzip" }, 176},
}

func goldenConfig(name string) storage.LogConfig {
	c := storage.DefaultLogConfig()
	c.SegmentBytes, c.IndexIntervalBytes = 3000, 300
	c.RetentionMillis = -1
	goldenPartitions[name].config(&c)
	return c
}

func goldenDir(name string) string { return filepath.Join("testdata", "kafka-4.1.1", name) }

// goldenBatches are all batches of a golden partition.
func goldenBatches(t testing.TB, name string) (batches []wire.Batch) {
	t.Helper()
	logs, err := filepath.Glob(filepath.Join(goldenDir(name), "*.log"))
	if err != nil || len(logs) < 4 {
		t.Fatalf("segments of %s: %q, %v", name, logs, err)
	}
	for _, file := range logs {
		for rest := mustReadFile(t, file); len(rest) > 0; {
			var b wire.Batch
			if b, rest, err = wire.NextBatch(rest); err != nil {
				t.Fatalf("%s: %v", file, err)
			}
			batches = append(batches, b)
		}
	}
	return batches
}

// markerOf reads a control batch as Kafka wrote it.
func markerOf(t testing.TB, b wire.Batch) storage.Marker {
	t.Helper()
	records, err := b.Records(1 << 20)
	if err != nil || len(records) != 1 || len(records[0].Key) != 4 || len(records[0].Value) != 6 {
		t.Fatalf("marker at %d: %v, %v", b.BaseOffset(), records, err)
	}
	return storage.Marker{
		ProducerID: b.ProducerID(), Epoch: b.ProducerEpoch(),
		CoordinatorEpoch: int32(binary.BigEndian.Uint32(records[0].Value[2:])),
		Commit:           binary.BigEndian.Uint16(records[0].Key[2:]) == 1,
	}
}

// TestFilesAsKafkaWritesThem appends what Kafka's producers and coordinator
// wrote, at the times they did, and compares all files.
func TestFilesAsKafkaWritesThem(t *testing.T) {
	for name := range goldenPartitions {
		t.Run(name, func(t *testing.T) {
			clock := int64(0)
			cfg := goldenConfig(name)
			s := mustOpen(t, storage.Options{Dir: filepath.Join(quickDir(t), "data"), NodeID: 1, Now: func() time.Time { return time.UnixMilli(clock) }})
			l := mustCreate(t, s, cfg)
			for _, kafkas := range goldenBatches(t, name) {
				clock = kafkas.MaxTimestamp()
				at := kafkas.BaseOffset()
				if kafkas.IsControl() {
					offset, err := l.AppendMarker(markerOf(t, kafkas), 0)
					if err != nil || offset != at {
						t.Fatalf("marker at %d: %d, %v", at, offset, err)
					}
					continue
				}
				b := wire.Batch(bytes.Clone(kafkas))
				b.SetBaseOffset(0)
				b.SetLeaderEpoch(-1)
				o := storage.AppendOptions{FromClient: !cfg.LogAppendTime} // clients do not set that bit
				if b.IsTransactional() {
					guard, needed, err := l.BeginVerification(b.ProducerID(), b.ProducerEpoch(), b.BaseSequence(), false)
					if err != nil {
						t.Fatalf("verify the batch at %d: %v", at, err)
					}
					if needed {
						o.Verified = guard
					}
				}
				r, err := l.Append(b, 0, o)
				if err != nil || r.BaseOffset != at || r.Duplicate {
					t.Fatalf("batch at %d: %+v, %v", at, r, err)
				}
			}
			if err := s.Close(); err != nil {
				t.Fatal(err)
			}
			compareDirs(t, goldenDir(name), l.Dir())
		})
	}
}

// compareDirs holds the files of a partition against those that Kafka wrote.
func compareDirs(t *testing.T, kafkas, ours string) {
	t.Helper()
	names := func(dir string) (names []string) {
		entries, err := os.ReadDir(dir)
		if err != nil {
			t.Fatal(err)
		}
		for _, e := range entries {
			if e.Name()[0] == '0' {
				names = append(names, e.Name())
			}
		}
		return names
	}
	if diff := cmp.Diff(names(kafkas), names(ours)); diff != "" {
		t.Fatalf("files (-kafka +ours):\n%s", diff)
	}
	for _, name := range names(kafkas) {
		want, got := mustReadFile(t, kafkas, name), mustReadFile(t, ours, name)
		if strings.HasSuffix(name, ".log") {
			want = timelyMarkers(t, want)
		}
		if strings.HasSuffix(name, ".snapshot") { // Kafka's order is that of a hash map
			want, got = sortedSnapshot(t, want), sortedSnapshot(t, got)
		}
		if !bytes.Equal(got, want) {
			t.Errorf("%s: got %d bytes, Kafka wrote %d\n got %x\nwant %x", name, len(got), len(want), got, want)
		}
	}
}

// timelyMarkers gives markers of LogAppendTime the time of their append as base
// timestamp, too. Kafka's coordinator looks at the clock before the log does.
func timelyMarkers(t *testing.T, segment []byte) []byte {
	t.Helper()
	for rest := segment; len(rest) > 0; {
		var b wire.Batch
		var err error
		if b, rest, err = wire.NextBatch(rest); err != nil {
			t.Fatal(err)
		}
		if b.IsControl() && b.IsLogAppendTime() {
			binary.BigEndian.PutUint64(b[27:], uint64(b.MaxTimestamp()))
			fixCRC(b)
		}
	}
	return segment
}

func sortedSnapshot(t *testing.T, b []byte) []byte {
	t.Helper()
	const header, checkedFrom = 10, 6
	if len(b) < header || castagnoli(b[checkedFrom:]) != binary.BigEndian.Uint32(b[2:]) {
		t.Fatalf("snapshot with a wrong checksum: %x", b)
	}
	sorted := slices.Concat(b[:2], b[checkedFrom:header])
	entries := slices.SortedFunc(slices.Chunk(b[header:], 46), bytes.Compare)
	return append(sorted, bytes.Join(entries, nil)...)
}

// openGolden opens a copy of a partition that Kafka wrote, changed as a crash
// might have, and not closed in order.
func openGolden(t *testing.T, name string, clean bool, change func(dir string)) *storage.Log {
	t.Helper()
	root := filepath.Join(quickDir(t), "data")
	o := storage.Options{Dir: root, NodeID: 1, Now: clockAt(1_795_342_600_000)}
	s := mustOpen(t, o)
	mustCreate(t, s, goldenConfig(name))
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	dir := filepath.Join(root, "orders-0")
	err := filepath.WalkDir(goldenDir(name), func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		mustWriteFile(t, mustReadFile(t, path), dir, d.Name())
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if !clean {
		if err := os.Remove(filepath.Join(root, ".kafka_cleanshutdown")); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Remove(filepath.Join(dir, "leader-epoch-checkpoint")); err != nil && !os.IsNotExist(err) {
		t.Fatal(err)
	}
	if change != nil {
		change(dir)
	}
	return mustCreate(t, mustOpen(t, o), goldenConfig(name))
}

// TestReadsWhatKafkaWrote opens Kafka's directories and reads them as a
// read_committed consumer does.
func TestReadsWhatKafkaWrote(t *testing.T) {
	remove := func(pattern string) func(string) {
		return func(dir string) {
			files, _ := filepath.Glob(filepath.Join(dir, pattern))
			for _, file := range files {
				_ = os.Remove(file)
			}
		}
	}
	spoil := func(dir string) {
		files, _ := filepath.Glob(filepath.Join(dir, "*.txnindex"))
		for _, file := range files {
			_ = os.WriteFile(file, []byte("spoilt"), 0o644)
		}
	}
	for _, tc := range []struct {
		name   string
		clean  bool
		change func(string)
	}{
		{"closed in order", true, nil},
		{"crashed", false, nil},
		{"crashed without transaction indexes", false, remove("*.txnindex")},
		{"crashed without snapshots", false, remove("*.snapshot")},
		{"crashed without anything but batches", false, remove("*[^g]")},
		{"closed in order with spoilt transaction indexes", true, spoil},
		{"closed in order with spoilt transaction indexes and without snapshots", true, func(dir string) {
			spoil(dir)
			remove("*.snapshot")(dir)
		}},
	} {
		for name := range goldenPartitions {
			t.Run(tc.name+"/"+name, func(t *testing.T) {
				l := openGolden(t, name, tc.clean, tc.change)
				checkGolden(t, name, l)
			})
		}
	}
}

func checkGolden(t *testing.T, name string, l *storage.Log) {
	t.Helper()
	batches := goldenBatches(t, name)
	stable := goldenPartitions[name].stable
	want := []string{}
	for _, b := range batches {
		records, err := b.Records(1 << 20)
		if err != nil {
			t.Fatal(err)
		}
		for _, r := range records {
			what, _, _ := strings.Cut(string(r.Value), "-")
			switch {
			case b.IsControl() || r.Offset >= stable:
			case what != "abort":
				want = append(want, fmt.Sprintf("%d %s", r.Offset, r.Value))
			}
		}
	}
	if got := l.LastStableOffset(); got != stable {
		t.Errorf("last stable offset %d, want %d", got, stable)
	}
	if diff := cmp.Diff(goldenAborted(t, name), mustAborted(t, l, 0, l.End())); diff != "" {
		t.Errorf("aborted transactions (-kafka +ours):\n%s", diff)
	}
	for _, size := range []int{1, 500, 1 << 20} {
		for _, from := range []int64{0, 1, 61, 62, 100, 150} {
			got := []string{}
			for offset, v := range readCommitted(t, l, from, size) {
				got = append(got, fmt.Sprintf("%d %s", offset, v))
			}
			slices.SortFunc(got, byOffset)
			expected := slices.DeleteFunc(slices.Clone(want), func(w string) bool { return byOffset(w, fmt.Sprint(from)) < 0 })
			if diff := cmp.Diff(expected, got); diff != "" {
				t.Fatalf("committed records from %d by %d bytes (-want +got):\n%s", from, size, diff)
			}
		}
	}
}

// goldenAborted are the entries of Kafka's transaction indexes.
func goldenAborted(t *testing.T, name string) (list []storage.AbortedTransaction) {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(goldenDir(name), "*.txnindex"))
	if err != nil || len(files) == 0 {
		t.Fatalf("transaction indexes of %s: %v", name, err)
	}
	for _, file := range files {
		for e := range slices.Chunk(mustReadFile(t, file), 34) {
			list = append(list, storage.AbortedTransaction{
				ProducerID: int64(binary.BigEndian.Uint64(e[2:])), FirstOffset: int64(binary.BigEndian.Uint64(e[10:])),
			})
		}
	}
	return list
}

func mustAborted(t *testing.T, l *storage.Log, from, to int64) []storage.AbortedTransaction {
	t.Helper()
	list, err := l.AbortedTransactions(from, to)
	if err != nil {
		t.Fatalf("aborted transactions: %v", err)
	}
	return list
}

func byOffset(a, b string) int {
	var x, y int64
	_, _ = fmt.Sscan(a, &x)
	_, _ = fmt.Sscan(b, &y)
	return int(x - y)
}

// readCommitted reads the values that a consumer with isolation level
// read_committed is shown, from an offset on, by its rules.
func readCommitted(t fatal, l *storage.Log, offset int64, size int) map[int64]string {
	t.Helper()
	seen := make(map[int64]string)
	for {
		slice, listed, err := l.ReadCommitted(offset, size, true)
		if err != nil {
			t.Fatalf("read committed at %d: %v", offset, err)
		}
		if slice.Len == 0 {
			return seen
		}
		content, err := slice.Bytes(nil)
		slice.Release()
		if err != nil {
			t.Fatalf("read committed at %d: %v", offset, err)
		}
		slices.SortStableFunc(listed, func(a, b storage.AbortedTransaction) int { return int(a.FirstOffset - b.FirstOffset) })
		skipping := make(map[int64]bool)
		before := offset
		for len(content) > 0 {
			b, rest, err := wire.NextBatch(content)
			if err != nil {
				break // cut
			}
			content = rest
			for len(listed) > 0 && listed[0].FirstOffset <= b.LastOffset() {
				skipping[listed[0].ProducerID] = true
				listed = listed[1:]
			}
			records, err := b.Records(1 << 30)
			if err != nil {
				t.Fatalf("batch at %d: %v", b.BaseOffset(), err)
			}
			for _, r := range records {
				switch {
				case b.IsControl():
					if binary.BigEndian.Uint16(r.Key[2:]) == 0 {
						delete(skipping, b.ProducerID())
					}
				case r.Offset >= offset && (!b.IsTransactional() || !skipping[b.ProducerID()]):
					seen[r.Offset] = string(r.Value)
				}
			}
			offset = b.LastOffset() + 1
		}
		if offset == before {
			t.Fatalf("nothing whole at %d", offset)
		}
	}
}
