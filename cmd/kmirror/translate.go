package main

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"math"
	"slices"
	"time"

	"github.com/spf13/cobra"

	"kmirror/internal/kafka"
	"kmirror/topology"
)

// translatedRow is one offset and its counterpart.
type translatedRow struct {
	Group         string     `json:"group,omitempty"`
	Timestamp     *time.Time `json:"timestamp,omitempty"` // Offset is the first record at or after it
	From          string     `json:"from"`
	Topic         string     `json:"topic"`
	Partition     int32      `json:"partition"`
	Offset        int64      `json:"offset"`
	To            string     `json:"to"`
	ToTopic       string     `json:"to_topic"`
	ToOffset      int64      `json:"to_offset"` // -1: nothing of this partition is mirrored
	Exact         bool       `json:"exact"`
	Slack         int64      `json:"slack,omitempty"` // offsets that may be read again, at most; -1: nobody knows how many
	Shortfall     int64      `json:"shortfall"`
	BeforeMirror  bool       `json:"before_mirror,omitempty"`
	NotPartOfFlow bool       `json:"not_part_of_flow,omitempty"`
	Against       bool       `json:"against_flow,omitempty"` // along the map of the flow from TO: what lies beyond it was written in FROM
}

type translateOptions struct {
	topic     string
	partition int32 // -1: all
	offsets   []int64
	timestamp string
}

func (a *app) translateCommand() *cobra.Command {
	var o translateOptions
	command := &cobra.Command{
		Use:   "translate FROM TO [GROUP...]",
		Short: "Say where an offset, a time or a group stands in the other cluster",
		Long: `Translates the committed offsets of groups, given offsets, or a time, from one
cluster to another, along the flow between them or against it. It reads the offset
map straight from the cluster that the flow writes to, so it needs neither the
daemon nor, for a given offset, the other cluster.

The answer is exact: the very next record. An offset beyond what is mirrored stands
at the mirrored end, and the shortfall says how many records are missing there. An
answer that is marked approximate lies where the map is thinned out, or comes from
MirrorMaker 2: nothing is skipped, and at most so many offsets are read again.

With --timestamp it is the first record at or after that time in FROM. Where two
sites write one topic (identity naming both ways), the records have another order
on the other side: then it is the place from which on nothing unread is missed.`,
		Example: `  kmirror translate east west billing
  kmirror translate west east billing                     # the way back
  kmirror translate east west --topic orders --partition 0 --offset 1234
  kmirror translate east west --topic orders --timestamp 2026-01-31T12:00:00Z
  kmirror translate east west --timestamp -5m             # all topics`,
		GroupID:           "clusters",
		Args:              cobra.MinimumNArgs(2),
		ValidArgsFunction: a.completeClusters(2),
		RunE: func(command *cobra.Command, args []string) error {
			flags := command.Flags()
			if !flags.Changed("partition") {
				o.partition = -1
			} else if o.partition < 0 {
				return withCode(exitUsage, errors.New("--partition is 0 or more"))
			}
			if i := slices.IndexFunc(o.offsets, func(n int64) bool { return n < 0 }); i >= 0 {
				return withCode(exitUsage, errors.New("--offset is 0 or more"))
			}
			return a.translate(command.Context(), args[0], args[1], args[2:], o)
		},
	}
	flags := command.Flags()
	flags.StringVar(&o.topic, "topic", "", "the `TOPIC`, as it is called in FROM")
	flags.Int32VarP(&o.partition, "partition", "p", -1, "the `PARTITION` (default: 0 for an offset, all for a time)")
	flags.Int64SliceVar(&o.offsets, "offset", nil, "the `OFFSET` in FROM; several with commas")
	flags.StringVar(&o.timestamp, "timestamp", "", "`WHEN`: "+whenForms)
	return command
}

