package checkpoint_test

import (
	"encoding/hex"
	"errors"
	"flag"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"kmirror/checkpoint"
	"kmirror/internal/wire"
)

var rewrite = flag.Bool("rewrite", false, "write the golden files anew")

func key() checkpoint.Key {
	return checkpoint.Key{Flow: "east->west", Topic: "orders", TopicID: [16]byte{0xaa, 1, 2, 3}, Partition: 7}
}

func ownerKey() checkpoint.Key {
	k := key()
	k.TopicID = [16]byte{}
	return k
}

// looseSamples are written in version 2 of their kinds.
func looseSamples() map[string]any {
	return map[string]any{
		"full_block": checkpoint.Block{
			Key: key(), Generation: 2, TargetID: [16]byte{0xbb, 9}, Through: 2000,
			Runs: []checkpoint.Run{{Source: 100, Target: 200, Count: 50, Loose: true}, {Source: 251, Target: 350, Count: 1 << 33}, {Source: 900 + 1<<33, Target: 951 + 1<<33, Count: 1, Loose: true}},
		},
		"open_block": checkpoint.Block{
			Key: key(), Open: true, Generation: 300, TargetID: [16]byte{0xbb, 9}, Through: 1020,
			Runs: []checkpoint.Run{{Loose: true}, {Source: 1000, Target: 700, Count: 17}},
		},
	}
}

// samples returns one of each kind of record with what it decodes to.
func samples() map[string]any {
	return map[string]any{
		"anchor": checkpoint.Anchor{
			Key: key(), ProducerID: 4711, Epoch: 3, TimeMillis: 1700000000000,
			Steps: []checkpoint.Step{{Sequence: math.MaxInt32 - 9, Source: 1 << 40}, {Sequence: 5, Source: 1<<40 + 16}, {Sequence: 6, Source: 1<<40 + 300}},
		},
		"full_block": checkpoint.Block{
			Key: key(), Generation: 2, TargetID: [16]byte{0xbb, 9}, Through: 1020,
			Runs: []checkpoint.Run{{Source: 100, Target: 200, Count: 50}, {Source: 151, Target: 250, Count: 1 << 33}, {Source: 151 + 1<<33, Target: 251 + 1<<33, Count: 1}},
		},
		"open_block": checkpoint.Block{
			Key: key(), Open: true, Generation: 300, TargetID: [16]byte{0xbb, 9}, Through: 1020,
			Runs: []checkpoint.Run{{Source: 500, Target: 600}, {Source: 1000, Target: 700, Count: 17}},
		},
		"pair": checkpoint.TopicPair{
			Flow: "east->west", SourceTopic: "orders", SourceID: [16]byte{0xaa, 1, 2, 3}, TargetTopic: "east.orders", TargetID: [16]byte{0xbb, 9}, TimeMillis: 1700000000000,
		},
		"writer":             checkpoint.Writer{Flow: "east->west", TransactionalID: "kmirror.east->west.edge-1/0011", ProducerID: 4711, Life: "edge-1/0011", TimeMillis: 1700000000000},
		"owner":              checkpoint.Owner{Key: ownerKey(), TransactionalID: "kmirror.east->west.edge-1/0011", ProducerID: 4711, TimeMillis: 1700000000000},
		"provenance":         checkpoint.Provenance{Flow: "east->west", ProducerID: 4711, Source: "nMsnNRZESk-6JMDHjGHIsA", Target: "west-id", KeepsNames: true, TimeMillis: 1700000000000},
		"deleted_provenance": checkpoint.Deleted{Of: checkpoint.Provenance{Flow: "east->west", ProducerID: 4711}},
		"deleted_writer":     checkpoint.Deleted{Of: checkpoint.Writer{Flow: "east->west", TransactionalID: "kmirror.east->west.edge-1/0011"}},
		"deleted_owner":      checkpoint.Deleted{Of: checkpoint.Owner{Key: ownerKey(), TransactionalID: "kmirror.east->west.edge-1/0011"}},
		"deleted_anchor":     checkpoint.Deleted{Of: checkpoint.Anchor{Key: key(), ProducerID: 4711, Epoch: 3, Steps: []checkpoint.Step{{Sequence: 12}}}},
		"deleted_full_block": checkpoint.Deleted{Of: checkpoint.Block{Key: key(), Generation: 2, Runs: []checkpoint.Run{{Source: 100}}}},
		"deleted_open_block": checkpoint.Deleted{Of: checkpoint.Block{Key: key(), Open: true, Runs: []checkpoint.Run{{}}}},
	}
}

