package checkpoint

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"time"

	"kmirror/internal/kafka"
	"kmirror/internal/wire"
)

// GroupMover moves groups by an operator's hand. It writes down what it does as a
// Syncer would, so that for the next one the group stands at the same place on both
// sides by kmirror's own doing, however long after it begins. A Syncer that runs
// meanwhile sees the two sides at the same place, and needs no note.
type GroupMover struct {
	routes         Routes
	source, target SyncCluster
	keepers        []*Syncer // of the flow, and of the opposite one; they do not run
}

// NewGroupMover makes a mover between the clusters of routes.Forward.
func NewGroupMover(routes Routes, source, target SyncCluster, log *slog.Logger) *GroupMover {
	m := &GroupMover{routes: routes, source: source, target: target, keepers: []*Syncer{NewSyncer(routes, source, target, log)}}
	if routes.Opposite.Flow != nil {
		m.keepers = append(m.keepers, NewSyncer(Routes{Forward: routes.Opposite, Opposite: routes.Forward}, target, source, log))
	}
	return m
}

// Recall reads what was written down of commits, in topics that exist.
func (m *GroupMover) Recall(ctx context.Context, onSource, onTarget func(topic string) bool) error {
	for i, exists := range []func(string) bool{onTarget, onSource} {
		if i < len(m.keepers) && exists(m.keepers[i].NotesTopic()) {
			if err := m.keepers[i].recall(ctx); err != nil {
				return err
			}
		}
	}
	return nil
}

// Read reads the groups of both sides for which want holds, and those named. Where
// brokers do not list their groups the error is an *UnlistedError, and what is known
// stands beside it: a group that may have members there nobody knows of says so
// itself.
func (m *GroupMover) Read(ctx context.Context, want func(group string) bool, names []string) (source, target map[string]GroupSide, err error) {
	source, sourceErr := ReadGroups(ctx, m.source, want)
	if source == nil {
		return nil, nil, fmt.Errorf("read the groups of %s: %w", m.routes.Forward.Flow.From, sourceErr)
	}
	target, targetErr := ReadGroups(ctx, m.target, want)
	if target == nil {
		return nil, nil, fmt.Errorf("read the groups of %s: %w", m.routes.Forward.Flow.To, targetErr)
	}
	m.unlisted(ctx, m.source, source, sourceErr, names, target)
	m.unlisted(ctx, m.target, target, targetErr, names, source)
	if sourceErr != nil {
		sourceErr = fmt.Errorf("%s: %w", m.routes.Forward.Flow.From, sourceErr)
	}
	if targetErr != nil {
		targetErr = fmt.Errorf("%s: %w", m.routes.Forward.Flow.To, targetErr)
	}
	return source, target, errors.Join(sourceErr, targetErr, ctx.Err())
}

// unlisted adds the groups of which it is not known what a side has of them, as
// brokers did not list theirs.
func (m *GroupMover) unlisted(ctx context.Context, cluster GroupCluster, side map[string]GroupSide, fault error, names []string, other map[string]GroupSide) {
	if fault == nil {
		return
	}
	var doubtful []string
	for name := range other {
		if _, listed := side[name]; !listed {
			doubtful = append(doubtful, name)
		}
	}
	for _, name := range names {
		if _, listed := side[name]; !listed {
			doubtful = append(doubtful, name)
		}
	}
	slices.Sort(doubtful)
	for name, answer := range newGroups(cluster).fetch(ctx, slices.Compact(doubtful)) {
		switch {
		case answer.err != nil:
			side[name] = GroupSide{Err: answer.err}
		case len(answer.at) > 0:
			side[name] = GroupSide{Offsets: answer.at, Err: fmt.Errorf("whether it has members is not known: %w", fault)}
		}
	}
}

// Left is a Left, by what Recall read.
func (m *GroupMover) Left(group, topic string, partition int32, stands int64) int64 {
	s, key, turned := m.keeper(group, topic, partition)
	if s == nil {
		return -1
	}
	ours := s.recalled[key].ours
	if turned {
		ours = ours.turned()
	}
	return ours.left(stands)
}