func (a *app) translate(ctx context.Context, from, to string, groups []string, o translateOptions) error {
	var at time.Time
	ways := 0
	for _, given := range []bool{len(groups) > 0, len(o.offsets) > 0, o.timestamp != ""} {
		if given {
			ways++
		}
	}
	switch {
	case ways > 1, len(groups) > 0 && (o.topic != "" || o.partition >= 0):
		return withCode(exitUsage, errors.New("either a GROUP, or --offset with --topic and --partition, or --timestamp"))
	case ways == 0, len(o.offsets) > 0 && o.topic == "", o.partition >= 0 && o.topic == "":
		return withCode(exitUsage, errors.New("what to translate? Name a GROUP, or give --topic, --partition and --offset, or a --timestamp"))
	}
	if o.timestamp != "" {
		var err error
		if at, err = parseWhen("--timestamp", o.timestamp, time.Now()); err != nil {
			return err
		}
	}
	b, err := a.openBridge(ctx, from, to)
	if err != nil {
		return err
	}
	defer b.close()
	var rows []translatedRow
	switch {
	case len(groups) > 0:
		rows, err = b.groups(ctx, groups)
	case len(o.offsets) > 0:
		rows, err = b.offsets(ctx, o)
	default:
		rows, err = b.time(ctx, o, at)
	}
	if err != nil {
		return err
	}
	return a.showTranslated(rows)
}

// row translates one offset.
func (b *bridge) row(ctx context.Context, topic string, partition int32, offset int64) (translatedRow, error) {
	row := translatedRow{From: b.from, Topic: topic, Partition: partition, Offset: offset, To: b.to, ToOffset: -1, NotPartOfFlow: true}
	w, ok, err := b.way(ctx, topic)
	if err != nil || !ok {
		return row, err
	}
	row.NotPartOfFlow, row.ToTopic, row.Against = false, w.other, w.against
	if found, known := w.translate(partition, offset); known {
		row.ToOffset, row.Exact, row.Slack, row.Shortfall, row.BeforeMirror = found.Offset, found.Exact, found.Slack, found.Shortfall, found.Before
		if found.Slack == math.MaxInt64 {
			row.Slack = -1
		}
	}
	return row, nil
}

// offsets translates given offsets of one partition.
func (b *bridge) offsets(ctx context.Context, o translateOptions) ([]translatedRow, error) {
	var rows []translatedRow
	partition := max(0, o.partition)
	for _, offset := range o.offsets {
		row, err := b.row(ctx, o.topic, partition, offset)
		switch {
		case err != nil:
			return nil, err
		case row.NotPartOfFlow:
			return nil, b.notMirrored(o.topic)
		case row.ToOffset < 0:
			return nil, withCode(exitNotFound, fmt.Errorf("nothing of partition %d of %s is mirrored between %s and %s", partition, o.topic, b.from, b.to))
		}
		rows = append(rows, row)
	}
	return rows, nil
}

func (b *bridge) notMirrored(topic string) error {
	return withCode(exitNotFound, fmt.Errorf("no flow between %s and %s mirrors the topic %s of %s", b.from, b.to, topic, b.from))
}

// time translates the first records at or after a time; where there are none,
// the end.
func (b *bridge) time(ctx context.Context, o translateOptions, at time.Time) ([]translatedRow, error) {
	cluster, metadata, err := b.remote(ctx, b.from)
	if err != nil {
		return nil, err
	}
	topics := []string{o.topic}
	if o.topic == "" {
		topics = b.mirrored(metadata)
	} else if _, err := findTopic(metadata, b.from, o.topic); err != nil {
		return nil, err
	}
	wanted := map[string][]int32{}
	for _, name := range topics {
		for _, p := range metadata.Topics[name].Partitions {
			if p.Leader >= 0 && (o.partition < 0 || p.ID == o.partition) {
				wanted[name] = append(wanted[name], p.ID)
			}
		}
	}
	if len(wanted) == 0 {
		return nil, withCode(exitNotFound, fmt.Errorf("nothing in %s is at that topic and partition and mirrored between %s and %s", b.from, b.from, b.to))
	}
	found, err := cluster.ListOffsets(ctx, wanted, at.UnixMilli())
	if err != nil {
		return nil, fmt.Errorf("find %s in %s: %w", at.UTC().Format(time.RFC3339), b.from, err)
	}
	ends, err := cluster.ListOffsets(ctx, wanted, kafka.Latest)
	if err != nil {
		return nil, fmt.Errorf("find the ends in %s: %w", b.from, err)
	}
	var rows []translatedRow
	for _, topic := range topics {
		for _, id := range slices.Sorted(slices.Values(wanted[topic])) {
			offset := found[topic][id]
			if offset < 0 { // nothing is that young: what comes next is
				offset = ends[topic][id]
			}
			row, err := b.row(ctx, topic, id, offset)
			if err != nil {
				return nil, err
			}
			if row.NotPartOfFlow && o.topic != "" {
				return nil, b.notMirrored(o.topic)
			}
			row.Timestamp = new(at.UTC())
			rows = append(rows, row)
		}
	}
	return rows, nil
}

