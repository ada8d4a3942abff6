package storage

import (
	"bytes"
	"encoding/binary"
	"errors"
	"hash/crc32"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"kmirror/internal/wire"
)

// FuzzTxnIndex: what a transaction index is read as is what would be written.
func FuzzTxnIndex(f *testing.F) {
	for _, file := range golden(f, "*.txnindex") {
		f.Add(file)
		f.Add(file[:len(file)-1])
	}
	f.Add(encodeAborted([]abortedTransaction{{producer: 1, first: 5, last: 9, stable: 10}, {producer: 0, first: 0, last: 12, stable: 3}}))
	f.Fuzz(func(t *testing.T, content []byte) {
		entries, err := decodeAborted(content, 0)
		if err != nil {
			return
		}
		if again := encodeAborted(entries); !bytes.Equal(again, content) {
			t.Fatalf("read %x as %v, which is %x", content, entries, again)
		}
		last := int64(-1)
		for _, e := range entries {
			if e.last <= last || e.first < 0 || e.first >= e.last || e.stable > e.last+1 {
				t.Fatalf("accepted %+v after %d", e, last)
			}
			last = e.last
		}
	})
}

// FuzzSnapshot: what a producer snapshot is read as is written as the same
// producers, and the transactions that they have open are known.
func FuzzSnapshot(f *testing.F) {
	for _, file := range golden(f, "*.snapshot") {
		f.Add(file, true)
		f.Add(file[:len(file)-1], false)
	}
	f.Add(encodeSnapshot(newProducers()), true)
	f.Fuzz(func(t *testing.T, content []byte, right bool) {
		if right && len(content) >= snapshotHeader { // or nothing gets past the checksum
			content = bytes.Clone(content)
			binary.BigEndian.PutUint32(content[2:], crc32.Checksum(content[snapshotChecked:], crc32.MakeTable(crc32.Castagnoli)))
		}
		ps, err := decodeSnapshot(content, 0)
		if err != nil {
			return
		}
		again, err := decodeSnapshot(encodeSnapshot(ps), 0)
		if err != nil {
			t.Fatalf("snapshot written of %x: %v", content, err)
		}
		open := 0
		for id, p := range ps.byID {
			if *again.byID[id] != *p {
				t.Fatalf("producer %d: %+v became %+v", id, p, again.byID[id])
			}
			if p.transactionFirst >= 0 {
				open++
			}
		}
		if len(again.byID) != len(ps.byID) || len(ps.ongoing) != open {
			t.Fatalf("%d producers became %d; %d transactions are open, %d known", len(ps.byID), len(again.byID), open, len(ps.ongoing))
		}
	})
}

// FuzzMarker: no control batch makes the decoder fail but by an error.
func FuzzMarker(f *testing.F) {
	for _, m := range []Marker{{ProducerID: 1, Epoch: 2, CoordinatorEpoch: 3, Commit: true}, {}} {
		b, err := m.encode(0)
		if err != nil {
			f.Fatal(err)
		}
		f.Add([]byte(b[61:]))
	}
	f.Fuzz(func(t *testing.T, records []byte) {
		b, err := Marker{ProducerID: 7, Epoch: 1}.encode(0)
		if err != nil {
			t.Fatal(err)
		}
		b = append(b[:61:61], records...)
		if m, ok, err := decodeMarker(b); ok && (err != nil || m.ProducerID != 7 || m.Epoch != 1) {
			t.Fatalf("%+v, %v", m, err)
		}
	})
}

// golden are files that Kafka wrote.
func golden(t testing.TB, pattern string) (contents [][]byte) {
	t.Helper()
	files, err := filepath.Glob(filepath.Join("testdata", "kafka-4.1.1", "*", pattern))
	if err != nil || len(files) == 0 {
		t.Fatalf("no golden %s: %v", pattern, err)
	}
	for _, file := range files {
		content, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		contents = append(contents, content)
	}
	return contents
}

// TestDamagedTxnIndexes are refused, each for its reason.
func TestDamagedTxnIndexes(t *testing.T) {
	good := abortedTransaction{producer: 1, first: 105, last: 109, stable: 110}
	for _, tc := range []struct {
		name    string
		entries []abortedTransaction
		change  func([]byte) []byte
		want    string
	}{
		{"cut", []abortedTransaction{good}, func(b []byte) []byte { return b[:33] }, "33 bytes"},
		{"version", []abortedTransaction{good}, func(b []byte) []byte { b[1] = 1; return b }, "version 1"},
		{"zeros", nil, func([]byte) []byte { return make([]byte, 34) }, "entry 0"},
		{"below the segment", []abortedTransaction{{producer: 1, first: 5, last: 9, stable: 10}}, nil, "base 100"},
		{"producer", []abortedTransaction{{producer: -1, first: 105, last: 109, stable: 110}}, nil, "producer -1"},
		{"first after last", []abortedTransaction{{producer: 1, first: 109, last: 109, stable: 110}}, nil, "entry 0"},
		{"stable after last", []abortedTransaction{{producer: 1, first: 105, last: 109, stable: 111}}, nil, "entry 0"},
		{"order", []abortedTransaction{good, good}, nil, "entry 1"},
	} {
		content := encodeAborted(tc.entries)
		if tc.change != nil {
			content = tc.change(content)
		}
		if _, err := decodeAborted(content, 100); err == nil || !strings.Contains(err.Error(), tc.want) {
			t.Errorf("%s: %v, want %q", tc.name, err, tc.want)
		}
	}
	if entries, err := decodeAborted(encodeAborted([]abortedTransaction{good}), 100); err != nil || len(entries) != 1 || entries[0] != good {
		t.Errorf("good: %v, %v", entries, err)
	}
}

// TestTxnIndexOfDeletedSegment is not taken for one without aborts, which would
// show aborted records to a reader that still has them.
func TestTxnIndexOfDeletedSegment(t *testing.T) {
	s, err := Open(Options{Dir: filepath.Join(t.TempDir(), "data"), NodeID: 1, Fsync: FsyncNever})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = s.Close() }()
	cfg := DefaultLogConfig()
	cfg.SegmentBytes = 100
	l, err := s.Create("orders", [16]byte{1}, 0, cfg)
	if err != nil {
		t.Fatal(err)
	}
	for id := range int64(3) {
		guard, _, err := l.BeginVerification(id, 0, 0, false)
		if err != nil {
			t.Fatal(err)
		}
		b, err := wire.EncodeBatch(nil, []wire.Record{{Value: []byte("aborted")}}, wire.BatchOptions{ProducerID: id, Transactional: true})
		if err != nil {
			t.Fatal(err)
		}
		if _, err := l.Append(b, 0, AppendOptions{Verified: guard}); err != nil {
			t.Fatal(err)
		}
		if _, err := l.AppendMarker(Marker{ProducerID: id, Epoch: 1}, 0); err != nil {
			t.Fatal(err)
		}
	}
	for _, seg := range *l.segments.Load() {
		if x := seg.aborted.Load(); seg.sealed.Load() {
			x.drop()
		}
	}
	doomed := (*l.segments.Load())[1]
	if entries, err := l.abortedOf(doomed); err != nil || len(entries) != 1 {
		t.Fatalf("before: %v, %v", entries, err)
	}
	if err := l.DeleteBefore(l.End()); err != nil {
		t.Fatal(err)
	}
	if entries, err := l.abortedOf(doomed); !errors.Is(err, errGone) {
		t.Errorf("after: %v, %v", entries, err)
	}
	if list, err := l.AbortedTransactions(l.Start(), l.End()); err != nil || len(list) > 0 {
		t.Errorf("in what is left: %v, %v", list, err)
	}
}
