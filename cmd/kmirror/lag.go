package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"kmirror/internal/console"
	"kmirror/mirror"
	"kmirror/topology"
)

type lagOptions struct {
	console.LagQuery

	all    bool
	direct bool
	allowed
}

// allowed is how far behind a check lets a copy be.
type allowed struct {
	seconds time.Duration // 0: not checked
	records int64         // -1: not checked
}

func (a *app) lagCommand() *cobra.Command {
	var o lagOptions
	command := &cobra.Command{
		Use:   "lag [FLOW]",
		Short: "Show how far the copies are behind, in records, bytes and seconds",
		Long: `Shows for each flow and topic what the target does not have yet: records (offsets
of the source, so at most so many records), bytes (~: an estimate), and how old
the oldest of them is. Paused and stopped partitions count.

The daemon is asked if it answers and carries all of the flow; otherwise the
clusters are, by the offset map at the target and the ends of the source.`,
		Example: `  kmirror lag
  kmirror lag 'east->west' --topic orders --partitions
  kmirror lag 'east->west' --fail-above 30s || page-somebody
  kmirror lag -o json | jq '.[].seconds'`,
		GroupID:           "clusters",
		Args:              cobra.MaximumNArgs(1),
		ValidArgsFunction: a.completeFlows,
		RunE: func(command *cobra.Command, args []string) error {
			return a.lag(command.Context(), args, o)
		},
	}
	o.addFlags(command, "topics that are in step, too")
	command.Flags().StringVar(&o.Topic, "topic", "", "only this `TOPIC` of the source")
	return command
}

// addFlags adds those of lag and rpo; all says what --all shows.
func (o *lagOptions) addFlags(command *cobra.Command, all string) {
	flags := command.Flags()
	flags.DurationVar(&o.seconds, "fail-above", 0, "exit with code 6 if it is more than this `DURATION`, as 10s, or not known")
	flags.Int64Var(&o.records, "max-lag", -1, "exit with code 6 if it is more than so many `RECORDS`, or not known")
	flags.BoolVarP(&o.Partitions, "partitions", "p", false, "each partition, too")
	flags.BoolVar(&o.all, "all", false, all)
	flags.BoolVar(&o.direct, "direct", false, "ask the clusters, not the daemon")
}

// countedFor is how long a number of records holds of a source that does not answer,
// where no time is allowed or forbidden.
const countedFor = time.Minute

// exceeded says in which way a lag is more than what is allowed; "" if it is not.
// What was known last of a source that does not answer is as old as it is.
func (c allowed) exceeded(l mirror.FlowLag, now time.Time) string {
	switch unknown := l.Records < 0 || l.Unknown > 0; {
	case c.seconds <= 0 && c.records < 0:
		return ""
	case c.records >= 0 && l.Records > c.records:
		return fmt.Sprintf("%s behind, %d allowed", plural(int(l.Records), "record"), c.records)
	case c.seconds > 0 && l.Seconds > c.seconds.Seconds():
		return fmt.Sprintf("%s behind, %s allowed", seconds(l.Seconds), c.seconds)
	case unknown:
		return "not known how far behind"
	case c.seconds > 0 && l.Seconds < 0:
		return "not known since when it is behind"
	case l.SourceReachable:
		return ""
	case l.AsOf.IsZero():
		return l.From + " does not answer, and nothing is known about it"
	case c.seconds > 0 && now.Sub(l.AsOf) > c.seconds:
		return fmt.Sprintf("%s has not answered for %s, %s allowed", l.From, seconds(now.Sub(l.AsOf).Seconds()), c.seconds)
	case c.seconds <= 0 && now.Sub(l.AsOf) > countedFor:
		return fmt.Sprintf("%s has not answered for %s: how many records it has is not known", l.From, seconds(now.Sub(l.AsOf).Seconds()))
	default:
		return ""
	}
}

// flowsNamed are the flow that was named, or all of them.
func flowsNamed(cfg *topology.Config, args []string) ([]*topology.Flow, error) {
	if len(args) == 0 {
		if len(cfg.Flows) == 0 {
			return nil, withCode(exitNotFound, fmt.Errorf("there are no flows in %s", cfg.Path))
		}
		return cfg.Flows, nil
	}
	flow := cfg.Flow(args[0])
	if flow == nil {
		return nil, withCode(exitNotFound, fmt.Errorf("no flow %q in %s: there are %v", args[0], cfg.Path, flowNames(cfg)))
	}
	return []*topology.Flow{flow}, nil
}

func (a *app) lag(ctx context.Context, args []string, o lagOptions) error {
	now := time.Now()
	return eachFlow(a, args, flowView[mirror.FlowLag]{
		ask: func(cfg *topology.Config, f *topology.Flow) (mirror.FlowLag, error) {
			return a.flowLag(ctx, cfg, f, o)
		},
		show:  func(out *strings.Builder, l mirror.FlowLag) error { return showLag(out, l, o, now) },
		check: func(l mirror.FlowLag) error { return a.checked(l.Flow, o.exceeded(l, now)) },
	})
}

// flowView is what a command says about each flow.
type flowView[T any] struct {
	ask   func(*topology.Config, *topology.Flow) (T, error)
	show  func(*strings.Builder, T) error
	check func(T) error // whether it is good enough
}

