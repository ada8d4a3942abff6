package topology_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"kmirror/topology"
)

// identityFile is a file with the clusters a to e and one line for each flow.
func identityFile(flows ...string) string {
	var b strings.Builder
	b.WriteString("instance: one\nclusters:\n")
	for _, name := range []string{"a", "b", "c", "d", "e"} {
		fmt.Fprintf(&b, "  %s: {bootstrap: [%s:9092]}\n", name, name)
	}
	b.WriteString("flows:\n")
	for _, flow := range flows {
		from, rest, _ := strings.Cut(flow, ">")
		to, extra, _ := strings.Cut(rest, " ")
		if !strings.Contains(extra, "naming:") {
			extra = "naming: identity" + map[bool]string{true: ", "}[extra != ""] + extra
		}
		fmt.Fprintf(&b, "  - {from: %s, to: %s, %s}\n", from, to, extra)
	}
	return b.String()
}

// What the graph makes of its flows, shape by shape.
func TestLoopsOfIdentityFlows(t *testing.T) {
	for _, test := range []struct {
		name  string
		flows []string
		want  []string // flow, rule, drops, whether it syncs configs and refills; or the fault
	}{
		{"one way", []string{"a>b"}, []string{"a->b none [] configs"}},
		{"a pair", []string{"a>b", "b>a"}, []string{"a->b target [b->a] configs refill", "b->a target [a->b] refill"}},
		{"the pair, listed otherwise", []string{"b>a", "a>b"}, []string{"b->a target [a->b] configs refill", "a->b target [b->a] refill"}},
		{"a chain", []string{"a>b", "b>a", "b>c", "c>b"}, []string{
			"a->b target [b->a] configs", "b->a target [a->b] refill", "b->c target [c->b] configs refill", "c->b target [b->c]",
		}},
		{"a star", []string{"b>a", "a>b", "a>c", "c>a", "d>a", "a>d"}, []string{
			"b->a target [a->b] configs", "a->b target [b->a] refill", "a->c target [c->a] configs refill", "c->a target [a->c]", "d->a target [a->d]", "a->d target [d->a] configs refill",
		}},
		{"a mesh", []string{"a>b", "b>a", "a>c", "c>a", "b>c", "c>b"}, []string{
			"a->b local [b->a c->a] configs", "b->a local [a->b c->b]", "a->c local [b->a c->a] configs", "c->a local [a->c b->c]", "b->c local [a->b c->b]", "c->b local [a->c b->c]",
		}},
		{"a pair that shares no topic", []string{"a>b topics: [x]", "b>a topics: [y]"}, []string{"a->b none [] configs", "b->a none [] configs"}},
		{"a pair that shares some", []string{"a>b topics: [x, y]", "b>a topics: [y, z]"}, []string{"a->b target [b->a] configs refill", "b->a target [a->b] refill"}},
		{"a pair and a prefixed flow on", []string{"a>b", "b>a", "b>c naming: prefixed"}, []string{"a->b target [b->a] configs refill", "b->a target [a->b] refill", "b->c none [] configs"}},
		{"a ring", []string{"a>b", "b>c", "c>a"}, []string{"closes a circle that cannot be broken: a->b, b->c, c->a"}},
		{"a ring of four, both ways", []string{"a>b", "b>a", "b>c", "c>b", "c>d", "d>c", "d>a", "a>d"}, []string{"closes a circle: "}},
		{"a mesh that lacks one", []string{"a>b", "b>a", "a>c", "c>a", "b>c"}, []string{"are not mirrored each into each other"}},
		{"a mesh with other topics", []string{"a>b", "b>a", "a>c", "c>a", "b>c topics: [x]", "c>b"}, []string{"same topics and exclude_topics"}},
		{"a pair with a rename", []string{"a>b rename: [{from: x, to: y}]", "b>a"}, []string{"may have no rename (a->b)"}},
		{"a stranger feeds a pair", []string{"a>b", "b>a", "c>b"}, []string{"writes the same topics of b"}},
		{"a star whose pairs differ", []string{"a>c topics: [x, y]", "c>a topics: [y]", "b>c topics: [x, y]", "c>b topics: [y]"}, []string{"give both flows of each pair the same topics"}},
		{"a prefix on the way round", []string{"a>b", "b>c naming: prefixed", "c>a"}, []string{`as "b.`}},
	} {
		t.Run(test.name, func(t *testing.T) {
			config, err := topology.Parse("m.yaml", []byte(identityFile(test.flows...)), noEnv)
			if err != nil {
				if !strings.Contains(err.Error(), test.want[0]) {
					t.Errorf("got\n%v\nwant %q", err, test.want[0])
				}
				return
			}
			var got []string
			for _, f := range config.Flows {
				line := fmt.Sprint(f.Name, " ", map[topology.LoopRule]string{topology.LoopNone: "none", topology.LoopTarget: "target", topology.LoopLocal: "local"}[f.Loop], " ", f.Drops)
				if f.SyncsConfigs() {
					line += " configs"
				}
				if f.Refill {
					line += " refill"
				}
				got = append(got, line)
			}
			if diff := cmp.Diff(test.want, got); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
		})
	}
}

