package storage

import (
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sync/errgroup"
)

// load opens every partition's directory and clears away what is half done.
func (s *Store) load() error {
	entries, err := os.ReadDir(s.o.Dir)
	if err != nil {
		return accessError(s.o.Dir, "cannot be read", err)
	}
	marker := filepath.Join(s.o.Dir, cleanShutdownFile)
	_, err = os.Stat(marker)
	clean := err == nil
	points := s.readOffsets(recoveryPointFile)
	starts := s.readOffsets(logStartFile)
	if clean {
		// From here on a crash is a crash, whatever happens in between.
		if err := s.o.FS.Remove(marker); err != nil {
			return accessError(s.o.Dir, "cannot be written", err)
		}
		if err := s.o.FS.SyncDir(s.o.Dir); err != nil {
			return accessError(s.o.Dir, "cannot be written", err)
		}
	}
	var g errgroup.Group
	g.SetLimit(flushers)
	for _, entry := range entries {
		if !entry.IsDir() {
			continue
		}
		dir := filepath.Join(s.o.Dir, entry.Name())
		if strings.HasSuffix(entry.Name(), "-delete") {
			s.trash.add(dir, s.o.Now())
			continue
		}
		name, ok := parsePartition(entry.Name())
		if !ok {
			s.o.Logger.Warn("ignoring a directory that is no partition", slog.String("dir", dir))
			continue
		}
		g.Go(func() error {
			l, err := s.loadLog(name, dir, loadFacts{clean: clean, point: points[name], start: starts[name]})
			if err != nil {
				return fmt.Errorf("load %s: %w", name, err)
			}
			s.mu.Lock()
			defer s.mu.Unlock()
			s.logs[name] = l
			return nil
		})
	}
	if err := g.Wait(); err != nil {
		if errors.Is(err, fs.ErrPermission) || isFull(err) {
			return accessError(s.o.Dir, "cannot be opened", err)
		}
		return &DirError{Dir: s.o.Dir, Problem: "cannot be opened", Remedy: "repair or remove that partition's directory", Err: err}
	}
	cut := false
	for name, point := range points {
		l := s.logs[name]
		cut = cut || l != nil && l.synced.Load() < point
		s.stale.Store(s.stale.Load() || l == nil)
	}
	for name := range starts {
		s.stale.Store(s.stale.Load() || s.logs[name] == nil)
	}
	if cut {
		if err := s.checkpoint(); err != nil {
			return accessError(s.o.Dir, "cannot be written", err)
		}
	}
	return nil
}

// readOffsets reads a checkpoint of all logs. What cannot be read counts as
// zero, which costs time and is safe.
func (s *Store) readOffsets(name string) map[Partition]int64 {
	content, err := os.ReadFile(filepath.Join(s.o.Dir, name))
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	var offsets map[Partition]int64
	if err == nil {
		offsets, err = decodeOffsets(content)
	}
	if err != nil {
		s.o.Logger.Warn("ignoring a damaged checkpoint", slog.String("file", name), slog.String("error", err.Error()))
		return nil
	}
	return offsets
}
