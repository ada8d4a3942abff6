package main

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"
)

// dataDir is the directory of all state, held by this process alone.
type dataDir struct {
	path string
	lock *os.File
}

// openDataDir creates the directory where it is missing and takes its lock. The
// kernel releases the lock with the process, however that ends.
func openDataDir(path string) (*dataDir, error) {
	explain := func(err error) error {
		switch {
		case errors.Is(err, fs.ErrPermission):
			return fmt.Errorf("data directory %s: no right to write there: give it to this user, or name another data_dir", path)
		case errors.Is(err, unix.EROFS):
			return fmt.Errorf("data directory %s: the file system is read-only: name another data_dir", path)
		case errors.Is(err, unix.ENOTDIR):
			return fmt.Errorf("data directory %s: there is a file of that name in the way: name another data_dir", path)
		default:
			return fmt.Errorf("data directory %s: %w", path, err)
		}
	}
	if err := os.MkdirAll(path, 0o750); err != nil {
		return nil, explain(err)
	}
	file, err := os.OpenFile(filepath.Join(path, "kmirror.lock"), os.O_RDWR|os.O_CREATE, 0o640)
	if err != nil {
		return nil, explain(err)
	}
	switch err := unix.Flock(int(file.Fd()), unix.LOCK_EX|unix.LOCK_NB); {
	case errors.Is(err, unix.EWOULDBLOCK):
		holder := "another kmirror"
		if pid, err := os.ReadFile(file.Name()); err == nil && len(pid) > 0 && len(pid) < 20 {
			holder += " (process " + clean(strings.TrimSpace(string(pid))) + ")"
		}
		_ = file.Close()
		return nil, withCode(exitBusy, fmt.Errorf("data directory %s is in use by %s: stop that one, or give this one a data_dir of its own", path, holder))
	case err != nil:
		_ = file.Close()
		return nil, explain(err)
	}
	// Who holds it is a courtesy to the next one who comes; the lock itself does not need it.
	if err := file.Truncate(0); err != nil {
		_ = file.Close()
		return nil, explain(err)
	}
	if _, err := fmt.Fprintln(file, os.Getpid()); err != nil {
		_ = file.Close()
		return nil, explain(err)
	}
	return &dataDir{path: path, lock: file}, nil
}

// join is a path inside.
func (d *dataDir) join(parts ...string) string {
	return filepath.Join(append([]string{d.path}, parts...)...)
}

// close releases the lock.
func (d *dataDir) close() { _ = d.lock.Close() }
