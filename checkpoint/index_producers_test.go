package checkpoint_test

import (
	"testing"

	"kmirror/checkpoint"
	"kmirror/internal/wire"
)

// Whatever record says whose a producer id is, the index knows it.
func TestAnIndexKnowsWhoWrote(t *testing.T) {
	topic := &mapTopic{}
	k := key()
	add := func(partition int32, rec wire.Record) {
		rec.Offset = int64(len(topic[partition]))
		topic[partition] = append(topic[partition], rec)
	}
	add(k.MapPartition(), checkpoint.EncodeAnchor(checkpoint.Anchor{Key: k, ProducerID: 1, Steps: []checkpoint.Step{{}}}))
	add(k.MapPartition(), checkpoint.EncodeOwner(checkpoint.Owner{Key: k, TransactionalID: "o", ProducerID: 2}))
	w := checkpoint.Writer{Flow: k.Flow, TransactionalID: "w", ProducerID: 3}
	add(w.MapPartition(), checkpoint.EncodeWriter(w))
	for id, flow := range map[int64]string{4: k.Flow, 5: "another"} {
		p := checkpoint.Provenance{Flow: flow, ProducerID: id}
		add(p.MapPartition(), checkpoint.EncodeProvenance(p))
	}
	index, _ := topic.load(t)
	for id := int64(-1); id < 7; id++ {
		if got, want := index.Wrote(k.Flow, id), id >= 1 && id <= 4; got != want {
			t.Errorf("id %d: got %v", id, got)
		}
	}
	if !index.Wrote("another", 5) {
		t.Error("the other flow's is not known")
	}
}
