package checkpoint

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"kmirror/internal/kafka"
	"kmirror/internal/wire"
)

// dueCommit is one offset about to be committed, to one of the sides.
type dueCommit struct {
	group *group
	part  *groupPartition
	pair  kafka.TopicPartition // on the source
	at    kafka.TopicPartition // where it is committed
	here  GroupOffset
	to    position
	short bool // of a commit to the source: the map does not reach the target's place
}

// work is what follows from a round's judgements.
type work struct {
	notes             []wire.Record // checkpoints; they announce the commits
	noted             []*groupPartition
	returns           []wire.Record // checkpoints on the source
	returned          []*groupPartition
	forward, backward []dueCommit
}

// judgeAll judges what is due of the groups.
func (s *Syncer) judgeAll(chosen []*group, now time.Time) *work {
	s.mu.Lock()
	defer s.mu.Unlock()
	w := &work{}
	for _, g := range chosen {
		if g.err != nil {
			continue
		}
		g.looked = true
		for at, p := range g.parts {
			if !p.due || now.Before(p.retry) {
				continue
			}
			s.judge(w, g, p, at, now)
			s.checkpointReturn(w, g, p, at, now)
			if !g.forth && !g.carry && p.source.Offset < 0 {
				s.release(g, p, at)
			}
		}
	}
	return w
}

// judge judges one partition of a group.
func (s *Syncer) judge(w *work, g *group, p *groupPartition, at kafka.TopicPartition, now time.Time) {
	if p.ours.deny(position{p.source.Offset, p.target.Offset}) {
		p.unsaid = true
	}
	v := view{
		ahead:  p.target.Offset >= 0 && p.backMapped && p.back.open() && p.ahead != aheadNothing,
		source: p.source.Offset, target: p.target.Offset,
		there: p.there, mapped: p.mapped, back: p.back, backMapped: p.backMapped,
		busy: g.busy, active: g.active, forth: g.forth, carry: g.carry, ours: p.ours,
	}
	r := verdict{state: InStep}
	switch {
	case g.forth || g.carry:
		r = judge(v)
	case !p.mapped || p.there.Shortfall > 0:
		r.state = Waiting
	}
	if r.same && r.do == leave {
		_, target, _ := p.ours.target(v.target)
		_, source, _ := p.ours.source(v.source)
		p.unsaid = p.unsaid || !target || g.carry && !source // no earlier note would tell a next life
		short := v.there.Offset != v.target && v.back.open()
		p.unsaid = p.unsaid || short != p.ours.short
		p.ours.settle(position{v.source, v.target}, short) // whoever put them there
	}
	here := position{up: v.source, down: p.there.Offset}
	if r.do == backward {
		here = position{up: p.back.Offset, down: v.target}
	}
	news := r.do != leave || v.source >= 0 && p.mapped && (p.unsaid || s.flow.Checkpoints && (p.checkpointed != here || p.checkpointedAt.IsZero()))
	if p.state != r.state {
		p.state, p.since = r.state, now
	}
	if news && now.Sub(p.checkpointedAt) < checkpointEvery {
		return // stays due
	}
	p.err, p.due, p.unsaid = nil, false, false
	if !news {
		return
	}
	said := p.source
	switch r.do {
	case leave:
	case forward:
		from, stands, _ := p.ours.target(v.target)
		p.ours.intend(here, false, from, stands)
		w.forward = append(w.forward, dueCommit{group: g, part: p, pair: at, at: kafka.TopicPartition{Topic: p.targetTopic, Partition: at.Partition}, here: GroupOffset{here.down, said.Epoch, said.Metadata}, to: here})
	case backward:
		said = p.target
		from, stands, _ := p.ours.source(v.source)
		p.ours.intend(here, true, from, stands)
		w.backward = append(w.backward, dueCommit{group: g, part: p, pair: at, at: at, here: GroupOffset{here.up, said.Epoch, said.Metadata}, to: here, short: v.back.open()})
	}
	w.notes = append(w.notes, note(g, p, at, here, said.Metadata, now))
	w.noted = append(w.noted, p)
	p.checkpointed, p.checkpointedAt = here, now
}

