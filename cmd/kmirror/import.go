package main

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"kmirror/internal/mm2"
	"kmirror/topology"
)

// importLimit bounds the property file.
const importLimit = 4 << 20

// importResult is what `kmirror import -o json` answers.
type importResult struct {
	From      string        `json:"from"`
	Written   string        `json:"written,omitempty"` // empty: to the standard output, or nothing
	ToDo      int           `json:"to_do"`
	Variables []string      `json:"variables"` // of the environment, to be set
	Findings  []mm2.Finding `json:"findings"`
	Faults    []faultJSON   `json:"faults"` // of the mirror.yaml that came of it
}

func (a *app) importCommand() *cobra.Command {
	var force bool
	command := &cobra.Command{
		Use:   "import MM2.PROPERTIES",
		Short: "Translate MirrorMaker 2's property file to mirror.yaml",
		Long: `Reads the property file of a MirrorMaker 2 in dedicated mode and writes a commented
mirror.yaml (--config says where) that goes on where MirrorMaker 2 stopped. A file
that is there already stays as it is, unless told otherwise with --force.

Every key is accounted for: translated, not needed, different, without effect, or to
be done by hand; the last two kinds also stand at the top of the file. Passwords are
not copied: in their place stand variables of the environment, which are named.

Exit code 0: nothing is left to do; 1: the file is written, and something is to be
done by hand; 2: nothing is written.`,
		Example: "  kmirror import mm2.properties\n  kmirror import mm2.properties --config /etc/kmirror/mirror.yaml -o json\n  kmirror import mm2.properties --config -",
		GroupID: "daemon",
		Args:    cobra.ExactArgs(1),
		RunE: func(_ *cobra.Command, args []string) error {
			return a.importFile(args[0], a.config, force)
		},
	}
	command.Flags().BoolVar(&force, "force", false, "overwrite the file if there is one")
	return command
}

func (a *app) importFile(from, to string, force bool) error {
	data, err := readLimited(from)
	if err != nil {
		return withCode(exitUsage, err)
	}
	imported, err := mm2.Import(from, data)
	if err != nil {
		return withCode(exitUsage, fmt.Errorf("import %s: %w", from, err))
	}
	result := importResult{From: from, ToDo: imported.ToDo(), Variables: append([]string{}, imported.Variables...), Findings: imported.Findings, Faults: []faultJSON{}}
	faults, err := faultsOf(to, imported)
	if err != nil {
		return fmt.Errorf("check what came of %s: %w", from, err)
	}
	for _, f := range faults {
		result.Faults = append(result.Faults, faultJSON{f.Line, f.Path, f.Problem, f.Remedy})
	}
	if to == "-" {
		if !a.wantsJSON() {
			if _, err := a.out.Write(imported.YAML); err != nil {
				return err
			}
		}
	} else {
		if err := writeNew(to, imported.YAML, force); err != nil {
			return err
		}
		result.Written = to
	}
	if a.wantsJSON() {
		err = a.writeJSON(result)
	} else {
		a.reportImport(result)
	}
	if err == nil && (result.ToDo > 0 || len(faults) > 0) {
		return &shownError{exitFailure}
	}
	return err
}

func readLimited(path string) ([]byte, error) {
	file, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer func() { _ = file.Close() }()
	data, err := io.ReadAll(io.LimitReader(file, importLimit+1))
	switch {
	case err != nil:
		return nil, fmt.Errorf("read %s: %w", path, err)
	case len(data) > importLimit:
		return nil, fmt.Errorf("read %s: larger than %d MiB: no property file", path, importLimit>>20)
	}
	return data, nil
}

// faultsOf checks what came of an import as `kmirror check` will when the variables are set.
func faultsOf(path string, imported *mm2.Imported) (topology.Faults, error) {
	_, err := topology.Parse(path, imported.YAML, func(name string) (string, bool) {
		if value, ok := os.LookupEnv(name); ok {
			return value, true
		}
		return "imported", slices.Contains(imported.Variables, name)
	})
	var faults topology.Faults
	if err == nil || errors.As(err, &faults) {
		return faults, nil
	}
	return nil, err
}

// writeNew writes a file that is not there yet, or replaces one.
func writeNew(path string, data []byte, force bool) error {
	if force {
		return replaceFile(path, data)
	}
	file, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o644)
	switch {
	case errors.Is(err, fs.ErrExist):
		return withCode(exitUsage, fmt.Errorf("there is a %s already: it stays as it is; --force overwrites it, --config FILE names another", path))
	case err != nil:
		return withCode(exitUsage, fmt.Errorf("write %s: %w", path, err))
	}
	_, err = file.Write(data)
	if err = errors.Join(err, file.Close()); err != nil {
		return fmt.Errorf("write %s: %w", path, err)
	}
	return nil
}

// reportImport says on the error output what became of the keys, by kinds.
func (a *app) reportImport(r importResult) {
	for _, kind := range mm2.Kinds() {
		n := 0
		for _, f := range r.Findings {
			if f.Kind != kind {
				continue
			}
			if n++; n == 1 {
				fmt.Fprintf(a.err, "%s:\n", kind)
			}
			fmt.Fprintln(a.err, "  "+clean(f.String()))
		}
	}
	for i, f := range r.Faults {
		if i == 0 {
			fmt.Fprintln(a.err, "faults that kmirror check will find:")
		}
		fmt.Fprintln(a.err, "  "+clean(fmt.Sprintf("line %d, %s: %s; %s", f.Line, f.Path, f.Problem, f.Remedy)))
	}
	fmt.Fprintln(a.err)
	if r.Written != "" {
		fmt.Fprintf(a.err, "wrote %s from %s", clean(r.Written), clean(r.From))
	} else {
		fmt.Fprintf(a.err, "translated %s", clean(r.From))
	}
	if len(r.Variables) > 0 {
		fmt.Fprintf(a.err, "; set %s", strings.Join(r.Variables, ", "))
	}
	if r.ToDo > 0 {
		fmt.Fprintf(a.err, "; %s to do by hand", plural(r.ToDo, "thing"))
	}
	fmt.Fprintf(a.err, "\nnext: %s, then stop MirrorMaker 2 in order, then %s\n", "`"+a.command("check --connect")+"`", "`"+a.command("run")+"`")
}
