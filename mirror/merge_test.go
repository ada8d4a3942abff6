package mirror

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"github.com/twmb/franz-go/pkg/kerr"

	"kmirror/checkpoint"
	"kmirror/internal/wire"
	"kmirror/topology"
)

// TestSmallBatchesLeaveTogether: what waits when a request is built is one
// batch; a lone one waits for nothing; what was sent stays as it is.
func TestSmallBatchesLeaveTogether(t *testing.T) {
	b := newBench(t)
	b.fetchOf(1, 100)
	lone := b.send()
	if n := lone.lanes[0].entry.batch.NumRecords(); n != 1 {
		t.Fatalf("a lone batch left with %d records", n)
	}
	sent := slices.Clone(lone.lanes[0].entry.batch)
	b.fetchOf(40, 100) // while the first is in flight, and in another response
	b.fetchOf(20, 100)
	b.answer(lone, kerr.NotEnoughReplicas.Code, -1)
	again := b.send()
	if !slices.Equal(sent, again.lanes[0].entry.batch) {
		t.Error("a repetition differs from what was sent")
	}
	b.answer(again, 0, 0)
	b.fetchOf(60, 100) // what was given back while the lane was in trouble
	merged := b.send()
	e := merged.lanes[0].entry
	if e.batch.NumRecords() != 60 || e.sequence != 1 || e.batch.BaseSequence() != 1 || e.mode != modeMerge || e.sources != 60 {
		t.Errorf("%d records from sequence %d, by %v", e.batch.NumRecords(), e.batch.BaseSequence(), e.mode)
	}
	b.answer(merged, 0, 1)
	if want := []checkpoint.Run{{Source: 0, Target: 0, Count: 1}, {Source: 1, Target: 1, Count: 60}}; !cmp.Equal(want, b.runs) {
		t.Error(cmp.Diff(want, b.runs))
	}
	if n := b.lane.progress(time.Now()).stats.modes[modeReason{modeMerge, reasonNone}]; n != 60 {
		t.Errorf("%d batches are counted as merged, want 60", n)
	}
	if n := b.budget.inUse(); n != 0 {
		t.Errorf("%d bytes are still charged", n)
	}
	b.fetchOf(10_000, 100)
	for at, left := int64(61), int64(10_000); left > 0; {
		p := b.send()
		if size := p.lanes[0].entry.batch.Size(); size > mergeUpTo {
			t.Fatalf("a merged batch of %d bytes", size)
		}
		n := int64(p.lanes[0].entry.batch.NumRecords())
		b.answer(p, 0, at)
		at, left = at+n, left-n
	}
	if n := b.budget.inUse(); n != 0 {
		t.Errorf("%d bytes are still charged", n)
	}
}

// TestWhatCannotBeMergedGoesAsItIs: a torn batch among others. The target
// verifies it, as it verifies every raw one.
func TestWhatCannotBeMergedGoesAsItIs(t *testing.T) {
	b := newBench(t)
	var log []byte
	for i := range 3 {
		x := oneRecord(t, fmt.Sprint(i))
		x.SetBaseOffset(int64(i))
		log = append(log, x...)
	}
	log[len(log)-1] ^= 1
	s := b.budget.slab()
	body := s.alloc(len(log))
	copy(body, log)
	c, err := climb(body, 0, nil, b.lane.limits())
	if err != nil {
		t.Fatal(err)
	}
	b.lane.take(0, c, s, 3)
	s.drop()
	for i := range int64(3) {
		p := b.send()
		if got := p.lanes[0].entry; got.mode != modeRaw || (got.batch.CheckCRC() == nil) != (i < 2) {
			t.Errorf("batch %d: %v, checksum %v", i, got.mode, got.batch.CheckCRC())
		}
		b.answer(p, 0, i)
	}
}

