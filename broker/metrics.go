package broker

import (
	"errors"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/twmb/franz-go/pkg/kerr"
)

// metrics are the node's own. Series of APIs exist from the start, so that
// rate() sees the first request.
type metrics struct {
	requests          *prometheus.CounterVec
	errors            *prometheus.CounterVec
	seconds           *prometheus.HistogramVec
	bytesIn, bytesOut prometheus.Counter
	connections       prometheus.Gauge
	refused           prometheus.Counter
	sessions          prometheus.GaugeFunc

	registerer prometheus.Registerer
}

// apiMetrics are one API's series.
type apiMetrics struct {
	requests prometheus.Counter
	seconds  prometheus.Observer
}

// newMetrics builds and registers. A nil registerer gives metrics that nobody reads.
func newMetrics(registerer prometheus.Registerer, sessions func() int) (*metrics, error) {
	m := &metrics{
		requests: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "kmirror_broker_requests_total", Help: "Requests served by the embedded node, by API.",
		}, []string{"api"}),
		errors: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "kmirror_broker_errors_total", Help: "Error codes in responses of the embedded node, by API and Kafka's name of the error.",
		}, []string{"api", "error"}),
		seconds: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name: "kmirror_broker_request_seconds", Help: "Time from a request's arrival to its response, by API. Fetch includes the time it was parked.",
			Buckets: []float64{.0001, .0002, .0005, .001, .002, .005, .01, .02, .05, .1, .2, .5, 1, 2, 5},
		}, []string{"api"}),
		bytesIn:     prometheus.NewCounter(prometheus.CounterOpts{Name: "kmirror_broker_received_bytes_total", Help: "Bytes of requests received by the embedded node."}),
		bytesOut:    prometheus.NewCounter(prometheus.CounterOpts{Name: "kmirror_broker_sent_bytes_total", Help: "Bytes of responses sent by the embedded node."}),
		connections: prometheus.NewGauge(prometheus.GaugeOpts{Name: "kmirror_broker_connections", Help: "Open client connections of the embedded node."}),
		refused:     prometheus.NewCounter(prometheus.CounterOpts{Name: "kmirror_broker_connections_refused_total", Help: "Connections refused because max.connections were open."}),
		sessions: prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: "kmirror_broker_fetch_sessions", Help: "Incremental fetch sessions held by the embedded node."},
			func() float64 { return float64(sessions()) }),
		registerer: registerer,
	}
	if registerer == nil {
		return m, nil
	}
	var faults []error
	for _, c := range m.collectors() {
		faults = append(faults, registerer.Register(c))
	}
	return m, errors.Join(faults...)
}

func (m *metrics) collectors() []prometheus.Collector {
	return []prometheus.Collector{m.requests, m.errors, m.seconds, m.bytesIn, m.bytesOut, m.connections, m.refused, m.sessions}
}

// unregister takes the series along when the node ends.
func (m *metrics) unregister() {
	if m.registerer == nil {
		return
	}
	for _, c := range m.collectors() {
		m.registerer.Unregister(c)
	}
}

func (m *metrics) forAPI(name string) apiMetrics {
	return apiMetrics{requests: m.requests.WithLabelValues(name), seconds: m.seconds.WithLabelValues(name)}
}

func (m *metrics) failure(api string, code int16) {
	name := "UNKNOWN_SERVER_ERROR"
	if e := kerr.TypedErrorForCode(code); e != nil {
		name = e.Message
	}
	m.errors.WithLabelValues(api, name).Inc()
}
