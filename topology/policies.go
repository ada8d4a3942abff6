package topology

// Policies say what a flow does when something goes wrong with a topic. Every
// kind is the word that stands in mirror.yaml; no field is empty after [Parse]
// or [NewFlow].
type Policies struct {
	RecordTooLarge  TooLarge   // one record is larger than the target topic takes; a batch is split first
	RetentionLoss   OnLoss     // retention or DeleteRecords took source records before they were mirrored
	SourceTruncated OnLoss     // an unclean election at the source took back records that are mirrored
	SourceRecreated Recreated  // the source topic was deleted and made anew
	TargetDeleted   TargetGone // the target topic was deleted under the flow
	TargetTruncated TargetLost // an unclean election at the target took back mirrored records
	ForeignWrites   Foreign    // somebody else writes to the target topic; identity naming: ignore by default
	ConfigDrift     Drift      // the target topic's configs are no longer the source's
	TopicDeleted    Deleted    // the source topic was deleted
	Unfenced        Unfenced   // a dead owner cannot be fenced, its producer id has expired
	SeamUnverified  OnLoss     // after a crash the source no longer has what would prove the position
}

// TooLarge is what happens to a record that is larger than the target topic takes.
type TooLarge string

// What can happen to it.
const (
	TooLargeRaise      TooLarge = "raise"       // raise the target topic's max.message.bytes
	TooLargePark       TooLarge = "park"        // the partition waits until the record fits, or an operator decides
	TooLargeDeadLetter TooLarge = "dead_letter" // the record goes to the dead-letter topic, the cause in its headers
)

// OnLoss is what happens where going on means a gap or a doubt.
type OnLoss string

// What can happen.
const (
	LossStop     OnLoss = "stop"     // the partition waits for an operator's word
	LossContinue OnLoss = "continue" // it goes on, with an incident that names the range
)

// Recreated is what happens when a source topic was deleted and made anew.
type Recreated string

// What can happen.
const (
	RecreatedStop  Recreated = "stop"  // the topic waits for an operator's word
	RecreatedBegin Recreated = "begin" // the new topic is mirrored from its start, behind what is there
)

// TargetGone is what happens when a target topic was deleted.
type TargetGone string

// What can happen.
const (
	TargetGoneRecreate TargetGone = "recreate" // it is made anew and filled from the source's start
	TargetGoneStop     TargetGone = "stop"     // the topic waits for an operator's word
)

// TargetLost is what happens when a target partition lost its tail.
type TargetLost string

// What can happen.
const (
	TargetLostRemirror TargetLost = "remirror" // what was lost is mirrored again
	TargetLostStop     TargetLost = "stop"     // the partition waits for an operator's word
)

// Foreign is what happens when somebody else writes to a target topic.
type Foreign string

// What can happen.
const (
	ForeignReport Foreign = "report" // an incident, and on
	ForeignStop   Foreign = "stop"   // the partition waits for an operator's word
	ForeignIgnore Foreign = "ignore" // it is meant to be so
)

// Drift is what happens when a target topic's configs are not the source's.
type Drift string

// What can happen.
const (
	DriftRepair Drift = "repair" // they are set again
	DriftReport Drift = "report" // an incident, and they stay
)

// Deleted is what happens at the target when a topic is deleted at the source.
type Deleted string

// What can happen.
const (
	DeletedKeep   Deleted = "keep"   // the target topic stays as it is
	DeletedDelete Deleted = "delete" // it is deleted too
)

// Unfenced is what happens when a dead owner's producer id cannot be fenced any more.
type Unfenced string

// What can happen.
const (
	UnfencedWait     Unfenced = "wait"     // the partition waits until it can, or for an operator's word
	UnfencedContinue Unfenced = "continue" // it goes on, with an incident; what doubles is detected
)

// DefaultPolicies are those of a flow that names none. ForeignWrites is empty
// until the flow's naming is known.
func DefaultPolicies() Policies {
	return Policies{
		RecordTooLarge:  TooLargeRaise,
		RetentionLoss:   LossStop,
		SourceTruncated: LossStop,
		SourceRecreated: RecreatedStop,
		TargetDeleted:   TargetGoneRecreate,
		TargetTruncated: TargetLostRemirror,
		ConfigDrift:     DriftRepair,
		TopicDeleted:    DeletedKeep,
		Unfenced:        UnfencedWait,
		SeamUnverified:  LossStop,
	}
}

// FenceMode says how a flow keeps dead owners from writing.
type FenceMode string

// The modes.
const (
	FenceAuto   FenceMode = "auto"   // fence where the target has transactions, else detect
	FenceDetect FenceMode = "detect" // never fence: look afterwards for what a dead owner wrote
)

// TopicRule is what holds for some topics of a flow instead of what the flow says.
type TopicRule struct {
	Topics   []string // of the source, RE2, full match
	Policies Policies // complete: what the rule does not name is the flow's
	Pause    bool     // the flow's if the rule does not say

	topics patterns
}

// PoliciesFor are the policies for a topic of the source: those of the first
// topic rule that matches, or the flow's.
func (f *Flow) PoliciesFor(topic string) Policies {
	if rule := f.ruleFor(topic); rule != nil {
		return rule.Policies
	}
	return f.Policies
}

// Paused reports whether mirror.yaml pauses a topic of the source.
func (f *Flow) Paused(topic string) bool {
	if rule := f.ruleFor(topic); rule != nil {
		return rule.Pause
	}
	return f.Pause
}

func (f *Flow) ruleFor(topic string) *TopicRule {
	for i := range f.TopicRules {
		if f.TopicRules[i].topics.match(topic) {
			return &f.TopicRules[i]
		}
	}
	return nil
}

// settle fills in what depends on the source, the separator and the naming.
func (f *Flow) settle() {
	if f.InternalSeparator == "" {
		f.InternalSeparator = f.Separator
	}
	if f.MirrorMaker2.OffsetsTopic == "" {
		f.MirrorMaker2.OffsetsTopic = mm2Offsets(f.From)
	}
	foreign := ForeignReport
	if f.Naming == Identity {
		foreign = ForeignIgnore
	}
	if f.Policies.ForeignWrites == "" {
		f.Policies.ForeignWrites = foreign
	}
	for i := range f.TopicRules {
		if p := &f.TopicRules[i].Policies; p.ForeignWrites == "" {
			p.ForeignWrites = f.Policies.ForeignWrites
		}
	}
}
