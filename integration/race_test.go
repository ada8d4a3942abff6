//go:build race

package integration_test

// raceEnabled makes the daemon that the tests start be built like the tests.
const raceEnabled = true
