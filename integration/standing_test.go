package integration_test

import (
	"os"
	"slices"
	"sync"
	"testing"
)

// standing is a testing.TB that outlives the tests: what is started with it
// ends with the package. What goes wrong with it fails the test that uses it.
type standing struct {
	testing.TB // of the test that uses it

	mu       sync.Mutex // guards the fields below
	cleanups []func()
	dir      string
}

// Cleanup registers what end shall do.
func (s *standing) Cleanup(f func()) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.cleanups = append(s.cleanups, f)
}

// Failed says no: a log that belongs to many tests is shown by none of them.
func (*standing) Failed() bool { return false }

// TempDir is one directory for all that stands.
func (s *standing) TempDir() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.dir == "" {
		dir, err := os.MkdirTemp("", "kmirror-standing-")
		if err != nil {
			s.Fatal(err)
		}
		s.dir = dir
	}
	return s.dir
}

// end undoes everything, the last first.
func (s *standing) end() {
	s.mu.Lock()
	cleanups, dir := s.cleanups, s.dir
	s.cleanups, s.dir = nil, ""
	s.mu.Unlock()
	for _, f := range slices.Backward(cleanups) {
		f()
	}
	if dir != "" {
		_ = os.RemoveAll(dir)
	}
}
