package storage_test

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"kmirror/broker/storage"
	"kmirror/internal/wire"
)

// TestKafkaReadsOurFiles lets Kafka's own DumpLogSegments read segments,
// indexes and snapshots, with every check that it knows.
func TestKafkaReadsOurFiles(t *testing.T) {
	dumpLogSegments(t) // or the test is skipped
	s, l := newLog(t, func(_ *storage.Options, c *storage.LogConfig) { c.SegmentBytes = 40_000 })
	const batches = 600
	records := 0
	for i := range batches {
		o := wire.Plain(wire.Codec(i % 5))
		if i%3 == 0 {
			o.ProducerID, o.ProducerEpoch = int64(i%7), 0
			o.BaseSequence = int32(i / 21 * 4) // 4 records in each batch of a producer
		}
		n := 4
		// Timestamps go back and forth within and between batches.
		rs := values(0, "a", "b", "c", "d")
		for j := range rs {
			rs[j].Timestamp = now - int64((i*7919+j*31)%100_000)
			rs[j].Value = []byte(strings.Repeat("v", 20+i%50))
		}
		records += n
		if _, err := l.Append(batchOf(t, o, rs...), int32(i/200), storage.AppendOptions{FromClient: true}); err != nil {
			t.Fatalf("batch %d: %v", i, err)
		}
	}
	if l.Segments() < 3 {
		t.Fatalf("only %d segments", l.Segments())
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}

	dump, glob := kafkasView(t, l.Dir())
	out := dump("--print-data-log --deep-iteration", glob("*.log")...)
	if n := strings.Count(out, "| offset: "); n != records {
		t.Errorf("Kafka sees %d records of %d", n, records)
	}
	if !strings.Contains(out, fmt.Sprintf("lastOffset: %d ", records-1)) {
		t.Errorf("Kafka does not see offset %d", records-1)
	}
	dump("--verify-index-only", append(glob("*.index"), glob("*.timeindex")...)...)
	out = dump("--index-sanity-check", append(glob("*.index"), glob("*.timeindex")...)...)
	if n := strings.Count(out, "passed sanity check"); n < 4 {
		t.Errorf("%d indexes passed:\n%s", n, out)
	}
	out = dump("", glob("*.index")...)
	if n := strings.Count(out, "position: "); n < 10 {
		t.Errorf("%d index entries", n)
	}
	out = dump("", glob("*.timeindex")...)
	if n := strings.Count(out, "timestamp: "); n < 3 {
		t.Errorf("%d time index entries", n)
	}
	out = dump("", glob("*.snapshot")...)
	if n := strings.Count(out, "producerId: "); n < 7 {
		t.Errorf("%d producers:\n%s", n, out)
	}
}

// TestKafkaReadsOurTransactions lets it read transactions, too.
func TestKafkaReadsOurTransactions(t *testing.T) {
	dumpLogSegments(t) // or the test is skipped
	s, l := newLog(t, func(_ *storage.Options, c *storage.LogConfig) { c.SegmentBytes = 2000 })
	const producers, each = 3, 12
	for n := range int16(each) {
		for id := range int64(producers) {
			mustAppendVerified(t, l, transactional(t, id, n, 0, 2))
		}
		for id := range int64(producers) {
			mustMark(t, l, storage.Marker{ProducerID: id, Epoch: n + 1, CoordinatorEpoch: 4, Commit: (int64(n)+id)%2 == 0, TransactionVersion: 2})
		}
	}
	mustAppendVerified(t, l, transactional(t, 2, each, 0, 1))
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	if l.Segments() < 3 {
		t.Fatalf("only %d segments", l.Segments())
	}
	dump, glob := kafkasView(t, l.Dir())
	out := dump("--print-data-log --deep-iteration", glob("*.log")...)
	for _, kind := range []string{"endTxnMarker: COMMIT coordinatorEpoch: 4", "endTxnMarker: ABORT coordinatorEpoch: 4"} {
		if n := strings.Count(out, kind); n != producers*each/2 {
			t.Errorf("%d times %q", n, kind)
		}
	}
	out = dump("", glob("*.txnindex")...)
	if n := strings.Count(out, "version: 0 producerId: "); n != producers*each/2 {
		t.Errorf("%d aborted transactions:\n%s", n, out)
	}
	for _, entry := range []string{
		"producerId: 1 firstOffset: 2 lastOffset: 7 lastStableOffset: 4\n",   // producer 2 is still open
		"producerId: 0 firstOffset: 9 lastOffset: 15 lastStableOffset: 11\n", // so are the others
	} {
		if !strings.Contains(out, entry) {
			t.Errorf("Kafka does not see %q:\n%s", entry, out)
		}
	}
	snapshots := glob("*.snapshot")
	out = dump("", snapshots[len(snapshots)-1])
	if want := fmt.Sprintf("producerId: 2 producerEpoch: %d coordinatorEpoch: 4 currentTxnFirstOffset: OptionalLong[%d]", each, l.End()-1); !strings.Contains(out, want) {
		t.Errorf("Kafka does not see %q:\n%s", want, out)
	}
}

// dumpLogSegments finds Kafka's tool.
func dumpLogSegments(t *testing.T) (java, libs string) {
	t.Helper()
	cache, err := os.UserCacheDir()
	if err != nil {
		t.Skip("no cache directory: ", err)
	}
	libs = filepath.Join(cache, "kmirror", "kafka-4.1.1", "libs")
	if jars, _ := filepath.Glob(filepath.Join(libs, "kafka-tools*.jar")); len(jars) == 0 {
		t.Skip("Apache Kafka's jars are not in ", libs)
	}
	java, err = exec.LookPath("java")
	if err != nil {
		t.Skip("no java: ", err)
	}
	return java, libs
}

// kafkasView returns what lets Kafka read files of a partition, with complaints
// being faults of the test, and what finds such files.
func kafkasView(t *testing.T, dir string) (dump func(flags string, files ...string) string, glob func(pattern string) []string) {
	t.Helper()
	java, libs := dumpLogSegments(t)
	dump = func(flags string, files ...string) string {
		ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
		defer cancel()
		args := append([]string{"-cp", filepath.Join(libs, "*"), "kafka.tools.DumpLogSegments"}, strings.Fields(flags)...)
		out, err := exec.CommandContext(ctx, java, append(args, "--files", strings.Join(files, ","))...).CombinedOutput()
		if err != nil {
			t.Fatalf("DumpLogSegments %s: %v\n%s", flags, err, out)
		}
		for _, complaint := range []string{"ismatch", "Exception", "isvalid: false", "corrupt", "Corrupt", "Could not", "Unknown", "out of order", "Non-consecutive"} {
			if i := strings.Index(string(out), complaint); i >= 0 {
				t.Errorf("DumpLogSegments %s says %q: ...%s", flags, complaint, out[max(0, i-300):min(len(out), i+300)])
			}
		}
		return string(out)
	}
	glob = func(pattern string) []string {
		files, err := filepath.Glob(filepath.Join(dir, pattern))
		if err != nil || len(files) == 0 {
			t.Fatalf("no files %s", pattern)
		}
		return files
	}
	return dump, glob
}
