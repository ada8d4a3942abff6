package main

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"kmirror/internal/kafka"
	"kmirror/topology"
)

// topicRow is one topic as `kmirror topics` shows it.
type topicRow struct {
	Cluster    string `json:"cluster"`
	Topic      string `json:"topic"`
	Internal   bool   `json:"internal,omitempty"`
	Partitions int    `json:"partitions"`
	Replicas   int    `json:"replicas"`
	// Records is the span of offsets, an upper bound of the number of records; -1 if it could not be asked.
	Records int64 `json:"records"`
	// To names where the flows of the configuration mirror it, From where it was mirrored from.
	To     []string         `json:"to,omitempty"`
	From   []string         `json:"from,omitempty"`
	Error  string           `json:"error,omitempty"`
	Detail []topicPartition `json:"detail,omitempty"`
}

type topicPartition struct {
	Partition int32  `json:"partition"`
	Leader    int32  `json:"leader"`
	Start     int64  `json:"start"`
	End       int64  `json:"end"`
	Error     string `json:"error,omitempty"`
}

func (a *app) topicsCommand() *cobra.Command {
	var all bool
	command := &cobra.Command{
		Use:   "topics [CLUSTER]",
		Short: "List topics and where they are mirrored",
		Long: `Lists the topics of one cluster, or of all clusters of the configuration, with
their size in records and what the flows make of them. Internal topics appear
with --all only.`,
		Example:           "  kmirror topics\n  kmirror topics west\n  kmirror topics east --all -o json",
		GroupID:           "clusters",
		Args:              cobra.MaximumNArgs(1),
		ValidArgsFunction: a.completeClusters(1),
		RunE: func(command *cobra.Command, args []string) error {
			return a.topics(command.Context(), args, all)
		},
	}
	command.Flags().BoolVar(&all, "all", false, "internal topics too")
	return command
}

func (a *app) topics(ctx context.Context, args []string, all bool) error {
	cfg, err := a.load()
	if err != nil {
		return err
	}
	clusters := cfg.Clusters
	if len(args) == 1 {
		t, err := findCluster(cfg, args[0])
		if err != nil {
			return err
		}
		clusters = []*topology.Cluster{t}
	}
	var rows []topicRow
	var faults []error // a cluster that is away does not hide the others
	for _, t := range clusters {
		found, err := a.topicsOf(ctx, cfg, t, all)
		if err != nil {
			faults = append(faults, err)
			continue
		}
		rows = append(rows, found...)
	}
	if len(faults) < len(clusters) {
		if err := a.showTopics(rows); err != nil {
			return err
		}
	}
	return errors.Join(faults...)
}

func (a *app) topicsOf(ctx context.Context, cfg *topology.Config, t *topology.Cluster, all bool) ([]topicRow, error) {
	cluster, metadata, err := a.connect(ctx, t)
	if err != nil {
		return nil, err
	}
	defer cluster.close()
	var names []string
	for _, name := range slices.Sorted(maps.Keys(metadata.Topics)) {
		if all || !metadata.Topics[name].Internal && !topology.InternalTopic(name, ".") {
			names = append(names, name)
		}
	}
	starts, ends, err := spans(ctx, cluster.Cluster, metadata, names)
	if err != nil {
		return nil, err
	}
	rows := make([]topicRow, 0, len(names))
	for _, name := range names {
		topic := metadata.Topics[name]
		row := topicRow{Cluster: t.Name, Topic: name, Internal: topic.Internal, Partitions: len(topic.Partitions)}
		if topic.Err != nil {
			row.Error = topic.Err.Error()
		}
		for _, p := range topic.Partitions {
			row.Replicas = max(row.Replicas, len(p.Replicas))
			detail := topicPartition{Partition: p.ID, Leader: p.Leader, Start: known(starts, name, p.ID), End: known(ends, name, p.ID)}
			if p.Err != nil {
				detail.Error = p.Err.Error()
			}
			switch {
			case detail.Start < 0 || detail.End < 0:
				row.Records = -1
			case row.Records >= 0:
				row.Records += detail.End - detail.Start
			}
			row.Detail = append(row.Detail, detail)
		}
		row.To, row.From = mirroredAs(cfg, t.Name, name)
		rows = append(rows, row)
	}
	return rows, nil
}

// spans asks where the partitions of topics begin and end. One that does not
// answer is left out, and shown as unknown: it must not hide the others. The
// error is only that ctx ended.
func spans(ctx context.Context, cluster *kafka.Cluster, metadata *kafka.Metadata, names []string) (starts, ends map[string]map[int32]int64, err error) {
	wanted := map[string][]int32{}
	for _, name := range names {
		for _, p := range metadata.Topics[name].Partitions {
			if p.Leader >= 0 && p.Err == nil {
				wanted[name] = append(wanted[name], p.ID)
			}
		}
	}
	if len(wanted) == 0 {
		return nil, nil, nil
	}
	starts, _ = cluster.ListOffsets(ctx, wanted, kafka.Earliest)
	ends, _ = cluster.ListOffsets(ctx, wanted, kafka.Latest)
	return starts, ends, ctx.Err()
}

func known(offsets map[string]map[int32]int64, topic string, partition int32) int64 {
	if n, ok := offsets[topic][partition]; ok {
		return n
	}
	return -1
}

// mirroredAs says what the flows make of a topic of a cluster.
func mirroredAs(cfg *topology.Config, cluster, topic string) (to, from []string) {
	for _, f := range cfg.Flows {
		if f.From == cluster && f.Selects(topic) {
			to = append(to, f.To+"/"+f.TargetTopic(topic))
		}
		if f.To == cluster {
			if source, ok := f.SourceTopic(topic); ok && f.Selects(source) && f.Naming == topology.Prefixed {
				from = append(from, f.From+"/"+source)
			}
		}
	}
	return to, from
}

func (a *app) showTopics(rows []topicRow) error {
	if a.wantsJSON() {
		if rows == nil {
			rows = []topicRow{}
		}
		return a.writeJSON(rows)
	}
	if len(rows) == 0 {
		_, err := fmt.Fprintln(a.out, "no topics")
		return err
	}
	t := newTable("CLUSTER", "TOPIC", ">PARTITIONS", ">REPLICAS", ">RECORDS", "MIRRORED")
	for _, r := range rows {
		var mirrored []string
		for _, to := range r.To {
			mirrored = append(mirrored, "to "+to)
		}
		for _, from := range r.From {
			mirrored = append(mirrored, "from "+from)
		}
		if r.Error != "" {
			mirrored = append(mirrored, r.Error)
		}
		t.row(r.Cluster, r.Topic, r.Partitions, r.Replicas, offset(r.Records), strings.Join(mirrored, ", "))
	}
	return t.write(a.out, "")
}
