package mirror

import (
	"slices"
	"testing"
	"time"

	"kmirror/checkpoint"
	"kmirror/internal/kafka"
	"kmirror/internal/wire"
	"kmirror/topology"
)

// books is the log that the ledger of a life's partition stands in.
func (l *ruleLife) books() *simLog {
	return l.w.logs[kafka.TopicPartition{Topic: checkpoint.MapTopic, Partition: l.key.MapPartition()}]
}

// elect gives the ledger a leader whose log ends at an offset.
func (l *ruleLife) elect(end int64) {
	l.books().truncate(end)
	l.books().epoch++
}

// rewrite writes the steps once more that a lane writes when the ledger's leader changes.
func (l *ruleLife) rewrite(t *testing.T) {
	t.Helper()
	anchor := checkpoint.Anchor{Key: l.key, ProducerID: l.lane.producer, Epoch: l.lane.epoch, Steps: l.lane.landmarks()}
	b, err := wire.EncodeBatch(nil, []wire.Record{checkpoint.EncodeAnchor(anchor)}, wire.Plain(wire.CodecNone))
	if err != nil {
		t.Fatal(err)
	}
	l.books().store(b)
	l.books().replicate()
}

// TestLedgerThatLostAStepInItsMidst: an unclean election took a step of the ledger,
// and the live owner wrote only what its newest batch needs again. So the last batch
// fits the source; the one before does not.
func TestLedgerThatLostAStepInItsMidst(t *testing.T) {
	marked := ruleSource(0, 2)
	marked.batches = append(marked.batches, controlBatch(4, 900, false))
	behind := ruleSource(5, 7, 20)
	marked.batches, marked.want, marked.end = append(marked.batches, behind.batches...), append(marked.want, behind.want...), behind.end
	for name, tt := range map[string]struct {
		source *simSource
		marker bool
		kind   string
	}{
		"a marker stands at the lost step": {marked, true, KindSeamMismatch},
		"nothing does":                     {ruleSource(0, 2, 20, 22, 40), false, KindSeamUnverified},
	} {
		t.Run(name, func(t *testing.T) {
			playRule(t, tt.source, nil, func(t *testing.T, w *ruleWorld) {
				a := w.live("a", rulePort{w}, endless)
				a.mustTake(t)
				a.mirror(t, 2)
				if tt.marker {
					a.fetch(t)
				}
				end := a.books().end
				a.mirror(t, 3)
				if a.books().end != end+2 {
					t.Fatalf("%d records were written to the ledger, want two steps", a.books().end-end)
				}
				a.elect(end)
				a.rewrite(t)
				w.die(a)
				wantHalt(t, w.live("b", rulePort{w}, endless).take(), tt.kind)
			})
		})
	}
}

// TestRetentionAsksTheSeam: the owner dies before the map holds what it mirrored, and
// the source's retention takes all of that and more. Where nothing can have been lost
// of the ledger since, it goes on; else it stops.
func TestRetentionAsksTheSeam(t *testing.T) {
	for name, tt := range map[string]struct {
		harm func(a *ruleLife, end int64)
		stop bool
	}{
		"the ledger's leader is the same": {func(*ruleLife, int64) {}, false},
		"it is another one":               {func(a *ruleLife, _ int64) { a.elect(a.books().end) }, true},
		"the ledger lost its end":         {func(a *ruleLife, end int64) { a.elect(end) }, true},
	} {
		for _, policy := range []topology.OnLoss{topology.LossStop, topology.LossContinue} {
			t.Run(name+", "+string(policy), func(t *testing.T) {
				edit := func(f *topology.Flow) {
					f.Policies.RetentionLoss, f.Policies.SeamUnverified = topology.LossContinue, policy
				}
				source := ruleSource(0, 2, 20, 22, 24)
				playRule(t, source, edit, func(t *testing.T, w *ruleWorld) {
					source.start = 0
					a := w.live("a", rulePort{w}, endless)
					a.mustTake(t)
					a.mirror(t, 2)
					end := a.books().end
					a.mirror(t, 1)
					tt.harm(a, end)
					w.die(a)
					source.retain(24)
					b := w.live("b", rulePort{w}, endless)
					err := b.take()
					if tt.stop && policy == topology.LossStop {
						wantHalt(t, err, KindSeamUnverified)
						return
					}
					if err != nil {
						t.Fatal(err)
					}
					if b.lane.nextSource != 24 {
						t.Errorf("it goes on at %d, want 24", b.lane.nextSource)
					}
					if told := w.reported(0, KindSeamUnverified); told != tt.stop || !w.reported(0, KindRetentionLoss) {
						t.Errorf("in doubt: %v, want %v; %+v", told, tt.stop, w.incidents)
					}
				})
			})
		}
	}
}

