package storage

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"
)

// lockDir makes the directory when it is missing and takes it for this process.
// The lock goes with the process, however that ends.
func lockDir(dir string) (*os.File, error) {
	if dir == "" {
		return nil, &DirError{Dir: dir, Problem: "no path is given", Remedy: "set one"}
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return nil, accessError(dir, "cannot be made", err)
	}
	f, err := os.OpenFile(filepath.Join(dir, lockFile), os.O_CREATE|os.O_RDWR, 0o644)
	if err != nil {
		return nil, accessError(dir, "cannot be written", err)
	}
	if err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		_ = f.Close() // the lock error says it all
		if errors.Is(err, syscall.EWOULDBLOCK) {
			return nil, &DirError{Dir: dir, Problem: "is in use by another process", Remedy: "stop that process or choose another directory"}
		}
		return nil, accessError(dir, "cannot be locked", err)
	}
	return f, nil
}

func accessError(dir, problem string, err error) error {
	remedy := "check the path"
	switch {
	case errors.Is(err, fs.ErrPermission):
		remedy = fmt.Sprintf("give user %d the right to read and write it, or choose another directory", os.Getuid())
	case isFull(err):
		remedy = "make room on the disk"
	case errors.Is(err, syscall.EROFS):
		remedy = "mount the file system for writing, or choose another directory"
	case errors.Is(err, syscall.ENOTDIR), errors.Is(err, fs.ErrExist):
		remedy = "a file stands in its place: remove it or choose another directory"
	}
	return &DirError{Dir: dir, Problem: problem, Remedy: remedy, Err: err}
}
