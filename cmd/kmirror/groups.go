package main

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/IBM/sarama"
	"github.com/spf13/cobra"

	"kmirror/checkpoint"
	"kmirror/internal/console"
	"kmirror/topology"
)

// groupRow is one committed offset of a group in one cluster.
type groupRow struct {
	Cluster   string `json:"cluster"`
	Group     string `json:"group"`
	State     string `json:"state"`   // Kafka's: Empty, Stable, ...
	Members   int    `json:"members"` // -1 unknown
	Topic     string `json:"topic"`
	Partition int32  `json:"partition"`
	Offset    int64  `json:"offset"`
	End       int64  `json:"end"` // -1 unknown
	Lag       int64  `json:"lag"` // -1 unknown
}

// groupsOptions are the flags of `kmirror groups`.
type groupsOptions struct {
	groupFilter

	partitions, failback, adopt, dryRun bool
	limit                               int
	pattern                             string
	only                                string
	maxLag                              int64
	failOn                              []string
}

// details says whether each partition is shown.
func (o groupsOptions) details() bool { return o.partitions || len(o.names) > 0 }

// failing returns what says why a group is not as the check wants it, "" if it is.
func (o groupsOptions) failing() func(console.Group) string {
	return func(g console.Group) string {
		switch {
		case slices.Contains(o.failOn, g.State):
			return fmt.Sprintf("group %s is %s", g.Group, g.State)
		case o.maxLag >= 0 && g.Behind+g.Shortfall > o.maxLag:
			return fmt.Sprintf("group %s is %s from its place, %d allowed", g.Group, plural(int(g.Behind+g.Shortfall), "record"), o.maxLag)
		default:
			return ""
		}
	}
}

func (a *app) groupsCommand() *cobra.Command {
	var o groupsOptions
	command := &cobra.Command{
		Use:   "groups [CLUSTER | FLOW [GROUP...]]",
		Short: "Show consumer groups on both sides of a flow, or in a cluster",
		Long: `Shows the committed offsets and the lag of the consumer groups of one cluster, of
all clusters, or, given a flow such as 'east->west', of both its sides: where each
group stands at the source, which place that is at the target, what is committed
there, and how far it is from either end (times are reckoned: ~). It judges as the
daemon does, straight from the clusters.

Of a flow, each group is one row, with the state of its worst partition; name a
GROUP, or give --partitions, for each partition. States:

  in-step            the target stands at the same record
  waiting            the source's group stands beyond what is mirrored
  behind             the target's group will be moved
  returning          it moved on at the target; the source's group will be moved
  deleted-at-source  its offset at the source is gone; what it has at the target stays
  active-at-target   it has members at the target and is left alone there
  active-at-source   it moved on at the target, but has members at the source
  diverged           somebody else moved it at the target: both are left alone
  error              see the text

--failback moves groups at the source to where they stand at the target, once: all
that moved on there, or those named. --adopt moves diverged groups at the target to
where they stand at the source, and the flow keeps them in step again. Groups with
members are refused; --dry-run shows what would be done.`,
		Example: `  kmirror groups east
  kmirror groups 'east->west'
  kmirror groups 'east->west' billing
  kmirror groups 'east->west' --match 'team-a-.*' --partitions -o json
  kmirror groups 'east->west' --max-lag 1000 --fail-on diverged,error || page-somebody
  kmirror groups 'east->west' --failback --dry-run
  kmirror groups 'east->west' --adopt billing`,
		GroupID:           "clusters",
		Args:              cobra.ArbitraryArgs,
		ValidArgsFunction: a.completeClusters(1, flowNames),
		RunE: func(command *cobra.Command, args []string) error {
			return a.groups(command.Context(), args, o)
		},
	}
	flags := command.Flags()
	flags.StringVarP(&o.only, "group", "g", "", "only this `GROUP`")
	flags.StringVar(&o.pattern, "match", "", "only groups whose whole name matches this `PATTERN` (RE2)")
	flags.BoolVarP(&o.partitions, "partitions", "p", false, "of a flow: each partition")
	flags.IntVarP(&o.limit, "limit", "n", 1000, "of a flow: at most so many groups, those that are worst off")
	flags.Int64Var(&o.maxLag, "max-lag", -1, "of a flow: exit with code 6 if a group at the target is more than so many `RECORDS` from its place")
	flags.StringSliceVar(&o.failOn, "fail-on", nil, "of a flow: exit with code 6 if a group is in one of these `STATES`")
	flags.BoolVar(&o.failback, "failback", false, "of a flow: move groups at the source to where they stand at the target")
	flags.BoolVar(&o.adopt, "adopt", false, "of a flow: move the named groups at the target to where they stand at the source")
	flags.BoolVar(&o.dryRun, "dry-run", false, "with --failback and --adopt: only show it")
	command.MarkFlagsMutuallyExclusive("failback", "adopt")
	_ = command.RegisterFlagCompletionFunc("fail-on", cobra.FixedCompletions(checkpoint.States(), cobra.ShellCompDirectiveNoFileComp))
	return command
}

