package checkpoint_test

import (
	"slices"
	"testing"

	"kmirror/checkpoint"
	"kmirror/internal/wire"
	"kmirror/topology"
)

// A circle that mirror.yaml does not show is found by the clusters' ids, whatever
// the other deployment's flow is called.
func TestUnlistedCircles(t *testing.T) {
	logs := newMemoryLogs()
	for i, p := range []checkpoint.Provenance{
		{Flow: "b->a", Source: "W", KeepsNames: true},
		{Flow: "east->west", Source: "W", KeepsNames: true}, // it calls our west east
		{Flow: "b->a", Source: "W", KeepsNames: true},
		{Flow: "renames->all", Source: "W"},
		{Flow: "hq->east", Source: "H", KeepsNames: true},
		{Flow: "old->east", KeepsNames: true},
	} {
		p.ProducerID = int64(i)
		if _, err := logs.Append(t.Context(), checkpoint.MapTopic, p.MapPartition(), []wire.Record{checkpoint.EncodeProvenance(p)}); err != nil {
			t.Fatal(err)
		}
	}
	producers := checkpoint.NewProvenances(logs)
	if err := producers.Update(t.Context()); err != nil {
		t.Fatal(err)
	}
	identity := func(f *topology.Flow) { f.Naming = topology.Identity }
	for _, test := range []struct {
		name  string
		more  func(*topology.Flow)
		to    string // its id
		reads map[string]string
		want  []string
	}{
		{"forgotten", identity, "W", map[string]string{"east->west": "east"}, []string{"b->a", "east->west"}},
		{"another target", identity, "X", map[string]string{"east->west": "east"}, nil},
		{"a target without an id", identity, "", map[string]string{"east->west": "east"}, nil},
		{"renamed topics", func(*topology.Flow) {}, "W", map[string]string{"east->west": "east"}, nil},
		{"a flow of the file, with other topics", identity, "W", map[string]string{"east->west": "east", "b->a": "west"}, []string{"east->west"}},
		{"a circle that is broken", func(f *topology.Flow) { f.Naming, f.Drops = topology.Identity, []string{"west->east"} }, "W", map[string]string{}, nil},
	} {
		flow, err := topology.NewFlow("east", "west", test.more)
		if err != nil {
			t.Fatal(err)
		}
		if got := producers.Unlisted(flow, test.to, func(name string) string { return test.reads[name] }); !slices.Equal(got, test.want) {
			t.Errorf("%s: got %v, want %v", test.name, got, test.want)
		}
	}
}