// TestClean says when a new epoch needs no marker.
func TestClean(t *testing.T) {
	type play func(b *bench)
	for name, tt := range map[string]struct {
		play play
		want bool
	}{
		"nothing was sent":      {func(b *bench) { b.fetch(2) }, true},
		"in flight":             {func(b *bench) { b.fetch(2); b.send() }, false},
		"acknowledged":          {func(b *bench) { b.fetch(2); b.answer(b.send(), 0, 0) }, true},
		"refused for certain":   {func(b *bench) { b.fetch(2); b.answer(b.send(), kerr.NotEnoughReplicas.Code, -1) }, true},
		"refused by who knows":  {func(b *bench) { b.fetch(2); b.answer(b.send(), kerr.NotLeaderForPartition.Code, -1) }, false},
		"appended all the same": {func(b *bench) { b.fetch(2); b.answer(b.send(), kerr.NotEnoughReplicasAfterAppend.Code, -1) }, false},
		"an unknown error":      {func(b *bench) { b.fetch(2); b.answer(b.send(), 12345, -1) }, false},
		"the connection broke": {func(b *bench) {
			b.fetch(2)
			*b.appender.flight.next() = *b.send()
			b.appender.flight.push()
			b.appender.lose("gone")
		}, false},
		"it broke, and all was sent again": {func(b *bench) {
			b.fetch(2)
			*b.appender.flight.next() = *b.send()
			b.appender.flight.push()
			b.appender.lose("gone")
			b.appender.flow("")
			b.answer(b.send(), 0, 0)
		}, true},
		"given up in doubt": {func(b *bench) {
			b.fetch(2)
			b.answer(b.send(), kerr.RequestTimedOut.Code, -1)
			b.lane.close()
		}, false},
		"abandoned in flight, then refused by who knows": {func(b *bench) {
			b.fetch(2)
			p := b.send()
			b.lane.abandon()
			b.answer(p, kerr.NotLeaderForPartition.Code, -1)
		}, false},
	} {
		t.Run(name, func(t *testing.T) {
			b := newBench(t)
			tt.play(b)
			if got := b.lane.clean(); got != tt.want {
				t.Errorf("clean is %v", got)
			}
		})
	}
}

// TestProbing: one request at a time until the first acknowledgement, after a
// move, a rewind and a long idle time (KAFKA-14359).
func TestProbing(t *testing.T) {
	b := newBench(t)
	now := time.Now()
	window := func(at time.Time) (n int) {
		for {
			if _, ok, _ := b.lane.sendable(at); !ok {
				return n
			}
			n++
		}
	}
	resolve := func(n int, base int64) {
		for i := range n {
			b.lane.ack(base + int64(i))
			b.lane.recorded()
		}
	}
	b.fetch(40)
	for i, step := range []struct {
		before func()
		at     time.Time
		want   int
	}{
		{func() {}, now, 1},
		{func() {}, now, inFlight},
		{func() { b.lane.board(b.appender, "") }, now, 1},
		{func() {}, now, inFlight},
		{func() {}, now.Add(probeAfter + time.Minute), 1},
		{func() {}, now.Add(probeAfter + time.Minute), inFlight},
		{func() { b.lane.detach(b.appender, ""); b.lane.attach(b.appender); b.fetch(3) }, now.Add(probeAfter + time.Minute), 1},
	} {
		step.before()
		n := window(step.at)
		if n != step.want {
			t.Errorf("step %d: %d in flight, want %d", i, n, step.want)
		}
		resolve(n, b.lane.targetEnd)
	}
}

// TestFencedOnProduce ends the life, not only the attempt.
func TestFencedOnProduce(t *testing.T) {
	for _, code := range []int16{kerr.InvalidProducerEpoch.Code, kerr.ProducerFenced.Code} {
		b := newBench(t)
		b.fetch(1)
		b.answer(b.send(), code, -1)
		select {
		case err := <-b.lane.faults:
			if fenced := (*fencedError)(nil); !errors.As(err, &fenced) {
				t.Errorf("fault: %v", err)
			}
		default:
			t.Error("no fault")
		}
	}
}

