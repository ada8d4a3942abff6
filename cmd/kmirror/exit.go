package main

import (
	"context"
	"errors"
	"net"
	"syscall"

	"github.com/IBM/sarama"
	"github.com/spf13/cobra"
	"github.com/twmb/franz-go/pkg/kerr"

	"kmirror/internal/console"
	"kmirror/internal/kafka"
	"kmirror/topology"
)

// Exit codes. They are documented and stay.
const (
	exitOK          = 0
	exitFailure     = 1
	exitUsage       = 2
	exitUnreachable = 3
	exitNotFound    = 4
	exitBusy        = 5
	exitCheck       = 6
	exitDifferent   = 7
	exitInterrupted = 130
)

func exitCodesTopic() *cobra.Command {
	return &cobra.Command{
		Use:   "exit-codes",
		Short: "What the exit codes mean",
		Long: `Exit codes of every command:

    0  done; for run, consume and status --watch also: stopped by ctrl-c or SIGTERM in good order
    1  it went wrong; for check --connect also: it found something that would not work
    2  the command line or the configuration is at fault; nothing was done
    3  the daemon or a cluster cannot be reached
    4  no such cluster, flow, topic, partition or group
    5  something else is in the way: the port is taken, the data directory is in use, or
       a group that --failback or --adopt should move has members or has moved
    6  a check says no: more than --fail-above, --max-lag or --fail-on of groups, lag and rpo allow
    7  verify: source and target do not hold the same
  130  stopped by ctrl-c or SIGTERM before the work was done; also: a second signal`,
	}
}

// codedError carries the exit code of an error whose type does not tell.
type codedError struct {
	code int
	err  error
}

func withCode(code int, err error) error {
	if err == nil {
		return nil
	}
	return &codedError{code, err}
}

func (e *codedError) Error() string { return e.err.Error() }
func (e *codedError) Unwrap() error { return e.err }

// shownError is an error that the command has put into words itself; only its code is left.
type shownError struct{ code int }

func (e *shownError) Error() string { return "already shown" }

// codeOf is the one place that decides which exit code an error is.
func codeOf(ctx context.Context, err error) int {
	var (
		coded       *codedError
		shown       *shownError
		faults      topology.Faults
		unreachable *console.UnreachableError
		answer      *console.AnswerError
		network     *net.OpError
		naming      *net.DNSError
		lost        *kafka.UnreachableError
	)
	switch {
	case err == nil:
		return exitOK
	case errors.Is(err, context.Canceled) && ctx.Err() != nil:
		return exitInterrupted
	case errors.As(err, &shown):
		return shown.code
	case errors.As(err, &faults):
		return exitUsage
	case errors.As(err, &coded):
		return coded.code
	case errors.As(err, &unreachable):
		return exitUnreachable
	case errors.As(err, &answer):
		if answer.NotFound() {
			return exitNotFound
		}
		return exitFailure
	case errors.Is(err, sarama.ErrUnknownTopicOrPartition), errors.Is(err, kerr.UnknownTopicOrPartition), errors.Is(err, kerr.GroupIDNotFound):
		return exitNotFound
	case errors.Is(err, syscall.EADDRINUSE):
		return exitBusy
	case errors.Is(err, sarama.ErrOutOfBrokers), errors.Is(err, context.DeadlineExceeded), errors.As(err, &lost), errors.As(err, &naming),
		errors.As(err, &network) && network.Op != "listen":
		return exitUnreachable
	default:
		return exitFailure
	}
}