// eachFlow shows the flow that was named, or one after the other. What fails does
// not hide the others.
func eachFlow[T any](a *app, args []string, view flowView[T]) error {
	cfg, err := a.load()
	if err != nil {
		return err
	}
	flows, err := flowsNamed(cfg, args)
	if err != nil {
		return err
	}
	var answers []T
	for _, f := range flows {
		one, failed := view.ask(cfg, f)
		if failed != nil {
			err = errors.Join(err, failed)
			continue
		}
		answers = append(answers, one)
	}
	if answers == nil {
		return err
	}
	if a.wantsJSON() {
		err = errors.Join(err, a.writeJSON(answers))
	} else {
		var page strings.Builder
		for i, one := range answers {
			if i > 0 {
				page.WriteString("\n")
			}
			err = errors.Join(err, view.show(&page, one))
		}
		_, failed := io.WriteString(a.out, page.String())
		err = errors.Join(err, failed)
	}
	for _, one := range answers {
		err = errors.Join(err, view.check(one))
	}
	return err
}

// checked is the outcome of a check: nil if nothing was exceeded.
func (a *app) checked(what, exceeded string) error {
	if exceeded == "" {
		return nil
	}
	return withCode(exitCheck, fmt.Errorf("%s: %s", what, exceeded))
}

// flowLag asks the daemon, or measures.
func (a *app) flowLag(ctx context.Context, cfg *topology.Config, flow *topology.Flow, o lagOptions) (mirror.FlowLag, error) {
	q := o.LagQuery
	q.Flow = flow.Name
	if !o.direct {
		asking, cancel := context.WithTimeout(ctx, a.timeout)
		lag, err := console.NewClient(consoleAddress(ctx, cfg)).Lag(asking, q)
		cancel()
		if err == nil && lag.Complete && (lag.SourceReachable || !lag.AsOf.IsZero()) {
			return lag, nil
		}
		if missing := (*console.AnswerError)(nil); errors.As(err, &missing) && missing.NotFound() && q.Topic != "" && !flow.Selects(q.Topic) {
			return lag, err
		}
	}
	m, err := a.openMeasure(ctx, cfg, flow)
	if err != nil {
		return mirror.FlowLag{}, err
	}
	defer m.close()
	if m.sourceFault != nil {
		return mirror.FlowLag{}, m.sourceFault
	}
	return m.lag(ctx, q)
}

// bytesOf writes an amount of bytes, ~ before an estimate.
func bytesOf(l mirror.Lag) string { return plainFigure(console.FormatLagBytes(l)) }

// lagWords is a lag in a few words.
func lagWords(l mirror.Lag) string {
	switch {
	case l.Records < 0:
		return "not known"
	case l.Records == 0 && l.Unknown == 0:
		return "in step"
	}
	words := plural(int(l.Records), "record")
	if l.Bytes >= 0 {
		words += ", " + bytesOf(l)
	}
	if l.Seconds >= 0 {
		words += ", the oldest " + seconds(l.Seconds) + " old"
	}
	if l.Unknown > 0 {
		words += "; " + unknownNote(l)
	}
	return words
}

// unansweredSince says since when a source does not answer.
func unansweredSince(l mirror.FlowLag, now time.Time) string {
	return fmt.Sprintf("%s does not answer since %s, %s ago", clean(l.From), l.AsOf.UTC().Format("15:04:05Z"), seconds(now.Sub(l.AsOf).Seconds()))
}

func showLag(out *strings.Builder, l mirror.FlowLag, o lagOptions, now time.Time) error {
	words := lagWords(l.Lag)
	if l.Records > 0 {
		words = "behind by " + words
	}
	if !l.SourceReachable {
		words = unansweredSince(l, now) + "; then it was " + words
	}
	fmt.Fprintf(out, "%s  %s\n", clean(l.Flow), words)
	return showLagTopics(out, l, o.all || o.Topic != "", o.Partitions)
}

// showLagTopics writes the topics, the one that is furthest behind first; those
// in step only with all.
func showLagTopics(out *strings.Builder, l mirror.FlowLag, all, partitions bool) error {
	topics := slices.Clone(l.Topics)
	slices.SortStableFunc(topics, func(a, b mirror.TopicLag) int {
		return cmp.Or(cmp.Compare(b.Records, a.Records), cmp.Compare(b.Unknown, a.Unknown), cmp.Compare(a.Topic, b.Topic))
	})
	titles := []string{"TOPIC", ">RECORDS", ">BYTES", ">TIME BEHIND", "OLDEST MISSING", ""}
	if partitions {
		titles = []string{"TOPIC", ">PARTITION", ">MIRRORED", ">END", ">RECORDS", ">BYTES", ">TIME BEHIND", "OLDEST MISSING", ""}
	}
	t := newTable(titles...)
	still := 0
	for _, topic := range topics {
		if topic.Records == 0 && topic.Unknown == 0 && !all {
			still++
			continue
		}
		if !partitions {
			t.row(topic.Topic, offset(topic.Records), bytesOf(topic.Lag), seconds(topic.Seconds), oldest(topic.Oldest), unknownNote(topic.Lag))
			continue
		}
		for _, p := range topic.Partitions {
			note := cmp.Or(p.Error, p.State)
			if note == "mirroring" {
				note = ""
			}
			t.row(topic.Topic, p.Partition, offset(p.Mirrored), offset(p.SourceEnd), offset(p.Records), bytesOf(p.Lag), seconds(p.Seconds), oldest(p.Oldest), note)
		}
	}
	if len(t.rows) > 0 {
		if err := t.write(out, "  "); err != nil {
			return err
		}
	}
	if still > 0 && len(t.rows) > 0 {
		fmt.Fprintf(out, "  and %s in step; --all shows them\n", plural(still, "topic"))
	}
	return nil
}

func unknownNote(l mirror.Lag) string {
	if l.Unknown == 0 {
		return ""
	}
	return plural(l.Unknown, "partition") + " not known"
}

func oldest(at *time.Time) string {
	if at == nil {
		return "-"
	}
	return at.UTC().Format("2006-01-02 15:04:05Z")
}
