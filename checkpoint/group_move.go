package checkpoint

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"

	"kmirror/internal/kafka"
)

// GroupSide is what one cluster says about a group.
type GroupSide struct {
	State   string // Kafka's: Empty, Stable, ...; "" from brokers before 2.6
	Members bool   // it is known to have some
	Offsets map[kafka.TopicPartition]GroupOffset
	Err     error // it could not be read
}

// GroupOffset is a committed offset with what was committed beside it.
type GroupOffset struct {
	Offset   int64
	Epoch    int32 // leader epoch of the record before; -1: none
	Metadata string
}

// ReadGroups reads the groups of a cluster for which want holds: all that use
// the consumer protocol, classic or KIP-848's. A group that could not be read
// says so itself; the error is about the list. With an *UnlistedError there are the
// groups that some brokers listed.
func ReadGroups(ctx context.Context, cluster GroupCluster, want func(group string) bool) (map[string]GroupSide, error) {
	asked := newGroups(cluster)
	list, err := asked.list(ctx, nil)
	if unlisted := (*UnlistedError)(nil); err != nil && !errors.As(err, &unlisted) {
		return nil, err
	}
	var names []string
	for name, l := range list {
		if l.consumers() && want(name) {
			names = append(names, name)
		}
	}
	all := make(map[string]GroupSide, len(names))
	for name, answer := range asked.fetch(ctx, names) {
		all[name] = GroupSide{State: list[name].state, Members: list[name].members(), Offsets: answer.at, Err: answer.err}
	}
	if ctx.Err() != nil {
		return nil, ctx.Err()
	}
	return all, err
}

// GroupPlan is what is to be done about one group, on one of the two clusters.
type GroupPlan struct {
	Group string
	// Refused says why nothing is done: members on either side, or a group that
	// could not be read. Empty: the moves will be made.
	Refused string
	Moves   []GroupMove // by topic and partition

	back bool // it is moved on the source
}

// GroupMove moves a group's offset on one side to where the group stands on the
// other. Offsets are the next to be read.
type GroupMove struct {
	Topic     string // on the side that is moved
	Partition int32
	From      int64 // committed there now; -1: nothing
	To        int64 // to be committed; -1: nothing of the partition is mirrored

	OtherTopic  string // on the side where the group stands already
	OtherOffset int64  // committed there
	Exact       bool   // To is the very next record
	Shortfall   int64  // offsets by which OtherOffset lies beyond what is mirrored

	// Of a failback: records that were written locally in the copy, and so are
	// not in the source: LocalRead of them the group has read since it left the
	// source, LocalUnread it has not and will not get. Offsets are counted, so
	// transaction markers are among them; -1: not known.
	LocalRead, LocalUnread int64

	Refused string // why this one is not made; empty: it will be, or has been
	Done    bool   // it has been made, or there is nothing to do

	// Unwritten says why it could not be written down that the move is kmirror's.
	// Should the group move on before a kmirror that runs has seen it, it may pass
	// for somebody else's.
	Unwritten string

	commit GroupOffset
	open   bool // To may move on as more is mirrored, or the map comes to hold what is
}

// Ends says where the log of a partition of the copy ends; -1: not known.
type Ends func(topic string, partition int32) int64

// Left says where on its copy a group was, by all that is remembered, when it left
// a partition of the source, where it stands at an offset; -1: nothing is.
type Left func(group, topic string, partition int32, stands int64) int64

