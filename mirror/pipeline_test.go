package mirror

import (
	"context"
	"math/rand/v2"
	"os"
	"slices"
	"strconv"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"github.com/twmb/franz-go/pkg/kerr"

	"kmirror/checkpoint"
	"kmirror/internal/wire"
)

// pipeline plays one partition's whole path with production code for every
// decision (climb, lane, stand, incarnation's start, seam) against model logs:
// fetches of random size, a ledger that answers late, a target that refuses,
// loses answers and drops connections, strangers in the target topic, and
// crashes between any two steps.
type pipeline struct {
	t      *testing.T
	r      *rand.Rand
	source *modelLog
	target *modelLog
	want   []wire.Record

	// What survives a crash.
	anchors   []checkpoint.Anchor // durable, in order
	persisted []checkpoint.Run    // the map as it was last written
	producer  int64
	foreign   int

	// One life.
	lane    *lane
	budget  *budget
	runs    *checkpoint.Runs
	writing []written // anchors under way
	network []flying  // requests under way, oldest first
}

type written struct {
	anchor checkpoint.Anchor
	gate   uint64
}

type flying struct {
	batch    wire.Batch
	answered bool // the target has taken it; the answer is under way
	base     int64
	err      error
}

func TestPipelineKeepsEveryRecordOnce(t *testing.T) {
	rounds := 400
	if n, err := strconv.Atoi(os.Getenv("KMIRROR_SEEDS")); err == nil {
		rounds = n
	}
	for seed := range rounds {
		r := rand.New(rand.NewPCG(uint64(seed), 7))
		source, want := randomSource(r, 20+r.IntN(120))
		p := &pipeline{t: t, r: r, source: source, target: &modelLog{}, want: want, budget: newBudget(1 << 30)}
		p.play()
		if t.Failed() {
			t.Fatalf("seed %d", seed)
		}
	}
}

func (p *pipeline) play() {
	p.begin()
	for steps := 0; ; steps++ {
		if steps > 200_000 {
			select {
			case err := <-p.lane.faults:
				p.t.Errorf("fault: %v", err)
			default:
			}
			p.t.Fatalf("no progress: lane at %d of %d", p.lane.fetch, p.source.end)
		}
		chaos := steps < 3000
		switch n := p.r.IntN(100); {
		case n < 25:
			p.fetch()
		case n < 40:
			p.ledger()
		case n < 60:
			p.send()
		case n < 75:
			p.process(chaos)
		case n < 90:
			p.answer()
		case n < 92 && chaos:
			p.disconnect()
		case n < 93 && chaos && p.r.IntN(4) == 0:
			p.crash()
		case n < 94 && chaos:
			p.stranger()
		case n < 95 && chaos:
			p.move()
		case n < 96 && chaos:
			p.hush()
		case n < 97 && len(p.persisted) == 0 || n < 98:
			p.persisted = nil
			p.runs.All(func(run checkpoint.Run) bool { p.persisted = append(p.persisted, run); return true })
		}
		if p.lane.fetch == p.source.end && !p.lane.pending() && len(p.network) == 0 {
			break
		}
		if p.t.Failed() {
			return
		}
	}
	if n := p.budget.inUse(); n != 0 {
		p.t.Errorf("%d bytes are charged after the end", n)
	}
	p.check()
}

// begin is a tenure's start.
func (p *pipeline) begin() {
	ctx := context.Background()
	var ledger checkpoint.Ledger
	for _, a := range p.anchors {
		ledger.Add(a)
	}
	p.runs = &checkpoint.Runs{}
	for _, run := range p.persisted {
		if err := p.runs.Add(run); err != nil {
			p.t.Fatalf("persisted map: %v", err)
		}
	}
	st, err := stand(ctx, p.target, "t", 0, &ledger, p.runs)
	if err != nil {
		p.t.Fatalf("stand: %v", err)
	}
	if len(st.doubled) > 0 || st.lost > 0 {
		p.t.Fatalf("stand found %v doubled, %d lost", st.doubled, st.lost)
	}
	next, ok := nextSource(p.runs)
	if !ok {
		if next, ok = ledger.EpochStart(); !ok {
			next = p.source.start
		}
	}
	if len(st.last) > 0 {
		if compared, err := checkSeam(ctx, p.source, st.last, st.carries); err != nil || !compared {
			p.t.Fatalf("seam: compared %v, %v", compared, err)
		}
	}
	p.producer++
	p.anchors = append(p.anchors, checkpoint.Anchor{ProducerID: p.producer, Steps: []checkpoint.Step{{Source: next}}})
	p.lane = newLane(checkpoint.Key{}, "t", [16]byte{}, p.producer, 0, origin{next, st.end}, func() ladderLimits {
		return ladderLimits{inflate: inflateLimit, maxBatch: 700}
	})
	p.writing, p.network = nil, nil
}

func (p *pipeline) fetch() {
	offset, appetite := p.lane.wants()
	if appetite != hungry || offset >= p.source.end {
		return
	}
	res, err := p.source.Fetch(context.Background(), "s", 0, offset, int32(100+p.r.IntN(3000)), true, 0)
	if err != nil || res.Err != nil {
		p.t.Fatalf("fetch at %d: %v %v", offset, err, res.Err)
	}
	c, err := climb(slices.Clone(res.Records), offset, p.source.abortedFrom(offset), p.lane.limits())
	if err != nil {
		p.t.Fatalf("climb at %d: %v", offset, err)
	}
	s := p.budget.slab()
	s.alloc(len(res.Records))
	steps, gate := p.lane.take(offset, c, s, p.source.end)
	s.drop()
	if gate > 0 {
		p.writing = append(p.writing, written{checkpoint.Anchor{ProducerID: p.producer, Steps: steps}, gate})
	}
}

