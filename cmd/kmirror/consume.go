package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/spf13/cobra"

	"kmirror/internal/kafka"
)

type consumeOptions struct {
	from       string
	count      int64
	partitions []int32
	group      string
	format     string
	separator  string
	untilEnd   bool
}

func (a *app) consumeCommand() *cobra.Command {
	var o consumeOptions
	command := &cobra.Command{
		Use:   "consume CLUSTER TOPIC",
		Short: "Print the records of a topic",
		Long: `Prints the records of a topic from the beginning and goes on with new ones until
ctrl-c, unless --count or --until-end say when to stop. Records of open or aborted
transactions are not shown. A topic that a flow will mirror here is waited for, up to
--timeout. On a terminal, control characters in records are escaped.

With --group it is a member of that consumer group: it begins where the group
stands (or at --from where the group never was), and what was printed is committed.

Format json is one object per line: topic, partition, offset, timestamp, key,
value, headers; what is not UTF-8 stands in key_base64 and value_base64.`,
		Example: `  kmirror consume west east.orders --from earliest --count 10
  kmirror consume east orders --from -5 --until-end          # the last 5 of each partition
  kmirror consume east orders --from 15m --format json       # since 15 minutes ago
  kmirror consume east orders --group billing --count 100    # as a member of a group`,
		GroupID:           "clusters",
		Args:              cobra.ExactArgs(2),
		ValidArgsFunction: a.completeClusters(1),
		RunE: func(command *cobra.Command, args []string) error {
			if a.wantsJSON() && !command.Flags().Changed("format") {
				o.format = "json"
			}
			return a.consume(command.Context(), args[0], args[1], o)
		},
	}
	flags := command.Flags()
	flags.StringVar(&o.from, "from", "earliest", "where to begin, `PLACE`: earliest, latest, an offset, -N for the last N, "+whenForms)
	flags.Int64VarP(&o.count, "count", "n", 0, "stop after `N` records; 0 goes on")
	flags.Int32SliceVarP(&o.partitions, "partition", "p", nil, "only these `PARTITIONS`, as in 0,3")
	flags.StringVarP(&o.group, "group", "g", "", "consume as a member of `GROUP` and commit")
	flags.StringVarP(&o.format, "format", "F", "value", "`FORMAT` of records: value, kv or json")
	flags.StringVarP(&o.separator, "key-separator", "k", "\t", "`TEXT` between key and value in format kv")
	flags.BoolVarP(&o.untilEnd, "until-end", "e", false, "stop at what was the end when it began")
	_ = command.RegisterFlagCompletionFunc("format", cobra.FixedCompletions([]string{"value", "kv", "json"}, cobra.ShellCompDirectiveNoFileComp))
	_ = command.RegisterFlagCompletionFunc("from", cobra.FixedCompletions([]string{"earliest", "latest"}, cobra.ShellCompDirectiveNoFileComp))
	return command
}

// errEnough ends a reader that has printed what was asked for.
var errEnough = errors.New("enough records")

// consuming is one run of the command.
type consuming struct {
	consumeOptions
	app      *app
	cluster  *remote
	topic    *kafka.Topic
	from     position
	writer   *recordWriter
	progress *progress
	printed  int64
}

func (a *app) consume(ctx context.Context, clusterName, topicName string, o consumeOptions) error {
	from, err := parsePosition(o.from, time.Now())
	if err != nil {
		return err
	}
	switch {
	case o.count < 0:
		return withCode(exitUsage, fmt.Errorf("--count %d: it is 1 or more", o.count))
	case o.group != "" && len(o.partitions) > 0:
		return withCode(exitUsage, errors.New("--partition and --group exclude each other: a group divides the partitions itself"))
	case o.group != "" && !o.untilEnd && from.kind != atEarliest && from.kind != atLatest:
		return withCode(exitUsage, errors.New("--from with --group is earliest or latest: it only says where a group begins that has no offset yet"))
	}
	writer, err := newRecordWriter(a.out, o.format, o.separator, a.outTerminal)
	if err != nil {
		return err
	}
	cfg, cluster, metadata, err := a.connectByName(ctx, clusterName)
	if err != nil {
		return err
	}
	defer cluster.close()
	if _, from := mirroredAs(cfg, clusterName, topicName); metadata.Topics[topicName] == nil && len(from) > 0 && !o.untilEnd {
		if metadata, err = a.awaitMirror(ctx, cluster, topicName, from[0]); err != nil {
			return err
		}
	}
	topic, err := findTopic(metadata, clusterName, topicName)
	if err != nil {
		return err
	}
	c := &consuming{consumeOptions: o, app: a, cluster: cluster, topic: topic, from: from, writer: writer, progress: a.progress()}
	if a.outTerminal {
		c.progress = &progress{} // records on the terminal are progress enough
	}
	if err := c.choosePartitions(); err != nil {
		return err
	}
	switch {
	case o.untilEnd:
		err = c.readToEnd(ctx)
	case o.group != "":
		err = c.followAsMember(ctx)
	default:
		err = c.follow(ctx)
	}
	c.progress.done()
	if errors.Is(err, errEnough) || errors.Is(err, context.Canceled) && ctx.Err() != nil {
		err = nil // ctrl-c is how one ends a command that goes on for ever
	}
	return errors.Join(err, writer.flush())
}

