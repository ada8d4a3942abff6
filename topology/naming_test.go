package topology_test

import (
	"strings"
	"testing"

	"pgregory.net/rapid"

	"kmirror/topology"
)

func mustFlow(t testing.TB, from, to string, edit func(*topology.Flow)) *topology.Flow {
	t.Helper()
	flow, err := topology.NewFlow(from, to, edit)
	if err != nil {
		t.Fatal(err)
	}
	return flow
}

func identity(f *topology.Flow) { f.Naming = topology.Identity }

func TestInternalTopics(t *testing.T) {
	for _, c := range []struct {
		name, separator string
		want            bool
	}{
		{"__consumer_offsets", ".", true},
		{"__kmirror_offset_map", ".", true},
		{".hidden", ".", true},
		{"mm2-offset-syncs.west.internal", ".", true},
		{"mm2-offsets.east.internal", ".", true},
		{"mm2-offsets.east.internal", "_", false}, // ends with another separator
		{"east.checkpoints.internal", ".", true},
		{"east_checkpoints_internal", "_", true},
		{"east.checkpoints.internal", "-", false},
		{"payments.internal", ".", false}, // since 4.0 only MirrorMaker's own (KAFKA-17200)
		{"payments-internal", ".", false},
		{"heartbeats", ".", false},
		{"east.heartbeats", ".", false},
		{"mm2", ".", false},
		{"_schemas", ".", false},
		{"orders", ".", false},
	} {
		if got := topology.InternalTopic(c.name, c.separator); got != c.want {
			t.Errorf("InternalTopic(%q, %q) = %v, want %v", c.name, c.separator, got, c.want)
		}
	}
}

func TestSelectionTellsWhy(t *testing.T) {
	config, err := topology.Parse("m.yaml", []byte(`
clusters: {east: {bootstrap: [e:9092]}, west: {bootstrap: [w:9092]}, hq: {bootstrap: [h:9092]}}
flows:
  - {from: east, to: west, topics: ["orders.*", "(hq|west|east|sales|tmp).*"], exclude_topics: ["tmp-.*"]}
  - {from: east, to: hq, naming: identity, heartbeats: false}
`), noEnv)
	if err != nil {
		t.Fatal(err)
	}
	prefixed, same := config.Flows[0], config.Flows[1]
	for _, c := range []struct {
		flow  *topology.Flow
		topic string
		want  topology.Selection
	}{
		{prefixed, "orders", topology.Selected},
		{prefixed, "orders-2", topology.Selected},
		{prefixed, "my-orders", topology.NotMatched}, // full match
		{prefixed, "tmp-1", topology.Excluded},
		{prefixed, "tmp", topology.Selected},
		{prefixed, "__consumer_offsets", topology.Internal},
		{prefixed, "hq.checkpoints.internal", topology.Internal},
		{prefixed, "hq.orders", topology.Selected},        // a chain: hq -> east -> west
		{prefixed, "west.orders", topology.FromTarget},    // came from the target itself
		{prefixed, "hq.west.orders", topology.FromTarget}, // came from it over hq
		{prefixed, "west", topology.Selected},             // no separator, no prefix
		{prefixed, "western.orders", topology.Selected},
		{prefixed, "sales.west.daily", topology.Selected},         // MirrorMaker 2 would take sales for a cluster and drop it
		{prefixed, "sales.west.east.orders", topology.FromTarget}, // the trace of this very flow, over a cluster unknown here
		{prefixed, "east.orders", topology.Selected},              // a local name; it came from nowhere
		{prefixed, "heartbeats", topology.Selected},               // although no pattern matches
		{prefixed, "hq.heartbeats", topology.Selected},
		{prefixed, "west.heartbeats", topology.FromTarget},
		{prefixed, "east.heartbeats", topology.FromTarget}, // of a deployment that calls the target east
		{prefixed, "east.hq.heartbeats", topology.FromTarget},
		{prefixed, "", topology.IllegalName},
		{prefixed, "..", topology.IllegalName},
		{prefixed, "orders/eu", topology.IllegalName},
		{prefixed, "orders" + strings.Repeat("x", 244), topology.IllegalName},
		{same, "anything", topology.Selected},
		{same, "hq.orders", topology.Selected}, // identity names prove nothing
		{same, "heartbeats", topology.Excluded},
		{same, "hq.heartbeats", topology.FromTarget},
		{same, "__x", topology.Internal},
	} {
		if got := c.flow.Selection(c.topic); got != c.want {
			t.Errorf("%s: %q is %q, want %q", c.flow.Name, c.topic, got, c.want)
		}
		if got := c.flow.Selects(c.topic); got != (c.want == topology.Selected) {
			t.Errorf("%s: Selects(%q) = %v", c.flow.Name, c.topic, got)
		}
	}
}

