package mirror

import "time"

// Status is one instance's view of the world at one moment, as the API and the
// page show it. It is a copy: the receiver owns it.
type Status struct {
	Instance string    `json:"instance"`
	Version  string    `json:"version"`
	Started  time.Time `json:"started"`
	// Life is the id of this instance's current membership, empty while it has none.
	Life string `json:"life"`
	// Leading tells whether this instance holds the leader term, and Term its fence.
	Leading  bool            `json:"leading"`
	Term     uint64          `json:"term"`
	Members  []string        `json:"members"`
	Clusters []ClusterStatus `json:"clusters"`
	Flows    []FlowStatus    `json:"flows"`
	// Maps are the offset maps in the target clusters, and Skipped what was passed
	// over in internal topics; only the leading instance looks at them.
	Maps    []MapStatus      `json:"maps,omitempty"`
	Skipped []SkippedRecords `json:"skipped,omitempty"`
}

// ClusterStatus is what this instance knows about one cluster.
type ClusterStatus struct {
	Name string `json:"name"`
	// ID is the cluster id, empty until the cluster was reached once.
	ID string `json:"id"`
	// Kind is "embedded" or "external".
	Kind      string   `json:"kind"`
	Addresses []string `json:"addresses"`
	Reachable bool     `json:"reachable"`
	Error     string   `json:"error,omitempty"`
	// LastSeen is when it answered last; it is asked every few seconds.
	LastSeen *time.Time `json:"last_seen,omitempty"`
}

// FlowStatus is one flow as this instance carries it. Counters start with the
// process; rates are per second over the last few seconds.
type FlowStatus struct {
	Name   string `json:"name"`
	From   string `json:"from"`
	To     string `json:"to"`
	Naming string `json:"naming"`
	// State is "starting", "mirroring", "degraded" or, with all of it, "paused".
	State string `json:"state"`
	Error string `json:"error,omitempty"`
	// Fence says how dead owners are kept from writing: "fenced", "detection",
	// or empty while that is not known.
	Fence string `json:"fence,omitempty"`
	// Throttle is what mirror.yaml allows in bytes per second, over all instances; 0: no limit.
	Throttle         int64   `json:"throttle,omitempty"`
	Records          uint64  `json:"records"`
	Bytes            uint64  `json:"bytes"`
	RecordsPerSecond float64 `json:"records_per_second"`
	BytesPerSecond   float64 `json:"bytes_per_second"`
	// Housekeeping is what this life has done to keep the offset map's topic small.
	Housekeeping HousekeepingStats `json:"housekeeping"`
	// The lag is that of the partitions that this instance has; see Lag. Known
	// says that the topics of the flow have been seen.
	LagRecords        int64         `json:"lag_records"`
	LagBytes          int64         `json:"lag_bytes"`
	LagBytesEstimated bool          `json:"lag_bytes_estimated,omitempty"`
	LagSeconds        float64       `json:"lag_seconds"`
	LagUnknown        int           `json:"lag_unknown_partitions,omitempty"`
	Known             bool          `json:"known"`
	Topics            []TopicStatus `json:"topics"`
}

// TopicStatus is one mirrored topic of a flow.
type TopicStatus struct {
	Source           string  `json:"source"`
	Target           string  `json:"target"`
	Records          uint64  `json:"records"`
	Bytes            uint64  `json:"bytes"`
	RecordsPerSecond float64 `json:"records_per_second"`
	BytesPerSecond   float64 `json:"bytes_per_second"`
	LagRecords       int64   `json:"lag_records"`
	// LagBytes is nearly always an estimate: what a record of the topic takes on
	// average, or the missing ones that were looked at.
	LagBytes          int64   `json:"lag_bytes"`
	LagBytesEstimated bool    `json:"lag_bytes_estimated,omitempty"`
	LagSeconds        float64 `json:"lag_seconds"`
	LagUnknown        int     `json:"lag_unknown_partitions,omitempty"`
	// NewestMirrored is the greatest timestamp of a record that this process has
	// brought into the target.
	NewestMirrored *time.Time `json:"newest_mirrored,omitempty"`
	// Modes counts batches by the step of the ladder that carried them.
	Modes      map[string]uint64 `json:"modes,omitempty"`
	Error      string            `json:"error,omitempty"`
	Partitions []PartitionStatus `json:"partitions"`
}

// PartitionStatus is one partition of a mirrored topic. Offsets and lags that
// are not known yet are -1.
type PartitionStatus struct {
	Partition int32 `json:"partition"`
	// Owner is the life that mirrors the partition, empty while nobody does.
	Owner string `json:"owner"`
	// State is "starting", "mirroring", "waiting", "stopped" or "paused"; Error
	// says why, for a paused one by whom.
	State      string  `json:"state"`
	Error      string  `json:"error,omitempty"`
	Position   int64   `json:"position"`
	SourceEnd  int64   `json:"source_end"`
	TargetEnd  int64   `json:"target_end"`
	LagRecords int64   `json:"lag_records"`
	LagBytes   int64   `json:"lag_bytes"`
	LagSeconds float64 `json:"lag_seconds"`

	LagBytesEstimated bool `json:"lag_bytes_estimated,omitempty"`
	// Oldest is the timestamp of the first record that is missing, where it was read.
	Oldest *time.Time `json:"oldest_missing,omitempty"`
}
