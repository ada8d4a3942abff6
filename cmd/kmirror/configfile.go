package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"kmirror/internal/console"
	"kmirror/topology"
)

// flowTaker is the engine as a reload sees it: it takes a configuration whole or
// not at all.
type flowTaker interface {
	Reload(config *topology.Config) ([]topology.Change, error)
}

// configFile is mirror.yaml as the daemon knows it: what of it holds, and what
// became of the newest attempt to take another one.
type configFile struct {
	path   string // absolute
	load   func(path string) (*topology.Config, error)
	engine flowTaker
	level  func(name string) // sets the level of the log; nil: the command line has set it
	logger *slog.Logger

	turn chan struct{} // capacity 1: who reloads

	mu      sync.Mutex // guards the fields below
	running *topology.Config
	state   console.ConfigState
}

func newConfigFile(running *topology.Config, logger *slog.Logger) *configFile {
	path, err := filepath.Abs(running.Path)
	if err != nil { // the working directory is gone; then so is the file
		path = running.Path
	}
	f := &configFile{path: path, logger: logger, running: running, turn: make(chan struct{}, 1), state: console.ConfigState{Path: path, Taken: time.Now()}}
	f.load = func(string) (*topology.Config, error) { return topology.Load(running.Path) }
	return f
}

// State is what the status says of the file.
func (f *configFile) State() console.ConfigState {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.state
}

// Reload reads the file and takes what is live of it; see [console.Configuration].
func (f *configFile) Reload(ctx context.Context, dryRun bool) (console.ReloadAnswer, error) {
	select {
	case f.turn <- struct{}{}:
		defer func() { <-f.turn }()
	case <-ctx.Done():
		return console.ReloadAnswer{}, fmt.Errorf("another reload is under way: %w", ctx.Err())
	}
	answer := console.ReloadAnswer{Path: f.path, DryRun: dryRun, Changes: []topology.Change{}}
	newer, err := f.load(f.path)
	if err != nil {
		return f.refuse(answer, err), nil
	}
	f.mu.Lock()
	running := f.running
	f.mu.Unlock()
	if changes := topology.Diff(running, newer); len(changes) > 0 {
		answer.Changes = changes
	}
	live, err := running.Live(newer)
	if err != nil {
		return f.refuse(answer, err), nil
	}
	if dryRun {
		return answer, nil
	}
	if err := f.take(running, live); err != nil {
		return f.refuse(answer, err), nil
	}
	answer.Taken = true
	f.taken(live, answer.Changes)
	return answer, nil
}

// take gives the engine its flows, and the log its level.
func (f *configFile) take(running, live *topology.Config) error {
	flows := 0
	for _, change := range topology.Diff(running, live) {
		if strings.HasPrefix(change.Path, "flows[") {
			flows++
		}
	}
	if flows > 0 {
		if _, err := f.engine.Reload(live); err != nil {
			return err
		}
	}
	if f.level != nil {
		f.level(live.Log.Level)
	}
	return nil
}

// refuse remembers and tells why a file was not taken. A dry run only tells whoever asked.
func (f *configFile) refuse(answer console.ReloadAnswer, err error) console.ReloadAnswer {
	answer.Error = clean(err.Error())
	if faults, ok := errors.AsType[topology.Faults](err); ok {
		answer.Error = plural(len(faults), "fault") + " in " + f.path
		for _, fault := range faults {
			answer.Faults = append(answer.Faults, clean(fault.Error()))
		}
	}
	if answer.DryRun {
		return answer
	}
	now := time.Now()
	f.mu.Lock()
	f.state.Refused, f.state.Error = &now, answer.Error
	if len(answer.Faults) > 0 {
		f.state.Error += ": " + answer.Faults[0]
	}
	f.mu.Unlock()
	f.logger.Error("the configuration file is not taken, nothing has changed", slog.String("path", f.path), slog.String("error", answer.Error))
	for _, fault := range answer.Faults {
		f.logger.Error("the configuration file", slog.String("fault", fault))
	}
	return answer
}

// taken remembers and tells what of a file holds now.
func (f *configFile) taken(live *topology.Config, changes []topology.Change) {
	var waiting []string
	for _, change := range changes {
		if !change.Live {
			waiting = append(waiting, change.Path)
			f.logger.Warn("the configuration file says what only a restart brings", slog.String("change", change.String()))
		}
	}
	f.logger.Info("the configuration file is taken", slog.String("path", f.path), slog.Int("changes", len(changes)-len(waiting)), slog.Int("need_a_restart", len(waiting)))
	f.mu.Lock()
	defer f.mu.Unlock()
	f.running = live
	f.state = console.ConfigState{Path: f.path, Taken: time.Now(), Waiting: waiting}
}

// watch reloads whenever the process is told to by a signal.
func (f *configFile) watch(ctx context.Context, hangups <-chan os.Signal) error {
	for {
		select {
		case <-hangups:
			if _, err := f.Reload(ctx, false); err != nil && ctx.Err() == nil {
				return err
			}
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}