func encode(what any) wire.Record {
	switch what := what.(type) {
	case checkpoint.Anchor:
		return checkpoint.EncodeAnchor(what)
	case checkpoint.Block:
		return checkpoint.EncodeBlock(what)
	case checkpoint.TopicPair:
		return checkpoint.EncodePair(what)
	case checkpoint.Writer:
		return checkpoint.EncodeWriter(what)
	case checkpoint.Owner:
		return checkpoint.EncodeOwner(what)
	case checkpoint.Provenance:
		return checkpoint.EncodeProvenance(what)
	case checkpoint.Deleted:
		return checkpoint.EncodeDeleted(what.Of)
	}
	panic(fmt.Sprintf("%T", what))
}

// The golden files hold every version ever written. They are never changed,
// only added to: what was written once can be read for ever.
func TestGoldenRecordsStayReadable(t *testing.T) {
	samples := samples()
	samples["full_block"] = withThrough(samples["full_block"].(checkpoint.Block))
	loose := looseSamples()
	loose["full_block"] = withThrough(loose["full_block"].(checkpoint.Block))
	for name, want := range samples {
		holdGolden(t, filepath.Join("map_v1", name), want)
	}
	for name, want := range loose {
		holdGolden(t, filepath.Join("map_v2", name), want)
	}
}

// holdGolden holds what is read and written against a file of testdata.
func holdGolden(t *testing.T, name string, want any) {
	path := filepath.Join("testdata", name+".hex")
	if *rewrite {
		rec := encode(want)
		text := "key   " + hex.EncodeToString(rec.Key) + "\n"
		if rec.Value != nil {
			text += "value " + hex.EncodeToString(rec.Value) + "\n"
		}
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	golden := readGolden(t, path)
	got, err := checkpoint.Decode(golden)
	if err != nil {
		t.Errorf("%s: %v", name, err)
		return
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("%s (-want +got):\n%s", name, diff)
	}
	rec := encode(want)
	if diff := cmp.Diff([2][]byte{golden.Key, golden.Value}, [2][]byte{rec.Key, rec.Value}); diff != "" {
		t.Errorf("%s is written differently now (-golden +got):\n%s", name, diff)
	}
}

// withThrough sets Through to the least it can be, the end of the last run.
func withThrough(b checkpoint.Block) checkpoint.Block {
	last := b.Runs[len(b.Runs)-1]
	b.Through = last.Source + last.Count
	if last.Loose {
		b.Through, b.Stretch = b.Through+1000, 500
	}
	return b
}

func readGolden(t *testing.T, path string) wire.Record {
	t.Helper()
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	var rec wire.Record
	for line := range strings.Lines(string(text)) {
		field, digits, _ := strings.Cut(strings.TrimSpace(line), " ")
		data, err := hex.DecodeString(strings.TrimSpace(digits))
		if err != nil {
			t.Fatal(err)
		}
		if field == "key" {
			rec.Key = data
		} else {
			rec.Value = data
		}
	}
	return rec
}

func TestForeignRecordsAreRefused(t *testing.T) {
	good := encode(samples()["open_block"])
	anchor := encode(samples()["anchor"])
	for name, rec := range map[string]wire.Record{
		"no key":         {Value: good.Value},
		"unknown kind":   {Key: append([]byte{99}, good.Key[1:]...), Value: good.Value},
		"future version": {Key: good.Key, Value: append([]byte{3}, good.Value[1:]...)},
		"empty value":    {Key: good.Key, Value: []byte{}},
		"cut key":        {Key: good.Key[:10], Value: good.Value},
		"long key":       {Key: append(slices.Clip(good.Key), 0), Value: good.Value},
		"cut value":      {Key: good.Key, Value: good.Value[:len(good.Value)-1]},
		"long value":     {Key: good.Key, Value: append(slices.Clip(good.Value), 0)},
		"lying string":   {Key: []byte{2, 0xff, 0xff, 0xff, 0xff, 0x0f}, Value: good.Value},
		"no steps":       {Key: anchor.Key, Value: []byte{1, 0, 0}},
		"lying steps":    {Key: anchor.Key, Value: []byte{1, 0, 0xff, 0xff, 0xff, 0x7f, 1}},
	} {
		got, err := checkpoint.Decode(rec)
		if _, ok := errors.AsType[*checkpoint.FormatError](err); !ok {
			t.Errorf("%s: got %+v, %v; want a FormatError", name, got, err)
		}
	}
}

func TestMapPartitionIsStable(t *testing.T) {
	got := [4]int32{}
	for i := range got {
		k := key()
		k.Partition = int32(i)
		got[i] = k.MapPartition()
	}
	if want := [4]int32{7, 4, 5, 2}; got != want {
		t.Errorf("map partitions %v, want %v: they may never move", got, want)
	}
}

func genKey(t *rapid.T) checkpoint.Key {
	return checkpoint.Key{
		Flow:      rapid.StringN(0, 12, 40).Draw(t, "flow"),
		Topic:     rapid.StringN(0, 12, 249).Draw(t, "topic"),
		TopicID:   [16]byte(rapid.SliceOfN(rapid.Byte(), 16, 16).Draw(t, "id")),
		Partition: rapid.Int32Min(0).Draw(t, "partition"),
	}
}

func TestRecordsSurviveTheRoundTrip(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var want any
		switch rapid.IntRange(0, 2).Draw(t, "kind") {
		case 0:
			a := checkpoint.Anchor{Key: genKey(t), ProducerID: rapid.Int64Min(0).Draw(t, "pid"), Epoch: rapid.Int16Min(0).Draw(t, "epoch"), TimeMillis: rapid.Int64().Draw(t, "time")}
			step := checkpoint.Step{Sequence: rapid.Int32Min(0).Draw(t, "sequence"), Source: rapid.Int64Range(0, 1<<60).Draw(t, "source")}
			a.Steps = append(a.Steps, step)
			for range rapid.IntRange(0, 20).Draw(t, "steps") {
				advance := rapid.Int64Range(1, 1<<24).Draw(t, "advance")
				step = checkpoint.Step{
					Sequence: int32((int64(step.Sequence) + advance) & math.MaxInt32),
					Source:   max(0, step.Source+advance+rapid.Int64Range(-100, 1<<40).Draw(t, "skipped")),
				}
				a.Steps = append(a.Steps, step)
			}
			want = a
		case 1:
			want = genBlock(t, genKey(t))
		case 2:
			k := genKey(t)
			want = checkpoint.TopicPair{Flow: k.Flow, SourceTopic: k.Topic, SourceID: k.TopicID, TargetTopic: k.Topic + "'", TargetID: k.TopicID, TimeMillis: rapid.Int64().Draw(t, "time")}
		}
		got, err := checkpoint.Decode(encode(want))
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Fatalf("-want +got:\n%s", diff)
		}
	})
}

