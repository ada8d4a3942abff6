package main

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/spf13/cobra"

	"kmirror/topology"
)

func (a *app) initCommand() *cobra.Command {
	var force bool
	command := &cobra.Command{
		Use:   "init",
		Short: "Write a commented mirror.yaml",
		Long: `Writes a mirror.yaml with every key explained: two embedded clusters, east and
west, and one flow between them. It never overwrites a file unless told to.`,
		Example: "  kmirror init\n  kmirror init --config /etc/kmirror/mirror.yaml",
		Args:    cobra.NoArgs,
		RunE: func(*cobra.Command, []string) error {
			if err := writeSample(a.config, force); err != nil {
				return err
			}
			if a.wantsJSON() {
				return a.writeJSON(map[string]string{"written": a.config})
			}
			_, err := fmt.Fprintf(a.out, "wrote %s; start it with `%s`\n", a.config, a.command("run"))
			return err
		},
	}
	command.Flags().BoolVar(&force, "force", false, "overwrite the file if there is one")
	return command
}

func writeSample(path string, force bool) error {
	if force {
		return replaceFile(path, topology.Sample())
	}
	file, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o644)
	switch {
	case errors.Is(err, fs.ErrExist):
		return withCode(exitUsage, fmt.Errorf("there is a %s already: it stays as it is; --force overwrites it", path))
	case errors.Is(err, fs.ErrNotExist):
		return fmt.Errorf("write %s: the directory %s does not exist", path, filepath.Dir(path))
	case err != nil:
		return fmt.Errorf("write sample: %w", err)
	}
	_, err = file.Write(topology.Sample())
	if err = errors.Join(err, file.Close()); err != nil {
		return fmt.Errorf("write %s: %w", path, err)
	}
	return nil
}

// replaceFile writes a file whole or not at all.
func replaceFile(path string, data []byte) error {
	temporary, err := os.CreateTemp(filepath.Dir(path), "."+filepath.Base(path)+".*")
	if err != nil {
		return fmt.Errorf("write %s: %w", path, err)
	}
	defer func() { _ = os.Remove(temporary.Name()) }()
	_, err = temporary.Write(data)
	if err = errors.Join(err, temporary.Chmod(0o644), temporary.Close()); err != nil {
		return fmt.Errorf("write %s: %w", path, err)
	}
	if err := os.Rename(temporary.Name(), path); err != nil {
		return fmt.Errorf("write %s: %w", path, err)
	}
	return nil
}
