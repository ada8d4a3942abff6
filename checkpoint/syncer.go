package checkpoint

import (
	"context"
	"errors"
	"log/slog"
	"sync"
	"time"

	"kmirror/internal/kafka"
	"kmirror/topology"
)

const (
	defaultInterval = 500 * time.Millisecond // between two looks at the source's offsets
	leastPause      = 100 * time.Millisecond // after a look, however long it took
	sweepEvery      = 5 * time.Second        // a group is judged anew, changed or not
	checkpointEvery = time.Second            // per group and partition, at most
)

// GroupsTopic remembers, on the target, what the flows that write no checkpoints
// committed there. Its records are those of a checkpoints topic.
const GroupsTopic = "__kmirror_groups"

// SyncCluster is what a Syncer asks of either cluster. *kafka.Cluster is one.
type SyncCluster interface {
	GroupCluster
	Appender
	Reader
	Fetcher
	TopicMaker
}

// Syncer keeps the consumer groups of a flow at the same place on both sides: it
// looks at the source's offsets about every half second, translates those that
// changed, writes MirrorMaker 2's checkpoints and commits to the groups of the
// target, by the rules of judge. Where groups are carried back too (the flow's
// failback is on, or the opposite flow syncs groups), what moved on at the target
// is committed to the source by the same rules, in the same loop: both directions
// of a pair of topics rest on one memory of where both sides last stood at the
// same place, so neither takes the other's commits for somebody's.
//
// What it is about to commit it first writes down, on the target: in the header
// of the checkpoint records or, for a flow without checkpoints, in GroupsTopic. So
// a next life knows it for its own.
//
// Of a pair of topics that the opposite flow mirrors under the same names (see
// Routes.Shared) the Syncer of one of the two flows takes care.
//
// It looks at so many offsets a second at most; see looks.
type Syncer struct {
	routes Routes
	flow   *topology.Flow // routes.Forward.Flow
	source SyncCluster
	target SyncCluster
	log    *slog.Logger

	sourceGroups *groups                          // owned by Run
	targetGroups *groups                          // owned by Run
	topics       map[string]mirrored              // owned by Run: by name on the source
	recalled     map[recallKey]recalled           // owned by Run: what earlier lives wrote
	mostRecalled int                              // owned by Run: that recalled has held since it was made
	looks        looks                            // owned by Run
	listing      lister                           // owned by Run
	notes        *internalTopic                   // owned by Run: where commits are written down
	read         bool                             // owned by Run: notes has been read
	returns      *internalTopic                   // owned by Run: the checkpoints topic on the source, nil if none is written
	returning    retry                            // owned by Run: writing it
	deleting     map[string]bool                  // owned by Run: groups deleted on the source, by policy to be deleted on the target
	beyond       map[kafka.TopicPartition]*beyond // owned by Run: by topic and partition on the target

	mu     sync.Mutex // guards the field below and all it leads to
	groups map[string]*group
}

