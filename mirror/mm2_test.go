package mirror

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"testing"
	"testing/synctest"

	"github.com/google/go-cmp/cmp"

	"kmirror/checkpoint"
	"kmirror/internal/mm2"
	"kmirror/internal/wire"
	"kmirror/topology"
)

// letters makes a log with a record for each letter, three in a batch at most.
func letters(t *testing.T, text string) *modelLog {
	t.Helper()
	l := &modelLog{}
	for len(text) > 0 {
		n := min(3, len(text))
		var recs []wire.Record
		for i, c := range []byte(text[:n]) {
			recs = append(recs, wire.Record{Offset: int64(i), Timestamp: 1, Value: []byte{c}})
		}
		b, err := wire.EncodeBatch(nil, recs, wire.Plain(wire.CodecNone))
		if err != nil {
			t.Fatal(err)
		}
		l.store(b)
		text = text[n:]
	}
	return l
}

// inheritance is what a heir is to find.
type inheritance struct {
	source, target string
	stored         int64 // -1: none
	syncs          []mm2.Pair
	accept         bool
	grows          bool
	expired        int64 // source offsets below are gone
	targetExpired  int64
}

func (in inheritance) run(t *testing.T) (next int64, begun bool, runs *checkpoint.Runs, incidents []Incident, err error) {
	t.Helper()
	source, target := letters(t, in.source), letters(t, in.target)
	source.start, target.start = in.expired, in.targetExpired
	flow := flowOf(t, func(f *topology.Flow) {
		f.Start = []topology.StartRule{{Topics: []string{".*"}, Start: topology.Start{Kind: topology.MirrorMaker2}}}
	})
	legacy := &mm2Legacy{positions: mm2.NewPositions(flow.From, mm2Names(flow)...), syncs: map[mm2.Partition]*mm2.Syncs{{Topic: "t"}: {}}}
	if in.stored >= 0 {
		legacy.positions.Add(fmt.Appendf(nil, `["MirrorSourceConnector",{"cluster":%q,"partition":0,"topic":"t"}]`, flow.From), fmt.Appendf(nil, `{"offset":%d}`, in.stored))
	}
	for _, p := range in.syncs {
		legacy.syncs[mm2.Partition{Topic: "t"}].Add(p.Source, p.Target)
	}
	journal := &journalOf{}
	decider := &takeover{journal: journal, accepted: func(_ partitionID, kind string) bool { return in.accept && kind == KindTakeoverUnproven }}
	h := &mm2Heir{
		cfg: func() *topology.Flow { return flow }, source: source, target: target,
		legacy: func(context.Context) (*mm2Legacy, error) { return legacy, nil },
		decide: decider.decide, log: slog.New(slog.DiscardHandler), reading: make(chan struct{}, 1),
	}
	st := standing{start: target.start, end: target.end}
	if in.grows {
		st.end--
	}
	runs = &checkpoint.Runs{}
	synctest.Test(t, func(t *testing.T) {
		next, begun, err = h.inherit(t.Context(), partitionID{flow.Name, "t", 0}, &topicPair{targetName: flow.From + ".t"}, runs, st)
	})
	return next, begun, runs, journal.all, err
}

// journalOf keeps what it is told.
type journalOf struct{ all []Incident }

func (j *journalOf) Record(in Incident) { j.all = append(j.all, in) }

