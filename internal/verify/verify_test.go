package verify_test

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"kmirror/checkpoint"
	"kmirror/internal/verify"
	"kmirror/internal/wire"
)

// Whatever a history holds that mirroring did right, nothing differs, and every
// record that is on both sides was compared.
func TestNoFalseAlarm(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		w := drawWorld(t)
		if rapid.IntRange(0, 2).Draw(t, "compact the source") == 0 {
			w.compactSource(t)
		}
		if rapid.IntRange(0, 2).Draw(t, "compact the target") == 0 {
			w.compactTarget(t)
		}
		if rapid.IntRange(0, 3).Draw(t, "retention at the source") == 0 {
			w.source.start += int64(rapid.IntRange(0, int(w.source.end-w.source.start)).Draw(t, "source start"))
		}
		if rapid.IntRange(0, 3).Draw(t, "retention at the target") == 0 {
			w.target.start += int64(rapid.IntRange(0, int(w.target.end-w.target.start)).Draw(t, "target start"))
		}
		both := 0
		for _, e := range w.entries {
			if _, ok := w.visible[e.source]; ok && !e.gone && e.rec.Offset >= w.target.start && e.source >= w.source.start {
				both++
			}
		}
		j := w.job(verify.All())
		w.compare(t, j, rapid.Bool().Draw(t, "canonical"))
		tally, first := total(j)
		if tally.Differences != 0 {
			t.Fatalf("a false alarm: %s (%d)", first, tally.Differences)
		}
		if tally.Records != int64(both) {
			t.Errorf("%d records were compared, %d are on both sides", tally.Records, both)
		}
		for _, r := range j.Ranges() {
			if r.Digest.Source != r.Digest.Target {
				t.Errorf("the digests of equal sides are %s and %s", r.Digest.Source, r.Digest.Target)
			}
		}
	})
}

// The meter ends at what there was to do.
func TestMeter(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		w := drawWorld(t)
		_, harmed := w.harm(t)
		j, meter := w.job(verify.All()), verify.Meter{}
		all := int64(0)
		for _, r := range j.Ranges() {
			all += r.To - r.From
		}
		if err := verify.Run(context.Background(), verify.Options{Source: w.source, Target: w.target}, []*verify.Job{j}, &meter); err != nil {
			t.Fatal(err)
		}
		tally, _ := total(j)
		if meter.Offsets.Load() != all || meter.Differences.Load() != tally.Differences {
			t.Errorf("harmed %t: the meter shows %d of %d offsets, %d of %d differences", harmed, meter.Offsets.Load(), all, meter.Differences.Load(), tally.Differences)
		}
	})
}

// Retention moves on while the logs are read.
func TestRetentionMeanwhile(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		w := drawWorld(t)
		for _, side := range []struct {
			log  *fakeLog
			name string
		}{{w.source, "source"}, {w.target, "target"}} {
			if rapid.Bool().Draw(t, side.name+" moves on") {
				by := int64(rapid.IntRange(1, 5).Draw(t, side.name+" by"))
				side.log.each = func(l *fakeLog) { l.start = min(l.end, l.start+by) }
			}
		}
		j := w.job(verify.All())
		w.compare(t, j, false)
		if tally, first := total(j); tally.Differences != 0 {
			t.Fatalf("a false alarm: %s (%d)", first, tally.Differences)
		}
	})
}

