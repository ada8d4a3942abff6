package checkpoint

import (
	"fmt"
	"testing"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"kmirror/internal/wire"
)

func TestJudge(t *testing.T) {
	stands := func(up, down int64) memory { return memory{standing: position{up, down}, stands: true} }
	unsure := memory{standing: position{10, 9}, stands: true, intended: position{50, 45}, intends: true}
	for _, c := range []struct {
		what   string
		view   view
		state  State
		commit bool
	}{
		{"nothing mirrored yet", view{source: 5, target: -1}, Waiting, false},
		{"first commit", view{source: 10, at: Translation{Offset: 9, Exact: true}, mapped: true, target: -1}, Behind, true},
		{"there already", view{source: 10, at: Translation{Offset: 9, Exact: true}, mapped: true, target: 9}, InStep, false},
		{"at the mirrored end", view{source: 10, at: Translation{Offset: 9, Shortfall: 1}, mapped: true, target: 9}, Waiting, false},
		{"forward from where we put it", view{source: 20, at: Translation{Offset: 18}, mapped: true, target: 9, ours: stands(10, 9)}, Behind, true},
		{"forward, nothing remembered", view{source: 20, at: Translation{Offset: 18}, mapped: true, target: 9}, Behind, true},
		{"members", view{source: 20, at: Translation{Offset: 18}, mapped: true, target: 9, active: true, ours: stands(10, 9)}, ActiveAtTarget, false},
		{"source went back", view{source: 5, at: Translation{Offset: 4}, mapped: true, target: 9, ours: stands(10, 9)}, Behind, true},
		{"source went back, nothing remembered", view{source: 5, at: Translation{Offset: 4}, mapped: true, target: 9}, Ahead, false},
		{"source went back, target moved on", view{source: 5, at: Translation{Offset: 4}, mapped: true, target: 12, ours: stands(10, 9)}, Ahead, false},
		{"the map went back, not the source", view{source: 10, at: Translation{Offset: 4}, mapped: true, target: 9, ours: stands(10, 9)}, Ahead, false},
		{"overtaken", view{source: 20, at: Translation{Offset: 18}, mapped: true, target: 12, ours: stands(10, 9)}, Behind, true},
		{"moved back by hand", view{source: 20, at: Translation{Offset: 18}, mapped: true, target: 3, ours: stands(10, 9)}, Diverged, false},
		{"unanswered, carried out, source back", view{source: 30, at: Translation{Offset: 27}, mapped: true, target: 45, ours: unsure}, Behind, true},
		{"unanswered, not carried out", view{source: 30, at: Translation{Offset: 27}, mapped: true, target: 9, ours: unsure}, Behind, true},
		{"unanswered, then moved back by hand", view{source: 30, at: Translation{Offset: 27}, mapped: true, target: 3, ours: unsure}, Diverged, false},
	} {
		if state, commit := judge(c.view); state != c.state || commit != c.commit {
			t.Errorf("%s: got %s, %v; want %s, %v", c.what, state, commit, c.state, c.commit)
		}
	}
}

// A simulated target, a source that moves any way, lives that end at any
// moment: the target never goes back unless the source did, never while it has
// members, and never behind what others committed there.
func TestJudgeNeverRewindsWhatIsNotOurs(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var (
			source, target = int64(10), int64(-1)
			others         = false // who put target where it is; others use odd offsets, so that one can tell
			highest        = int64(10)
			ours           memory
			stored         = wire.Record{}
			offset         = rapid.Int64Range(0, 30)
		)
		for range 60 {
			switch rapid.SampledFrom([]string{"source", "source", "others", "restart", "sync", "sync", "sync", "lost", "unheard"}).Draw(t, "event") {
			case "source":
				source = 2 * offset.Draw(t, "source")
				highest = max(highest, source)
			case "others":
				target, others = 2*offset.Draw(t, "target")+1, true
			case "restart":
				if stored.Key != nil {
					c, err := DecodeCheckpoint(stored)
					if err != nil {
						t.Fatal(err)
					}
					ours = recall(stored, c)
				}
			default:
				v := view{source: source, at: Translation{Offset: source, Exact: true}, mapped: true, target: target, ours: ours, active: rapid.IntRange(0, 5).Draw(t, "active") == 0}
				if target == source {
					ours.settle(position{source, source})
				}
				_, commit := judge(v)
				if !commit {
					continue
				}
				if v.active {
					t.Fatal("a group with members was touched")
				}
				if source < target && (others || source >= highest) {
					t.Fatalf("moved back from %d (somebody else's: %v) to %d, the source was at %d", target, others, source, highest)
				}
				p := position{source, source}
				ours.intend(p, target)
				stored = EncodeCheckpoint(Checkpoint{Group: "g", Topic: "t", Upstream: source, Downstream: source})
				remember(&stored, ours)
				switch rapid.SampledFrom([]string{"done", "done", "lost", "unheard"}).Draw(t, "commit") {
				case "done":
					ours.settle(p)
					target, others = source, false
				case "unheard":
					target, others = source, false
				}
			}
		}
	})
}

func TestMemorySurvivesTheRecord(t *testing.T) {
	c := Checkpoint{Group: "g", Topic: "t", Upstream: 50, Downstream: 45}
	for _, want := range []memory{
		{},
		{standing: position{10, 9}, stands: true},
		{intended: position{50, 45}, intends: true},
		{standing: position{10, 9}, stands: true, intended: position{50, 45}, intends: true},
	} {
		rec := EncodeCheckpoint(c)
		remember(&rec, want)
		if diff := cmp.Diff(fmt.Sprint(want), fmt.Sprint(recall(rec, c))); diff != "" {
			t.Errorf("-want +got:\n%s", diff)
		}
	}
	ofMirrorMaker := memory{intended: position{50, 45}, intends: true}
	for _, headers := range [][]wire.Header{nil, {{Key: memoryHeader}}, {{Key: memoryHeader, Value: []byte{9, 1}}}, {{Key: memoryHeader, Value: []byte{1, 1, 5}}}} {
		rec := EncodeCheckpoint(c)
		rec.Headers = headers
		if got := recall(rec, c); got != ofMirrorMaker {
			t.Errorf("%v: got %+v", headers, got)
		}
	}
}