func TestNames(t *testing.T) {
	prefixed := mustFlow(t, "east", "west", nil)
	dashed := mustFlow(t, "east", "west", func(f *topology.Flow) { f.Separator = "--" })
	same := mustFlow(t, "east", "west", identity)
	for _, c := range []struct {
		flow           *topology.Flow
		source, target string
	}{
		{prefixed, "orders", "east.orders"},
		{prefixed, "hq.orders", "east.hq.orders"},
		{prefixed, "east.orders", "east.east.orders"},
		{prefixed, "heartbeats", "east.heartbeats"},
		{dashed, "orders", "east--orders"},
		{dashed, "-orders", "east---orders"},
		{same, "orders", "orders"},
		{same, "east.orders", "east.orders"},
		{same, "heartbeats", "east.heartbeats"},
		{same, "west.heartbeats", "east.west.heartbeats"},
		{same, "patient-heartbeats", "patient-heartbeats"},
	} {
		if got := c.flow.TargetTopic(c.source); got != c.target {
			t.Errorf("%s %s: target of %q is %q, want %q", c.flow.Name, c.flow.Naming, c.source, got, c.target)
		}
		if got, ok := c.flow.SourceTopic(c.target); !ok || got != c.source {
			t.Errorf("%s %s: source of %q is %q, %v, want %q", c.flow.Name, c.flow.Naming, c.target, got, ok, c.source)
		}
	}
	for _, c := range []struct {
		flow   *topology.Flow
		target string
	}{
		{prefixed, "orders"},
		{prefixed, "east."},
		{prefixed, "east"},
		{prefixed, "west.orders"},
		{dashed, "east-orders"},
		{same, "heartbeats"}, // the target's own
		{same, ""},
	} {
		if got, ok := c.flow.SourceTopic(c.target); ok {
			t.Errorf("%s %s: %q maps back to %q, want nothing", c.flow.Name, c.flow.Naming, c.target, got)
		}
	}
	if got := prefixed.CheckpointsTopic(); got != "east.checkpoints.internal" {
		t.Errorf("checkpoints stand in %s", got)
	}
	if got := prefixed.OffsetSyncsTopic(); got != "mm2-offset-syncs.west.internal" {
		t.Errorf("offset syncs stand in %s", got)
	}
}

func FuzzNamesMapBack(f *testing.F) {
	for _, seed := range []string{"orders", "east.orders", "heartbeats", "east.heartbeats", "west.east.x", "__x", ".", "a--b"} {
		f.Add(seed)
	}
	flows := []*topology.Flow{
		mustFlow(f, "east", "west", nil),
		mustFlow(f, "east", "west", func(f *topology.Flow) { f.Separator = "--" }),
		mustFlow(f, "east", "west", identity),
		mustFlow(f, "east", "west", func(f *topology.Flow) {
			f.Rename = []topology.RenameRule{{From: `([a-z]+)\.(.*)`, To: "q.$1.$2"}, {From: `o(.*)`, To: "p.$1"}}
			f.ExcludeTopics = []string{`[pq]\..*`}
		}),
	}
	f.Fuzz(func(t *testing.T, name string) {
		for _, flow := range flows {
			if topology.LegalTopic(name) && (len(flow.Rename) == 0 || flow.Selects(name) && topology.LegalTopic(strings.TrimPrefix(flow.TargetTopic(name), "east."))) {
				if got, ok := flow.SourceTopic(flow.TargetTopic(name)); !ok || got != name {
					t.Errorf("%s %s: %q is %q there and %q, %v back", flow.Name, flow.Naming, name, flow.TargetTopic(name), got, ok)
				}
			}
			if source, ok := flow.SourceTopic(name); ok && flow.TargetTopic(source) != name {
				t.Errorf("%s %s: %q is %q at the source and %q again", flow.Name, flow.Naming, name, source, flow.TargetTopic(source))
			}
			if flow.Selects(name) && topology.InternalTopic(name, flow.Separator) {
				t.Errorf("%s selects the internal topic %q", flow.Name, name)
			}
		}
	})
}

// Whatever two flows with different sources write, the names tell them apart.
func TestPrefixedNamesNeverMeet(t *testing.T) {
	legal := rapid.StringMatching(`[a-zA-Z0-9._-]{1,40}`)
	rapid.Check(t, func(t *rapid.T) {
		cluster := rapid.StringMatching(`[a-z][a-z-]{0,6}`)
		a, b := cluster.Draw(t, "a"), cluster.Draw(t, "b")
		if a == b {
			t.Skip()
		}
		one, err := topology.NewFlow(a, "hub", nil)
		if err != nil {
			t.Fatal(err)
		}
		other, err := topology.NewFlow(b, "hub", nil)
		if err != nil {
			t.Fatal(err)
		}
		target := one.TargetTopic(legal.Draw(t, "topic"))
		if source, ok := other.SourceTopic(target); ok {
			t.Fatalf("%q of %s could be %q of %s", target, a, source, b)
		}
	})
}

func TestGroupsConfigsAndStarts(t *testing.T) {
	flow := mustFlow(t, "east", "west", func(f *topology.Flow) {
		f.Start = []topology.StartRule{
			{Topics: []string{"metrics-.*"}, Start: topology.Start{Kind: topology.Latest}},
			{Topics: []string{"audit", "metrics-x"}, Start: topology.Start{Kind: topology.Timestamp, Millis: 1000}},
		}
	})
	for group, want := range map[string]bool{
		"billing": true, "console-consumer-17": false, "connect-sink": false, "__internal": false, "my-connect-sink": true, "": false, "grüße": true,
	} {
		if got := flow.SelectsGroup(group); got != want {
			t.Errorf("SelectsGroup(%q) = %v, want %v", group, got, want)
		}
	}
	for config, want := range map[string]bool{
		"retention.ms": true, "cleanup.policy": true, "min.insync.replicas": false, "message.timestamp.type": false, "leader.replication.throttled.replicas": false,
	} {
		if got := flow.CopiesConfig(config); got != want {
			t.Errorf("CopiesConfig(%q) = %v, want %v", config, got, want)
		}
	}
	for topic, want := range map[string]string{"metrics-x": "latest", "audit": "1970-01-01T00:00:01Z", "orders": "earliest"} {
		if got := flow.StartFor(topic).String(); got != want {
			t.Errorf("StartFor(%q) = %s, want %s", topic, got, want)
		}
	}
	if _, err := topology.NewFlow("east", "west", func(f *topology.Flow) { f.Groups = []string{"("} }); err == nil {
		t.Error("a bad pattern makes a flow")
	}
}
