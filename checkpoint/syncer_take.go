package checkpoint

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"time"

	"kmirror/internal/kafka"
	"kmirror/internal/wire"
	"kmirror/topology"
)

// prepare makes the topic where commits are written down, and reads it once.
func (s *Syncer) prepare(ctx context.Context) error {
	if err := s.notes.ensure(ctx); err != nil || s.read {
		return err
	}
	return s.recall(ctx)
}

// Skipped counts the records of the topic where commits are written down that
// could not be read.
func (s *Syncer) Skipped() int64 { return s.notes.skipped.Load() }

// recall reads what earlier lives wrote down. Of MirrorMaker 2's checkpoints the
// last two count as ours: it commits what it checkpoints.
func (s *Syncer) recall(ctx context.Context) error {
	err := s.notes.read(ctx, s.target, func(rec wire.Record) error {
		c, err := DecodeCheckpoint(rec)
		switch {
		case err != nil:
			return err
		case c.Upstream < 0 || c.Downstream < 0 || c.Partition < 0:
			return errors.New("a checkpoint with a negative number")
		}
		topic, ok := s.routes.Source(c.Topic)
		if _, _, wanted := s.wants(c.Group); !ok || !wanted || !s.pair(topic).ours {
			return nil // another flow's, or of what is selected no longer
		}
		key := recallKey{c.Group, s.pair(topic).target, c.Partition} // the name that is in memory anyway
		s.recalled[key] = recalled{said: position{c.Upstream, c.Downstream}, ours: recall(rec, c, s.recalled[key].ours)}
		return nil
	})
	s.read = err == nil
	return err
}

// part returns a partition of a group, made if need be; nil if it is none of
// ours. It is called with mu held.
func (s *Syncer) part(g *group, at kafka.TopicPartition) *groupPartition {
	if p := g.parts[at]; p != nil {
		return p
	}
	m := s.pair(at.Topic)
	if !m.ours {
		return nil
	}
	p := &groupPartition{targetTopic: m.target, due: true, source: nowhere(), target: nowhere()}
	key := recallKey{g.name, m.target, at.Partition}
	if last, ok := s.recalled[key]; ok {
		p.ours, p.checkpointed, p.checkpointedAt = last.ours, last.said, time.Unix(0, 0)
		s.takenOver(key)
	}
	if g.parts == nil {
		g.parts = map[kafka.TopicPartition]*groupPartition{}
	}
	g.parts[at] = p
	return p
}

// takenOver lets go of what is remembered in a groupPartition from now on. A map never
// gives memory back: once it has held far more it is made anew.
func (s *Syncer) takenOver(key recallKey) {
	s.mostRecalled = max(s.mostRecalled, len(s.recalled))
	delete(s.recalled, key)
	if len(s.recalled) < s.mostRecalled/8 && s.mostRecalled > 10_000 {
		few := make(map[recallKey]recalled, len(s.recalled))
		maps.Copy(few, s.recalled)
		s.recalled, s.mostRecalled = few, len(few)
	}
}

// release lets go of a partition of a group, but for what is remembered of our
// commits. It is called with mu held.
func (s *Syncer) release(g *group, p *groupPartition, at kafka.TopicPartition) {
	if p.ours.stands || p.ours.intends {
		s.recalled[recallKey{g.name, p.targetTopic, at.Partition}] = recalled{said: p.checkpointed, ours: p.ours}
	}
	delete(g.parts, at)
}

func nowhere() GroupOffset { return GroupOffset{Offset: -1, Epoch: -1} }

// takeSource takes in what groups have committed on the source, and marks what
// has to be judged: what changed, what the growing map may have moved, and
// everything once in a while.
func (s *Syncer) takeSource(chosen []*group, answers map[string]offsets, now time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, g := range chosen {
		answer := answers[g.name]
		if g.err = answer.err; g.err != nil {
			continue
		}
		g.size = len(answer.at)
		for at, p := range g.parts {
			if _, still := answer.at[at]; !still && p.source.Offset >= 0 {
				s.sourceAt(g, p, at, nowhere(), now)
			}
		}
		for at, c := range answer.at {
			if p := s.part(g, at); p != nil {
				s.sourceAt(g, p, at, c, now)
			}
		}
		sweep := g.dirty || now.UnixNano()-g.swept >= int64(sweepEvery)
		for at, p := range g.parts {
			if sweep || !p.mapped || !p.there.Exact {
				s.translate(p, at)
			}
			p.due = p.due || sweep || p.err != nil
		}
		if sweep {
			g.dirty, g.swept = false, now.UnixNano()
		}
	}
}

// sourceAt takes in one offset of the source.
func (s *Syncer) sourceAt(g *group, p *groupPartition, at kafka.TopicPartition, c GroupOffset, now time.Time) {
	if p.source == c {
		return
	}
	if p.source.Offset != c.Offset {
		p.sourceSince = now
	}
	p.source, p.due = c, true
	g.change(now)
	s.translate(p, at)
}

// change notes that something of the group changed. What nobody has seen before may
// have stood there for years: else, at first, all groups would be looked at again
// before most were looked at once.
func (g *group) change(now time.Time) {
	if g.looked {
		g.changed = now.UnixNano()
	}
}

// translate looks up where the source's offset stands on the target.
func (s *Syncer) translate(p *groupPartition, at kafka.TopicPartition) {
	var t Translation
	ok := false
	if p.source.Offset >= 0 {
		t, ok = s.routes.ToTarget(at.Topic, at.Partition, p.source.Offset)
	}
	p.due = p.due || t != p.there || ok != p.mapped
	p.there, p.mapped = t, ok
}

// toCompare returns the groups whose offsets on the target have to be known:
// those of which something is due, and all that are carried back.
func (s *Syncer) toCompare(chosen []*group) (compared []*group) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, g := range chosen {
		if g.err == nil && (g.carry || g.forth && g.due()) {
			compared = append(compared, g)
		}
	}
	return compared
}

// takeTarget takes in what groups have committed on the target.
func (s *Syncer) takeTarget(compared []*group, answers map[string]offsets, now time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, g := range compared {
		answer := answers[g.name]
		if answer.err != nil {
			g.err = fmt.Errorf("on the target: %w", answer.err)
			continue
		}
		if g.carry {
			for at := range answer.at {
				if topic, ok := s.routes.Source(at.Topic); ok {
					s.part(g, kafka.TopicPartition{Topic: topic, Partition: at.Partition})
				}
			}
		}
		for at, p := range g.parts {
			c, there := answer.at[kafka.TopicPartition{Topic: p.targetTopic, Partition: at.Partition}]
			if !there {
				c = nowhere()
			}
			if p.target.Offset != c.Offset {
				p.targetSince, p.due = now, true
				g.change(now)
			}
			p.target = c
			if p.due || g.carry {
				back, mapped := Translation{}, false
				if c.Offset >= 0 {
					back, mapped = s.routes.ToSource(at.Topic, at.Partition, c.Offset)
				}
				p.due = p.due || back != p.back || mapped != p.backMapped
				p.back, p.backMapped = back, mapped
			}
			if s.idle(g, p) {
				s.release(g, p, at)
			}
		}
	}
}

// idle reports whether nothing is left to be said about a partition of a group:
// neither side has an offset, or only the target has and stays as it is.
func (s *Syncer) idle(g *group, p *groupPartition) bool {
	switch {
	case p.source.Offset >= 0:
		return false
	case p.target.Offset < 0:
		return true
	default:
		return !g.carry && s.flow.GroupSync.Deleted == topology.GroupDeletedKeep
	}
}
