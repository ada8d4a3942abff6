package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"kmirror/mirror"
)

func (a *app) pauseCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "pause FLOW [TOPIC]",
		Short: "Stop mirroring a flow or a topic of it, until resume",
		Long: `Stops the mirroring of a topic of the source, or of all topics of a flow. What is
under way is finished, positions stay. It holds for all instances and over
restarts, until kmirror resume: the order stands at the target cluster.

To pause something for good, write paused: true into the configuration.`,
		Example: `  kmirror pause 'east->west'
  kmirror pause 'east->west' orders`,
		GroupID:           "daemon",
		Args:              cobra.RangeArgs(1, 2),
		ValidArgsFunction: a.completeFlows,
		RunE: func(command *cobra.Command, args []string) error {
			return a.pause(command.Context(), args)
		},
	}
}

// steered is what `kmirror pause -o json` and `resume -o json` answer.
type steered struct {
	Flow      string `json:"flow"`
	Topic     string `json:"topic,omitempty"`
	Partition *int32 `json:"partition,omitempty"`
	Accepted  string `json:"accepted,omitempty"`
	Paused    bool   `json:"paused"`
}

func flowAndTopic(args []string) (flow, topic string) {
	if len(args) > 1 {
		topic = args[1]
	}
	return args[0], topic
}

func (a *app) pause(ctx context.Context, args []string) error {
	flow, topic := flowAndTopic(args)
	client, err := a.daemonClient(ctx)
	if err != nil {
		return err
	}
	note, err := client.Pause(ctx, flow, topic)
	if err != nil {
		return err
	}
	a.note(note)
	if a.wantsJSON() {
		return a.writeJSON(steered{Flow: flow, Topic: topic, Paused: true})
	}
	words := append([]string{"resume", quoteWord(flow)}, quoted(topic)...)
	fmt.Fprintf(a.out, "%s is paused; %s goes on\n", clean(nameOf(flow, topic)), a.command(words...))
	return nil
}

// note writes what is odd, if something is.
func (a *app) note(note string) {
	if note != "" {
		fmt.Fprintln(a.err, "note: "+clean(note))
	}
}

func nameOf(flow, topic string) string {
	if topic == "" {
		return "flow " + flow
	}
	return "topic " + topic + " of " + flow
}

func quoted(word string) []string {
	if word == "" {
		return nil
	}
	return []string{quoteWord(word)}
}

func (a *app) resumeCommand() *cobra.Command {
	var o mirror.ResumeOptions
	command := &cobra.Command{
		Use:   "resume FLOW [TOPIC]",
		Short: "Go on with what is paused or has stopped",
		Long: `Takes a pause back, and has partitions that stopped or wait look again at once.

A partition that stopped to protect data goes on only with your word. --accept KIND
gives it, for one stop of this kind within the next ten minutes, and the incident
then says that it was you. The kinds:

  retention-loss    the source deleted what was not mirrored yet: leave the gap
  source-truncated  the source took records back: keep them at the target, go on behind
  source-recreated  the source topic is another one of that name: begin it
  target-deleted    the target topic was deleted: make it anew and mirror from the start
  target-truncated  the target lost records: mirror them again
  foreign-write     somebody else wrote to the target topic: go on behind that
  fence-waits       a dead instance cannot be fenced now: go on, what it doubles is detected
  fence-lost        it can never be fenced, its id has expired: the same
  seam-mismatch     the target does not hold what the source holds: go on all the same
  seam-unverified   the source no longer has what would prove the position: go on
  takeover-unproven where MirrorMaker 2 stopped cannot be proven: go on behind what it stored
  unlisted-circle   another deployment mirrors the topic back: mirror it all the same

A policy in the configuration says the same for good.`,
		Example: `  kmirror resume 'east->west'
  kmirror resume 'east->west' orders
  kmirror resume 'east->west' orders --partition 3 --accept retention-loss`,
		GroupID:           "daemon",
		Args:              cobra.RangeArgs(1, 2),
		ValidArgsFunction: a.completeFlows,
		RunE: func(command *cobra.Command, args []string) error {
			if !command.Flags().Changed("partition") {
				o.Partition = -1
			} else if o.Partition < 0 {
				return withCode(exitUsage, fmt.Errorf("--partition %d: it is a number from 0", o.Partition))
			}
			return a.resume(command.Context(), args, o)
		},
	}
	flags := command.Flags()
	flags.Int32VarP(&o.Partition, "partition", "p", -1, "one `PARTITION` of the topic (default: all)")
	flags.StringVar(&o.Accept, "accept", "", "go on once in spite of a stop of this `KIND`")
	_ = command.RegisterFlagCompletionFunc("accept", cobra.FixedCompletions(mirror.AcceptableKinds(), cobra.ShellCompDirectiveNoFileComp))
	return command
}

func (a *app) resume(ctx context.Context, args []string, o mirror.ResumeOptions) error {
	flow, topic := flowAndTopic(args)
	switch {
	case topic == "" && (o.Partition >= 0 || o.Accept != ""):
		return withCode(exitUsage, errors.New("of which topic? --partition and --accept need FLOW and TOPIC"))
	case o.Accept != "" && !slices.Contains(mirror.AcceptableKinds(), o.Accept):
		return withCode(exitUsage, fmt.Errorf("--accept %s: it is one of %s", o.Accept, strings.Join(mirror.AcceptableKinds(), ", ")))
	}
	client, err := a.daemonClient(ctx)
	if err != nil {
		return err
	}
	note, err := client.Resume(ctx, flow, topic, o)
	if err != nil {
		return err
	}
	a.note(note)
	answer := steered{Flow: flow, Topic: topic, Accepted: o.Accept}
	what := nameOf(flow, topic)
	if o.Partition >= 0 {
		answer.Partition = &o.Partition
		what = fmt.Sprintf("partition %d of %s", o.Partition, what)
	}
	switch {
	case a.wantsJSON():
		return a.writeJSON(answer)
	case o.Accept != "":
		fmt.Fprintf(a.out, "%s goes on if it stopped for %s\n", clean(what), o.Accept)
	default:
		fmt.Fprintf(a.out, "%s goes on\n", clean(what))
	}
	return nil
}