// A file that is good carries each record to every cluster that its topic can
// reach, once; one that goes round or comes twice without a rule is faulted. The
// records are carried here by brute force.
func TestIdentityFlowsCarryEachRecordOnce(t *testing.T) {
	names := []string{"a", "b", "c", "d"}
	good, looped := 0, 0
	rapid.Check(t, func(t *rapid.T) {
		n := rapid.IntRange(2, 4).Draw(t, "clusters")
		var flows []string
		usual := rapid.SampledFrom([]string{"", "topics: [x]", "topics: [x, y]"}).Draw(t, "topics")
		for _, from := range names[:n] {
			for _, to := range names[:n] {
				if from == to || !rapid.Bool().Draw(t, from+to) && rapid.IntRange(0, 3).Draw(t, from+to+"?") > 0 {
					continue
				}
				topics := usual
				if rapid.IntRange(0, 9).Draw(t, from+to+" other") == 0 {
					topics = rapid.SampledFrom([]string{"topics: [x]", "topics: [y]", "topics: [x, y]"}).Draw(t, "other topics")
				}
				flows = append(flows, strings.TrimSpace(from+">"+to+" "+topics))
			}
		}
		if len(flows) == 0 {
			return
		}
		flows = rapid.Permutation(flows).Draw(t, "order")
		config, err := topology.Parse("m.yaml", []byte(identityFile(flows...)), noEnv)
		if err != nil {
			return
		}
		good++
		for _, topic := range []string{"x", "y"} {
			for _, born := range names[:n] {
				copies := carry(config.Flows, topic, born)
				for at, reached := range reach(config.Flows, topic, born) {
					if want := map[bool]int{true: 1}[reached]; copies[at] != want {
						t.Fatalf("%v: a record of %s, born in %s, stands in %s %d times, want %d", flows, topic, born, at, copies[at], want)
					}
				}
			}
		}
		if slices.ContainsFunc(config.Flows, func(f *topology.Flow) bool { return f.Loop != topology.LoopNone }) {
			looped++
		}
	})
	if looped == 0 {
		t.Errorf("of %d good files none has a circle: nothing was tried", good)
	}
}

// carry counts the copies of a record, by cluster. A copy is known by the flow
// that wrote it, "" where it was born.
func carry(flows []*topology.Flow, topic, born string) map[string]int {
	type here struct{ cluster, by string }
	copies := map[string]int{born: 1}
	for queue := []here{{born, ""}}; len(queue) > 0 && copies[queue[0].cluster] < 10; queue = queue[1:] {
		for _, f := range flows {
			if f.From == queue[0].cluster && f.Selects(topic) && !slices.Contains(f.Drops, queue[0].by) {
				copies[f.To]++
				queue = append(queue, here{f.To, f.Name})
			}
		}
	}
	return copies
}

// reach says which clusters a topic's records can come to at all.
func reach(flows []*topology.Flow, topic, born string) map[string]bool {
	reached := map[string]bool{born: true}
	for grown := true; grown; {
		grown = false
		for _, f := range flows {
			if reached[f.From] && !reached[f.To] && f.Selects(topic) {
				reached[f.To], grown = true, true
			}
		}
	}
	return reached
}
