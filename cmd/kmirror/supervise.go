package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"time"
)

// supervisor runs the daemon's parts. They are started one after the other and
// stopped in the opposite order, each before the next is told to stop: what was
// started first is needed longest. A part that ends by itself ends them all.
type supervisor struct {
	logger *slog.Logger
	parts  []*part
	ended  chan *part // every part, once it has ended
}

// part is one thing that runs.
type part struct {
	name   string
	grace  time.Duration // how long stopping it may hold up the others
	cancel context.CancelFunc
	done   chan struct{} // closed after err was set
	err    error
}

func newSupervisor(logger *slog.Logger) *supervisor {
	return &supervisor{logger: logger, ended: make(chan *part, 64)}
}

// start runs a part at once. The part does not end with ctx, but when it is
// stopped in its turn.
func (s *supervisor) start(ctx context.Context, name string, grace time.Duration, run func(ctx context.Context) error) {
	ctx, cancel := context.WithCancel(context.WithoutCancel(ctx))
	p := &part{name: name, grace: grace, cancel: cancel, done: make(chan struct{})}
	s.parts = append(s.parts, p)
	go func() {
		err := run(ctx)
		switch {
		case ctx.Err() != nil && isStop(err):
			err = nil // it was asked to end
		case err == nil && ctx.Err() == nil:
			err = fmt.Errorf("%s ended by itself", name)
		}
		p.err = err
		close(p.done)
		s.ended <- p
	}()
}

// wait waits until ctx ends, or a part does, and then stops all in turn. It
// returns the first fault; a stop that was asked for is none.
func (s *supervisor) wait(ctx context.Context) error {
	var first error
	select {
	case <-ctx.Done():
		s.logger.Info("stopping", slog.String("because", stopCause(ctx)))
	case p := <-s.ended:
		first = p.err
	}
	return s.stop(first)
}

// stop stops all parts, the last started first, and returns the first fault.
func (s *supervisor) stop(first error) error {
	for _, p := range slices.Backward(s.parts) {
		p.cancel()
		select {
		case <-p.done:
			if p.err != nil && first == nil {
				first = fmt.Errorf("stop %s: %w", p.name, p.err)
			}
		case <-time.After(p.grace):
			s.logger.Warn("a part takes long to stop; going on without it", slog.String("part", p.name), slog.Duration("after", p.grace))
		}
	}
	return first
}

// isStop tells whether an error only says that the context ended.
func isStop(err error) bool { return err == nil || errors.Is(err, context.Canceled) }

func stopCause(ctx context.Context) string { return context.Cause(ctx).Error() }
