package replica

import (
	"math"
	"strconv"

	"github.com/twmb/franz-go/pkg/kerr"
)

const (
	minuteMillis = 60 * 1000
	hourMillis   = 60 * minuteMillis
	unlimited    = math.MaxInt64
)

func compressions() []string {
	return []string{"uncompressed", "zstd", "lz4", "snappy", "gzip", "producer"}
}

// TopicConfigs is the table of topic settings, by name, as of Kafka 4.x. All
// are accepted and shown; those that only matter to tiered storage, to
// compaction or to several nodes have no effect here, which their text says.
func TopicConfigs() []Definition {
	same := func(names ...string) (s []Synonym) {
		for _, n := range names {
			s = append(s, Synonym{n, 1})
		}
		return s
	}
	return []Definition{
		{
			Name: "cleanup.policy", Type: List, Default: "delete", Synonyms: same("log.cleanup.policy"), oneOf: []string{"compact", "delete"}, minItems: 1,
			Doc: "What happens to old segments: delete removes them when retention has passed, compact keeps the latest record of each key. Compacted topics need keys; compaction itself is not done yet.",
		},
		{
			Name: "compression.gzip.level", Type: Int, Default: "-1", Synonyms: same("compression.gzip.level"), min: -1, max: 9,
			Doc: "The gzip level when compression.type is gzip; -1 is gzip's own default. Accepted for compatibility.",
		},
		{
			Name: "compression.lz4.level", Type: Int, Default: "9", Synonyms: same("compression.lz4.level"), min: 1, max: 17,
			Doc: "The lz4 level when compression.type is lz4. Accepted for compatibility.",
		},
		{
			Name: "compression.type", Type: String, Default: "producer", Synonyms: same("compression.type"), oneOf: compressions(),
			Doc: "How batches are stored: producer keeps them as they come, otherwise they are compressed anew as named.",
		},
		{
			Name: "compression.zstd.level", Type: Int, Default: "3", Synonyms: same("compression.zstd.level"), min: -131072, max: 22,
			Doc: "The zstd level when compression.type is zstd. Accepted for compatibility.",
		},
		{
			Name: "delete.retention.ms", Type: Long, Default: "86400000", Synonyms: same("log.cleaner.delete.retention.ms"), min: 0, max: unlimited,
			Doc: "How long tombstones stay in a compacted topic.",
		},
		{
			Name: "file.delete.delay.ms", Type: Long, Default: "60000", Synonyms: same("log.segment.delete.delay.ms"), min: 0, max: unlimited,
			Doc: "How long the file of a deleted segment stays before it is removed.",
		},
		{
			Name: "flush.messages", Type: Long, Default: "9223372036854775807", Synonyms: same("log.flush.interval.messages"), min: 1, max: unlimited,
			Doc: "After how many records to force them to disk. The node's fsync mode decides here; accepted for compatibility.",
		},
		{
			Name: "flush.ms", Type: Long, Default: "9223372036854775807", Synonyms: same("log.flush.interval.ms", "log.flush.scheduler.interval.ms"), min: 0, max: unlimited,
			Doc: "After how much time to force records to disk. The node's fsync mode decides here; accepted for compatibility.",
		},
		{
			Name: "follower.replication.throttled.replicas", Type: List, Default: "",
			Doc: "Replicas whose replication is throttled on the follower's side. Accepted for compatibility.",
		},
		{
			Name: "index.interval.bytes", Type: Int, Default: "4096", Synonyms: same("log.index.interval.bytes"), min: 0, max: math.MaxInt32,
			Doc: "How many bytes of log there are for each entry of the offset index.",
		},
		{
			Name: "leader.replication.throttled.replicas", Type: List, Default: "",
			Doc: "Replicas whose replication is throttled on the leader's side. Accepted for compatibility.",
		},
		{
			Name: "local.retention.bytes", Type: Long, Default: "-2", min: -2, max: unlimited,
			Doc: "Tiered storage: how much to keep locally. Without effect here.",
		},
		{
			Name: "local.retention.ms", Type: Long, Default: "-2", min: -2, max: unlimited,
			Doc: "Tiered storage: how long to keep segments locally. Without effect here.",
		},
		{
			Name: "max.compaction.lag.ms", Type: Long, Default: "9223372036854775807", Synonyms: same("log.cleaner.max.compaction.lag.ms"), min: 1, max: unlimited,
			Doc: "The longest time that a record of a compacted topic stays out of compaction.",
		},
		{
			Name: "max.message.bytes", Type: Int, Default: "1048588", Synonyms: same("message.max.bytes"), min: 0, max: math.MaxInt32,
			Doc: "The largest record batch that is accepted, after compression.",
		},
		{
			Name: "message.timestamp.after.max.ms", Type: Long, Default: "3600000", Synonyms: same("log.message.timestamp.after.max.ms"), min: 0, max: unlimited,
			Doc: "How far a record's timestamp may be ahead of the broker's clock, with CreateTime.",
		},
		{
			Name: "message.timestamp.before.max.ms", Type: Long, Default: "9223372036854775807", Synonyms: same("log.message.timestamp.before.max.ms"), min: 0, max: unlimited,
			Doc: "How far a record's timestamp may be behind the broker's clock, with CreateTime.",
		},
		{
			Name: "message.timestamp.type", Type: String, Default: "CreateTime", Synonyms: same("log.message.timestamp.type"), oneOf: []string{"CreateTime", "LogAppendTime"},
			Doc: "Whose timestamp a record has: the producer's, or the broker's.",
		},
		{
			Name: "min.cleanable.dirty.ratio", Type: Double, Default: "0.5", Synonyms: same("log.cleaner.min.cleanable.ratio"), min: 0, max: 1,
			Doc: "The share of a compacted log that is not compacted yet from which on it is worth doing.",
		},
		{
			Name: "min.compaction.lag.ms", Type: Long, Default: "0", Synonyms: same("log.cleaner.min.compaction.lag.ms"), min: 0, max: unlimited,
			Doc: "The shortest time that a record of a compacted topic stays as it is.",
		},
		{
			Name: "min.insync.replicas", Type: Int, Default: "1", Synonyms: same("min.insync.replicas"), min: 1, max: math.MaxInt32,
			Doc: "How many replicas must have a batch before acks=all is answered; more than there are replicas counts as all of them.",
		},
		{
			Name: "preallocate", Type: Boolean, Default: "false", Synonyms: same("log.preallocate"),
			Doc: "Whether to reserve the space of a new segment. Accepted for compatibility.",
		},
		{
			Name: "remote.log.copy.disable", Type: Boolean, Default: "false",
			Doc: "Tiered storage: stop copying. Without effect here.",
		},
		{
			Name: "remote.log.delete.on.disable", Type: Boolean, Default: "false",
			Doc: "Tiered storage: delete when it is switched off. Without effect here.",
		},
		{
			Name: "remote.storage.enable", Type: Boolean, Default: "false",
			Doc: "Tiered storage, which this broker does not have: only false is accepted.",
		},
		{
			Name: "retention.bytes", Type: Long, Default: "-1", Synonyms: same("log.retention.bytes"), min: -1, max: unlimited,
			Doc: "How large a partition may grow before its oldest segments are deleted; -1: without limit.",
		},
		{
			Name: "retention.ms", Type: Long, Default: "604800000", min: -1, max: unlimited,
			Synonyms: []Synonym{{"log.retention.ms", 1}, {"log.retention.minutes", minuteMillis}, {"log.retention.hours", hourMillis}},
			Doc:      "How long records are kept before their segment is deleted; -1: for ever.",
		},
		{
			Name: "segment.bytes", Type: Int, Default: "1073741824", Synonyms: same("log.segment.bytes"), min: 14, max: math.MaxInt32,
			Doc: "The size at which a segment file is closed and the next one begun.",
		},
		{
			Name: "segment.index.bytes", Type: Int, Default: "10485760", Synonyms: same("log.index.size.max.bytes"), min: 4, max: math.MaxInt32,
			Doc: "The size that the index of a segment may reach.",
		},
		{
			Name: "segment.jitter.ms", Type: Long, Default: "0", min: 0, max: unlimited,
			Synonyms: []Synonym{{"log.roll.jitter.ms", 1}, {"log.roll.jitter.hours", hourMillis}},
			Doc:      "By how much at most segment.ms is shortened at random. Accepted for compatibility.",
		},
		{
			Name: "segment.ms", Type: Long, Default: "604800000", min: 1, max: unlimited,
			Synonyms: []Synonym{{"log.roll.ms", 1}, {"log.roll.hours", hourMillis}},
			Doc:      "The age at which a segment file is closed, full or not.",
		},
		{
			Name: "unclean.leader.election.enable", Type: Boolean, Default: "false", Synonyms: same("unclean.leader.election.enable"),
			Doc: "Whether a replica that is behind may lead when no other is left, at the price of lost records.",
		},
	}
}

