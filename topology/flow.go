package topology

import (
	"fmt"
	"regexp"
	"slices"
	"time"
)

// Naming says what a topic of the source is called on the target.
type Naming string

// The namings.
const (
	Prefixed Naming = "prefixed" // orders of east is east.orders
	Identity Naming = "identity" // orders is orders
)

// Flow mirrors topics of one cluster into another. Make one with [NewFlow] or
// [Parse]; the fields are read-only afterwards.
type Flow struct {
	Name     string // From + "->" + To, unique in a file
	From, To string // cluster names

	Topics        []string // RE2, full match
	ExcludeTopics []string // wins over Topics
	Groups        []string // consumer groups whose offsets are kept exact on the target
	ExcludeGroups []string // wins over Groups

	Naming            Naming
	Separator         string // between cluster name and topic
	InternalSeparator string // in the names of MirrorMaker 2's internal topics, ask CheckpointsTopic and OffsetSyncsTopic; Separator if mirror.yaml does not say

	Start             []StartRule       // the first whose pattern matches; none: earliest
	ReplicationFactor int16             // of topics created on the target; 0: the source topic's, at most one per broker of the target
	Configs           ConfigSync        // of topic configs
	MirrorMaker2      MirrorMaker2Store // what start: mirrormaker2 reads
	GroupSync         GroupSync         // of consumer group offsets
	Heartbeats        bool              // emit MirrorMaker 2's heartbeats to the target and mirror the source's
	Checkpoints       bool              // write MirrorMaker 2's checkpoints to the target
	OffsetSyncs       OffsetSyncs       // whether and where MirrorMaker 2's offset syncs are written

	Policies        Policies     // what is done when something goes wrong; ask PoliciesFor
	TopicRules      []TopicRule  // the first that matches holds instead of Policies and Pause
	Pause           bool         // nothing is mirrored for now; ask Paused
	Fence           FenceMode    // how dead owners are kept from writing
	Throttle        int64        // bytes per second on the wire, over all its partitions; 0: as fast as it goes
	DeadLetterTopic string       // on the target; empty: one for each target topic, see LetterTopic
	Filters         []Filter     // records that are left out; ask FilterFor
	Rename          []RenameRule // the first that matches gives a topic its name on the target, before the prefix

	// What the flows of the file make of this one; not written, see [LoopRule].

	Loop   LoopRule // how records are kept from going round; LoopNone but for identity naming
	Drops  []string // names of the flows into From whose batches this flow leaves out
	Refill bool     // what a flow of Drops brought from another cluster, which stood in the target's place before, is forwarded: nobody else could

	follows                                                      bool // topic configs go the other way, see SyncsConfigs
	topics, excludeTopics, groups, excludeGroups, excludeConfigs patterns
	loops                                                        *regexp.Regexp    // topics that already came from the target
	heartbeats                                                   *regexp.Regexp    // MM2's heartbeats topics
	letters                                                      patterns          // dead-letter topics on the source
	letterPatterns                                               []string          // the same
	listed                                                       map[string]string // if Topics are plain names and some are renamed: by name on the target
}

// ConfigSync says which topic configs are kept equal.
type ConfigSync struct {
	Sync    bool     // keep the target's topic configs as the source's
	Exclude []string // config names that are not copied, RE2, full match
}

// GroupSync says whether and how often translated group offsets are committed to the target.
type GroupSync struct {
	Enabled  bool
	Interval time.Duration
	Deleted  GroupDeleted // what becomes of a group that was deleted at the source
	Failback bool         // groups that moved on at the target are carried back to the source, also without a flow from there that syncs groups
}

// GroupDeleted is what happens at the target when a group is deleted at the source.
type GroupDeleted string

// What can happen.
const (
	GroupDeletedKeep   GroupDeleted = "keep"   // its offsets at the target stay as they are
	GroupDeletedDelete GroupDeleted = "delete" // those that the flow wrote are deleted too
)

// OffsetSyncs says whether a flow writes MirrorMaker 2's offset syncs, and on which cluster.
type OffsetSyncs string

// The places.
const (
	OffsetSyncsOff    OffsetSyncs = "off"
	OffsetSyncsSource OffsetSyncs = "source" // MirrorMaker 2's default
	OffsetSyncsTarget OffsetSyncs = "target" // for a source that may not be written to
)

