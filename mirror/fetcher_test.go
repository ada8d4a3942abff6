package mirror

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"net"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"

	"kmirror/checkpoint"
	"kmirror/internal/wire"
)

// script is a source broker that answers as a test wants. It lives on a pipe, so
// that a bubble's clock moves while a long poll waits.
type script struct {
	t       *testing.T
	newest  int16
	respond func(n int, far bool, req *kmsg.FetchRequest) (body []byte, after time.Duration) // nil: it closes

	mu    sync.Mutex
	asked []*kmsg.FetchRequest
	all   sync.WaitGroup
}

// connect is a fetcher's way to the script.
func (s *script) connect(ctx context.Context, _ int32) (*wire.Conn, error) {
	ours, theirs := net.Pipe()
	s.all.Go(func() { s.serve(theirs) })
	d := wire.Dialer{Dial: func(context.Context, string, string) (net.Conn, error) { return ours, nil }}
	return d.Connect(ctx, "source:9092")
}

func (s *script) serve(nc net.Conn) {
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
			resp.ApiKeys = []kmsg.ApiVersionsResponseApiKey{{ApiKey: 1, MinVersion: 4, MaxVersion: s.newest}, {ApiKey: 18, MaxVersion: 4}}
			body = resp.AppendTo(nil)
		} else {
			req := kmsg.NewPtrFetchRequest()
			req.SetVersion(h.Version)
			if err := req.ReadFrom(rest); err != nil {
				s.t.Errorf("request: %v", err)
				return
			}
			s.mu.Lock()
			n := len(s.asked)
			s.asked = append(s.asked, req)
			s.mu.Unlock()
			var after time.Duration
			if body, after = s.respond(n, req.MaxWaitMillis == int32(fetchWaitFar/time.Millisecond), req); body == nil {
				return
			}
			time.Sleep(after)
		}
		out := wire.AppendResponseHeader([]byte{0, 0, 0, 0}, h.Key, h.Version, h.CorrelationID)
		out = append(out, body...)
		binary.BigEndian.PutUint32(out, uint32(len(out)-4))
		if _, err := nc.Write(out); err != nil {
			return
		}
	}
}

func (s *script) requests() []*kmsg.FetchRequest {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.asked)
}

// logSource answers fetches from model logs, with sessions as KIP-227 has them.
type logSource struct {
	mu      sync.Mutex
	logs    map[int32]*modelLog
	cache   map[int32]map[int32]int64 // session id: partition: offset
	epochs  map[int32]int32
	nextID  int32
	told    map[int32]map[int32]int64 // the end that was told
	noCache bool
	spoil   func(body []byte) []byte
}

func newLogSource(partitions int) *logSource {
	s := &logSource{logs: map[int32]*modelLog{}, cache: map[int32]map[int32]int64{}, epochs: map[int32]int32{}, told: map[int32]map[int32]int64{}}
	for p := range partitions {
		s.logs[int32(p)] = &modelLog{}
	}
	return s
}

func (s *logSource) append(partition int32, b wire.Batch) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.logs[partition].store(b)
}

