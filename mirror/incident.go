package mirror

import "time"

// Incident is something that an operator has to know of: data that was lost,
// doubled, set aside or is held back, and what was done about it. It is written
// once and never changed, but for Times and Last.
type Incident struct {
	ID       uint64    `json:"id"`   // grows by one; of this instance
	Time     time.Time `json:"time"` // of the first occurrence
	Instance string    `json:"instance"`
	Flow     string    `json:"flow"`
	Topic    string    `json:"topic"`     // of the source; "" when it is about the whole flow
	Kind     string    `json:"kind"`      // one of the Kind constants
	Detail   string    `json:"detail"`    // what was found, with both sides where there are two
	Action   string    `json:"action"`    // what was done, and what the operator can do
	Times    int64     `json:"times"`     // how often it occurred; at least 1
	Last     time.Time `json:"last_time"` // of the last occurrence

	Partition    int32 `json:"partition"`     // -1 when it is about a whole topic or flow
	SourceOffset int64 `json:"source_offset"` // where it begins at the source; -1 unknown
	TargetOffset int64 `json:"target_offset"` // where it begins at the target; -1 unknown
	Count        int64 `json:"count"`         // offsets or records concerned; -1 unknown
}

// Kinds of incidents.
const (
	KindRecordTooLarge         = "record-too-large"         // a record that the target topic does not take
	KindDeadLetter             = "dead-letter"              // a record was set aside
	KindRetentionLoss          = "retention-loss"           // the source deleted records before they were mirrored
	KindSourceTruncated        = "source-truncated"         // the source lost records that were mirrored
	KindSourceRecreated        = "source-recreated"         // the source topic was deleted and created anew
	KindSourceDeleted          = "source-deleted"           // the source topic is gone
	KindTargetDeleted          = "target-deleted"           // the target topic was deleted under us
	KindTargetTruncated        = "target-truncated"         // the target lost records that it had acknowledged
	KindTargetPartitionMissing = "target-partition-missing" // the target topic has too few partitions and cannot get more
	KindForeignWrite           = "foreign-write"            // something else writes to the target topic
	KindConfigDrift            = "config-drift"             // the target topic's configs are not the source's
	KindAuthorization          = "authorization"            // a right was taken away
	KindFenceWaits             = "fence-waits"              // a dead owner cannot be fenced
	KindFenceLost              = "fence-lost"               // a dead owner can never be fenced
	KindFenced                 = "fenced"                   // a dead owner was fenced, or this instance was
	KindSeamMismatch           = "seam-mismatch"            // the target does not hold what the source holds
	KindSeamUnverified         = "seam-unverified"          // whether it does can no longer be told
	KindCorruptBatch           = "corrupt-batch"            // a batch that cannot be read
	KindPositionDoubt          = "position-doubt"           // the target answered what does not fit
	KindOutOfDisk              = "out-of-disk"              // the target cannot store
	KindDoubled                = "doubled"                  // records stand twice in the target
	KindTakeoverUnproven       = "takeover-unproven"        // where MirrorMaker 2 stopped cannot be proven
	KindUnlistedCircle         = "unlisted-circle"          // another deployment mirrors the target back into the source
)

// Journal takes incidents. Record may be called from any goroutine and does not
// wait for the disk; ID, Time, Instance, Flow, Times and Last are filled in
// where they are empty. An incident that occurs again (same kind, partition and
// detail) within an hour is counted, not written anew.
type Journal interface{ Record(Incident) }

// about is an incident of one partition, with all numbers unknown.
func about(id partitionID, kind, detail, action string) Incident {
	return Incident{
		Flow: id.Flow, Topic: id.Topic, Partition: id.Partition, Kind: kind, Detail: detail, Action: action,
		SourceOffset: -1, TargetOffset: -1, Count: -1,
	}
}

// aboutTopic is an incident of a whole topic.
func aboutTopic(flow, topic, kind, detail, action string) Incident {
	return about(partitionID{flow, topic, -1}, kind, detail, action)
}
