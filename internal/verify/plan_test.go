package verify_test

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"kmirror/checkpoint"
	"kmirror/internal/verify"
	"kmirror/internal/wire"
)

func TestPlan(t *testing.T) {
	p := verify.Partition{Topic: "orders", Through: 230, Runs: []checkpoint.Run{{Source: 100, Target: 10, Count: 50}, {Source: 160, Target: 60, Count: 40}, {Source: 200, Target: 105, Count: 20}}}
	for name, c := range map[string]struct {
		x                            verify.Extent
		from, to, targetFrom, target int64
		before, beyond, gone         int64
	}{
		"all there":                {x: verify.Extent{SourceStart: 100, SourceEnd: 230, Since: -1}, from: 100, to: 230, targetFrom: 10, target: 125},
		"records before the map":   {x: verify.Extent{SourceStart: 40, SourceEnd: 230, Since: -1}, from: 100, to: 230, targetFrom: 10, target: 125, before: 60},
		"records beyond":           {x: verify.Extent{SourceStart: 100, SourceEnd: 300, Since: -1}, from: 100, to: 230, targetFrom: 10, target: 125, beyond: 70},
		"the source's retention":   {x: verify.Extent{SourceStart: 155, SourceEnd: 230, Since: -1}, from: 155, to: 230, targetFrom: 60, target: 125, gone: 50},
		"the target's retention":   {x: verify.Extent{SourceStart: 100, SourceEnd: 230, TargetStart: 70, Since: -1}, from: 170, to: 230, targetFrom: 70, target: 125, gone: 60},
		"since, in a run":          {x: verify.Extent{SourceStart: 100, SourceEnd: 230, Since: 120}, from: 120, to: 230, targetFrom: 30, target: 125},
		"since, in a hole":         {x: verify.Extent{SourceStart: 100, SourceEnd: 230, Since: 155}, from: 155, to: 230, targetFrom: 60, target: 125},
		"since, before everything": {x: verify.Extent{SourceStart: 100, SourceEnd: 230, Since: 7}, from: 100, to: 230, targetFrom: 10, target: 125},
	} {
		ranges, before, beyond, gone := p.Plan(c.x, verify.All())
		want := []verify.Range{{From: c.from, To: c.to, Next: c.from, TargetFrom: c.targetFrom, TargetNext: c.targetFrom, TargetTo: c.target}}
		if diff := cmp.Diff(want, ranges); diff != "" {
			t.Errorf("%s: %s", name, diff)
		}
		if before != c.before || beyond != c.beyond || gone != c.gone {
			t.Errorf("%s: before %d, beyond %d, gone %d; want %d, %d, %d", name, before, beyond, gone, c.before, c.beyond, c.gone)
		}
	}
	for name, x := range map[string]verify.Extent{
		"the target has nothing": {SourceEnd: 230, TargetStart: 125, Since: -1},
		"the source has nothing": {SourceStart: 230, SourceEnd: 230, Since: -1},
		"since now":              {SourceEnd: 230, Since: 230},
	} {
		if ranges, _, _, _ := p.Plan(x, verify.All()); len(ranges) != 0 {
			t.Errorf("%s: %v", name, ranges)
		}
	}
	if ranges, _, beyond, _ := (&verify.Partition{}).Plan(verify.Extent{SourceStart: 5, SourceEnd: 9, Since: -1}, verify.All()); len(ranges) != 0 || beyond != 4 {
		t.Errorf("nothing mirrored: %v, %d beyond", ranges, beyond)
	}
}

