package broker

import (
	"context"
	"errors"

	"github.com/twmb/franz-go/pkg/kerr"

	"kmirror/broker/storage"
	"kmirror/internal/wire"
)

// kafkaError is a refusal: a code of the protocol and, where the protocol has
// room for it, a word for humans. It is data for one entry of one response.
type kafkaError struct {
	code    int16
	message string
}

func (e *kafkaError) Error() string {
	name := "unknown error"
	if err := kerr.TypedErrorForCode(e.code); err != nil {
		name = err.Message
	}
	if e.message == "" {
		return name
	}
	return name + ": " + e.message
}

// refuse makes a refusal of one of Kafka's errors.
func refuse(err *kerr.Error, message string) *kafkaError {
	return &kafkaError{code: err.Code, message: message}
}

// errorCode is the one place where an error becomes a code of the protocol.
func errorCode(err error) (code int16, message *string) {
	if err == nil {
		return 0, nil
	}
	var own *kafkaError
	var refused *storage.Error
	var known *kerr.Error
	var corrupt *wire.CorruptError
	var inflated *wire.InflateError
	text := err.Error()
	switch {
	case errors.As(err, &own):
		code, text = own.code, own.message
	case errors.Is(err, storage.ErrClosed): // the topic is being deleted, or the node is closing
		code, text = kerr.NotLeaderForPartition.Code, ""
	case errors.As(err, &refused):
		code = refused.Code
	case errors.As(err, &known):
		code = known.Code
		if text == known.Error() {
			text = known.Description
		}
	case errors.As(err, &inflated):
		code = kerr.InvalidRecord.Code
	case errors.As(err, &corrupt):
		code = kerr.CorruptMessage.Code
	case errors.Is(err, context.DeadlineExceeded), errors.Is(err, context.Canceled):
		code, text = kerr.RequestTimedOut.Code, ""
	default: // disk full, input/output error: the log says which
		code = kerr.KafkaStorageError.Code
	}
	if text == "" {
		return code, nil
	}
	return code, &text
}

// note counts an error code of a response and returns it.
func (r *request) note(code int16) int16 {
	if code != 0 {
		r.conn.node.metrics.failure(r.api.name, code)
	}
	return code
}

// fail counts err and returns its code.
func (r *request) fail(err error) int16 {
	code, _ := errorCode(err)
	return r.note(code)
}

// failMessage counts err and returns its code and text.
func (r *request) failMessage(err error) (int16, *string) {
	code, message := errorCode(err)
	return r.note(code), message
}
