package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"regexp"
	"slices"
	"strings"

	"kmirror/checkpoint"
	"kmirror/internal/console"
	"kmirror/internal/kafka"
	"kmirror/topology"
)

// groupFilter says which groups of a flow are meant: those that were named, or
// match, or else all that the flow selects.
type groupFilter struct {
	names []string
	match *regexp.Regexp
}

func (f groupFilter) wants(flow *topology.Flow, group string) bool {
	switch {
	case len(f.names) > 0:
		return slices.Contains(f.names, group)
	case f.match != nil:
		return f.match.MatchString(group)
	default:
		return flow.SelectsGroup(group)
	}
}

// routes are those of the flow from FROM to TO, and of the one the other way.
func (b *bridge) routes(ctx context.Context) (checkpoint.Routes, error) {
	r := checkpoint.Routes{Forward: checkpoint.Route{Flow: b.forward}, Opposite: checkpoint.Route{Flow: b.opposite}}
	for _, route := range []*checkpoint.Route{&r.Forward, &r.Opposite} {
		if route.Flow == nil {
			continue
		}
		index, err := b.mapOf(ctx, route.Flow.To)
		if err != nil {
			return r, err
		}
		if index == nil { // nothing was mirrored yet: a map that holds nothing
			index = checkpoint.NewIndex(nil, slog.New(slog.DiscardHandler))
		}
		route.Maps = index
	}
	return r, nil
}

// lookAtGroups judges groups of the flow from FROM to TO, as the daemon would, and
// hands them over in lots. With an *UnlistedError those that are known were.
func (b *bridge) lookAtGroups(ctx context.Context, filter groupFilter, each func([]checkpoint.GroupStatus) error) error {
	routes, err := b.routes(ctx)
	if err != nil {
		return err
	}
	source, _, err := b.remote(ctx, b.from)
	if err != nil {
		return err
	}
	target, metadata, err := b.remote(ctx, b.to)
	if err != nil {
		return err
	}
	syncer := checkpoint.NewSyncer(routes, source.Cluster, target.Cluster, slog.New(slog.DiscardHandler))
	remembered := metadata.Topics[syncer.NotesTopic()] != nil
	err = syncer.Look(ctx, remembered, func(group string) bool { return filter.wants(b.forward, group) }, each)
	if err != nil && ctx.Err() == nil {
		return fmt.Errorf("look at the groups of %s: %w", b.forward.Name, err)
	}
	return err
}

// copies are the partitions of the topics that the flow mirrors, and of their
// copies, as far as they have leaders.
func (b *bridge) copies() (source, target map[string][]int32) {
	source, target = map[string][]int32{}, map[string][]int32{}
	add := func(to map[string][]int32, topic *kafka.Topic) {
		for _, p := range topic.Partitions {
			if p.Leader >= 0 && p.Err == nil {
				to[topic.Name] = append(to[topic.Name], p.ID)
			}
		}
	}
	for name, topic := range b.metadata[b.from].Topics {
		if !b.forward.Selects(name) || topic.Internal {
			continue
		}
		add(source, topic)
		if other := b.metadata[b.to].Topics[b.forward.TargetTopic(name)]; other != nil {
			add(target, other)
		}
	}
	return source, target
}

