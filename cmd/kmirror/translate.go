package main

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"

	"github.com/spf13/cobra"

	"kmirror/checkpoint"
	"kmirror/internal/kafka"
)

// translatedRow is one offset and its counterpart.
type translatedRow struct {
	From          string `json:"from"`
	Topic         string `json:"topic"`
	Partition     int32  `json:"partition"`
	Offset        int64  `json:"offset"`
	To            string `json:"to"`
	ToTopic       string `json:"to_topic"`
	ToOffset      int64  `json:"to_offset"` // -1: nothing of this partition is mirrored
	Exact         bool   `json:"exact"`
	Shortfall     int64  `json:"shortfall"`
	BeforeMirror  bool   `json:"before_mirror,omitempty"`
	NotPartOfFlow bool   `json:"not_part_of_flow,omitempty"`
}

type translateOptions struct {
	topic     string
	partition int32
	offset    int64
}

func (a *app) translateCommand() *cobra.Command {
	o := translateOptions{}
	command := &cobra.Command{
		Use:   "translate FROM TO [GROUP]",
		Short: "Say where an offset, or a group, stands in the other cluster",
		Long: `Translates the committed offsets of a group, or one given offset, from one cluster
to another, along the flow between them or against it. It reads the offset map
straight from the cluster that the flow writes to, so it needs neither the daemon
nor, for a given offset, the other cluster.

The answer is exact: the very next record. An offset beyond what is mirrored stands
at the mirrored end, and the shortfall says how many records are missing there.`,
		Example: `  kmirror translate east west billing
  kmirror translate west east billing                     # the way back
  kmirror translate east west --topic orders --partition 0 --offset 1234`,
		GroupID:           "clusters",
		Args:              cobra.RangeArgs(2, 3),
		ValidArgsFunction: a.completeClusters(2),
		RunE: func(command *cobra.Command, args []string) error {
			flags := command.Flags()
			single := flags.Changed("topic") || flags.Changed("partition") || flags.Changed("offset")
			switch {
			case len(args) == 3 && single:
				return withCode(exitUsage, errors.New("either a GROUP, or --topic, --partition and --offset"))
			case len(args) == 3:
				return a.translateGroup(command.Context(), args[0], args[1], args[2])
			case o.topic == "" || !flags.Changed("offset"):
				return withCode(exitUsage, errors.New("what to translate? Name a GROUP, or give --topic, --partition and --offset"))
			case o.offset < 0 || o.partition < 0:
				return withCode(exitUsage, errors.New("--partition and --offset are 0 or more"))
			default:
				return a.translateOffset(command.Context(), args[0], args[1], o)
			}
		},
	}
	flags := command.Flags()
	flags.StringVar(&o.topic, "topic", "", "the `TOPIC`, as it is called in FROM")
	flags.Int32VarP(&o.partition, "partition", "p", 0, "the `PARTITION`")
	flags.Int64Var(&o.offset, "offset", 0, "the `OFFSET` in FROM")
	return command
}

func (a *app) translateOffset(ctx context.Context, from, to string, o translateOptions) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	b, err := a.openBridge(ctx, from, to)
	if err != nil {
		return err
	}
	defer b.close()
	rows, err := b.translate(ctx, map[string]map[int32]int64{o.topic: {o.partition: o.offset}})
	if err != nil {
		return err
	}
	switch row := rows[0]; {
	case row.NotPartOfFlow:
		return withCode(exitNotFound, fmt.Errorf("no flow between %s and %s mirrors the topic %s of %s", from, to, o.topic, from))
	case row.ToOffset < 0:
		return withCode(exitNotFound, fmt.Errorf("nothing of partition %d of %s is mirrored between %s and %s", o.partition, o.topic, from, to))
	}
	return a.showTranslated(rows)
}

func (a *app) translateGroup(ctx context.Context, from, to, name string) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	b, err := a.openBridge(ctx, from, to)
	if err != nil {
		return err
	}
	defer b.close()
	source, err := b.remote(ctx, from)
	if err != nil {
		return fmt.Errorf("%w; where its groups were put in %s so far, `%s` shows", err, to, a.command("groups", to))
	}
	offsets, err := groupOffsets(ctx, source, name)
	if err != nil {
		return fmt.Errorf("ask %s: %w", from, err)
	}
	if len(offsets) == 0 {
		return withCode(exitNotFound, fmt.Errorf("group %q has no committed offsets in %s: `kmirror groups %s` lists those that have", name, from, from))
	}
	rows, err := b.translate(ctx, offsets)
	if err != nil {
		return err
	}
	return a.showTranslated(rows)
}

