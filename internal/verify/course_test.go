package verify_test

import (
	"errors"
	"fmt"
	"path/filepath"
	"runtime"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"kmirror/checkpoint"
	"kmirror/internal/verify"
	"kmirror/internal/wire"
	"kmirror/topology"
)

// estate is a flow with topics of several partitions, all of which are mirrored.
type estate struct {
	source, target *site
	setting        verify.Setting
	store          verify.Store
	choice         verify.Selection
}

// newEstate makes topics with so many partitions each: topic-00000 and on. The
// partitions of one topic share a log of three records.
func newEstate(t testing.TB, sizes ...int) *estate {
	t.Helper()
	text := "instance: one\nclusters:\n  a: {bootstrap: [a:9092]}\n  b: {bootstrap: [b:9092]}\nflows:\n  - {from: a, to: b}\n"
	config, err := topology.Parse("m.yaml", []byte(text), func(string) (string, bool) { return "", false })
	if err != nil {
		t.Fatal(err)
	}
	e := &estate{
		source: newSite("A"), target: newSite("B"), store: verify.Store{Path: filepath.Join(t.TempDir(), "state.json")},
		choice: verify.Selection{Partition: -1, Sample: verify.All()},
	}
	flow := config.Flows[0]
	e.setting = verify.Setting{Source: e.source, Target: e.target, Config: config, Flow: flow}
	for n, size := range sizes {
		name, id := fmt.Sprintf("topic-%05d", n), [16]byte{9, byte(n), byte(n >> 8)}
		e.source.topic(name, id, size)
		e.target.topic(flow.TargetTopic(name), id, size)
		e.source.logs[name], e.target.logs[flow.TargetTopic(name)] = &fakeLog{few: 9}, &fakeLog{few: 9}
		for i := range 3 {
			value := fmt.Sprint(name, i)
			e.source.logs[name].put(t, value, wire.Plain(wire.CodecNone))
			e.target.logs[flow.TargetTopic(name)].put(t, value, wire.Plain(wire.CodecNone))
		}
		for p := range int32(size) {
			key := checkpoint.Key{Flow: flow.Name, Topic: name, TopicID: id, Partition: p}
			e.target.say(key.MapPartition(), checkpoint.EncodeBlock(checkpoint.Block{Key: key, Open: true, TargetID: id, Generation: 1, Through: 3, Runs: []checkpoint.Run{{Count: 3}}}))
		}
	}
	return e
}

// spoil changes the last record of a topic's copy.
func (e *estate) spoil(t testing.TB, topic string) {
	t.Helper()
	l := e.target.logs["a."+topic]
	l.end--
	l.batches = l.batches[:2]
	l.put(t, "another", wire.Plain(wire.CodecNone))
}

// turn takes one turn, as whoever comes after a crash does: with what was kept. It
// returns the report when all is done.
func (e *estate) turn(t testing.TB, atOnce int) *verify.Report {
	t.Helper()
	kept, err := e.store.Load()
	if err != nil {
		t.Fatal(err)
	}
	e.setting.AtOnce = atOnce
	v, err := verify.Prepare(t.Context(), e.setting, e.choice, kept)
	if err != nil {
		t.Fatal(err)
	}
	if len(v.Parts) > max(atOnce, 5) {
		t.Fatalf("%d partitions in a turn of %d", len(v.Parts), atOnce)
	}
	if err := e.store.Save(v.Standing()); err != nil {
		t.Fatal(err)
	}
	if err := verify.Run(t.Context(), verify.Options{Source: e.source, Target: e.target}, v.Jobs(), &verify.Meter{}); err != nil {
		t.Fatal(err)
	}
	if next := v.Next(); next != nil {
		if err := e.store.Save(next); err != nil {
			t.Fatal(err)
		}
		return nil
	}
	if err := e.store.Save(v.Standing()); err != nil {
		t.Fatal(err)
	}
	return v.Report()
}

