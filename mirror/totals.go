package mirror

import (
	"maps"
	"slices"
	"sync"
	"time"

	"kmirror/topology"
)

// totals are the counters of one flow since the process began, by source
// topic, and their present rates. They outlive tenures and lives.
type totals struct {
	mu     sync.Mutex // guards the fields below
	topics map[string]*topicTotals
}

type topicTotals struct {
	retired laneStats // of tenures that ended
	rate    rate
	newest  int64 // greatest timestamp of a record brought into the target, in milliseconds; 0 while there is none
}

// rate is an exponentially weighted mean per second.
type rate struct {
	at                   time.Time
	records, bytes       uint64 // at that time
	recordsPer, bytesPer float64
}

func newTotals() *totals { return &totals{topics: map[string]*topicTotals{}} }

// topic is called with mu held.
func (t *totals) topic(name string) *topicTotals {
	x := t.topics[name]
	if x == nil {
		x = &topicTotals{retired: newLaneStats()}
		t.topics[name] = x
	}
	return x
}

func (t *totals) add(topic string, s laneStats) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.topic(topic).retired.add(s)
}

// date notes the timestamp of a record that was brought into the target.
func (t *totals) date(topic string, millis int64) {
	t.mu.Lock()
	defer t.mu.Unlock()
	x := t.topic(topic)
	x.newest = max(x.newest, millis)
}

// newest is the greatest of these timestamps, nil while there is none.
func (t *totals) newest(topic string) *time.Time {
	t.mu.Lock()
	defer t.mu.Unlock()
	if x := t.topics[topic]; x != nil && x.newest > 0 {
		return new(time.UnixMilli(x.newest).UTC())
	}
	return nil
}

// with returns the totals of a topic together with what its running lanes have done.
func (t *totals) with(topic string, running laneStats) laneStats {
	t.mu.Lock()
	defer t.mu.Unlock()
	sum := newLaneStats()
	sum.add(t.topic(topic).retired)
	sum.add(running)
	return sum
}

// describe is a flow of which this instance carries nothing at present: what it
// has counted stays.
func (t *totals) describe(f *topology.Flow) (FlowStatus, []topicReport) {
	t.mu.Lock()
	defer t.mu.Unlock()
	out := newFlowStatus(f)
	var reports []topicReport
	for _, name := range slices.Sorted(maps.Keys(t.topics)) {
		r := newTopicReport(name, f.TargetTopic(name))
		retired := newLaneStats()
		retired.add(t.topics[name].retired)
		r.count(retired)
		if newest := t.topics[name].newest; newest > 0 {
			r.status.NewestMirrored = new(time.UnixMilli(newest).UTC())
		}
		out.Records += r.stats.records
		out.Bytes += r.stats.bytes
		out.Topics = append(out.Topics, r.status)
		reports = append(reports, r)
	}
	return out, reports
}

func (s *laneStats) add(o laneStats) {
	s.records += o.records
	s.bytes += o.bytes
	s.strangers += o.strangers
	for k, v := range o.modes {
		s.modes[k] += v
	}
	for k, v := range o.dropped {
		s.dropped[k] += v
	}
}

// rateHalf is after how long a change of the rate shows by half.
const rateHalf = 2 * time.Second

// rates notes the present counters of a topic and returns its rates.
func (t *totals) rates(topic string, now time.Time, records, bytes uint64) (recordsPer, bytesPer float64) {
	t.mu.Lock()
	defer t.mu.Unlock()
	r := &t.topic(topic).rate
	gone := now.Sub(r.at)
	switch {
	case r.at.IsZero():
		*r = rate{at: now, records: records, bytes: bytes}
	case gone >= 200*time.Millisecond:
		seconds := gone.Seconds()
		weight := min(1, seconds/(2*rateHalf.Seconds()))
		if records >= r.records && bytes >= r.bytes {
			r.recordsPer += weight * (float64(records-r.records)/seconds - r.recordsPer)
			r.bytesPer += weight * (float64(bytes-r.bytes)/seconds - r.bytesPer)
		}
		r.at, r.records, r.bytes = now, records, bytes
		if r.recordsPer < 0.01 {
			r.recordsPer, r.bytesPer = 0, 0
		}
	}
	return r.recordsPer, r.bytesPer
}
