package topology

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
)

// Fault is one thing wrong with a mirror.yaml.
type Fault struct {
	File    string // as given to Load
	Line    int    // from 1; 0 if it is about the whole file
	Path    string // in the YAML tree, as in flows[0].from; empty if about the whole file
	Problem string
	Remedy  string // what to do
}

// Error is one line: file:line: path: problem; remedy.
func (f Fault) Error() string {
	var b strings.Builder
	b.WriteString(f.File)
	if f.Line > 0 {
		fmt.Fprintf(&b, ":%d", f.Line)
	}
	b.WriteString(": ")
	if f.Path != "" {
		b.WriteString(f.Path + ": ")
	}
	b.WriteString(f.Problem)
	if f.Remedy != "" {
		b.WriteString("; " + f.Remedy)
	}
	return b.String()
}

// Faults are all the faults of one file, by line. Never empty as an error.
type Faults []Fault

// Error is one fault per line.
func (f Faults) Error() string {
	lines := make([]string, 0, len(f))
	for _, fault := range f {
		lines = append(lines, fault.Error())
	}
	return strings.Join(lines, "\n")
}

// Unwrap gives errors.As the single faults.
func (f Faults) Unwrap() []error {
	errs := make([]error, 0, len(f))
	for _, fault := range f {
		errs = append(errs, fault)
	}
	return errs
}

// sorted orders by line, keeping the order of finding within one, and drops repetitions.
func (f Faults) sorted() Faults {
	slices.SortStableFunc(f, func(a, b Fault) int { return cmp.Compare(a.Line, b.Line) })
	return slices.Compact(f)
}
