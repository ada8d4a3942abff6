package verify_test

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"pgregory.net/rapid"

	"kmirror/checkpoint"
	"kmirror/internal/kafka"
	"kmirror/internal/verify"
	"kmirror/internal/wire"
	"kmirror/topology"
)

// check is what *testing.T and *rapid.T have in common.
type check interface {
	Helper()
	Fatal(args ...any)
	Fatalf(format string, args ...any)
}

// fakeLog is a partition's log in memory, served as a broker would.
type fakeLog struct {
	mu      sync.Mutex // guards the fields below
	batches []wire.Batch
	aborted []abortedTxn
	start   int64
	end     int64
	fetches int
	each    func(*fakeLog) // after every fetch, with mu held
	few     int            // batches in one answer at most
}

type abortedTxn struct{ producer, first, marker int64 }

func (l *fakeLog) Fetch(ctx context.Context, _ string, _ int32, offset int64, _ int32, committed bool, _ time.Duration) (kafka.FetchResult, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if ctx.Err() != nil {
		return kafka.FetchResult{}, ctx.Err()
	}
	l.fetches++
	res := kafka.FetchResult{HighWatermark: l.end, LastStable: l.end, LogStart: l.start}
	if offset < l.start || offset > l.end {
		res.Err = kerr.OffsetOutOfRange
		return res, nil
	}
	n := 0
	for _, b := range l.batches {
		if b.LastOffset() < offset || n == l.few {
			continue
		}
		n++
		res.Records = append(res.Records, b...)
		for _, a := range l.aborted {
			at := kafka.AbortedTxn{ProducerID: a.producer, FirstOffset: a.first}
			if committed && a.first <= b.LastOffset() && a.marker >= b.BaseOffset() && !slices.Contains(res.Aborted, at) {
				res.Aborted = append(res.Aborted, at)
			}
		}
	}
	if l.each != nil {
		l.each(l)
	}
	return res, nil
}

func (l *fakeLog) ListOffset(_ context.Context, _ string, _ int32, timestamp int64) (int64, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if timestamp == kafka.Earliest {
		return l.start, nil
	}
	return l.end, nil
}

// The producers of the worlds.
const (
	ours     = 1000 // of the flow, in the target
	stranger = 2000 // in the target
	looping  = 3000 // in the source: what came from the other side
	client   = 4000 // in the source, and above
)

// entry is one record of the target as it should be encoded, or a marker.
type entry struct {
	rec     wire.Record
	source  int64 // -1: not of the map
	owner   int64 // producer id
	group   int   // entries of one group go into one batch, unless it is divided
	codec   wire.Codec
	gone    bool // taken by compaction, or by harm
	control bool
}

// world is a source, a target that mirrors it, and the map between them.
type world struct {
	source, target           *fakeLog
	visible                  map[int64]wire.Record // what consumers of the source see and the flow takes, by offset
	entries                  []entry
	runs                     []checkpoint.Run
	through                  int64
	filter                   *topology.Filter
	stamped                  bool // the target stamps records
	sourceCompacts, compacts bool
}

func (w *world) partition() verify.Partition {
	return verify.Partition{
		Topic: "orders", TargetTopic: "east.orders", Number: 0, Runs: w.runs, Through: w.through, Filter: w.filter,
		Owns:           func(id int64, _ int16) bool { return id == ours },
		Loops:          func(id int64) (bool, error) { return id == looping, nil },
		SourceCompacts: w.sourceCompacts, TargetCompacts: w.compacts,
	}
}

// job plans the whole of it.
func (w *world) job(s verify.Sample) *verify.Job {
	p := w.partition()
	ranges, _, _, _ := p.Plan(verify.Extent{SourceStart: w.source.start, SourceEnd: w.source.end, TargetStart: w.target.start, Since: -1}, s)
	return verify.NewJob(p, ranges)
}

// compare runs a job to its end.
func (w *world) compare(t check, j *verify.Job, canonical bool) {
	t.Helper()
	o := verify.Options{Source: w.source, Target: w.target, Canonical: canonical}
	if err := verify.Run(context.Background(), o, []*verify.Job{j}, &verify.Meter{}); err != nil {
		t.Fatal(err)
	}
	if err := j.Err(); err != nil {
		t.Fatal(err)
	}
	for _, r := range j.Ranges() {
		if !r.Done {
			t.Fatalf("range %d to %d ended at %d", r.From, r.To, r.Next)
		}
	}
}

func total(j *verify.Job) (tally verify.Tally, first *verify.Difference) {
	for _, r := range j.Ranges() {
		tally.Add(r.Tally)
		if first == nil {
			first = r.First
		}
	}
	return tally, first
}

