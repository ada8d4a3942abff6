package coordinator

import "time"

// Settings are the broker settings that groups obey.
type Settings struct {
	MinSessionTimeout time.Duration // group.min.session.timeout.ms
	MaxSessionTimeout time.Duration // group.max.session.timeout.ms
	// InitialRebalanceDelay is how long the first rebalance of an empty group
	// waits for more members (group.initial.rebalance.delay.ms).
	InitialRebalanceDelay time.Duration
	MaxGroupSize          int           // group.max.size; members of one group
	MaxGroups             int           // groups of this coordinator; ours, Kafka has no such limit
	OffsetMetadataMax     int           // offset.metadata.max.bytes
	OffsetsRetention      time.Duration // offsets.retention.minutes
	OffsetsRetentionCheck time.Duration // offsets.retention.check.interval.ms
	// NewMemberJoinTimeout ends the join of a member that does not know its id
	// yet; Kafka's constant.
	NewMemberJoinTimeout time.Duration
}

// DefaultSettings are Kafka's defaults, with three exceptions: no initial
// rebalance delay (Kafka's code says 3 s, the server.properties it ships says
// 0, and an embedded cluster is a lab more often than not), and limits of
// 10 000 members and 100 000 groups where Kafka has none.
func DefaultSettings() Settings {
	return Settings{
		MinSessionTimeout:     6 * time.Second,
		MaxSessionTimeout:     30 * time.Minute,
		InitialRebalanceDelay: 0,
		MaxGroupSize:          10_000,
		MaxGroups:             100_000,
		OffsetMetadataMax:     4096,
		OffsetsRetention:      7 * 24 * time.Hour,
		OffsetsRetentionCheck: 10 * time.Minute,
		NewMemberJoinTimeout:  5 * time.Minute,
	}
}

func (s Settings) retentionCheck() time.Duration {
	if s.OffsetsRetentionCheck <= 0 {
		return 10 * time.Minute
	}
	return s.OffsetsRetentionCheck
}
