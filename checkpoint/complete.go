package checkpoint

import (
	"iter"

	"kmirror/internal/wire"
)

// Complete adds to runs what the target log holds beyond their end: the part
// of the map that was not yet persisted when its owner died. batches walks the
// target partition in order, from any offset at or before the end of runs to
// the high watermark; only headers are looked at. Batches of others, control
// batches and what runs already hold are passed over. It returns the number of
// source records added.
//
// Errors: those of batches; *UnanchoredError; *OrderError when the source
// offsets in the target log go back.
func Complete(ledger *Ledger, runs *Runs, batches iter.Seq2[wire.Batch, error]) (added int64, err error) {
	for b, err := range batches {
		if err != nil {
			return added, err
		}
		_, end, _ := runs.End()
		if b.LastOffset() < end {
			continue
		}
		found, err := ledger.RunsFrom(b, end)
		if err != nil {
			return added, err
		}
		for _, run := range found {
			if err := runs.Add(run); err != nil {
				return added, err
			}
			added += run.Count
		}
	}
	return added, nil
}