// drawWorld makes a source of any history and mirrors it.
func drawWorld(t *rapid.T) *world {
	w := &world{
		source: &fakeLog{few: rapid.IntRange(1, 5).Draw(t, "source batches")}, target: &fakeLog{few: rapid.IntRange(1, 5).Draw(t, "target batches")},
		visible: map[int64]wire.Record{},
		stamped: rapid.IntRange(0, 5).Draw(t, "stamped") == 0,
	}
	if rapid.IntRange(0, 3).Draw(t, "filter") == 0 {
		flow, err := topology.NewFlow("east", "west", func(f *topology.Flow) {
			f.Filters = []topology.Filter{{Topics: []string{".*"}, Key: "drop.*"}}
		})
		if err != nil {
			t.Fatal(err)
		}
		w.filter = flow.FilterFor("orders")
	}
	w.produce(t)
	w.mirror(t)
	return w
}

// produce fills the source: plain, transactional and foreign batches, holes.
func (w *world) produce(t *rapid.T) {
	next, open := int64(rapid.IntRange(0, 3).Draw(t, "first offset")), map[int64]int64{} // by producer: where its transaction began
	w.source.start = next
	pending := map[int64][]entry{}
	for group := range rapid.IntRange(1, 14).Draw(t, "batches") {
		kind := rapid.SampledFrom([]string{"plain", "plain", "plain", "stamped", "transactional", "commit", "abort", "loop", "hole"}).Draw(t, "kind")
		o := wire.Plain(rapid.SampledFrom([]wire.Codec{wire.CodecNone, wire.CodecLZ4, wire.CodecZstd}).Draw(t, "codec"))
		switch kind {
		case "hole":
			next += int64(rapid.IntRange(1, 5).Draw(t, "size"))
			continue
		case "loop":
			o.ProducerID, o.ProducerEpoch, o.BaseSequence = looping, 0, 0
		case "stamped":
			o.LogAppendTime = true
		case "transactional":
			o.Transactional = true
			o.ProducerID, o.ProducerEpoch, o.BaseSequence = client+int64(rapid.IntRange(0, 1).Draw(t, "producer")), 0, 0
			if _, ok := open[o.ProducerID]; !ok {
				open[o.ProducerID] = next
			}
		case "commit", "abort":
			for _, producer := range []int64{client, client + 1} {
				first, ok := open[producer]
				if !ok {
					continue
				}
				w.source.batches = append(w.source.batches, marker(t, next, producer, kind == "commit"))
				if kind == "commit" {
					w.see(pending[producer])
				} else {
					w.source.aborted = append(w.source.aborted, abortedTxn{producer, first, next})
				}
				delete(open, producer)
				delete(pending, producer)
				next++
				break
			}
			continue
		}
		records := drawRecords(t, next)
		b, err := wire.EncodeBatch(nil, records, o)
		if err != nil {
			t.Fatal(err)
		}
		w.source.batches = append(w.source.batches, b)
		next = b.LastOffset() + 1
		var seen []entry
		for _, r := range mustRecords(t, b) {
			seen = append(seen, entry{rec: r, source: r.Offset, owner: ours, group: group, codec: b.Codec()})
		}
		switch {
		case kind == "transactional":
			pending[o.ProducerID] = append(pending[o.ProducerID], seen...)
		case kind != "loop":
			w.see(seen)
		}
	}
	for producer, first := range open { // end what is open, or the last stable offset would stand before it
		w.source.batches = append(w.source.batches, marker(t, next, producer, false))
		w.source.aborted = append(w.source.aborted, abortedTxn{producer, first, next})
		next++
	}
	w.source.end = w.source.start
	if n := len(w.source.batches); n > 0 {
		w.source.end = w.source.batches[n-1].LastOffset() + 1
	}
	w.through = w.source.end
	slices.SortStableFunc(w.entries, func(a, b entry) int { return int(a.source - b.source) })
}

func (w *world) see(entries []entry) {
	for _, e := range entries {
		if w.filter != nil && w.filter.Drops(e.rec.Key, nil) {
			continue
		}
		w.visible[e.source] = e.rec
		w.entries = append(w.entries, e)
	}
}

func drawRecords(t *rapid.T, base int64) []wire.Record {
	n := rapid.IntRange(1, 6).Draw(t, "records")
	records := make([]wire.Record, n)
	for i := range records {
		offset := base + int64(i)
		r := wire.Record{Offset: offset, Timestamp: 1_700_000_000_000 + offset*7, Value: fmt.Appendf(nil, "value of %d", offset)}
		switch rapid.IntRange(0, 5).Draw(t, "key") {
		case 0:
			r.Key = fmt.Appendf(nil, "drop %d", offset)
		case 1, 2:
			r.Key = fmt.Appendf(nil, "k%d", offset%3)
		case 3:
			r.Headers = []wire.Header{{Key: "h", Value: []byte("x")}, {Key: "null"}}
		case 4:
			r.Key, r.Value = fmt.Appendf(nil, "k%d", offset), nil
		}
		records[i] = r
	}
	return records
}

func mustRecords(t check, b wire.Batch) []wire.Record {
	records, err := b.Records(1 << 20)
	if err != nil {
		t.Fatal(err)
	}
	return records
}

