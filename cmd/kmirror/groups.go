package main

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"

	"github.com/IBM/sarama"
	"github.com/spf13/cobra"
	"golang.org/x/sync/errgroup"

	"kmirror/topology"
)

// groupRow is one committed offset of a group in one cluster.
type groupRow struct {
	Cluster   string `json:"cluster"`
	Group     string `json:"group"`
	State     string `json:"state"` // Kafka's: Empty, Stable, ...
	Members   int    `json:"members"`
	Topic     string `json:"topic"`
	Partition int32  `json:"partition"`
	Offset    int64  `json:"offset"`
	End       int64  `json:"end"` // -1 unknown
	Lag       int64  `json:"lag"` // -1 unknown
}

func (a *app) groupsCommand() *cobra.Command {
	var only string
	command := &cobra.Command{
		Use:   "groups [CLUSTER|FLOW]",
		Short: "Show consumer groups, their offsets and lag; for a flow on both sides",
		Long: `Shows the committed offsets and the lag of the consumer groups of one cluster, of
all clusters, or, given a flow such as 'east->west', of both its sides: where each
group stands at the source, which place that is at the target, and what is
committed there.

States of a flow's row: in-step (the target stands at the same record), behind (it
will be moved), ahead (the target stands further), active-at-target (the group has
members there and is left alone), waiting (the source stands beyond what is
mirrored), none (nothing committed or mirrored at the target yet).`,
		Example:           "  kmirror groups east\n  kmirror groups 'east->west'\n  kmirror groups 'east->west' --group billing -o json",
		GroupID:           "clusters",
		Args:              cobra.MaximumNArgs(1),
		ValidArgsFunction: a.completeClusters(1, flowNames),
		RunE: func(command *cobra.Command, args []string) error {
			cfg, err := a.load()
			if err != nil {
				return err
			}
			if len(args) == 0 {
				return a.clusterGroups(command.Context(), cfg.Clusters, only)
			}
			if flow := cfg.Flow(args[0]); flow != nil {
				return a.flowGroups(command.Context(), cfg, flow, only)
			}
			t, err := findCluster(cfg, args[0])
			if err != nil {
				if len(cfg.Flows) > 0 {
					err = withCode(exitNotFound, fmt.Errorf("%w; and the flows are %v", err, flowNames(cfg)))
				}
				return err
			}
			return a.clusterGroups(command.Context(), []*topology.Cluster{t}, only)
		},
	}
	command.Flags().StringVarP(&only, "group", "g", "", "only this `GROUP`")
	return command
}

func (a *app) clusterGroups(ctx context.Context, clusters []*topology.Cluster, only string) error {
	var rows []groupRow
	var faults []error
	for _, t := range clusters {
		found, err := a.groupsOf(ctx, t, only)
		if err != nil {
			faults = append(faults, err)
			continue
		}
		rows = append(rows, found...)
	}
	if len(faults) == len(clusters) {
		return errors.Join(faults...)
	}
	if only != "" && len(rows) == 0 && len(faults) == 0 {
		return withCode(exitNotFound, fmt.Errorf("no group %q with committed offsets", only))
	}
	return errors.Join(append(faults, a.showGroups(rows))...)
}

func (a *app) groupsOf(ctx context.Context, t *topology.Cluster, only string) ([]groupRow, error) {
	cluster, metadata, err := a.connect(ctx, t)
	if err != nil {
		return nil, err
	}
	defer cluster.close()
	groups, err := a.readGroups(ctx, cluster, func(group string) bool { return only == "" || group == only })
	if err != nil {
		return nil, err
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
		return nil, err
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
	return rows, nil
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
		t.row(r.Cluster, r.Group, r.State, r.Members, r.Topic, r.Partition, r.Offset, offset(r.End), offset(r.Lag))
	}
	return t.write(a.out, "")
}

// group is a consumer group as one cluster knows it.
type group struct {
	name    string
	state   string
	members int
	offsets map[string]map[int32]int64
}

// readGroups reads the groups that are wanted, sorted by name, without those that committed nothing.
func (a *app) readGroups(ctx context.Context, cluster *remote, wanted func(string) bool) ([]*group, error) {
	fault := func(err error) error { return fmt.Errorf("read the groups of %s: %w", cluster.Name(), err) }
	admin, err := cluster.Admin(ctx)
	if err != nil {
		return nil, fault(err)
	}
	listed, err := await(ctx, admin.ListConsumerGroups)
	if err != nil {
		return nil, fault(err)
	}
	var names []string
	for name, protocol := range listed {
		if wanted(name) && (protocol == "consumer" || protocol == "") {
			names = append(names, name)
		}
	}
	if len(names) == 0 {
		return nil, nil
	}
	slices.Sort(names)
	described, err := await(ctx, func() ([]*sarama.GroupDescription, error) { return admin.DescribeConsumerGroups(names) })
	if err != nil {
		return nil, fault(err)
	}
	states := map[string]*sarama.GroupDescription{}
	for _, d := range described {
		states[d.GroupId] = d
	}
	groups := make([]*group, len(names))
	parallel, ctx := errgroup.WithContext(ctx)
	parallel.SetLimit(8)
	for i, name := range names {
		parallel.Go(func() error {
			offsets, err := groupOffsets(ctx, cluster, name)
			if err != nil {
				return err
			}
			groups[i] = &group{name: name, offsets: offsets}
			if d := states[name]; d != nil {
				groups[i].state, groups[i].members = d.State, len(d.Members)
			}
			return nil
		})
	}
	if err := parallel.Wait(); err != nil {
		return nil, fault(err)
	}
	return slices.DeleteFunc(groups, func(g *group) bool { return len(g.offsets) == 0 }), nil
}

// groupOffsets reads all that a group has committed in a cluster.
func groupOffsets(ctx context.Context, cluster *remote, name string) (map[string]map[int32]int64, error) {
	admin, err := cluster.Admin(ctx)
	if err != nil {
		return nil, err
	}
	answer, err := await(ctx, func() (*sarama.OffsetFetchResponse, error) { return admin.ListConsumerGroupOffsets(name, nil) })
	if err != nil {
		return nil, fmt.Errorf("offsets of group %s: %w", name, err)
	}
	if answer.Err != sarama.ErrNoError {
		return nil, fmt.Errorf("offsets of group %s: %w", name, answer.Err)
	}
	offsets := map[string]map[int32]int64{}
	for topic, partitions := range answer.Blocks {
		for id, block := range partitions {
			if block.Err != sarama.ErrNoError {
				return nil, fmt.Errorf("offset of group %s in partition %d of %s: %w", name, id, topic, block.Err)
			}
			if block.Offset < 0 {
				continue
			}
			if offsets[topic] == nil {
				offsets[topic] = map[int32]int64{}
			}
			offsets[topic][id] = block.Offset
		}
	}
	return offsets, nil
}