// note is the checkpoint of one partition of a group, with what is remembered.
func note(g *group, p *groupPartition, at kafka.TopicPartition, here position, metadata string, now time.Time) wire.Record {
	return noteOf(recallKey{g.name, p.targetTopic, at.Partition}, here, metadata, p.ours, now)
}

func noteOf(k recallKey, here position, metadata string, ours memory, now time.Time) wire.Record {
	rec := EncodeCheckpoint(Checkpoint{Group: k.group, Topic: k.targetTopic, Partition: k.partition, Upstream: here.up, Downstream: here.down, Metadata: metadata})
	rec.Timestamp = now.UnixMilli()
	remember(&rec, here, ours)
	return rec
}

// checkpointReturn says on the source where a group that is carried back stands,
// in MirrorMaker 2's format: under the topic's own name, as its consumers there
// know it.
func (s *Syncer) checkpointReturn(w *work, g *group, p *groupPartition, at kafka.TopicPartition, now time.Time) {
	here := position{up: p.back.Offset, down: p.target.Offset}
	if s.returns == nil || !g.carry || p.target.Offset < 0 || !p.backMapped || p.returned == here {
		return
	}
	if now.Sub(p.returnedAt) < checkpointEvery {
		p.due = true
		return
	}
	rec := EncodeCheckpoint(Checkpoint{Group: g.name, Topic: at.Topic, Partition: at.Partition, Upstream: here.down, Downstream: here.up, Metadata: p.target.Metadata})
	rec.Timestamp = now.UnixMilli()
	remember(&rec, here, memory{}) // it is not by this record that anybody knows a commit for ours
	w.returns = append(w.returns, rec)
	w.returned = append(w.returned, p)
	p.returned, p.returnedAt = here, now
}

// write writes the checkpoints. Without those that announce commits, the
// commits must not be made.
func (s *Syncer) write(ctx context.Context, w *work) error {
	if len(w.returns) > 0 {
		err := s.returns.ensure(ctx)
		if err == nil {
			err = appendAll(ctx, s.source, s.returns.name, 0, w.returns, func(int) {})
		}
		if err != nil {
			s.returns.lost()
			s.mu.Lock()
			for _, p := range w.returned {
				p.returned, p.due = position{-1, -1}, true
			}
			s.mu.Unlock()
		}
		if ctx.Err() == nil {
			s.returning.note(err)
		}
	}
	err := s.append(ctx, w.notes)
	if err != nil {
		s.mu.Lock()
		defer s.mu.Unlock()
		for _, p := range w.noted {
			p.checkpointedAt, p.due, p.unsaid = time.Time{}, true, true
		}
	}
	return err
}

func (s *Syncer) append(ctx context.Context, notes []wire.Record) error {
	if err := appendAll(ctx, s.target, s.notes.name, 0, notes, func(int) {}); err != nil {
		s.notes.lost()
		return fmt.Errorf("write checkpoints: %w", err)
	}
	return nil
}

func offsetsOf(due []dueCommit) dueGroups {
	all := make(dueGroups)
	for _, d := range due {
		if all[d.group.name] == nil {
			all[d.group.name] = make(dueOffsets)
		}
		all[d.group.name][d.at] = d.here
	}
	return all
}

// settle takes in what became of commits. What failed is tried again, more and
// more seldom. What was refused is taken back: it returns the checkpoints that
// say so.
func (s *Syncer) settle(due []dueCommit, outcomes map[string]outcome, now time.Time) (taken []wire.Record) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, d := range due {
		p := d.part
		result, told := outcomes[d.group.name]
		if !told {
			result = outcome{err: errUnanswered, unsure: true}
		}
		err, unsure := result.of(d.at)
		if err == nil {
			s.committed(d, now)
			continue
		}
		if !unsure {
			p.ours.intends = false
			taken = append(taken, note(d.group, p, d.pair, d.to, d.here.Metadata, now))
		}
		if errors.Is(err, errMembers) {
			s.refused(d, now)
			continue
		}
		p.err, p.due = fmt.Errorf("commit: %w", err), true
		p.retry = now.Add(min(30*time.Second, 250*time.Millisecond<<min(p.failures, 10)))
		p.failures++
	}
	return taken
}

