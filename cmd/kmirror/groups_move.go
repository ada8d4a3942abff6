package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
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
	Unwritten   string `json:"unwritten,omitempty"` // why the move could not be written down
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
	mover, plans, err := b.plan(ctx, o)
	var unlisted *checkpoint.UnlistedError
	switch {
	case errors.As(err, &unlisted): // about what is known something can be done
	case err != nil:
		return err
	case len(plans) == 0:
		return withCode(exitNotFound, fmt.Errorf("no group has offsets on copies of %s in %s", flow.From, flow.To))
	}
	if !o.dryRun {
		plans = mover.Apply(ctx, plans)
		if ctx.Err() != nil {
			return ctx.Err()
		}
	}
	moved := flow.To
	if o.failback {
		moved = flow.From
	}
	return errors.Join(a.showMoves(plans, moved, o), err)
}

// plan says what is to be moved, and where. With an *UnlistedError that is not all.
func (b *bridge) plan(ctx context.Context, o groupsOptions) (*checkpoint.GroupMover, []checkpoint.GroupPlan, error) {
	routes, err := b.routes(ctx)
	if err != nil {
		return nil, nil, err
	}
	source, inSource, err := b.remote(ctx, b.from)
	if err != nil {
		return nil, nil, err
	}
	target, inTarget, err := b.remote(ctx, b.to)
	if err != nil {
		return nil, nil, err
	}
	mover := checkpoint.NewGroupMover(routes, source.Cluster, target.Cluster, slog.New(slog.DiscardHandler))
	has := func(metadata *kafka.Metadata) func(string) bool {
		return func(topic string) bool { return metadata.Topics[topic] != nil }
	}
	if err := mover.Recall(ctx, has(inSource), has(inTarget)); err != nil {
		return nil, nil, err
	}
	there, here, unlisted := mover.Read(ctx, func(group string) bool { return o.wants(b.forward, group) }, o.names)
	if there == nil {
		return nil, nil, unlisted
	}
	if o.adopt {
		return mover, mover.Adopt(there, here, o.names), unlisted
	}
	_, copies := b.copies()
	ends := map[string]map[int32]int64{}
	if len(copies) > 0 {
		ends, _ = target.ListOffsets(ctx, copies, kafka.Latest) // those that do not answer are not known
	}
	if ctx.Err() != nil {
		return nil, nil, ctx.Err()
	}
	plans := mover.Failback(ctx, there, here, o.names, func(topic string, partition int32) int64 { return known(ends, topic, partition) })
	return mover, plans, unlisted
}

func (a *app) showMoves(plans []checkpoint.GroupPlan, moved string, o groupsOptions) error {
	all := make([]movedGroup, 0, len(plans))
	refused, done := 0, 0
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
				Exact: m.Exact, Shortfall: m.Shortfall, LocalRead: m.LocalRead, LocalUnread: m.LocalUnread, Refused: m.Refused, Done: m.Done, Unwritten: m.Unwritten,
			})
			if p.Refused != "" {
				continue
			}
			switch {
			case m.Refused != "":
				refused++
			case m.Done:
				done++
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
	case done == 0:
		return withCode(exitBusy, fmt.Errorf("%s refused", plural(refused, "move")))
	default:
		return withCode(exitBusy, fmt.Errorf("%s refused; the rest is done", plural(refused, "move")))
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
	if m.Unwritten != "" {
		notes = append(notes, fmt.Sprintf("not written down (%s): if the group goes on before a kmirror that runs has seen it, it may be diverged", m.Unwritten))
	}
	if m.LocalRead > 0 {
		notes = append(notes, fmt.Sprintf("%s it has read were written locally", plural(int(m.LocalRead), "record")))
	}
	if m.LocalUnread > 0 {
		notes = append(notes, fmt.Sprintf("%s written locally it will not get", plural(int(m.LocalUnread), "record")))
	}
	return strings.Join(notes, "; ")
}
