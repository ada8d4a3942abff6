package mirror

import (
	"encoding/binary"
	"log/slog"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/twmb/franz-go/pkg/kmsg"

	"kmirror/checkpoint"
	"kmirror/internal/wire"
)

// rawPath is everything between the bytes of a fetch response and those of a
// produce request, and back from its answer, without the sockets.
type rawPath struct {
	feed     *feed
	req      wire.FetchRequest
	appender *appender
	lanes    []*lane
	body     []byte // a fetch response
	answer   []byte // to the request
	records  int64
	ends     []int64
}

const rawBatches = 12 // of each of the lanes in one response

func newRawPath(tb testing.TB) *rawPath {
	tb.Helper()
	m, err := newMetrics(prometheus.NewRegistry())
	if err != nil {
		tb.Fatal(err)
	}
	log := slog.New(slog.DiscardHandler)
	r := &rawPath{}
	f := newFetcher(&fetcher{budget: newBudget(64 << 20), stale: func() {}, ledger: func([]ledgerStep) {}, metrics: flowMetrics{m, "f"}, log: log})
	r.feed = f.backlog
	f.filled = func() {}
	r.appender = newAppender(&appender{metrics: flowMetrics{m, "f"}, stale: func() {}, log: log})
	resp := kmsg.NewPtrFetchResponse()
	resp.SetVersion(17)
	resp.SessionID = 1
	rt := kmsg.NewFetchResponseTopic()
	rt.TopicID = [16]byte{7}
	for p := range int32(4) {
		l := newLane(checkpoint.Key{Partition: p}, "t", [16]byte{9}, 7, 0, origin{0, 0}, func() ladderLimits { return ladderLimits{inflate: 1 << 20} })
		r.lanes, r.ends = append(r.lanes, l), append(r.ends, 0)
		f.add(&fetching{lane: l, topic: "t", id: [16]byte{7}, partition: p, leaderEpoch: -1, settled: func() {}})
		r.appender.add(&appending{lane: l, acked: func([]checkpoint.Run, int64, int64) {}})
		var bytes []byte
		for range rawBatches {
			var recs []wire.Record
			for range 20 {
				recs = append(recs, wire.Record{Timestamp: 5, Value: make([]byte, 1000)})
			}
			b, err := wire.EncodeBatch(nil, recs, wire.Plain(wire.CodecNone))
			if err != nil {
				tb.Fatal(err)
			}
			bytes = append(bytes, b...)
		}
		rp := kmsg.NewFetchResponseTopicPartition()
		rp.Partition, rp.HighWatermark, rp.LastStableOffset, rp.RecordBatches = p, 1<<40, 1<<40, bytes
		rt.Partitions = append(rt.Partitions, rp)
	}
	resp.Topics = append(resp.Topics, rt)
	r.body = resp.AppendTo(nil)
	answer := kmsg.NewPtrProduceResponse()
	answer.SetVersion(13)
	at := kmsg.NewProduceResponseTopic()
	at.TopicID = [16]byte{9}
	for p := range int32(4) {
		rp := kmsg.NewProduceResponseTopicPartition()
		rp.Partition = p
		at.Partitions = append(at.Partitions, rp)
	}
	answer.Topics = append(answer.Topics, at)
	r.answer = answer.AppendTo(nil)
	return r
}

// round is one fetch response with all its batches, and the acknowledgements.
func (r *rawPath) round(tb testing.TB) {
	if _, wait := r.feed.request(&r.req, 17, time.Now()); wait > 0 {
		tb.Fatal("nobody wants anything")
	}
	r.req.End()
	s := r.feed.budget.slab()
	r.feed.slab = s
	body := s.alloc(len(r.body))
	copy(body, r.body)
	in, err := wire.ReadFetch(17, body) // the offsets go on from response to response
	if err != nil {
		tb.Fatal(err)
	}
	for in.Next() {
		offset := r.records
		for records := in.At().Records; len(records) > 0; {
			b, after, err := wire.NextBatch(records)
			if err != nil {
				tb.Fatal(err)
			}
			b.SetBaseOffset(offset)
			offset += int64(b.NumRecords())
			records = after
		}
	}
	if err := r.feed.take(17, body); err != nil {
		tb.Fatal(err)
	}
	s.drop()
	r.records += rawBatches * 20
	now := time.Now()
	for range rawBatches {
		version, _ := r.appender.collect(13, now)
		if len(r.appender.batch) != len(r.lanes) {
			tb.Fatalf("%d lanes in a request of %d", len(r.appender.batch), len(r.lanes))
		}
		p := r.appender.flight.next()
		p.version, p.sent = version, now
		p.lanes = append(p.lanes[:0], r.appender.batch...)
		r.appender.flight.push()
		r.appender.request.End()
		at := 0
		for i := range r.lanes { // the base offsets stand behind partition and error code
			at = nextBase(at)
			l := p.lanes[i].at.lane
			binary.BigEndian.PutUint32(r.answer[at-6:], uint32(l.partition))
			binary.BigEndian.PutUint64(r.answer[at:], uint64(r.ends[l.partition]))
			r.ends[l.partition] += 20
		}
		if err := r.appender.resolve(p, r.answer); err != nil {
			tb.Fatal(err)
		}
		r.appender.flight.pop()
	}
}

