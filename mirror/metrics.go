package mirror

import (
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"kmirror/checkpoint"
)

// metrics are what an engine counts by itself; everything that the status knows
// too is collected from the same source when it is asked for, so that page and
// metrics cannot disagree and a flow that ends leaves no series behind.
type metrics struct {
	appendSeconds *prometheus.HistogramVec
	acks          *prometheus.CounterVec
	errors        *prometheus.CounterVec
	terms         prometheus.Counter
	incidents     *prometheus.CounterVec
}

func newMetrics(r prometheus.Registerer) (*metrics, error) {
	m := &metrics{
		appendSeconds: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name: "kmirror_append_seconds", Help: "Time from sending a produce request to its acknowledgement by all in-sync replicas of the target.",
			Buckets: prometheus.ExponentialBuckets(0.0005, 2, 15),
		}, []string{"flow"}),
		acks:      prometheus.NewCounterVec(prometheus.CounterOpts{Name: "kmirror_acks_total", Help: "Batches acknowledged by the target."}, []string{"flow"}),
		errors:    prometheus.NewCounterVec(prometheus.CounterOpts{Name: "kmirror_errors_total", Help: "Errors of brokers by side (source, target) and error."}, []string{"flow", "side", "error"}),
		terms:     prometheus.NewCounter(prometheus.CounterOpts{Name: "kmirror_terms_total", Help: "Leader terms that this instance began."}),
		incidents: prometheus.NewCounterVec(prometheus.CounterOpts{Name: "kmirror_incidents_total", Help: "Incidents by kind, repeated ones included."}, []string{"flow", "kind"}),
	}
	for _, c := range []prometheus.Collector{m.appendSeconds, m.acks, m.errors, m.terms, m.incidents} {
		if err := r.Register(c); err != nil {
			return nil, err
		}
	}
	return m, nil
}

// flowMetrics are a flow's share, bound once.
type flowMetrics struct {
	m    *metrics
	flow string
}

func (m flowMetrics) failed(side, what string) {
	m.m.errors.WithLabelValues(m.flow, side, what).Inc()
}

// collector turns the engine's status into series.
type collector struct {
	engine *Engine
	once   sync.Once
	descs  map[string]*prometheus.Desc
}

func (c *collector) desc(name string) *prometheus.Desc {
	c.once.Do(func() {
		topic := []string{"flow", "topic"}
		c.descs = map[string]*prometheus.Desc{}
		for _, d := range []struct {
			name, help string
			labels     []string
		}{
			{"records_total", "Records acknowledged by the target.", topic},
			{"bytes_total", "Bytes of record batches acknowledged by the target, as they are on the wire.", topic},
			{"batches_total", "Batches acknowledged, by how they travelled and why not raw.", []string{"flow", "topic", "mode", "reason"}},
			{"dropped_offsets_total", "Source offsets that have no place in the target, by reason.", []string{"flow", "topic", "reason"}},
			{"foreign_records_total", "Target offsets that something else wrote between our records.", topic},
			{"doubled_records_total", "Records found twice in the target.", []string{"flow"}},
			{"lag_records", "Source offsets not yet mirrored, of the partitions that this instance owns.", topic},
			{"lag_bytes", "About how many bytes are not yet mirrored, of the partitions that this instance owns.", topic},
			{"lag_seconds", "How long the oldest record not yet mirrored has been waiting, of the partitions that this instance owns.", topic},
			{"lag_unknown_partitions", "Partitions that this instance owns of which it does not know how far they are behind.", topic},
			{"rpo_records", "Source offsets that a failover now would lose, of the partitions that this instance owns.", []string{"flow"}},
			{"rpo_bytes", "About how many bytes a failover now would lose, of the partitions that this instance owns.", []string{"flow"}},
			{"rpo_seconds", "Age of the oldest record that a failover now would lose, of the partitions that this instance owns.", []string{"flow"}},
			{"rpo_age_seconds", "How old the knowledge is that the rpo series rest on: 0 while the source answers.", []string{"flow"}},
			{"partitions", "Partitions that this instance owns, by state.", []string{"flow", "topic", "state"}},
			{"flow_up", "1 while the flow mirrors all it owns.", []string{"flow"}},
			{"groups", "Consumer groups that the leading instance follows, by the state of their worst partition.", []string{"flow", "state"}},
			{"map_partitions", "Partitions with an offset map in the target cluster, as the leading instance holds it.", []string{"cluster"}},
			{"map_runs", "Runs that the offset map in the target cluster holds.", []string{"cluster"}},
			{"map_memory_bytes", "About how much memory the offset map takes in the leading instance.", []string{"cluster"}},
			{"map_records_total", "Records read of the offset map's topic since the term began.", []string{"cluster"}},
			{"map_removed_records_total", "Records of the offset map's topic that this instance deleted or thinned out, since its life began.", []string{"flow"}},
			{"skipped_records", "Corrupt or foreign records in internal topics that are passed over.", []string{"cluster", "topic"}},
			{"leader", "1 while this instance holds the leader's term.", nil},
			{"term", "Fence of the term that this instance leads; 0 while it does not.", nil},
			{"members", "Instances that share the work.", nil},
			{"buffer_bytes", "Memory reserved for batches between source and target.", nil},
		} {
			c.descs[d.name] = prometheus.NewDesc("kmirror_"+d.name, d.help, d.labels, nil)
		}
	})
	return c.descs[name]
}