func (s *logSource) respond(_ int, _ bool, req *kmsg.FetchRequest) ([]byte, time.Duration) {
	s.mu.Lock()
	defer s.mu.Unlock()
	resp := kmsg.NewPtrFetchResponse()
	resp.SetVersion(req.Version)
	id := req.SessionID
	named := map[int32]int64{}
	for _, rt := range req.Topics {
		for _, rp := range rt.Partitions {
			named[rp.Partition] = rp.FetchOffset
		}
	}
	full := req.Version < 7 || req.SessionEpoch <= 0
	switch {
	case full && s.noCache, req.Version < 7:
		id = 0
	case full:
		delete(s.cache, id)
		s.nextID++
		id = s.nextID
		s.cache[id], s.epochs[id], s.told[id] = map[int32]int64{}, 1, map[int32]int64{}
	case s.cache[id] == nil:
		resp.ErrorCode = kerr.FetchSessionIDNotFound.Code
		return resp.AppendTo(nil), 0
	case s.epochs[id] != req.SessionEpoch:
		resp.ErrorCode = kerr.InvalidFetchSessionEpoch.Code
		return resp.AppendTo(nil), 0
	default:
		s.epochs[id]++
	}
	want := named
	if id != 0 {
		want = s.cache[id]
		for p, offset := range named {
			if _, ok := want[p]; !ok {
				delete(s.told[id], p)
			}
			want[p] = offset
		}
		for _, ft := range req.ForgottenTopics {
			for _, p := range ft.Partitions {
				delete(want, p)
				delete(s.told[id], p)
			}
		}
	}
	resp.SessionID = id
	rt := kmsg.NewFetchResponseTopic()
	rt.Topic, rt.TopicID = "t", [16]byte{7}
	some := false
	for p := range int32(len(s.logs)) {
		offset, ok := want[p]
		if !ok {
			continue
		}
		l := s.logs[p]
		rp := kmsg.NewFetchResponseTopicPartition()
		rp.Partition, rp.HighWatermark, rp.LastStableOffset, rp.LogStartOffset = p, l.end, l.end, l.start
		for _, a := range l.abortedFrom(offset) {
			at := kmsg.NewFetchResponseTopicPartitionAbortedTransaction()
			at.ProducerID, at.FirstOffset = a.producer, a.first
			rp.AbortedTransactions = append(rp.AbortedTransactions, at)
		}
		res, _ := l.Fetch(context.Background(), "t", p, offset, 4000, true, 0)
		rp.RecordBatches = res.Records
		told, known := int64(-1), false
		if id != 0 {
			told, known = s.told[id][p]
			s.told[id][p] = l.end
		}
		if full || len(res.Records) > 0 || !known || told != l.end {
			rt.Partitions = append(rt.Partitions, rp)
		}
		some = some || len(res.Records) > 0
	}
	if len(rt.Partitions) > 0 {
		resp.Topics = append(resp.Topics, rt)
	}
	body := resp.AppendTo(nil)
	if s.spoil != nil {
		body = s.spoil(body)
	}
	if some {
		return body, 0
	}
	return body, time.Duration(req.MaxWaitMillis) * time.Millisecond
}

// sourceBench is a fetcher on a script, whose lanes are emptied by the test.
type sourceBench struct {
	t       *testing.T
	budget  *budget
	fetcher *fetcher
	script  *script
	lanes   []*lane
	drained [][]wire.Record
	ends    []int64
}

func newSourceBench(t *testing.T, partitions int, newest int16, respond func(int, bool, *kmsg.FetchRequest) ([]byte, time.Duration)) *sourceBench {
	t.Helper()
	m, err := newMetrics(prometheus.NewRegistry())
	if err != nil {
		t.Fatal(err)
	}
	b := &sourceBench{t: t, budget: newBudget(0), script: &script{t: t, newest: newest, respond: respond}}
	b.fetcher = newFetcher(&fetcher{
		connect: b.script.connect, budget: b.budget, stale: func() {}, filled: func() {},
		ledger: func(steps []ledgerStep) {
			for _, s := range steps {
				s.lane.open(s.gate)
			}
		},
		metrics: flowMetrics{m, "f"}, log: slog.New(slog.DiscardHandler),
	})
	for p := range partitions {
		l := newLane(checkpoint.Key{Partition: int32(p)}, "t", [16]byte{}, 7, 0, origin{0, 0}, func() ladderLimits { return ladderLimits{inflate: 1 << 20} })
		b.lanes, b.drained, b.ends = append(b.lanes, l), append(b.drained, nil), append(b.ends, 0)
		id := [16]byte{7}
		if newest < 13 {
			id = [16]byte{}
		}
		b.fetcher.add(&fetching{lane: l, topic: "t", id: id, partition: int32(p), leaderEpoch: -1, settled: func() { l.settled() }})
	}
	return b
}