// awaitMirror waits, for as long as a cluster may take to answer, for a topic
// that a flow is about to create: a new topic appears at the target within seconds.
func (a *app) awaitMirror(ctx context.Context, cluster *remote, topic, source string) (*kafka.Metadata, error) {
	if a.errTerminal {
		fmt.Fprintf(a.err, "waiting for %s to be mirrored from %s\n", topic, source)
	}
	deadline := time.After(a.timeout)
	for {
		metadata, err := cluster.Metadata(ctx)
		switch {
		case ctx.Err() != nil:
			return nil, ctx.Err()
		case err != nil:
			return nil, unreachable(ctx, cluster.topology, err)
		case metadata.Topics[topic] != nil && metadata.Topics[topic].Err == nil:
			return metadata, nil
		}
		select {
		case <-time.After(100 * time.Millisecond):
		case <-deadline:
			return metadata, nil
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
}

func (c *consuming) choosePartitions() error {
	if len(c.partitions) == 0 {
		for _, p := range c.topic.Partitions {
			c.partitions = append(c.partitions, p.ID)
		}
	}
	slices.Sort(c.partitions)
	c.partitions = slices.Compact(c.partitions)
	for _, id := range c.partitions {
		if id < 0 || int(id) >= len(c.topic.Partitions) {
			return withCode(exitNotFound, fmt.Errorf("topic %s of %s has no partition %d: it has 0 to %d", c.topic.Name, c.cluster.Name(), id, len(c.topic.Partitions)-1))
		}
	}
	return nil
}

// print prints one record; errEnough after the last one wanted.
func (c *consuming) print(r record) error {
	if c.count > 0 && c.printed >= c.count {
		return errEnough
	}
	if err := c.writer.write(r); err != nil {
		return fmt.Errorf("write output: %w", err)
	}
	c.printed++
	c.progress.step(time.Now(), func(elapsed time.Duration) string {
		return fmt.Sprintf("%d records, %.0f per second", c.printed, float64(c.printed)/elapsed.Seconds())
	})
	if c.printed == c.count {
		return errEnough
	}
	return nil
}

// span is a partition from where to read, to where it ended when we asked.
type span struct{ from, end int64 }

// resolve finds where to begin in every partition.
func (c *consuming) resolve(ctx context.Context) (map[int32]span, error) {
	wanted := map[string][]int32{c.topic.Name: c.partitions}
	ctx, cancel := context.WithTimeout(ctx, c.app.timeout)
	defer cancel()
	starts, err := c.cluster.ListOffsets(ctx, wanted, kafka.Earliest)
	if err != nil {
		return nil, fmt.Errorf("ask where %s begins: %w", c.topic.Name, err)
	}
	ends, err := c.cluster.ListOffsets(ctx, wanted, kafka.Latest)
	if err != nil {
		return nil, fmt.Errorf("ask where %s ends: %w", c.topic.Name, err)
	}
	var times map[string]map[int32]int64
	if c.from.needsTime() {
		if times, err = c.cluster.ListOffsets(ctx, wanted, c.from.value); err != nil {
			return nil, fmt.Errorf("ask where %s is at that time: %w", c.topic.Name, err)
		}
	}
	spans := map[int32]span{}
	for _, id := range c.partitions {
		end := known(ends, c.topic.Name, id)
		from, err := c.from.resolve(known(starts, c.topic.Name, id), end, known(times, c.topic.Name, id))
		if err != nil {
			return nil, withCode(exitNotFound, fmt.Errorf("partition %d of %s: %w", id, c.topic.Name, err))
		}
		spans[id] = span{from, end}
	}
	return spans, nil
}