// Describe sends nothing: the series depend on the topics there are.
func (c *collector) Describe(chan<- *prometheus.Desc) {}

// Collect sends the present state.
func (c *collector) Collect(out chan<- prometheus.Metric) {
	gauge := func(name string, v float64, labels ...string) {
		out <- prometheus.MustNewConstMetric(c.desc(name), prometheus.GaugeValue, v, labels...)
	}
	count := func(name string, v uint64, labels ...string) {
		out <- prometheus.MustNewConstMetric(c.desc(name), prometheus.CounterValue, float64(v), labels...)
	}
	status, flows := c.engine.describe(time.Now(), true)
	flag := func(b bool) float64 {
		if b {
			return 1
		}
		return 0
	}
	gauge("leader", flag(status.Leading))
	gauge("term", float64(status.Term))
	gauge("members", float64(len(status.Members)))
	gauge("buffer_bytes", float64(c.engine.buffered()))
	if l := c.engine.leads(); l != nil {
		maps, skipped := l.maps()
		for _, m := range maps {
			gauge("map_partitions", float64(m.Partitions), m.Cluster)
			gauge("map_runs", float64(m.Runs), m.Cluster)
			gauge("map_memory_bytes", float64(m.Memory), m.Cluster)
			count("map_records_total", uint64(max(0, m.Records)), m.Cluster)
		}
		for _, s := range skipped {
			gauge("skipped_records", float64(s.Records), s.Cluster, s.Topic)
		}
		for flow, s := range l.group {
			states := s.Census()
			for _, state := range checkpoint.States() {
				gauge("groups", float64(states[state]), flow, state)
			}
		}
	}
	now := time.Now()
	seen := map[string]ClusterStatus{}
	for _, s := range status.Clusters {
		seen[s.Name] = s
	}
	known := func(name string, v float64, labels ...string) {
		if v >= 0 {
			gauge(name, v, labels...)
		}
	}
	for _, f := range flows {
		name := f.status.Name
		known("rpo_records", float64(f.status.LagRecords), name)
		known("rpo_bytes", float64(f.status.LagBytes), name)
		known("rpo_seconds", f.status.LagSeconds, name)
		switch source := seen[f.status.From]; {
		case source.Reachable:
			gauge("rpo_age_seconds", 0, name)
		case source.LastSeen != nil:
			gauge("rpo_age_seconds", now.Sub(*source.LastSeen).Seconds(), name)
		}
		gauge("flow_up", flag(f.status.State == stateMirroring || f.status.State == statePaused), name)
		count("doubled_records_total", f.doubled, name)
		count("map_removed_records_total", uint64(max(0, f.status.Housekeeping.Removed+f.status.Housekeeping.Thinned)), name)
		for _, t := range f.topics {
			topic := t.status.Source
			count("records_total", t.stats.records, name, topic)
			count("bytes_total", t.stats.bytes, name, topic)
			count("foreign_records_total", t.stats.strangers, name, topic)
			for k, v := range t.stats.modes {
				count("batches_total", v, name, topic, k.mode.String(), k.reason)
			}
			for reason, v := range t.stats.dropped {
				count("dropped_offsets_total", v, name, topic, reason)
			}
			known("lag_records", float64(t.status.LagRecords), name, topic)
			known("lag_bytes", float64(t.status.LagBytes), name, topic)
			known("lag_seconds", t.status.LagSeconds, name, topic)
			gauge("lag_unknown_partitions", float64(t.status.LagUnknown), name, topic)
			for _, state := range []string{stateStarting, stateMirroring, stateWaiting, stateStopped, statePaused} {
				gauge("partitions", float64(t.states[state]), name, topic, state)
			}
		}
	}
}