// A sample is as large as it should be, the same for the same seed, also when the
// log has grown, and another for another.
func TestSample(t *testing.T) {
	const end = 4_000_000
	choose := func(end int64, s verify.Sample) (offsets map[int64]bool, n int64) {
		p := verify.Partition{Topic: "orders", Number: 3, Through: end, Runs: []checkpoint.Run{{Source: 1000, Target: 0, Count: end - 1000}}}
		ranges, _, _, _ := p.Plan(verify.Extent{SourceStart: 1000, SourceEnd: end, Since: -1}, s)
		offsets = map[int64]bool{}
		for i, r := range ranges {
			if r.From >= r.To || r.TargetFrom != r.From-1000 || r.TargetTo != r.To-1000 || i > 0 && r.From <= ranges[i-1].To {
				t.Fatalf("ranges %v", ranges)
			}
			n += r.To - r.From
			for at := r.From; at < r.To && end < 10_000_000; at += 100 {
				offsets[at] = true
			}
		}
		return offsets, n
	}
	some, n := choose(end, verify.Sample{Share: 0.05, Seed: 7})
	if share := float64(n) / end; share < 0.03 || share > 0.08 {
		t.Errorf("a sample of 5 %% is %.1f %%", share*100)
	}
	later, _ := choose(end+50_000, verify.Sample{Share: 0.05, Seed: 7})
	for at := range some {
		if !later[at] && at < end-100 {
			t.Fatalf("offset %d is in the sample, and later not", at)
		}
	}
	if other, _ := choose(end, verify.Sample{Share: 0.05, Seed: 8}); cmp.Equal(some, other) {
		t.Error("another seed takes the same sample")
	}
	if _, n := choose(2000, verify.Sample{Share: 0.0001, Seed: 1}); n == 0 {
		t.Error("nothing is taken of a small partition")
	}
	if _, n := choose(1<<50, verify.Sample{Share: 1e-9, Seed: 1}); n == 0 {
		t.Error("nothing is taken of a huge one")
	}
}

// A range of a sample finds what is in it, and knows nothing of what is not.
func TestOnlyTheRangeIsCompared(t *testing.T) {
	w, s := &world{source: &fakeLog{few: 3}, target: &fakeLog{few: 2}}, int64(0)
	for range 20 {
		var records []wire.Record
		for i := range int64(10) {
			records = append(records, wire.Record{Offset: s + i, Timestamp: s, Value: []byte{byte(s + i)}})
		}
		b, err := wire.EncodeBatch(nil, records, wire.Plain(wire.CodecLZ4))
		if err != nil {
			t.Fatal(err)
		}
		w.source.batches = append(w.source.batches, b)
		if s == 100 {
			records[5].Value = []byte("other")
		}
		if b, err = wire.EncodeBatch(nil, records, wire.Plain(wire.CodecLZ4)); err != nil {
			t.Fatal(err)
		}
		w.target.batches = append(w.target.batches, b)
		s += 10
	}
	w.source.end, w.target.end, w.through = s, s, s
	w.runs = []checkpoint.Run{{Count: s}}
	for _, c := range []struct{ from, to, differences int64 }{{0, 105, 0}, {105, 106, 1}, {106, 200, 0}, {33, 177, 1}} {
		j := verify.NewJob(w.partition(), []verify.Range{{From: c.from, To: c.to, Next: c.from, TargetFrom: c.from, TargetNext: c.from, TargetTo: c.to}})
		w.compare(t, j, false)
		if tally, first := total(j); tally.Differences != c.differences || tally.Records != c.to-c.from {
			t.Errorf("%d to %d: %d records, %d differences, first %v", c.from, c.to, tally.Records, tally.Differences, first)
		}
	}
}

// A batch whose bytes rotted is named, on either side, and the rest compared.
func TestCorruptBatch(t *testing.T) {
	for _, side := range []string{"source", "target"} {
		w := &world{source: &fakeLog{few: 2}, target: &fakeLog{few: 2}, runs: []checkpoint.Run{{Count: 30}}, through: 30}
		for i := range int64(3) {
			var records []wire.Record
			for k := range int64(10) {
				records = append(records, wire.Record{Offset: i*10 + k, Value: []byte("some value")})
			}
			for _, l := range []*fakeLog{w.source, w.target} {
				b, err := wire.EncodeBatch(nil, records, wire.Plain(wire.CodecNone))
				if err != nil {
					t.Fatal(err)
				}
				l.batches, l.end = append(l.batches, b), 30
			}
		}
		rotten := map[string]*fakeLog{"source": w.source, "target": w.target}[side].batches[1]
		rotten[len(rotten)-3] ^= 1
		j := w.job(verify.All())
		w.compare(t, j, false)
		tally, first := total(j)
		if tally.Differences != 1 || tally.Corrupt != 1 || tally.Records != 20 || tally.Gone != 10 {
			t.Errorf("%s: %+v", side, tally)
		}
		if first.Kind != verify.Corrupt || first.SourceOffset != 10 || !strings.Contains(first.Detail, "in the "+side+", offsets 10 to 19") {
			t.Errorf("%s: %s", side, first)
		}
	}
}

