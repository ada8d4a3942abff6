package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"kmirror/topology"
)

// app is one invocation: where it reads and writes, and what the flags say that
// all commands share.
type app struct {
	in                                   io.Reader
	out, err                             io.Writer
	inTerminal, outTerminal, errTerminal bool
	started                              time.Time

	config  string        // --config
	output  string        // --output
	timeout time.Duration // --timeout
	running bool          // set once arguments and flags were accepted
}

// main runs one command line and returns the exit code.
func (a *app) main(ctx context.Context, args []string) int {
	root := a.root() //nolint:contextcheck // the commands get their context from ExecuteContextC
	root.SetArgs(args)
	root.SetIn(a.in)
	root.SetOut(a.out)
	root.SetErr(a.err)
	command, err := root.ExecuteContextC(ctx)
	if err == nil {
		return exitOK
	}
	if !a.running { // cobra's own complaints about flags and arguments
		err = withCode(exitUsage, fmt.Errorf("%w\nsee `%s --help`", err, command.CommandPath()))
	}
	code := codeOf(ctx, err)
	var shown *shownError
	switch {
	case code == exitInterrupted:
		fmt.Fprintln(a.err, "kmirror: stopped before it was done")
	case !errors.As(err, &shown):
		a.complain(err)
	}
	return code
}

// complain writes an error for a person: the faults of a file as they are, the
// rest behind our name.
func (a *app) complain(err error) {
	switch e := err.(type) { //nolint:errorlint // a look at this very error: what it wraps comes by recursion
	case topology.Fault:
		fmt.Fprintln(a.err, clean(e.Error()))
		return
	case interface{ Unwrap() []error }: // several, by errors.Join or as topology.Faults
		for _, one := range e.Unwrap() {
			a.complain(one)
		}
		return
	}
	for i, line := range strings.Split(err.Error(), "\n") {
		if i == 0 {
			line = "kmirror: " + line
		}
		fmt.Fprintln(a.err, cleanLines(line)) // cobra indents what it suggests
	}
}

func (a *app) root() *cobra.Command {
	root := &cobra.Command{
		Use:   "kmirror",
		Short: "Mirror Kafka topics between clusters",
		Long: `kmirror mirrors Kafka topics between clusters, record by record and exactly once,
and keeps consumer groups at the same record on both sides. It can also serve
Kafka clusters of its own, embedded in the same process.

Clusters and flows are written in mirror.yaml; every command finds them there by name.`,
		Example: `  kmirror init                                  # write a commented mirror.yaml
  kmirror run                                   # start what it describes
  echo hello | kmirror produce east greetings   # write to one cluster ...
  kmirror consume west east.greetings --count 1 # ... and read from the other
  kmirror status`,
		SilenceErrors: true,
		SilenceUsage:  true,
		PersistentPreRunE: func(*cobra.Command, []string) error {
			if a.output != "text" && a.output != "json" {
				return fmt.Errorf("--output %s: it is text or json", a.output)
			}
			a.running = true
			return nil
		},
	}
	flags := root.PersistentFlags()
	flags.StringVarP(&a.config, "config", "c", "mirror.yaml", "configuration `FILE`")
	flags.StringVarP(&a.output, "output", "o", "text", "`FORMAT` of the answer: text or json")
	flags.DurationVar(&a.timeout, "timeout", 10*time.Second, "how long to wait for a cluster or the daemon")
	root.CompletionOptions.HiddenDefaultCmd = false
	root.AddGroup(&cobra.Group{ID: "daemon", Title: "The daemon:"}, &cobra.Group{ID: "clusters", Title: "Straight to the clusters:"})
	root.AddCommand(
		a.runCommand(), a.checkCommand(), a.initCommand(), a.importCommand(), a.statusCommand(), a.incidentsCommand(),
		a.planCommand(), a.reloadCommand(), a.pauseCommand(), a.resumeCommand(),
		a.topicsCommand(), a.produceCommand(), a.consumeCommand(), a.groupsCommand(), a.translateCommand(), a.verifyCommand(), a.lagCommand(), a.rpoCommand(),
		a.benchCommand(), a.versionCommand(), exitCodesTopic(),
	)
	_ = root.RegisterFlagCompletionFunc("output", cobra.FixedCompletions([]string{"text", "json"}, cobra.ShellCompDirectiveNoFileComp))
	return root
}

// load reads the configuration; a missing one is explained.
func (a *app) load() (*topology.Config, error) {
	cfg, err := topology.Load(a.config)
	var faults topology.Faults
	switch {
	case err == nil:
		return cfg, nil
	case errors.As(err, &faults):
		return nil, err
	case errors.Is(err, fs.ErrNotExist):
		return nil, withCode(exitUsage, fmt.Errorf("there is no %s: write a commented one with `kmirror init`, or name yours with --config FILE", a.config))
	default:
		return nil, withCode(exitUsage, err)
	}
}
