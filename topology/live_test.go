package topology_test

import (
	"errors"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"kmirror/topology"
)

func parseText(t *testing.T, text string) *topology.Config {
	t.Helper()
	config, err := topology.Parse("m.yaml", []byte("instance: one\n"+text), func(string) (string, bool) { return "hunter2", true })
	if err != nil {
		t.Fatal(err)
	}
	return config
}

// What a running process takes of a newer file is all but what needs a restart.
func TestLiveIsTheNewerFileWithoutWhatNeedsARestart(t *testing.T) {
	older := parseText(t, `
buffer: 64MiB
clusters: {east: {bootstrap: [e:9092]}, west: {bootstrap: [w:9092]}, hq: {bootstrap: [h:9092]}, edge.one: {bootstrap: [o:9092]}}
flows:
  - {from: east, to: west, topics: ["${SECRET}"]}
  - {from: east, to: hq, topics: [a]}
  - {from: hq, to: west, topics: [b]}
  - {from: edge.one, to: west, separator: "-", topics: [c]}
`)
	newer := parseText(t, `
buffer: 128MiB
log: {level: debug}
clusters: {east: {bootstrap: [e:9092]}, west: {bootstrap: [w:9092]}, hq: {bootstrap: [h:9093]}, edge.one: {bootstrap: [o:9093]}, new: {bootstrap: [n:9092]}}
flows:
  - {from: east, to: new}
  - {from: hq, to: east, topics: [x]}
  - {from: west, to: east, topics: [y]}
  - {from: east, to: hq, topics: [a, a2]}
  - {from: edge.one, to: west, separator: "-", topics: [c, c2]}
  - {from: east, to: west, topics: ["${SECRET}", z]}
`)
	live, err := older.Live(newer)
	if err != nil {
		t.Fatal(err)
	}
	want := []string{
		"log.level: info -> debug",
		"flows[west->east]: {topics: [y]} (new)",
		"flows[east->west].topics: (hidden) -> (hidden)",
		"flows[hq->west]: {topics: [b]} (gone)",
	}
	if diff := cmp.Diff(want, lines(topology.Diff(older, live))); diff != "" {
		t.Errorf("what is taken (-want +got):\n%s", diff)
	}
	var waiting []string
	for _, change := range topology.Diff(older, newer) {
		if !change.Live {
			waiting = append(waiting, change.Path)
		}
	}
	restart := []string{"buffer", "clusters[edge.one].bootstrap", "clusters.hq.bootstrap", "clusters.new", "flows[east->new]", "flows[hq->east]", "flows[east->hq].topics", "flows[edge.one->west].topics"}
	if diff := cmp.Diff(restart, waiting); diff != "" {
		t.Errorf("what needs a restart (-want +got):\n%s", diff)
	}
	if !live.Flow("east->west").Selects("z") || older.Flow("east->west").Selects("z") {
		t.Error("the flow of the one file has become that of the other")
	}
	if again, err := older.Live(older); err != nil || len(topology.Diff(older, again)) > 0 {
		t.Errorf("the same file changes %v, %v", topology.Diff(older, again), err)
	}
}

// A mixture that proves nothing is not taken.
func TestAMixtureIsProvedAgain(t *testing.T) {
	older := parseText(t, `
clusters: {east: {bootstrap: [e:9092]}, west: {bootstrap: [w:9092]}, hq: {bootstrap: [h:9092]}}
flows:
  - {from: hq, to: west, naming: identity, topics: [a]}
  - {from: east, to: west, naming: identity, topics: [b], rename: [{from: b, to: c}]}
`)
	newer := parseText(t, `
clusters: {east: {bootstrap: [e:9092]}, west: {bootstrap: [w:9092]}, hq: {bootstrap: [h:9093]}}
flows:
  - {from: hq, to: west, naming: identity, topics: [b]}
  - {from: east, to: west, naming: identity, topics: [b], rename: [{from: b, to: a}]}
`)
	_, err := older.Live(newer) // hq->west still writes a, until the restart
	var faults topology.Faults
	if !errors.As(err, &faults) || len(faults) != 1 || !strings.Contains(faults[0].Problem, `for example "a"`) {
		t.Errorf("got %v, want a fault that names the topic", err)
	}
}
