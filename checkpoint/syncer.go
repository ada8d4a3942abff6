package checkpoint

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"kmirror/internal/wire"
	"kmirror/topology"
)

const (
	defaultInterval = 500 * time.Millisecond // between two looks at the source's offsets
	leastPause      = 100 * time.Millisecond // after a look, however long it took
	listEvery       = time.Second            // between two lists of the groups
	sweepEvery      = 5 * time.Second        // everything is judged anew, changed or not
	checkpointEvery = time.Second            // per group and partition, at most
)

// Translator is where a Syncer looks offsets up. *Index is one.
type Translator interface {
	Ready() <-chan struct{}
	Translate(flow, sourceTopic string, partition int32, offset int64) (Translation, bool)
}

// TargetCluster is what a Syncer asks of the target. *kafka.Cluster is one.
type TargetCluster interface {
	GroupCluster
	Appender
	Reader
	TopicMaker
}

// Syncer keeps the target's consumer groups of one flow where the source's
// are: it looks at the source's offsets every half second, translates those
// that changed, writes MirrorMaker 2's checkpoints and commits to the groups of
// the target, by the rules of judge. What it committed is remembered in the
// checkpoint records, so that a next life knows it for its own; with the flow's
// checkpoints off, that is forgotten with the process, and a group that then
// goes back on the source is only followed once it has been in step.
//
// A group that is deleted on the source stays as it is on the target.
type Syncer struct {
	flow   *topology.Flow
	index  Translator
	target TargetCluster
	log    *slog.Logger

	sourceGroups *groups                // owned by Run
	targetGroups *groups                // owned by Run
	topics       map[string]mirrored    // owned by Run
	recalled     map[recallKey]recalled // owned by Run: what earlier lives wrote
	listed       time.Time              // owned by Run: when the groups were listed last
	swept        time.Time              // owned by Run
	listing      retry                  // owned by Run
	checkpoints  *internalTopic         // owned by Run, but for what it counts
	made         bool                   // owned by Run: the checkpoints topic is there and has been read

	mu     sync.Mutex // guards the field below and all it leads to
	groups map[string]*group
}

// mirrored says whether the flow mirrors a source topic, and as what.
type mirrored struct {
	selected bool
	target   string
}

type recallKey struct {
	group, targetTopic string
	partition          int32
}

// recalled is a checkpoint that an earlier life wrote.
type recalled struct {
	said position
	ours memory
}

// group is one group of the source that the flow selects.
type group struct {
	active bool  // it has members on the target
	err    error // the group as a whole could not be read or committed
	dirty  bool  // to be judged whether its offsets changed or not
	parts  map[topicPartition]*groupPartition
}

// groupPartition is one offset of a group on a mirrored topic.
type groupPartition struct {
	targetTopic string
	source      committed
	translation Translation
	mapped      bool
	target      int64 // committed on the target, as last seen; -1: nothing
	ours        memory
	state       State
	err         error
	due         bool // to be judged

	checkpointed   position // what the last checkpoint said
	checkpointedAt time.Time
}

// NewSyncer makes a syncer; Run starts it.
func NewSyncer(flow *topology.Flow, source GroupCluster, target TargetCluster, index Translator, log *slog.Logger) *Syncer {
	return &Syncer{
		flow: flow, index: index, target: target, log: log,
		sourceGroups: newGroups(source), targetGroups: newGroups(target),
		listing: retry{log: log, what: "list groups"}, checkpoints: newInternalTopic(flow.CheckpointsTopic(), target, checkpointsConfigs(), log),
		topics: map[string]mirrored{}, recalled: map[recallKey]recalled{}, groups: map[string]*group{},
	}
}

// Run syncs until ctx ends, and returns nil. It waits for the index first. What
// fails is tried again.
func (s *Syncer) Run(ctx context.Context) error {
	select {
	case <-s.index.Ready():
	case <-ctx.Done():
		return nil
	}
	interval := s.flow.GroupSync.Interval
	if interval <= 0 {
		interval = defaultInterval
	}
	again := retry{log: s.log, what: "sync groups"}
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		select {
		case <-timer.C:
		case <-ctx.Done():
			return nil
		}
		began := time.Now()
		switch err := s.round(ctx); {
		case err == nil:
			again.success()
		case ctx.Err() == nil:
			again.failure(ctx, err)
		}
		timer.Reset(max(leastPause, interval-time.Since(began)))
	}
}

