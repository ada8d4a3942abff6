package main

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"kmirror/internal/console"
	"kmirror/internal/kafka"
	"kmirror/topology"
)

// planResult is what `kmirror plan -o json` answers.
type planResult struct {
	File string `json:"file"`
	// Reload is what the daemon says a reload would change, nil if none answers.
	Reload *console.ReloadAnswer `json:"reload,omitempty"`
	Flows  []plannedFlow         `json:"flows"`
}

// plannedFlow is what a flow would do at its target.
type plannedFlow struct {
	Name    string         `json:"name"`
	Error   string         `json:"error,omitempty"` // why it is not known
	Topics  int            `json:"topics"`          // that it mirrors, -1 unknown
	Paused  int            `json:"paused"`          // of them, by the file
	Make    []plannedTopic `json:"make"`            // topics that the target does not have yet
	Grow    []plannedTopic `json:"grow"`            // topics with fewer partitions than at the source
	LeftOut map[string]int `json:"left_out"`        // topics of the source that it does not mirror, by reason
}

type plannedTopic struct {
	Source     string `json:"source"`
	Target     string `json:"target"`
	Partitions int    `json:"partitions"`
	Existing   int    `json:"existing"` // partitions
	Replicas   int    `json:"replicas"`
	Start      string `json:"start"` // of a topic that is made
}

func (a *app) planCommand() *cobra.Command {
	var all bool
	command := &cobra.Command{
		Use:   "plan [FLOW]",
		Short: "Show what the configuration on disk would change",
		Long: `Shows what the configuration on disk would change: against the daemon that runs, as
reload --dry-run does, and at the clusters, for each flow: which topics it would make,
and which would get partitions. Nothing is changed.

Without a daemon it shows what a start would make.`,
		Example: `  kmirror plan
  kmirror plan 'east->west' --all
  kmirror plan -o json`,
		GroupID:           "daemon",
		Args:              cobra.MaximumNArgs(1),
		ValidArgsFunction: a.completeFlows,
		RunE: func(command *cobra.Command, args []string) error {
			flow := ""
			if len(args) > 0 {
				flow = args[0]
			}
			return a.plan(command.Context(), flow, all)
		},
	}
	command.Flags().BoolVar(&all, "all", false, fmt.Sprintf("all topics, not only %d of each flow", statusRows))
	return command
}

func (a *app) plan(ctx context.Context, only string, all bool) error {
	cfg, err := a.load()
	if err != nil {
		return err
	}
	if only != "" && cfg.Flow(only) == nil {
		return withCode(exitNotFound, fmt.Errorf("no flow %q in %s: there are %s", only, cfg.Path, strings.Join(flowNames(cfg), ", ")))
	}
	result := planResult{File: cfg.Path, Flows: []plannedFlow{}}
	asking, cancel := context.WithTimeout(ctx, a.timeout)
	reload, err := console.NewClient(consoleAddress(ctx, cfg)).Reload(asking, true)
	cancel()
	var away *console.UnreachableError
	switch {
	case err == nil:
		result.Reload = &reload
	case !errors.As(err, &away) || ctx.Err() != nil:
		return err
	}
	sides := map[string]*side{}
	defer func() {
		for _, s := range sides {
			if s != nil {
				s.close()
			}
		}
	}()
	var unlinked []error
	known := func(name string) *side {
		if s, asked := sides[name]; asked {
			return s
		}
		cluster, metadata, err := a.connect(ctx, cfg.Cluster(name))
		if err != nil {
			unlinked = append(unlinked, err)
			sides[name] = nil
			return nil
		}
		sides[name] = &side{cluster, metadata}
		return sides[name]
	}
	for _, f := range cfg.Flows {
		if only == "" || f.Name == only {
			result.Flows = append(result.Flows, planFlow(f, known(f.From), known(f.To)))
		}
	}
	if ctx.Err() != nil {
		return ctx.Err()
	}
	if a.wantsJSON() {
		err = a.writeJSON(result)
	} else {
		err = a.showPlan(result, all)
	}
	return errors.Join(err, errors.Join(unlinked...))
}

