package main

import (
	"cmp"
	"context"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"kmirror/internal/console"
	"kmirror/mirror"
	"kmirror/topology"
)

type statusOptions struct {
	watch    bool
	interval time.Duration
	all      bool
}

// How many topics and partitions of a flow are shown without --all.
const statusRows = 20

func (a *app) statusCommand() *cobra.Command {
	var o statusOptions
	command := &cobra.Command{
		Use:   "status [FLOW]",
		Short: "Show what the daemon does: flows, topics, rates and lag",
		Long: `Asks the daemon at the http address of the configuration for its clusters and
flows, with their topics, rates and how far behind they are, what is paused, the
partitions that wait or stopped and why, and the newest incident.`,
		Example:           "  kmirror status\n  kmirror status 'east->west' --all\n  kmirror status --watch\n  kmirror status -o json",
		GroupID:           "daemon",
		Args:              cobra.MaximumNArgs(1),
		ValidArgsFunction: a.completeFlows,
		RunE: func(command *cobra.Command, args []string) error {
			flow := ""
			if len(args) == 1 {
				flow = args[0]
			}
			return a.status(command.Context(), flow, o)
		},
	}
	command.Flags().BoolVarP(&o.watch, "watch", "w", false, "show it again and again until ctrl-c")
	command.Flags().DurationVar(&o.interval, "interval", 2*time.Second, "how often with --watch")
	command.Flags().BoolVar(&o.all, "all", false, fmt.Sprintf("all topics, not only %d of each flow", statusRows))
	return command
}

