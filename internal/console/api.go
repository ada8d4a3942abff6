package console

import (
	"strings"
	"time"

	"kmirror/checkpoint"
	"kmirror/mirror"
)

// ErrorAnswer is the body of every API answer that is not 200.
type ErrorAnswer struct {
	Error string `json:"error"`
}

// StatusAnswer is the body of /api/v1/status.
type StatusAnswer struct {
	mirror.Status

	Config    *ConfigState    `json:"config,omitempty"`
	Incidents IncidentSummary `json:"incidents"`
}

func statusAnswer(o Options, now time.Time) StatusAnswer {
	answer := StatusAnswer{Status: o.Engine.Status(), Incidents: summarize(o.Engine.Incidents(0), now)}
	if o.Config != nil {
		state := o.Config.State()
		answer.Config = &state
	}
	return answer
}

func listWords(words []string) string { return strings.Join(words, ", ") }

// GroupsAnswer is the body of /api/v1/groups: where the groups of one flow stand on both sides.
type GroupsAnswer struct {
	Flow   string  `json:"flow"`
	Groups []Group `json:"groups"`
}

// Group is one consumer group of a flow.
type Group struct {
	Group string `json:"group"`
	// State is one of "in-step", "behind", "active-at-target", "ahead", "diverged", "waiting", "error".
	State      string           `json:"state"`
	Error      string           `json:"error,omitempty"`
	Partitions []GroupPartition `json:"partitions"`
}

// GroupPartition is one committed offset and its counterpart; -1 means unknown.
type GroupPartition struct {
	Topic       string `json:"topic"`
	TargetTopic string `json:"target_topic"`
	Partition   int32  `json:"partition"`
	// SourceOffset is what the group committed at the source.
	SourceOffset int64 `json:"source_offset"`
	// Translated is the same place at the target, TargetOffset what is committed there.
	Translated   int64 `json:"translated"`
	TargetOffset int64 `json:"target_offset"`
	// Shortfall counts the source records before SourceOffset that are not mirrored yet.
	Shortfall int64 `json:"shortfall"`
}

func groupsAnswer(flow string, list []checkpoint.GroupStatus) GroupsAnswer {
	answer := GroupsAnswer{Flow: flow, Groups: make([]Group, 0, len(list))}
	for _, g := range list {
		group := Group{Group: g.Group, State: g.State, Error: g.Error, Partitions: make([]GroupPartition, 0, len(g.Partitions))}
		for _, p := range g.Partitions {
			group.Partitions = append(group.Partitions, GroupPartition{
				Topic: p.Topic, TargetTopic: p.TargetTopic, Partition: p.Partition,
				SourceOffset: p.SourceOffset, Translated: p.Translated, TargetOffset: p.TargetOffset, Shortfall: p.Shortfall,
			})
		}
		answer.Groups = append(answer.Groups, group)
	}
	return answer
}
