package mirror

import (
	"bytes"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"

	"kmirror/internal/wire"
)

func batchOf(t *testing.T, o wire.BatchOptions, offset int64, values ...string) wire.Batch {
	t.Helper()
	recs := make([]wire.Record, 0, len(values))
	for i, v := range values {
		recs = append(recs, wire.Record{Offset: offset + int64(i), Timestamp: 1000 + int64(i), Value: []byte(v)})
	}
	b, err := wire.EncodeBatch(nil, recs, o)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// steps writes an outcome as a reader would tell it.
func (out climbed) steps(t *testing.T) (told []string) {
	t.Helper()
	for _, p := range out.batches {
		if err := p.batch.CheckCRC(); err != nil {
			t.Error(err)
		}
		s := p.mode.String()
		if p.reason != "" {
			s += "/" + p.reason
		}
		for i := range p.pieces.len() {
			s += fmt.Sprintf(" %d+%d", p.pieces.at(i).source, p.pieces.at(i).count)
		}
		told = append(told, s)
	}
	for _, d := range out.dropped {
		told = append(told, fmt.Sprintf("drop/%s %d", d.reason, d.records))
	}
	return append(told, fmt.Sprintf("next %d", out.next))
}

func TestLadder(t *testing.T) {
	plain := wire.Plain(wire.CodecNone)
	lz4 := wire.Plain(wire.CodecLZ4)
	txn := wire.BatchOptions{ProducerID: 7, Transactional: true, LeaderEpoch: -1}
	holes := func() wire.Batch {
		b, err := wire.EncodeBatch(nil, []wire.Record{{Offset: 10, Value: []byte("a")}, {Offset: 11, Value: []byte("b")}, {Offset: 15, Value: []byte("c")}},
			wire.BatchOptions{Codec: wire.CodecZstd, ProducerID: -1, ProducerEpoch: -1, BaseSequence: -1, KeepOffsets: true})
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
	stamped := batchOf(t, plain, 10, "a", "b")
	stamped.SetLogAppendTime(5555)
	cut := batchOf(t, plain, 12, "c", "d")

	for name, tt := range map[string]struct {
		log     []wire.Batch
		tail    []byte
		from    int64
		aborted []abortedTxn
		limit   int
		want    []string
	}{
		"raw":                    {log: []wire.Batch{batchOf(t, lz4, 10, "a", "b"), batchOf(t, plain, 12, "c")}, from: 10, want: []string{"raw 10+2", "raw 12+1", "next 13"}},
		"a cut tail waits":       {log: []wire.Batch{batchOf(t, plain, 10, "a", "b")}, tail: cut[:70], from: 10, want: []string{"raw 10+2", "next 12"}},
		"behind":                 {log: []wire.Batch{batchOf(t, plain, 10, "a", "b"), batchOf(t, plain, 12, "c")}, from: 12, want: []string{"raw 12+1", "drop/behind 2", "next 13"}},
		"crop":                   {log: []wire.Batch{batchOf(t, lz4, 10, "a", "b", "c")}, from: 12, want: []string{"crop/position 12+1", "next 13"}},
		"holes":                  {log: []wire.Batch{holes()}, from: 10, want: []string{"reencode/holes 10+2 15+1", "next 16"}},
		"crop with holes":        {log: []wire.Batch{holes()}, from: 11, want: []string{"crop/position 11+1 15+1", "next 16"}},
		"inside a hole":          {log: []wire.Batch{holes()}, from: 13, want: []string{"crop/position 15+1", "next 16"}},
		"log append time":        {log: []wire.Batch{stamped}, from: 10, want: []string{"reencode/logappend 10+2", "next 12"}},
		"committed":              {log: []wire.Batch{batchOf(t, txn, 10, "a"), controlBatch(11, 7, false)}, from: 10, want: []string{"raw 10+1", "drop/control 1", "next 12"}},
		"aborted":                {log: []wire.Batch{batchOf(t, txn, 10, "a"), controlBatch(11, 7, true), batchOf(t, txn, 12, "b")}, from: 10, aborted: []abortedTxn{{7, 10}}, want: []string{"raw 12+1", "drop/aborted 1", "drop/control 1", "next 13"}},
		"aborted after commit":   {log: []wire.Batch{batchOf(t, txn, 10, "a"), controlBatch(11, 7, false), batchOf(t, txn, 12, "b"), controlBatch(13, 7, true)}, from: 10, aborted: []abortedTxn{{7, 12}}, want: []string{"raw 10+1", "drop/control 1", "drop/aborted 1", "drop/control 1", "next 14"}},
		"not his transaction":    {log: []wire.Batch{batchOf(t, plain, 10, "a"), batchOf(t, txn, 11, "b"), controlBatch(12, 7, true)}, from: 10, aborted: []abortedTxn{{7, 11}}, want: []string{"raw 10+1", "drop/aborted 1", "drop/control 1", "next 13"}},
		"split":                  {log: []wire.Batch{batchOf(t, plain, 10, "aaaaaaaaaaaaaaaaaaaa", "bbbbbbbbbbbbbbbbbbbb", "cccccccccccccccccccc")}, from: 10, limit: 125, want: []string{"reencode/size 10+1", "reencode/size 11+2", "next 13"}},
		"an abort open at start": {log: []wire.Batch{batchOf(t, txn, 10, "a"), batchOf(t, plain, 11, "b")}, from: 10, aborted: []abortedTxn{{7, 3}}, want: []string{"raw 11+1", "drop/aborted 1", "next 12"}},
	} {
		t.Run(name, func(t *testing.T) {
			var log []byte
			for _, b := range tt.log {
				log = append(log, b...)
			}
			log = append(log, tt.tail...)
			c, err := climb(log, tt.from, tt.aborted, ladderLimits{inflate: 1 << 20, maxBatch: tt.limit})
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(tt.want, c.steps(t)); diff != "" {
				t.Error(diff)
			}
		})
	}
}

func TestLadderKeepsTheGoodPartBeforeAFault(t *testing.T) {
	plain := wire.Plain(wire.CodecNone)
	good, large := batchOf(t, plain, 10, "a"), batchOf(t, plain, 11, string(make([]byte, 4000)))
	c, err := climb(slices.Concat(good, large), 10, nil, ladderLimits{inflate: 1 << 20, maxBatch: 1000})
	tooLarge := (*recordTooLargeError)(nil)
	if !errors.As(err, &tooLarge) || tooLarge.offset != 11 {
		t.Fatalf("got %v, want a record too large at 11", err)
	}
	if diff := cmp.Diff([]string{"raw 10+1", "next 11"}, c.steps(t)); diff != "" {
		t.Error(diff)
	}

	torn := batchOf(t, wire.Plain(wire.CodecLZ4), 11, "b", "c")
	torn[len(torn)-1] ^= 1
	c, err = climb(slices.Concat(good, torn), 10, nil, ladderLimits{inflate: 1 << 20})
	if err != nil || len(c.batches) != 2 {
		t.Fatalf("raw batches are not opened: the target verifies their checksum; got %v, %v", c.steps(t), err)
	}
	if _, err = climb(torn, 12, nil, ladderLimits{inflate: 1 << 20}); err == nil {
		t.Fatal("a batch that is opened must be verified first")
	}
}

func TestLadderReencodesOldMessages(t *testing.T) {
	for magic, log := range map[int8][]byte{0: legacyMessage(0, 5, "k", "old"), 1: legacyMessage(1, 5, "k", "old")} {
		c, err := climb(slices.Concat(log, batchOf(t, wire.Plain(wire.CodecNone), 6, "new")), 5, nil, ladderLimits{inflate: 1 << 20})
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff([]string{"reencode/legacy 5+1", "raw 6+1", "next 7"}, c.steps(t)); diff != "" {
			t.Errorf("magic %d: %s", magic, diff)
		}
		recs, err := c.batches[0].batch.Records(1 << 20)
		if err != nil || !bytes.Equal(recs[0].Value, []byte("old")) || !bytes.Equal(recs[0].Key, []byte("k")) {
			t.Errorf("magic %d: %v %v", magic, recs, err)
		}
	}
}

// FuzzClimb: whatever a broker sends, the ladder neither panics nor moves back.
func FuzzClimb(f *testing.F) {
	log, _ := randomSource(rand.New(rand.NewPCG(1, 2)), 30)
	var all []byte
	for _, b := range log.batches {
		all = append(all, b...)
	}
	f.Add(all, int64(0))
	f.Add(all[:len(all)/2], int64(9))
	f.Add(legacyMessage(1, 5, "k", "v"), int64(5))
	f.Fuzz(func(t *testing.T, log []byte, from int64) {
		if from < 0 {
			return
		}
		c, _ := climb(log, from, []abortedTxn{{900, 1}}, ladderLimits{inflate: 1 << 20, maxBatch: 1000})
		if c.next < from {
			t.Fatalf("went back from %d to %d", from, c.next)
		}
		at := from
		for _, p := range c.batches {
			n := int32(0)
			for i := range p.pieces.len() {
				pc := p.pieces.at(i)
				if pc.source < at || pc.count <= 0 {
					t.Fatalf("pieces %v after %d", p.pieces, at)
				}
				at = pc.end()
				n += pc.count
			}
			if n != p.count || p.batch.NumRecords() != n {
				t.Fatalf("%d records in pieces of %d", p.batch.NumRecords(), n)
			}
		}
	})
}