// mirrored are the topics of FROM that a flow between the two mirrors.
func (b *bridge) mirrored(metadata *kafka.Metadata) []string {
	var topics []string
	for _, name := range slices.Sorted(maps.Keys(metadata.Topics)) {
		along := b.forward != nil && b.forward.Selects(name)
		if !along && b.opposite != nil {
			source, ok := b.opposite.SourceTopic(name)
			along = ok && b.opposite.Selects(source) && b.opposite.TargetTopic(source) == name && !topology.InternalTopic(name, b.opposite.InternalSeparator)
		}
		if along && !metadata.Topics[name].Internal {
			topics = append(topics, name)
		}
	}
	return topics
}

// groups translates all that groups have committed in FROM.
func (b *bridge) groups(ctx context.Context, names []string) ([]translatedRow, error) {
	source, _, err := b.remote(ctx, b.from)
	if err != nil {
		return nil, fmt.Errorf("%w; where its groups were put in %s so far, `%s` shows", err, b.to, b.app.command("groups", b.to))
	}
	if b.forward == nil || b.opposite == nil { // there is one map only: without it, nothing can be said
		for _, flow := range []*topology.Flow{b.forward, b.opposite} {
			if _, err := b.route(ctx, flow); err != nil {
				return nil, err
			}
		}
	}
	var rows []translatedRow
	for _, name := range names {
		offsets, err := groupOffsets(ctx, source, name)
		if err != nil {
			return nil, fmt.Errorf("ask %s: %w", b.from, err)
		}
		if len(offsets) == 0 {
			return nil, withCode(exitNotFound, fmt.Errorf("group %q has no committed offsets in %s: `kmirror groups %s` lists those that have", name, b.from, b.from))
		}
		for _, topic := range slices.Sorted(maps.Keys(offsets)) {
			for _, id := range slices.Sorted(maps.Keys(offsets[topic])) {
				row, err := b.row(ctx, topic, id, offsets[topic][id])
				if err != nil {
					return nil, err
				}
				if len(names) > 1 {
					row.Group = name
				}
				rows = append(rows, row)
			}
		}
	}
	return rows, nil
}

func (a *app) showTranslated(rows []translatedRow) error {
	if a.wantsJSON() {
		return a.writeJSON(rows)
	}
	titles := []string{"TOPIC", ">PARTITION", ">OFFSET", "", "TOPIC", ">OFFSET", ""}
	grouped := rows[0].Group != ""
	if grouped {
		titles = append([]string{"GROUP"}, titles...)
	}
	t := newTable(titles...)
	for _, r := range rows {
		cells := []any{r.From + "/" + r.Topic, r.Partition, r.Offset, "->", r.To + "/" + r.ToTopic, offset(r.ToOffset), r.word()}
		if grouped {
			cells = append([]any{r.Group}, cells...)
		}
		t.row(cells...)
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
	case r.Shortfall > 0 && r.Against:
		return "the end of what came from there; none of the " + plural(int(r.Shortfall), "offset") + " behind it did"
	case r.Shortfall > 0:
		return "mirrored end; " + plural(int(r.Shortfall), "record") + " not mirrored yet"
	case r.BeforeMirror:
		return "first mirrored record; the offset is from before"
	case r.Exact:
		return "exact"
	case r.Slack > 0:
		return "approximate: at most " + plural(int(r.Slack), "record") + " again"
	default:
		return "approximate: nothing is skipped"
	}
}
