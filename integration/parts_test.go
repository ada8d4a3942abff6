package integration_test

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// missing ends the test because a part that it needs is not there.
func missing(t testing.TB, why string) {
	t.Helper()
	if os.Getenv("KMIRROR_CI") == "1" {
		t.Fatalf("missing prerequisite: %s", why)
	}
	t.Skipf("SKIP: %s", why)
}

// part asks the script parts/NAME.sh where the part is.
func part(t testing.TB, name string) string {
	t.Helper()
	var stderr strings.Builder
	cmd := exec.Command(filepath.Join("parts", name+".sh"), "--have")
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		missing(t, strings.TrimSpace(stderr.String()))
	}
	return strings.TrimSpace(string(out))
}

// tool finds a program of the operating system.
func tool(t testing.TB, name, debian string) string {
	t.Helper()
	found, err := exec.LookPath(name)
	if err != nil {
		missing(t, name+" is not installed (Debian: apt-get install "+debian+")")
	}
	return found
}
