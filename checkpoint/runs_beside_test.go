package checkpoint_test

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"kmirror/checkpoint"
)

// syncWriter decides when MirrorMaker 2 writes an offset sync, as its
// OffsetSyncWriter.PartitionState does.
type syncWriter struct {
	lagMax                  int64
	synced, upstream, downs int64 // the downstream offset of the last sync; the last record
	due                     bool
}

func newSyncWriter(lagMax int64) *syncWriter {
	return &syncWriter{lagMax: lagMax, synced: -1, upstream: -1, downs: -1}
}

// update takes an acknowledged record and says whether a sync is due.
func (w *syncWriter) update(up, down int64) bool {
	if w.synced < 0 || down-(w.synced+1) >= w.lagMax || up-w.upstream != 1 || down < w.downs {
		w.synced, w.due = down, true
	}
	w.upstream, w.downs = up, down
	return w.due
}

func (w *syncWriter) written() { w.due = false }

// MirrorMaker 2's own vectors: MT/MirrorSourceTaskTest.testOffsetSync.
func TestTheSyncWriterOfTheTestsIsMirrorMakers(t *testing.T) {
	w := newSyncWriter(50)
	for _, step := range []struct {
		up, down  int64
		due, then bool // then: it is written
	}{
		{0, 100, true, true},
		{2, 102, true, true},
		{3, 152, false, true},
		{4, 153, true, true},
		{5, 154, false, true},
		{6, 203, false, true},
		{7, 204, true, true},
		{2, 206, true, true},
		{3, 207, false, true},
		{4, 3, true, true},
		{5, 4, false, false},
		{7, 6, true, false},
		{7, 6, true, false},
		{8, 7, true, false},
		{10, 57, true, true},
		{11, 58, false, false},
	} {
		if got := w.update(step.up, step.down); got != step.due {
			t.Errorf("%d, %d: due %v, want %v", step.up, step.down, got, step.due)
		}
		if step.then {
			w.written()
		}
	}
}

// mirrored is a partition as both saw it: every record's place, what
// MirrorMaker 2 knows of it, and what kmirror knows.
type mirrored struct {
	places []place
	store  syncStore
	runs   checkpoint.Runs
}

// mirror carries n records: behind a stretch of up to stretch records, there is
// a hole of up to hole offsets in the source.
func mirror(t *testing.T, random *rand.Rand, n, stretch, hole int) *mirrored {
	m, w := &mirrored{}, newSyncWriter(100) // offset.lag.max as it comes
	source, target := int64(0), int64(0)
	for len(m.places) < n {
		run := checkpoint.Run{Source: source, Target: target, Count: 1 + random.Int64N(int64(stretch))}
		if err := m.runs.Add(run); err != nil {
			t.Fatal(err)
		}
		for i := range run.Count {
			m.places = append(m.places, place{source + i, target + i})
			if w.update(source+i, target+i) {
				m.store.take(checkpoint.OffsetSync{Upstream: source + i, Downstream: target + i})
				w.written()
			}
		}
		source, target = source+run.Count, target+run.Count
		if hole > 0 {
			source += 1 + random.Int64N(int64(hole))
		}
	}
	return m
}

// again counts the records that a group reads a second time which stood before
// record i in the source and goes on at target offset at.
func (m *mirrored) again(i int, at int64) int {
	first, _ := slices.BinarySearchFunc(m.places, at, func(p place, at int64) int { return int(p.to - at) })
	return i - first
}

// How many records a group reads twice after a failover, if every sync, every
// checkpoint and every commit is there: by MirrorMaker 2's rule, and by ours.
func TestWhatIsReadTwiceBesideMirrorMaker(t *testing.T) {
	const records = 100_000
	var table strings.Builder
	fmt.Fprintf(&table, "\n%-32s %10s %12s %12s %8s", "source", "behind", "MM2 median", "MM2 worst", "kmirror")
	for _, kind := range []struct {
		name          string
		stretch, hole int
	}{
		{"plain", 1000, 0},
		{"transactions of 1 to 200 records", 200, 1},
		{"compacted", 5, 20},
	} {
		random := rand.New(rand.NewPCG(7, uint64(kind.stretch)))
		m := mirror(t, random, records, kind.stretch, kind.hole)
		for _, behind := range []int{10, 1000, 10_000, 90_000} {
			var theirs []int
			ours := 0
			for range 500 {
				i := len(m.places) - 1 - behind/2 - random.IntN(behind)
				if i < 0 {
					continue
				}
				offset := m.places[i].from
				theirs = append(theirs, m.again(i, m.store.translate(offset)))
				if theirs[len(theirs)-1] < 0 {
					t.Fatalf("MirrorMaker 2's rule skips at %d", offset)
				}
				got := m.runs.Forward(offset)
				if !got.Exact || got.Offset != m.places[i].to {
					t.Errorf("%d: got %+v, want exactly %d", offset, got, m.places[i].to)
				}
				ours = max(ours, m.again(i, got.Offset))
			}
			slices.Sort(theirs)
			fmt.Fprintf(&table, "\n%-32s %10d %12d %12d %8d", kind.name, behind, theirs[len(theirs)/2], theirs[len(theirs)-1], ours)
			if ours != 0 {
				t.Errorf("%s, %d behind: %d records are read twice", kind.name, behind, ours)
			}
		}
	}
	t.Log(table.String())
}
