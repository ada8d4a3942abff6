package checkpoint_test

import (
	"log/slog"
	"testing"

	"pgregory.net/rapid"

	"kmirror/checkpoint"
)

// Whatever part of it is written each time the process dies, and whenever the topic is
// compacted, in the end nothing is left of a former incarnation, and nothing is found
// to delete.
func TestForget(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		h := &household{logs: newMemoryLogs(), stands: map[int64]int64{}}
		for range rapid.IntRange(1, 4).Draw(t, "lives") {
			h.live(t, rapid.IntRange(0, 300).Draw(t, "batches"))
			h.save(t)
			if h.end > 0 && rapid.IntRange(0, 3).Draw(t, "unclean") == 0 {
				h.lose(rapid.Int64Range(0, h.end).Draw(t, "lost from"))
				h.save(t)
			}
		}
		declared := map[int64]struct{}{7: {}}
		if chores := checkpoint.Forget(key(), h.load(t), nil); chores.Anchors != 0 {
			t.Fatalf("%d anchors go of an id of which nobody knows whose it is", chores.Anchors)
		}
		for {
			chores := checkpoint.Forget(key(), h.load(t), declared)
			if len(chores.Records) == 0 {
				break
			}
			h.write(t, chores.Records[:rapid.IntRange(1, len(chores.Records)).Draw(t, "written")]...)
			if rapid.Bool().Draw(t, "compacted") {
				h.compact(t)
			}
		}
		left := h.load(t)
		if source, _, mapped := left.Runs.End(); mapped || left.Ledger.Anchors() > 0 || left.Filed.Len() > 0 || left.Open {
			t.Fatalf("%d anchors, %d blocks are left (open: %v), and a map to %d", left.Ledger.Anchors(), left.Filed.Len(), left.Open, source)
		}
		h.compact(t)
		if n := len(h.logs.records(checkpoint.MapTopic, key().MapPartition())); n > 0 {
			t.Fatalf("%d records stand in the topic", n)
		}
	})
}

// A former incarnation is tidied up only while its successor is recorded.
func TestRecorderTidiesFormer(t *testing.T) {
	logs := newMemoryLogs()
	r := checkpoint.NewRecorder(logs, slog.New(slog.DiscardHandler))
	now, former := key(), key()
	former.TopicID = [16]byte{99}
	records := checkpoint.Forget(former, checkpoint.Loaded{Ledger: &checkpoint.Ledger{}, Filed: &checkpoint.Filed{}, Open: true}, nil).Records
	stand := func() int { return len(logs.records(checkpoint.MapTopic, former.MapPartition())) }
	flush := func() {
		t.Helper()
		if err := r.Flush(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	if r.TidyFormer(now, former, records) {
		t.Error("taken, and the partition is not recorded")
	}
	r.Resume(now, &checkpoint.Runs{})
	if !r.TidyFormer(now, former, records) || r.TidyFormer(now, former, records) {
		t.Error("taken twice, or not at all")
	}
	r.Forget(now)
	flush()
	if stand() != 0 {
		t.Error("written by one who had let go of the partition")
	}
	r.Resume(now, &checkpoint.Runs{})
	if !r.TidyFormer(now, former, records) {
		t.Error("not taken")
	}
	flush()
	if stand() != 1 || r.Stats().Deleted != 1 {
		t.Errorf("%d records, %+v", stand(), r.Stats())
	}
	if !r.TidyFormer(now, former, records) {
		t.Error("not taken once more")
	}
}
