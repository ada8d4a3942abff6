package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"kmirror/topology"
)

// checkResult is what `kmirror check -o json` answers.
type checkResult struct {
	File     string           `json:"file"`
	OK       bool             `json:"ok"`
	Faults   []faultJSON      `json:"faults"`
	Clusters []checkedCluster `json:"clusters,omitempty"`
	Flows    []checkedFlow    `json:"flows,omitempty"`
	Findings []finding        `json:"findings,omitempty"`
}

type faultJSON struct {
	Line    int    `json:"line"`
	Path    string `json:"path"`
	Problem string `json:"problem"`
	Remedy  string `json:"remedy"`
}

type checkedCluster struct {
	Name      string   `json:"name"`
	Kind      string   `json:"kind"`
	Addresses []string `json:"addresses"`
	// What only --connect knows:
	ID      string `json:"id,omitempty"`
	Brokers int    `json:"brokers,omitempty"`
	Topics  int    `json:"topics,omitempty"`
	Error   string `json:"error,omitempty"`
}

type checkedFlow struct {
	Name   string `json:"name"`
	Naming string `json:"naming"`
	// Topics is how many topics of the source it mirrors now, -1 where nobody asked.
	Topics int `json:"topics"`
	// Loop is how records are kept from going round, empty where none could.
	Loop string `json:"loop,omitempty"`
	// Drops are the flows into the source whose batches the flow leaves out.
	Drops []string `json:"drops,omitempty"`
	// Fence is how a dead instance is kept from writing: "fenced" or "detection", empty where nobody asked.
	Fence string `json:"fence,omitempty"`
}

// finding is something that --connect saw: what would not work, or, as a note, what is odd.
type finding struct {
	Note    bool   `json:"note"`
	Where   string `json:"where"`
	Problem string `json:"problem"`
	Remedy  string `json:"remedy"`
}

func (a *app) checkCommand() *cobra.Command {
	var connect bool
	command := &cobra.Command{
		Use:   "check",
		Short: "Check the configuration; with --connect also the clusters",
		Long: `Reads mirror.yaml and reports every fault at once, each with its line, its place
in the file, and what to do. Nothing is started.

With --connect it also connects: is every cluster there, are two names one
cluster, and is there a topic that cannot be mirrored as it is (a name that gets
too long once prefixed, a right that is missing)? Can each target keep a dead
instance from writing (FENCE), and can a topic lose what it has acknowledged?
What works but looks odd is noted.

Flows with identity naming may go round in a circle where it can be broken: it
says for each of them what it leaves out.`,
		Example: "  kmirror check\n  kmirror check --connect\n  kmirror check --config /etc/kmirror/mirror.yaml -o json",
		GroupID: "daemon",
		Args:    cobra.NoArgs,
		RunE: func(command *cobra.Command, _ []string) error {
			return a.check(command.Context(), connect)
		},
	}
	command.Flags().BoolVar(&connect, "connect", false, "connect to the clusters too")
	return command
}

func (a *app) check(ctx context.Context, connect bool) error {
	cfg, err := a.load()
	var faults topology.Faults
	switch {
	case errors.As(err, &faults):
		return a.showFaults(faults)
	case err != nil:
		return err
	}
	result := describeConfig(cfg)
	var fault error
	if connect {
		fault = a.checkClusters(ctx, cfg, &result)
		if ctx.Err() != nil {
			return ctx.Err()
		}
	}
	result.OK = fault == nil
	if err := a.showChecked(result, connect); err != nil {
		return err
	}
	return fault
}

func (a *app) showFaults(faults topology.Faults) error {
	if a.wantsJSON() {
		result := checkResult{File: a.config, Faults: []faultJSON{}}
		for _, f := range faults {
			result.Faults = append(result.Faults, faultJSON{f.Line, f.Path, f.Problem, f.Remedy})
		}
		if err := a.writeJSON(result); err != nil {
			return err
		}
		return &shownError{exitUsage}
	}
	for _, f := range faults {
		fmt.Fprintln(a.out, clean(f.Error()))
	}
	fmt.Fprintf(a.out, "\n%s in %s\n", plural(len(faults), "fault"), a.config)
	return &shownError{exitUsage}
}

// describeConfig says what a good file means.
func describeConfig(cfg *topology.Config) checkResult {
	result := checkResult{File: cfg.Path, Faults: []faultJSON{}}
	for _, c := range cfg.Clusters {
		result.Clusters = append(result.Clusters, checkedCluster{Name: c.Name, Kind: kindOf(c), Addresses: c.Addresses()})
	}
	for _, f := range cfg.Flows {
		flow := checkedFlow{Name: f.Name, Naming: string(f.Naming), Topics: -1, Drops: f.Drops}
		if f.Loop != topology.LoopNone {
			flow.Loop = f.Loop.String()
		}
		result.Flows = append(result.Flows, flow)
	}
	return result
}

func kindOf(c *topology.Cluster) string {
	if c.Embedded != nil {
		return "embedded"
	}
	return "external"
}

func (a *app) showChecked(r checkResult, connected bool) error {
	if a.wantsJSON() {
		return a.writeJSON(r)
	}
	fmt.Fprintf(a.out, "%s is good: %s, %s\n\n", r.File, plural(len(r.Clusters), "cluster"), plural(len(r.Flows), "flow"))
	clusters := newTable("CLUSTER", "KIND", "ADDRESSES")
	if connected {
		clusters = newTable("CLUSTER", "KIND", "ADDRESSES", "ID", ">BROKERS", ">TOPICS")
	}
	for _, c := range r.Clusters {
		addresses := strings.Join(c.Addresses, ",")
		if c.Error != "" {
			clusters.row(c.Name, c.Kind, addresses, "-", "-", "-")
			continue
		}
		clusters.row(c.Name, c.Kind, addresses, c.ID, c.Brokers, c.Topics)
	}
	if err := clusters.write(a.out, ""); err != nil {
		return err
	}
	if len(r.Flows) > 0 {
		fmt.Fprintln(a.out)
		flows := newTable("FLOW", "NAMES", ">TOPICS", "FENCE")
		if !connected {
			flows = newTable("FLOW", "NAMES")
		}
		for _, f := range r.Flows {
			flows.row(f.Name, f.Naming, offset(int64(f.Topics)), cmp.Or(f.Fence, "-"))
		}
		if err := flows.write(a.out, ""); err != nil {
			return err
		}
		for _, f := range r.Flows {
			if f.Loop != "" {
				fmt.Fprintln(a.out, clean("circle: "+f.Name+" "+f.Loop+": it leaves out the batches of "+strings.Join(f.Drops, ", ")))
			}
		}
	}
	if len(r.Findings) > 0 {
		fmt.Fprintln(a.out)
	}
	for _, f := range r.Findings {
		line := f.Where + ": " + f.Problem + "; " + f.Remedy
		if f.Note {
			line = "note: " + line
		}
		fmt.Fprintln(a.out, clean(line))
	}
	return nil
}
