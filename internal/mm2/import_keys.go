package mm2

import (
	"slices"
	"strings"
)

// keyRule says what becomes of keys that are not translated one by one.
type keyRule struct {
	keys []string // without prefixes of clusters, flows and roles; * stands for anything at the end
	kind Kind
	what string
}

// KeyRules are what becomes of the keys that are not written to mirror.yaml, the first
// that fits; docs/mirrormaker2.md shows them.
func keyRules() []keyRule {
	return []keyRule{
		{[]string{"refresh.topics.*", "refresh.groups.*"}, KindNotNeeded, "kmirror sees new topics, partitions and groups within seconds"},
		{[]string{"sync.topic.configs.interval.seconds", "sync.topic.acls.interval.seconds"}, KindNotNeeded, "kmirror looks at topics all the time"},
		{[]string{"sync.group.offsets.interval.seconds", "emit.checkpoints.interval.seconds"}, KindNotNeeded, "groups follow within a second; flows.group_sync.interval"},
		{[]string{"emit.heartbeats.interval.seconds"}, KindNotNeeded, "a heartbeat a second"},
		{[]string{"offset.lag.max", "max.outstanding.*"}, KindNotNeeded, "kmirror's map knows every record, not one in a hundred"},
		{[]string{"checkpoints.topic.replication.factor", "heartbeats.topic.replication.factor", "offset-syncs.topic.replication.factor"}, KindNotNeeded, "internal topics get three replicas where there are three brokers"},
		{[]string{"tasks.max", "task.*", "tasks.max.enforce"}, KindNotNeeded, "kmirror divides partitions by what they carry, over all instances"},
		{[]string{"admin.timeout.ms", "consumer.poll.timeout.ms"}, KindNotNeeded, "kmirror retries by itself"},
		{[]string{"exactly.once.source.support", "exactly.once.support", "transaction.boundary*", "transactional.id*"}, KindNotNeeded, "kmirror copies each record once, always"},
		{[]string{"isolation.level"}, KindDifferent, "kmirror reads committed records only; by default MirrorMaker 2 copied aborted ones too"},
		{[]string{"use.defaults.from"}, KindDifferent, "kmirror copies what is set on the source topic itself; what is a default there stays the target's default"},
		{[]string{"use.incremental.alter.configs", "add.source.alias.to.metrics", "auto.include.jmx.reporter"}, KindNoEffect, "MirrorMaker 2 has not had it since 4.0"},
		{[]string{"dedicated.mode.enable.internal.rest", "listeners", "rest.*", "access.control.*", "response.http.*", "admin.listeners*", "advertised.*"}, KindNotNeeded, "instances meet in Consul (coordination), and each has a page and an API (http)"},
		{[]string{"metric.reporters", "metrics.*", "metric.names.formats"}, KindDifferent, "kmirror has /metrics for Prometheus"},
		{[]string{"config.providers*"}, KindNotNeeded, "see config.providers"},
		{[]string{"offset.flush.interval.ms", "offset.flush.timeout.ms"}, KindNotNeeded, "positions are read off the target's log"},
		{[]string{"offset.storage.*", "status.storage.*", "config.storage.*", "group.id", "worker.*", "scheduled.rebalance.max.delay.ms", "rebalance.timeout.ms", "session.timeout.ms", "heartbeat.interval.ms", "connect.protocol", "inter.worker.*", "plugin.*", "topic.creation.*", "task.shutdown.graceful.timeout.ms", "connector.client.config.override.policy"}, KindNotNeeded, "of Kafka Connect's workers, which kmirror does not have"},
		{[]string{"transforms*", "predicates*"}, KindToDo, "kmirror copies records as they are: leave some out with filters, rename topics with rename; what changes records belongs into the consumers, or into a step behind the target"},
		{[]string{"topic.filter.class", "group.filter.class", "config.property.filter.class", "forwarding.admin.class"}, KindToDo, "kmirror loads no classes: say it with topics, groups and configs"},
		{[]string{"key.converter*", "value.converter*", "header.converter*"}, KindToDo, "kmirror copies keys, values and headers byte for byte; another converter than ByteArrayConverter changed them"},
		{[]string{"errors.*"}, KindDifferent, "kmirror skips nothing: see policies and dead_letter_topic"},
		{[]string{"connector.class", "source.cluster.alias", "target.cluster.alias", "source.cluster.*", "target.cluster.*"}, KindNotNeeded, "from and to say it"},
		{[]string{"sasl.mechanism", "sasl.jaas.config", "security.protocol", "ssl.*"}, KindNotNeeded, "kmirror has one way into a cluster, for all that it does there"},
		{[]string{"sasl.*"}, KindToDo, "kmirror knows PLAIN, SCRAM-SHA-256 and SCRAM-SHA-512, with a user and a password"},
		{[]string{"security.providers"}, KindNotNeeded, "of Java"},
		{[]string{"group.instance.id", "client.rack", "client.dns.lookup", "partitioner.*", "interceptor.classes", "key.serializer", "value.serializer", "key.deserializer", "value.deserializer"}, KindNotNeeded, "of Java's clients"},
		{[]string{"compression.*"}, KindDifferent, "batches keep the compression that their producer gave them"},
		{[]string{"topics", "topics.exclude", "topics.blacklist", "topics.regex", "groups", "groups.exclude", "groups.blacklist", "enabled", "name", "replication.factor", "replication.policy.*", "sync.*", "emit.*", "heartbeats.*", "offset-syncs.*", "config.properties.*"}, KindNotNeeded, "every flow that is enabled has another one"},
	}
}