// round looks at everything once.
func (s *Syncer) round(ctx context.Context) error {
	if err := s.prepare(ctx); err != nil {
		return err
	}
	now := time.Now()
	sweep := now.Sub(s.swept) >= sweepEvery
	if now.Sub(s.listed) >= listEvery {
		s.listed = now
		if err := s.list(ctx, sweep); ctx.Err() == nil {
			s.listing.note(err) // what is known already is synced all the same
		}
	}
	s.read(s.sourceGroups.fetch(ctx, s.names(func(*group) bool { return true })), sweep)
	if ctx.Err() != nil {
		return ctx.Err()
	}
	if sweep {
		s.swept = now
	}
	if s.flow.GroupSync.Enabled {
		s.compare(s.targetGroups.fetch(ctx, s.names((*group).due)))
	}
	due, err := s.write(ctx, time.Now())
	if err == nil && len(due) > 0 {
		s.settle(due, s.targetGroups.commit(ctx, offsetsOf(due)))
	}
	return err
}

// prepare makes the checkpoints topic and reads what earlier lives left there.
func (s *Syncer) prepare(ctx context.Context) error {
	if s.made || !s.flow.Checkpoints {
		return nil
	}
	if err := s.checkpoints.ensure(ctx); err != nil {
		return err
	}
	err := s.checkpoints.read(ctx, s.target, func(rec wire.Record) error {
		c, err := DecodeCheckpoint(rec)
		if err == nil {
			s.recalled[recallKey{c.Group, c.Topic, c.Partition}] = recalled{said: position{c.Upstream, c.Downstream}, ours: recall(rec, c)}
		}
		return err
	})
	if err != nil {
		return err
	}
	s.made = true
	return nil
}

// Skipped counts the records of the checkpoints topic that could not be read.
func (s *Syncer) Skipped() int64 { return s.checkpoints.skipped.Load() }

// names returns the groups for which want holds.
func (s *Syncer) names(want func(*group) bool) []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	var names []string
	for name, g := range s.groups {
		if want(g) {
			names = append(names, name)
		}
	}
	return names
}

func (g *group) due() bool {
	for _, p := range g.parts {
		if p.due {
			return true
		}
	}
	return false
}

