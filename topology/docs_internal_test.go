package topology

import (
	"errors"
	"fmt"
	"maps"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

const nowhere = "qqqqqqqqqqqqqqqqqqqqqqqq" // a key that is like no other

// keysAt asks the parser itself which keys a mapping may have: a key that is like
// none is answered with all of them.
func keysAt(t *testing.T, file string) []string {
	t.Helper()
	_, err := Parse("mirror.yaml", []byte(strings.ReplaceAll(file, "?", nowhere+": 1")), func(string) (string, bool) { return "", false })
	var faults Faults
	if !errors.As(err, &faults) {
		t.Fatalf("no faults in %s: %v", file, err)
	}
	for _, f := range faults {
		if keys, ok := strings.CutPrefix(f.Remedy, "known here: "); ok {
			return strings.Split(keys, ", ")
		}
	}
	t.Fatalf("the parser does not say which keys it knows in %s: %v", file, err)
	return nil
}

// The reference names every key that there is, and none that there is not.
func TestDocumentedKeysAreTheParsers(t *testing.T) {
	documented := documentation(t)
	var want []string
	for prefix, file := range map[string]string{
		"":                         "{?}",
		"log.":                     "log: {?}",
		"clusters.NAME.":           "clusters: {a: {?}}",
		"clusters.NAME.embedded.":  "clusters: {a: {embedded: {?}}}",
		"clusters.NAME.tls.":       "clusters: {a: {tls: {?}}}",
		"clusters.NAME.sasl.":      "clusters: {a: {sasl: {?}}}",
		"flows[].":                 "flows: [{?}]",
		"flows[].start[].":         "flows: [{start: [{?}]}]",
		"flows[].configs.":         "flows: [{configs: {?}}]",
		"flows[].group_sync.":      "flows: [{group_sync: {?}}]",
		"flows[].mirrormaker2.":    "flows: [{mirrormaker2: {?}}]",
		"flows[].rename[].":        "flows: [{rename: [{?}]}]",
		"flows[].filters[].":       "flows: [{filters: [{?}]}]",
		"flows[].filters[].drop.":  "flows: [{filters: [{drop: {?}}]}]",
		"flows[].policies.":        "flows: [{policies: {?}}]",
		"flows[].topic_rules[].":   "flows: [{topic_rules: [{?}]}]",
		"coordination.":            "coordination: {?}",
		"coordination.consul.":     "coordination: {consul: {?}}",
		"coordination.consul.tls.": "coordination: {consul: {tls: {?}}}",
	} {
		for _, key := range keysAt(t, file) {
			want = append(want, prefix+key)
		}
	}
	want = append(want, Settings()...)
	slices.Sort(want)
	got := slices.Sorted(maps.Keys(documented))
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("docs/configuration.md does not name the parser's keys (-parser +docs):\n%s", diff)
	}
	flow := DefaultFlow("east", "west")
	flow.settle()
	for _, policy := range flow.Policies.words() {
		row := documented["flows[].policies."+policy[0]]
		if len(row) < 2 || !strings.HasPrefix(row[1], "`"+policy[1]+"`") {
			t.Errorf("docs/configuration.md: the policy %s is %q, want the default %q", policy[0], row, policy[1])
		}
	}
	for name, rule := range settingRules() {
		bounds := fmt.Sprintf("%d to %d", rule.least, rule.most)
		switch {
		case rule.kind == yesNo:
			bounds = "`true`, `false`"
		case rule.kind == word:
			bounds = "`" + strings.Join(rule.words, "`, `") + "`"
		case rule.most == 1<<63-1:
			bounds = fmt.Sprintf("from %d", rule.least)
		}
		if got := documented[name]; len(got) < 2 || got[0] != bounds {
			t.Errorf("docs/configuration.md: %s is %q, want the bounds %q", name, got, bounds)
		}
	}
}

// documentation is the reference's tables: the cells after the key.
func documentation(t *testing.T) map[string][]string {
	t.Helper()
	text, err := os.ReadFile("../docs/configuration.md")
	if err != nil {
		t.Fatal(err)
	}
	rows := map[string][]string{}
	for _, row := range regexp.MustCompile("(?m)^\\| `([^`]+)` \\| (.*) \\|$").FindAllStringSubmatch(string(text), -1) {
		if rows[row[1]] != nil {
			t.Errorf("docs/configuration.md names %s twice", row[1])
		}
		rows[row[1]] = strings.Split(row[2], " | ")
	}
	return rows
}

func TestDocumentedExampleIsGood(t *testing.T) {
	text, err := os.ReadFile("../docs/configuration.md")
	if err != nil {
		t.Fatal(err)
	}
	blocks := regexp.MustCompile("(?s)```yaml\n(.*?)```").FindAllSubmatch(text, -1)
	if len(blocks) == 0 {
		t.Fatal("docs/configuration.md has no example")
	}
	for _, block := range blocks {
		if _, err := Parse("docs/configuration.md", block[1], func(string) (string, bool) { return "", false }); err != nil {
			t.Errorf("%v\nin\n%s", err, block[1])
		}
	}
}