func marker(t check, offset, producer int64, commit bool) wire.Batch {
	key := []byte{0, 0, 0, 0}
	if commit {
		key[3] = 1
	}
	o := wire.Plain(wire.CodecNone)
	o.Control, o.Transactional, o.ProducerID = true, true, producer
	b, err := wire.EncodeBatch(nil, []wire.Record{{Offset: offset, Key: key, Value: []byte{0, 0, 0, 0, 0, 0}}}, o)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// mirror puts strangers and markers between the entries, and maps them.
func (w *world) mirror(t *rapid.T) {
	var all []entry
	for _, e := range w.entries {
		switch rapid.IntRange(0, 12).Draw(t, "between") {
		case 0:
			for i := range rapid.IntRange(1, 4).Draw(t, "strangers") {
				all = append(all, entry{rec: wire.Record{Timestamp: 5, Value: fmt.Appendf(nil, "foreign %d", i)}, source: -1, owner: stranger, group: -1 - len(all)})
			}
		case 1:
			all = append(all, entry{source: -1, owner: ours, group: -1 - len(all), control: true})
		}
		all = append(all, e)
	}
	w.entries = all
	w.layOut(t)
}

// layOut gives the entries their target offsets, and makes the map and the log
// of them. What was harmed before is in the map as if it were not.
func (w *world) layOut(t *rapid.T) {
	next := int64(rapid.IntRange(0, 4).Draw(t, "first target offset"))
	w.target.start = next
	w.runs = nil
	for i := range w.entries {
		e := &w.entries[i]
		e.rec.Offset = next
		next++
		if e.source < 0 {
			continue
		}
		if n := len(w.runs); n > 0 && w.runs[n-1].Source+w.runs[n-1].Count == e.source && w.runs[n-1].Target+w.runs[n-1].Count == e.rec.Offset {
			w.runs[n-1].Count++
			continue
		}
		w.runs = append(w.runs, checkpoint.Run{Source: e.source, Target: e.rec.Offset, Count: 1})
	}
	w.target.end = next
	w.encode(t)
}

// encode makes the target's log of the entries: in the source's batches, or
// divided, or merged, or compressed in another way.
func (w *world) encode(t *rapid.T) {
	w.target.batches = nil
	for i := 0; i < len(w.entries); {
		e := w.entries[i]
		j := i + 1
		merge := rapid.IntRange(0, 4).Draw(t, "merge") == 0
		for j < len(w.entries) && w.entries[j].owner == e.owner && !e.control && !w.entries[j].control && (w.entries[j].group == e.group || merge) {
			if rapid.IntRange(0, 19).Draw(t, "divide") == 0 {
				break
			}
			j++
		}
		w.target.batches = append(w.target.batches, w.batch(t, w.entries[i:j])...)
		i = j
	}
	if !w.compacts { // else a log does not end in a hole
		w.target.end = w.target.start
		if n := len(w.target.batches); n > 0 {
			w.target.end = w.target.batches[n-1].LastOffset() + 1
		}
	}
}

// batch is one batch of entries, none if all are gone.
func (w *world) batch(t *rapid.T, entries []entry) []wire.Batch {
	e := entries[0]
	if e.control {
		return []wire.Batch{marker(t, e.rec.Offset, e.owner, false)}
	}
	o := wire.Plain(e.codec)
	if rapid.IntRange(0, 9).Draw(t, "other codec") == 0 {
		o.Codec = wire.CodecGzip
	}
	o.ProducerID, o.ProducerEpoch, o.BaseSequence = e.owner, 3, 0
	o.KeepOffsets, o.LogAppendTime = true, w.stamped
	var records []wire.Record
	for _, e := range entries {
		if !e.gone {
			records = append(records, e.rec)
		}
	}
	if len(records) == 0 {
		return nil
	}
	b, err := wire.EncodeBatch(nil, records, o)
	if err != nil {
		t.Fatal(err)
	}
	return []wire.Batch{b}
}

// compactSource takes records out of the source's batches, as the cleaner does.
func (w *world) compactSource(t *rapid.T) {
	w.sourceCompacts = true
	var left []wire.Batch
	for _, b := range w.source.batches {
		if b.IsControl() || rapid.Bool().Draw(t, "clean this batch") {
			left = append(left, b)
			continue
		}
		var kept []wire.Record
		for _, r := range mustRecords(t, b) {
			if rapid.IntRange(0, 2).Draw(t, "keep") > 0 {
				kept = append(kept, r)
			} else {
				delete(w.visible, r.Offset)
			}
		}
		if len(kept) == 0 {
			continue
		}
		o := wire.BatchOptions{
			Codec: b.Codec(), LogAppendTime: b.IsLogAppendTime(), Transactional: b.IsTransactional(),
			ProducerID: b.ProducerID(), ProducerEpoch: b.ProducerEpoch(), BaseSequence: b.BaseSequence(), KeepOffsets: true,
		}
		c, err := wire.EncodeBatch(nil, kept, o)
		if err != nil {
			t.Fatal(err)
		}
		left = append(left, c)
	}
	w.source.batches = left
}

// compactTarget takes records out of the target's batches.
func (w *world) compactTarget(t *rapid.T) {
	w.compacts = true
	for i := range w.entries {
		if !w.entries[i].control && rapid.IntRange(0, 3).Draw(t, "clean this record") == 0 {
			w.entries[i].gone = true
		}
	}
	w.encode(t)
}
