package checkpoint_test

import (
	"testing"

	"kmirror/checkpoint"
	"kmirror/internal/wire"
)

// Whose a producer id is, every kind of record says that ever named one; what a
// provenance says is never lost to one of them.
func TestProvenancesAreReadOffEveryKind(t *testing.T) {
	logs := newMemoryLogs()
	write := func(k checkpoint.Key, rec wire.Record) {
		t.Helper()
		if _, err := logs.Append(t.Context(), checkpoint.MapTopic, k.MapPartition(), []wire.Record{rec}); err != nil {
			t.Fatal(err)
		}
	}
	const flow = "east->west"
	k := checkpoint.Key{Flow: flow, Topic: "orders", Partition: 3}
	whole := checkpoint.Provenance{Flow: flow, ProducerID: 5, Source: "e", Target: "w", KeepsNames: true, TimeMillis: 7}
	write(k, checkpoint.EncodeAnchor(checkpoint.Anchor{Key: k, ProducerID: 1, Steps: []checkpoint.Step{{Source: 4}}}))
	write(k, checkpoint.EncodeDeleted(checkpoint.Anchor{Key: k, ProducerID: 2, Steps: []checkpoint.Step{{Source: 4}}}))
	write(k, checkpoint.EncodeWriter(checkpoint.Writer{Flow: flow, TransactionalID: "x", ProducerID: 3, Life: "l"}))
	write(k, checkpoint.EncodeOwner(checkpoint.Owner{Key: k, TransactionalID: "x", ProducerID: 4}))
	write(checkpoint.Key{Flow: flow}, checkpoint.EncodeProvenance(whole))
	write(k, checkpoint.EncodeAnchor(checkpoint.Anchor{Key: k, ProducerID: 5, Steps: []checkpoint.Step{{Source: 4}}}))
	write(k, checkpoint.EncodeDeleted(checkpoint.Writer{Flow: flow, TransactionalID: "y"}))
	write(k, wire.Record{Key: []byte{1, 200}, Value: []byte{1}})
	write(k, wire.Record{Value: []byte("a stranger's")})

	known := checkpoint.NewProvenances(logs)
	if err := known.Update(t.Context()); err != nil {
		t.Fatal(err)
	}
	for id := range int64(5) {
		if got, ok := known.Of(id + 1); !ok || got.Flow != flow {
			t.Errorf("of producer id %d: %+v, %v; want %s", id+1, got, ok, flow)
		}
	}
	if got, _ := known.Of(5); got != whole {
		t.Errorf("got %+v, want %+v", got, whole)
	}
	for _, id := range []int64{-1, 0, 6, 200} {
		if got, ok := known.Of(id); ok {
			t.Errorf("producer id %d is %+v, want nobody's", id, got)
		}
	}

	later := checkpoint.Provenance{Flow: "hq->west", ProducerID: 6, Source: "h", Target: "w", TimeMillis: 8}
	write(checkpoint.Key{Flow: later.Flow}, checkpoint.EncodeProvenance(later))
	if err := known.Update(t.Context()); err != nil {
		t.Fatal(err)
	}
	if got, _ := known.Of(6); got != later {
		t.Errorf("what came later: got %+v, want %+v", got, later)
	}
	logs.set(func() { clear(logs.logs) }) // the topic was made anew
	write(k, checkpoint.EncodeOwner(checkpoint.Owner{Key: k, TransactionalID: "x", ProducerID: 9}))
	if err := known.Update(t.Context()); err != nil {
		t.Fatal(err)
	}
	if _, ok := known.Of(9); !ok {
		t.Error("of a topic that was made anew nothing is read")
	}
}
