package storage

import (
	"errors"
	"fmt"
	"syscall"

	"github.com/twmb/franz-go/pkg/kerr"
)

// Error is a refusal in Kafka's words: Code goes into the response of that one
// partition. Message is for people, Err the cause when there is one.
type Error struct {
	Code         int16
	Message      string
	RecordErrors []RecordError // with INVALID_RECORD and INVALID_TIMESTAMP: which records
	Err          error
}

// RecordError names one record of a refused batch by its place in it.
type RecordError struct {
	Index   int32
	Message string
}

func (e *Error) Error() string {
	name := fmt.Sprintf("code %d", e.Code)
	if known := kerr.TypedErrorForCode(e.Code); known != nil {
		name = known.Message
	}
	if e.Err != nil {
		return fmt.Sprintf("%s: %s: %v", name, e.Message, e.Err)
	}
	return name + ": " + e.Message
}

func (e *Error) Unwrap() error { return e.Err }

func refuse(code *kerr.Error, format string, args ...any) *Error {
	return &Error{Code: code.Code, Message: fmt.Sprintf(format, args...)}
}

func storageError(err error, format string, args ...any) *Error {
	return &Error{Code: kerr.KafkaStorageError.Code, Message: fmt.Sprintf(format, args...), Err: err}
}

// DirError says why a data directory cannot be used and what to do about it.
type DirError struct {
	Dir     string
	Problem string
	Remedy  string
	Err     error
}

func (e *DirError) Error() string {
	if e.Err != nil {
		return fmt.Sprintf("data directory %s: %s: %v; %s", e.Dir, e.Problem, e.Err, e.Remedy)
	}
	return fmt.Sprintf("data directory %s: %s; %s", e.Dir, e.Problem, e.Remedy)
}

func (e *DirError) Unwrap() error { return e.Err }

// errGone says that a segment was deleted after the reader found it.
var errGone = errors.New("segment is deleted")

// ErrClosed is the cause of an *Error after the store was closed or the
// partition deleted.
var ErrClosed = errors.New("log is closed")

// isFull reports whether err means that there is no room for now.
func isFull(err error) bool {
	return errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EDQUOT)
}
