package mirror

import (
	"errors"
	"log/slog"
	"slices"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"

	"kmirror/checkpoint"
	"kmirror/internal/kafka"
	"kmirror/internal/wire"
)

// bench is a lane at an appender without a connection: the test plays the
// target's answers.
type bench struct {
	t        *testing.T
	budget   *budget
	lane     *lane
	appender *appender
	at       *appending
	runs     []checkpoint.Run
}

func newBench(t *testing.T) *bench {
	t.Helper()
	m, err := newMetrics(prometheus.NewRegistry())
	if err != nil {
		t.Fatal(err)
	}
	b := &bench{t: t, budget: newBudget(0)}
	b.lane = newLane(checkpoint.Key{}, "t", [16]byte{}, 7, 0, origin{0, 0}, func() ladderLimits { return ladderLimits{inflate: 1 << 20} })
	b.lane.setBehind(true) // at the appender itself, not at its express
	b.appender = newTestAppender(m)
	b.at = &appending{lane: b.lane, acked: func(runs []checkpoint.Run, _, _ int64) { b.runs = append(b.runs, runs...) }}
	b.appender.add(b.at)
	return b
}

func newTestAppender(m *metrics) *appender {
	return newAppender(&appender{metrics: flowMetrics{m, "f"}, stale: func() {}, log: slog.New(slog.DiscardHandler)})
}

// fetch hands the lane one response of n batches with one record each, and
// opens the gate if there is one.
func (b *bench) fetch(n int) {
	b.t.Helper()
	b.fetchOf(n, mergeBelow) // too large to be merged
}

func (b *bench) fetchOf(n, size int) {
	b.t.Helper()
	offset, appetite := b.lane.wants()
	if appetite != hungry {
		b.t.Fatalf("the lane is not hungry: %v", appetite)
	}
	var raw []byte
	for i := range n {
		batch, err := wire.EncodeBatch(nil, []wire.Record{{Offset: offset + int64(i), Timestamp: time.Now().UnixMilli(), Value: make([]byte, size)}}, wire.Plain(wire.CodecNone))
		if err != nil {
			b.t.Fatal(err)
		}
		batch.SetBaseOffset(offset + int64(i))
		raw = append(raw, batch...)
	}
	s := b.budget.slab()
	body := s.alloc(len(raw))
	copy(body, raw)
	c, err := climb(body, offset, nil, b.lane.limits())
	if err != nil {
		b.t.Fatal(err)
	}
	if _, gate := b.lane.take(offset, c, s, offset+int64(n)); gate > 0 {
		b.lane.open(gate)
	}
	s.drop()
}

// send puts the next batch in flight.
func (b *bench) send() *produced {
	b.t.Helper()
	version, _ := b.appender.collect(12, time.Now().Add(time.Hour))
	if len(b.appender.batch) != 1 {
		b.t.Fatal("nothing to send")
	}
	p := &produced{version: version, lanes: slices.Clone(b.appender.batch), sent: time.Now()}
	b.appender.request.End()
	return p
}

// answer is the target's word on a request.
func (b *bench) answer(p *produced, code int16, base int64) {
	b.t.Helper()
	resp := kmsg.NewPtrProduceResponse()
	resp.SetVersion(p.version)
	rt := kmsg.NewProduceResponseTopic()
	rt.Topic = "t"
	rp := kmsg.NewProduceResponseTopicPartition()
	rp.ErrorCode, rp.BaseOffset = code, base
	rt.Partitions = append(rt.Partitions, rp)
	resp.Topics = append(resp.Topics, rt)
	if err := b.appender.resolve(p, resp.AppendTo(nil)); err != nil {
		b.t.Fatal(err)
	}
}

// TestAnswersForAnAbandonedLane: a tenure that waited long enough leaves while
// requests are under way on a connection that is alive. Their answers come.
func TestAnswersForAnAbandonedLane(t *testing.T) {
	b := newBench(t)
	b.fetch(4)
	first := b.send()
	b.answer(first, 0, 0) // ends the probing
	var flight []*produced
	for range 3 {
		flight = append(flight, b.send())
	}
	b.lane.abandon()
	b.appender.remove(b.lane)
	b.answer(flight[0], 0, 1)
	b.answer(flight[1], kerr.NotLeaderForPartition.Code, -1)
	b.answer(flight[2], kerr.OutOfOrderSequenceNumber.Code, -1)
	if len(b.runs) != 1 {
		t.Errorf("recorded %v, want the first run alone", b.runs)
	}
	if n := b.budget.inUse(); n != 0 {
		t.Errorf("%d bytes are still charged", n)
	}
	if !b.lane.idle() {
		t.Error("something is still in flight")
	}
	select {
	case err := <-b.lane.faults:
		t.Errorf("fault: %v", err)
	default:
	}
}