// A verification that is stopped at any time and gone on with finds what one
// finds that was not.
func TestStoppedAndGoneOnWith(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		w := drawWorld(t)
		if rapid.Bool().Draw(t, "harm") {
			w.harm(t)
		}
		straight := w.job(verify.All())
		w.compare(t, straight, false)
		j := w.job(verify.All())
		for range 20 {
			ctx, cancel := context.WithCancel(context.Background())
			left := rapid.IntRange(1, 6).Draw(t, "fetches until it is stopped")
			w.source.each = func(*fakeLog) {
				if left--; left <= 0 {
					cancel()
				}
			}
			_ = verify.Run(ctx, verify.Options{Source: w.source, Target: w.target}, []*verify.Job{j}, &verify.Meter{})
			cancel()
			text, err := json.Marshal(j.Ranges())
			if err != nil {
				t.Fatal(err)
			}
			var kept []verify.Range
			if err := json.Unmarshal(text, &kept); err != nil {
				t.Fatal(err)
			}
			j = verify.NewJob(w.partition(), kept)
		}
		w.source.each = nil
		w.compare(t, j, false)
		a, firstA := total(straight)
		b, firstB := total(j)
		a.Batches, b.Batches, a.Bytes, b.Bytes = 0, 0, 0, 0 // a batch may be walked in two parts
		if diff := cmp.Diff(a, b); diff != "" {
			t.Errorf("stopped and gone on with (+) it finds other than straight through (-):\n%s", diff)
		}
		if diff := cmp.Diff(firstA, firstB); diff != "" {
			t.Errorf("the first difference:\n%s", diff)
		}
	})
}

// harm does one thing to a world that must be found, and says how. The last
// result says whether it did anything.
func (w *world) harm(t *rapid.T) (want verify.Difference, done bool) {
	var ours []int // entries that are mirrored records
	for i, e := range w.entries {
		if e.source >= 0 {
			ours = append(ours, i)
		}
	}
	if len(ours) == 0 {
		return want, false
	}
	at := rapid.SampledFrom(ours).Draw(t, "at")
	e := &w.entries[at]
	changed := verify.Difference{Kind: verify.Changed, SourceOffset: e.source, TargetOffset: e.rec.Offset}
	switch rapid.SampledFrom([]string{"value", "key", "header", "timestamp", "null", "hole", "skip", "double", "swap", "shift target", "shift source"}).Draw(t, "harm") {
	case "value":
		if len(e.rec.Value) == 0 {
			return want, false
		}
		e.rec.Value = append([]byte{}, e.rec.Value...)
		e.rec.Value[rapid.IntRange(0, len(e.rec.Value)-1).Draw(t, "byte")] ^= 1 << rapid.IntRange(0, 7).Draw(t, "bit")
		want, want.Field = changed, "value"
	case "key":
		e.rec.Key = append([]byte("x"), e.rec.Key...)
		want, want.Field = changed, "key"
	case "header":
		e.rec.Headers = append(slices.Clip(e.rec.Headers), wire.Header{Key: "more"})
		want, want.Field = changed, "headers"
	case "timestamp":
		if w.stamped {
			return want, false
		}
		e.rec.Timestamp++
		want, want.Field = changed, "timestamp"
	case "null":
		if e.rec.Key != nil {
			return want, false
		}
		e.rec.Key = []byte{}
		want, want.Field = changed, "key"
	case "hole":
		e.gone = true
		want = verify.Difference{Kind: verify.Missing, SourceOffset: e.source, TargetOffset: e.rec.Offset}
	case "skip":
		if at == ours[0] || at == ours[len(ours)-1] { // not between what the map knows
			return want, false
		}
		want = verify.Difference{Kind: verify.Missing, SourceOffset: e.source, TargetOffset: -1}
		w.entries = append(w.entries[:at:at], w.entries[at+1:]...)
		w.layOut(t)
		return want, true
	case "double":
		if at == ours[0] {
			return want, false
		}
		again := w.entries[rapid.SampledFrom(ours).Draw(t, "again")]
		again.source, again.group = -1, -1_000_000
		w.entries = append(w.entries[:at:at], append([]entry{again}, w.entries[at:]...)...)
		w.layOut(t)
		return verify.Difference{Kind: verify.Unexplained, SourceOffset: -1, TargetOffset: w.entries[at].rec.Offset}, true
	case "swap":
		if at+1 == len(w.entries) || w.entries[at+1].source < 0 || w.entries[at+1].control {
			return want, false
		}
		other := &w.entries[at+1]
		e.rec, other.rec = other.rec, e.rec
		e.rec.Offset, other.rec.Offset = other.rec.Offset, e.rec.Offset
		want = changed
	case "shift target":
		i := len(w.runs) - 1 // others would run into the next
		want = verify.Difference{Kind: verify.Unexplained, SourceOffset: -1, TargetOffset: w.runs[i].Target}
		w.runs[i].Target++
		if i == 0 { // the record before the map is not looked at; behind the log there is none
			want = verify.Difference{Kind: verify.Changed, SourceOffset: w.runs[i].Source, TargetOffset: w.runs[i].Target}
			if w.runs[i].Count == 1 || w.runs[i].Target == w.target.end {
				want = verify.Difference{SourceOffset: w.runs[i].Source, TargetOffset: w.runs[i].Target}
			}
		}
		return want, true
	case "shift source":
		i := rapid.IntRange(0, len(w.runs)-1).Draw(t, "run")
		if i == 0 || w.runs[i].Source == w.runs[i-1].Source+w.runs[i-1].Count || w.runs[i].Count < 2 {
			return want, false
		}
		w.runs[i].Source-- // a record before it is said to be here
		return verify.Difference{SourceOffset: -2, TargetOffset: w.runs[i].Target}, true
	}
	w.encode(t)
	return want, true
}