// flowGroups shows a flow's groups on both sides, read straight from the clusters.
func (a *app) flowGroups(ctx context.Context, cfg *topology.Config, flow *topology.Flow, o groupsOptions) error {
	b, err := a.bridge(ctx, cfg, flow.From, flow.To)
	if err != nil {
		return err
	}
	defer b.close()
	for _, name := range []string{flow.From, flow.To} {
		if _, _, err := b.remote(ctx, name); err != nil {
			return err
		}
	}
	q := console.GroupsQuery{Flow: flow.Name, Limit: o.limit, Brief: a.wantsJSON() && !o.details()}
	all := console.NewCollect(q)
	lags, err := newGroupLags(ctx, b)
	if err != nil {
		return err
	}
	failed := o.failing()
	var exceeded []string
	err = b.lookAtGroups(ctx, o.groupFilter, func(lot []checkpoint.GroupStatus) error {
		groups := make([]console.Group, 0, len(lot))
		for _, g := range lot {
			groups = append(groups, console.NewGroup(g))
		}
		if err := lags.fill(ctx, groups); err != nil {
			return err
		}
		for _, g := range groups {
			if why := failed(g); why != "" && len(exceeded) < 10 {
				exceeded = append(exceeded, why)
			}
			all.Add(g)
		}
		return nil
	})
	unlisted := (*checkpoint.UnlistedError)(nil)
	if err != nil && !errors.As(err, &unlisted) {
		return err
	}
	answer := all.Answer()
	if err != nil && answer.Total == 0 {
		return err
	}
	if len(o.names) > 0 && answer.Total == 0 {
		return withCode(exitNotFound, fmt.Errorf("group %s has committed nothing in the topics that %s mirrors, or is none that it selects", strings.Join(o.names, ", "), flow.Name))
	}
	if err := a.showFlowGroups(flow, answer, o.details()); err != nil {
		return err
	}
	return errors.Join(a.checked(flow.Name, strings.Join(exceeded, "; ")), err)
}

// groupLags knows how far groups are from the ends of both sides.
type groupLags struct{ source, target *ages }

func newGroupLags(ctx context.Context, b *bridge) (l groupLags, err error) {
	source, target := b.copies()
	if l.source, err = newAges(ctx, b.clusters[b.from].Cluster, source); err == nil {
		l.target, err = newAges(ctx, b.clusters[b.to].Cluster, target)
	}
	return l, err
}

// fill fills in the lags of groups.
func (l groupLags) fill(ctx context.Context, groups []console.Group) error {
	sources, targets := map[kafka.TopicPartition]int64{}, map[kafka.TopicPartition]int64{}
	lower := func(in map[kafka.TopicPartition]int64, at kafka.TopicPartition, offset int64) {
		if before, ok := in[at]; offset >= 0 && (!ok || offset < before) {
			in[at] = offset
		}
	}
	each := func(do func(p *console.GroupPartition, source, target kafka.TopicPartition)) {
		for i := range groups {
			for j := range groups[i].Partitions {
				p := &groups[i].Partitions[j]
				do(p, kafka.TopicPartition{Topic: p.Topic, Partition: p.Partition}, kafka.TopicPartition{Topic: p.TargetTopic, Partition: p.Partition})
			}
		}
	}
	each(func(p *console.GroupPartition, source, target kafka.TopicPartition) {
		lower(sources, source, p.SourceOffset)
		lower(targets, target, p.TargetOffset)
	})
	if err := l.source.reach(ctx, sources); err != nil {
		return err
	}
	if err := l.target.reach(ctx, targets); err != nil {
		return err
	}
	each(func(p *console.GroupPartition, source, target kafka.TopicPartition) {
		p.SourceLag, p.SourceLagSeconds = l.source.lag(source, p.SourceOffset), l.source.seconds(source, p.SourceOffset)
		p.TargetLag, p.TargetLagSeconds = l.target.lag(target, p.TargetOffset), l.target.seconds(target, p.TargetOffset)
	})
	for i := range groups {
		groups[i].Sum()
	}
	return nil
}

func (a *app) showFlowGroups(flow *topology.Flow, answer console.GroupsAnswer, details bool) error {
	if a.wantsJSON() {
		return a.writeJSON(answer)
	}
	var out strings.Builder
	if answer.Total == 0 {
		fmt.Fprintf(&out, "no group has committed offsets in the topics that %s mirrors\n", clean(flow.Name))
	}
	show := showGroupRows
	if details {
		show = showGroupDetails
	}
	if err := show(&out, flow, answer.Groups); err != nil {
		return err
	}
	if answer.Total > 1 {
		fmt.Fprintf(&out, "\n%s: %s\n", plural(answer.Total, "group"), stateWords(answer.States))
	}
	if more := answer.Total - len(answer.Groups); more > 0 {
		fmt.Fprintf(&out, "the %d that are worst off are shown; --limit shows more, --match others\n", len(answer.Groups))
	}
	_, err := fmt.Fprint(a.out, out.String())
	return err
}

