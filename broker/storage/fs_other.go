//go:build !linux

package storage

import "os"

// datasync forces f to disk.
func datasync(f *os.File) error { return f.Sync() }
