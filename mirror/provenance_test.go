package mirror

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"kmirror/checkpoint"
	"kmirror/internal/wire"
	"kmirror/topology"
)

// mapTopic is a cluster's offset map's topic.
type mapTopic struct {
	mu      sync.Mutex // guards the fields below
	records [checkpoint.MapPartitions][]wire.Record
	fails   error
}

func (m *mapTopic) fail(err error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.fails = err
}

func (m *mapTopic) say(p checkpoint.Provenance) {
	m.mu.Lock()
	defer m.mu.Unlock()
	at := p.MapPartition()
	m.records[at] = append(m.records[at], checkpoint.EncodeProvenance(p))
}

func (m *mapTopic) ListOffset(_ context.Context, _ string, partition int32, timestamp int64) (int64, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if timestamp == atEarliest {
		return 0, m.fails
	}
	return int64(len(m.records[partition])), m.fails
}

func (m *mapTopic) Read(_ context.Context, _ string, partition int32, from int64, fn func(wire.Record) error) (int64, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, rec := range m.records[partition][from:] {
		if err := fn(rec); err != nil {
			return from, err
		}
		from++
	}
	return from, m.fails
}

func testOrigins(from checkpoint.Reader) *origins {
	rule := checkpoint.OriginRule{Drops: []string{"west->east"}, From: []string{"west"}, Target: "west", Reads: func(flow string) string { return map[string]string{"west->east": "west", "hq->east": "hq"}[flow] }}
	ids := func() map[string]string { return map[string]string{"west": "W", "east": "E"} }
	return newOrigins(rule, from, func(context.Context) error { return nil }, ids, slog.New(slog.DiscardHandler))
}

// What another flow brought is dropped, whatever step it would take else; what is
// not known is left where it is, and what stands behind it is asked for too.
func TestLadderAsksWhoWroteABatch(t *testing.T) {
	of := func(id int64) wire.BatchOptions {
		return wire.BatchOptions{ProducerID: id, LeaderEpoch: -1}
	}
	log := slices.Concat(batchOf(t, of(7), 10, "foreign", "foreign"), batchOf(t, of(-1), 12, "nobody's"), batchOf(t, of(8), 13, "own", "own"),
		batchOf(t, of(7), 15, "foreign"), batchOf(t, of(9), 16, "unknown"), batchOf(t, of(8), 17, "own"), batchOf(t, of(11), 18, "unknown"), batchOf(t, of(9), 19, "unknown"))
	o := testOrigins(&mapTopic{})
	o.verdicts[7], o.verdicts[8] = true, false
	c, err := climb(log, 11, nil, ladderLimits{inflate: 1 << 20, origins: o})
	if err != nil {
		t.Fatal(err)
	}
	want := []string{"raw 12+1", "raw 13+2", "drop/loop 1", "drop/loop 1", "next 16"}
	if got := c.steps(t); !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
	if !slices.Equal(c.unknown, []int64{9, 11}) {
		t.Errorf("asks for %v, want 9 and 11", c.unknown)
	}
	o.verdicts[9], o.verdicts[11] = true, false
	c, err = climb(log, 16, nil, ladderLimits{inflate: 1 << 20, origins: o})
	if got, want := c.steps(t), []string{"raw 17+1", "raw 18+1", "drop/loop 1", "drop/loop 1", "next 20"}; err != nil || len(c.unknown) > 0 || !slices.Contains(got, want[1]) || got[len(got)-1] != "next 20" {
		t.Errorf("got %q, %v, asks for %v; want %q", got, err, c.unknown, want)
	}
}

// A lane waits while nobody can tell, and goes on when somebody can.
func TestALaneWaitsUntilItIsKnownWhoWrote(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		source := &mapTopic{fails: errors.New("no leader")}
		o := testOrigins(source)
		ctx, stop := context.WithCancel(t.Context())
		defer synctest.Wait()
		defer stop()
		go o.Run(ctx)
		if err := o.ready(ctx); err != nil {
			t.Fatal(err)
		}
		lanes := make([]*lane, 3)
		for i := range lanes {
			lanes[i] = newLane(checkpoint.Key{}, "t", [16]byte{}, 3, 0, origin{0, 0}, func() ladderLimits { return ladderLimits{} })
		}
		o.ask(lanes[0], []int64{7, 8})
		o.ask(lanes[1], []int64{9})
		time.Sleep(time.Minute)
		if _, a := lanes[0].wants(); a != resting {
			t.Errorf("while nobody can tell, the lane is %v, want resting", a)
		}
		synctest.Wait()
		if lanes[0].progress(time.Now()).blocked == "" {
			t.Error("the lane does not say what it waits for")
		}
		source.say(checkpoint.Provenance{Flow: "west->east", ProducerID: 7, Source: "W", KeepsNames: true})
		source.fail(nil)
		time.Sleep(10 * time.Second)
		for i, l := range lanes {
			if _, a := l.wants(); a != hungry {
				t.Errorf("lane %d is %v, want hungry", i, a)
			}
		}
		for id, want := range map[int64]bool{7: true, 8: false, 9: false} {
			if got, known := o.foreign(id); !known || got != want {
				t.Errorf("producer %d: foreign %v, known %v; want %v", id, got, known, want)
			}
		}
		source.say(checkpoint.Provenance{Flow: "hq->east", ProducerID: 10, Source: "H", KeepsNames: true})
		o.ask(lanes[2], []int64{10})
		synctest.Wait()
		if got, known := o.foreign(10); !known || got {
			t.Errorf("of a flow that is in no circle: foreign %v, known %v", got, known)
		}
	})
}

