package replica

import (
	"math"
	"slices"

	"github.com/twmb/franz-go/pkg/kerr"
)

// BrokerConfigs is the table of broker settings that this broker heeds or that
// tools look for, by name. Names, types and limits are Kafka's; defaults differ
// where one small node does: no initial rebalance delay, replication factors
// of 1, a bound on the size of groups.
func BrokerConfigs() []Definition {
	table := []Definition{
		{Name: "advertised.listeners", Type: String, Doc: "The address that clients are told."},
		{Name: "auto.create.topics.enable", Type: Boolean, Default: "true", Doc: "Whether a topic is made when a client asks for it and it does not exist."},
		{Name: "broker.id", Type: Int, Default: "1", min: -1, max: math.MaxInt32, Doc: "The id of this broker."},
		{Name: "broker.rack", Type: String, Doc: "The rack of this broker."},
		{Name: "connections.max.idle.ms", Type: Long, Default: "600000", min: -1, max: unlimited, Doc: "How long a connection may be silent before it is closed."},
		{Name: "default.replication.factor", Type: Int, Default: "1", min: 1, max: math.MaxInt16, Doc: "The replication factor of topics that do not ask for one."},
		{Name: "delete.topic.enable", Type: Boolean, Default: "true", Doc: "Whether topics can be deleted."},
		{Name: "fetch.max.bytes", Type: Int, Default: "57671680", min: 1024, max: math.MaxInt32, Doc: "The most that one fetch is answered with."},
		{Name: "group.initial.rebalance.delay.ms", Type: Int, Default: "0", min: 0, max: math.MaxInt32, Doc: "How long the first rebalance of an empty group waits for more members. (Kafka's default is 3000; the file it ships says 0.)"},
		{Name: "group.max.session.timeout.ms", Type: Int, Default: "1800000", min: 1, max: math.MaxInt32, Doc: "The longest session timeout that a member may ask for."},
		{Name: "group.max.size", Type: Int, Default: "10000", min: 1, max: math.MaxInt32, Doc: "How many members a group may have. (Kafka has no limit.)"},
		{Name: "group.min.session.timeout.ms", Type: Int, Default: "6000", min: 1, max: math.MaxInt32, Doc: "The shortest session timeout that a member may ask for."},
		{Name: "listeners", Type: String, Doc: "The address that this broker listens on."},
		{Name: "log.dirs", Type: String, Doc: "The data directory."},
		{Name: "log.retention.check.interval.ms", Type: Long, Default: "300000", min: 1, max: unlimited, Doc: "How often segments are looked at for deletion."},
		{Name: "log.retention.hours", Type: Int, Default: "168", min: math.MinInt32, max: math.MaxInt32, Doc: "How long records are kept, in hours; log.retention.minutes and log.retention.ms come first."},
		{Name: "log.retention.minutes", Type: Int, min: math.MinInt32, max: math.MaxInt32, Doc: "How long records are kept, in minutes; log.retention.ms comes first."},
		{Name: "log.roll.hours", Type: Int, Default: "168", min: 1, max: math.MaxInt32, Doc: "The age at which a segment is closed, in hours; log.roll.ms comes first."},
		{Name: "log.roll.jitter.hours", Type: Int, Default: "0", min: 0, max: math.MaxInt32, Doc: "By how much at most log.roll.hours is shortened; log.roll.jitter.ms comes first."},
		{Name: "log.flush.scheduler.interval.ms", Type: Long, Default: "9223372036854775807", min: 0, max: unlimited, Doc: "How often to look for logs to flush. The node's fsync mode decides here; accepted for compatibility."},
		{Name: "max.incremental.fetch.session.cache.slots", Type: Int, Default: "1000", min: 0, max: math.MaxInt32, Doc: "How many fetch sessions are kept."},
		{Name: "node.id", Type: Int, Default: "1", min: 0, max: math.MaxInt32, Doc: "The id of this node."},
		{Name: "num.partitions", Type: Int, Default: "1", min: 1, max: math.MaxInt32, Doc: "The partitions of topics that do not ask for a number."},
		{Name: "offset.metadata.max.bytes", Type: Int, Default: "4096", min: 0, max: math.MaxInt32, Doc: "The most metadata that may come with a committed offset."},
		{Name: "offsets.retention.check.interval.ms", Type: Long, Default: "600000", min: 1, max: unlimited, Doc: "How often committed offsets are looked at for expiry."},
		{Name: "offsets.retention.minutes", Type: Int, Default: "10080", min: 1, max: math.MaxInt32, Doc: "How long committed offsets are kept after their group became empty."},
		{Name: "offsets.topic.num.partitions", Type: Int, Default: "50", min: 1, max: math.MaxInt32, Doc: "The partitions of __consumer_offsets; must not change once it exists."},
		{Name: "offsets.topic.replication.factor", Type: Int, Default: "1", min: 1, max: math.MaxInt16, Doc: "The replication factor of __consumer_offsets."},
		{Name: "offsets.topic.segment.bytes", Type: Int, Default: "104857600", min: 1, max: math.MaxInt32, Doc: "The segment size of __consumer_offsets."},
		{Name: "producer.id.expiration.ms", Type: Int, Default: "86400000", min: 1, max: math.MaxInt32, Doc: "How long a partition remembers a producer that is silent."},
		{Name: "transaction.abort.timed.out.transaction.cleanup.interval.ms", Type: Int, Default: "10000", min: 1, max: math.MaxInt32, Doc: "How often Kafka looks for transactions that are over time. This broker ends each when its time is over; accepted for compatibility."},
		{Name: "transaction.max.timeout.ms", Type: Int, Default: "900000", min: 1, max: math.MaxInt32, Doc: "The longest time that a producer may ask for its transactions."},
		{Name: "transaction.remove.expired.transaction.cleanup.interval.ms", Type: Int, Default: "3600000", min: 1, max: math.MaxInt32, Doc: "How often transactional ids are looked at for expiry."},
		{Name: "transaction.state.log.min.isr", Type: Int, Default: "1", min: 1, max: math.MaxInt32, Doc: "The min.insync.replicas of __transaction_state."},
		{Name: "transaction.state.log.num.partitions", Type: Int, Default: "50", min: 1, max: math.MaxInt32, Doc: "The partitions of __transaction_state; must not change once it exists."},
		{Name: "transaction.state.log.replication.factor", Type: Int, Default: "1", min: 1, max: math.MaxInt16, Doc: "The replication factor of __transaction_state."},
		{Name: "transaction.state.log.segment.bytes", Type: Int, Default: "104857600", min: 1, max: math.MaxInt32, Doc: "The segment size of __transaction_state."},
		{Name: "transactional.id.expiration.ms", Type: Int, Default: "604800000", min: 1, max: math.MaxInt32, Doc: "How long a transactional id is remembered that nobody uses."},
		{Name: "socket.request.max.bytes", Type: Int, Default: "104857600", min: 1, max: math.MaxInt32, Doc: "The largest request that is accepted."},
	}
	// Whatever a topic can override has a broker setting, which can be changed
	// while the broker runs.
	for _, t := range TopicConfigs() {
		for i, syn := range t.Synonyms {
			if at := slices.IndexFunc(table, func(d Definition) bool { return d.Name == syn.Name }); at >= 0 {
				table[at].Dynamic = true
				continue
			}
			d := t
			d.Name, d.Synonyms, d.Dynamic = syn.Name, nil, true
			if i == 0 && len(t.Synonyms) > 1 { // log.retention.ms stands for what log.retention.hours says
				d.Synonyms, d.Default = t.Synonyms[1:], ""
			}
			table = append(table, d)
		}
	}
	slices.SortFunc(table, func(a, b Definition) int {
		switch {
		case a.Name < b.Name:
			return -1
		case a.Name > b.Name:
			return 1
		}
		return 0
	})
	return table
}

// ValidateBrokerConfig refuses a broker setting that is not known or whose
// value does not fit: *Error INVALID_CONFIG.
func ValidateBrokerConfig(name, value string) error {
	d := find(brokerTable(), name)
	if d == nil {
		return refuse(kerr.InvalidConfig, "Unknown broker config name: %s", name)
	}
	if err := d.check(value); err != nil {
		return refuse(kerr.InvalidConfig, "%s", err.Error())
	}
	return nil
}