// drain takes all that waits in a lane, as a target that acknowledges at once.
func (b *sourceBench) drain(p int) {
	l := b.lanes[p]
	for {
		e, ok, _ := l.sendable(time.Now())
		if !ok {
			return
		}
		recs, err := e.batch.Records(1 << 20)
		if err == nil {
			err = e.batch.CheckCRC()
		}
		if err != nil {
			b.t.Error(err)
		}
		for i := range recs {
			b.drained[p] = append(b.drained[p], ownRecord(&recs[i])) // the slab is used again
		}
		base := b.ends[p]
		b.ends[p] += int64(e.batch.NumRecords())
		l.ack(base)
		l.recorded()
	}
}

// run fetches in a bubble until play returns.
func (b *sourceBench) run(play func()) {
	ctx, stop := context.WithCancel(b.t.Context())
	var running sync.WaitGroup
	running.Go(func() { b.fetcher.Run(ctx) })
	play()
	stop()
	running.Wait()
	b.script.all.Wait()
	for p := range b.lanes {
		b.drain(p)
		b.lanes[p].abandon()
	}
	if n := b.budget.inUse(); n != 0 {
		b.t.Errorf("%d bytes are charged after the end", n)
	}
}

func oneRecord(t *testing.T, value string) wire.Batch {
	t.Helper()
	b, err := wire.EncodeBatch(nil, []wire.Record{{Value: []byte(value), Timestamp: 1000}}, wire.Plain(wire.CodecNone))
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// TestFetchSession: over every layout of the protocol, with and without a cache
// at the broker, sessions lost and answers spoilt: every record comes once, in
// order; and in step, requests name only what changed.
func TestFetchSession(t *testing.T) {
	for _, newest := range []int16{4, 6, 7, 11, 12, 13, 17} {
		for _, trouble := range []string{"", "no cache", "forgetful", "cut", "closes"} {
			t.Run(fmt.Sprintf("v%d %s", newest, trouble), func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					const partitions, rounds = 20, 30
					source := newLogSource(partitions)
					source.noCache = trouble == "no cache"
					r := rand.New(rand.NewPCG(uint64(newest), 1))
					b := newSourceBench(t, partitions, newest, func(n int, far bool, req *kmsg.FetchRequest) ([]byte, time.Duration) {
						if trouble == "forgetful" && n%7 == 3 {
							source.mu.Lock()
							clear(source.cache)
							source.mu.Unlock()
						}
						if trouble == "closes" && n%9 == 4 {
							return nil, 0
						}
						body, after := source.respond(n, far, req)
						if trouble == "cut" && n%9 == 4 {
							body = body[:n*7919%len(body)]
						}
						return body, after
					})
					var want [partitions]int
					b.run(func() {
						for round := range rounds {
							for range 3 {
								p := r.IntN(partitions)
								source.append(int32(p), oneRecord(t, fmt.Sprintf("%d", want[p])))
								want[p]++
							}
							time.Sleep(time.Second)
							if round == rounds-1 {
								time.Sleep(time.Minute) // past every pause
							}
							for p := range partitions {
								b.drain(p)
							}
						}
						time.Sleep(10 * time.Second)
						for p := range partitions {
							b.drain(p)
						}
					})
					for p := range partitions {
						if len(b.drained[p]) != want[p] {
							t.Errorf("partition %d: %d records of %d", p, len(b.drained[p]), want[p])
						}
						for i, rec := range b.drained[p] {
							if string(rec.Value) != fmt.Sprint(i) {
								t.Fatalf("partition %d: record %d is %s", p, i, rec.Value)
							}
						}
					}
					if trouble != "" || newest < 7 {
						return
					}
					asked := b.script.requests()
					named := 0
					for _, req := range asked[len(asked)/2:] {
						for _, rt := range req.Topics {
							named += len(rt.Partitions)
						}
						if len(req.Topics) > 0 && (req.Topics[0].TopicID != [16]byte{}) != (newest >= 13) {
							t.Fatalf("v%d names %+v", req.Version, req.Topics[0])
						}
					}
					if named > 3*rounds {
						t.Errorf("half of the requests name %d partitions, and %d records came in all", named, 3*rounds)
					}
				})
			})
		}
	}
}

