package mirror

import (
	"cmp"
	"fmt"
	"slices"
	"time"

	"kmirror/topology"
)

// topicReport is one topic of a flow, as status and metrics show it.
type topicReport struct {
	status TopicStatus
	stats  laneStats
	states map[string]int // owned partitions by state
}

func newTopicReport(source, target string) topicReport {
	return topicReport{
		status: TopicStatus{Source: source, Target: target, LagRecords: -1, LagBytes: -1, LagSeconds: -1, Modes: map[string]uint64{}, Partitions: []PartitionStatus{}},
		states: map[string]int{},
	}
}

// count gives the report its counters.
func (r *topicReport) count(s laneStats) {
	r.stats = s
	r.status.Records, r.status.Bytes = s.records, s.bytes
	for k, v := range s.modes {
		r.status.Modes[k.mode.String()] += v
	}
}

func newFlowStatus(f *topology.Flow) FlowStatus {
	return FlowStatus{Name: f.Name, From: f.From, To: f.To, Naming: string(f.Naming), State: stateStarting, Throttle: f.Throttle, LagRecords: -1, LagBytes: -1, LagSeconds: -1, Topics: []TopicStatus{}}
}

// describe shows a flow as this life carries it. owner tells who has a
// partition that this instance has not. In brief, no partition is kept: what is
// asked for every second, and at every scrape, takes no memory for each.
func (f *flow) describe(now time.Time, l *life, owner func(partitionID) string, problem func(topic string) string, brief bool) (FlowStatus, []topicReport) {
	out := newFlowStatus(f.cfg())
	out.Fence = f.fence.modeNow().String()
	out.Housekeeping = f.keeper.stats()
	out.Error = cmp.Or(l.disagreement(f), f.discovery.state.get(), f.trouble.get(), f.orders.state.get())
	w := f.discovery.current.Load()
	if w == nil {
		return out, nil
	}
	out.Known = true
	f.counting.RLock()
	defer f.counting.RUnlock()
	tenures, held := f.heldOf(w)
	reports := make([]topicReport, 0, len(w.topics))
	var c census
	var lags, own []Lag
	var partitions []PartitionStatus
	for _, pair := range w.topics {
		r := newTopicReport(pair.source.Name, pair.targetName)
		r.status.Error = cmp.Or(pair.problem, problem(pair.source.Name))
		running := newLaneStats()
		pause, newest := f.paused(pair.source.Name), int64(0)
		if partitions = partitions[:0]; !brief {
			partitions = make([]PartitionStatus, 0, len(pair.source.Partitions))
		}
		for n := range pair.source.Partitions {
			id := partitionID{f.cfg().Name, pair.source.Name, int32(n)}
			partitions = append(partitions, newPartitionStatus(id.Partition))
			p := &partitions[n]
			if t := tenures[n]; t != nil {
				p.Owner = l.id
				newest = max(newest, t.describe(now, p, &running))
				r.states[p.State]++
			} else if describeUnheld(p, l, id, owner(id), pause) {
				r.states[p.State]++
			}
			if p.State == stateWaiting && p.Error == "" {
				p.Error = r.status.Error
			}
			c.count(p)
		}
		tenures = tenures[len(pair.source.Partitions):]
		if r.status.Error != "" {
			c.bad++
		}
		f.totals.date(pair.source.Name, newest)
		r.count(f.totals.with(pair.source.Name, running))
		r.status.NewestMirrored = f.totals.newest(pair.source.Name)
		own = f.behind(now, l, &r, partitions, own[:0])
		sum := sumOf(own, func(l Lag) Lag { return l })
		r.status.setLag(sum)
		lags = append(lags, sum)
		if !brief {
			r.status.Partitions = partitions
		}
		r.status.RecordsPerSecond, r.status.BytesPerSecond = f.totals.rates(pair.source.Name, now, r.stats.records, r.stats.bytes)
		out.Records += r.status.Records
		out.Bytes += r.status.Bytes
		out.RecordsPerSecond += r.status.RecordsPerSecond
		out.BytesPerSecond += r.status.BytesPerSecond
		out.Topics = append(out.Topics, r.status)
		reports = append(reports, r)
	}
	out.setLag(sumOf(lags, func(l Lag) Lag { return l }))
	switch {
	case c.bad > 0 || out.Error != "":
		out.State = "degraded"
	case c.starting > 0 && held == 0:
		out.State = stateStarting
	case c.paused > 0 && c.paused == c.all:
		out.State = statePaused
	default:
		out.State = stateMirroring
	}
	if n := f.counters.doubled.Load(); n > 0 && out.Error == "" {
		out.Error = fmt.Sprintf("%d records were found twice in the target; the log names them", n)
	}
	slices.SortFunc(out.Topics, func(a, b TopicStatus) int { return cmp.Compare(a.Source, b.Source) })
	return out, reports
}

