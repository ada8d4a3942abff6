package checkpoint

import (
	"fmt"
	"testing"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"kmirror/internal/wire"
)

// Source offset u stands at target offset u: what differs is who stands where.
func TestJudge(t *testing.T) {
	stood := func(up, down int64) memory { return memory{standing: position{up, down}, stands: true} }
	forth := memory{standing: position{10, 10}, stands: true, intended: position{50, 50}, intends: true}
	back := forth
	back.back = true
	exact := func(offset int64) Translation { return Translation{Offset: offset, Exact: true} }
	for _, c := range []struct {
		what string
		view view
		want State
		do   action
	}{
		{"nothing mirrored yet", view{source: 5, target: -1}, Waiting, leave},
		{"first commit", view{source: 10, target: -1, there: exact(10), mapped: true}, Behind, forward},
		{"there already", view{source: 10, target: 10, there: exact(10), mapped: true}, InStep, leave},
		{"at the mirrored end", view{source: 10, target: 9, there: Translation{Offset: 9, Shortfall: 1}, mapped: true}, Waiting, leave},
		{"the source moved on", view{source: 20, target: 10, there: exact(20), mapped: true, ours: stood(10, 10)}, Behind, forward},
		{"the source went back", view{source: 5, target: 10, there: exact(5), mapped: true, ours: stood(10, 10)}, Behind, forward},
		{"more is mirrored", view{source: 20, target: 10, there: Translation{Offset: 15, Shortfall: 5}, mapped: true, ours: stood(20, 10)}, Behind, forward},
		{"nothing remembered", view{source: 20, target: 10, there: exact(20), mapped: true}, Diverged, leave},
		{"moved on by somebody", view{source: 10, target: 12, there: exact(10), mapped: true, ours: stood(10, 10)}, Diverged, leave},
		{"moved on, and the source further", view{source: 20, target: 12, there: exact(20), mapped: true, ours: stood(10, 10)}, Diverged, leave},
		{"moved back by somebody", view{source: 20, target: 3, there: exact(20), mapped: true, ours: stood(10, 10)}, Diverged, leave},
		{"members on the target", view{source: 20, target: 10, there: exact(20), mapped: true, active: true, ours: stood(10, 10)}, ActiveAtTarget, leave},
		{"members and nothing committed", view{source: 20, target: -1, there: exact(20), mapped: true, active: true}, ActiveAtTarget, leave},
		{"a coarser map does not take it back", view{source: 10, target: 10, there: Translation{Offset: 4, Slack: 9}, mapped: true, back: exact(12), backMapped: true, ours: stood(10, 10)}, InStep, leave},
		{"the target lost what it stood behind", view{source: 10, target: 10, there: exact(4), mapped: true, back: exact(16), backMapped: true, ours: stood(10, 10)}, Diverged, leave},
		{"the same place by the inverse", view{source: 10, target: 12, there: exact(15), mapped: true, back: exact(10), backMapped: true, ours: stood(10, 12)}, InStep, leave},
		{"unanswered, carried out, source back", view{source: 30, target: 50, there: exact(30), mapped: true, ours: forth}, Behind, forward},
		{"unanswered, not carried out", view{source: 30, target: 10, there: exact(30), mapped: true, ours: forth}, Behind, forward},
		{"unanswered, then moved by hand", view{source: 30, target: 3, there: exact(30), mapped: true, ours: forth}, Diverged, leave},

		{"back: moved on at the target", view{source: 10, target: 12, there: exact(10), mapped: true, back: exact(12), backMapped: true, carry: true, ours: stood(10, 10)}, Returning, backward},
		{"back: members on the source", view{source: 10, target: 12, there: exact(10), mapped: true, back: exact(12), backMapped: true, carry: true, busy: true, ours: stood(10, 10)}, ActiveAtSource, leave},
		{"back: members on the target, who go on", view{source: 10, target: 12, there: exact(10), mapped: true, back: exact(12), backMapped: true, carry: true, active: true, ours: stood(10, 10)}, ActiveAtTarget, backward},
		{"back: both moved", view{source: 11, target: 12, there: exact(11), mapped: true, back: exact(12), backMapped: true, carry: true, ours: stood(10, 10)}, Diverged, leave},
		{"back: only the source moved", view{source: 20, target: 10, there: exact(20), mapped: true, back: exact(10), backMapped: true, carry: true, ours: stood(10, 10)}, Behind, forward},
		{"back: reset at the source", view{source: 2, target: 10, there: exact(2), mapped: true, back: exact(10), backMapped: true, carry: true, ours: stood(10, 10)}, Behind, forward},
		{"back: reset at the target", view{source: 10, target: 2, there: exact(10), mapped: true, back: exact(2), backMapped: true, carry: true, ours: stood(10, 10)}, Returning, backward},
		{"back: nothing remembered", view{source: 10, target: 12, there: exact(10), mapped: true, back: exact(12), backMapped: true, carry: true}, Diverged, leave},
		{"back: among others' records", view{source: 10, target: 12, there: exact(15), mapped: true, back: exact(10), backMapped: true, carry: true, ours: stood(10, 10)}, InStep, leave},
		{"back: beyond what was lost is not back", view{source: 23, target: 12, there: Translation{Offset: 20}, mapped: true, back: exact(22), backMapped: true, carry: true, ours: stood(23, 10)}, Diverged, leave},
		{"back: the map has grown", view{source: 10, target: 12, there: exact(10), mapped: true, back: exact(12), backMapped: true, carry: true, ours: memory{standing: position{10, 12}, stands: true, short: true}}, Returning, backward},
		{"the same place by the inverse, by an operator", view{source: 10, target: 12, there: exact(15), mapped: true, back: exact(10), backMapped: true, ours: stood(30, 30)}, InStep, leave},
		{"back: by an operator", view{source: 20, target: 12, there: exact(11), mapped: true, back: exact(20), backMapped: true, carry: true, ours: stood(30, 30)}, InStep, leave},
		{"back: only on the target", view{source: -1, target: 12, back: exact(12), backMapped: true, carry: true}, Returning, backward},
		{"back: deleted at the source", view{source: -1, target: 10, back: exact(10), backMapped: true, carry: true, ours: stood(10, 10)}, DeletedAtSource, leave},
		{"back: deleted at the source, moved on since", view{source: -1, target: 12, back: exact(12), backMapped: true, carry: true, ours: stood(10, 10)}, Returning, backward},
		{"back: unanswered, not carried out", view{source: 10, target: 50, there: exact(10), mapped: true, back: exact(50), backMapped: true, carry: true, ours: back}, Returning, backward},
		{"back: unanswered, carried out, target further", view{source: 50, target: 60, there: exact(50), mapped: true, back: exact(60), backMapped: true, carry: true, ours: back}, Returning, backward},
		{"back: unanswered, the source moved itself", view{source: 70, target: 50, there: exact(70), mapped: true, back: exact(50), backMapped: true, carry: true, ours: back}, Behind, forward},
		{"back: unanswered, the source reset", view{source: 4, target: 50, there: exact(4), mapped: true, back: exact(50), backMapped: true, carry: true, ours: back}, Diverged, leave},
		{"forth: unanswered, the target moved", view{source: 50, target: 60, there: exact(50), mapped: true, back: exact(60), backMapped: true, carry: true, ours: forth}, Returning, backward},
		{"forth: unanswered, the target behind", view{source: 50, target: 30, there: exact(50), mapped: true, back: exact(30), backMapped: true, carry: true, ours: forth}, Diverged, leave},
	} {
		c.view.forth = true
		if r := judge(c.view); r.state != c.want || r.do != c.do {
			t.Errorf("%s: got %s, %d; want %s, %d", c.what, r.state, r.do, c.want, c.do)
		}
	}
}

