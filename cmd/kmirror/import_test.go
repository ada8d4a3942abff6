package main

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// TestImport: what is imported passes the check, is not overwritten, holds no secret,
// and the exit code says whether something is left to do.
func TestImport(t *testing.T) {
	dir := t.TempDir()
	properties, yaml := filepath.Join(dir, "mm2.properties"), filepath.Join(dir, "mirror.yaml")
	write := func(text string) {
		t.Helper()
		if err := os.WriteFile(properties, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	run := func(args ...string) (string, string, int) {
		t.Helper()
		o := kmirror(t, "", append(args, "--config", yaml)...)
		return o.out, o.err, o.code
	}
	const plain = "clusters=A,B\nA.bootstrap.servers=127.0.0.1:9092\nB.bootstrap.servers=127.0.0.1:9192\nA->B.enabled=true\n"
	write(plain)
	if _, errs, code := run("import", properties); code != exitOK || !strings.Contains(errs, "translated:") {
		t.Fatalf("exit %d\n%s", code, errs)
	}
	if out, errs, code := run("check"); code != exitOK {
		t.Fatalf("check: exit %d\n%s%s", code, out, errs)
	}
	if _, errs, code := run("import", properties); code != exitUsage || !strings.Contains(errs, "--force") {
		t.Errorf("over a file: exit %d\n%s", code, errs)
	}
	write(plain + "A.security.protocol=SASL_PLAINTEXT\nA.sasl.mechanism=PLAIN\nA.sasl.jaas.config=x.PlainLoginModule required username=\"u\" password=\"topsecret\";\n")
	out, errs, code := run("import", properties, "--force", "-o", "json")
	var result importResult
	if err := json.Unmarshal([]byte(out), &result); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	if code != exitFailure || result.ToDo != 1 || len(result.Variables) != 1 || len(result.Faults) != 0 || result.Written != yaml {
		t.Errorf("exit %d, %+v\n%s", code, result, errs)
	}
	text, err := os.ReadFile(yaml)
	if err != nil {
		t.Fatal(err)
	}
	if strings.Contains(out+errs+string(text), "topsecret") {
		t.Error("the secret was copied")
	}
	t.Setenv("A_SASL_PASSWORD", "topsecret")
	if out, errs, code := run("check"); code != exitOK {
		t.Errorf("check: exit %d\n%s%s", code, out, errs)
	}
	write("A.bootstrap.servers=a:1\n")
	if _, _, code := run("import", properties, "--force"); code != exitUsage {
		t.Errorf("no clusters: exit %d", code)
	}
	if _, _, code := run("import", filepath.Join(dir, "nothing")); code != exitUsage {
		t.Errorf("no file: exit %d", code)
	}
}
