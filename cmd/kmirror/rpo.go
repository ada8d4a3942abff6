package main

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"kmirror/checkpoint"
	"kmirror/internal/console"
	"kmirror/mirror"
	"kmirror/topology"
)

func (a *app) rpoCommand() *cobra.Command {
	var o lagOptions
	command := &cobra.Command{
		Use:   "rpo [FLOW]",
		Short: "Show what a failover now would lose",
		Long: `Shows for each flow what its consumers would miss if they went on at the target
now: the records that the source has and the target does not have, by topic and in
total, and the groups that have read beyond what is mirrored.

When the source does not answer, it shows what the daemon knew last and how old
that is, and how old the copy itself is: the newest record at the target and the
newest heartbeat. What was written to the source since then is not in the figures.`,
		Example: `  kmirror rpo
  kmirror rpo 'east->west'
  kmirror rpo 'east->west' --fail-above 10s && kmirror-failover.sh
  kmirror rpo -o json | jq '.[] | {flow, records, seconds, as_of}'`,
		GroupID:           "clusters",
		Args:              cobra.MaximumNArgs(1),
		ValidArgsFunction: a.completeFlows,
		RunE: func(command *cobra.Command, args []string) error {
			return a.rpo(command.Context(), args, o)
		},
	}
	o.addFlags(command, "topics that would lose nothing, too")
	return command
}

func (a *app) rpo(ctx context.Context, args []string, o lagOptions) error {
	now := time.Now()
	return eachFlow(a, args, flowView[mirror.RPO]{
		ask:   func(cfg *topology.Config, f *topology.Flow) (mirror.RPO, error) { return a.flowRPO(ctx, cfg, f, o) },
		show:  func(out *strings.Builder, r mirror.RPO) error { return showRPO(out, r, o, now) },
		check: func(r mirror.RPO) error { return a.checked(r.Flow, o.exceeded(r.FlowLag, now)) },
	})
}

// flowRPO asks the daemon, or the clusters.
func (a *app) flowRPO(ctx context.Context, cfg *topology.Config, flow *topology.Flow, o lagOptions) (mirror.RPO, error) {
	q := o.LagQuery
	q.Flow = flow.Name
	if !o.direct {
		asking, cancel := context.WithTimeout(ctx, a.timeout)
		rpo, err := console.NewClient(consoleAddress(ctx, cfg)).RPO(asking, q)
		cancel()
		if err == nil && rpo.Complete && !rpo.AsOf.IsZero() {
			return rpo, nil
		}
	}
	m, err := a.openMeasure(ctx, cfg, flow)
	if err != nil {
		return mirror.RPO{}, err
	}
	defer m.close()
	if m.sourceFault != nil {
		return m.remains(ctx, q)
	}
	lag, err := m.lag(ctx, q)
	if err != nil {
		return mirror.RPO{}, err
	}
	out := mirror.RPO{FlowLag: lag}
	beyond := []checkpoint.GroupStatus{}
	err = m.lookAtGroups(ctx, groupFilter{}, func(lot []checkpoint.GroupStatus) error {
		for _, g := range lot {
			if slices.ContainsFunc(g.Partitions, func(p checkpoint.GroupPartition) bool { return p.Shortfall > 0 }) {
				beyond = append(beyond, g)
			}
		}
		return nil
	})
	if err != nil {
		return out, err
	}
	out.Beyond(slices.Values(beyond))
	return out, nil
}

func showRPO(out *strings.Builder, r mirror.RPO, o lagOptions, now time.Time) error {
	switch {
	case r.SourceReachable && r.Records == 0 && r.Unknown == 0:
		fmt.Fprintf(out, "%s  a failover to %s now would lose nothing\n", clean(r.Flow), clean(r.To))
	case r.SourceReachable:
		fmt.Fprintf(out, "%s  a failover to %s now would lose %s\n", clean(r.Flow), clean(r.To), lostWords(r.Lag))
	case r.AsOf.IsZero():
		fmt.Fprintf(out, "%s  %s does not answer, and no daemon here knows how far it had gone\n", clean(r.Flow), clean(r.From))
	default:
		fmt.Fprintf(out, "%s  %s; a failover to %s then would have lost %s\n", clean(r.Flow), unansweredSince(r.FlowLag, now), clean(r.To), lostWords(r.Lag))
	}
	if !r.SourceReachable {
		for _, one := range []struct {
			what string
			at   *time.Time
		}{{"the newest record in " + r.To, r.NewestMirrored}, {"the last sign of life of kmirror, its heartbeat,", r.Heartbeat}} {
			if one.at != nil {
				fmt.Fprintf(out, "  %s is of %s, %s ago\n", clean(one.what), oldest(one.at), seconds(now.Sub(*one.at).Seconds()))
			}
		}
	}
	if !r.AsOf.IsZero() {
		if err := showLagTopics(out, r.FlowLag, o.all, o.Partitions); err != nil {
			return err
		}
	} else if err := showNewest(out, r.FlowLag); err != nil {
		return err
	}
	if r.GroupsBeyond == 0 {
		return nil
	}
	fmt.Fprintf(out, "\n  groups that have read beyond what is mirrored, and would go on at its end\n")
	t := newTable("GROUP", ">RECORDS", ">PARTITIONS")
	for _, g := range r.Groups[:min(len(r.Groups), statusRows)] {
		t.row(g.Group, g.Records, g.Partitions)
	}
	if err := t.write(out, "  "); err != nil {
		return err
	}
	if more := r.GroupsBeyond - len(t.rows); more > 0 {
		fmt.Fprintf(out, "  and %s more\n", plural(more, "group"))
	}
	return nil
}

func lostWords(l mirror.Lag) string {
	if l.Records == 0 && l.Unknown == 0 {
		return "nothing"
	}
	return lagWords(l)
}

// showNewest says how old each topic's copy is.
func showNewest(out *strings.Builder, l mirror.FlowLag) error {
	t := newTable("TOPIC", "NEWEST RECORD IN "+l.To)
	for _, topic := range l.Topics {
		t.row(topic.Topic, oldest(topic.NewestMirrored))
	}
	if len(t.rows) == 0 {
		return nil
	}
	return t.write(out, "  ")
}
