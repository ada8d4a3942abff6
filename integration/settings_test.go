package integration_test

import (
	"slices"
	"testing"

	"kmirror/broker/replica"
	"kmirror/topology"
)

// TestSettingsAreTheBrokers: mirror.yaml names the broker's settings without
// knowing the broker, so the one list is held against the other here. Not every
// broker config makes sense for one node without compaction.
func TestSettingsAreTheBrokers(t *testing.T) {
	var known []string
	for _, d := range replica.BrokerConfigs() {
		known = append(known, d.Name)
	}
	for _, name := range topology.Settings() {
		if !slices.Contains(known, name) {
			t.Errorf("mirror.yaml takes the setting %s, which the broker does not have", name)
		}
	}
}