// stateWords counts groups by state, the gravest last.
func stateWords(states map[string]int) string {
	names := slices.SortedFunc(maps.Keys(states), func(a, b string) int { return checkpoint.Gravity(a) - checkpoint.Gravity(b) })
	words := make([]string, 0, len(names))
	for _, name := range names {
		words = append(words, fmt.Sprintf("%d %s", states[name], name))
	}
	return strings.Join(words, ", ")
}

func showGroupRows(out *strings.Builder, flow *topology.Flow, groups []console.Group) error {
	if len(groups) == 0 {
		return nil
	}
	t := newTable("GROUP", "STATE", ">PARTITIONS", ">LAG IN "+flow.From, ">TIME", ">LAG IN "+flow.To, ">TIME", ">TO MOVE", "")
	for _, g := range groups {
		t.row(g.Group, g.State, g.PartitionCount, offset(g.SourceLag), about(g.SourceLagSeconds), offset(g.TargetLag), about(g.TargetLagSeconds), g.Behind, groupNote(flow, &g))
	}
	return t.write(out, "")
}

// about writes an age that was reckoned.
func about(age float64) string {
	if age <= 0 {
		return seconds(age)
	}
	return "~" + seconds(age)
}

// groupNote says what the figures do not.
func groupNote(flow *topology.Flow, g *console.Group) string {
	var notes []string
	if worst := g.Worst(); worst != nil && worst.State == g.State {
		if note := partitionNote(flow, worst); note != "" && (worst.State == string(checkpoint.Diverged) || worst.State == string(checkpoint.ActiveAtTarget)) {
			notes = append(notes, fmt.Sprintf("%s/%d: %s", worst.Topic, worst.Partition, note))
		}
	}
	if g.Shortfall > 0 {
		notes = append(notes, fmt.Sprintf("%d not mirrored yet", g.Shortfall))
	}
	if g.Approximate > 0 {
		notes = append(notes, plural(g.Approximate, "partition")+" approximate")
	}
	if g.Error != "" {
		notes = append(notes, g.Error)
	}
	return strings.Join(notes, "; ")
}

// partitionNote says where the two sides stand if not at one place.
func partitionNote(flow *topology.Flow, p *console.GroupPartition) string {
	switch {
	case p.Error != "":
		return p.Error
	case p.State == string(checkpoint.Diverged), p.State == string(checkpoint.ActiveAtTarget) && p.TargetOffset >= 0 && p.TargetOffset != p.Translated:
		return fmt.Sprintf("at %s in %s, which is %s in %s; at %s in %s", offset(p.SourceOffset), flow.From, offset(p.Translated), flow.To, offset(p.TargetOffset), flow.To)
	case p.Shortfall > 0:
		return fmt.Sprintf("%d not mirrored yet", p.Shortfall)
	case p.Approximate && p.Slack > 0:
		return "approximate: at most " + plural(int(p.Slack), "record") + " again"
	case p.Approximate:
		return "approximate: nothing is skipped"
	default:
		return ""
	}
}

func showGroupDetails(out *strings.Builder, flow *topology.Flow, groups []console.Group) error {
	t := newTable("GROUP", "TOPIC IN "+flow.From, ">PARTITION", ">OFFSET", ">LAG", ">TIME", "TOPIC IN "+flow.To, ">SAME PLACE", ">COMMITTED", ">LAG", ">TIME", "STATE", "")
	for i := range groups {
		g := &groups[i]
		if len(g.Partitions) == 0 {
			t.row(g.Group, "-", "-", "-", "-", "-", "-", "-", "-", "-", "-", g.State, g.Error)
		}
		for j := range g.Partitions {
			p := &g.Partitions[j]
			place := offset(p.Translated)
			if p.Approximate {
				place = "~" + place
			}
			t.row(g.Group, p.Topic, p.Partition, offset(p.SourceOffset), offset(p.SourceLag), about(p.SourceLagSeconds), p.TargetTopic, place, offset(p.TargetOffset), offset(p.TargetLag), about(p.TargetLagSeconds), p.State, partitionNote(flow, p))
		}
	}
	if len(t.rows) == 0 {
		return nil
	}
	return t.write(out, "")
}
