package integration_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// TestSystemdUnit lets systemd itself judge the unit that we ship, and asks the
// binary whether it knows the commands in it.
func TestSystemdUnit(t *testing.T) {
	analyze := tool(t, "systemd-analyze", "systemd")
	unit, err := os.ReadFile(filepath.Join("..", "deploy", "kmirror.service"))
	if err != nil {
		t.Fatal(err)
	}
	const place = "/usr/bin/kmirror"
	if !strings.Contains(string(unit), place) {
		t.Fatalf("the unit does not start %s", place)
	}
	file := filepath.Join(t.TempDir(), "kmirror.service")
	if err := os.WriteFile(file, []byte(strings.ReplaceAll(string(unit), place, built(t))), 0o644); err != nil {
		t.Fatal(err)
	}
	if out := command(t, t.TempDir(), "", analyze, "verify", file); strings.TrimSpace(out) != "" {
		t.Errorf("systemd-analyze verify: %s", out)
	}
	for _, subcommand := range []string{"run", "check"} {
		if stdout, stderr, code := kmirror(t, t.TempDir(), subcommand, "--help"); code != 0 || !strings.Contains(stdout, "--config") {
			t.Errorf("%s --help: exit code %d\n%s%s", subcommand, code, stdout, stderr)
		}
	}
}
