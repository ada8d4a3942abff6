package main

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/url"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"kmirror/internal/verify"
	"kmirror/topology"
)

type verifyOptions struct {
	topics    []string
	partition int32
	since     string
	sample    string
	seed      uint64
	parallel  int
	throttle  float64
	state     string
	resume    bool
	restart   bool
	show      bool
	canonical bool
	atOnce    int
}

func (a *app) verifyCommand() *cobra.Command {
	o := verifyOptions{}
	command := &cobra.Command{
		Use:   "verify FLOW",
		Short: "Prove that source and target of a flow hold the same records",
		Long: `Reads both sides of a flow and compares them record by record: key, value, headers
and timestamp, and whether any is missing, stands twice or is too much. What is
compared is fixed when it begins, so mirroring may go on meanwhile; what retention
or compaction takes is counted, and is no fault. The first difference is named by
its place, with sizes and hashes of both sides; records themselves are shown only
with --show.

It can be stopped at any time, and gone on with by --resume: how far it has come
is kept below the data directory.

Exit code 0 says that all is the same, 7 that something differs.`,
		Example: `  kmirror verify 'east->west'
  kmirror verify 'east->west' --topic orders --topic payments --since 24h
  kmirror verify 'east->west' --sample 5% --throttle 50   # at most 50 MB/s
  kmirror verify 'east->west' --resume`,
		GroupID: "clusters",
		Args:    cobra.ExactArgs(1),
		ValidArgsFunction: func(_ *cobra.Command, args []string, _ string) ([]string, cobra.ShellCompDirective) {
			if cfg, err := topology.Load(a.config); err == nil && len(args) == 0 {
				return flowNames(cfg), cobra.ShellCompDirectiveNoFileComp
			}
			return nil, cobra.ShellCompDirectiveNoFileComp
		},
		RunE: func(command *cobra.Command, args []string) error {
			choice, err := o.selection(time.Now())
			if err != nil {
				return err
			}
			chosen := slices.ContainsFunc([]string{"topic", "partition", "since", "sample", "seed", "canonical"}, command.Flags().Changed)
			return a.verify(command.Context(), args[0], o, choice, chosen)
		},
	}
	flags := command.Flags()
	flags.StringSliceVar(&o.topics, "topic", nil, "only this `TOPIC` of the source; may be given several times")
	flags.Int32VarP(&o.partition, "partition", "p", -1, "only this `PARTITION`")
	flags.StringVar(&o.since, "since", "", "only records from `WHEN` on: "+whenForms)
	flags.StringVar(&o.sample, "sample", "100%", "only a random `SHARE` of them, such as 5%")
	flags.Uint64Var(&o.seed, "seed", 0, "take the same sample as the run that printed this `SEED`")
	flags.IntVar(&o.parallel, "parallel", 4, "how many partitions to read at once, `N`")
	flags.Float64Var(&o.throttle, "throttle", 0, "read at most `MB` megabytes a second, both sides together; 0: as fast as it goes")
	flags.BoolVar(&o.resume, "resume", false, "go on where the last run was stopped")
	flags.BoolVar(&o.restart, "restart", false, "forget a run that was stopped, and begin anew")
	flags.StringVar(&o.state, "state", "", "keep there how far it has come, `DIRECTORY`; otherwise below data_dir")
	flags.BoolVar(&o.show, "show", false, "show the bytes that differ; they may be secret")
	flags.IntVar(&o.atOnce, "at-once", verify.DefaultAtOnce, "hold at most `N` partitions in memory (a topic's always together); if there are more, topics take turns")
	flags.BoolVar(&o.canonical, "canonical", false, "open every batch, so that digests depend on the records alone and not on how they are batched and compressed")
	return command
}

// selection reads what the flags choose.
func (o *verifyOptions) selection(now time.Time) (verify.Selection, error) {
	s := verify.Selection{Partition: o.partition, Sample: verify.All(), Canonical: o.canonical}
	s.Topics = append(s.Topics, o.topics...)
	slices.Sort(s.Topics)
	s.Topics = slices.Compact(s.Topics)
	if o.partition < -1 {
		return s, withCode(exitUsage, errors.New("--partition is 0 or more"))
	}
	if o.parallel < 1 || o.parallel > 64 {
		return s, withCode(exitUsage, errors.New("--parallel is 1 to 64"))
	}
	if o.atOnce < 1 {
		return s, withCode(exitUsage, errors.New("--at-once is 1 or more"))
	}
	if o.throttle < 0 {
		return s, withCode(exitUsage, errors.New("--throttle is 0 or more"))
	}
	if o.resume && o.restart {
		return s, withCode(exitUsage, errors.New("either --resume or --restart"))
	}
	if o.since != "" {
		at, err := parseWhen("--since", o.since, now)
		if err != nil {
			return s, err
		}
		if at.UnixMilli() <= 0 {
			return s, withCode(exitUsage, fmt.Errorf("--since %s: no record is so old", o.since))
		}
		s.SinceMillis = at.UnixMilli()
	}
	share, err := strconv.ParseFloat(strings.TrimSuffix(o.sample, "%"), 64)
	if strings.HasSuffix(o.sample, "%") {
		share /= 100
	}
	if err != nil || !(share > 0 && share <= 1) {
		return s, withCode(exitUsage, fmt.Errorf("--sample %q: it is a share above 0, such as 5%% or 0.05", o.sample))
	}
	if s.Sample.Share = share; share < 1 {
		if s.Sample.Seed = o.seed; o.seed == 0 {
			s.Sample.Seed = uint64(rand.Uint32()) // short enough to be typed
		}
	}
	return s, nil
}

