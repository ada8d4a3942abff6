package main

import (
	"os"
	"regexp"
	"strings"
	"testing"

	"kmirror/broker/replica"
	"kmirror/topology"
)

// The reference gives each setting of an embedded cluster the default that the broker has.
func TestDocumentedDefaultsAreTheBrokers(t *testing.T) {
	text, err := os.ReadFile("../../docs/configuration.md")
	if err != nil {
		t.Fatal(err)
	}
	documented := map[string]string{}
	for _, row := range regexp.MustCompile("(?m)^\\| `([^`]+)` \\| [^|]* \\| ([^|]*) \\|$").FindAllStringSubmatch(string(text), -1) {
		documented[row[1]] = row[2]
	}
	defaults := map[string]string{}
	for _, d := range replica.BrokerConfigs() {
		defaults[d.Name] = d.Default
	}
	defaults["offsets.topic.num.partitions"] = "16" // the node's own, fewer files than Kafka's 50
	for _, name := range topology.Settings() {
		want := "`" + defaults[name] + "`"
		if defaults[name] == "" {
			want = "none"
		}
		if documented[name] != want {
			t.Errorf("docs/configuration.md: the default of %s is %q, want %q", name, documented[name], want)
		}
	}
}

// The operator's guide names every metric that a daemon has.
func TestDocumentedMetricsAreTheDaemons(t *testing.T) {
	text, err := os.ReadFile("../../docs/operations.md")
	if err != nil {
		t.Fatal(err)
	}
	r := startDaemon(t, "flows:\n- {from: east, to: west}\n")
	for _, help := range regexp.MustCompile(`(?m)^# HELP (kmirror_\w+)`).FindAllStringSubmatch(r.page(t, "/metrics"), -1) {
		if !strings.Contains(string(text), "`"+help[1]+"`") {
			t.Errorf("docs/operations.md does not name %s", help[1])
		}
	}
}