// A producer whose transaction was aborted commits its next one: of all that, one
// fetch brings, the first part is hidden and the second is not.
func TestAbortedThenCommitted(t *testing.T) {
	w := &world{source: &fakeLog{few: 9}, target: &fakeLog{few: 9}}
	o := wire.Plain(wire.CodecNone)
	o.Transactional, o.ProducerID = true, client
	put := func(log *fakeLog, offset int64, value string, o wire.BatchOptions) {
		b, err := wire.EncodeBatch(nil, []wire.Record{{Offset: offset, Value: []byte(value)}}, o)
		if err != nil {
			t.Fatal(err)
		}
		log.batches, log.end = append(log.batches, b), offset+1
	}
	put(w.source, 0, "aborted", o)
	w.source.batches = append(w.source.batches, marker(t, 1, client, false))
	w.source.aborted = []abortedTxn{{client, 0, 1}}
	put(w.source, 2, "committed", o)
	w.source.batches, w.source.end, w.through = append(w.source.batches, marker(t, 3, client, true)), 4, 4
	put(w.target, 0, "committed", wire.Plain(wire.CodecNone))
	w.runs = []checkpoint.Run{{Source: 2, Count: 1}}
	j := w.job(verify.All())
	w.compare(t, j, false)
	if tally, first := total(j); tally.Records != 1 || tally.Differences != 0 {
		t.Errorf("%+v, first %v", tally, first)
	}
	w.runs[0] = checkpoint.Run{Source: 0, Count: 1} // the aborted one is said to be there
	j = w.job(verify.All())
	w.compare(t, j, false)
	if tally, first := total(j); tally.Differences != 2 || first.Kind != verify.Extra {
		t.Errorf("%+v, first %v", tally, first)
	}
}

// A record that is not in the map is missing, unless it is set aside.
func TestSetAside(t *testing.T) {
	w := &world{source: &fakeLog{few: 1}, target: &fakeLog{few: 1}, through: 3, runs: []checkpoint.Run{{Count: 1}, {Source: 2, Target: 1, Count: 1}}}
	for i := range int64(3) {
		b, err := wire.EncodeBatch(nil, []wire.Record{{Offset: i, Value: []byte{byte(i)}}}, wire.Plain(wire.CodecNone))
		if err != nil {
			t.Fatal(err)
		}
		w.source.batches, w.source.end = append(w.source.batches, b), i+1
		if i == 1 {
			continue
		}
		b = append(wire.Batch{}, b...)
		b.SetBaseOffset(i / 2)
		w.target.batches, w.target.end = append(w.target.batches, b), i/2+1
	}
	p := w.partition()
	for _, aside := range []bool{true, false} {
		p.Letters = func(_ context.Context, offset int64) (bool, error) { return aside && offset == 1, nil }
		ranges, _, _, _ := p.Plan(verify.Extent{SourceEnd: 3, Since: -1}, verify.All())
		j := verify.NewJob(p, ranges)
		w.compare(t, j, false)
		tally, first := total(j)
		if aside && (tally.SetAside != 1 || first != nil) || !aside && (tally.Differences != 1 || first.Kind != verify.Missing || first.SourceOffset != 1) {
			t.Errorf("set aside %t: %+v, first %v", aside, tally, first)
		}
	}
}