// TestALaneThatMovesOn: the connection of the old leader's appender is lost when
// the lane flows at the new one already.
func TestALaneThatMovesOn(t *testing.T) {
	b := newBench(t)
	old := b.appender
	b.fetch(2)
	p := b.send()
	*old.flight.next() = *p
	old.flight.push()
	old.remove(b.lane)
	b.lane.suspend("the leader moves")
	if b.lane.idle() {
		t.Fatal("a request is in flight and the lane is idle")
	}
	b.answer(p, kerr.NotLeaderForPartition.Code, -1)
	if !b.lane.idle() {
		t.Fatal("all is answered and the lane is not idle")
	}
	b.appender = newTestAppender(old.metrics.m)
	b.appender.add(b.at)
	next := b.send()
	old.lose("gone")
	b.answer(next, 0, 0)
	b.fetch(1)
	b.answer(b.send(), 0, 1)
	if b.lane.pending() || len(b.runs) != 2 {
		t.Errorf("pending %v, recorded %v", b.lane.pending(), b.runs)
	}
}

// TestAClosedLaneSendsNothing: what is refused while the lane drains is not sent
// again, because another may own the partition at once.
func TestAClosedLaneSendsNothing(t *testing.T) {
	b := newBench(t)
	b.fetch(3)
	b.answer(b.send(), 0, 0)
	p := b.send()
	b.lane.close()
	b.answer(p, kerr.NotLeaderForPartition.Code, -1)
	if b.appender.collect(12, time.Now().Add(time.Hour)); len(b.appender.batch) > 0 {
		t.Error("a closed lane sends")
	}
	if n := b.budget.inUse(); n != 0 {
		t.Errorf("%d bytes are still charged", n)
	}
}

// TestGatesOpenInTurn: two fetchers took steps for one lane while the source
// leader moved, and the second one's were written first.
func TestGatesOpenInTurn(t *testing.T) {
	b := newBench(t)
	for _, open := range []uint64{2, 3} {
		b.lane.gates = open
		b.lane.open(open)
		if b.lane.opened != 0 {
			t.Fatalf("gate %d is open and gate 1 was never written", b.lane.opened)
		}
	}
	if b.lane.open(1); b.lane.opened != 3 || len(b.lane.early) != 0 {
		t.Errorf("opened up to %d, want 3", b.lane.opened)
	}
}

// TestALaneInTroubleHoldsNoFetchResponse: what a partition that is refused again
// and again keeps is its own few bytes, not the responses that it shares with
// others.
func TestALaneInTroubleHoldsNoFetchResponse(t *testing.T) {
	b := newBench(t)
	b.fetch(10)
	if n := b.budget.inUse(); n != 256<<10 {
		t.Fatalf("%d bytes are charged, want the slab of ten batches", n)
	}
	b.answer(b.send(), kerr.NotEnoughReplicas.Code, -1)
	if n := b.budget.inUse(); n > 20<<10 {
		t.Errorf("%d bytes are still charged for one small batch", n)
	}
	if _, appetite := b.lane.wants(); appetite != resting {
		t.Errorf("a lane in trouble is %v", appetite)
	}
	b.answer(b.send(), 0, 0)
	b.fetch(9) // what was given back is read again
	for i := range int64(9) {
		b.answer(b.send(), 0, i+1)
	}
	if want := []checkpoint.Run{{Source: 9, Target: 9, Count: 1}}; b.runs[len(b.runs)-1] != want[0] {
		t.Errorf("the last run is %v, want %v", b.runs[len(b.runs)-1], want[0])
	}
	if n := b.budget.inUse(); n != 0 {
		t.Errorf("%d bytes are still charged", n)
	}
}