// While nothing can be found out, a lane that has ended is not kept.
func TestALaneThatHasEndedWaitsForNobody(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		source := &mapTopic{}
		o := testOrigins(source)
		o.clusters = func() map[string]string { return nil } // no cluster was ever seen
		source.say(checkpoint.Provenance{Flow: "x->y", ProducerID: 7, Source: "X", KeepsNames: true})
		ctx, stop := context.WithCancel(t.Context())
		defer synctest.Wait()
		defer stop()
		go o.Run(ctx)
		for range 100 { // attempt after attempt
			l := newLane(checkpoint.Key{}, "t", [16]byte{}, 3, 0, origin{0, 0}, func() ladderLimits { return ladderLimits{} })
			o.ask(l, []int64{7})
			time.Sleep(time.Minute)
			l.close()
		}
		time.Sleep(time.Minute)
		o.mu.RLock()
		defer o.mu.RUnlock()
		if n := len(o.waiting); n > 0 {
			t.Errorf("%d lanes are kept that have ended", n)
		}
	})
}

// A source without the topic says what is missing.
func TestWithoutTheMapTopicNothingCanBeFoundOut(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o := testOrigins(&mapTopic{})
		o.ensure = func(context.Context) error { return errors.New("may not create topics") }
		ctx, stop := context.WithCancel(t.Context())
		defer synctest.Wait()
		defer stop()
		go o.Run(ctx)
		if err := o.ready(ctx); err == nil || !slices.Contains([]string{err.Error()}, "the flow is in a circle, and whose records are whose stands in __kmirror_offset_map of its source: may not create topics") {
			t.Errorf("got %v", err)
		}
	})
}

// To ask who wrote a batch costs the raw path no memory.
func TestAskingWhoWroteAllocatesNothing(t *testing.T) {
	var log []byte
	o := testOrigins(&mapTopic{})
	for i := range int64(100) {
		log = append(log, batchOf(t, wire.BatchOptions{ProducerID: 1000 + i%7, LeaderEpoch: -1}, i, fmt.Sprint(i))...)
		o.verdicts[1000+i%7] = i%7 == 3
	}
	var c climbed
	round := func() {
		if err := c.climb(log, 0, nil, ladderLimits{inflate: 1 << 20, origins: o}); err != nil || c.next != 100 || len(c.unknown) > 0 {
			t.Fatalf("%v, next %d, unknown %v", err, c.next, c.unknown)
		}
	}
	round()
	if n := testing.AllocsPerRun(100, round); n > 0 {
		t.Errorf("%v allocations for 100 batches", n)
	}
}

// No batch bears a producer id that is not written down, each is written down once,
// and an id that was is not used for another cluster's records.
func TestAProducerIDIsWrittenDownBeforeItIsUsed(t *testing.T) {
	refused := errors.New("refused")
	var declared []string
	source, fails := "E", refused
	x := newFence(&topology.Flow{Name: "f"}, "life", nil, &producers{asking: make(chan struct{}, 1), initialise: func(context.Context) (int64, int16, error) { return 7, 0, nil }})
	x.mode.Store(int32(fenceDetect))
	x.source = func() string { return source }
	x.declare = func(_ context.Context, id int64, of string) error {
		declared = append(declared, fmt.Sprint(id, " ", of))
		return fails
	}
	if _, err := x.next(t.Context(), partitionID{Topic: "t"}); !errors.Is(err, refused) {
		t.Errorf("while it is not written down: got %v, want %v", err, refused)
	}
	fails = nil
	for n := range int32(3) {
		if p, err := x.next(t.Context(), partitionID{Topic: "t", Partition: n}); err != nil || p.ID != 7 {
			t.Errorf("got %+v, %v", p, err)
		}
	}
	if want := []string{"7 E", "7 E"}; !slices.Equal(declared, want) {
		t.Errorf("declared %q, want %q", declared, want)
	}
	source = "E-again"
	moved := (*movedError)(nil)
	if _, err := x.next(t.Context(), partitionID{Topic: "t"}); !errors.As(err, &moved) || !moved.Lost() {
		t.Errorf("of another source cluster: got %v, want the end of the life", err)
	}
	select {
	case err := <-x.fatal:
		if !errors.As(err, &moved) {
			t.Errorf("the life ends because of %v", err)
		}
	default:
		t.Error("the life goes on")
	}
}
