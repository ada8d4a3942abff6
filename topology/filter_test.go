package topology_test

import (
	"testing"

	"kmirror/topology"
)

type header struct {
	name  string
	value []byte
}

func walk(headers []header) func(func(string, []byte) bool) {
	return func(yield func(string, []byte) bool) {
		for _, h := range headers {
			if !yield(h.name, h.value) {
				return
			}
		}
	}
}

func TestFiltersDropWhatMatchesAsAWhole(t *testing.T) {
	flow := mustParse(t, `
  - from: east
    to: west
    filters:
      - {topics: [keys], drop: {key: "test-.*"}}
      - {topics: [both], drop: {key: a, header: {tenant: "x|y", kind: ".*"}}}
      - {topics: ["both|any"], drop: {header: {gone: "yes"}}}
`).Flows[0]
	if flow.FilterFor("other") != nil {
		t.Error("a topic without filters has one")
	}
	both := []header{{"kind", []byte("")}, {"tenant", []byte("z")}, {"tenant", []byte("y")}}
	for _, c := range []struct {
		topic   string
		key     []byte
		headers []header
		want    bool
	}{
		{"keys", []byte("test-1"), nil, true},
		{"keys", []byte("test-1\n\xff\x00"), nil, true}, // keys are bytes
		{"keys", []byte("a test-1"), nil, false},
		{"keys", []byte(""), nil, false},
		{"keys", nil, nil, false},
		{"both", []byte("a"), both, true},
		{"both", []byte("b"), both, false},
		{"both", []byte("a"), both[:2], false},
		{"both", []byte("a"), both[1:], false}, // no kind
		{"both", []byte("a"), nil, false},
		{"both", nil, []header{{"gone", []byte("yes")}}, true}, // the third says so
		{"any", nil, []header{{"gone", nil}, {"gone", []byte("yes!")}}, false},
		{"any", []byte("a"), both, false},
	} {
		if got := flow.FilterFor(c.topic).Drops(c.key, walk(c.headers)); got != c.want {
			t.Errorf("%s: key %q, headers %q: dropped %v, want %v", c.topic, c.key, c.headers, got, c.want)
		}
	}
	if flow.FilterFor("any").Drops([]byte("x"), nil) {
		t.Error("a record without headers is dropped for one")
	}
}

func TestAFilterAsksWithoutAllocating(t *testing.T) {
	flow := mustFlow(t, "east", "west", func(f *topology.Flow) {
		f.Filters = []topology.Filter{{Topics: []string{".*"}, Key: "test-.*", Headers: map[string]string{"a": "x.*"}}}
	})
	filter, headers, key := flow.FilterFor("orders"), walk([]header{{"b", []byte("x")}, {"a", []byte("y")}}), []byte("test-7")
	if n := testing.AllocsPerRun(100, func() { filter.Drops(key, headers) }); n > 0 && !raceDetector {
		t.Errorf("%v allocations for one record", n)
	}
}