// refused takes in that a group has members.
func (s *Syncer) refused(d dueCommit, now time.Time) {
	p := d.part
	d.group.refused, p.since = now, now
	if p.ours.back {
		d.group.busy, p.state = true, ActiveAtSource
	} else {
		d.group.active, p.state = true, ActiveAtTarget
	}
}

// committed takes in that a commit was carried out.
func (s *Syncer) committed(d dueCommit, now time.Time) {
	p := d.part
	if p.ours.back {
		p.source, p.sourceSince, p.state = d.here, now, InStep
		p.there, p.mapped = s.routes.ToTarget(d.pair.Topic, d.pair.Partition, d.to.up)
		switch {
		case d.group.active:
			p.state = ActiveAtTarget
		case d.short && p.ahead != aheadNothing:
			p.state = Returning // the rest when the map holds it
		}
	} else {
		p.target, p.targetSince, p.state = d.here, now, InStep
		p.back, p.backMapped = s.routes.ToSource(d.pair.Topic, d.pair.Partition, d.to.down)
		if p.there.Shortfall > 0 {
			p.state = Waiting
		}
	}
	p.ours.settle(d.to, p.ours.back && d.short)
	if d.group.carry { // a next life has to know that it arrived, to tell who moves then
		p.unsaid, p.due = true, true
	}
	p.since, p.failures, p.retry = now, 0, time.Time{}
}

// removeDeleted deletes on the target what was ours of groups that were deleted
// on the source: offsets that stand where we left them, of groups without
// members. What somebody moved stays, and so do offsets on other topics, such as
// those of another flow that follows a group of the same name.
func (s *Syncer) removeDeleted(ctx context.Context) error {
	s.mu.Lock()
	var gone []*group
	for name := range s.deleting {
		if g := s.groups[name]; g != nil {
			gone = append(gone, g)
		}
	}
	s.mu.Unlock()
	if len(gone) == 0 {
		return nil
	}
	there, here := s.sourceGroups.fetch(ctx, names(gone)), s.targetGroups.fetch(ctx, names(gone))
	due, err := s.removals(gone, there, here)
	outcomes := s.targetGroups.remove(ctx, due)
	s.mu.Lock()
	defer s.mu.Unlock()
	for name, result := range outcomes {
		g := s.groups[name]
		fault := result.err
		for _, one := range result.failed {
			fault = errors.Join(fault, one)
		}
		switch {
		case errors.Is(fault, errMembers):
			s.log.Info("a group was deleted on the source; it is used on the target, and stays there", slog.String("group", name))
			s.forget(g)
		case fault != nil:
			err = errors.Join(err, fmt.Errorf("group %s: %w", name, fault))
		default:
			s.log.Info("a group was deleted on the source; its offsets on the target are deleted", slog.String("group", name), slog.Int("offsets", len(due[name])))
			s.forget(g)
		}
	}
	return err
}

// removals says what is deleted, and lets go of groups of which nothing is.
func (s *Syncer) removals(gone []*group, there, here map[string]offsets) (dueGroups, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	due := make(dueGroups)
	var faults error
	for _, g := range gone {
		if err := errors.Join(there[g.name].err, here[g.name].err); err != nil {
			faults = errors.Join(faults, fmt.Errorf("group %s: %w", g.name, err))
			continue
		}
		if len(there[g.name].at) > 0 { // it is there again
			delete(s.deleting, g.name)
			continue
		}
		mine := make(dueOffsets)
		for at, p := range g.parts {
			target := kafka.TopicPartition{Topic: p.targetTopic, Partition: at.Partition}
			c, stands := here[g.name].at[target]
			if _, ours, sure := p.ours.target(c.Offset); stands && ours && sure {
				mine[target] = c
			}
		}
		if len(mine) == 0 || g.active {
			s.forget(g)
			continue
		}
		due[g.name] = mine
	}
	return due, faults
}