// ValidateTopicConfig refuses a topic setting that does not exist or whose
// value does not fit: *Error INVALID_CONFIG.
func ValidateTopicConfig(name, value string) error {
	d := find(topicTable(), name)
	if d == nil {
		return refuse(kerr.InvalidConfig, "Unknown topic config name: %s", name)
	}
	if err := d.check(value); err != nil {
		return refuse(kerr.InvalidConfig, "%s", err.Error())
	}
	if on, _ := parseBool(value); on && name == "remote.storage.enable" {
		return refuse(kerr.InvalidConfig, "Tiered storage functionality is disabled in the broker. Topic cannot be configured with remote log storage.")
	}
	return nil
}

// validateTogether refuses topic settings that contradict each other.
func validateTogether(overrides map[string]string, s Settings) error {
	table := topicTable()
	value := func(name string) int64 {
		v, _ := s.resolveTopic(find(table, name), overrides)
		return parseInt(v)
	}
	if least, most := value("min.compaction.lag.ms"), value("max.compaction.lag.ms"); least > most {
		return refuse(kerr.InvalidConfig, "conflict between topic config setting min.compaction.lag.ms (%s) and max.compaction.lag.ms (%s)",
			strconv.FormatInt(least, 10), strconv.FormatInt(most, 10))
	}
	return nil
}