// planFlow compares the two sides of a flow.
func planFlow(f *topology.Flow, source, target *side) plannedFlow {
	p := plannedFlow{Name: f.Name, Topics: -1, Make: []plannedTopic{}, Grow: []plannedTopic{}, LeftOut: map[string]int{}}
	switch {
	case source == nil:
		p.Error = "cluster " + f.From + " does not answer"
		return p
	case target == nil:
		p.Error = "cluster " + f.To + " does not answer"
		return p
	}
	p.Topics = 0
	for _, name := range slices.Sorted(maps.Keys(source.metadata.Topics)) {
		if selection := f.Selection(name); selection != topology.Selected {
			if selection != topology.Internal {
				p.LeftOut[selection.String()]++
			}
			continue
		}
		p.Topics++
		if f.Paused(name) {
			p.Paused++
		}
		t := planTopic(f, source.metadata.Topics[name], target.metadata)
		switch {
		case t.Existing == 0:
			t.Start = f.StartFor(name).String()
			p.Make = append(p.Make, t)
		case t.Existing < t.Partitions:
			p.Grow = append(p.Grow, t)
		}
	}
	return p
}

func planTopic(f *topology.Flow, source *kafka.Topic, target *kafka.Metadata) plannedTopic {
	t := plannedTopic{Source: source.Name, Target: f.TargetTopic(source.Name), Partitions: len(source.Partitions), Replicas: int(f.ReplicationFactor)}
	if t.Replicas == 0 && len(source.Partitions) > 0 {
		t.Replicas = min(len(source.Partitions[0].Replicas), len(target.Brokers))
	}
	if there := target.Topics[t.Target]; there != nil {
		t.Existing = len(there.Partitions)
	}
	return t
}

func (a *app) showPlan(r planResult, all bool) error {
	switch {
	case r.Reload == nil:
		fmt.Fprintf(a.out, "no daemon runs; a start would take all of %s\n", r.File)
	case r.Reload.Error != "":
		a.noteOtherFile(r.Reload.Path)
		fmt.Fprintf(a.out, "the daemon would not take its file: %s\n", clean(r.Reload.Error))
	default:
		a.noteOtherFile(r.Reload.Path)
		a.showChanges(*r.Reload)
	}
	for _, f := range r.Flows {
		fmt.Fprintf(a.out, "\n%s\n", clean(f.Name))
		if f.Error != "" {
			fmt.Fprintf(a.out, "  %s\n", clean(f.Error))
			continue
		}
		fmt.Fprintf(a.out, "  mirrors %s", plural(f.Topics, "topic"))
		if f.Paused > 0 {
			fmt.Fprintf(a.out, ", %d of them paused by the file", f.Paused)
		}
		for _, reason := range slices.Sorted(maps.Keys(f.LeftOut)) {
			fmt.Fprintf(a.out, "; leaves out %d: %s", f.LeftOut[reason], reason)
		}
		fmt.Fprintln(a.out)
		for _, part := range []struct {
			title, last string
			topics      []plannedTopic
		}{{"would make", "START", f.Make}, {"would add partitions to", ">NOW", f.Grow}} {
			if err := a.showPlanned(part.title, part.last, part.topics, all); err != nil {
				return err
			}
		}
		if len(f.Make) == 0 && len(f.Grow) == 0 {
			fmt.Fprintln(a.out, "  nothing to make")
		}
	}
	return nil
}

func (a *app) showPlanned(title, last string, topics []plannedTopic, all bool) error {
	if len(topics) == 0 {
		return nil
	}
	fmt.Fprintf(a.out, "\n  %s\n", title)
	rows := newTable("TOPIC", "TARGET", ">PARTITIONS", ">REPLICAS", last)
	for i, t := range topics {
		if !all && i == statusRows {
			break
		}
		end := t.Start
		if t.Existing > 0 {
			end = fmt.Sprint(t.Existing)
		}
		rows.row(t.Source, t.Target, t.Partitions, t.Replicas, end)
	}
	if err := rows.write(a.out, "  "); err != nil {
		return err
	}
	if more := len(topics) - len(rows.rows); more > 0 {
		fmt.Fprintf(a.out, "  and %s more; --all shows them\n", plural(more, "topic"))
	}
	return nil
}
