package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"

	"github.com/spf13/cobra"

	"kmirror/internal/console"
	"kmirror/topology"
)

func (a *app) reloadCommand() *cobra.Command {
	var dryRun bool
	command := &cobra.Command{
		Use:   "reload",
		Short: "Have the daemon read its configuration again",
		Long: `Asks the daemon to read its configuration file again, as SIGHUP does. The file is
checked whole first: a faulty one changes nothing. What can change while the daemon
runs (flows, and the level of the log) is taken at once; what cannot is named, and
waits for a restart.

Where several instances share the work, give all of them the file first.`,
		Example: `  kmirror reload --dry-run     # what would it change?
  kmirror reload
  kmirror reload -o json`,
		GroupID: "daemon",
		Args:    cobra.NoArgs,
		RunE: func(command *cobra.Command, _ []string) error {
			return a.reload(command.Context(), dryRun)
		},
	}
	command.Flags().BoolVar(&dryRun, "dry-run", false, "only say what it would change")
	return command
}

// daemonClient is a client of the daemon that the configuration names. A faulty
// file is no reason to leave a daemon alone that runs with an older one.
func (a *app) daemonClient(ctx context.Context) (*console.Client, error) {
	cfg, err := a.load()
	if err == nil {
		return console.NewClient(consoleAddress(ctx, cfg)), nil
	}
	if _, faulty := errors.AsType[topology.Faults](err); !faulty {
		return nil, err
	}
	if address := roughAddress(a.config); address != "" {
		return console.NewClient(address), nil
	}
	return nil, err
}

// roughAddress is the http address that a faulty file names in so many words, or the default.
func roughAddress(path string) string {
	text, err := os.ReadFile(path)
	if err != nil {
		return ""
	}
	for line := range strings.Lines(string(text)) {
		if value, ok := strings.CutPrefix(line, "http:"); ok {
			value, _, _ = strings.Cut(value, " #")
			value = strings.Trim(strings.TrimSpace(value), `"'`)
			if strings.HasSuffix(value, ":0") || strings.Contains(value, "$") {
				return ""
			}
			return value
		}
	}
	return topology.Default().HTTP
}

func (a *app) reload(ctx context.Context, dryRun bool) error {
	client, err := a.daemonClient(ctx)
	if err != nil {
		return err
	}
	answer, err := client.Reload(ctx, dryRun)
	if err != nil {
		return err
	}
	if a.wantsJSON() {
		if err := a.writeJSON(answer); err != nil {
			return err
		}
		return reloadOutcome(answer)
	}
	a.noteOtherFile(answer.Path)
	for _, fault := range answer.Faults {
		fmt.Fprintln(a.err, clean(fault))
	}
	if answer.Error != "" {
		fmt.Fprintf(a.err, "kmirror: nothing has changed: %s\n", clean(answer.Error))
		return reloadOutcome(answer)
	}
	a.showChanges(answer)
	return nil
}

// reloadOutcome is the exit code of an answer that has been shown.
func reloadOutcome(answer console.ReloadAnswer) error {
	switch {
	case len(answer.Faults) > 0:
		return &shownError{exitUsage}
	case answer.Error != "":
		return &shownError{exitFailure}
	}
	return nil
}

// noteOtherFile tells when the daemon reads another file than this command was given.
func (a *app) noteOtherFile(path string) {
	mine, err := os.Stat(a.config)
	if err != nil {
		return
	}
	if theirs, err := os.Stat(path); err != nil || !os.SameFile(mine, theirs) {
		a.note(fmt.Sprintf("the daemon's file is %s, not %s", path, a.config))
	}
}

// showChanges writes what a file changes: what is live, and what needs a restart.
func (a *app) showChanges(answer console.ReloadAnswer) {
	var live, waiting []string
	for _, c := range answer.Changes {
		if c.Live {
			live = append(live, c.String())
		} else {
			waiting = append(waiting, strings.TrimSuffix(c.String(), " (needs a restart)"))
		}
	}
	if len(answer.Changes) == 0 {
		fmt.Fprintln(a.out, "nothing differs from what runs")
		return
	}
	title := "taken:"
	if answer.DryRun {
		title = "a reload would take:"
	}
	for _, part := range []struct {
		title string
		lines []string
	}{{title, live}, {"needs a restart:", waiting}} {
		if len(part.lines) == 0 {
			continue
		}
		fmt.Fprintln(a.out, part.title)
		for _, line := range part.lines {
			fmt.Fprintln(a.out, "  "+clean(line))
		}
	}
}