// newPartitionStatus is one of which nothing is known.
func newPartitionStatus(n int32) PartitionStatus {
	return PartitionStatus{Partition: n, State: stateWaiting, Position: -1, SourceEnd: -1, TargetEnd: -1, LagRecords: -1, LagBytes: -1, LagSeconds: -1}
}

// held are the partitions in this instance's hands.
func (f *flow) held() map[partitionID]*tenure {
	f.mu.Lock()
	defer f.mu.Unlock()
	tenures := make(map[partitionID]*tenure, len(f.tenures))
	for id, h := range f.tenures {
		tenures[id] = h.tenure
	}
	return tenures
}

// heldOf are the tenures in this instance's hands, one after the other for each
// partition of each topic of w, nil for those that it has not; and how many it has.
func (f *flow) heldOf(w *world) (tenures []*tenure, held int) {
	all := 0
	for _, pair := range w.topics {
		all += len(pair.source.Partitions)
	}
	tenures = make([]*tenure, 0, all)
	name := f.cfg().Name
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, pair := range w.topics {
		for n := range pair.source.Partitions {
			var t *tenure
			if h := f.tenures[partitionID{name, pair.source.Name, int32(n)}]; h != nil {
				t = h.tenure
			}
			tenures = append(tenures, t)
		}
	}
	return tenures, len(f.tenures)
}

// describeUnheld describes a partition that has no tenure here, and says whether it
// is this life's all the same.
func describeUnheld(p *PartitionStatus, l *life, id partitionID, owner, pause string) (ours bool) {
	p.Owner = owner
	switch {
	case pause != "":
		p.State, p.Error = statePaused, pause
	case owner != "" && owner != l.id:
		p.State = stateMirroring
	}
	if owner == l.id || owner == "" && l.holds(id) {
		p.Owner = l.id
		return true
	}
	return false
}

// census counts the partitions of a flow, for its state.
type census struct{ bad, starting, paused, all int }

func (c *census) count(p *PartitionStatus) {
	c.all++
	if p.State == stateStopped || p.State == stateWaiting && p.Owner != "" {
		c.bad++
	}
	if p.State == statePaused {
		c.paused++
	} else if p.State == stateStarting || p.Owner == "" {
		c.starting++
	}
}

// behind completes the lags of a topic's partitions, and appends those that this
// life has to own.
func (f *flow) behind(now time.Time, l *life, r *topicReport, partitions []PartitionStatus, own []Lag) []Lag {
	perRecord := 0.0
	if r.stats.records > 0 {
		perRecord = float64(r.stats.bytes) / float64(r.stats.records)
	}
	for i := range partitions {
		p := &partitions[i]
		if p.Owner != "" && p.Owner != l.id {
			continue
		}
		f.survey.complete(now, partitionID{f.cfg().Name, r.status.Source, p.Partition}, p, perRecord)
		own = append(own, p.lag())
	}
	return own
}

func (t *TopicStatus) setLag(l Lag) {
	t.LagRecords, t.LagBytes, t.LagBytesEstimated, t.LagSeconds, t.LagUnknown = l.Records, l.Bytes, l.BytesEstimated, l.Seconds, l.Unknown
}

func (f *FlowStatus) setLag(l Lag) {
	f.LagRecords, f.LagBytes, f.LagBytesEstimated, f.LagSeconds, f.LagUnknown = l.Records, l.Bytes, l.BytesEstimated, l.Seconds, l.Unknown
}

// describe fills in what the tenure knows, and adds what its lane has done to sum.
// newest is the greatest timestamp of a record that it brought into the target.
func (t *tenure) describe(now time.Time, p *PartitionStatus, sum *laneStats) (newest int64) {
	t.mu.Lock()
	l := t.lane
	p.State, p.Error = t.state, t.why
	t.mu.Unlock()
	if l == nil {
		return 0
	}
	at := l.show(now, sum)
	p.Position, p.SourceEnd, p.TargetEnd = at.position, at.sourceEnd, at.targetEnd
	if at.sourceEnd >= 0 {
		p.LagRecords, p.LagSeconds = at.lag, at.lagSeconds
	}
	if at.blocked != "" && p.State == stateMirroring {
		p.State, p.Error = stateWaiting, at.blocked
	}
	return at.newest
}
