package main

import (
	"cmp"
	"context"
	"fmt"
	"log/slog"

	"github.com/spf13/cobra"
)

type runOptions struct {
	logLevel, logFormat string // empty: as the configuration says
	pprof               string // address; empty: none
	quiet               bool
}

func (a *app) runCommand() *cobra.Command {
	var o runOptions
	command := &cobra.Command{
		Use:   "run",
		Short: "Run the daemon: serve embedded clusters, mirror flows",
		Long: `Starts everything the configuration describes: its embedded clusters, its flows,
and the page with status and metrics. It runs until ctrl-c or SIGTERM, and stops in
order: first the flows come to rest, then the page goes, then the clusters. A second
signal ends it at once; nothing that was acknowledged is lost by that. SIGHUP, like
kmirror reload, makes it read the configuration again.

Logs go to stderr, the greeting to stdout.`,
		Example: `  kmirror run
  kmirror run --config /etc/kmirror/mirror.yaml --log-format json
  kmirror run --log-level debug`,
		GroupID: "daemon",
		Args:    cobra.NoArgs,
		RunE: func(command *cobra.Command, _ []string) error {
			return a.run(command.Context(), o)
		},
	}
	flags := command.Flags()
	flags.StringVar(&o.logLevel, "log-level", "", "`LEVEL`: debug, info, warn or error (default: the configuration's)")
	flags.StringVar(&o.logFormat, "log-format", "", "`FORMAT`: text or json (default: the configuration's)")
	flags.BoolVarP(&o.quiet, "quiet", "q", false, "no greeting")
	flags.StringVar(&o.pprof, "pprof", "", "serve Go's profiles at `ADDRESS`")
	_ = flags.MarkHidden("pprof")
	return command
}

func (a *app) run(ctx context.Context, o runOptions) error {
	cfg, err := a.load()
	if err != nil {
		return err
	}
	threshold, ok := logLevel(cmp.Or(o.logLevel, cfg.Log.Level))
	if !ok {
		return withCode(exitUsage, fmt.Errorf("--log-level %s: it is debug, info, warn or error", o.logLevel))
	}
	var level slog.LevelVar
	level.Set(threshold)
	logger, err := newLogger(a.err, &level, cmp.Or(o.logFormat, cfg.Log.Format))
	if err != nil {
		return err
	}
	boundMemory()
	d := &daemon{app: a, options: o, cfg: cfg, logger: logger, file: newConfigFile(cfg, logger), version: readBuildInfo().Version}
	if o.logLevel == "" {
		d.file.level = func(name string) {
			if threshold, ok := logLevel(name); ok {
				level.Set(threshold)
			}
		}
	}
	return d.run(ctx)
}
