package mirror

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"

	"kmirror/checkpoint"
	"kmirror/internal/kafka"
	"kmirror/topology"
)

const (
	// configsEvery is how often topic configs of both sides are compared.
	configsEvery = 4 * time.Second
	// deleteAfter is how long a source topic must have been gone before its copy
	// is deleted, where that is asked for: metadata may flap.
	deleteAfter = 30 * time.Second
)

// topicSync keeps the topics of a flow's target in step with their sources:
// created with as many partitions and the configs that were set on the source,
// extended when the source grows, configs repaired when they drift. It never
// takes partitions away, and deletes a topic only where the policy topic_deleted
// says so. Only the leader runs it.
type topicSync struct {
	flow           func() *topology.Flow // as mirror.yaml has it now
	source, target *kafka.Cluster
	discovery      *discovery
	incidents      Journal
	log            *slog.Logger
	ready          func() bool                                                             // pairs can be asked
	pairs          func(ctx context.Context, topic string) ([]checkpoint.TopicPair, error) // which topics were mirrored into which
	accepted       func(id partitionID, kind string) bool

	present map[string]*topicPair // by source name: as they were seen last, with a target
	gone    map[string]*absence   // by source name: those that are not there any more
	settled map[string]string     // by source name: the configs wanted when both sides agreed last

	mu       sync.Mutex        // guards problems
	problems map[string]string // by source topic: what could not be done
}

// absence is a source topic that was there.
type absence struct {
	pair  *topicPair
	since time.Time
	told  bool
}

func newTopicSync(f *flow) *topicSync {
	return &topicSync{
		flow: f.cfg, source: f.source, target: f.target, discovery: f.discovery, incidents: f.incidents, log: f.log,
		ready: func() bool {
			select {
			case <-f.prepared:
				return true
			default:
				return false
			}
		},
		pairs: func(ctx context.Context, topic string) ([]checkpoint.TopicPair, error) {
			loaded, err := f.loader.get(ctx, pairKey(checkpoint.Key{Flow: f.cfg().Name, Topic: topic}))
			return loaded.Pairs, err
		},
		accepted: f.orders.accepts,
		present:  map[string]*topicPair{}, gone: map[string]*absence{}, settled: map[string]string{}, problems: map[string]string{},
	}
}

// Run keeps step until ctx ends.
func (s *topicSync) Run(ctx context.Context) {
	changed, stop := s.discovery.watch()
	defer stop()
	var compared time.Time
	for {
		if w := s.discovery.current.Load(); w != nil && s.ready() {
			s.topics(ctx, w)
			s.missing(ctx, w, time.Now())
			if s.flow().SyncsConfigs() && time.Since(compared) >= configsEvery {
				compared = time.Now()
				s.configs(ctx, w)
			}
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return
		}
	}
}

// topics creates and extends what the target lacks.
func (s *topicSync) topics(ctx context.Context, w *world) {
	var missing []*topicPair
	acted := false // what failed is tried again after the next look, and asks for none
	for _, pair := range w.topics {
		switch {
		case pair.problem != "":
		case pair.target == nil:
			missing = append(missing, pair)
		case len(pair.target.Partitions) < len(pair.source.Partitions):
			err := s.target.CreatePartitions(ctx, pair.targetName, int32(len(pair.source.Partitions)))
			if s.note(ctx, pair, stepExtend, err) {
				acted = true
				s.log.Info("target topic extended", slog.String("topic", pair.targetName), slog.Int("partitions", len(pair.source.Partitions)))
			} else if ctx.Err() == nil {
				in := aboutTopic(s.flow().Name, pair.source.Name, KindTargetPartitionMissing,
					fmt.Sprintf("target topic %s has %d partitions, its source has %d, and none can be added: %v", pair.targetName, len(pair.target.Partitions), len(pair.source.Partitions), err),
					"what the target has no partition for waits; the rest flows. Add the partitions, or grant ALTER on the topic")
				in.Count = int64(len(pair.source.Partitions) - len(pair.target.Partitions))
				s.incidents.Record(in)
			}
		default: // perhaps by other hands
			s.note(ctx, pair, stepCreate, nil)
			s.note(ctx, pair, stepExtend, nil)
			s.note(ctx, pair, stepDeleted, nil)
		}
	}
	if len(missing) > 0 {
		if missing = s.wantedAnew(ctx, missing); s.create(ctx, w, missing) {
			acted = true
		}
	}
	if acted {
		s.discovery.refresh()
	}
}

// The steps that can fail, as the status names them.
const (
	stepCreate  = "create the target topic"
	stepExtend  = "add partitions to the target topic"
	stepConfigs = "set configs of the target topic"
	stepDeleted = "wait: the target topic was deleted,"
	stepPairs   = "find out whether this target topic was ever mirrored into:"
)