// list finds the groups of the source, and which have members on the target.
func (s *Syncer) list(ctx context.Context, sweep bool) error {
	there, complete, err := s.sourceGroups.list(ctx)
	if err != nil {
		err = fmt.Errorf("source: %w", err)
	}
	var here map[string]groupListing
	var hereComplete bool
	if s.flow.GroupSync.Enabled {
		var hereErr error
		if here, hereComplete, hereErr = s.targetGroups.list(ctx); hereErr != nil {
			err = errors.Join(err, fmt.Errorf("target: %w", hereErr))
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for name, l := range there {
		// Those that use the group protocol for something else have no offsets.
		consumers := (l.protocol == "" || l.protocol == "consumer") && l.kind != "share"
		if s.groups[name] == nil && consumers && s.flow.SelectsGroup(name) {
			s.groups[name] = &group{parts: map[topicPartition]*groupPartition{}}
		}
	}
	for name, g := range s.groups {
		if _, exists := there[name]; !exists && complete {
			delete(s.groups, name)
			continue
		}
		l, exists := here[name]
		switch active := l.members(); {
		case !exists && !hereComplete: // not known
		case l.state == "" && exists && !sweep: // an old broker does not say; a refusal tells, until the next sweep
		case g.active != active:
			g.active, g.dirty = active, true
		}
	}
	return err
}

// read takes in what the source's groups have committed, and marks what has to
// be judged: what changed, what the growing map may have moved, and everything
// at a sweep.
func (s *Syncer) read(answers map[string]offsets, sweep bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for name, answer := range answers {
		g := s.groups[name]
		if g.err = answer.err; g.err != nil {
			continue
		}
		for at := range g.parts {
			if _, still := answer.at[at]; !still {
				delete(g.parts, at)
			}
		}
		for at, c := range answer.at {
			p := g.parts[at]
			if p == nil {
				m := s.mirrors(at.topic)
				if !m.selected {
					continue
				}
				p = &groupPartition{targetTopic: m.target, target: -1, due: true, state: Waiting}
				if last, ok := s.recalled[recallKey{name, m.target, at.partition}]; ok {
					p.ours, p.checkpointed, p.checkpointedAt = last.ours, last.said, time.Unix(0, 0)
				}
				g.parts[at] = p
			}
			changed := p.source != c
			p.source = c
			if changed || sweep || g.dirty || !p.mapped || !p.translation.Exact {
				t, ok := s.index.Translate(s.flow.Name, at.topic, at.partition, c.offset)
				changed = changed || t != p.translation || ok != p.mapped
				p.translation, p.mapped = t, ok
			}
			p.due = p.due || changed || sweep || g.dirty || p.err != nil
		}
		g.dirty = false
	}
}

func (s *Syncer) mirrors(topic string) mirrored {
	m, known := s.topics[topic]
	if !known {
		m = mirrored{selected: s.flow.Selects(topic), target: s.flow.TargetTopic(topic)}
		s.topics[topic] = m
	}
	return m
}

// compare takes in what the target's groups have committed.
func (s *Syncer) compare(answers map[string]offsets) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for name, answer := range answers {
		g := s.groups[name]
		if answer.err != nil {
			g.err = fmt.Errorf("on the target: %w", answer.err)
			continue
		}
		for at, p := range g.parts {
			p.target = -1
			if c, ok := answer.at[topicPartition{p.targetTopic, at.partition}]; ok {
				p.target = c.offset
			}
		}
	}
}

// dueCommit is one offset about to be committed.
type dueCommit struct {
	group string
	at    topicPartition // on the source
	part  *groupPartition
	to    position
	here  committed // for the target
}

// write judges what is due and writes the checkpoints. It returns the commits
// that come next; they have been announced in the checkpoints.
func (s *Syncer) write(ctx context.Context, now time.Time) ([]dueCommit, error) {
	records, written, commits := s.judgeAll(now)
	if !s.flow.Checkpoints {
		return commits, nil
	}
	err := appendAll(ctx, s.target, s.flow.CheckpointsTopic(), 0, records, func(int) {})
	if err == nil {
		return commits, nil
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.made = false // it may have been deleted
	s.checkpoints.lost()
	for _, p := range written {
		p.checkpointedAt, p.due = time.Time{}, true
	}
	return nil, fmt.Errorf("write checkpoints: %w", err)
}

func (s *Syncer) judgeAll(now time.Time) (records []wire.Record, written []*groupPartition, commits []dueCommit) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for name, g := range s.groups {
		if g.err != nil {
			continue
		}
		for at, p := range g.parts {
			if !p.due {
				continue
			}
			here := position{up: p.source.offset, down: p.translation.Offset}
			state, commit := InStep, false
			if s.flow.GroupSync.Enabled {
				state, commit = judge(view{source: here.up, at: p.translation, mapped: p.mapped, target: p.target, active: g.active, ours: p.ours})
				if p.mapped && p.target == here.down && !g.active {
					p.ours.settle(here) // whoever put it there: it stands for this
				}
			} else if !p.mapped || p.translation.Shortfall > 0 {
				state = Waiting
			}
			news := p.mapped && (commit || p.checkpointed != here || p.checkpointedAt.IsZero())
			if news && now.Sub(p.checkpointedAt) < checkpointEvery {
				p.state = state
				continue // stays due
			}
			p.state, p.err, p.due = state, nil, false
			if !news {
				continue
			}
			if commit {
				p.ours.intend(here, p.target)
				commits = append(commits, dueCommit{group: name, at: at, part: p, to: here, here: committed{here.down, p.source.metadata}})
			}
			rec := EncodeCheckpoint(Checkpoint{Group: name, Topic: p.targetTopic, Partition: at.partition, Upstream: here.up, Downstream: here.down, Metadata: p.source.metadata})
			rec.Timestamp = now.UnixMilli()
			remember(&rec, p.ours)
			records = append(records, rec)
			written = append(written, p)
			p.checkpointed, p.checkpointedAt = here, now
		}
	}
	return records, written, commits
}

func offsetsOf(due []dueCommit) map[string]map[topicPartition]committed {
	all := make(map[string]map[topicPartition]committed)
	for _, d := range due {
		if all[d.group] == nil {
			all[d.group] = make(map[topicPartition]committed)
		}
		all[d.group][topicPartition{d.part.targetTopic, d.at.partition}] = d.here
	}
	return all
}

// settle takes in what became of the commits. What failed is tried again.
func (s *Syncer) settle(due []dueCommit, outcomes map[string]outcome) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, d := range due {
		result, p := outcomes[d.group], d.part
		g := s.groups[d.group]
		err := result.err
		if failed, ok := result.failed[topicPartition{p.targetTopic, d.at.partition}]; ok {
			err = failed
		}
		switch {
		case errors.Is(err, errMembers):
			g.active, p.ours.intends, p.state = true, false, ActiveAtTarget
		case err != nil:
			p.ours.intends = p.ours.intends && result.unsure
			p.err, p.due = fmt.Errorf("on the target: %w", err), true
		default:
			p.ours.settle(d.to)
			p.target = d.to.down
			p.state = InStep
			if p.translation.Shortfall > 0 {
				p.state = Waiting
			}
		}
	}
}