// MirrorMaker2Store says where a MirrorMaker 2 that a flow takes over from kept its
// positions; it matters where Start says so.
type MirrorMaker2Store struct {
	OffsetsTopic string // Kafka Connect's, on the target; mm2-offsets.<From>.internal if mirror.yaml does not say
	Connector    string // name of the source connector, the first part of its keys
}

// StartRule says where mirroring of topics begins that were never mirrored before.
type StartRule struct {
	Topics []string // RE2, full match
	Start  Start

	topics patterns
}

// Start is a place in a log.
type Start struct {
	Kind   StartKind
	Millis int64 // for Timestamp: since 1970
}

// StartKind is the kind of a Start.
type StartKind int8

// The kinds of start.
const (
	Earliest     StartKind = iota // the oldest record there is
	Latest                        // only what comes from now on
	Timestamp                     // the first record at or after a time
	MirrorMaker2                  // where MirrorMaker 2 stopped, see Flow.MirrorMaker2
)

// String is as it stands in mirror.yaml.
func (s Start) String() string {
	switch s.Kind {
	case Earliest:
		return "earliest"
	case Latest:
		return "latest"
	case Timestamp:
		return time.UnixMilli(s.Millis).UTC().Format(time.RFC3339Nano)
	case MirrorMaker2:
		return "mirrormaker2"
	}
	return fmt.Sprintf("start(%d)", s.Kind)
}

// DefaultFlow is a flow as it is when mirror.yaml names only its two clusters.
func DefaultFlow(from, to string) Flow {
	return Flow{
		Name:          from + "->" + to,
		From:          from,
		To:            to,
		Topics:        []string{".*"},
		Groups:        []string{".*"},
		ExcludeGroups: []string{"console-consumer-.*", "connect-.*", "__.*"},
		Naming:        Prefixed,
		Separator:     ".",
		Configs: ConfigSync{
			Sync: true,
			Exclude: []string{ // MirrorMaker 2's list: about one cluster's brokers, or about trust in clocks
				`follower\.replication\.throttled\.replicas`,
				`leader\.replication\.throttled\.replicas`,
				`message\.timestamp\.difference\.max\.ms`,
				`message\.timestamp\.type`,
				`unclean\.leader\.election\.enable`,
				`min\.insync\.replicas`,
			},
		},
		MirrorMaker2: MirrorMaker2Store{Connector: "MirrorSourceConnector"},
		GroupSync:    GroupSync{Enabled: true, Interval: 500 * time.Millisecond, Deleted: GroupDeletedKeep},
		Heartbeats:   true,
		Checkpoints:  true,
		OffsetSyncs:  OffsetSyncsOff,
		Policies:     DefaultPolicies(),
		Fence:        FenceAuto,
	}
}

// mm2Offsets is where MirrorMaker 2 keeps its positions if nobody says otherwise. No separator applies.
func mm2Offsets(from string) string { return "mm2-offsets." + from + ".internal" }

// NewFlow makes a flow from [DefaultFlow], changed by edit (nil: as it is). It is
// in no circle, see [LoopRule]. It
// knows the two clusters' names only, so that a chain over a third one is not
// recognised by its name; [Parse] knows them all.
func NewFlow(from, to string, edit func(*Flow)) (*Flow, error) {
	flow := DefaultFlow(from, to)
	if edit != nil {
		edit(&flow)
	}
	flow.Name = flow.From + "->" + flow.To
	if err := flow.compile([]string{from, to}, []*Flow{&flow}); err != nil {
		return nil, fmt.Errorf("flow %s: %w", flow.Name, err)
	}
	return &flow, nil
}

// StartFor says where mirroring of a source topic begins when it was never mirrored before.
func (f *Flow) StartFor(topic string) Start {
	for _, rule := range f.Start {
		if rule.topics.match(topic) {
			return rule.Start
		}
	}
	return Start{Kind: Earliest}
}

// StartsFromMM2 reports whether some topic of the flow begins where MirrorMaker 2 stopped.
func (f *Flow) StartsFromMM2() bool {
	return slices.ContainsFunc(f.Start, func(rule StartRule) bool { return rule.Start.Kind == MirrorMaker2 })
}

// SelectsGroup reports whether the offsets of a consumer group of the source are
// kept exact on the target.
func (f *Flow) SelectsGroup(group string) bool {
	return group != "" && f.groups.match(group) && !f.excludeGroups.match(group)
}

// CopiesConfig reports whether a topic config of that name is copied to the target.
func (f *Flow) CopiesConfig(name string) bool {
	return f.Configs.Sync && !f.excludeConfigs.match(name)
}
