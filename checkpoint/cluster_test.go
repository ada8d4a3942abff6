package checkpoint_test

import (
	"testing"
	"testing/synctest"
	"time"

	"kmirror/checkpoint"
)

// The whole of what an owner keeps, on a cluster that compacts it.
func TestLedgerAndMapOnACompactedTopic(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		west := newSite(t, "west")
		if err := west.ours.EnsureInternalTopic(t.Context(), checkpoint.MapTopic, checkpoint.MapPartitions, checkpoint.MapTopicConfigs()); err != nil {
			t.Fatal(err)
		}
		writer, recorder := checkpoint.NewLedgerWriter(west.ours, quiet()), checkpoint.NewRecorder(west.ours, quiet())
		stopWriter, stopRecorder := start(t, writer.Run), start(t, recorder.Run)
		recorder.Resume(key(), &checkpoint.Runs{})
		for i := range int32(500) { // a hole before each of them, so an anchor and a run each
			acknowledged := make(chan error, 1)
			writer.Write([]checkpoint.Anchor{anchorAt(key(), i)}, func(err error) { acknowledged <- err })
			if err := <-acknowledged; err != nil {
				t.Fatal(err)
			}
			if err := recorder.Acked(key(), checkpoint.Run{Source: int64(i) * 2, Target: int64(i), Count: 1}); err != nil {
				t.Fatal(err)
			}
			time.Sleep(10 * time.Millisecond)
		}
		stopWriter()
		stopRecorder()
		if err := recorder.Flush(t.Context()); err != nil {
			t.Fatal(err)
		}
		west.fake.Compact()
		loaded, err := checkpoint.LoadPartition(t.Context(), west.ours, key())
		if err != nil {
			t.Fatal(err)
		}
		if loaded.Ledger.Len() != 500 || loaded.Runs.Len() != 500 {
			t.Errorf("%d steps and %d runs, want 500 of each", loaded.Ledger.Len(), loaded.Runs.Len())
		}
		for i := range int64(500) {
			if source, ok := loaded.Ledger.Source(1, 0, int32(i)); !ok || loaded.Runs.Forward(source).Offset != i {
				t.Errorf("record %d: source %d (%v), which is at %+v", i, source, ok, loaded.Runs.Forward(source))
			}
		}
	})
}
