//go:build unix

package broker

import "golang.org/x/sys/unix"

// diskSpace is the size of dir's file system and what of it is free to us, -1 when unknown.
func diskSpace(dir string) (total, usable int64) {
	var s unix.Statfs_t
	if err := unix.Statfs(dir, &s); err != nil {
		return -1, -1
	}
	block := int64(s.Bsize) //nolint:unconvert // int32 on some systems
	return int64(s.Blocks) * block, int64(s.Bavail) * block
}