// Each harm is found, and its place named.
func TestEachHarmIsFound(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		w := drawWorld(t)
		want, done := w.harm(t)
		if !done {
			t.Skip("nothing to harm")
		}
		j := w.job(verify.All())
		w.compare(t, j, rapid.Bool().Draw(t, "canonical"))
		tally, first := total(j)
		if tally.Differences == 0 || first == nil {
			t.Fatalf("nothing was found of %s", harmed(want))
		}
		if want.Kind != "" && first.Kind != want.Kind || want.SourceOffset >= -1 && first.SourceOffset != want.SourceOffset || first.TargetOffset != want.TargetOffset || want.Field != "" && first.Field != want.Field {
			t.Fatalf("found %s, harmed was %s", harmed(*first), harmed(want))
		}
		for _, r := range j.Ranges() {
			if r.Digest.Source == r.Digest.Target {
				t.Errorf("the digests of different sides are both %s", r.Digest.Source)
			}
		}
	})
}

func harmed(d verify.Difference) string {
	return fmt.Sprintf("%s at source %d, target %d, field %q", d.Kind, d.SourceOffset, d.TargetOffset, d.Field)
}

// Digests with opened batches are those of the records alone.
func TestCanonicalDigest(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		w := drawWorld(t)
		a, b := w.job(verify.All()), w.job(verify.All())
		w.compare(t, a, true)
		w.encode(t) // in other batches
		w.compare(t, b, true)
		for i, r := range a.Ranges() {
			if got := b.Ranges()[i].Digest; got.Source != r.Digest.Source || got.Target != r.Digest.Target {
				t.Errorf("in other batches the digest is %v, was %v", got, r.Digest)
			}
		}
	})
}

// What the map knows only roughly is found among the target's records in order.
func TestLooseRuns(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		w := drawWorld(t)
		var want verify.Difference
		harmed := false
		if rapid.Bool().Draw(t, "harm") {
			want, harmed = w.harm(t)
			harmed = harmed && (want.Kind == verify.Changed || want.Kind == verify.Missing)
			if !harmed {
				t.Skip("not a harm of this test")
			}
		}
		var kept []checkpoint.Run
		for i, r := range w.runs {
			if i > 0 && i < len(w.runs)-1 && rapid.Bool().Draw(t, "thin") {
				kept[len(kept)-1].Loose = true
				continue
			}
			kept = append(kept, r)
		}
		w.runs = kept
		j := w.job(verify.All())
		w.compare(t, j, false)
		tally, first := total(j)
		switch {
		case harmed && tally.Differences == 0:
			t.Fatalf("nothing was found of %s at source %d", want.Kind, want.SourceOffset)
		case harmed && first.SourceOffset > want.SourceOffset && first.SourceOffset >= 0:
			t.Errorf("the first difference is %s, harmed was source offset %d", first, want.SourceOffset)
		case !harmed && tally.Differences != 0:
			t.Fatalf("a false alarm: %s (%d)", first, tally.Differences)
		case !harmed && tally.Records != int64(len(w.visible)):
			t.Errorf("%d records were compared, there are %d", tally.Records, len(w.visible))
		}
	})
}
