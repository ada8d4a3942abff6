package broker_test

import (
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"kmirror/broker"
)

// foreignPart is where a part of the integration tests is, if it is in their cache.
func foreignPart(t *testing.T, name string) string {
	t.Helper()
	out, err := exec.CommandContext(t.Context(), filepath.Join("..", "integration", "parts", name+".sh"), "--have").CombinedOutput() //nolint:gosec // our own script
	if err != nil {
		if os.Getenv("KMIRROR_CI") == "1" {
			t.Fatalf("missing prerequisite: %s", out)
		}
		t.Skipf("SKIP: %s", strings.TrimSpace(string(out)))
	}
	return strings.TrimSpace(string(out))
}

// foreign runs a program that speaks to the node and says "done" at its end.
func foreign(t *testing.T, node *broker.Node, program string, args ...string) string {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Minute)
	defer cancel()
	out, err := exec.CommandContext(ctx, program, append(args, node.Addr())...).CombinedOutput() //nolint:gosec // of our own choice
	if err != nil || !strings.Contains(string(out), "done") {
		t.Fatalf("%s: %v\n%s", program, err, out)
	}
	return string(out)
}

// onlyThorough skips what takes long: make test runs it.
func onlyThorough(t *testing.T) {
	t.Helper()
	if os.Getenv("KMIRROR_ROUNDS") == "" {
		t.Skip("KMIRROR_ROUNDS is not set")
	}
}

func TestJavaTransactions(t *testing.T) {
	onlyThorough(t)
	jars := foreignPart(t, "kafka")
	java, err := exec.LookPath("java")
	if err != nil {
		t.Skip("SKIP: there is no Java")
	}
	foreign(t, start(t), java, "-Xmx256m", "-cp", filepath.Join(jars, "*"), filepath.Join("testdata", "Transactions.java"))
}

func TestLibrdkafkaTransactions(t *testing.T) {
	onlyThorough(t)
	foreign(t, start(t), foreignPart(t, "clients"), filepath.Join("testdata", "transactions.py"))
}

func TestStreamsExactlyOnce(t *testing.T) {
	onlyThorough(t)
	jars := foreignPart(t, "kafka")
	java, err := exec.LookPath("java")
	if err != nil {
		t.Skip("SKIP: there is no Java")
	}
	foreign(t, start(t), java, "-Xmx256m", "-cp", filepath.Join(jars, "*"), filepath.Join("testdata", "WordCount.java"))
}
