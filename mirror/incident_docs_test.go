package mirror

import (
	"go/ast"
	"go/parser"
	"go/token"
	"os"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// TestIncidentsDocumented holds docs/operations.md against the kinds: one row
// for each, and none else.
func TestIncidentsDocumented(t *testing.T) {
	file, err := parser.ParseFile(token.NewFileSet(), "incident.go", nil, 0)
	if err != nil {
		t.Fatal(err)
	}
	var kinds []string
	ast.Inspect(file, func(n ast.Node) bool {
		spec, ok := n.(*ast.ValueSpec)
		if ok && strings.HasPrefix(spec.Names[0].Name, "Kind") {
			kind, err := strconv.Unquote(spec.Values[0].(*ast.BasicLit).Value)
			if err != nil {
				t.Fatal(err)
			}
			kinds = append(kinds, kind)
		}
		return true
	})
	text, err := os.ReadFile("../docs/operations.md")
	if err != nil {
		t.Fatal(err)
	}
	_, section, _ := strings.Cut(string(text), "\n## Incidents\n")
	section, _, _ = strings.Cut(section, "\n## ")
	var rows []string
	for _, row := range regexp.MustCompile("(?m)^\\| `([a-z-]+)` \\|").FindAllStringSubmatch(section, -1) {
		rows = append(rows, row[1])
	}
	if diff := cmp.Diff(kinds, rows); diff != "" {
		t.Errorf("docs/operations.md, Incidents (-code +docs):\n%s", diff)
	}
	for _, kind := range AcceptableKinds() {
		if !slices.Contains(kinds, kind) {
			t.Errorf("%s can be accepted and is no kind", kind)
		}
	}
}

// TestMetricsDocumented: every metric of the engine has its place in docs/operations.md.
func TestMetricsDocumented(t *testing.T) {
	text, err := os.ReadFile("../docs/operations.md")
	if err != nil {
		t.Fatal(err)
	}
	source, err := os.ReadFile("metrics.go")
	if err != nil {
		t.Fatal(err)
	}
	names := regexp.MustCompile(`"(kmirror_[a-z_]+)"`).FindAllStringSubmatch(string(source), -1)
	names = append(names, regexp.MustCompile(`\{"([a-z_]+)", "[A-Z0-9]`).FindAllStringSubmatch(string(source), -1)...)
	if len(names) < 15 {
		t.Fatalf("only %d metrics found", len(names))
	}
	for _, name := range names {
		if full := "`kmirror_" + strings.TrimPrefix(name[1], "kmirror_") + "`"; !strings.Contains(string(text), full) {
			t.Errorf("docs/operations.md lacks %s", full)
		}
	}
}
