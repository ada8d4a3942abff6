package topology

import (
	"fmt"
	"regexp"
	"strings"
)

// MaxTopicName is the longest topic name Kafka takes, in bytes.
const MaxTopicName = 249

// HeartbeatsTopic is MirrorMaker 2's, on the target of a flow.
const HeartbeatsTopic = "heartbeats"

// Selection says whether a flow mirrors a topic, and why if not.
type Selection int8

// The answers of [Flow.Selection].
const (
	Selected    Selection = iota
	NotMatched            // no pattern of topics matches
	Excluded              // a pattern of exclude_topics matches
	Internal              // Kafka's, MirrorMaker 2's or kmirror's own
	FromTarget            // by its name it already came from the target
	IllegalName           // no topic can have this name
	DeadLetter            // a flow keeps there what did not fit
	Reserved              // renamed, it would be an internal topic of the target
)

// String is a clause for status and logs.
func (s Selection) String() string {
	switch s {
	case Selected:
		return "selected"
	case NotMatched:
		return "matched by no pattern of topics"
	case Excluded:
		return "excluded by exclude_topics"
	case Internal:
		return "an internal topic"
	case FromTarget:
		return "by its name it came from the target"
	case IllegalName:
		return "not a legal topic name"
	case DeadLetter:
		return "a dead-letter topic"
	case Reserved:
		return "renamed, it would be an internal topic of the target"
	}
	return fmt.Sprintf("selection(%d)", s)
}

// Selects reports whether the flow mirrors a topic of its source.
func (f *Flow) Selects(topic string) bool { return f.Selection(topic) == Selected }

// Selection is Selects with the reason.
//
// Internal topics are never mirrored, nor is a prefixed topic that already came
// from the target: one whose name, cluster names and separators taken off its
// front, comes upon the target's; or that bears the trace of this very flow
// ("west.east." anywhere in it, for east->west), which also ends a circle over
// clusters that this file does not know. Unlike MirrorMaker 2, a dot alone proves
// nothing: sales.west.daily is a local topic unless a cluster is called sales.
//
// Dead-letter topics stay where they are: those that a flow of the file writes on
// this flow's source, and names whose place on the target this flow's own letters
// have. Nor is a topic mirrored that a rename would give an internal name.
//
// MirrorMaker 2's heartbeats topics are mirrored even if no pattern matches, as
// long as the flow's heartbeats are on (KIP-1089).
func (f *Flow) Selection(topic string) Selection {
	switch {
	case !LegalTopic(topic):
		return IllegalName
	case InternalTopic(topic, f.InternalSeparator):
		return Internal
	case f.cameFromTarget(topic):
		return FromTarget
	case f.isHeartbeats(topic):
		if f.Heartbeats {
			return Selected
		}
		return Excluded
	case f.letters.match(topic):
		return DeadLetter
	case f.excludeTopics.match(topic):
		return Excluded
	case !f.topics.match(topic):
		return NotMatched
	case len(f.Rename) > 0 && f.reserved(f.TargetTopic(topic)):
		return Reserved
	}
	return Selected
}

// reserved reports whether a name on the target is not for mirrored topics.
func (f *Flow) reserved(target string) bool {
	return InternalTopic(target, f.InternalSeparator) || f.Naming == Identity && target == HeartbeatsTopic
}

// reservedPatterns is reserved as regular expressions, for the proofs.
func (f *Flow) reservedPatterns() []string {
	if f.Naming == Identity {
		return append(internalPatterns(f.InternalSeparator), HeartbeatsTopic)
	}
	return internalPatterns(f.InternalSeparator)
}

// TargetTopic is what a topic of the source is called on the target. It may be
// longer than [MaxTopicName], or empty by a rename; then no such topic can exist there.
//
// With identity naming MirrorMaker 2's heartbeats topics are prefixed all the
// same, as its own identity policy does: the target has heartbeats of its own.
func (f *Flow) TargetTopic(source string) string {
	if f.Naming == Identity && !f.isHeartbeats(source) {
		return f.renamed(source)
	}
	return f.prefix() + f.renamed(source)
}

