package integration_test

import (
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// TestMM2Table holds docs/mirrormaker2-tests.md against the sources: every test
// that it names is there, and a test has the names after its slashes in it.
func TestMM2Table(t *testing.T) {
	text, err := os.ReadFile("../docs/mirrormaker2-tests.md")
	if err != nil {
		t.Fatal(err)
	}
	tests := map[string]string{} // what the packages of each test have in their test files
	declared := regexp.MustCompile(`(?m)^func (Test\w+)\(`)
	packages := map[string]string{}
	err = filepath.WalkDir("..", func(path string, entry fs.DirEntry, err error) error {
		if err != nil || entry.IsDir() || !strings.HasSuffix(path, "_test.go") {
			return err
		}
		source, err := os.ReadFile(path)
		packages[filepath.Dir(path)] += string(source)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	for _, source := range packages {
		for _, match := range declared.FindAllStringSubmatch(source, -1) {
			tests[match[1]] += source
		}
	}
	named := regexp.MustCompile("`((?:formats|Test\\w+)[^`]*)`").FindAllStringSubmatch(string(text), -1)
	if len(named) < 80 {
		t.Errorf("only %d tests are named", len(named))
	}
	for _, match := range named {
		name := strings.Replace(match[1], "formats/", "TestMM2Formats/", 1)
		if name == "formats" {
			continue
		}
		parts := strings.Split(name, "/")
		source, ok := tests[parts[0]]
		for _, part := range parts[1:] {
			ok = ok && strings.Contains(source, `"`+part+`"`)
		}
		if !ok {
			t.Errorf("there is no test %s", name)
		}
	}
}
