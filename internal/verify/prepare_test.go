package verify_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"

	"kmirror/checkpoint"
	"kmirror/internal/kafka"
	"kmirror/internal/verify"
	"kmirror/internal/wire"
	"kmirror/topology"
)

// site is a cluster in memory: logs of partition 0, and records of its offset
// map's topic.
type site struct {
	id     string
	topics map[string]*kafka.Topic
	logs   map[string]*fakeLog
	known  [checkpoint.MapPartitions][]wire.Record

	mu    sync.Mutex     // guards the field below
	fails map[string]int // topics that so many fetches will not be answered of
}

func newSite(id string) *site {
	s := &site{id: id, topics: map[string]*kafka.Topic{}, logs: map[string]*fakeLog{}}
	s.topic(checkpoint.MapTopic, [16]byte{1}, checkpoint.MapPartitions)
	return s
}

func (s *site) topic(name string, id [16]byte, partitions int) {
	s.topics[name] = &kafka.Topic{Name: name, ID: id, Partitions: make([]kafka.Partition, partitions)}
}

func (s *site) say(at int32, records ...wire.Record) { s.known[at] = append(s.known[at], records...) }

func (s *site) declare(p checkpoint.Provenance) {
	s.say(p.MapPartition(), checkpoint.EncodeProvenance(p))
}

func (s *site) Metadata(context.Context, ...string) (*kafka.Metadata, error) {
	return &kafka.Metadata{ClusterID: s.id, Topics: s.topics}, nil
}

func (s *site) TopicConfigs(context.Context, []string) (map[string]map[string]kafka.ConfigEntry, error) {
	return nil, nil
}

func (s *site) ListOffset(ctx context.Context, topic string, partition int32, timestamp int64) (int64, error) {
	if topic == checkpoint.MapTopic {
		if timestamp == kafka.Earliest {
			return 0, nil
		}
		return int64(len(s.known[partition])), nil
	}
	if l := s.logs[topic]; l != nil {
		return l.ListOffset(ctx, topic, partition, timestamp)
	}
	return 0, kerr.UnknownTopicOrPartition
}

func (s *site) ListOffsets(ctx context.Context, partitions map[string][]int32, timestamp int64) (map[string]map[int32]int64, error) {
	found := map[string]map[int32]int64{}
	for topic, ids := range partitions {
		found[topic] = map[int32]int64{}
		for _, id := range ids {
			offset, err := s.ListOffset(ctx, topic, id, timestamp)
			if err != nil {
				return nil, err
			}
			found[topic][id] = offset
		}
	}
	return found, nil
}

func (s *site) Read(_ context.Context, _ string, partition int32, from int64, fn func(wire.Record) error) (int64, error) {
	for _, rec := range s.known[partition][from:] {
		if err := fn(rec); err != nil {
			return from, err
		}
		from++
	}
	return from, nil
}

func (s *site) Fetch(ctx context.Context, topic string, partition int32, offset int64, most int32, committed bool, wait time.Duration) (kafka.FetchResult, error) {
	s.mu.Lock()
	failing := s.fails[topic] > 0
	if failing {
		s.fails[topic]--
	}
	s.mu.Unlock()
	if failing {
		return kafka.FetchResult{}, errNoLeader
	}
	return s.logs[topic].Fetch(ctx, topic, partition, offset, most, committed, wait)
}

// put appends a record.
func (l *fakeLog) put(t check, value string, o wire.BatchOptions) {
	b, err := wire.EncodeBatch(nil, []wire.Record{{Offset: l.end, Value: []byte(value)}}, o)
	if err != nil {
		t.Fatal(err)
	}
	l.batches, l.end = append(l.batches, b), l.end+1
}

// circle is a configuration of flows with identity naming, such as "a>b".
func circle(t *testing.T, arrows ...string) *topology.Config {
	t.Helper()
	text := "instance: one\nclusters:\n  a: {bootstrap: [a:9092]}\n  b: {bootstrap: [b:9092]}\n  c: {bootstrap: [c:9092]}\nflows:\n"
	for _, arrow := range arrows {
		from, to, _ := strings.Cut(arrow, ">")
		text += fmt.Sprintf("  - {from: %s, to: %s, naming: identity}\n", from, to)
	}
	config, err := topology.Parse("m.yaml", []byte(text), func(string) (string, bool) { return "", false })
	if err != nil {
		t.Fatal(err)
	}
	return config
}