// SourceTopic is the inverse of TargetTopic: the topic of the source that has
// this name on the target, false if no topic of the source could have it. Where
// a rename gives several topics one name, it is the one that the flow mirrors;
// there are not two of those.
func (f *Flow) SourceTopic(target string) (string, bool) {
	source, prefixed := strings.CutPrefix(target, f.prefix())
	if f.Naming == Identity && (!prefixed || !f.isHeartbeats(source)) {
		source, ok := f.original(target)
		return source, ok && !f.isHeartbeats(source)
	}
	if !prefixed {
		return source, false
	}
	return f.original(source)
}

// CheckpointsTopic is where MirrorMaker 2's checkpoints of this flow stand, on the target.
func (f *Flow) CheckpointsTopic() string {
	return f.From + f.InternalSeparator + "checkpoints" + f.InternalSeparator + "internal"
}

// OffsetSyncsTopic is where MirrorMaker 2's offset syncs of this flow stand: on
// the source, named after the target, or with offset_syncs: target on the target,
// named after the source.
func (f *Flow) OffsetSyncsTopic() string {
	other := f.To
	if f.OffsetSyncs == OffsetSyncsTarget {
		other = f.From
	}
	return "mm2-offset-syncs" + f.InternalSeparator + other + f.InternalSeparator + "internal"
}

func (f *Flow) prefix() string { return f.From + f.Separator }

// cameFromTarget is about names that flows made: with identity naming those of heartbeats only.
func (f *Flow) cameFromTarget(topic string) bool {
	return f.loops != nil && (f.Naming == Prefixed || f.isHeartbeats(topic)) && f.loops.MatchString(topic)
}

func (f *Flow) isHeartbeats(topic string) bool {
	return f.heartbeats != nil && f.heartbeats.MatchString(topic)
}

// InternalTopic reports whether a topic is Kafka's (__consumer_offsets),
// kmirror's (__kmirror_*) or MirrorMaker 2's own, by the rule of MirrorMaker 2
// since 4.0 (KAFKA-17200).
func InternalTopic(name, separator string) bool {
	return strings.HasPrefix(name, "__") ||
		strings.HasPrefix(name, ".") ||
		strings.HasPrefix(name, "mm2") && strings.HasSuffix(name, separator+"internal") ||
		strings.HasSuffix(name, separator+"checkpoints"+separator+"internal")
}

// internalPatterns is InternalTopic as regular expressions, for the proofs.
func internalPatterns(separator string) []string {
	sep := regexp.QuoteMeta(separator)
	return []string{`__.*`, `\..*`, `mm2.*` + sep + `internal`, `.*` + sep + `checkpoints` + sep + `internal`}
}

// LegalTopic reports whether Kafka takes a topic of this name: 1 to 249 of
// a-z, A-Z, 0-9, dot, underscore and hyphen, and neither "." nor "..".
func LegalTopic(name string) bool {
	if name == "" || len(name) > MaxTopicName || name == "." || name == ".." {
		return false
	}
	return onlyTopicChars(name)
}

func onlyTopicChars(s string) bool {
	for i := range len(s) {
		c := s[i]
		legal := 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || '0' <= c && c <= '9' || c == '.' || c == '_' || c == '-'
		if !legal {
			return false
		}
	}
	return true
}

// loopPattern matches topics that already came from the target, see [Flow.Selection].
// Heartbeats that bear the source's own name there came from the target too, over a
// deployment that calls the target as this one calls the source: two sites may have
// the same file, with local and remote.
func (f *Flow) loopPattern(prefixes []string) string {
	sep := regexp.QuoteMeta(f.Separator)
	return `(` + alternatives(prefixes) + `)*` + regexp.QuoteMeta(f.To) + sep + `.*` +
		`|(.*` + sep + `)?` + regexp.QuoteMeta(f.To+f.Separator+f.From) + sep + `.*` +
		`|` + regexp.QuoteMeta(f.prefix()) + f.heartbeatsPattern(prefixes)
}