// whole takes all turns.
func (e *estate) whole(t testing.TB, atOnce int) (r *verify.Report, turns int) {
	t.Helper()
	for turns = 1; turns < 100; turns++ {
		if r = e.turn(t, atOnce); r != nil {
			return r, turns
		}
	}
	t.Fatal("there is no end to it")
	return nil, 0
}

// Topics that take turns are found to be what they are found to be at once: the
// same digests and figures, the same first difference.
func TestTurns(t *testing.T) {
	sizes := []int{2, 1, 3, 5, 1, 1, 2}
	at := func(atOnce int) (*verify.Report, int) {
		e := newEstate(t, sizes...)
		e.spoil(t, "topic-00001")
		e.spoil(t, "topic-00004")
		return e.whole(t, atOnce)
	}
	want, turns := at(100)
	if turns != 1 || want.Verdict != verify.Different || want.Total.Records != 45 || want.Total.Differences != 2 || len(want.Topics[3].Partitions) != 5 {
		t.Fatalf("%d turns, %+v", turns, want.Total)
	}
	for i := range want.Topics { // what several turns keep of them
		p := &want.Topics[i].Partitions
		*p = slices.DeleteFunc(*p, func(p verify.PartitionReport) bool { return p.Verdict == verify.Equal })
	}
	for atOnce, expected := range map[int]int{4: 4, 3: 5, 1: 7, 14: 2} {
		got, turns := at(atOnce)
		if turns != expected {
			t.Errorf("%d at once: %d turns, want %d", atOnce, turns, expected)
		}
		got.Begun = want.Begun
		for i := range got.Topics {
			if len(got.Topics[i].Partitions) == 0 {
				got.Topics[i].Partitions = []verify.PartitionReport{}
			}
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("%d at once: %s", atOnce, diff)
		}
	}
}

// A topic that cannot be read in its turn is read when the others were, and the
// run ends there if it still cannot be; it can be gone on with.
func TestWhatCannotBeReadTakesAnotherTurn(t *testing.T) {
	for _, test := range []struct{ fails, turns, ends int }{{1, 5, 1}, {2, 5, 2}} {
		e := newEstate(t, 2, 2, 2, 2)
		e.spoil(t, "topic-00003")
		e.source.fails = map[string]int{"topic-00001": test.fails * 2} // each of its partitions
		r, turns := e.whole(t, 2)
		if turns != test.turns {
			t.Errorf("%d turns, want %d", turns, test.turns)
		}
		if test.ends == 2 {
			if r.Verdict != verify.Different || r.Topics[1].Verdict != verify.Unfinished || r.Topics[1].Unread != 2 || r.Total.Records != 18 {
				t.Errorf("what cannot be read: %+v", r.Topics[1])
			}
			r, _ = e.whole(t, 2)
		}
		if r.Verdict != verify.Different || r.Total.Records != 24 || r.Total.Differences != 2 || r.Topics[1].Verdict != verify.Equal || r.Left != 0 {
			t.Errorf("%+v", r)
		}
	}
}

// What cannot be read in the last turns either ends the run before those that are
// left, so that it does not go round and round.
func TestTheLastTurnEndsWhereItCannotRead(t *testing.T) {
	e := newEstate(t, 2, 2, 2)
	e.source.fails = map[string]int{"topic-00000": 4, "topic-00001": 2}
	r, turns := e.whole(t, 2)
	if turns != 4 || r.Verdict != verify.Unfinished || r.Left != 1 || r.Total.Records != 6 {
		t.Errorf("%d turns, %+v", turns, r)
	}
	if r, turns := e.whole(t, 2); turns != 2 || r.Verdict != verify.Equal || r.Left != 0 || r.Total.Records != 18 {
		t.Errorf("gone on with: %d turns, %+v", turns, r)
	}
}