// keeper returns who remembers where a group stood on a partition of the source, and
// under which key; turned: for him the sides are exchanged. There is none for a group
// that no flow follows.
func (m *GroupMover) keeper(group, topic string, partition int32) (s *Syncer, key recallKey, turned bool) {
	copied := m.routes.Forward.Flow.TargetTopic(topic)
	for i, topics := range [][2]string{{topic, copied}, {copied, topic}} {
		if i == len(m.keepers) {
			break
		}
		s := m.keepers[i]
		if p := s.pair(topics[0]); !p.ours || p.target != topics[1] {
			continue
		}
		if _, _, any := s.wants(group); !any {
			continue
		}
		return s, recallKey{group, topics[1], partition}, i == 1
	}
	return nil, recallKey{}, false
}

// handNote is what is to be written down about one move.
type handNote struct {
	move   *GroupMove
	keeper *Syncer
	key    recallKey
	place  position
	back   bool // the move is on the keeper's source
	ours   memory
}

// noteFor says where a move is to be written down; nil: nowhere.
func (m *GroupMover) noteFor(group string, move *GroupMove, back bool) *handNote {
	topic, place := move.OtherTopic, position{up: move.OtherOffset, down: move.To}
	if back {
		topic, place = move.Topic, position{up: move.To, down: move.OtherOffset}
	}
	s, key, turned := m.keeper(group, topic, move.Partition)
	if s == nil {
		return nil
	}
	if turned {
		place, back = place.turned(), !back
	}
	return &handNote{move: move, keeper: s, key: key, place: place, back: back, ours: s.recalled[key].ours}
}

// announced is what is remembered when the move is about to be made.
func (n *handNote) announced() memory {
	ours := n.ours
	find := ours.target
	if n.back {
		find = ours.source
	}
	from, stands := position{}, false
	if n.move.From >= 0 {
		from, stands, _ = find(n.move.From)
	}
	ours.intend(n.place, n.back, from, stands)
	return ours
}

// made is what is remembered when it has been made.
func (n *handNote) made() memory {
	ours := n.ours
	ours.settle(n.place, n.back && n.move.open)
	return ours
}

// known reports whether it is remembered already that both stand there.
func (n *handNote) known() bool {
	_, target, _ := n.ours.target(n.place.down)
	_, source, _ := n.ours.source(n.place.up)
	return target && source
}

// write writes notes down; what each says is up to what.
func (m *GroupMover) write(ctx context.Context, notes []*handNote, what func(*handNote) memory) {
	now := time.Now()
	for _, s := range m.keepers {
		var records []wire.Record
		var mine []*handNote
		for _, n := range notes {
			if n.keeper == s {
				mine = append(mine, n)
				records = append(records, noteOf(n.key, n.place, n.move.commit.Metadata, what(n), now))
			}
		}
		if len(mine) == 0 {
			continue
		}
		err := s.notes.ensure(ctx)
		if err == nil {
			err = s.append(ctx, records)
		}
		for _, n := range mine {
			if n.move.Unwritten = ""; err != nil {
				n.move.Unwritten = err.Error()
			}
		}
	}
}

// Apply carries plans out, and returns them with what became of each move. Groups are
// read once more before: what has moved since the plan was made, or has got members,
// is refused. Each move is written down before it is made, and again when it has been;
// that this cannot be done holds no move up.
func (m *GroupMover) Apply(ctx context.Context, plans []GroupPlan) []GroupPlan {
	plans = slices.Clone(plans)
	var forth, back []*GroupPlan
	for i := range plans {
		p := &plans[i]
		p.Moves = slices.Clone(p.Moves)
		switch {
		case p.Refused != "":
		case p.back:
			back = append(back, p)
		default:
			forth = append(forth, p)
		}
	}
	m.apply(ctx, m.target, forth, false)
	m.apply(ctx, m.source, back, true)
	return plans
}