func TestInherit(t *testing.T) {
	for _, c := range []struct {
		name  string
		in    inheritance
		next  int64
		begun bool
		stops string // in the error
		waits bool   // the error is a *waitError
		tells bool   // there is an incident
	}{
		{name: "stopped in order", in: inheritance{source: "abcdefgh", target: "abcd", stored: 3, syncs: []mm2.Pair{{Source: 0, Target: 0}, {Source: 3, Target: 3}}}, next: 4, begun: true},
		{name: "killed", in: inheritance{source: "abcdefgh", target: "abcdef", stored: 2, syncs: []mm2.Pair{{Source: 0, Target: 0}}}, next: 6, begun: true},
		{name: "killed, no syncs", in: inheritance{source: "abcdefgh", target: "abcdef", stored: 2}, next: 6, begun: true},
		{name: "killed, a sync beyond the position", in: inheritance{source: "abcdefgh", target: "abcdef", stored: 1, syncs: []mm2.Pair{{Source: 4, Target: 4}}}, next: 6, begun: true},
		{name: "killed twice", in: inheritance{source: "abcdefgh", target: "abcdecdef", stored: 1, syncs: []mm2.Pair{{Source: 0, Target: 0}}}, next: 6, begun: true},
		{name: "a stale sync", in: inheritance{source: "abcdefgh", target: "abcd", stored: 3, syncs: []mm2.Pair{{Source: 1, Target: 2}}}, next: 4, begun: true},
		{name: "nothing new at the source, and nothing to compare", in: inheritance{source: "abcd", target: "xy", stored: 3}, next: 4, begun: true},
		{name: "all of the source has expired", in: inheritance{source: "abcd", target: "abcd", stored: 3, expired: 4}, next: 4, begun: true},
		{name: "records are alike", in: inheritance{source: "aaaaaaaa", target: "aaaa", stored: 1}, stops: "records are alike", tells: true},
		{name: "records are alike, accepted", in: inheritance{source: "aaaaaaaa", target: "aaaa", stored: 1, accept: true}, next: 2, begun: true, tells: true},
		{name: "records are alike, counted from a sync", in: inheritance{source: "aaaaaaaa", target: "aaaa", stored: 1, syncs: []mm2.Pair{{Source: 0, Target: 0}}}, next: 4, begun: true},
		{name: "somebody else wrote", in: inheritance{source: "abcdefgh", target: "abXcd", stored: 2, syncs: []mm2.Pair{{Source: 0, Target: 0}}}, stops: "--accept takeover-unproven", tells: true},
		{name: "somebody else wrote, accepted", in: inheritance{source: "abcdefgh", target: "abXcd", stored: 2, accept: true}, next: 3, begun: true, tells: true},
		{name: "the target is empty, and should not be", in: inheritance{source: "abcdefgh", target: "", stored: 2}, stops: "cannot be proven", tells: true},
		{name: "nothing copied yet", in: inheritance{source: "abcd", target: "", stored: -1}, begun: false},
		{name: "records without a position", in: inheritance{source: "abcd", target: "ab", stored: -1}, stops: "who wrote them", tells: true},
		{name: "records without a position, accepted", in: inheritance{source: "abcd", target: "ab", stored: -1, accept: true}, begun: false, tells: true},
		{name: "the target grows", in: inheritance{source: "abcdefgh", target: "abcde", stored: 3, syncs: []mm2.Pair{{Source: 0, Target: 0}}, grows: true}, stops: "grows", waits: true},
	} {
		t.Run(c.name, func(t *testing.T) {
			next, begun, runs, incidents, err := c.in.run(t)
			if wait := (*waitError)(nil); c.stops == "" && err != nil || c.stops != "" && (err == nil || !strings.Contains(err.Error(), c.stops)) || errors.As(err, &wait) != c.waits {
				t.Fatalf("error %v, want %q", err, c.stops)
			}
			if c.tells != (len(incidents) == 1) {
				t.Fatalf("incidents: %+v", incidents)
			}
			if err != nil {
				return
			}
			if next != c.next || begun != c.begun {
				t.Fatalf("next %d, begun %v; want %d, %v", next, begun, c.next, c.begun)
			}
			if begun { // the place itself is exact
				if got := runs.Forward(next); !got.Exact || got.Offset > int64(len(c.in.target)) {
					t.Errorf("the place is translated to %+v", got)
				}
			}
		})
	}
}

// TestBequest: what MirrorMaker 2 copied is translated to where nothing is skipped.
func TestBequest(t *testing.T) {
	source := "abcdefghijklmnopqrstuvwxyz"
	// The target's log begins with e; syncs are known of c (gone), h and o; p and q were
	// copied beyond.
	in := inheritance{source: source, target: "abcdefghijklmnopq", stored: 15, targetExpired: 4, syncs: []mm2.Pair{{Source: 2, Target: 2}, {Source: 7, Target: 7}, {Source: 14, Target: 14}}}
	_, _, runs, _, err := in.run(t)
	if err != nil {
		t.Fatal(err)
	}
	var got []checkpoint.Run
	runs.All(func(r checkpoint.Run) bool { got = append(got, r); return true })
	want := []checkpoint.Run{{Source: 4, Target: 4, Count: 1, Loose: true}, {Source: 7, Target: 7, Count: 1, Loose: true}, {Source: 14, Target: 14, Count: 3, Loose: true}}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("runs (-want +got):\n%s", diff)
	}
	for at := int64(0); at <= 17; at++ {
		there := runs.Forward(at)
		if there.Offset > max(at, 4) || there.Exact && there.Offset != at {
			t.Errorf("%d is translated to %+v: records would be skipped", at, there)
		}
		if back := runs.Backward(max(at, 4)); back.Offset > max(at, 4) {
			t.Errorf("%d is translated back to %+v: records would be skipped", max(at, 4), back)
		}
	}
	in.expired = 3 // retention has been at both logs
	_, _, both, _, err := in.run(t)
	if err != nil {
		t.Fatal(err)
	}
	for at := int64(3); at <= 17; at++ {
		if there := both.Forward(at); there.Offset > max(at, 4) || there.Offset < 4 {
			t.Errorf("%d is translated to %+v, and the log begins at 4", at, there)
		}
		if back := both.Backward(max(at, 4)); back.Offset > max(at, 4) || back.Offset < 3 {
			t.Errorf("%d is translated back to %+v, and the log begins at 3", max(at, 4), back)
		}
	}
	if there := runs.Forward(17); !there.Exact || there.Offset != 17 {
		t.Errorf("the takeover point: %+v", there)
	}
	if there := runs.Forward(16); !there.Exact || there.Offset != 16 {
		t.Errorf("what was compared: %+v", there)
	}
}
