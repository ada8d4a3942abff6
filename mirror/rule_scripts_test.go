package mirror

import (
	"context"
	"encoding/binary"
	"errors"
	"net"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"

	"kmirror/checkpoint"
	"kmirror/internal/kafka"
	"kmirror/internal/wire"
	"kmirror/topology"
)

// onAndOff runs a script with its rule and without.
func onAndOff(t *testing.T, fn func(t *testing.T, off bool)) {
	t.Run("on", func(t *testing.T) { fn(t, false) })
	t.Run("off", func(t *testing.T) { fn(t, true) })
}

func wantHalt(t *testing.T, err error, kind string) {
	t.Helper()
	if halt := (*haltError)(nil); !errors.As(err, &halt) || halt.kind != kind {
		t.Errorf("got %v, want a halt with %s", err, kind)
	}
}

// creditsAnyID is rule 1 off: the producer id that an expired transactional id
// hands out passes for the one that was written down.
type creditsAnyID struct {
	ruleTarget
	id       string
	was, got kafka.Producer
}

func (p *creditsAnyID) InitProducer(ctx context.Context, id string, current kafka.Producer) (kafka.Producer, error) {
	got, err := p.ruleTarget.InitProducer(ctx, id, current)
	if id != p.id || err != nil {
		return got, err
	}
	p.got = got
	return kafka.Producer{ID: p.was.ID, Epoch: got.Epoch + 1}, nil
}

func (p *creditsAnyID) truly(id string, who kafka.Producer) kafka.Producer {
	if id == p.id {
		return p.got
	}
	return who
}

func (p *creditsAnyID) AddPartitions(ctx context.Context, id string, who kafka.Producer, partitions []kafka.TopicPartition) (map[kafka.TopicPartition]error, error) {
	return p.ruleTarget.AddPartitions(ctx, id, p.truly(id, who), partitions)
}

func (p *creditsAnyID) EndTransaction(ctx context.Context, id string, who kafka.Producer, commit bool) (kafka.Producer, error) {
	return p.ruleTarget.EndTransaction(ctx, id, p.truly(id, who), commit)
}

func (p *creditsAnyID) Fetch(ctx context.Context, topic string, partition int32, offset int64, maxBytes int32, committed bool, maxWait time.Duration) (kafka.FetchResult, error) {
	res, err := p.ruleTarget.Fetch(ctx, topic, partition, offset, maxBytes, committed, maxWait)
	if maxWait == markerWait {
		res.Records = markersAs(res.Records, p.was.ID)
	}
	return res, err
}

// markersAs is a marker of a producer for each marker of anyone, and nothing else.
func markersAs(records []byte, producer int64) (out []byte) {
	for rest := records; len(rest) > 0; {
		b, after, err := wire.NextBatch(rest)
		if err != nil {
			return out
		}
		rest = after
		if b.IsControl() {
			m := simMarker(kafka.Producer{ID: producer, Epoch: 32000})
			m.SetBaseOffset(b.BaseOffset())
			out = append(out, m...)
		}
	}
	return out
}