// TestAckAtAnUnexpectedOffset: below what was acknowledged before, the target has
// lost records; below zero it talks nonsense; above it, somebody else writes.
func TestAckAtAnUnexpectedOffset(t *testing.T) {
	for base, wantFault := range map[int64]bool{5: true, -1: true, 10: false, 1 << 40: false} {
		b := newBench(t)
		b.fetch(2)
		b.answer(b.send(), 0, 9)
		b.answer(b.send(), 0, base)
		select {
		case err := <-b.lane.faults:
			if doubt := (*doubtError)(nil); !wantFault || !errors.As(err, &doubt) {
				t.Errorf("offset %d: %v", base, err)
			}
		default:
			if wantFault {
				t.Errorf("offset %d: no fault", base)
			}
		}
	}
}

// TestLettersHoldTheGate: a record that the target cannot take goes elsewhere,
// and nothing of its response counts as mirrored before it is there.
func TestLettersHoldTheGate(t *testing.T) {
	b := newBench(t)
	var log []byte
	for i, size := range []int{100, 5000, 100} {
		x := oneRecord(t, string(make([]byte, size)))
		x.SetBaseOffset(int64(i))
		log = append(log, x...)
	}
	limits := ladderLimits{inflate: 1 << 20, maxBatch: 1000, letters: true}
	c, err := climb(log, 0, nil, limits)
	if err != nil || len(c.letters) != 1 || c.letters[0].record.Offset != 1 || c.letters[0].size < 5000 {
		t.Fatalf("letters %v, %v", c.letters, err)
	}
	s := b.budget.slab()
	s.adopt(log)
	_, gate := b.lane.take(0, c, s, 3)
	s.drop()
	if gate == 0 {
		t.Fatal("nothing waits for the letter")
	}
	if _, ok, _ := b.lane.sendable(time.Now()); ok {
		t.Fatal("a batch leaves before the letter is there")
	}
	b.lane.open(gate)
	if n := b.send().lanes[0].entry.batch.NumRecords(); n != 2 {
		t.Errorf("%d records left, want 2", n)
	}
	// A response of nothing but a letter.
	b = newBench(t)
	settled := false
	b.lane.stand(&fetching{lane: b.lane, settled: func() { _, settled = b.lane.settled(); b.lane.recorded() }})
	c, err = climb(oneRecord(t, string(make([]byte, 5000))), 0, nil, limits)
	if err != nil {
		t.Fatal(err)
	}
	s = b.budget.slab()
	_, gate = b.lane.take(0, c, s, 1)
	s.drop()
	if p := b.lane.progress(time.Now()).position; p != 0 {
		t.Fatalf("the position is %d and the letter is not there", p)
	}
	b.lane.open(gate)
	if p := b.lane.progress(time.Now()).position; p != 1 || !settled {
		t.Errorf("the position is %d, settled %v", p, settled)
	}
}

