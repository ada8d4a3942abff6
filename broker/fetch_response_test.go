package broker

import (
	"bytes"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"

	"kmirror/broker/storage"
)

// The response is encoded by hand; kmsg, which decodes it, is the judge.
func TestFetchResponseReadsBackInEveryVersion(t *testing.T) {
	a, b := [16]byte{1}, [16]byte{2}
	entry := func(topic string, id [16]byte, partition int32, records string) *fetched {
		return &fetched{
			partition: &fetchPartition{key: partitionKey{topic: topic, id: id, partition: partition}}, topic: topic,
			highWatermark: 10, logStart: 3, lastStable: 8, divergingEpoch: -1, leader: -1, leaderEpoch: -1, bytes: len(records),
		}
	}
	records := []string{"first", "", "", "", "last, and a longer one"}
	failed := entry("a", a, 1, "")
	failed.code, failed.highWatermark, failed.logStart = kerr.FencedLeaderEpoch.Code, -1, -1
	failed.leader, failed.leaderEpoch = 7, 4
	diverged := entry("b", b, 0, "")
	diverged.divergingEpoch, diverged.divergingEnd = 2, 99
	of := entry("a", a, 0, records[0])
	of.aborted = []storage.AbortedTransaction{{ProducerID: 5, FirstOffset: 6}, {ProducerID: 7, FirstOffset: 4}}
	entries := []*fetched{of, failed, diverged, entry("b", b, 3, ""), entry("a", a, 2, records[4])}

	for version := int16(4); version <= 18; version++ {
		resp := &fetchResponse{version: version, sessionID: 77, committed: version%2 == 0, entries: entries}
		head, marks := resp.appendTo(nil, nil)
		var whole []byte
		from := 0
		for i, mark := range marks {
			whole = append(append(whole, head[from:mark]...), records[i]...)
			from = mark
		}
		whole = append(whole, head[from:]...)

		got := kmsg.NewPtrFetchResponse()
		got.SetVersion(version)
		if err := got.ReadFrom(whole); err != nil {
			t.Fatalf("version %d: %v", version, err)
		}
		if again := got.AppendTo(nil); !bytes.Equal(again, whole) {
			t.Errorf("version %d: kmsg encodes it otherwise:\n%s", version, cmp.Diff(whole, again))
		}
		if len(got.Topics) != 3 || len(got.Topics[0].Partitions) != 2 || len(got.Topics[1].Partitions) != 2 {
			t.Fatalf("version %d: topics %+v", version, got.Topics)
		}
		first, bad := got.Topics[0].Partitions[0], got.Topics[0].Partitions[1]
		if string(first.RecordBatches) != records[0] || first.HighWatermark != 10 || bad.ErrorCode != failed.code {
			t.Errorf("version %d: %+v, %+v", version, first, bad)
		}
		aborted := of.aborted
		if !resp.committed {
			aborted = nil
		}
		if len(first.AbortedTransactions) != len(aborted) || first.LastStableOffset != 8 {
			t.Errorf("version %d: last stable %d, aborted %+v", version, first.LastStableOffset, first.AbortedTransactions)
		}
		for i, tx := range aborted {
			if got := first.AbortedTransactions[i]; got.ProducerID != tx.ProducerID || got.FirstOffset != tx.FirstOffset {
				t.Errorf("version %d: aborted %+v, want %+v", version, got, tx)
			}
		}
		if string(got.Topics[2].Partitions[0].RecordBatches) != records[4] {
			t.Errorf("version %d: records of the last entry: %q", version, got.Topics[2].Partitions[0].RecordBatches)
		}
		if version >= 12 && (bad.CurrentLeader.LeaderID != 7 || bad.CurrentLeader.LeaderEpoch != 4 || got.Topics[1].Partitions[0].DivergingEpoch.EndOffset != 99) {
			t.Errorf("version %d: leader %+v, diverging %+v", version, bad.CurrentLeader, got.Topics[1].Partitions[0].DivergingEpoch)
		}
		if version >= 7 && got.SessionID != 77 {
			t.Errorf("version %d: session %d", version, got.SessionID)
		}
	}
}
