// Command kmirror mirrors Kafka topics between clusters.
//
// One binary is both the daemon (`kmirror run`) and the command line. It builds
// every part and joins them; the parts know nothing of it. What it owns itself:
// reading arguments, the order in which parts start and stop, signals, the lock
// on the data directory, logs, the exit code, and words: every fault ends as one
// line that says what to do, never as a stack trace.
//
// The commands that look at clusters (topics, produce, consume, groups,
// translate, check --connect) speak Kafka straight to the clusters that
// mirror.yaml names; status asks the daemon.
package main

import (
	"context"
	"fmt"
	"os"
	"os/signal"
	"syscall"
	"time"
)

func main() {
	started := time.Now()
	ctx, stop := stopOnSignal(context.Background())
	defer stop()
	a := &app{
		in: os.Stdin, out: os.Stdout, err: os.Stderr,
		outTerminal: isTerminal(os.Stdout), errTerminal: isTerminal(os.Stderr), inTerminal: isTerminal(os.Stdin),
		started: started,
	}
	os.Exit(a.main(ctx, os.Args[1:]))
}

// signalEcho is how long after a signal another one is still the same.
const signalEcho = 200 * time.Millisecond

// stopOnSignal returns a context that ends with the first SIGINT or SIGTERM.
// The second one ends the process at once: whoever asks twice does not want to wait.
// One that follows sooner than anybody can ask twice is the first one's echo:
// timeout(1) and some launchers signal the process, and then its whole group.
func stopOnSignal(parent context.Context) (context.Context, func()) {
	ctx, cancel := context.WithCancelCause(parent)
	signals := make(chan os.Signal, 2)
	signal.Notify(signals, os.Interrupt, syscall.SIGTERM)
	go func() {
		select {
		case s := <-signals:
			cancel(&signalError{s})
		case <-ctx.Done():
			return
		}
		echo := time.After(signalEcho)
		for {
			select {
			case <-echo:
				echo = nil
			case s := <-signals:
				if echo != nil {
					continue
				}
				fmt.Fprintf(os.Stderr, "kmirror: %s again, ending at once\n", s)
				os.Exit(exitInterrupted)
			}
		}
	}()
	return ctx, func() {
		signal.Stop(signals)
		cancel(nil)
	}
}

// signalError is the cause of a context that a signal ended.
type signalError struct{ signal os.Signal }

// Error names the signal.
func (e *signalError) Error() string { return e.signal.String() }