func genBlock(t *rapid.T, k checkpoint.Key) checkpoint.Block {
	b := checkpoint.Block{Key: k, Open: rapid.Bool().Draw(t, "open"), Generation: rapid.Uint32().Draw(t, "generation")}
	b.TargetID[0] = rapid.Byte().Draw(t, "target id")
	gap, loose := rapid.Int64Range(0, 1<<40), rapid.Bool().Draw(t, "thinned")
	var source, target int64
	for i := range rapid.IntRange(1, checkpoint.MaxBlockRuns).Draw(t, "runs") {
		r := checkpoint.Run{Source: source + gap.Draw(t, "source gap"), Target: target + gap.Draw(t, "target gap"), Count: rapid.Int64Range(int64(min(i, 1)), 1<<33).Draw(t, "count"), Loose: loose && rapid.Bool().Draw(t, "loose")}
		b.Runs = append(b.Runs, r)
		source, target = r.Source+r.Count, r.Target+r.Count
	}
	b.Through = source + gap.Draw(t, "beyond")
	if slices.ContainsFunc(b.Runs, func(r checkpoint.Run) bool { return r.Loose }) {
		b.Stretch = gap.Draw(t, "stretch")
	}
	return b
}

// A block of ordinary runs is small: this is what keeps the topic small.
func TestBlocksAreCompact(t *testing.T) {
	b := checkpoint.Block{Key: key()}
	source, target := int64(1<<40), int64(1<<40)
	for range checkpoint.MaxBlockRuns {
		b.Runs = append(b.Runs, checkpoint.Run{Source: source, Target: target, Count: 100})
		source, target = source+101, target+100
	}
	rec := checkpoint.EncodeBlock(withThrough(b))
	if n := len(rec.Key) + len(rec.Value); n > 4*checkpoint.MaxBlockRuns {
		t.Errorf("%d runs take %d bytes", len(b.Runs), n)
	}
}

func FuzzDecode(f *testing.F) {
	for _, all := range []map[string]any{samples(), looseSamples()} {
		for _, s := range all {
			rec := encode(s)
			f.Add(rec.Key, rec.Value)
		}
	}
	f.Fuzz(func(t *testing.T, key, value []byte) {
		got, err := checkpoint.Decode(wire.Record{Key: key, Value: value})
		if err != nil {
			return
		}
		again, err := checkpoint.Decode(encode(got))
		if err != nil {
			t.Fatalf("%+v was read, but not read again: %v", got, err)
		}
		if diff := cmp.Diff(got, again); diff != "" {
			t.Fatalf("-first +second:\n%s", diff)
		}
		switch got := got.(type) {
		case checkpoint.Block:
			var runs checkpoint.Runs
			runs.Merge(got)
			runs.Merge(got)
			runs.Forward(0)
		case checkpoint.Anchor:
			var ledger checkpoint.Ledger
			ledger.Add(got)
			ledger.Source(got.ProducerID, got.Epoch, got.Steps[0].Sequence)
		}
	})
}
