package mirror

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"kmirror/checkpoint"
	"kmirror/internal/kafka"
	"kmirror/topology"
)

func flowOf(t *testing.T, edit func(*topology.Flow)) *topology.Flow {
	t.Helper()
	f, err := topology.NewFlow("east", "west", edit)
	if err != nil {
		t.Fatal(err)
	}
	return f
}

func metadata(id string, topics ...*kafka.Topic) *kafka.Metadata {
	m := &kafka.Metadata{ClusterID: id, Brokers: map[int32]string{1: "127.0.0.1:1"}, Topics: map[string]*kafka.Topic{}}
	for _, topic := range topics {
		m.Topics[topic.Name] = topic
	}
	return m
}

func TestLookPairsTopics(t *testing.T) {
	long := strings.Repeat("x", 246)
	part := func(leader int32) []kafka.Partition { return []kafka.Partition{{Leader: leader}} }
	w := look(flowOf(t, nil),
		metadata("e", &kafka.Topic{Name: "orders", Partitions: part(1)}, &kafka.Topic{Name: "__consumer_offsets", Internal: true, Partitions: part(1)},
			&kafka.Topic{Name: "west.back", Partitions: part(1)}, &kafka.Topic{Name: long, Partitions: part(1)}, &kafka.Topic{Name: "new", Partitions: part(-1)}),
		metadata("w", &kafka.Topic{Name: "east.orders", Partitions: part(1)}, &kafka.Topic{Name: "east.new", Partitions: part(1)}))
	got := map[string]string{}
	for _, pair := range w.topics {
		_, _, err := pair.partition(0)
		got[pair.source.Name] = pair.targetName
		if err != nil {
			got[pair.source.Name] += ": " + err.Error()
		}
	}
	for name, text := range got { // the long text is the user's; its gist is enough here
		if i := strings.Index(text, " has 251 characters"); i > 0 {
			got[name] = "too long"
		}
	}
	want := map[string]string{"orders": "east.orders", long: "too long", "new": "east.new: source partition new/0 has no leader"}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
}

func TestConfigDrift(t *testing.T) {
	flow := flowOf(t, nil)
	s := &topicSync{flow: func() *topology.Flow { return flow }}
	set := func(v string) kafka.ConfigEntry { return kafka.ConfigEntry{Value: v, Source: dynamicTopicConfig} }
	standard := func(v string) kafka.ConfigEntry { return kafka.ConfigEntry{Value: v, Source: 5, Default: true} }
	change, remove := s.drift(
		map[string]kafka.ConfigEntry{
			"retention.ms": set("1000"), "cleanup.policy": set("compact"), "segment.bytes": standard("9"),
			"min.insync.replicas": set("2"), "message.timestamp.type": set("LogAppendTime"),
		},
		map[string]kafka.ConfigEntry{
			"retention.ms": set("5"), "cleanup.policy": set("compact"), "segment.bytes": set("7"),
			"min.insync.replicas": set("1"), "max.message.bytes": standard("1"),
		}, false)
	if diff := cmp.Diff(map[string]string{"retention.ms": "1000"}, change); diff != "" {
		t.Error(diff)
	}
	if diff := cmp.Diff([]string{"segment.bytes"}, remove); diff != "" {
		t.Error(diff)
	}
}

func TestIncarnation(t *testing.T) {
	pair := &topicPair{source: &kafka.Topic{Name: "orders", ID: [16]byte{1}}, targetName: "east.orders", target: &kafka.Topic{ID: [16]byte{2}}}
	for name, tt := range map[string]struct {
		known []checkpoint.TopicPair
		want  acquaintance
	}{
		"never seen":                 {nil, newPair},
		"the same":                   {[]checkpoint.TopicPair{{SourceID: [16]byte{9}, TargetID: [16]byte{9}, TimeMillis: 1}, {SourceID: [16]byte{1}, TargetID: [16]byte{2}, TimeMillis: 2}}, sameTopics},
		"by a clock that is slow":    {[]checkpoint.TopicPair{{SourceID: [16]byte{9}, TargetID: [16]byte{9}, TimeMillis: 2}, {SourceID: [16]byte{1}, TargetID: [16]byte{2}, TimeMillis: 1}}, sameTopics},
		"target created anew":        {[]checkpoint.TopicPair{{SourceID: [16]byte{1}, TargetID: [16]byte{3}}}, newTarget},
		"source created anew":        {[]checkpoint.TopicPair{{SourceID: [16]byte{4}, TargetID: [16]byte{2}}}, newSource},
		"both created anew":          {[]checkpoint.TopicPair{{SourceID: [16]byte{4}, TargetID: [16]byte{3}}}, newTarget},
		"a source that has no ids":   {[]checkpoint.TopicPair{{TargetID: [16]byte{2}}}, sameTopics},
		"another name at the target": {[]checkpoint.TopicPair{{SourceID: [16]byte{1}, TargetTopic: "east.former", TargetID: [16]byte{3}}}, newPair},
		"another name, without ids":  {[]checkpoint.TopicPair{{TargetTopic: "east.former"}}, newPair},
	} {
		t.Run(name, func(t *testing.T) {
			for i := range tt.known {
				if tt.known[i].TargetTopic == "" {
					tt.known[i].TargetTopic = pair.targetName
				}
			}
			got, detail := incarnation(pair, checkpoint.Loaded{Ledger: &checkpoint.Ledger{}, Runs: &checkpoint.Runs{}, Pairs: tt.known})
			if got != tt.want {
				t.Errorf("got %v, %s", got, detail)
			}
			if got == newSource && !strings.Contains(detail, "delete the target topic") {
				t.Errorf("it does not say what to do: %v", detail)
			}
		})
	}
}
