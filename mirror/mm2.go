package mirror

import (
	"context"

	"kmirror/checkpoint"
	"kmirror/internal/wire"
)

// heir finds where a partition goes on that kmirror never mirrored, because
// MirrorMaker 2 did: see mm2Heir. It is not begun where there is nothing to go on
// from. runs takes in what is known of the records that MirrorMaker 2 copied.
type heir func(ctx context.Context, id partitionID, pair *topicPair, runs *checkpoint.Runs, st standing) (next int64, begun bool, err error)

// bequest is what the map holds of MirrorMaker 2's records, to be written in one
// batch with the anchor of the first epoch: a map that began with the anchor alone
// would send older groups past records that they have not read.
func (w *witness) bequest(key checkpoint.Key, runs *checkpoint.Runs) []wire.Record {
	if !w.inherited {
		return nil
	}
	var records []wire.Record
	for _, block := range runs.Unsaved(key) {
		records = append(records, checkpoint.EncodeBlock(block))
	}
	return records
}