// wantedAnew leaves out the topics that were deleted at the target and, by
// policy, are not made anew without an operator's word.
func (s *topicSync) wantedAnew(ctx context.Context, missing []*topicPair) []*topicPair {
	var mu sync.Mutex
	var wanted []*topicPair
	var asking sync.WaitGroup
	for _, pair := range missing {
		if s.flow().PoliciesFor(pair.source.Name).TargetDeleted == topology.TargetGoneRecreate {
			s.note(ctx, pair, stepDeleted, nil)
			wanted = append(wanted, pair)
		}
	}
	for _, pair := range missing {
		if s.flow().PoliciesFor(pair.source.Name).TargetDeleted == topology.TargetGoneRecreate {
			continue
		}
		asking.Go(func() { // together, so that they share a read
			known, err := s.pairs(ctx, pair.source.Name)
			if !s.note(ctx, pair, stepPairs, err) {
				return
			}
			was := slices.ContainsFunc(known, func(p checkpoint.TopicPair) bool { return p.TargetTopic == pair.targetName })
			if was && !s.acceptedTopic(pair, KindTargetDeleted) {
				in := aboutTopic(s.flow().Name, pair.source.Name, KindTargetDeleted, fmt.Sprintf("target topic %s was deleted", pair.targetName),
					fmt.Sprintf("stopped, by policy; to have it made anew and filled from the source's start: kmirror resume '%s' %s --accept %s", s.flow().Name, pair.source.Name, KindTargetDeleted))
				if s.note(ctx, pair, stepDeleted, errors.New(in.Action)) || ctx.Err() != nil {
					return
				}
				s.incidents.Record(in)
				return
			}
			s.note(ctx, pair, stepDeleted, nil)
			mu.Lock()
			wanted = append(wanted, pair)
			mu.Unlock()
		})
	}
	asking.Wait()
	return wanted
}

// acceptedTopic says whether the operator accepted a kind of incident for some
// partition of a topic. The tenures use that up.
func (s *topicSync) acceptedTopic(pair *topicPair, kind string) bool {
	for n := range pair.source.Partitions {
		if s.accepted(partitionID{s.flow().Name, pair.source.Name, int32(n)}, kind) {
			return true
		}
	}
	return false
}

// create makes topics and says whether any came about.
func (s *topicSync) create(ctx context.Context, w *world, missing []*topicPair) (created bool) {
	names := make([]string, 0, len(missing))
	for _, pair := range missing {
		names = append(names, pair.source.Name)
	}
	configs, err := s.source.TopicConfigs(ctx, names)
	if err != nil { // without DESCRIBE_CONFIGS on the source, topics are made with the target's defaults
		s.log.Warn("read the source's topic configs", slog.Any("error", err))
	}
	for _, pair := range missing {
		err := s.target.CreateTopic(ctx, pair.targetName, int32(len(pair.source.Partitions)), s.replication(pair, w.brokers), s.wanted(configs[pair.source.Name]))
		if e := (*kerr.Error)(nil); errors.As(err, &e) && (e == kerr.InvalidConfig || e == kerr.PolicyViolation) {
			// What the target does not take is reported when configs are compared.
			err = s.target.CreateTopic(ctx, pair.targetName, int32(len(pair.source.Partitions)), s.replication(pair, w.brokers), nil)
		}
		if errors.Is(err, kerr.TopicAlreadyExists) {
			s.note(ctx, pair, stepCreate, nil)
			continue
		}
		if s.note(ctx, pair, stepCreate, err) {
			created = true
			s.log.Info("target topic created", slog.String("topic", pair.targetName), slog.Int("partitions", len(pair.source.Partitions)))
		}
	}
	return created
}

// replication is the flow's replication factor, or the source topic's as far as
// the target has brokers.
func (s *topicSync) replication(pair *topicPair, brokers int) int16 {
	if s.flow().ReplicationFactor != 0 {
		return s.flow().ReplicationFactor
	}
	factor := 1
	for _, p := range pair.source.Partitions {
		factor = max(factor, len(p.Replicas))
	}
	return int16(min(factor, max(1, brokers)))
}

// wanted picks the configs that were set on the source topic and are copied.
func (s *topicSync) wanted(source map[string]kafka.ConfigEntry) map[string]string {
	out := map[string]string{}
	for name, c := range source {
		if isTopicOverride(c) && s.flow().CopiesConfig(name) {
			out[name] = c.Value
		}
	}
	return out
}

// dynamicTopicConfig is the protocol's source of a config that was set on the topic itself.
const dynamicTopicConfig = 1

func isTopicOverride(c kafka.ConfigEntry) bool {
	return c.Source == dynamicTopicConfig && !c.ReadOnly && !c.Sensitive
}

// maxMessageBytes is the topic config that record_too_large: raise changes.
const maxMessageBytes = "max.message.bytes"

// drift is what must change on the target: set what the source has set and the
// target has otherwise, remove what only the target has. A limit that was raised
// for a record (raise) stays where it is above the source's.
func (s *topicSync) drift(source, target map[string]kafka.ConfigEntry, raise bool) (set map[string]string, remove []string) {
	set = s.wanted(source)
	for name, c := range target {
		if !isTopicOverride(c) || !s.flow().CopiesConfig(name) {
			continue
		}
		want, ok := set[name]
		switch {
		case raise && name == maxMessageBytes && (!ok || above(c.Value, want)):
			delete(set, name)
		case !ok:
			remove = append(remove, name)
		case want == c.Value:
			delete(set, name)
		}
	}
	slices.Sort(remove)
	return set, remove
}

