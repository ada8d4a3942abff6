package mirror

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"

	"kmirror/internal/kafka"
	"kmirror/topology"
)

// configsEvery is how often topic configs of both sides are compared.
const configsEvery = 4 * time.Second

// topicSync keeps the topics of a flow's target in step with their sources:
// created with as many partitions and the configs that were set on the source,
// extended when the source grows, configs repaired when they drift. It never
// deletes a topic nor takes partitions away. Only the leader runs it.
type topicSync struct {
	flow           func() *topology.Flow // as mirror.yaml has it now
	source, target *kafka.Cluster
	discovery      *discovery
	incidents      Journal
	log            *slog.Logger

	mu       sync.Mutex        // guards problems
	problems map[string]string // by source topic: what could not be done
}

func newTopicSync(f *flow) *topicSync {
	return &topicSync{
		flow: f.cfg, source: f.source, target: f.target, discovery: f.discovery, incidents: f.incidents, log: f.log, problems: map[string]string{},
	}
}

// Run keeps step until ctx ends.
func (s *topicSync) Run(ctx context.Context) {
	changed, stop := s.discovery.watch()
	defer stop()
	var compared time.Time
	for {
		if w := s.discovery.current.Load(); w != nil {
			s.topics(ctx, w)
			if s.flow().Configs.Sync && time.Since(compared) >= configsEvery {
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
			}
		default: // perhaps by other hands
			s.note(ctx, pair, stepCreate, nil)
			s.note(ctx, pair, stepExtend, nil)
		}
	}
	if len(missing) > 0 && s.create(ctx, w, missing) {
		acted = true
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
)

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

// drift is what must change on the target: set what the source has set and the
// target has otherwise, remove what only the target has.
func (s *topicSync) drift(source, target map[string]kafka.ConfigEntry) (set map[string]string, remove []string) {
	set = s.wanted(source)
	for name, c := range target {
		if !isTopicOverride(c) || !s.flow().CopiesConfig(name) {
			continue
		}
		if want, ok := set[name]; !ok {
			remove = append(remove, name)
		} else if want == c.Value {
			delete(set, name)
		}
	}
	slices.Sort(remove)
	return set, remove
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
// where the target refuses some.
func (s *topicSync) repair(ctx context.Context, pair *topicPair, source, target map[string]kafka.ConfigEntry) {
	set, remove := s.drift(source, target)
	if len(set) == 0 && len(remove) == 0 {
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
