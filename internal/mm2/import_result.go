package mm2

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
)

// result puts mirror.yaml together.
func (m *importer) result() *Imported {
	slices.SortStableFunc(m.findings, func(a, b Finding) int {
		return cmp.Or(cmp.Compare(slices.Index(Kinds(), a.Kind), slices.Index(Kinds(), b.Kind)), cmp.Compare(a.Line, b.Line), strings.Compare(a.Key, b.Key))
	})
	var out strings.Builder
	line := func(format string, args ...any) { fmt.Fprintf(&out, format+"\n", args...) }
	line("# Written by `kmirror import` from %s. Read it, then: kmirror check --connect,", oneLine(m.name))
	line("# stop MirrorMaker 2 in order, kmirror run. docs/mirrormaker2.md has every step.")
	for _, kind := range []Kind{KindToDo, KindDifferent} {
		first := true
		for _, f := range m.findings {
			if f.Kind != kind {
				continue
			}
			if first {
				line("#\n# %s:", map[Kind]string{KindToDo: "To be done by hand", KindDifferent: "Different from MirrorMaker 2"}[kind])
				first = false
			}
			line("#   %s", oneLine(f.String()))
		}
	}
	line("\n# data_dir: ./data\n# http: 127.0.0.1:7070 # status page, API, /metrics\n")
	line("clusters:\n%s", strings.Join(m.clusterText, "\n"))
	if len(m.flowText) > 0 {
		line("\nflows:\n%s", strings.Join(m.flowText, "\n"))
	}
	return &Imported{YAML: []byte(out.String()), Findings: m.findings, Variables: m.variables}
}

// String is the finding in a line.
func (f Finding) String() string {
	if f.Line == 0 {
		return fmt.Sprintf("%s (not given): %s", f.Key, f.What)
	}
	return fmt.Sprintf("%s (line %d): %s", f.Key, f.Line, f.What)
}

// oneLine keeps a comment in its line.
func oneLine(s string) string {
	return strings.Map(func(r rune) rune {
		if r < ' ' || r == 0x7f || r == 0x85 || r == 0x2028 || r == 0x2029 {
			return ' '
		}
		return r
	}, s)
}