// TestASilentBrokerHoldsNoFetchResponse: nor does one that answers nothing.
func TestASilentBrokerHoldsNoFetchResponse(t *testing.T) {
	b := newBench(t)
	b.fetch(10)
	p := b.send()
	b.appender.flow("it answers nothing")
	if n := b.budget.inUse(); n > 20<<10 {
		t.Errorf("%d bytes are still charged for one small batch in flight", n)
	}
	b.answer(p, 0, 0)
	b.appender.flow("")
	b.fetch(9)
	b.answer(b.send(), 0, 1)
}

// TestCorruptBytesAreReadAgain: sending the same bytes for ever would not mend
// them.
func TestCorruptBytesAreReadAgain(t *testing.T) {
	b := newBench(t)
	b.fetch(1)
	b.answer(b.send(), kerr.CorruptMessage.Code, -1)
	select {
	case err := <-b.lane.faults:
		if !errors.Is(err, kerr.CorruptMessage) {
			t.Errorf("fault: %v", err)
		}
	default:
		t.Error("no fault")
	}
}

// TestMeasureTheTarget: what the target says it takes is tried, then halves of
// it; and what it says later is taken up again.
func TestMeasureTheTarget(t *testing.T) {
	x := &tenure{}
	for i, step := range []struct{ told, want int }{{1000_000, 1000_000}, {1000_000, 500_000}, {1000_000, 250_000}, {100_000, 100_000}, {0, 50_000}} {
		if got := x.measure(step.told); got != step.want {
			t.Errorf("step %d: %d, want %d", i, got, step.want)
		}
	}
}

// TestIncarnationOfOnePartition: another partition has written down already that
// the target topic was created anew; this one's map still belongs to the old.
func TestIncarnationOfOnePartition(t *testing.T) {
	pair := &topicPair{source: &kafka.Topic{Name: "orders", ID: [16]byte{1}}, targetName: "east.orders", target: &kafka.Topic{ID: [16]byte{2}}}
	runs := &checkpoint.Runs{TargetID: [16]byte{3}}
	if err := runs.Add(checkpoint.Run{Count: 20}); err != nil {
		t.Fatal(err)
	}
	got, detail := incarnation(pair, checkpoint.Loaded{Ledger: &checkpoint.Ledger{}, Runs: runs, Pairs: []checkpoint.TopicPair{{SourceID: [16]byte{1}, TargetTopic: "east.orders", TargetID: [16]byte{2}}}})
	if got != newTarget {
		t.Errorf("got %v, %s; want a new target", got, detail)
	}
	if _, mirrored := nextSource(runs); mirrored || runs.TargetID != pair.target.ID {
		t.Errorf("the map still holds the old target's runs")
	}
}

// TestClosedOverFlight: what was in flight when a lane was closed behind refused
// batches, and is never answered, may still land.
func TestClosedOverFlight(t *testing.T) {
	b := newBench(t)
	b.fetch(1)
	if _, ok, _ := b.lane.sendable(time.Now()); !ok {
		t.Fatal("the first batch does not leave")
	}
	b.lane.ack(0)
	b.lane.recorded()
	b.fetch(5)
	for i := range 5 {
		if _, ok, _ := b.lane.sendable(time.Now()); !ok {
			t.Fatalf("batch %d does not leave", i)
		}
	}
	for range 3 {
		b.lane.refuse(time.Now())
	}
	b.lane.close()
	b.lane.detach(b.appender, "connection lost")
	b.lane.abandon()
	if b.lane.clean() {
		t.Error("two requests were never answered, and the lane says that nothing is under way")
	}
}

// TestTheMapLearnsOfTheRecordBeforeTheHole: what came behind a record was dropped
// while it was in flight. As long as it is not recorded, the hole is no news: the map
// would refuse the record behind it.
func TestTheMapLearnsOfTheRecordBeforeTheHole(t *testing.T) {
	b := newBench(t)
	b.fetch(1)
	if _, ok, _ := b.lane.sendable(time.Now()); !ok {
		t.Fatal("the batch does not leave")
	}
	hole := b.lane.fetch + 5
	b.lane.take(b.lane.fetch, climbed{next: hole, limits: b.lane.limits()}, nil, hole)
	b.lane.ack(0)
	if source, news := b.lane.settled(); news {
		t.Errorf("the map learns that all below %d is dealt with, and not yet of the record", source)
	}
	b.lane.recorded()
	if source, news := b.lane.settled(); !news || source != hole {
		t.Errorf("got %d, %v; want the hole's end %d", source, news, hole)
	}
}
