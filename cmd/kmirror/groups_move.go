package main

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"kmirror/checkpoint"
	"kmirror/internal/kafka"
	"kmirror/topology"
)

// movedGroup is one group of `kmirror groups FLOW --failback` or `--adopt`.
type movedGroup struct {
	Group   string      `json:"group"`
	Refused string      `json:"refused,omitempty"`
	Moves   []movedMove `json:"moves"`
}

// movedMove is one offset; -1: nothing, or not known.
type movedMove struct {
	Topic       string `json:"topic"` // on the side that is moved
	Partition   int32  `json:"partition"`
	From        int64  `json:"from"`
	To          int64  `json:"to"`
	OtherTopic  string `json:"other_topic"` // where the group stands
	OtherOffset int64  `json:"other_offset"`
	Exact       bool   `json:"exact"`
	Shortfall   int64  `json:"shortfall"`
	LocalRead   int64  `json:"local_read"`   // written at the target itself, and read there: not at the source
	LocalUnread int64  `json:"local_unread"` // the same, and not read: the group will not get them
	Refused     string `json:"refused,omitempty"`
	Done        bool   `json:"done"`
}

// moveGroups carries groups back to the source, or has the target's follow it
// again.
func (a *app) moveGroups(ctx context.Context, cfg *topology.Config, flow *topology.Flow, o groupsOptions) error {
	if o.adopt && len(o.names) == 0 {
		return withCode(exitUsage, errors.New("which groups? --adopt takes their names behind the flow"))
	}
	b, err := a.bridge(ctx, cfg, flow.From, flow.To)
	if err != nil {
		return err
	}
	defer b.close()
	plans, moved, err := b.plan(ctx, o)
	if err != nil {
		return err
	}
	if len(plans) == 0 {
		return withCode(exitNotFound, fmt.Errorf("no group has offsets on copies of %s in %s", flow.From, flow.To))
	}
	if !o.dryRun {
		plans = checkpoint.ApplyGroups(ctx, moved.Cluster, plans)
		if ctx.Err() != nil {
			return ctx.Err()
		}
	}
	return a.showMoves(plans, moved.Name(), o)
}

// plan says what is to be moved, and where.
func (b *bridge) plan(ctx context.Context, o groupsOptions) (plans []checkpoint.GroupPlan, moved *remote, err error) {
	routes, err := b.routes(ctx)
	if err != nil {
		return nil, nil, err
	}
	source, _, err := b.remote(ctx, b.from)
	if err != nil {
		return nil, nil, err
	}
	target, _, err := b.remote(ctx, b.to)
	if err != nil {
		return nil, nil, err
	}
	wants := func(group string) bool { return o.wants(b.forward, group) }
	there, err := checkpoint.ReadGroups(ctx, source.Cluster, wants)
	if err != nil {
		return nil, nil, fmt.Errorf("read the groups of %s: %w", b.from, err)
	}
	here, err := checkpoint.ReadGroups(ctx, target.Cluster, wants)
	if err != nil {
		return nil, nil, fmt.Errorf("read the groups of %s: %w", b.to, err)
	}
	if o.adopt {
		return checkpoint.PlanAdopt(routes, there, here, o.names), target, nil
	}
	_, copies := b.copies()
	ends := map[string]map[int32]int64{}
	if len(copies) > 0 {
		ends, _ = target.ListOffsets(ctx, copies, kafka.Latest) // those that do not answer are not known
	}
	if ctx.Err() != nil {
		return nil, nil, ctx.Err()
	}
	return checkpoint.PlanFailback(routes, there, here, o.names, func(topic string, partition int32) int64 { return known(ends, topic, partition) }), source, nil
}

func (a *app) showMoves(plans []checkpoint.GroupPlan, moved string, o groupsOptions) error {
	all := make([]movedGroup, 0, len(plans))
	refused := 0
	t := newTable("GROUP", "TOPIC IN "+moved, ">PARTITION", ">FROM", ">TO", "STANDS AT", "")
	for _, p := range plans {
		one := movedGroup{Group: p.Group, Refused: p.Refused, Moves: make([]movedMove, 0, len(p.Moves))}
		if p.Refused != "" {
			refused++
			t.row(p.Group, "-", "-", "-", "-", "-", "refused: "+p.Refused)
		}
		for _, m := range p.Moves {
			one.Moves = append(one.Moves, movedMove{
				Topic: m.Topic, Partition: m.Partition, From: m.From, To: m.To, OtherTopic: m.OtherTopic, OtherOffset: m.OtherOffset,
				Exact: m.Exact, Shortfall: m.Shortfall, LocalRead: m.LocalRead, LocalUnread: m.LocalUnread, Refused: m.Refused, Done: m.Done,
			})
			if p.Refused != "" {
				continue
			}
			if m.Refused != "" {
				refused++
			}
			t.row(p.Group, m.Topic, m.Partition, offset(m.From), offset(m.To), fmt.Sprintf("%s %d", m.OtherTopic, m.OtherOffset), moveNote(m, o.dryRun))
		}
		all = append(all, one)
	}
	if a.wantsJSON() {
		if err := a.writeJSON(all); err != nil {
			return err
		}
	} else if err := t.write(a.out, ""); err != nil {
		return err
	}
	switch {
	case refused == 0:
		return nil
	case o.dryRun:
		return withCode(exitBusy, fmt.Errorf("%s would be refused", plural(refused, "move")))
	default:
		return withCode(exitBusy, fmt.Errorf("%s refused; what else there was is done", plural(refused, "move")))
	}
}

// moveNote says what becomes of a move.
func moveNote(m checkpoint.GroupMove, dry bool) string {
	var notes []string
	switch {
	case m.Refused != "":
		return "refused: " + m.Refused
	case m.From == m.To:
		notes = append(notes, "stands there already")
	case m.Done:
		notes = append(notes, "moved")
	case dry:
		notes = append(notes, "would be moved")
	}
	if !m.Exact {
		notes = append(notes, "not exact: some records may be read again")
	}
	if m.Shortfall > 0 {
		notes = append(notes, plural(int(m.Shortfall), "record")+" not mirrored yet")
	}
	if m.LocalRead > 0 {
		notes = append(notes, fmt.Sprintf("%s it has read were written locally", plural(int(m.LocalRead), "record")))
	}
	if m.LocalUnread > 0 {
		notes = append(notes, fmt.Sprintf("%s written locally it will not get", plural(int(m.LocalUnread), "record")))
	}
	return strings.Join(notes, "; ")
}