// TestSeamReadsOnce: hundreds of batches that the map does not hold cost one reading
// of the source, in answers of bounded size, and are not opened where they are the
// source's own.
func TestSeamReadsOnce(t *testing.T) {
	source, target := &modelLog{}, &modelLog{}
	ledger := ledgerOf(checkpoint.Anchor{ProducerID: 5, Steps: []checkpoint.Step{{}}})
	large := string(make([]byte, 8<<10))
	for i := range int32(600) {
		b := batchOf(t, wire.Plain(wire.CodecNone), 0, large)
		if b = slices.Clone(b); i%2 == 0 {
			b[len(b)-1] = 9 // what is sealed in it cannot be opened
			b[wire.BatchHeaderSize] = 0xff
			reseal(b)
		}
		source.store(b)
		b.Rewrite(wire.HeaderEdit{ProducerID: 5, BaseSequence: i})
		if _, err := target.append(b); err != nil {
			t.Fatal(err)
		}
	}
	counted := &countedReader{partitionReader: source}
	st, _ := standOn(t, target, ledger)
	if st.unmapped != 600 {
		t.Fatalf("%d batches are not in the map, want 600", st.unmapped)
	}
	s := &seam{source: newCursor(counted, "s", 0, source.end), target: "t"}
	err := st.tail.walk(t.Context(), target, "t", 0, func(b wire.Batch, carries []checkpoint.Run, _ bool) error {
		open, err := s.compare(t.Context(), b, carries)
		if len(open) > 0 {
			t.Errorf("%v is in doubt", open)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	if want := 600*(8<<10+100)/scanBytes + 2; counted.fetches > want {
		t.Errorf("%d fetches, want %d at most", counted.fetches, want)
	}
}

// TestAnOrdinaryTakeoverReadsLittle: with one batch that the map does not hold, or
// none, one answer of the source is all that the seam asks for.
func TestAnOrdinaryTakeoverReadsLittle(t *testing.T) {
	source := ruleSource(0, 2, 4, 6)
	playRule(t, source, nil, func(t *testing.T, w *ruleWorld) {
		a := w.live("a", rulePort{w}, endless)
		a.mustTake(t)
		a.mirror(t, 1)
		w.die(a)
		b := w.live("b", rulePort{w}, endless)
		counted := &countedReader{partitionReader: b.takeover.source}
		b.takeover.source = counted
		b.mustTake(t)
		if counted.fetches != 1 {
			t.Errorf("%d fetches from the source", counted.fetches)
		}
	})
}

// TestTwoReasonsToStop: what the operator accepted is not asked for again when the
// partition stops for another reason before it begins; but it is when it has begun.
func TestTwoReasonsToStop(t *testing.T) {
	source := ruleSource(0, 2, 20, 22, 24)
	playRule(t, source, nil, func(t *testing.T, w *ruleWorld) {
		source.start = 0
		a := w.live("a", rulePort{w}, endless)
		a.mustTake(t)
		a.mirror(t, 2)
		a.elect(a.books().end)
		w.die(a)
		source.retain(24)
		b := w.live("b", rulePort{w}, endless)
		word := ""
		b.takeover.accepted = func(_ partitionID, kind string) bool {
			said := kind == word
			if said { // it is used up
				word = ""
			}
			return said
		}
		wantHalt(t, b.take(), KindRetentionLoss)
		word = KindRetentionLoss
		wantHalt(t, b.take(), KindSeamUnverified)
		time.Sleep(time.Minute)
		word = KindSeamUnverified
		b.mustTake(t)
		wantHalt(t, b.take(), KindRetentionLoss)
	})
}