// What is deleted meanwhile is said, and ends nothing: before its turn, and in it.
func TestATopicThatIsGoneWhenItsTurnComes(t *testing.T) {
	e := newEstate(t, 2, 2, 2, 2)
	if e.turn(t, 2) != nil {
		t.Fatal("there is one turn")
	}
	delete(e.source.topics, "topic-00001")
	delete(e.target.topics, "a.topic-00002")
	r, turns := e.whole(t, 2)
	if turns != 1 || r.Verdict != verify.Equal || len(r.Topics) != 2 || !slices.Equal(r.Vanished, []string{"topic-00001", "topic-00002"}) {
		t.Errorf("%d turns, %+v", turns, r)
	}

	e = newEstate(t, 2, 2, 2)
	e.turn(t, 2)
	kept, err := e.store.Load()
	if err != nil {
		t.Fatal(err)
	}
	v, err := verify.Prepare(t.Context(), e.setting, e.choice, kept) // and it is stopped
	if err != nil {
		t.Fatal(err)
	}
	if err := e.store.Save(v.Standing()); err != nil {
		t.Fatal(err)
	}
	delete(e.source.topics, "topic-00001")
	if r, _ := e.whole(t, 2); r.Verdict != verify.Equal || len(r.Topics) != 2 || !slices.Equal(r.Vanished, []string{"topic-00001"}) {
		t.Errorf("gone in its turn: %+v", r)
	}
	e = newEstate(t, 2, 2)
	e.turn(t, 2)
	delete(e.source.topics, "topic-00001")
	if r, turns := e.whole(t, 2); turns != 1 || r.Verdict != verify.Equal || len(r.Topics) != 1 {
		t.Errorf("the last is gone: %d turns, %+v", turns, r)
	}
}

// A run that is gone on with, in one turn or in the midst of several, keeps what it
// has, and a version that knows no turns refuses a run that has some.
func TestTurnsAreKept(t *testing.T) {
	e := newEstate(t, 2, 2, 2)
	for want := 1; want <= 2; want++ { // in one turn, then in several
		v, err := verify.Prepare(t.Context(), e.setting, e.choice, nil)
		if err != nil {
			t.Fatal(err)
		}
		if err := e.store.Save(v.Standing()); err != nil {
			t.Fatal(err)
		}
		kept, err := e.store.Load()
		if err != nil {
			t.Fatal(err)
		}
		if kept.Version != want || len(kept.Course.Left) != (want-1)*2 {
			t.Errorf("version %d, want %d: %+v", kept.Version, want, kept.Course)
		}
		e.setting.AtOnce = 2
	}
	e.store.Path += "-one"
	e.setting.AtOnce = 0
	v, err := verify.Prepare(t.Context(), e.setting, e.choice, nil)
	if err != nil {
		t.Fatal(err)
	}
	if err := e.store.Save(v.Standing()); err != nil {
		t.Fatal(err)
	}
	e.setting.AtOnce = 1 // what was begun at once is ended at once
	kept, err := e.store.Load()
	if err != nil {
		t.Fatal(err)
	}
	if v, err = verify.Prepare(t.Context(), e.setting, e.choice, kept); err != nil || len(v.Parts) != 6 {
		t.Errorf("%v, %+v", err, v)
	}
}

// BenchmarkPrepare says what a partition takes in memory.
func BenchmarkPrepare(b *testing.B) {
	const topics, partitions = 100, 1000
	e := newEstate(b, slices.Repeat([]int{partitions}, topics)...)
	heap := func() int64 {
		var s runtime.MemStats
		runtime.GC()
		runtime.GC()
		runtime.ReadMemStats(&s)
		return int64(s.HeapAlloc)
	}
	for b.Loop() {
		before, began := heap(), time.Now()
		v, err := verify.Prepare(b.Context(), e.setting, e.choice, nil)
		if err != nil {
			b.Fatal(err)
		}
		b.ReportMetric(time.Since(began).Seconds(), "s/turn")
		b.ReportMetric(float64(heap()-before)/float64(len(v.Parts)), "B/partition")
		if len(v.Parts) != topics*partitions {
			b.Fatal(len(v.Parts))
		}
	}
}

var errNoLeader = errors.New("no leader")
