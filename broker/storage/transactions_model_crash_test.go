package storage_test

import (
	"encoding/binary"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"kmirror/internal/wire"
)

// lose takes from the reference what the log does not have any more, and what it
// could not know any more after its oldest segments went.
func (m *txnMachine) lose(t fatal) {
	m.start = m.log.Start()
	for n := len(m.entries); n > 0 && m.entries[n-1].last() >= m.log.End(); n-- {
		m.entries = m.entries[:n-1]
	}
	first := m.firstBase(t)
	kept := slices.DeleteFunc(slices.Clone(m.entries), func(e txnEntry) bool { return e.base < first })
	if got := m.infos(); !cmp.Equal(got, refer(m.entries).infos()) && cmp.Equal(got, refer(kept).infos()) {
		m.entries = kept
	}
	m.whole = m.whole && first == 0
}

// firstBase is the base offset of the oldest segment.
func (m *txnMachine) firstBase(t fatal) (base int64) {
	logs, err := filepath.Glob(filepath.Join(m.log.Dir(), "*.log"))
	if err != nil || len(logs) == 0 {
		t.Fatalf("segments: %q, %v", logs, err)
	}
	if _, err := fmt.Sscanf(filepath.Base(logs[0]), "%020d.log", &base); err != nil {
		t.Fatalf("segment %q: %v", logs[0], err)
	}
	return base
}

func (m *txnMachine) reopen(t *rapid.T) {
	dir := m.store.Dir()
	if err := m.store.Close(); err != nil {
		t.Fatalf("close: %v", err)
	}
	m.open(t, dir)
	m.old = nil // guards do not outlive a broker
	m.acked = m.log.End()
	m.lose(t)
}

// crash copies the directory as it is, harms what was not safe, and opens the
// copy.
func (m *txnMachine) crash(t *rapid.T) {
	m.n++
	dir := filepath.Join(m.root, fmt.Sprint(m.n))
	if err := os.CopyFS(dir, os.DirFS(m.store.Dir())); err != nil {
		t.Fatal(err)
	}
	partition := filepath.Join(dir, "orders-0")
	files := func(pattern string) []string {
		found, _ := filepath.Glob(filepath.Join(partition, pattern))
		return found
	}
	logs := files("*.log")
	file := logs[rapid.IntRange(0, len(logs)-1).Draw(t, "file")]
	content, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if safe := m.safeBytes(content); safe < len(content) {
		at := rapid.IntRange(safe, len(content)-1).Draw(t, "at")
		switch rapid.SampledFrom([]string{"keep", "cut", "flip", "zeros"}).Draw(t, "harm") {
		case "cut":
			content = content[:at]
		case "flip":
			content[at] ^= 1 << rapid.IntRange(0, 7).Draw(t, "bit")
		case "zeros":
			clear(content[at:])
		}
		if err := os.WriteFile(file, content, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	for _, pattern := range []string{"*.index", "*.snapshot"} {
		if found := files(pattern); len(found) > 0 && rapid.Bool().Draw(t, "lose "+pattern) {
			if err := os.Remove(found[rapid.IntRange(0, len(found)-1).Draw(t, "which")]); err != nil {
				t.Fatal(err)
			}
		}
	}
	// A transaction index is safe once the next segment is there.
	if found := files("*.txnindex"); len(found) > 0 {
		which := found[rapid.IntRange(0, len(found)-1).Draw(t, "which txnindex")]
		last := strings.TrimSuffix(filepath.Base(which), ".txnindex") == strings.TrimSuffix(filepath.Base(logs[len(logs)-1]), ".log")
		switch harm := rapid.SampledFrom([]string{"keep", "lose", "cut", "garbage"}).Draw(t, "harm to txnindex"); {
		case harm == "lose" && last:
			err = os.Remove(which)
		case harm == "cut":
			err = os.Truncate(which, 33)
			m.spoilt = true
		case harm == "garbage":
			err = os.WriteFile(which, make([]byte, 68), 0o644)
			m.spoilt = true
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	old := m.store
	m.open(t, dir)
	_ = old.Close()
	if m.log.End() < m.acked {
		t.Fatalf("acknowledged to %d, but after the crash the log ends at %d", m.acked, m.log.End())
	}
	m.old = nil
	m.lose(t)
	m.acked = m.log.End()
}

func (m *txnMachine) safeBytes(content []byte) (pos int) {
	for rest := content; len(rest) > 0; {
		b, after, err := wire.NextBatch(rest)
		if err != nil || b.LastOffset() >= m.acked {
			break
		}
		pos += len(b)
		rest = after
	}
	return pos
}

// checkIndexes holds the transaction indexes on disk, after an orderly end,
// against the reference, with the last stable offsets.
func (m *txnMachine) checkIndexes(t *rapid.T) {
	if !m.whole || m.spoilt || m.firstBase(t) > 0 {
		return
	}
	if err := m.store.Close(); err != nil {
		t.Fatalf("close: %v", err)
	}
	want := map[int64][4]int64{} // by marker
	for i, e := range m.entries {
		before, after := refer(m.entries[:i]), refer(m.entries[:i+1])
		if p := before.producers[e.producer]; e.marker && !e.commit && p != nil && p.first >= 0 {
			want[e.base] = [4]int64{e.producer, p.first, e.base, min(after.unstable(math.MaxInt64), e.base+1)}
		}
	}
	got := map[int64][4]int64{}
	files, _ := filepath.Glob(filepath.Join(m.log.Dir(), "*.txnindex"))
	for _, file := range files {
		content, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		for e := range slices.Chunk(content, 34) {
			var v [4]int64
			for i := range v {
				v[i] = int64(binary.BigEndian.Uint64(e[2+8*i:]))
			}
			got[v[2]] = v
		}
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Fatalf("entries of the transaction indexes: producer, first, last, stable (-want +got):\n%s", diff)
	}
}