// clientKeys are keys of Kafka's clients that tune what kmirror does not have.
func clientKeys() []string {
	return []string{
		"acks", "batch.*", "buffer.memory", "linger.ms", "max.*", "fetch.*", "receive.buffer.bytes", "send.buffer.bytes", "request.timeout.ms", "retries", "retry.backoff*",
		"reconnect.backoff*", "connections.max.idle.ms", "socket.connection.*", "metadata.*", "default.api.timeout.ms", "delivery.timeout.ms", "enable.*", "auto.*", "check.crcs",
		"session.*", "heartbeat.*", "partition.assignment.strategy", "group.protocol", "exclude.internal.topics", "allow.auto.create.topics", "client.*",
	}
}

func fits(key string, patterns []string) bool {
	return slices.ContainsFunc(patterns, func(pattern string) bool {
		head, any := strings.CutSuffix(pattern, "*")
		return key == pattern || any && strings.HasPrefix(key, head)
	})
}

// split takes the cluster or the flow off a key.
func (m *importer) split(key string) (scope, bare string) {
	for _, from := range m.clusters {
		for _, to := range m.clusters {
			if rest, ok := strings.CutPrefix(key, from+"->"+to+"."); ok {
				return from + "->" + to, rest
			}
		}
	}
	for _, alias := range m.clusters {
		if rest, ok := strings.CutPrefix(key, alias+"."); ok && len(alias) > len(scope) {
			scope, bare = alias, rest
		}
	}
	if scope == "" {
		return "", key
	}
	return scope, bare
}

// rest finds a word for every key that has none yet.
func (m *importer) rest() {
	var left []Property
	for key, p := range m.props {
		if !m.told[key] {
			left = append(left, p)
		}
	}
	slices.SortFunc(left, func(a, b Property) int { return a.Line - b.Line })
	for _, p := range left {
		kind, what := m.judge(p)
		m.tell(kind, p.Key, what)
	}
}

// judge says what becomes of a key that nothing asked for.
func (m *importer) judge(p Property) (Kind, string) {
	scope, bare := m.split(p.Key)
	role := ""
	for _, prefix := range []string{"source.consumer.", "source.producer.", "source.admin.", "target.producer.", "target.consumer.", "target.admin.", "producer.override.", "consumer.override.", "admin.override.", "consumer.", "producer.", "admin."} {
		if rest, ok := strings.CutPrefix(bare, prefix); ok && rest != "poll.timeout.ms" {
			role, bare = prefix, rest
			break
		}
	}
	if scope == "" && role == "" && (strings.HasPrefix(bare, "offset.flush.") || bare == "group.id") {
		return KindNoEffect, "MirrorMaker 2 heeds it behind a target's alias only (B." + bare + "): as it stands here it has no effect, and positions were stored every 60 seconds"
	}
	if scope == "" && strings.Contains(p.Key, "->") {
		return KindToDo, "it names a cluster that is not in clusters"
	}
	if (bare == "config.property.filter.class" || bare == "topic.filter.class" || bare == "group.filter.class" || bare == "forwarding.admin.class") && strings.HasPrefix(p.Value, "org.apache.kafka.connect.mirror.") {
		return KindNotNeeded, "MirrorMaker 2's own class"
	}
	if strings.Contains(bare, ".converter") && strings.HasSuffix(p.Value, "ByteArrayConverter") {
		return KindNotNeeded, "kmirror copies bytes too"
	}
	for _, rule := range keyRules() {
		if fits(bare, rule.keys) {
			return rule.kind, rule.what
		}
	}
	switch {
	case fits(bare, clientKeys()):
		return KindNotNeeded, "of Java's clients; kmirror tunes itself (buffer, throttle)"
	case scope == "" && role == "":
		return KindNoEffect, "no key of MirrorMaker 2: it did not heed it"
	}
	return KindToDo, "kmirror does not know this key: see whether something of it is needed"
}