func (a *app) completeFlows(_ *cobra.Command, args []string, _ string) ([]string, cobra.ShellCompDirective) {
	cfg, err := topology.Load(a.config)
	if err != nil || len(args) > 0 {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	return flowNames(cfg), cobra.ShellCompDirectiveNoFileComp
}

func (a *app) status(ctx context.Context, flow string, o statusOptions) error {
	client, err := a.daemonClient(ctx)
	if err != nil {
		return err
	}
	for {
		asking, cancel := context.WithTimeout(ctx, a.timeout)
		status, err := client.Status(asking)
		cancel()
		if err == nil {
			err = keepFlow(&status.Status, flow)
		}
		switch {
		case ctx.Err() != nil && o.watch:
			return nil
		case err != nil:
			return err
		}
		var page strings.Builder
		if o.watch && a.outTerminal && !a.wantsJSON() {
			page.WriteString("\x1b[H\x1b[2J")
		}
		if a.wantsJSON() {
			err = a.writeJSON(status)
		} else if err = showStatus(&page, status, o.all, time.Now()); err == nil {
			_, err = fmt.Fprint(a.out, page.String())
		}
		if err != nil || !o.watch {
			return err
		}
		select {
		case <-time.After(max(100*time.Millisecond, o.interval)):
		case <-ctx.Done():
			return nil
		}
		if !a.outTerminal && !a.wantsJSON() {
			fmt.Fprintln(a.out)
		}
	}
}

// consoleAddress is where the daemon of this configuration listens: what it
// wrote down when it started if the file leaves the port open, or if nobody is
// there and the file may have been changed since.
func consoleAddress(ctx context.Context, cfg *topology.Config) string {
	written, err := os.ReadFile(filepath.Join(cfg.DataDir, consoleAddressFile))
	if err != nil {
		return cfg.HTTP
	}
	address := strings.TrimSpace(string(written))
	if strings.HasSuffix(cfg.HTTP, ":0") || !answers(ctx, cfg.HTTP) && answers(ctx, address) {
		return address
	}
	return cfg.HTTP
}

// answers reports whether anybody listens there.
func answers(ctx context.Context, address string) bool {
	dialer := net.Dialer{Timeout: time.Second}
	conn, err := dialer.DialContext(ctx, "tcp", strings.TrimPrefix(console.BaseURL(address), "http://"))
	if err != nil {
		return false
	}
	_ = conn.Close() // nothing was said
	return true
}

func keepFlow(status *mirror.Status, name string) error {
	if name == "" {
		return nil
	}
	var names []string
	for _, f := range status.Flows {
		if f.Name == name {
			status.Flows = []mirror.FlowStatus{f}
			return nil
		}
		names = append(names, f.Name)
	}
	return withCode(exitNotFound, fmt.Errorf("the daemon has no flow %q: it has %v", name, names))
}

func showStatus(out *strings.Builder, s console.StatusAnswer, all bool, now time.Time) error {
	fmt.Fprintf(out, "%s  kmirror %s", clean(s.Instance), clean(s.Version))
	if !s.Started.IsZero() {
		fmt.Fprintf(out, "  up %s", now.Sub(s.Started).Round(time.Second))
	}
	if len(s.Members) > 1 {
		fmt.Fprintf(out, "  one of %d instances", len(s.Members))
	}
	if s.Leading {
		fmt.Fprintf(out, "  leading, term %d", s.Term)
	}
	out.WriteString("\n")
	showHappened(out, s, now)
	out.WriteString("\n")
	clusters := newTable("CLUSTER", "KIND", "ADDRESSES", "STATE")
	for _, c := range s.Clusters {
		state := "reachable"
		switch {
		case !c.Reachable && c.Error != "":
			state = "UNREACHABLE: " + c.Error
		case !c.Reachable:
			state = "not reached yet"
		}
		clusters.row(c.Name, c.Kind, strings.Join(c.Addresses, ","), state)
	}
	if err := clusters.write(out, ""); err != nil {
		return err
	}
	if err := showMaps(out, s); err != nil {
		return err
	}
	if len(s.Flows) == 0 {
		out.WriteString("\nno flows\n")
		return nil
	}
	out.WriteString("\n")
	flows := newTable("FLOW", "STATE", "FENCE", ">REC/S", ">THROUGHPUT", ">RECORDS", ">BEHIND", ">BYTES BEHIND", ">TIME BEHIND", "")
	for _, f := range s.Flows {
		flows.row(f.Name, f.State, cmp.Or(f.Fence, "-"), rate(f.RecordsPerSecond), plainFigure(console.FormatByteRate(f.BytesPerSecond)), f.Records, offset(f.LagRecords),
			bytesOf(mirror.Lag{Bytes: f.LagBytes, BytesEstimated: f.LagBytesEstimated}), seconds(f.LagSeconds), flowNote(f))
	}
	if err := flows.write(out, ""); err != nil {
		return err
	}
	for _, f := range s.Flows {
		if err := showFlow(out, f, all); err != nil {
			return err
		}
	}
	return nil
}

// showMaps says how large the offset maps are, and what was passed over in
// internal topics.
func showMaps(out *strings.Builder, s console.StatusAnswer) error {
	if len(s.Maps) > 0 {
		out.WriteString("\n")
		maps := newTable("OFFSET MAP IN", ">PARTITIONS", ">RUNS", ">MEMORY", ">RECORDS READ")
		for _, m := range s.Maps {
			maps.row(m.Cluster, m.Partitions, m.Runs, plainFigure(console.FormatBytes(float64(m.Memory))), m.Records)
		}
		if err := maps.write(out, ""); err != nil {
			return err
		}
	}
	for _, one := range s.Skipped {
		fmt.Fprintf(out, "passed over in %s of %s: %s that are corrupt or not ours", clean(one.Topic), clean(one.Cluster), plural(int(one.Records), "record"))
		if one.First != "" {
			fmt.Fprintf(out, "; %s", clean(one.First))
		}
		out.WriteString("\n")
	}
	return nil
}

// showHappened says what an operator wants to know before all figures.
func showHappened(out *strings.Builder, s console.StatusAnswer, now time.Time) {
	if c := s.Config; c != nil {
		if c.Refused != nil {
			fmt.Fprintf(out, "configuration: %s was not taken %s ago: %s\n", clean(c.Path), now.Sub(*c.Refused).Round(time.Second), clean(c.Error))
		}
		if len(c.Waiting) > 0 {
			fmt.Fprintf(out, "configuration: waits for a restart: %s\n", clean(strings.Join(c.Waiting, ", ")))
		}
	}
	if newest := s.Incidents.Newest; newest != nil && s.Incidents.Recent > 0 {
		fmt.Fprintf(out, "incidents: %d in the last day, the newest %s ago: %s of %s", s.Incidents.Recent, now.Sub(newest.Last).Round(time.Second), newest.Kind, clean(newest.Flow))
		if newest.Topic != "" {
			fmt.Fprintf(out, " %s", clean(newest.Topic))
		}
		out.WriteString("; kmirror incidents shows them\n")
	}
}

// flowNote is what stands behind a flow's figures.
func flowNote(f mirror.FlowStatus) string {
	var notes []string
	if f.Throttle > 0 {
		notes = append(notes, "at most "+plainFigure(console.FormatByteRate(float64(f.Throttle))))
	}
	if f.Error != "" {
		notes = append(notes, f.Error)
	}
	return strings.Join(notes, "; ")
}

// pausedTopic says why a topic is paused as a whole, empty if it is not.
func pausedTopic(t mirror.TopicStatus) string {
	why := ""
	for _, p := range t.Partitions {
		if p.State != "paused" {
			return ""
		}
		why = cmp.Or(p.Error, "paused")
	}
	return why
}

func showFlow(out *strings.Builder, f mirror.FlowStatus, all bool) error {
	if len(f.Topics) == 0 {
		return nil
	}
	fmt.Fprintf(out, "\n%s\n", clean(f.Name))
	topics := newTable("TOPIC", "TARGET", ">PARTITIONS", ">REC/S", ">RECORDS", ">BEHIND", ">TIME BEHIND", "")
	troubled := newTable("TOPIC", ">PARTITION", "STATE", ">POSITION", ">END", "WHY")
	for i, t := range f.Topics {
		paused := pausedTopic(t)
		if all || i < statusRows || t.Error != "" || paused != "" {
			if t.Error == "" && paused == "" && t.LagUnknown > 0 {
				paused = unknownNote(mirror.Lag{Unknown: t.LagUnknown})
			}
			topics.row(t.Source, t.Target, len(t.Partitions), rate(t.RecordsPerSecond), t.Records, offset(t.LagRecords), seconds(t.LagSeconds), cmp.Or(t.Error, paused))
		}
		for _, p := range t.Partitions {
			if (p.Error != "" || p.State == "stopped") && (paused == "" || all) && (all || len(troubled.rows) < statusRows) {
				troubled.row(t.Source, p.Partition, p.State, offset(p.Position), offset(p.SourceEnd), p.Error)
			}
		}
	}
	if err := topics.write(out, "  "); err != nil {
		return err
	}
	if more := len(f.Topics) - len(topics.rows); more > 0 {
		fmt.Fprintf(out, "  and %s more; --all shows them\n", plural(more, "topic"))
	}
	if len(troubled.rows) == 0 {
		return nil
	}
	out.WriteString("\n  partitions that need a look\n")
	return troubled.write(out, "  ")
}

// rate and seconds are the console's words in plain characters, for scripts.
func rate(perSecond float64) string { return plainFigure(console.FormatRate(perSecond)) }
func seconds(behind float64) string { return plainFigure(console.FormatSeconds(behind)) }

func plainFigure(s string) string { return strings.NewReplacer("\u202f", "", "–", "-").Replace(s) }