// TestALaneThatGetsRoomIsAskedForAtOnce: a lane is full, others are idle in a
// long poll. The moment it has room it is fetched.
func TestALaneThatGetsRoomIsAskedForAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const batches = 800
		source := newLogSource(5)
		b := newSourceBench(t, 5, 17, source.respond)
		value := string(make([]byte, 60_000))
		for range batches {
			source.append(0, oneRecord(t, value))
		}
		b.run(func() {
			time.Sleep(5 * time.Second)
			for len(b.drained[0]) < batches {
				before := len(b.drained[0])
				b.drain(0)
				if len(b.drained[0]) == before {
					t.Errorf("nothing came at %d of %d", before, batches)
					return
				}
				time.Sleep(fetchWaitJoin) // far less than a long poll
			}
		})
	})
}

// TestLiveIsNotHeldUpByBacklog: a source whose large answers take long, as over a
// slow line, has one partition far behind. What is in step comes at once.
func TestLiveIsNotHeldUpByBacklog(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		source := newLogSource(2)
		b := newSourceBench(t, 2, 17, func(n int, far bool, req *kmsg.FetchRequest) ([]byte, time.Duration) {
			body, after := source.respond(n, far, req)
			if len(body) > 3000 {
				after = 2 * time.Second
			}
			return body, after
		})
		b.run(func() {
			time.Sleep(time.Second) // both are in step
			for range 500 {
				source.append(0, oneRecord(t, string(make([]byte, 1900))))
			}
			source.append(0, oneRecord(t, string(make([]byte, fetchLive)))) // and now one is not
			for i := range 20 {
				time.Sleep(3 * time.Second)
				b.drain(0)
				b.drain(1)
				source.append(1, oneRecord(t, fmt.Sprint(i)))
				time.Sleep(2 * fetchWaitJoin)
				b.drain(1)
				if len(b.drained[1]) != i+1 && i > 2 {
					t.Errorf("%d records of %d came within %v", len(b.drained[1]), i+1, 2*fetchWaitJoin)
					return
				}
			}
		})
	})
}

// TestNonsenseFromTheSource: whatever a broker answers, nothing panics, and what
// it says once it has come to its senses is mirrored.
func TestNonsenseFromTheSource(t *testing.T) {
	for seed := range uint64(40) {
		synctest.Test(t, func(t *testing.T) {
			r := rand.New(rand.NewPCG(seed, 5))
			source := newLogSource(3)
			mad := true
			var mu sync.Mutex
			b := newSourceBench(t, 3, 17, func(n int, far bool, req *kmsg.FetchRequest) ([]byte, time.Duration) {
				body, after := source.respond(n, far, req)
				mu.Lock()
				defer mu.Unlock()
				if !mad {
					return body, after
				}
				switch r.IntN(5) {
				case 0:
					body[r.IntN(min(40, len(body)))] ^= byte(1 << r.IntN(8)) // a length, a code, a session
				case 1:
					body = body[:r.IntN(len(body))]
				case 2:
					body = make([]byte, r.IntN(100))
				case 3:
					return nil, 0
				}
				return body, 10 * time.Millisecond
			})
			for p := range int32(3) {
				for i := range 10 {
					source.append(p, oneRecord(t, fmt.Sprint(i)))
				}
			}
			b.run(func() {
				time.Sleep(30 * time.Second)
				mu.Lock()
				mad = false
				mu.Unlock()
				time.Sleep(time.Minute)
				for p := range 3 {
					b.drain(p)
					select {
					case err := <-b.lanes[p].faults: // a tenure begins anew at that
						if errors.Is(err, io.EOF) {
							t.Error(err)
						}
						continue
					default:
					}
					if n := len(b.drained[p]); n != 10 {
						t.Errorf("seed %d: partition %d has %d records of 10", seed, p, n)
					}
				}
			})
		})
	}
}