// TestRule1: a dead owner's transactional id has expired, and a batch of it is
// under way still. Its successor is given another producer id, whose marker
// stops nobody.
func TestRule1FenceCountsForItsIDOnly(t *testing.T) {
	onAndOff(t, func(t *testing.T, off bool) {
		playRule(t, ruleSource(0, 2, 4, 6), nil, func(t *testing.T, w *ruleWorld) {
			a := w.live("a", rulePort{w}, endless)
			a.mustTake(t)
			a.mirror(t, 1)
			late := a.send(t)
			w.die(a)
			w.coordinator.expire(a.fence.id)
			var target ruleTarget = rulePort{w}
			if off {
				target = &creditsAnyID{ruleTarget: target, id: a.fence.id, was: a.fence.now}
			}
			b := w.live("b", target, endless)
			err := b.take()
			if !off {
				wantHalt(t, err, KindFenceLost)
				if _, err := w.land(late); err != nil || w.doubled() > 0 {
					t.Errorf("the late batch: %v, %d records stand twice", err, w.doubled())
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			b.mirror(t, 9)
			_, _ = w.land(late)
			w.wantHole(t)
		})
	})
}

// blindToMarkers is rule 11 off: it takes a marker for seen, at once or when
// somebody's was.
type blindToMarkers struct {
	ruleTarget
	anyones bool
	who     int64
}

func (p *blindToMarkers) InitProducer(ctx context.Context, id string, current kafka.Producer) (kafka.Producer, error) {
	got, err := p.ruleTarget.InitProducer(ctx, id, current)
	p.who = got.ID
	return got, err
}

func (p *blindToMarkers) Fetch(ctx context.Context, topic string, partition int32, offset int64, maxBytes int32, committed bool, maxWait time.Duration) (kafka.FetchResult, error) {
	switch {
	case maxWait != markerWait:
	case p.anyones:
		res, err := p.ruleTarget.Fetch(ctx, topic, partition, offset, maxBytes, committed, maxWait)
		res.Records = markersAs(res.Records, p.who)
		return res, err
	default:
		m := simMarker(kafka.Producer{ID: p.who, Epoch: 32000})
		m.SetBaseOffset(offset)
		return kafka.FetchResult{Records: m}, nil
	}
	return p.ruleTarget.Fetch(ctx, topic, partition, offset, maxBytes, committed, maxWait)
}

// TestRule11: the marker over the partition is written seconds after EndTxn has
// answered. Somebody else's comes first, then a late batch of the dead owner.
func TestRule11WaitForTheRightMarkerThenRead(t *testing.T) {
	for name, before := range map[string]func(ruleTarget) ruleTarget{
		"on":                     nil,
		"off: no wait":           func(p ruleTarget) ruleTarget { return &blindToMarkers{ruleTarget: p} },
		"off: anybody's is good": func(p ruleTarget) ruleTarget { return &blindToMarkers{ruleTarget: p, anyones: true} },
	} {
		t.Run(name, func(t *testing.T) {
			playRule(t, ruleSource(0, 2, 4, 6), nil, func(t *testing.T, w *ruleWorld) {
				a := w.live("a", rulePort{w}, endless)
				a.mustTake(t)
				a.mirror(t, 1)
				late := a.send(t)
				w.die(a)
				w.late = true
				w.all.Go(func() {
					time.Sleep(time.Second)
					w.mu.Lock()
					w.target(0).store(simMarker(kafka.Producer{ID: 77, Epoch: 3}))
					w.target(0).replicate()
					w.mu.Unlock()
					time.Sleep(time.Second)
					if _, err := w.land(late); err != nil {
						t.Errorf("the late batch: %v", err)
					}
					time.Sleep(time.Second)
					w.settle()
					if _, err := w.land(late); before == nil && !errors.Is(err, kerr.InvalidProducerEpoch) {
						t.Errorf("after the marker: %v", err)
					}
				})
				var target ruleTarget = rulePort{w}
				if before != nil {
					target = before(target)
				}
				b := w.live("b", target, endless)
				b.mustTake(t)
				b.mirror(t, 9)
				time.Sleep(10 * time.Second)
				if before == nil {
					w.wantAll(t)
				} else {
					w.wantHole(t)
				}
			})
		})
	}
}

// openLedger is rule 12 off: the ledger's partitions are in no fence.
type openLedger struct{ blindToMarkers }

func (p *openLedger) AddPartitions(ctx context.Context, id string, who kafka.Producer, partitions []kafka.TopicPartition) (map[kafka.TopicPartition]error, error) {
	if partitions[0].Topic == checkpoint.MapTopic {
		return nil, nil
	}
	return p.ruleTarget.AddPartitions(ctx, id, who, partitions)
}

func (p *openLedger) EndTransaction(ctx context.Context, id string, who kafka.Producer, commit bool) (kafka.Producer, error) {
	after, err := p.ruleTarget.EndTransaction(ctx, id, who, commit)
	if errors.Is(err, kerr.InvalidTxnState) { // there is none
		return who, nil
	}
	return after, err
}

// holds is a way to the target on which the n-th batch lies until gate is closed.
type holds struct {
	ruleTarget
	n    int
	gate chan struct{}
}

func (p *holds) Produce(ctx context.Context, topic string, partition int32, batch wire.Batch) (int64, error) {
	if p.n--; p.n == 0 {
		<-p.gate
	}
	return p.ruleTarget.Produce(ctx, topic, partition, batch)
}

// TestRule12: a frozen machine, whose clock stood still, has its note that it
// owns the partition under way while its successor reads who owns it. When the
// note is taken it believes what it read before, and writes.
func TestRule12LedgerIsFencedAsWell(t *testing.T) {
	onAndOff(t, func(t *testing.T, off bool) {
		playRule(t, ruleSource(0, 2, 4), nil, func(t *testing.T, w *ruleWorld) {
			way := &holds{rulePort{w}, 2, make(chan struct{})} // after the identity comes the note
			a := w.live("a", way, endless)
			took := make(chan error, 1)
			w.all.Go(func() { took <- a.take() })
			synctest.Wait()
			if len(took) > 0 {
				t.Fatalf("the note was not under way: %v", <-took)
			}
			w.die(a)
			var target ruleTarget = rulePort{w}
			if off {
				target = &openLedger{blindToMarkers{ruleTarget: target}}
			}
			b := w.live("b", target, endless)
			b.mustTake(t)
			b.mirror(t, 9)
			close(way.gate)
			if !off {
				if err := <-a.fence.fatal; !errors.As(err, new(*fencedError)) {
					t.Errorf("the note: %v", err)
				}
				w.wantAll(t)
				w.stop() // it is for the life to end whoever waits
				if err := <-took; err == nil {
					t.Error("the note was taken")
				}
				return
			}
			if err := <-took; err != nil {
				t.Fatal(err)
			}
			a.mirror(t, 1)
			w.wantHole(t)
		})
	})
}

// TestRule14: the ledger has lost its last step, so that the last batch seems to
// carry source offsets at which the source holds nothing to compare.
func TestRule14IncomparableSeamIsADoubt(t *testing.T) {
	onAndOff(t, func(t *testing.T, off bool) {
		edit := func(f *topology.Flow) {
			if off {
				f.Policies.SeamUnverified = topology.LossContinue
			}
		}
		playRule(t, ruleSource(0, 2, 20, 22, 24), edit, func(t *testing.T, w *ruleWorld) {
			a := w.live("a", rulePort{w}, endless)
			a.mustTake(t)
			a.mirror(t, 2)
			books := w.logs[kafka.TopicPartition{Topic: checkpoint.MapTopic, Partition: a.key.MapPartition()}]
			end := books.end
			a.mirror(t, 1)
			if books.end != end+1 {
				t.Fatalf("%d records were written to the ledger, want the step", books.end-end)
			}
			books.truncate(end)
			books.epoch++ // which takes an election
			w.die(a)
			b := w.live("b", rulePort{w}, endless)
			err := b.take()
			if !off {
				wantHalt(t, err, KindSeamUnverified)
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			b.mirror(t, 9)
			w.wantHole(t)
		})
	})
}

// TestRule10: an epoch has given away almost all sequences of which the ledger
// can say what they mean.
func TestRule10NewEpochBeforeTheSequenceWraps(t *testing.T) {
	const near = lastSequence - 4
	onAndOff(t, func(t *testing.T, off bool) {
		playRule(t, ruleSource(near, near+2, near+4, near+6, near+8), nil, func(t *testing.T, w *ruleWorld) {
			a := w.live("a", rulePort{w}, endless)
			a.greedy = off
			a.mustTake(t)
			a.lane.nextSequence, a.lane.nextSource, a.lane.fetch = near, near, near // what was mirrored since has expired
			a.mirror(t, 9)
			if !a.lane.spent() {
				t.Error("the epoch is not spent")
			}
			if !off {
				if last := w.target(0).producers[a.lane.producer].last; last[len(last)-1].last != lastSequence-1 {
					t.Errorf("the last sequence is %v", last)
				}
				a.fence.settled(a.id) // the lane is clean
				a.mustTake(t)
				a.mirror(t, 9)
			}
			w.die(a)
			b := w.live("b", rulePort{w}, endless)
			err := b.take()
			if unanchored := (*checkpoint.UnanchoredError)(nil); off != errors.As(err, &unanchored) || !off && err != nil {
				t.Errorf("the successor: %v", err)
			}
			if !off {
				w.wantAll(t)
			}
		})
	})
}

// ruleBroker takes batches by the wire.
type ruleBroker struct {
	t *testing.T
	w *ruleWorld
}

func (s *ruleBroker) connect(ctx context.Context, _ int32) (*wire.Conn, error) {
	ours, theirs := net.Pipe()
	s.w.all.Go(func() { s.serve(theirs) })
	d := wire.Dialer{Dial: func(context.Context, string, string) (net.Conn, error) { return ours, nil }}
	return d.Connect(ctx, "target:9092")
}

func (s *ruleBroker) serve(nc net.Conn) {
	defer func() { _ = nc.Close() }()
	for {
		frame, err := wire.ReadFrame(nc, nil, 1<<24)
		if err != nil {
			return
		}
		h, rest, err := wire.ParseRequestHeader(frame)
		if err != nil {
			s.t.Error(err)
			return
		}
		var body []byte
		if h.Key == 18 {
			resp := kmsg.NewPtrApiVersionsResponse()
			resp.SetVersion(h.Version)
			resp.ApiKeys = []kmsg.ApiVersionsResponseApiKey{{ApiKey: 0, MinVersion: 3, MaxVersion: 12}, {ApiKey: 18, MaxVersion: 4}}
			body = resp.AppendTo(nil)
		} else {
			req := kmsg.NewPtrProduceRequest()
			req.SetVersion(h.Version)
			if err := req.ReadFrom(rest); err != nil {
				s.t.Error(err)
				return
			}
			rp := kmsg.NewProduceResponseTopicPartition()
			b, _, err := wire.NextBatch(req.Topics[0].Partitions[0].Records)
			if err == nil {
				rp.BaseOffset, err = s.w.land(b)
			}
			if code := (*kerr.Error)(nil); errors.As(err, &code) {
				rp.ErrorCode = code.Code
			}
			rt := kmsg.NewProduceResponseTopic()
			rt.Topic, rt.Partitions = "t", append(rt.Partitions, rp)
			resp := kmsg.NewPtrProduceResponse()
			resp.SetVersion(h.Version)
			resp.Topics = append(resp.Topics, rt)
			body = resp.AppendTo(nil)
		}
		out := wire.AppendResponseHeader([]byte{0, 0, 0, 0}, h.Key, h.Version, h.CorrelationID)
		out = append(out, body...)
		binary.BigEndian.PutUint32(out, uint32(len(out)-4))
		if _, err := nc.Write(out); err != nil {
			return
		}
	}
}

// TestRule7: an owner with a batch queued is stopped for two days, and the marker
// that ended it is forgotten. It wakes up and would send, to the target and to
// the ledger.
func TestRule7PausedPastTheLeaseSendsNothing(t *testing.T) {
	onAndOff(t, func(t *testing.T, off bool) {
		playRule(t, ruleSource(0, 2, 4), nil, func(t *testing.T, w *ruleWorld) {
			lease := ruleLease(30 * time.Second)
			if off {
				lease = endless
			}
			a := w.live("a", rulePort{w}, lease)
			a.mustTake(t)
			m, err := newMetrics(prometheus.NewRegistry())
			if err != nil {
				t.Fatal(err)
			}
			sender := newAppender(&appender{
				metrics: flowMetrics{m, "f"}, stale: func() {}, log: w.log, alive: lease, connect: (&ruleBroker{t, w}).connect,
			})
			w.all.Go(func() { sender.Run(w.ctx) })
			sender.add(&appending{lane: a.lane, acked: func([]checkpoint.Run, int64, int64) {}})
			a.fetch(t)
			sender.rouse()
			time.Sleep(time.Second)
			if ours := w.written(); ours != 2 {
				t.Fatalf("the owner has written %d records, want 2", ours)
			}
			w.die(a)
			b := w.live("b", rulePort{w}, endless)
			b.mustTake(t)
			b.mirror(t, 9)
			time.Sleep(48 * time.Hour)
			w.mu.Lock()
			for _, log := range w.logs {
				log.forget()
			}
			w.mu.Unlock()
			a.fetch(t)
			sender.rouse()
			time.Sleep(time.Minute)
			_, err = a.fence.Append(w.ctx, checkpoint.MapTopic, a.key.MapPartition(), []wire.Record{checkpoint.EncodeAnchor(checkpoint.Anchor{
				Key: a.key, ProducerID: a.lane.producer, Epoch: a.lane.epoch, Steps: []checkpoint.Step{{Sequence: 2, Source: 9}},
			})})
			if over := (*leaseError)(nil); errors.As(err, &over) == off {
				t.Errorf("the ledger: %v", err)
			}
			if off {
				w.wantHole(t)
			} else {
				w.wantAll(t)
			}
		})
	})
}