// apply carries out what is to be done on one cluster.
func (m *GroupMover) apply(ctx context.Context, cluster GroupCluster, plans []*GroupPlan, back bool) {
	asked := newGroups(cluster)
	names := make([]string, len(plans))
	for i, p := range plans {
		names[i] = p.Group
	}
	now := asked.fetch(ctx, names)
	type attempt struct {
		group string
		move  *GroupMove
		note  *handNote
	}
	due := dueGroups{}
	var attempts []attempt
	var announced, stood []*handNote
	for _, p := range plans {
		answer := now[p.Group]
		if answer.err != nil {
			p.Refused = answer.err.Error()
			continue
		}
		for i := range p.Moves {
			one := &p.Moves[i]
			if one.Refused != "" {
				continue
			}
			if present, there := answer.at[one.at()]; there && present.Offset != one.From || !there && one.From >= 0 {
				one.Done, one.Refused = false, "it has moved since the plan was made"
				continue
			}
			note := m.noteFor(p.Group, one, back)
			if one.Done {
				if note != nil && !note.known() {
					stood = append(stood, note)
				}
				continue
			}
			if due[p.Group] == nil {
				due[p.Group] = dueOffsets{}
			}
			due[p.Group][one.at()] = one.commit
			attempts = append(attempts, attempt{p.Group, one, note})
			if note != nil {
				announced = append(announced, note)
			}
		}
	}
	m.write(ctx, announced, (*handNote).announced)
	if ctx.Err() != nil {
		return
	}
	outcomes := asked.commit(ctx, due)
	var denied []*handNote
	for _, a := range attempts {
		result, told := outcomes[a.group]
		if !told {
			result = outcome{err: errUnanswered, unsure: true}
		}
		err, unsure := result.of(a.move.at())
		switch a.move.Done = err == nil; {
		case err == nil && a.note != nil:
			stood = append(stood, a.note)
		case err != nil:
			a.move.Refused = err.Error()
			if a.note != nil && !unsure {
				denied = append(denied, a.note)
			}
		}
	}
	m.write(ctx, stood, (*handNote).made)
	m.write(ctx, denied, func(n *handNote) memory { return n.ours })
}

// at is where the move is made.
func (m *GroupMove) at() kafka.TopicPartition {
	return kafka.TopicPartition{Topic: m.Topic, Partition: m.Partition}
}

// Failback plans as PlanFailback does, with what Recall read. A group that has read
// records of the flow which the offset map does not hold yet would read them again.
func (m *GroupMover) Failback(ctx context.Context, source, target map[string]GroupSide, names []string, ends Ends) []GroupPlan {
	plans := PlanFailback(m.routes, source, target, names, ends, m.Left)
	var asked []*group
	for i := range plans {
		g := &group{name: plans[i].Group, carry: true, parts: map[kafka.TopicPartition]*groupPartition{}}
		for j := range plans[i].Moves {
			if one := &plans[i].Moves[j]; one.open && one.Refused == "" {
				p := &groupPartition{targetTopic: one.OtherTopic, target: GroupOffset{Offset: one.OtherOffset}}
				p.back, p.backMapped = m.routes.ToSource(one.Topic, one.Partition, one.OtherOffset)
				g.parts[one.at()] = p
			}
		}
		asked = append(asked, g)
	}
	now := time.Now()
	for m.keepers[0].lookBeyond(ctx, asked, now) {
	}
	for i, g := range asked {
		for j := range plans[i].Moves {
			one := &plans[i].Moves[j]
			if p := g.parts[one.at()]; p != nil && p.ahead != aheadNothing {
				one.Exact, one.LocalRead = false, -1
			}
		}
	}
	return plans
}

// Adopt plans as PlanAdopt does.
func (m *GroupMover) Adopt(source, target map[string]GroupSide, names []string) []GroupPlan {
	return PlanAdopt(m.routes, source, target, names)
}
