package topology_test

import (
	"testing"

	"kmirror/topology"
)

func mustParse(t *testing.T, flows string) *topology.Config {
	t.Helper()
	config, err := topology.Parse("m.yaml", []byte("instance: one\nclusters: {east: {bootstrap: [e:9092]}, west: {bootstrap: [w:9092]}, hq: {bootstrap: [h:9092]}}\nflows:\n"+flows), noEnv)
	if err != nil {
		t.Fatal(err)
	}
	return config
}

func TestTopicRulesInheritAndTheFirstCounts(t *testing.T) {
	flow := mustParse(t, `
  - from: east
    to: west
    policies: {retention_loss: continue, target_deleted: stop}
    topic_rules:
      - {topics: [a], policies: {target_deleted: recreate}}
      - {topics: ["a.*"], paused: true, policies: {record_too_large: park}}
`).Flows[0]
	for _, c := range []struct {
		topic  string
		gone   topology.TargetGone
		large  topology.TooLarge
		paused bool
	}{
		{"a", topology.TargetGoneRecreate, topology.TooLargeRaise, false},
		{"ab", topology.TargetGoneStop, topology.TooLargePark, true},
		{"b", topology.TargetGoneStop, topology.TooLargeRaise, false},
	} {
		got := flow.PoliciesFor(c.topic)
		if got.TargetDeleted != c.gone || got.RecordTooLarge != c.large || flow.Paused(c.topic) != c.paused {
			t.Errorf("%s: %+v, paused %v; want target_deleted %s, record_too_large %s, paused %v", c.topic, got, flow.Paused(c.topic), c.gone, c.large, c.paused)
		}
		if got.RetentionLoss != topology.LossContinue || got.ForeignWrites != topology.ForeignReport {
			t.Errorf("%s: %+v does not inherit the flow's policies", c.topic, got)
		}
	}
}

// A topic rule may take a topic out of a pause of the whole flow.
func TestATopicOfAPausedFlowMayRun(t *testing.T) {
	flow := mustParse(t, `
  - {from: east, to: west, paused: true, topic_rules: [{topics: [urgent], paused: false}, {topics: [other], policies: {retention_loss: continue}}]}
`).Flows[0]
	if flow.Paused("urgent") || !flow.Paused("other") || !flow.Paused("rest") {
		t.Errorf("paused: urgent %v, other %v, rest %v; want only the first to run", flow.Paused("urgent"), flow.Paused("other"), flow.Paused("rest"))
	}
}

func TestForeignWritesAreMeantWhereNamesAreKept(t *testing.T) {
	config := mustParse(t, `
  - {from: east, to: west, naming: identity, exclude_topics: ["hq.*"]}
  - {from: east, to: hq, naming: identity, policies: {foreign_writes: stop}}
  - {from: hq, to: west, topics: [x]}
`)
	for i, want := range []topology.Foreign{topology.ForeignIgnore, topology.ForeignStop, topology.ForeignReport} {
		if got := config.Flows[i].PoliciesFor("x").ForeignWrites; got != want {
			t.Errorf("flow %s: foreign_writes %s, want %s", config.Flows[i].Name, got, want)
		}
	}
	if flow := mustFlow(t, "east", "west", identity); flow.PoliciesFor("x").ForeignWrites != topology.ForeignIgnore {
		t.Errorf("NewFlow: foreign_writes %q, want ignore", flow.PoliciesFor("x").ForeignWrites)
	}
}

func TestDeadLettersStayWhereTheyAre(t *testing.T) {
	config := mustParse(t, `
  - {from: east, to: west, naming: identity, topics: ["orders.*"], policies: {record_too_large: dead_letter}}
  - {from: east, to: hq, policies: {record_too_large: dead_letter}, dead_letter_topic: lost}
  - {from: west, to: hq}
  - {from: hq, to: east, topics: ["lost.*"]}
`)
	flow := func(name string) *topology.Flow { return config.Flow(name) }
	if got := flow("east->west").LetterTopic("orders-1"); got != "orders-1.dead-letter" {
		t.Errorf("letters of orders-1 go to %q", got)
	}
	if got := flow("east->hq").LetterTopic("orders-1"); got != "lost" {
		t.Errorf("letters of orders-1 go to %q, want lost", got)
	}
	for _, c := range []struct {
		flow, topic string
		want        topology.Selection
	}{
		{"east->west", "orders-1.dead-letter", topology.DeadLetter}, // its name there is that of orders-1's letters
		{"east->hq", "orders-1.dead-letter", topology.Selected},     // nobody's letters
		{"west->hq", "orders-1.dead-letter", topology.DeadLetter},
		{"west->hq", "orders-1", topology.Selected},
		{"hq->east", "lost", topology.DeadLetter},
		{"hq->east", "lost-and-found", topology.Selected},
	} {
		if got := flow(c.flow).Selection(c.topic); got != c.want {
			t.Errorf("%s: %s is %s, want %s", c.flow, c.topic, got, c.want)
		}
	}
}

func TestRenamesGoThereAndBack(t *testing.T) {
	config := mustParse(t, `
  - from: east
    to: west
    exclude_topics: ["(sales|eu|us)-.*", "old\\.new"]
    rename:
      - {from: "orders-(\\d+)", to: "sales-$1"}
      - {from: "(eu|us)\\.(.*)", to: "$1-$2"}
      - {from: "old", to: "old.new"}
  - {from: east, to: hq, naming: identity, topics: ["eu\\.orders", plain], rename: [{from: "(.*)\\.(.*)", to: "$2-$1"}]}
`)
	for i, pairs := range []map[string]string{
		{"orders-7": "east.sales-7", "orders-x": "east.orders-x", "eu.a.b": "east.eu-a.b", "old": "east.old.new", "heartbeats": "east.heartbeats"},
		{"eu.orders": "orders-eu", "plain": "plain", "heartbeats": "east.heartbeats"},
	} {
		flow := config.Flows[i]
		for source, target := range pairs {
			if got := flow.TargetTopic(source); got != target {
				t.Errorf("%s: %s is %s at the target, want %s", flow.Name, source, got, target)
			}
			if got, ok := flow.SourceTopic(target); !ok || got != source {
				t.Errorf("%s: %s maps back to %q, %v, want %s", flow.Name, target, got, ok, source)
			}
		}
	}
	if got, ok := config.Flows[0].SourceTopic("east.sales-7x"); !ok || got != "sales-7x" { // only the unrenamed could be it
		t.Errorf("got %q, %v", got, ok)
	}
	if got, ok := config.Flows[1].SourceTopic("eu.orders"); ok {
		t.Errorf("eu.orders maps back to %q, but its name there is another", got)
	}
	if got := mustParse(t, `
  - {from: east, to: west, topics: ["x-.*"], rename: [{from: "x-(.*)", to: "y.$1"}]}
`).Flows[0].Selection("x-checkpoints.internal"); got != topology.Reserved {
		t.Errorf("a topic that would be called east.y.checkpoints.internal is %s", got)
	}
}
