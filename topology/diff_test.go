package topology_test

import (
	"fmt"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"kmirror/topology"
)

func lines(changes []topology.Change) []string {
	all := make([]string, 0, len(changes))
	for _, c := range changes {
		all = append(all, c.String())
	}
	return all
}

func TestDiffNamesWhatChangesAndWhatNeedsARestart(t *testing.T) {
	const before = `
instance: one
log: {level: info}
clusters: {last: {bootstrap: [l:9092], sasl: {mechanism: plain, user: me, password: first}}, east: {bootstrap: [e:9092]}, south: {embedded: {nodes: [127.0.0.1:9192]}}, west: {embedded: {nodes: [127.0.0.1:9092]}}, third: {bootstrap: [t:9092]}, old: {bootstrap: [o:9092]}, hq: {bootstrap: ["${HQ}"]}}
flows:
  - {from: east, to: west, topics: [a], throttle: 1MiB}
  - {from: west, to: east, topics: ["${SECRET}"]}
  - {from: east, to: old, naming: identity}
`
	const after = `
http: 127.0.0.1:7071
instance: one
buffer: 128MiB
log: {level: debug, format: json}
coordination: {consul: {}}
clusters: {west: {embedded: {nodes: [127.0.0.1:9092], fsync: batch}}, south: {embedded: {nodes: [127.0.0.1:9192], fsync: never, settings: {num.partitions: 3}}}, third: {bootstrap: [t:9092]}, east: {bootstrap: [e:9092]}, last: {bootstrap: [l:9092], sasl: {mechanism: plain, user: me, password: second}}, hq: {bootstrap: ["${HQ2}"]}}
flows:
  - {from: west, to: east, topics: ["${OTHER}"]}
  - {from: east, to: west, topics: [a, "b .*"], policies: {retention_loss: continue}, topic_rules: [{topics: [c], policies: {unfenced: continue}, paused: true}], filters: [{drop: {key: k, header: {h: v}}}]}
  - {from: third, to: west, topics: ["x.*"], rename: [{from: "x(.*)", to: "y$1"}], start: latest}
`
	parse := func(text string) *topology.Config {
		config, err := topology.Parse("m.yaml", []byte(text), func(name string) (string, bool) { return "hunter2-" + strings.ToLower(name) + ":1", true })
		if err != nil {
			t.Fatal(err)
		}
		return config
	}
	got := lines(topology.Diff(parse(before), parse(after)))
	want := []string{
		"http: 127.0.0.1:7070 -> 127.0.0.1:7071 (needs a restart)",
		"buffer: 64MiB -> 128MiB (needs a restart)",
		"log.level: info -> debug",
		"log.format: text -> json (needs a restart)",
		"clusters.south.embedded.fsync: batch -> never (needs a restart)",
		"clusters.south.embedded.settings[num.partitions]: 3 (new) (needs a restart)",
		"clusters.last.sasl.password: (hidden) -> (hidden) (needs a restart)",
		"clusters.hq.bootstrap: (hidden) -> (hidden) (needs a restart)",
		"clusters.old: {bootstrap: ['o:9092']} (gone) (needs a restart)",
		"coordination.consul: {} (new) (needs a restart)",
		"flows[west->east].topics: (hidden) -> (hidden)",
		"flows[east->west].topics: [a] -> [a, 'b .*']",
		"flows[east->west].throttle: 1MiB (gone)",
		"flows[east->west].filters: [] -> [{topics: ['.*'], drop: {key: k, header: {h: v}}}]",
		"flows[east->west].policies.retention_loss: stop -> continue",
		"flows[east->west].topic_rules: [] -> [{topics: [c], policies: {unfenced: continue}, paused: true}]",
		"flows[third->west]: {topics: ['x.*'], rename: [{from: 'x(.*)', to: y$1}], start: [{topics: ['.*'], from: latest}]} (new)",
		"flows[east->old]: {topics: ['.*'], naming: identity} (gone)",
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("changes (-want +got):\n%s", diff)
	}
	if same := topology.Diff(parse(after), parse(after)); len(same) != 0 {
		t.Errorf("a file differs from itself: %v", same)
	}
}

// Nothing that a flow can say may change unnoticed: each exported field, changed, shows.
func TestDiffSeesEveryFieldOfAFlow(t *testing.T) {
	with := func(flow topology.Flow) *topology.Config {
		config := topology.Default()
		config.Flows = []*topology.Flow{&flow}
		return &config
	}
	usual := topology.DefaultFlow("east", "west")
	usual.Policies.ForeignWrites = topology.ForeignReport
	var check func(at reflect.Value, path string, flow *topology.Flow)
	check = func(at reflect.Value, path string, flow *topology.Flow) {
		for i := range at.NumField() {
			field, name := at.Field(i), path+at.Type().Field(i).Name
			if !at.Type().Field(i).IsExported() || slices.Contains([]string{"Name", "From", "To", "Loop", "Drops", "Refill"}, name) {
				continue
			}
			if field.Kind() == reflect.Struct {
				check(field, name+".", flow)
				continue
			}
			was := reflect.New(field.Type()).Elem()
			was.Set(field)
			switch field.Kind() {
			case reflect.String:
				field.SetString("other")
			case reflect.Bool:
				field.SetBool(!field.Bool())
			case reflect.Int16, reflect.Int64:
				field.SetInt(field.Int() + 4096)
			case reflect.Slice:
				field.Set(reflect.MakeSlice(field.Type(), 1, 1))
			default:
				t.Fatalf("field %s has a kind that this test does not know", name)
			}
			if changes := topology.Diff(with(usual), with(*flow)); len(changes) == 0 {
				t.Errorf("a change of %s does not show", name)
			} else if len(changes) > 1 && name != "Naming" {
				t.Errorf("a change of %s shows as %v", name, changes)
			}
			field.Set(was)
		}
	}
	flow := usual
	check(reflect.ValueOf(&flow).Elem(), "", &flow)
}

func ExampleDiff() {
	parse := func(throttle string) *topology.Config {
		config, _ := topology.Parse("mirror.yaml", []byte("instance: a\nclusters: {e: {bootstrap: [e:9092]}, w: {bootstrap: [w:9092]}}\nflows: [{from: e, to: w, throttle: "+throttle+"}]"), noEnv)
		return config
	}
	for _, change := range topology.Diff(parse("1MiB"), parse("50MiB")) {
		fmt.Println(change)
	}
	// Output: flows[e->w].throttle: 1MiB -> 50MiB
}