// nextBase is where the next base offset of a produce response v13 stands.
func nextBase(after int) int {
	const head, part = 1 + 16 + 1 + 6, 4 + 2 + 8 + 8 + 8 + 1 + 1 + 1
	if after == 0 {
		return head
	}
	return after + part
}

// TestRawPathAllocatesNothing.
func TestRawPathAllocatesNothing(t *testing.T) {
	r := newRawPath(t)
	for range 20 { // everything has found its size
		r.round(t)
	}
	if n := testing.AllocsPerRun(100, func() { r.round(t) }); n > 0 {
		t.Errorf("%v allocations for %d batches", n, rawBatches*len(r.lanes))
	}
}

// BenchmarkRawPath is per batch of 20 KB.
func BenchmarkRawPath(b *testing.B) {
	r := newRawPath(b)
	for range 20 {
		r.round(b)
	}
	b.ReportAllocs()
	b.SetBytes(int64(len(r.body) / rawBatches / len(r.lanes)))
	b.ResetTimer()
	for n := 0; n < b.N; n += rawBatches * len(r.lanes) {
		r.round(b)
	}
}

// TestSlabsAreUsedAgain: and none while somebody refers to it.
func TestSlabsAreUsedAgain(t *testing.T) {
	b := newBudget(0)
	s := b.slab()
	buf := s.alloc(100_000)
	if n := b.inUse(); n != 128<<10 {
		t.Errorf("%d bytes are charged for 100 000", n)
	}
	s.retain(10)
	s.drop()
	other := b.slab()
	if &other.alloc(100_000)[0] == &buf[0] {
		t.Error("the memory is in use twice")
	}
	s.release(10)
	again := b.slab()
	if &again.alloc(70_000)[0] != &buf[0] {
		t.Error("the warm buffer is not used again")
	}
	again.drop()
	other.drop()
	if n := b.inUse(); n != 0 {
		t.Errorf("%d bytes are still charged", n)
	}
	large := b.slab()
	if large.alloc(slabSize+1) != nil {
		t.Error("what a peer claims is reserved before it has come")
	}
	large.adopt(make([]byte, slabSize+1))
	if n := b.inUse(); n != slabSize+1 {
		t.Errorf("%d bytes are charged", n)
	}
	large.drop()
}

// TestBudgetIsShared: a flow that stands still with all that it may hold leaves
// enough for the next one, however many there are; and what is in step finds
// room when what is behind has taken all it may.
func TestBudgetIsShared(t *testing.T) {
	first := newBudget(64 << 20)
	flows := []*budget{first}
	for range 4 {
		flows = append(flows, first.share())
	}
	for i, f := range flows {
		var n int64
		for f.room(true) && n < 128<<20 {
			f.slab().alloc(slabSize)
			n += slabSize
		}
		if n < slabSize || n > 40<<20 {
			t.Errorf("flow %d got %d MiB", i, n>>20)
		}
	}
	if last := first.share(); !last.room(false) || last.lane() < laneLeast {
		t.Error("what is in step finds no room")
	}
}

// TestOneSmallBatchKeepsNoLargeSlab: when memory is short, the last little that
// keeps a large response alive moves to memory of its own.
func TestOneSmallBatchKeepsNoLargeSlab(t *testing.T) {
	b := newBench(t)
	s := b.budget.slab()
	body := s.alloc(slabSize)
	n := copy(body, oneRecord(t, "small"))
	c, err := climb(body[:n], 0, nil, b.lane.limits())
	if err != nil {
		t.Fatal(err)
	}
	b.lane.take(0, c, s, 1)
	s.drop()
	b.lane.compact(time.Now())
	if got := b.budget.inUse(); got != slabSize {
		t.Errorf("%d bytes are charged: a response that came just now was copied", got)
	}
	b.lane.compact(time.Now().Add(time.Second))
	if got := b.budget.inUse(); got != int64(n) {
		t.Errorf("%d bytes are charged for a batch of %d", got, n)
	}
	b.answer(b.send(), 0, 0)
	if got := b.budget.inUse(); got != 0 {
		t.Errorf("%d bytes are still charged", got)
	}
}