func (a *app) showTranslated(rows []translatedRow) error {
	if a.wantsJSON() {
		return a.writeJSON(rows)
	}
	t := newTable("TOPIC", ">PARTITION", ">OFFSET", "", "TOPIC", ">OFFSET", "")
	for _, r := range rows {
		t.row(r.From+"/"+r.Topic, r.Partition, r.Offset, "->", r.To+"/"+r.ToTopic, offset(r.ToOffset), r.word())
	}
	return t.write(a.out, "")
}

// word says what the figures do not.
func (r translatedRow) word() string {
	switch {
	case r.NotPartOfFlow:
		return "not mirrored between the two"
	case r.ToOffset < 0:
		return "nothing mirrored yet"
	case r.Shortfall > 0:
		return "mirrored end; " + plural(int(r.Shortfall), "record") + " not mirrored yet"
	case r.BeforeMirror:
		return "first mirrored record; the offset is from before"
	case r.Exact:
		return "exact"
	default:
		return "next mirrored record"
	}
}

// bridge is two clusters, the ways between them, and their offset maps.
type bridge struct {
	app      *app
	from, to string
	ways     []*crossing
	clusters map[string]*remote
	metadata map[string]*kafka.Metadata
	connect  func(ctx context.Context, name string) (*remote, *kafka.Metadata, error)
}

func (a *app) openBridge(ctx context.Context, from, to string) (*bridge, error) {
	cfg, err := a.load()
	if err != nil {
		return nil, err
	}
	for _, name := range []string{from, to} {
		if _, err := findCluster(cfg, name); err != nil {
			return nil, err
		}
	}
	ways, err := crossings(cfg, from, to)
	if err != nil {
		return nil, err
	}
	b := &bridge{app: a, from: from, to: to, ways: ways, clusters: map[string]*remote{}, metadata: map[string]*kafka.Metadata{}}
	b.connect = func(ctx context.Context, name string) (*remote, *kafka.Metadata, error) {
		return a.connect(ctx, cfg.Cluster(name))
	}
	var missing error
	indexes := map[string]*checkpoint.Index{}
	open := ways[:0]
	for _, w := range ways {
		target := w.flow.To // the map is where the flow writes
		if indexes[target] == nil {
			cluster, err := b.remote(ctx, target)
			if err != nil {
				b.close()
				return nil, err
			}
			if b.metadata[target].Topics[checkpoint.MapTopic] == nil {
				missing = mapMissing(target)
				continue
			}
			if indexes[target], err = a.loadIndex(ctx, cluster); err != nil {
				b.close()
				return nil, err
			}
		}
		w.index = indexes[target]
		open = append(open, w)
	}
	b.ways = open
	if len(open) == 0 {
		b.close()
		return nil, missing
	}
	return b, nil
}

// remote connects to one of the two clusters, once.
func (b *bridge) remote(ctx context.Context, name string) (*remote, error) {
	if cluster := b.clusters[name]; cluster != nil {
		return cluster, nil
	}
	cluster, metadata, err := b.connect(ctx, name)
	if err != nil {
		return nil, err
	}
	b.clusters[name], b.metadata[name] = cluster, metadata
	return cluster, nil
}

func (b *bridge) close() {
	for _, cluster := range b.clusters {
		cluster.close()
	}
}

// translate translates offsets of FROM, sorted by topic and partition.
func (b *bridge) translate(ctx context.Context, offsets map[string]map[int32]int64) ([]translatedRow, error) {
	var rows []translatedRow
	for _, topic := range slices.Sorted(maps.Keys(offsets)) {
		for _, id := range slices.Sorted(maps.Keys(offsets[topic])) {
			row := translatedRow{From: b.from, Topic: topic, Partition: id, Offset: offsets[topic][id], To: b.to, ToOffset: -1, NotPartOfFlow: true}
			for _, way := range b.ways {
				other, ok := way.takes(topic)
				if !ok {
					continue
				}
				row.NotPartOfFlow, row.ToTopic = false, other
				if found := way.translate(topic, id, row.Offset); found.known {
					row.ToOffset, row.Exact, row.Shortfall, row.BeforeMirror = found.Offset, found.Exact, found.Shortfall, found.Before
				}
				break
			}
			rows = append(rows, row)
		}
	}
	return rows, ctx.Err()
}
