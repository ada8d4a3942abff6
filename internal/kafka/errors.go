package kafka

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"

	"kmirror/internal/wire"
)

// Attempt is one address that was tried in vain.
type Attempt struct {
	Addr string
	Err  error
}

// UnreachableError says that no broker of a cluster could be reached. The
// errors of this package that wrap it name the cluster.
type UnreachableError struct {
	Cluster string
	Tried   []Attempt
}

func (e *UnreachableError) Error() string {
	parts := make([]string, 0, len(e.Tried))
	for _, a := range e.Tried {
		cause := a.Err
		if conn, ok := cause.(*wire.ConnError); ok { //nolint:errorlint // only where nothing else is said around it
			cause = conn.Err // the address is said already
		}
		parts = append(parts, fmt.Sprintf("%s (%v)", a.Addr, cause))
	}
	return "no broker can be reached: tried " + strings.Join(parts, ", ")
}

// Unwrap is why each address failed.
func (e *UnreachableError) Unwrap() []error {
	causes := make([]error, 0, len(e.Tried))
	for _, a := range e.Tried {
		causes = append(causes, a.Err)
	}
	return causes
}

// explained adds the words of a broker to its error code.
func explained(err error, message *string) error {
	if err == nil || message == nil || *message == "" {
		return err
	}
	return fmt.Errorf("%w (%s)", err, *message)
}

// brokenConnection reports whether err is a transport's fault, so that another
// connection may do better.
func brokenConnection(err error) bool {
	var conn *wire.ConnError
	return errors.As(err, &conn)
}

// unreachable reports whether err says that no broker answers.
func unreachable(err error) bool {
	var e *UnreachableError
	return errors.As(err, &e)
}

// temporary reports whether the same request may succeed later without anybody
// doing anything: the one place where this package decides so.
func temporary(ctx context.Context, err error) bool {
	var code *kerr.Error
	switch {
	case err == nil, ctx.Err() != nil:
		return false
	case errors.Is(err, kerr.BrokerNotAvailable): // the metadata name a broker that is not there
		return true
	case errors.As(err, &code):
		return code.Retriable
	default:
		return brokenConnection(err) || unreachable(err)
	}
}

// moved are the codes that say: ask for the leader again.
func moved(code int16) bool {
	switch code {
	case kerr.NotLeaderForPartition.Code, kerr.LeaderNotAvailable.Code, kerr.ReplicaNotAvailable.Code,
		kerr.FencedLeaderEpoch.Code, kerr.UnknownLeaderEpoch.Code, kerr.KafkaStorageError.Code,
		kerr.OffsetNotAvailable.Code, kerr.UnknownTopicOrPartition.Code, kerr.UnknownTopicID.Code, kerr.InconsistentTopicID.Code:
		return true
	}
	return false
}

// coordinatorMoved are the codes that say: ask for the coordinator again.
func coordinatorMoved(code int16) bool {
	switch code {
	case kerr.NotCoordinator.Code, kerr.CoordinatorNotAvailable.Code, kerr.CoordinatorLoadInProgress.Code:
		return true
	}
	return false
}

// unknownTopic are the codes that a topic made a moment ago gives for a while,
// and one that is gone forever.
func unknownTopic(err error) bool {
	return errors.Is(err, kerr.UnknownTopicOrPartition) || errors.Is(err, kerr.UnknownTopicID) || errors.Is(err, kerr.InconsistentTopicID)
}

// do is conn.Do with the response in its own type.
func do[R kmsg.Response](ctx context.Context, conn *wire.Conn, req kmsg.Request) (R, error) {
	resp, err := conn.Do(ctx, req)
	return as[R](resp, err)
}

// as gives a response its own type.
func as[R kmsg.Response](resp kmsg.Response, err error) (R, error) {
	var none R
	if err != nil {
		return none, err
	}
	r, ok := resp.(R)
	if !ok {
		return none, fmt.Errorf("answered by %T", resp)
	}
	return r, nil
}