// PlanFailback plans to move groups on the source to where they stand on the
// target: they go back to where they came from. Groups named in names only; nil:
// all that have offsets on copies. It is pure but for the offset maps of r.
func PlanFailback(r Routes, source, target map[string]GroupSide, names []string, ends Ends, left Left) []GroupPlan {
	return plan(true, names, target, source, func(group string, at kafka.TopicPartition, stands GroupOffset, moved map[kafka.TopicPartition]GroupOffset) (GroupMove, bool) {
		topic, ok := r.Source(at.Topic)
		if !ok {
			return GroupMove{}, false
		}
		m := newMove(topic, at, stands, moved)
		t, ok := r.ToSource(topic, at.Partition, stands.Offset)
		m.translate(t, ok)
		from := left(group, topic, at.Partition, m.From)
		if from < 0 {
			from = stands.Offset
			if t, ok := r.ToTarget(topic, at.Partition, m.From); ok && m.From >= 0 {
				from = t.Offset
			}
		}
		m.LocalRead, m.LocalUnread = r.Local(topic, at.Partition, from, stands.Offset), -1
		if end := ends(at.Topic, at.Partition); end >= 0 {
			m.LocalUnread = r.Local(topic, at.Partition, stands.Offset, end)
		}
		if m.Shortfall > 0 { // records of the copy behind our last: local ones
			m.Exact, m.Shortfall = true, 0
		}
		return m, true
	})
}

// PlanAdopt plans to move groups on the target to where they stand on the
// source, whoever put them where they are: what diverged is the flow's again.
func PlanAdopt(r Routes, source, target map[string]GroupSide, names []string) []GroupPlan {
	return plan(false, names, source, target, func(_ string, at kafka.TopicPartition, stands GroupOffset, moved map[kafka.TopicPartition]GroupOffset) (GroupMove, bool) {
		topic, ok := r.Pair(at.Topic)
		if !ok {
			return GroupMove{}, false
		}
		m := newMove(topic, at, stands, moved)
		t, ok := r.ToTarget(at.Topic, at.Partition, stands.Offset)
		m.translate(t, ok)
		m.LocalRead, m.LocalUnread = -1, -1
		return m, true
	})
}

// plan makes a plan for every group that stands somewhere, from one move for
// each of its partitions.
func plan(back bool, names []string, stands, moved map[string]GroupSide, move func(group string, at kafka.TopicPartition, stands GroupOffset, moved map[kafka.TopicPartition]GroupOffset) (GroupMove, bool)) []GroupPlan {
	if names == nil {
		names = slices.Collect(maps.Keys(stands))
	}
	names = slices.Compact(slices.Sorted(slices.Values(names)))
	var all []GroupPlan
	for _, name := range names {
		p := GroupPlan{Group: name, back: back}
		from, there := stands[name]
		to := moved[name]
		for at, offset := range from.Offsets {
			if m, ok := move(name, at, offset, to.Offsets); ok {
				p.Moves = append(p.Moves, m)
			}
		}
		slices.SortFunc(p.Moves, func(a, b GroupMove) int {
			return cmp.Or(cmp.Compare(a.Topic, b.Topic), cmp.Compare(a.Partition, b.Partition))
		})
		switch {
		case !there || from.Err == nil && len(p.Moves) == 0:
			p.Refused = "it has no offsets on mirrored topics on the side that it is to be moved after"
		case from.Err != nil:
			p.Refused = fmt.Sprintf("it could not be read: %v", from.Err)
		case to.Err != nil:
			p.Refused = fmt.Sprintf("it could not be read on the side that is to be moved: %v", to.Err)
		case to.Members:
			p.Refused = "it has members on the side that is to be moved: stop them first"
		case from.Members:
			p.Refused = "it has members on the side that it is to be moved after, and moves on: stop them first"
		}
		all = append(all, p)
	}
	return all
}

func newMove(topic string, other kafka.TopicPartition, stands GroupOffset, moved map[kafka.TopicPartition]GroupOffset) GroupMove {
	m := GroupMove{Topic: topic, Partition: other.Partition, From: -1, To: -1, OtherTopic: other.Topic, OtherOffset: stands.Offset}
	if now, ok := moved[kafka.TopicPartition{Topic: topic, Partition: other.Partition}]; ok {
		m.From = now.Offset
	}
	m.commit = stands
	return m
}

func (m *GroupMove) translate(t Translation, ok bool) {
	if !ok {
		m.Refused = "nothing of the partition is mirrored"
		return
	}
	m.To, m.Exact, m.Shortfall = t.Offset, t.Exact, t.Shortfall
	m.commit.Offset, m.open = t.Offset, t.open()
	m.Done = m.To == m.From
}