// Whatever a view holds, these hold.
func TestJudgeNever(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		offset := rapid.Int64Range(-1, 6)
		place := func(name string) position {
			return position{max(0, offset.Draw(t, name)), max(0, offset.Draw(t, name))}
		}
		v := view{
			source: offset.Draw(t, "source"), target: offset.Draw(t, "target"),
			there: Translation{Offset: max(0, offset.Draw(t, "there")), Exact: rapid.Bool().Draw(t, "exact")}, mapped: rapid.Bool().Draw(t, "mapped"),
			back: Translation{Offset: max(0, offset.Draw(t, "back")), Exact: true}, backMapped: rapid.Bool().Draw(t, "back mapped"),
			busy: rapid.Bool().Draw(t, "busy"), active: rapid.Bool().Draw(t, "active"), forth: rapid.Bool().Draw(t, "forth"), carry: rapid.Bool().Draw(t, "carry"),
			ours: memory{standing: place("standing"), stands: rapid.Bool().Draw(t, "stands"), intended: place("intended"), intends: rapid.Bool().Draw(t, "intends"), back: rapid.Bool().Draw(t, "back")},
		}
		r := judge(v)
		_, targetOurs, _ := v.ours.target(v.target)
		_, sourceOurs, _ := v.ours.source(v.source)
		known := []int64{}
		if v.ours.stands {
			known = append(known, v.ours.standing.up)
		}
		if v.ours.intends {
			known = append(known, v.ours.intended.up)
		}
		wentBack := false
		for _, up := range known {
			wentBack = wentBack || v.source < up
		}
		switch {
		case r.do == forward && v.active, r.do == backward && v.busy:
			t.Fatalf("%+v: a side with members is touched", v)
		case r.do == forward && !v.forth, r.do == backward && !v.carry:
			t.Fatalf("%+v: nobody asked for it", v)
		case r.do == forward && (!v.mapped || v.source < 0), r.do == backward && (!v.backMapped || v.target < 0):
			t.Fatalf("%+v: there is no translation", v)
		case r.do == forward && v.target >= 0 && !targetOurs:
			t.Fatalf("%+v: what somebody committed is touched", v)
		case r.do == backward && v.source >= 0 && !sourceOurs:
			t.Fatalf("%+v: what somebody committed on the source is touched", v)
		case r.do == forward && v.there.Offset < v.target && !wentBack:
			t.Fatalf("%+v: moved back, though the source did not go back", v)
		case r.do == forward && v.there.Offset == v.target, r.do == backward && v.back.Offset == v.source:
			t.Fatalf("%+v: a commit for nothing", v)
		case r.state == InStep && !v.mapped && v.source >= 0:
			t.Fatalf("%+v: in step with nothing", v)
		}
	})
}

