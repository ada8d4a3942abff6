package integration_test

import (
	"fmt"
	"os"
	"strconv"
	"testing"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) {
	code := m.Run()
	theCluster.end()
	if dir, built := builtDir.Load().(string); built {
		_ = os.RemoveAll(dir)
	}
	if code == 0 {
		if err := goleak.Find(); err != nil {
			fmt.Fprintln(os.Stderr, err)
			code = 1
		}
	}
	os.Exit(code)
}

// rounds is how often the stories repeat their accident.
func rounds(t testing.TB) int {
	t.Helper()
	text := os.Getenv("KMIRROR_ROUNDS")
	if text == "" {
		return 3
	}
	n, err := strconv.Atoi(text)
	if err != nil || n < 1 {
		t.Fatalf("KMIRROR_ROUNDS is %q, not a number of rounds", text)
	}
	return n
}