// above compares two numbers as configs hold them.
func above(a, b string) bool {
	x, errX := strconv.ParseInt(a, 10, 64)
	y, errY := strconv.ParseInt(b, 10, 64)
	return errX == nil && errY == nil && x > y
}

func (s *topicSync) configs(ctx context.Context, w *world) {
	var sources, targets []string
	var pairs []*topicPair
	for _, pair := range w.topics {
		if pair.problem == "" && pair.target != nil {
			pairs = append(pairs, pair)
			sources, targets = append(sources, pair.source.Name), append(targets, pair.targetName)
		}
	}
	if len(pairs) == 0 {
		return
	}
	from, err := s.source.TopicConfigs(ctx, sources)
	if err == nil {
		var to map[string]map[string]kafka.ConfigEntry
		if to, err = s.target.TopicConfigs(ctx, targets); err == nil {
			for _, pair := range pairs {
				f, okF := from[pair.source.Name]
				t, okT := to[pair.targetName]
				if okF && okT {
					s.repair(ctx, pair, f, t)
				}
			}
			return
		}
	}
	if ctx.Err() == nil {
		s.log.Warn("compare topic configs", slog.Any("error", err))
	}
}

// repair brings one target topic's configs in step: all at once, or one by one
// where the target refuses some. What differs though the source's have not
// changed since both agreed was changed by other hands: that is an incident.
func (s *topicSync) repair(ctx context.Context, pair *topicPair, source, target map[string]kafka.ConfigEntry) {
	policies := s.flow().PoliciesFor(pair.source.Name)
	set, remove := s.drift(source, target, policies.RecordTooLarge == topology.TooLargeRaise)
	wanted := fmt.Sprint(s.wanted(source)) // maps are printed in the order of their keys
	if len(set) == 0 && len(remove) == 0 {
		s.settled[pair.source.Name] = wanted
		s.note(ctx, pair, stepConfigs, nil)
		return
	}
	report := policies.ConfigDrift == topology.DriftReport
	if report || s.settled[pair.source.Name] == wanted {
		action := "set as at the source"
		if report {
			action = "left as they are, by policy"
		}
		in := aboutTopic(s.flow().Name, pair.source.Name, KindConfigDrift, fmt.Sprintf("configs of target topic %s are not the source's: %s", pair.targetName, differences(set, remove, target)), action)
		in.Count = int64(len(set) + len(remove))
		s.incidents.Record(in)
	}
	if report {
		s.note(ctx, pair, stepConfigs, nil)
		return
	}
	err := s.target.AlterTopicConfigs(ctx, pair.targetName, set, remove)
	if err != nil && len(set)+len(remove) > 1 && ctx.Err() == nil {
		var refused []string
		for _, name := range slices.Sorted(maps.Keys(set)) {
			if one := s.target.AlterTopicConfigs(ctx, pair.targetName, map[string]string{name: set[name]}, nil); one != nil {
				refused = append(refused, fmt.Sprintf("%s=%s: %v", name, set[name], one))
			}
		}
		for _, name := range remove {
			if one := s.target.AlterTopicConfigs(ctx, pair.targetName, nil, []string{name}); one != nil {
				refused = append(refused, fmt.Sprintf("%s (remove): %v", name, one))
			}
		}
		err = nil
		if len(refused) > 0 {
			err = errors.New(strings.Join(refused, "; "))
		}
	}
	if s.note(ctx, pair, stepConfigs, err) {
		s.log.Info("target topic configs in step", slog.String("topic", pair.targetName), slog.Any("set", set), slog.Any("removed", remove))
	}
}

// differences names each config with both sides.
func differences(set map[string]string, remove []string, target map[string]kafka.ConfigEntry) string {
	var out []string
	for _, name := range slices.Sorted(maps.Keys(set)) {
		out = append(out, fmt.Sprintf("%s is %q, at the source %q", name, target[name].Value, set[name]))
	}
	for _, name := range remove {
		out = append(out, fmt.Sprintf("%s is %q, at the source not set", name, target[name].Value))
	}
	return strings.Join(out, "; ")
}

// note keeps the outcome of one step for the status, logs a new problem once,
// and says whether the step succeeded.
func (s *topicSync) note(ctx context.Context, pair *topicPair, step string, err error) bool {
	if ctx.Err() != nil {
		return false
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if err == nil {
		if strings.HasPrefix(s.problems[pair.source.Name], step) {
			delete(s.problems, pair.source.Name)
		}
		return true
	}
	text := fmt.Sprintf("%s %s: %v", step, pair.targetName, err)
	if s.problems[pair.source.Name] != text {
		s.problems[pair.source.Name] = text
		s.log.Warn("topic sync", slog.String("topic", pair.source.Name), slog.String("problem", text))
	}
	return false
}

// problem is what could not be done for a source topic, "" if nothing.
func (s *topicSync) problem(topic string) string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.problems[topic]
}