func TestMemorySurvivesTheRecord(t *testing.T) {
	c := Checkpoint{Group: "g", Topic: "t", Upstream: 50, Downstream: 45}
	for _, want := range []memory{
		{},
		{standing: position{10, 9}, stands: true},
		{standing: position{10, 9}, stands: true, short: true},
		{intended: position{50, 45}, intends: true},
		{intended: position{50, 45}, intends: true, back: true},
		{standing: position{10, 9}, stands: true, intended: position{50, 45}, intends: true},
		{standing: position{10, 9}, stands: true, intended: position{50, 45}, intends: true, back: true},
		{standing: position{10, 9}, stands: true, intended: position{30, 27}, intends: true},
	} {
		rec := EncodeCheckpoint(c)
		remember(&rec, position{50, 45}, want)
		if diff := cmp.Diff(fmt.Sprint(want), fmt.Sprint(recall(rec, c, memory{}))); diff != "" {
			t.Errorf("-want +got:\n%s", diff)
		}
	}
	ofMirrorMaker := memory{intended: position{50, 45}, intends: true}
	for _, headers := range [][]wire.Header{nil, {{Key: memoryHeader}}, {{Key: memoryHeader, Value: []byte{9, 1}}}, {{Key: memoryHeader, Value: []byte{1, 1, 5}}}} {
		rec := EncodeCheckpoint(c)
		rec.Headers = headers
		if got := recall(rec, c, memory{}); got != ofMirrorMaker {
			t.Errorf("%v: got %+v", headers, got)
		}
	}
	// MirrorMaker 2 commits later than it checkpoints.
	later := Checkpoint{Group: "g", Topic: "t", Upstream: 70, Downstream: 65}
	got := recall(EncodeCheckpoint(later), later, ofMirrorMaker)
	if _, mine, sure := got.target(45); !mine || !sure {
		t.Errorf("the checkpoint before is forgotten: %+v", got)
	}
	if _, mine, sure := got.target(65); !mine || !sure {
		t.Errorf("the last checkpoint is not ours: %+v", got)
	}
}