// mirrored says whether this Syncer takes care of a source topic, and what it
// is called on the target.
type mirrored struct {
	ours   bool
	target string
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

// group is one group that the flow selects, or that is carried back.
type group struct {
	name         string
	forth, carry bool // its offsets are committed to the target, carried back to the source
	busy, active bool // it has members on the source, on the target
	err          error
	dirty        bool // to be judged whether its offsets changed or not
	parts        map[kafka.TopicPartition]*groupPartition

	seen    bool // it was on the source in this life
	missing int  // lists in a row without it on the source

	refused time.Time // when it last refused a commit because it has members

	looked  bool  // its offsets have been seen before this round
	size    int   // offsets in the last answers, all topics
	changed int64 // when something changed last, ns since 1970; what is seen at first is no change
	swept   int64
	ticket  uint64 // of its place in a queue; 0: it is gone
}

// groupPartition is one offset of a group on a pair of topics.
type groupPartition struct {
	targetTopic        string
	source, target     GroupOffset // as last seen; an offset of -1: nothing
	there, back        Translation // of source, of target
	mapped, backMapped bool
	ahead              ahead // of a group that is carried back, without members on the target
	ours               memory
	state              State
	err                error
	due                bool      // to be judged
	unsaid             bool      // a note is due
	failures           int       // in a row
	retry              time.Time // not before

	since, sourceSince, targetSince time.Time

	checkpointed   position // what the last checkpoint said
	checkpointedAt time.Time
	returned       position // what the last checkpoint on the source said
	returnedAt     time.Time
}

// NewSyncer makes a syncer between the clusters of routes.Forward; Run starts it.
func NewSyncer(routes Routes, source, target SyncCluster, log *slog.Logger) *Syncer {
	s := &Syncer{
		routes: routes, flow: routes.Forward.Flow, source: source, target: target, log: log,
		sourceGroups: newGroups(source), targetGroups: newGroups(target),
		topics: map[string]mirrored{}, recalled: map[recallKey]recalled{}, deleting: map[string]bool{},
		beyond: map[kafka.TopicPartition]*beyond{}, groups: map[string]*group{},
	}
	s.listing.retry = retry{log: log, what: "list groups"}
	s.returning = retry{log: log, what: "write checkpoints to the source"}
	name, configs := GroupsTopic, compacted()
	if s.flow.Checkpoints {
		name, configs = s.flow.CheckpointsTopic(), smallSegments()
	}
	s.notes = newInternalTopic(name, target, configs, log)
	if name := s.returnTopic(); name != "" {
		s.returns = newInternalTopic(name, source, smallSegments(), log)
	}
	return s
}

// returnTopic is where MirrorMaker 2's checkpoints of groups that are carried
// back stand, on the source; "" if none are written.
func (s *Syncer) returnTopic() string {
	switch o := s.routes.Opposite.Flow; {
	case !s.carries():
		return ""
	case o != nil && o.Checkpoints:
		return o.CheckpointsTopic()
	case o == nil && s.flow.Checkpoints:
		return s.flow.To + s.flow.InternalSeparator + "checkpoints" + s.flow.InternalSeparator + "internal"
	default:
		return ""
	}
}

// carries reports whether any group is carried back.
func (s *Syncer) carries() bool {
	o := s.routes.Opposite.Flow
	return s.flow.GroupSync.Failback || o != nil && o.GroupSync.Enabled
}

// wants says what is done about a group: it is committed to the target, carried
// back to the source, or at least checkpointed.
func (s *Syncer) wants(name string) (forth, carry, any bool) {
	selected := s.flow.SelectsGroup(name)
	o := s.routes.Opposite.Flow
	forth = selected && s.flow.GroupSync.Enabled
	carry = selected && s.flow.GroupSync.Failback || o != nil && o.GroupSync.Enabled && o.SelectsGroup(name)
	return forth, carry, forth || carry || selected && s.flow.Checkpoints
}

// pair looks a topic of the source up.
func (s *Syncer) pair(topic string) mirrored {
	m, known := s.topics[topic]
	if !known {
		m.target, m.ours = s.routes.Pair(topic)
		if o := s.routes.Opposite.Flow; m.ours && s.routes.Shared(topic) && (o.GroupSync.Enabled || o.Checkpoints) {
			m.ours = s.flow.Name < o.Name
		}
		s.topics[topic] = m
	}
	return m
}

// Run syncs until ctx ends, and returns nil. It waits for the offset maps first.
// What fails is tried again.
func (s *Syncer) Run(ctx context.Context) error {
	waits := []Translator{s.routes.Forward.Maps}
	if o := s.routes.Opposite; o.Flow != nil && o.Flow.Naming == topology.Identity && s.flow.Naming == topology.Identity {
		waits = append(waits, o.Maps)
	}
	for _, maps := range waits {
		select {
		case <-maps.Ready():
		case <-ctx.Done():
			return nil
		}
	}
	interval := s.flow.GroupSync.Interval
	if interval <= 0 {
		interval = defaultInterval
	}
	again := retry{log: s.log, what: "sync groups"}
	timer := time.NewTimer(interval)
	defer timer.Stop()
	for {
		began := time.Now()
		switch err := s.round(ctx); {
		case err == nil:
			again.success()
		case ctx.Err() == nil:
			again.failure(ctx, err)
		}
		timer.Reset(max(leastPause, interval-time.Since(began)))
		select {
		case <-timer.C:
		case <-ctx.Done():
			return nil
		}
	}
}

// round looks at the groups whose turn it is.
func (s *Syncer) round(ctx context.Context) error {
	if err := s.prepare(ctx); err != nil {
		return err
	}
	s.list(ctx)
	now := time.Now()
	s.mu.Lock()
	chosen := s.looks.choose(now)
	s.mu.Unlock()
	defer s.lineUp(chosen)
	answers := s.sourceGroups.fetch(ctx, names(chosen))
	if ctx.Err() != nil {
		return ctx.Err()
	}
	s.takeSource(chosen, answers, now)
	compared := s.toCompare(chosen)
	s.takeTarget(compared, s.targetGroups.fetch(ctx, names(compared)), now)
	if ctx.Err() != nil {
		return ctx.Err()
	}
	s.lookBeyond(ctx, compared, now)
	if ctx.Err() != nil {
		return ctx.Err()
	}
	work := s.judgeAll(chosen, time.Now())
	err := s.write(ctx, work)
	if err == nil {
		taken := s.settle(work.forward, s.targetGroups.commit(ctx, offsetsOf(work.forward)), time.Now())
		taken = append(taken, s.settle(work.backward, s.sourceGroups.commit(ctx, offsetsOf(work.backward)), time.Now())...)
		err = s.append(ctx, taken)
	}
	return errors.Join(err, s.removeDeleted(ctx))
}

// lineUp puts groups that have been looked at in line again.
func (s *Syncer) lineUp(chosen []*group) {
	now := time.Now()
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, g := range chosen {
		if s.groups[g.name] == g {
			s.looks.add(g, g.hot(now))
		}
	}
}

func names(groups []*group) []string {
	all := make([]string, len(groups))
	for i, g := range groups {
		all[i] = g.name
	}
	return all
}
