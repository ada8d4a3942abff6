package mm2_test

import (
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"kmirror/internal/mm2"
)

var update = flag.Bool("update", false, "write the golden files anew")

// TestImport holds the translations of whole files against golden ones: the
// mirror.yaml and what is said of each key.
func TestImport(t *testing.T) {
	files, err := filepath.Glob("testdata/*.properties")
	if err != nil || len(files) == 0 {
		t.Fatalf("no test data: %v", err)
	}
	for _, file := range files {
		t.Run(filepath.Base(file), func(t *testing.T) {
			data, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			got, err := mm2.Import("mm2.properties", data)
			if err != nil {
				t.Fatal(err)
			}
			var report strings.Builder
			told := map[string]bool{}
			for _, f := range got.Findings {
				told[f.Key] = true
				fmt.Fprintf(&report, "%s: %s\n", f.Kind, f)
			}
			fmt.Fprintf(&report, "variables: %v\n", got.Variables)
			golden(t, strings.TrimSuffix(file, ".properties")+".yaml", string(got.YAML))
			golden(t, strings.TrimSuffix(file, ".properties")+".report", report.String())
			all, _ := mm2.ParseProperties(data)
			for _, p := range all {
				if !told[p.Key] {
					t.Errorf("nothing is said of %s", p.Key)
				}
			}
			if strings.Contains(string(got.YAML)+report.String(), "topsecret") {
				t.Error("a secret was copied")
			}
		})
	}
}

func golden(t *testing.T, file, got string) {
	t.Helper()
	if *update {
		if err := os.WriteFile(file, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(want), got); diff != "" {
		t.Errorf("%s (-want +got):\n%s", file, diff)
	}
}

func TestImportRefuses(t *testing.T) {
	for text, want := range map[string]string{
		"A.bootstrap.servers=a:1":           "names no clusters",
		"clusters=A, B/C":                   "cannot be a cluster's name",
		"clusters=A, A":                     "twice",
		"clusters=A\nx=\\u12":               "line 2",
		"clusters=A, B\nA->B.topics=\\uXXX": "malformed",
	} {
		if _, err := mm2.Import("mm2.properties", []byte(text)); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v; want %q", text, err, want)
		}
	}
}

func FuzzImport(f *testing.F) {
	f.Add([]byte("clusters=A,B\nA->B.enabled=true\nA.security.protocol=SASL_SSL\nA.sasl.jaas.config=x username=\"u\" password=\"topsecret\";"))
	f.Fuzz(func(t *testing.T, data []byte) {
		got, err := mm2.Import("mm2.properties", data)
		if err == nil && len(got.YAML) == 0 {
			t.Error("nothing came of it")
		}
	})
}
