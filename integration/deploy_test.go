package integration_test

import (
	"debug/elf"
	"os"
	"path/filepath"
	"regexp"
	"runtime"
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

// TestDockerfile does by hand what can be done of it without a container
// engine: its build command makes a static binary, what it copies is there, and
// what it starts is what it copied.
func TestDockerfile(t *testing.T) {
	if runtime.GOOS != "linux" {
		t.Skip("SKIP: the image is built on Linux")
	}
	file, err := os.ReadFile(filepath.Join("..", "deploy", "Dockerfile"))
	if err != nil {
		t.Fatal(err)
	}
	text := strings.ReplaceAll(string(file), "\\\n", "")
	run := regexp.MustCompile(`(?m)^RUN (.*go build.*)$`).FindStringSubmatch(text)
	if run == nil {
		t.Fatal("no RUN with go build")
	}
	out := t.TempDir()
	script := strings.ReplaceAll(run[1], "/out", out)
	command(t, "..", "", "sh", "-ec", "VERSION=dockerfile; "+script)
	image, err := elf.Open(filepath.Join(out, "kmirror"))
	if err != nil {
		t.Fatal(err)
	}
	defer image.Close()
	for _, segment := range image.Progs {
		if segment.Type == elf.PT_INTERP {
			t.Error("the binary is not static: the image has no loader for it")
		}
	}
	if version := command(t, out, "", filepath.Join(out, "kmirror"), "version"); !strings.Contains(version, "dockerfile") {
		t.Errorf("version %q does not come from the build argument", version)
	}
	const place = "/usr/bin/kmirror"
	if !strings.Contains(text, "COPY --from=build /out/kmirror "+place+"\n") || !strings.Contains(text, `ENTRYPOINT ["`+place+`"]`) {
		t.Errorf("what is started is not what was copied to %s:\n%s", place, file)
	}
}
