package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"kmirror/internal/console"
	"kmirror/mirror"
)

type incidentOptions struct {
	since, flow, topic, kind string
	limit                    int
	follow                   bool
}

func (a *app) incidentsCommand() *cobra.Command {
	var o incidentOptions
	command := &cobra.Command{
		Use:   "incidents",
		Short: "Show what went wrong, and what was done about it",
		Long: `Asks the daemon for its incidents: data that was lost, doubled, set aside or is
held back, with the place, what was found, and what was done. They are written
once and kept over restarts; one that occurs again within an hour is counted.

Each instance knows those of the partitions that it had.`,
		Example: `  kmirror incidents
  kmirror incidents --since 2h --kind retention-loss
  kmirror incidents --flow 'east->west' --topic orders --limit 1000
  kmirror incidents --follow -o json | jq .detail`,
		GroupID: "daemon",
		Args:    cobra.NoArgs,
		RunE: func(command *cobra.Command, _ []string) error {
			return a.incidents(command.Context(), o)
		},
	}
	flags := command.Flags()
	flags.StringVar(&o.since, "since", "", "only those that occurred since `WHEN`: "+whenForms)
	flags.StringVar(&o.flow, "flow", "", "only those of a `FLOW`")
	flags.StringVar(&o.topic, "topic", "", "only those of a `TOPIC` of the source")
	flags.StringVar(&o.kind, "kind", "", "only those of a `KIND`, as retention-loss")
	flags.IntVarP(&o.limit, "limit", "n", 100, "at most so many, the newest")
	flags.BoolVarP(&o.follow, "follow", "f", false, "go on with what comes until ctrl-c; with -o json one line each")
	_ = command.RegisterFlagCompletionFunc("flow", func(command *cobra.Command, _ []string, word string) ([]string, cobra.ShellCompDirective) {
		return a.completeFlows(command, nil, word)
	})
	return command
}

func (a *app) incidents(ctx context.Context, o incidentOptions) error {
	var since time.Time
	if o.since != "" {
		var err error
		if since, err = parseWhen("--since", o.since, time.Now()); err != nil {
			return err
		}
	}
	if o.limit < 1 || o.limit > 1000 {
		return withCode(exitUsage, fmt.Errorf("--limit %d: it is a number from 1 to 1000", o.limit))
	}
	client, err := a.daemonClient(ctx)
	if err != nil {
		return err
	}
	query := console.IncidentQuery{Since: since, Flow: o.flow, Topic: o.topic, Kind: o.kind, Limit: o.limit}
	answer, err := a.askIncidents(ctx, client, query)
	if err != nil {
		return err
	}
	if o.follow {
		return a.followIncidents(ctx, client, query, answer)
	}
	if a.wantsJSON() {
		return a.writeJSON(answer)
	}
	if len(answer.Incidents) == 0 {
		fmt.Fprintln(a.out, "no incidents")
		return nil
	}
	for _, i := range answer.Incidents {
		a.showIncident(i)
	}
	if more := answer.Total - len(answer.Incidents); more > 0 {
		fmt.Fprintf(a.out, "and %d before these; --limit 1000 shows more\n", more)
	}
	return nil
}

func (a *app) askIncidents(ctx context.Context, client *console.Client, q console.IncidentQuery) (console.IncidentsAnswer, error) {
	asking, cancel := context.WithTimeout(ctx, a.timeout)
	defer cancel()
	return client.Incidents(asking, q)
}

// followInterval is how often --follow asks for news.
const followInterval = time.Second

// followIncidents shows what there is and what comes. A daemon that is away for
// a while is awaited.
func (a *app) followIncidents(ctx context.Context, client *console.Client, q console.IncidentQuery, answer console.IncidentsAnswer) error {
	lost := false
	for {
		for _, i := range answer.Incidents {
			if !a.wantsJSON() {
				a.showIncident(i)
				continue
			}
			line, err := json.Marshal(i)
			if err != nil {
				return err
			}
			if _, err := fmt.Fprintf(a.out, "%s\n", line); err != nil {
				return err
			}
		}
		q.After, q.Limit = max(q.After, answer.Newest), 1000
		select {
		case <-time.After(followInterval):
		case <-ctx.Done():
			return nil
		}
		news, err := a.askIncidents(ctx, client, q)
		if ctx.Err() != nil {
			return nil //nolint:nilerr // the end that was asked for
		}
		var away *console.UnreachableError
		switch {
		case errors.As(err, &away):
			if !lost {
				fmt.Fprintln(a.err, "kmirror: the daemon does not answer; waiting for it")
			}
			lost, news = true, console.IncidentsAnswer{}
		case err != nil:
			return err
		default:
			lost = false
			if news.Newest < q.After { // its directory is another one
				q.After = 0
			}
		}
		answer = news
	}
}

// showIncident writes an incident in a few lines.
func (a *app) showIncident(i mirror.Incident) {
	head := []string{i.Last.Local().Format("2006-01-02 15:04:05"), i.Kind, i.Flow}
	if i.Topic != "" {
		place := i.Topic
		if i.Partition >= 0 {
			place = fmt.Sprintf("%s/%d", i.Topic, i.Partition)
		}
		head = append(head, place)
	}
	for _, figure := range []struct {
		name string
		n    int64
	}{{"source", i.SourceOffset}, {"target", i.TargetOffset}, {"count", i.Count}} {
		if figure.n >= 0 {
			head = append(head, fmt.Sprintf("%s %d", figure.name, figure.n))
		}
	}
	if i.Times > 1 {
		head = append(head, fmt.Sprintf("%d times since %s", i.Times, i.Time.Local().Format("15:04:05")))
	}
	fmt.Fprintln(a.out, clean(strings.Join(head, "  ")))
	for _, text := range []string{i.Detail, i.Action} {
		if text != "" {
			fmt.Fprintln(a.out, "    "+clean(text))
		}
	}
}
