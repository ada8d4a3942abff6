package main

import (
	"context"
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
)

func TestPartsStopInTurn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var order []string
		ctx, cancel := context.WithCancelCause(t.Context())
		s := newSupervisor(slog.New(slog.DiscardHandler))
		for _, name := range []string{"clusters", "page", "engine"} {
			s.start(ctx, name, time.Minute, func(ctx context.Context) error {
				<-ctx.Done()
				time.Sleep(time.Second) // it takes a while to drain
				order = append(order, name)
				return ctx.Err()
			})
		}
		synctest.Wait()
		cancel(errors.New("SIGTERM"))
		if err := s.wait(ctx); err != nil {
			t.Errorf("wait = %v", err)
		}
		if diff := cmp.Diff([]string{"engine", "page", "clusters"}, order); diff != "" {
			t.Errorf("stopped in another order (-want +got):\n%s", diff)
		}
	})
}

func TestOnePartsEndIsTheEndOfAll(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSupervisor(slog.New(slog.DiscardHandler))
		broken := errors.New("disk full")
		stopped := false
		s.start(t.Context(), "clusters", time.Minute, func(ctx context.Context) error {
			<-ctx.Done()
			stopped = true
			return nil
		})
		s.start(t.Context(), "engine", time.Minute, func(context.Context) error { time.Sleep(time.Hour); return broken })
		if err := s.wait(t.Context()); !errors.Is(err, broken) || !stopped {
			t.Errorf("wait = %v, clusters stopped: %v", err, stopped)
		}
	})
}

func TestAPartThatEndsWithoutAWordIsAFault(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSupervisor(slog.New(slog.DiscardHandler))
		s.start(t.Context(), "page", time.Minute, func(context.Context) error { return nil })
		if err := s.wait(t.Context()); err == nil || !strings.Contains(err.Error(), "page ended by itself") {
			t.Errorf("wait = %v", err)
		}
	})
}

func TestAPartThatHangsHoldsNobodyUpForEver(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		s := newSupervisor(slog.New(slog.DiscardHandler))
		release := make(chan struct{})
		s.start(ctx, "engine", 20*time.Second, func(context.Context) error { <-release; return nil })
		cancel()
		began := time.Now()
		if err := s.wait(ctx); err != nil || time.Since(began) != 20*time.Second {
			t.Errorf("wait = %v after %s", err, time.Since(began))
		}
		close(release)
	})
}

func TestDataDirectoryHasOneOwner(t *testing.T) {
	path := filepath.Join(t.TempDir(), "data")
	first, err := openDataDir(path)
	if err != nil {
		t.Fatal(err)
	}
	_, err = openDataDir(path)
	if err == nil || codeOf(t.Context(), err) != exitBusy || !strings.Contains(err.Error(), "process ") || !strings.Contains(err.Error(), "data_dir of its own") {
		t.Errorf("the second owner gets %v", err)
	}
	first.close()
	again, err := openDataDir(path)
	if err != nil {
		t.Fatal(err)
	}
	again.close()
}

func TestDataDirectoryInTheWay(t *testing.T) {
	file := filepath.Join(t.TempDir(), "data")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := openDataDir(file); err == nil || !strings.Contains(err.Error(), "file of that name") {
		t.Errorf("got %v", err)
	}
	if os.Getuid() == 0 {
		t.Skip("root has every right; the case without rights needs another user")
	}
	locked := filepath.Join(t.TempDir(), "locked")
	if err := os.Mkdir(locked, 0o500); err != nil {
		t.Fatal(err)
	}
	if _, err := openDataDir(filepath.Join(locked, "data")); err == nil || !strings.Contains(err.Error(), "no right to write") {
		t.Errorf("got %v", err)
	}
}

func TestContainerMemory(t *testing.T) {
	path := filepath.Join(t.TempDir(), "memory.max")
	for text, want := range map[string]int64{"max\n": 0, "1073741824\n": 1 << 30, "": 0, "-1": 0} {
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if got := containerMemory(path); got != want {
			t.Errorf("containerMemory(%q) = %d, want %d", text, got, want)
		}
	}
	if got := containerMemory(path + ".none"); got != 0 {
		t.Errorf("without the file: %d", got)
	}
}

func TestAClusterThatWasRenamedIsNotForgotten(t *testing.T) {
	r := startDaemon(t, "")
	r.halt(t)
	text, err := os.ReadFile(r.config)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(r.config, []byte(strings.Replace(string(text), "east:", "orient:", 1)), 0o600); err != nil {
		t.Fatal(err)
	}
	r.out, r.err, r.ended = lockedBuffer{}, lockedBuffer{}, make(chan int, 1)
	r.start(t)
	if said := r.err.String(); !strings.Contains(said, "if it was renamed, rename it back") || !strings.Contains(said, "cluster=east") || strings.Contains(said, "cluster=west dir=") {
		t.Errorf("it does not tell of east, which it holds and does not serve:\n%s", said)
	}
}