// groups shows groups, or moves them.
func (a *app) groups(ctx context.Context, args []string, o groupsOptions) error {
	cfg, err := a.load()
	if err != nil {
		return err
	}
	if len(args) > 1 {
		o.names = args[1:]
	}
	if o.only != "" {
		o.names = append(o.names, o.only)
	}
	if o.pattern != "" {
		if o.match, err = console.MatchNames(o.pattern); err != nil {
			return withCode(exitUsage, fmt.Errorf("--%w", err))
		}
	}
	for _, state := range o.failOn {
		if !slices.Contains(checkpoint.States(), state) {
			return withCode(exitUsage, fmt.Errorf("--fail-on %s: it is one of %s", state, strings.Join(checkpoint.States(), ", ")))
		}
	}
	if o.limit < 1 || o.limit > console.MaxGroups {
		return withCode(exitUsage, fmt.Errorf("--limit %d: it is a number from 1 to %d", o.limit, console.MaxGroups))
	}
	if o.dryRun && !o.failback && !o.adopt {
		return withCode(exitUsage, errors.New("--dry-run goes with --failback or --adopt"))
	}
	wants := func(group string) bool {
		return (len(o.names) == 0 || slices.Contains(o.names, group)) && (o.match == nil || o.match.MatchString(group))
	}
	if len(args) > 0 {
		if flow := cfg.Flow(args[0]); flow != nil {
			if o.failback || o.adopt {
				return a.moveGroups(ctx, cfg, flow, o)
			}
			return a.flowGroups(ctx, cfg, flow, o)
		}
	}
	if o.failback || o.adopt || o.maxLag >= 0 || len(o.failOn) > 0 {
		return withCode(exitUsage, fmt.Errorf("name a flow for that: there are %v", flowNames(cfg)))
	}
	if len(args) == 0 {
		return a.clusterGroups(ctx, cfg.Clusters, wants, o)
	}
	t, err := findCluster(cfg, args[0])
	if err != nil {
		if len(cfg.Flows) > 0 {
			err = withCode(exitNotFound, fmt.Errorf("%w; and the flows are %v", err, flowNames(cfg)))
		}
		return err
	}
	return a.clusterGroups(ctx, []*topology.Cluster{t}, wants, o)
}

func (a *app) clusterGroups(ctx context.Context, clusters []*topology.Cluster, wants func(string) bool, o groupsOptions) error {
	var rows []groupRow
	var faults []error
	for _, t := range clusters {
		found, err := a.groupsOf(ctx, t, wants)
		if err != nil {
			faults = append(faults, err)
		}
		rows = append(rows, found...)
	}
	if len(faults) == len(clusters) && len(rows) == 0 {
		return errors.Join(faults...)
	}
	if len(o.names) > 0 && len(rows) == 0 && len(faults) == 0 {
		return withCode(exitNotFound, fmt.Errorf("no group %q with committed offsets", strings.Join(o.names, ", ")))
	}
	return errors.Join(append(faults, a.showGroups(rows))...)
}