// What the map passes over is left out only where the mirror leaves it out, too:
// a record that the mirror wants is missing.
func TestWhatTheMirrorWantsIsMissing(t *testing.T) {
	pair, mesh := []string{"a>b", "b>a"}, []string{"a>b", "b>a", "a>c", "c>a", "b>c", "c>b"}
	dead := errors.New("no answer in time")
	for _, test := range []struct {
		name   string
		flows  []string
		by     checkpoint.Provenance // of the record; no flow: nobody's
		topic  string
		dead   bool // cluster c does not answer
		left   bool // left out
		doubts string
	}{
		{name: "by a client", flows: pair},
		{name: "by the way back", flows: pair, by: checkpoint.Provenance{Flow: "b->a", Source: "B", KeepsNames: true}, left: true},
		{name: "by the way back, from the cluster that stood there before", flows: pair, by: checkpoint.Provenance{Flow: "b->a", Source: "B-lost", KeepsNames: true}},
		{name: "by another deployment's way back", flows: pair, by: checkpoint.Provenance{Flow: "x->y", Source: "B", KeepsNames: true}, left: true},
		{name: "by another deployment, from elsewhere", flows: pair, by: checkpoint.Provenance{Flow: "x->y", Source: "X", KeepsNames: true}},
		{name: "by the mesh", flows: mesh, by: checkpoint.Provenance{Flow: "c->a", Source: "C", KeepsNames: true}, left: true},
		{name: "by another deployment, from a cluster of the mesh", flows: mesh, by: checkpoint.Provenance{Flow: "x->y", Source: "C", KeepsNames: true}, left: true},
		{name: "by another deployment, from outside the mesh", flows: mesh, by: checkpoint.Provenance{Flow: "x->y", Source: "X", KeepsNames: true}},
		{name: "by another deployment, which cannot be told", flows: mesh, by: checkpoint.Provenance{Flow: "x->y", Source: "C", KeepsNames: true}, dead: true, doubts: "before c has been seen: no answer in time"},
		{name: "by another deployment, which the clusters compared tell", flows: mesh, by: checkpoint.Provenance{Flow: "x->y", Source: "B", KeepsNames: true}, dead: true, left: true},
		{name: "heartbeats", flows: pair, by: checkpoint.Provenance{Flow: "b->a", Source: "B", KeepsNames: true}, topic: "heartbeats"},
	} {
		t.Run(test.name, func(t *testing.T) {
			config := circle(t, test.flows...)
			flow := config.Flow("a->b")
			name := test.topic
			if name == "" {
				name = "orders"
			}
			source, target := newSite("A"), newSite("B")
			source.topic(name, [16]byte{2}, 1)
			target.topic(flow.TargetTopic(name), [16]byte{3}, 1)
			if test.by.Flow != "" {
				test.by.ProducerID = 77
				source.declare(test.by)
			}
			source.logs[name], target.logs[flow.TargetTopic(name)] = &fakeLog{few: 9}, &fakeLog{few: 9}
			for offset, producer := range []int64{-1, 77, -1} {
				o := wire.Plain(wire.CodecNone)
				if producer >= 0 {
					o.ProducerID, o.ProducerEpoch, o.BaseSequence = producer, 0, 0
				} else {
					target.logs[flow.TargetTopic(name)].put(t, fmt.Sprint(offset), o)
				}
				source.logs[name].put(t, fmt.Sprint(offset), o)
			}
			key := checkpoint.Key{Flow: flow.Name, Topic: name, TopicID: [16]byte{2}}
			target.say(key.MapPartition(), checkpoint.EncodeBlock(checkpoint.Block{
				Key: key, Open: true, TargetID: [16]byte{3}, Generation: 1, Through: 3, Runs: []checkpoint.Run{{Count: 1}, {Source: 2, Target: 1, Count: 1}},
			}))
			asked := 0
			others := func(_ context.Context, name string) (string, error) {
				if asked++; name != "c" || test.dead {
					return "", dead
				}
				return "C", nil
			}
			v, err := verify.Prepare(t.Context(), verify.Setting{Source: source, Target: target, Others: others, Config: config, Flow: flow}, verify.Selection{Partition: -1, Sample: verify.All()}, nil)
			if err != nil {
				t.Fatal(err)
			}
			jobs := v.Jobs()
			if len(jobs) != 1 {
				t.Fatalf("%d partitions are compared", len(jobs))
			}
			if err := verify.Run(t.Context(), verify.Options{Source: source, Target: target}, jobs, &verify.Meter{}); err != nil {
				t.Fatal(err)
			}
			tally, first := total(jobs[0])
			if test.left {
				if tally.LeftOut != 1 || first != nil {
					t.Errorf("%+v, %v: want it left out", tally, first)
				}
			} else if tally.LeftOut != 0 || first == nil || first.Kind != verify.Missing || first.SourceOffset != 1 || !strings.Contains(first.Detail, test.doubts) || test.doubts == "" && strings.Contains(first.Detail, "may be") {
				t.Errorf("%+v, %v: want it missing, and %q", tally, first, test.doubts)
			}
			if asked > 1 {
				t.Errorf("other clusters were asked %d times", asked)
			}
		})
	}
}