func (a *app) verify(ctx context.Context, name string, o verifyOptions, choice verify.Selection, chosen bool) error {
	cfg, err := a.load()
	if err != nil {
		return err
	}
	flow := cfg.Flow(name)
	if flow == nil {
		return withCode(exitNotFound, fmt.Errorf("no flow %q in %s: there are %v", name, cfg.Path, flowNames(cfg)))
	}
	base := o.state
	if base == "" {
		base = filepath.Join(cfg.DataDir, "verify")
	}
	dir, err := openDataDir(filepath.Join(base, url.PathEscape(flow.Name)))
	if err != nil {
		return err
	}
	defer dir.close()
	store := verify.Store{Path: dir.join("state.json")}
	kept, err := a.kept(store, flow, o, choice, chosen)
	if err != nil {
		return err
	}
	source, _, err := a.connect(ctx, cfg.Cluster(flow.From))
	if err != nil {
		return needsBoth(err)
	}
	defer source.close()
	target, _, err := a.connect(ctx, cfg.Cluster(flow.To))
	if err != nil {
		return needsBoth(err)
	}
	defer target.close()
	others := func(ctx context.Context, name string) (string, error) {
		cluster, metadata, err := a.connect(ctx, cfg.Cluster(name))
		if err != nil {
			return "", err
		}
		defer cluster.close()
		return metadata.ClusterID, nil
	}
	setting := verify.Setting{Source: source.Cluster, Target: target.Cluster, Others: others, Config: cfg, Flow: flow, AtOnce: o.atOnce}
	for {
		v, err := verify.Prepare(ctx, setting, choice, kept)
		if err != nil {
			return a.notPrepared(flow, err)
		}
		work := verifying{
			app: a, v: v, store: store,
			options: verify.Options{
				Source: source.Cluster, Target: target.Cluster, Parallel: o.parallel, Throttle: int64(o.throttle * 1e6),
				Show: o.show, Canonical: v.Selection.Canonical,
			},
		}
		if kept, err = work.run(ctx); err != nil || kept == nil {
			return err
		}
	}
}

// kept is what an earlier run left, if it is to be gone on with.
func (a *app) kept(store verify.Store, flow *topology.Flow, o verifyOptions, choice verify.Selection, chosen bool) (*verify.Standing, error) {
	if o.restart {
		return nil, store.Clear()
	}
	again := a.command("verify", quoteWord(flow.Name), "--restart")
	kept, err := store.Load()
	switch {
	case err != nil:
		return nil, withCode(exitUsage, fmt.Errorf("%w: begin anew with `%s`", err, again))
	case kept == nil && o.resume:
		return nil, withCode(exitUsage, fmt.Errorf("no verification of %s was stopped: nothing to go on with", flow.Name))
	case kept == nil:
		return nil, nil //nolint:nilnil // there is none
	case !o.resume:
		return nil, withCode(exitUsage, fmt.Errorf("a verification of %s, begun at %s, was stopped: go on with `%s`, or begin anew with `%s`",
			flow.Name, kept.Begun.Local().Format(time.DateTime), a.command("verify", quoteWord(flow.Name), "--resume"), again))
	case kept.Flow != flow.Name:
		return nil, withCode(exitUsage, fmt.Errorf("%s is about flow %s: begin anew with `%s`", store.Path, clean(kept.Flow), again))
	}
	if option := kept.Selection.Differs(choice); chosen && option != "" {
		return nil, withCode(exitUsage, fmt.Errorf("the verification that was stopped had another %s: go on without the option, or begin anew with --restart", option))
	}
	return kept, nil
}

func needsBoth(err error) error {
	return fmt.Errorf("%w; verify reads both sides of the flow", err)
}

func (a *app) notPrepared(flow *topology.Flow, err error) error {
	var missing *verify.NotFoundError
	var outdated *verify.OutdatedError
	switch {
	case errors.As(err, &missing):
		return withCode(exitNotFound, err)
	case errors.As(err, &outdated):
		return withCode(exitUsage, fmt.Errorf("what was kept of the verification no longer fits: %w: begin anew with `%s`", err, a.command("verify", quoteWord(flow.Name), "--restart")))
	}
	return err
}
