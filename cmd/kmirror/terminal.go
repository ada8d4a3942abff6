package main

import (
	"os"

	"golang.org/x/sys/unix"
)

// isTerminal tells whether a person looks at f: only a terminal has a size.
func isTerminal(f *os.File) bool {
	_, err := unix.IoctlGetWinsize(int(f.Fd()), unix.TIOCGWINSZ)
	return err == nil
}