// TestLadderAndMergeKeepEveryRecord: random logs (holes, aborted transactions,
// markers, all codecs, formats before v2, tiny and large records) through the
// ladder, with filters, size limits and letters, and through lanes that merge,
// into a model of the target; record by record.
func TestLadderAndMergeKeepEveryRecord(t *testing.T) {
	flow, err := topology.NewFlow("a", "b", func(f *topology.Flow) {
		f.Filters = []topology.Filter{{Topics: []string{"t"}, Key: "k1.*"}}
	})
	if err != nil {
		t.Fatal(err)
	}
	filter := flow.FilterFor("t")
	for seed := range uint64(150) {
		r := rand.New(rand.NewPCG(seed, 99))
		source, want := randomSource(r, 20+r.IntN(200))
		limits := ladderLimits{inflate: 1 << 24}
		if r.IntN(2) == 0 {
			limits.filter = filter
			want = slices.DeleteFunc(want, func(rec wire.Record) bool { return filter.Drops(rec.Key, nil) })
		}
		if r.IntN(3) == 0 {
			limits.maxBatch, limits.letters = 300+r.IntN(2000), true
		}
		for range r.IntN(4) { // and something of another age, or size
			rec := wire.Record{Offset: source.end, Timestamp: 1_700_000_000_000, Value: fmt.Appendf(nil, "%0*d", 1+r.IntN(20_000), 7)}
			b, err := wire.EncodeBatch(nil, []wire.Record{rec}, wire.Plain(wire.Codec(r.IntN(5))))
			if err != nil {
				t.Fatal(err)
			}
			source.store(b)
			want = append(want, rec)
		}
		var letters []letter
		target := &modelLog{}
		budget := newBudget(1 << 30)
		l := newLane(checkpoint.Key{}, "t", [16]byte{}, 3, 0, origin{0, 0}, func() ladderLimits { return limits })
		runs := &checkpoint.Runs{}
		for source.end > l.fetch || l.pending() {
			if r.IntN(3) > 0 && l.fetch < source.end {
				res, _ := source.Fetch(context.Background(), "t", 0, l.fetch, int32(200+r.IntN(30_000)), true, 0)
				s := budget.slab()
				body := s.alloc(len(res.Records))
				copy(body, res.Records)
				c, err := climb(body, l.fetch, source.abortedFrom(l.fetch), limits)
				if err != nil {
					t.Fatalf("seed %d: %v", seed, err)
				}
				letters = append(letters, c.letters...)
				if _, gate := l.take(l.fetch, c, s, source.end); gate > 0 {
					l.open(gate)
				}
				s.drop()
				continue
			}
			e, ok, _ := l.sendable(time.Now())
			if !ok {
				continue
			}
			if limits.maxBatch > 0 && e.batch.Size() > limits.maxBatch {
				t.Fatalf("seed %d: a batch of %d bytes, the limit is %d", seed, e.batch.Size(), limits.maxBatch)
			}
			base, err := target.append(e.batch)
			if err != nil {
				t.Fatalf("seed %d: %v", seed, err)
			}
			got, _, _ := l.ack(base)
			for _, run := range got {
				if err := runs.Add(run); err != nil {
					t.Fatalf("seed %d: %v", seed, err)
				}
			}
			l.recorded()
		}
		if n := budget.inUse(); n != 0 {
			t.Fatalf("seed %d: %d bytes are still charged", seed, n)
		}
		for _, x := range letters {
			at := slices.IndexFunc(want, func(rec wire.Record) bool { return rec.Offset == x.record.Offset })
			if at < 0 || !cmp.Equal(want[at], x.record, cmpopts.EquateEmpty()) {
				t.Fatalf("seed %d: letter at %d", seed, x.record.Offset)
			}
			want = slices.Delete(want, at, at+1)
		}
		var got []wire.Record
		for _, b := range target.batches {
			recs, err := b.Records(1 << 24)
			if err != nil {
				t.Fatal(err)
			}
			got = append(got, recs...)
		}
		if len(got) != len(want) {
			t.Fatalf("seed %d: %d records of %d", seed, len(got), len(want))
		}
		for i := range got {
			if at := runs.Forward(want[i].Offset); !at.Exact || at.Offset != got[i].Offset {
				t.Fatalf("seed %d: source offset %d is said to be at %v, and is at %d", seed, want[i].Offset, at, got[i].Offset)
			}
			w := want[i]
			w.Offset = got[i].Offset
			if !sameRecord(&w, &got[i]) {
				t.Fatalf("seed %d: record %d: %s", seed, i, cmp.Diff(w, got[i], cmpopts.EquateEmpty()))
			}
		}
	}
}

// sameRecord is quicker than cmp with large values.
func sameRecord(a, b *wire.Record) bool {
	return a.Offset == b.Offset && a.Timestamp == b.Timestamp && bytes.Equal(a.Key, b.Key) && bytes.Equal(a.Value, b.Value) &&
		(a.Key == nil) == (b.Key == nil) && (a.Value == nil) == (b.Value == nil) &&
		slices.EqualFunc(a.Headers, b.Headers, func(x, y wire.Header) bool { return x.Key == y.Key && bytes.Equal(x.Value, y.Value) })
}