// ledger lets the oldest write reach the ledger, and perhaps its answer us.
func (p *pipeline) ledger() {
	if len(p.writing) == 0 {
		return
	}
	w := p.writing[0]
	p.writing = p.writing[1:]
	p.anchors = append(p.anchors, w.anchor)
	p.lane.open(w.gate)
}

func (p *pipeline) send() {
	if len(p.network) >= inFlight {
		return
	}
	if e, ok, _ := p.lane.sendable(time.Now().Add(time.Hour)); ok {
		p.network = append(p.network, flying{batch: slices.Clone(e.batch)})
	}
}

// process lets the target take the oldest request that it has not.
func (p *pipeline) process(chaos bool) {
	for i := range p.network {
		f := &p.network[i]
		if f.answered {
			continue
		}
		f.answered = true
		switch n := p.r.IntN(40); {
		case chaos && n == 0:
			f.err = kerr.NotLeaderForPartition
		case chaos && n == 1: // appended all the same
			if f.base, f.err = p.target.append(f.batch); f.err == nil {
				f.err = kerr.NotEnoughReplicasAfterAppend
			}
		default:
			f.base, f.err = p.target.append(f.batch)
		}
		return
	}
}

// answer brings the oldest answer home.
func (p *pipeline) answer() {
	if len(p.network) == 0 || !p.network[0].answered {
		return
	}
	f := p.network[0]
	p.network = p.network[1:]
	a := &appender{}
	x := &appending{lane: p.lane, acked: func(runs []checkpoint.Run, _, _ int64) {
		for _, run := range runs {
			if err := p.runs.Add(run); err != nil {
				p.t.Errorf("map: %v", err)
			}
		}
	}}
	if f.err == nil {
		a.acknowledged(x, f.base)
	} else {
		a.refused(x, f.err, "")
	}
	if p.lane.flying != len(p.network) {
		p.t.Errorf("%d requests are in flight and the lane counts %d", len(p.network), p.lane.flying)
	}
	select {
	case err := <-p.lane.faults:
		p.t.Errorf("fault: %v", err)
	default:
	}
}

// disconnect loses the connection: the target may still take a part of what was
// on its way; no answer comes.
func (p *pipeline) disconnect() {
	for n := p.r.IntN(len(p.network) + 1); n > 0; n-- {
		p.process(false)
	}
	p.network = nil
	p.lane.detach(nil, "gone")
	p.lane.attach(nil)
}

// move is a new target leader: what is in flight is answered by the old one, as
// it was taken or as not its own any more, before the lane flows at the new one.
func (p *pipeline) move() {
	p.lane.suspend("the leader moves")
	deposed := p.r.IntN(len(p.network) + 1)
	for i := range p.network {
		if f := &p.network[i]; !f.answered && i >= deposed {
			f.answered, f.err = true, kerr.NotLeaderForPartition
		}
	}
	for len(p.network) > 0 {
		p.process(false)
		p.answer()
	}
	if !p.lane.idle() {
		p.t.Error("all is answered and the lane is not idle")
	}
	p.lane.board(nil, "not connected yet")
	p.lane.attach(nil)
}

// hush is a target that has answered nothing for long, and then does.
func (p *pipeline) hush() {
	p.lane.hush(nil, "silent")
	if _, ok, _ := p.lane.sendable(time.Now().Add(time.Hour)); ok {
		p.t.Error("a lane that is blocked sends")
	}
	p.process(true)
	p.answer()
	p.lane.attach(nil)
}

// crash is kill -9; requests that were on their way arrive or not before the
// next life reads the tail. (What arrives later is the fence's matter.)
func (p *pipeline) crash() {
	for n := p.r.IntN(len(p.network) + 1); n > 0; n-- {
		p.process(false)
	}
	for n := p.r.IntN(len(p.writing) + 1); n > 0; n-- {
		p.anchors = append(p.anchors, p.writing[0].anchor)
		p.writing = p.writing[1:]
	}
	p.lane.detach(nil, "gone")
	p.lane.abandon()
	p.begin()
}

func (p *pipeline) stranger() {
	p.foreign++
	b, err := wire.EncodeBatch(nil, []wire.Record{{Value: []byte("stranger"), Timestamp: 5}}, wire.Plain(wire.CodecNone))
	if err != nil {
		p.t.Fatal(err)
	}
	p.target.store(b)
}

// check compares the target with what a consumer of the source gets, and the
// map with both.
func (p *pipeline) check() {
	var got []wire.Record
	for _, b := range p.target.batches {
		recs, err := b.Records(inflateLimit)
		if err != nil {
			p.t.Fatal(err)
		}
		for _, rec := range recs {
			if string(rec.Value) != "stranger" {
				got = append(got, rec)
			}
		}
	}
	if len(got) != len(p.want) {
		p.t.Errorf("the target holds %d records, the source %d", len(got), len(p.want))
		return
	}
	for i, rec := range got {
		want := p.want[i]
		if at := p.runs.Forward(want.Offset); at.Offset != rec.Offset || !at.Exact {
			p.t.Errorf("source offset %d is translated to %+v and stands at %d", want.Offset, at, rec.Offset)
			return
		}
		want.Offset = rec.Offset
		if diff := cmp.Diff(want, rec, cmpopts.EquateEmpty()); diff != "" || (want.Key == nil) != (rec.Key == nil) || (want.Value == nil) != (rec.Value == nil) {
			p.t.Errorf("record %d: %s", i, diff)
			return
		}
	}
}