// A header that cannot be true ends a partition, and says where.
func TestUnreadableLog(t *testing.T) {
	b, err := wire.EncodeBatch(nil, []wire.Record{{Value: []byte("x")}}, wire.Plain(wire.CodecNone))
	if err != nil {
		t.Fatal(err)
	}
	b[16] = 9 // the format
	w := &world{source: &fakeLog{few: 1, batches: []wire.Batch{b}, end: 1}, target: &fakeLog{few: 1, end: 1}, runs: []checkpoint.Run{{Count: 1}}, through: 1}
	j := w.job(verify.All())
	if err := verify.Run(context.Background(), verify.Options{Source: w.source, Target: w.target}, []*verify.Job{j}, &verify.Meter{}); err != nil {
		t.Fatal(err)
	}
	if err := j.Err(); err == nil || !strings.Contains(err.Error(), "orders/0 at 0: corrupt: batch of unknown format 9") {
		t.Errorf("the error is %v", err)
	}
}

func TestStore(t *testing.T) {
	s := verify.Store{Path: filepath.Join(t.TempDir(), "state.json")}
	if kept, err := s.Load(); kept != nil || err != nil {
		t.Fatalf("nothing is kept, and read %v, %v", kept, err)
	}
	want := &verify.Standing{
		Flow: "east->west", Begun: time.Unix(1_700_000_000, 0).UTC(), Selection: verify.Selection{Topics: []string{"orders"}, Partition: -1, Sample: verify.All()},
		Parts: []verify.PartitionStanding{{Topic: "orders", TopicID: [16]byte{1}, TargetID: [16]byte{2}, Ranges: []verify.Range{{From: 1, To: 9, Next: 5, TargetTo: 8, TargetNext: 3}}}},
	}
	if err := s.Save(want); err != nil {
		t.Fatal(err)
	}
	got, err := s.Load()
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
	for text, says := range map[string]string{
		"{":              "unexpected end",
		`{"version": 7}`: "version 7",
		`{"version":1,"partitions":[{"topic":"t","ranges":[{"from":5,"to":9,"next":3}]}]}`:                                                "stands at 3",
		`{"version":1,"partitions":[{"topic":"t","ranges":[{"from":5,"to":9,"next":7,"target_to":1,"digest":{"source_state":"AAAA"}}]}]}`: "digest",
	} {
		if err := os.WriteFile(s.Path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := s.Load(); err == nil || !strings.Contains(err.Error(), says) {
			t.Errorf("%s is read with %v", text, err)
		}
	}
	if err := s.Clear(); err != nil {
		t.Fatal(err)
	}
	if err := s.Clear(); err != nil {
		t.Errorf("clear nothing: %v", err)
	}
	if left, _ := filepath.Glob(filepath.Join(filepath.Dir(s.Path), "*")); len(left) != 0 {
		t.Errorf("left over: %v", left)
	}
}

// What is read keeps to the rate, on both sides together.
func TestThrottle(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := &world{source: &fakeLog{few: 1}, target: &fakeLog{few: 1}}
		bytes := 0
		for i := range int64(40) {
			b, err := wire.EncodeBatch(nil, []wire.Record{{Offset: i, Value: make([]byte, 5000)}}, wire.Plain(wire.CodecNone))
			if err != nil {
				t.Fatal(err)
			}
			w.source.batches, w.target.batches = append(w.source.batches, b), append(w.target.batches, b)
			bytes += 2 * len(b)
		}
		w.source.end, w.target.end, w.through, w.runs = 40, 40, 40, []checkpoint.Run{{Count: 40}}
		began := time.Now()
		if err := verify.Run(t.Context(), verify.Options{Source: w.source, Target: w.target, Throttle: 100_000}, []*verify.Job{w.job(verify.All())}, &verify.Meter{}); err != nil {
			t.Fatal(err)
		}
		if took, want := time.Since(began).Seconds(), float64(bytes)/100_000; took < want*0.9 || took > want*1.1 {
			t.Errorf("%d bytes took %.1f s, want %.1f s", bytes, took, want)
		}
	})
}
