package main

import (
	"context"
	"fmt"
	"maps"
	"slices"

	"kmirror/checkpoint"
	"kmirror/topology"
)

// flowGroupRow is one offset of a group on both sides of a flow; -1 is unknown.
type flowGroupRow struct {
	Group        string `json:"group"`
	Topic        string `json:"topic"`
	Partition    int32  `json:"partition"`
	SourceOffset int64  `json:"source_offset"`
	SourceLag    int64  `json:"source_lag"`
	TargetTopic  string `json:"target_topic"`
	Translated   int64  `json:"translated"`
	TargetOffset int64  `json:"target_offset"`
	TargetLag    int64  `json:"target_lag"`
	Shortfall    int64  `json:"shortfall"`
	State        string `json:"state"`
}

// flowGroups shows a flow's groups on both sides, read straight from the clusters.
func (a *app) flowGroups(ctx context.Context, cfg *topology.Config, flow *topology.Flow, only string) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	source, sourceMeta, err := a.connect(ctx, cfg.Cluster(flow.From))
	if err != nil {
		return err
	}
	defer source.close()
	target, targetMeta, err := a.connect(ctx, cfg.Cluster(flow.To))
	if err != nil {
		return err
	}
	defer target.close()
	wanted := func(group string) bool {
		if only != "" {
			return group == only
		}
		return flow.SelectsGroup(group)
	}
	groups, err := a.readGroups(ctx, source, wanted)
	if err != nil {
		return err
	}
	there, err := a.readGroups(ctx, target, wanted)
	if err != nil {
		return err
	}
	var index *checkpoint.Index
	if targetMeta.Topics[checkpoint.MapTopic] != nil {
		if index, err = a.loadIndex(ctx, target); err != nil {
			return err
		}
	}
	var sourceTopics, targetTopics []string
	for topic := range sourceMeta.Topics {
		if flow.Selects(topic) {
			sourceTopics = append(sourceTopics, topic)
			if name := flow.TargetTopic(topic); targetMeta.Topics[name] != nil {
				targetTopics = append(targetTopics, name)
			}
		}
	}
	_, sourceEnds, err := spans(ctx, source.Cluster, sourceMeta, sourceTopics)
	if err != nil {
		return err
	}
	_, targetEnds, err := spans(ctx, target.Cluster, targetMeta, targetTopics)
	if err != nil {
		return err
	}
	atTarget := map[string]*group{}
	for _, g := range there {
		atTarget[g.name] = g
	}
	way := &crossing{flow: flow, index: index}
	var rows []flowGroupRow
	for _, g := range groups {
		for _, topic := range slices.Sorted(maps.Keys(g.offsets)) {
			if !flow.Selects(topic) {
				continue
			}
			for _, id := range slices.Sorted(maps.Keys(g.offsets[topic])) {
				row := flowGroupRow{Group: g.name, Topic: topic, Partition: id, SourceOffset: g.offsets[topic][id], TargetTopic: flow.TargetTopic(topic), Translated: -1, TargetOffset: -1}
				row.SourceLag = lag(row.SourceOffset, known(sourceEnds, topic, id))
				members := 0
				if other := atTarget[g.name]; other != nil {
					members = other.members
					row.TargetOffset = known(other.offsets, row.TargetTopic, id)
				}
				row.TargetLag = lag(row.TargetOffset, known(targetEnds, row.TargetTopic, id))
				if index != nil {
					if found := way.translate(topic, id, row.SourceOffset); found.known {
						row.Translated, row.Shortfall = found.Offset, found.Shortfall
					}
				}
				row.State = flowGroupState(row, members)
				rows = append(rows, row)
			}
		}
	}
	if only != "" && len(rows) == 0 {
		return withCode(exitNotFound, fmt.Errorf("group %q has committed nothing in the topics that %s mirrors", only, flow.Name))
	}
	return a.showFlowGroups(flow, rows)
}

// flowGroupState puts a row in one word.
func flowGroupState(r flowGroupRow, targetMembers int) string {
	switch {
	case targetMembers > 0:
		return "active-at-target"
	case r.Translated < 0:
		return "none"
	case r.TargetOffset > r.Translated:
		return "ahead"
	case r.TargetOffset < r.Translated:
		return "behind"
	case r.Shortfall > 0:
		return "waiting"
	default:
		return "in-step"
	}
}

func (a *app) showFlowGroups(flow *topology.Flow, rows []flowGroupRow) error {
	if a.wantsJSON() {
		if rows == nil {
			rows = []flowGroupRow{}
		}
		return a.writeJSON(rows)
	}
	if len(rows) == 0 {
		_, err := fmt.Fprintf(a.out, "no group has committed offsets in the topics that %s mirrors\n", flow.Name)
		return err
	}
	t := newTable("GROUP", "TOPIC IN "+flow.From, ">PARTITION", ">OFFSET", ">LAG", "TOPIC IN "+flow.To, ">SAME PLACE", ">COMMITTED", ">LAG", "STATE")
	for _, r := range rows {
		t.row(r.Group, r.Topic, r.Partition, r.SourceOffset, offset(r.SourceLag), r.TargetTopic, offset(r.Translated), offset(r.TargetOffset), offset(r.TargetLag), r.State)
	}
	return t.write(a.out, "")
}
