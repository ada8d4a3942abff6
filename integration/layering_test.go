package integration_test

import (
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"maps"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
)

const module = "kmirror"

// edges is the table of who may import whom, by directory below the module's
// root. A new edge is a change of the design and is reviewed as one.
func edges() map[string][]string {
	return map[string][]string{
		"cmd/kmirror": {
			"broker", "broker/coordinator", "broker/replica", "broker/storage", "checkpoint",
			"internal/bench", "internal/console", "internal/kafka", "internal/mm2", "internal/verify", "internal/wire", "mirror", "topology", "topology/consul",
		},
		"internal/console":   {"checkpoint", "mirror", "topology"},
		"mirror":             {"checkpoint", "internal/kafka", "internal/mm2", "internal/wire", "topology"},
		"checkpoint":         {"internal/kafka", "internal/wire", "topology"},
		"internal/kafka":     {"internal/wire", "topology"},
		"internal/verify":    {"checkpoint", "internal/kafka", "internal/wire", "topology"},
		"broker":             {"broker/coordinator", "broker/replica", "broker/storage", "internal/wire"},
		"broker/coordinator": {"internal/wire"},
		"broker/replica":     {"broker/storage", "internal/wire"},
		"broker/storage":     {"internal/wire"},
		"internal/bench":     {"internal/kafka", "internal/wire"}, // a load, a watch and a check that know no mirror, for `kmirror bench` and integration
		"internal/mm2":       nil,                                 // what MirrorMaker 2 leaves behind: pure
		"internal/wire":      nil,
		"topology":           nil,
		"topology/consul":    nil,

		"integration/parts/relay": nil, // the lower bound that `make bench-mm2` measures by: a process of its own
	}
}

// adapters names the outside modules that only some packages may import.
func adapters() map[string][]string {
	return map[string][]string{
		"github.com/hashicorp/consul":        {"topology/consul"},
		"github.com/IBM/sarama":              {"internal/kafka", "cmd/kmirror"},
		"github.com/twmb/franz-go/pkg/kgo":   nil, // tests only
		"github.com/twmb/franz-go/pkg/kadm":  nil,
		"github.com/twmb/franz-go/pkg/kfake": nil,
	}
}

// goPackage is one directory of our own sources without their tests.
type goPackage struct {
	dir     string // below the module's root, with slashes
	comment string
	imports []string
}

func TestLayering(t *testing.T) {
	packages := ownPackages(t)
	table := edges()
	for _, pkg := range packages {
		allowed, known := table[pkg.dir]
		if !known {
			t.Errorf("package %s has no row in the table of edges", pkg.dir)
			continue
		}
		for _, imported := range pkg.imports {
			if own, ours := strings.CutPrefix(imported, module+"/"); ours && !slices.Contains(allowed, own) {
				t.Errorf("package %s must not import %s", pkg.dir, imported)
			}
			for outside, importers := range adapters() {
				if (imported == outside || strings.HasPrefix(imported, outside+"/")) && !slices.Contains(importers, pkg.dir) {
					t.Errorf("package %s must not import %s: only %q may", pkg.dir, imported, importers)
				}
			}
		}
	}
	for dir := range table {
		if !slices.ContainsFunc(packages, func(p goPackage) bool { return p.dir == dir }) {
			t.Errorf("the table of edges has a row for %s, which is no package", dir)
		}
	}
}

func TestEveryPackageSaysWhatItIs(t *testing.T) {
	for _, pkg := range ownPackages(t) {
		if lines := strings.Count(strings.TrimSpace(pkg.comment), "\n") + 1; lines < 3 {
			t.Errorf("package %s: its comment has %d line(s); say what it owns, what it promises and what it must not know", pkg.dir, lines)
		}
	}
}

// TestNoMachinePaths holds that nothing in the repository names a place that is
// only on the machine where it was written.
func TestNoMachinePaths(t *testing.T) {
	var places []string
	for _, dir := range []string{"work", "root", "home", "Users"} {
		places = append(places, "/"+dir+"/")
	}
	err := filepath.WalkDir("..", func(name string, entry fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if entry.IsDir() {
			if skipped(name, entry) {
				return fs.SkipDir
			}
			return nil
		}
		info, err := entry.Info()
		if err != nil || !info.Mode().IsRegular() || info.Size() > 1<<20 || entry.Name() == ".git" { // that of a worktree
			return err
		}
		content, err := os.ReadFile(name)
		if err != nil {
			return err
		}
		for i, line := range strings.Split(string(content), "\n") {
			for _, place := range places {
				at := strings.Index(line, place)
				// A path begins there: https://host/home/ is none.
				if at >= 0 && (at == 0 || strings.ContainsRune(" \t\"'`=(:[", rune(line[at-1]))) {
					t.Errorf("%s:%d names a machine's own path: %s", name, i+1, strings.TrimSpace(line))
				}
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}

// ownPackages parses every package of the module, in this process: the files it
// opens are part of the test cache's key, so a forbidden import fails at once.
func ownPackages(t *testing.T) []goPackage {
	t.Helper()
	found := map[string]*goPackage{}
	err := filepath.WalkDir("..", func(name string, entry fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if entry.IsDir() {
			if skipped(name, entry) {
				return fs.SkipDir
			}
			return nil
		}
		if !strings.HasSuffix(name, ".go") || strings.HasSuffix(name, "_test.go") {
			return nil
		}
		file, err := parser.ParseFile(token.NewFileSet(), name, nil, parser.ImportsOnly|parser.ParseComments)
		if err != nil {
			return err
		}
		dir, err := filepath.Rel("..", filepath.Dir(name))
		if err != nil {
			return err
		}
		dir = filepath.ToSlash(dir)
		if found[dir] == nil {
			found[dir] = &goPackage{dir: dir}
		}
		found[dir].add(t, file)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	var packages []goPackage
	for _, dir := range slices.Sorted(maps.Keys(found)) {
		packages = append(packages, *found[dir])
	}
	return packages
}

func (p *goPackage) add(t *testing.T, file *ast.File) {
	t.Helper()
	if doc := file.Doc.Text(); len(doc) > len(p.comment) {
		p.comment = doc
	}
	for _, spec := range file.Imports {
		imported, err := strconv.Unquote(spec.Path.Value)
		if err != nil {
			t.Fatal(err)
		}
		if !slices.Contains(p.imports, imported) {
			p.imports = append(p.imports, path.Clean(imported))
		}
	}
}

// skipped tells directories that hold none of our sources: what git or a build
// made, test data, and nested modules.
func skipped(name string, entry fs.DirEntry) bool {
	if name == ".." {
		return false
	}
	switch entry.Name() {
	case ".git", "bin", "data", "testdata", "__pycache__":
		return true
	}
	_, err := os.Stat(filepath.Join(name, "go.mod"))
	return err == nil
}