// groupsOf returns what is known of the groups of a cluster; with an error it is not
// all.
func (a *app) groupsOf(ctx context.Context, t *topology.Cluster, wants func(string) bool) ([]groupRow, error) {
	cluster, metadata, err := a.connect(ctx, t)
	if err != nil {
		return nil, err
	}
	defer cluster.close()
	groups, unread := readGroups(ctx, cluster, wants)
	if len(groups) == 0 {
		return nil, unread
	}
	wanted := map[string]bool{}
	for _, g := range groups {
		for topic := range g.offsets {
			if metadata.Topics[topic] != nil {
				wanted[topic] = true
			}
		}
	}
	_, ends, err := spans(ctx, cluster.Cluster, metadata, slices.Sorted(maps.Keys(wanted)))
	if err != nil {
		return nil, errors.Join(unread, err)
	}
	var rows []groupRow
	for _, g := range groups {
		for _, topic := range slices.Sorted(maps.Keys(g.offsets)) {
			for _, id := range slices.Sorted(maps.Keys(g.offsets[topic])) {
				row := groupRow{Cluster: t.Name, Group: g.name, State: g.state, Members: g.members, Topic: topic, Partition: id, Offset: g.offsets[topic][id], End: known(ends, topic, id)}
				row.Lag = lag(row.Offset, row.End)
				rows = append(rows, row)
			}
		}
	}
	return rows, unread
}

func lag(offset, end int64) int64 {
	if offset < 0 || end < 0 {
		return -1
	}
	return max(0, end-offset)
}

func (a *app) showGroups(rows []groupRow) error {
	if a.wantsJSON() {
		if rows == nil {
			rows = []groupRow{}
		}
		return a.writeJSON(rows)
	}
	if len(rows) == 0 {
		_, err := fmt.Fprintln(a.out, "no group has committed offsets")
		return err
	}
	t := newTable("CLUSTER", "GROUP", "STATE", ">MEMBERS", "TOPIC", ">PARTITION", ">OFFSET", ">END", ">LAG")
	for _, r := range rows {
		t.row(r.Cluster, r.Group, r.State, offset(int64(r.Members)), r.Topic, r.Partition, r.Offset, offset(r.End), offset(r.Lag))
	}
	return t.write(a.out, "")
}

// group is a consumer group as one cluster knows it.
type group struct {
	name    string
	state   string
	members int // -1 unknown
	offsets map[string]map[int32]int64
}

// readGroups reads the groups that are wanted, sorted by name, without those that
// committed nothing: as many as one request takes in each. What brokers that do not
// answer know is not among them, which the error says.
func readGroups(ctx context.Context, cluster *remote, wanted func(string) bool) ([]*group, error) {
	fault := func(err error) error { return fmt.Errorf("read the groups of %s: %w", cluster.Name(), err) }
	sides, unread := checkpoint.ReadGroups(ctx, cluster.Cluster, wanted)
	if unread != nil {
		unread = fault(unread)
	}
	var names []string
	var first string
	failed := 0
	for name, side := range sides {
		switch {
		case side.Err != nil:
			if failed++; first == "" || name < first {
				first = name
			}
		case len(side.Offsets) > 0:
			names = append(names, name)
		}
	}
	if failed > 0 {
		unread = errors.Join(unread, fault(fmt.Errorf("%s could not be read, the first is %s: %w", plural(failed, "group"), clean(first), sides[first].Err)))
	}
	if len(names) == 0 {
		return nil, unread
	}
	slices.Sort(names)
	members, err := membersOf(ctx, cluster, names)
	if err != nil {
		unread = errors.Join(unread, fault(err))
	}
	groups := make([]*group, 0, len(names))
	for _, name := range names {
		g := &group{name: name, state: sides[name].State, members: -1, offsets: map[string]map[int32]int64{}}
		if n, known := members[name]; known {
			g.members = n
		}
		for at, c := range sides[name].Offsets {
			if g.offsets[at.Topic] == nil {
				g.offsets[at.Topic] = map[int32]int64{}
			}
			g.offsets[at.Topic][at.Partition] = c.Offset
		}
		groups = append(groups, g)
	}
	return groups, unread
}

// membersOf counts the members of groups.
func membersOf(ctx context.Context, cluster *remote, names []string) (map[string]int, error) {
	admin, err := cluster.Admin(ctx)
	if err != nil {
		return nil, err
	}
	described, err := await(ctx, func() ([]*sarama.GroupDescription, error) { return admin.DescribeConsumerGroups(names) })
	if err != nil {
		return nil, err
	}
	members := make(map[string]int, len(described))
	for _, d := range described {
		members[d.GroupId] = len(d.Members)
	}
	return members, nil
}

// groupOffsets reads all that a group has committed in a cluster.
func groupOffsets(ctx context.Context, cluster *remote, name string) (map[string]map[int32]int64, error) {
	groups, err := readGroups(ctx, cluster, func(other string) bool { return other == name })
	if len(groups) == 0 {
		return nil, err
	}
	return groups[0].offsets, nil // whatever else is not known
}
