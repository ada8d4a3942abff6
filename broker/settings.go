package broker

import (
	"strconv"
	"time"

	"kmirror/broker/coordinator"
)

// settings are the broker configurations that the node itself heeds, read once
// at Open. What may change while it runs (auto.create.topics.enable,
// num.partitions) is read from the image where it is needed.
type settings struct {
	idle              time.Duration // connections.max.idle.ms
	maxConnections    int           // max.connections
	requestBytes      int32         // socket.request.max.bytes
	fetchBytes        int32         // fetch.max.bytes
	sessionSlots      int           // max.incremental.fetch.session.cache.slots
	offsetsPartitions int32         // offsets.topic.num.partitions
	producerExpiry    time.Duration // producer.id.expiration.ms
	retentionCheck    time.Duration // log.retention.check.interval.ms
	groups            coordinator.Settings

	transactionPartitions int32 // transaction.state.log.num.partitions
	transactions          coordinator.TransactionSettings
}

// newSettings reads settings through get, which returns the value in force of a
// broker configuration by Kafka's name, already validated.
func newSettings(get func(name string) string) settings {
	number := func(name string, fallback int64) int64 {
		if v, err := strconv.ParseInt(get(name), 10, 64); err == nil {
			return v
		}
		return fallback
	}
	millis := func(name string, fallback time.Duration) time.Duration {
		return time.Duration(number(name, fallback.Milliseconds())) * time.Millisecond
	}
	g := coordinator.DefaultSettings()
	g.MinSessionTimeout = millis("group.min.session.timeout.ms", g.MinSessionTimeout)
	g.MaxSessionTimeout = millis("group.max.session.timeout.ms", g.MaxSessionTimeout)
	g.InitialRebalanceDelay = millis("group.initial.rebalance.delay.ms", g.InitialRebalanceDelay)
	g.MaxGroupSize = int(min(number("group.max.size", int64(g.MaxGroupSize)), int64(g.MaxGroupSize)))
	g.OffsetMetadataMax = int(number("offset.metadata.max.bytes", int64(g.OffsetMetadataMax)))
	g.OffsetsRetention = time.Duration(number("offsets.retention.minutes", int64(g.OffsetsRetention/time.Minute))) * time.Minute
	g.OffsetsRetentionCheck = millis("offsets.retention.check.interval.ms", g.OffsetsRetentionCheck)
	t := coordinator.DefaultTransactionSettings()
	t.MaxTimeout = millis("transaction.max.timeout.ms", t.MaxTimeout)
	t.Expiration = millis("transactional.id.expiration.ms", t.Expiration)
	t.ExpirationCheck = millis("transaction.remove.expired.transaction.cleanup.interval.ms", t.ExpirationCheck)
	s := settings{
		idle:              millis("connections.max.idle.ms", 10*time.Minute),
		maxConnections:    int(min(number("max.connections", defaultConnections), defaultConnections)),
		requestBytes:      int32(number("socket.request.max.bytes", 100<<20)),
		fetchBytes:        int32(number("fetch.max.bytes", 55<<20)),
		sessionSlots:      int(number("max.incremental.fetch.session.cache.slots", 1000)),
		offsetsPartitions: int32(number("offsets.topic.num.partitions", offsetsPartitions)),
		producerExpiry:    millis("producer.id.expiration.ms", 24*time.Hour),
		retentionCheck:    millis("log.retention.check.interval.ms", 5*time.Minute),
		groups:            g,

		transactionPartitions: int32(number("transaction.state.log.num.partitions", transactionPartitions)),
		transactions:          t,
	}
	if s.idle <= 0 { // Kafka: never
		s.idle = 365 * 24 * time.Hour
	}
	return s
}
