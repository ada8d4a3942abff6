// Package replica knows what the cluster consists of: topics, their ids,
// partitions and settings, the brokers' dynamic settings, and which producer
// ids are given out.
//
// All of it is one immutable Image behind an atomic pointer: readers take no
// lock and may keep what they got. One writer, the Controller, changes it: a
// command is checked against the image, written to the metadata log as one
// versioned record, and only when that is durable applied and published. So
// the image is a pure function of the log: replaying any prefix gives the image
// of that moment. The log stands behind a small interface (Log), because a
// consensus group takes its place when a cluster has several nodes.
//
// Two more things live here because every writer and reader of settings needs
// them: the tables of topic and broker settings (names, types, defaults,
// synonyms and limits are Kafka's), and the rules for topic names.
//
// It knows no network and no partition data. Refusals are *Error, with the
// Kafka code and the words Kafka would use. Lock order: the controller's mutex
// alone; it is held over the log, which is what makes the writer one.
package replica

import (
	"crypto/rand"
	"fmt"

	"github.com/twmb/franz-go/pkg/kerr"
)

// Error is a refusal: a Kafka error with a message for the client.
type Error struct {
	Kafka   *kerr.Error
	Message string
}

// Error is the message alone; the code goes its own way.
func (e *Error) Error() string { return e.Message }

// Unwrap is the Kafka error, for errors.As.
func (e *Error) Unwrap() error { return e.Kafka }

func refuse(k *kerr.Error, format string, args ...any) *Error {
	return &Error{Kafka: k, Message: fmt.Sprintf(format, args...)}
}

// ID is a topic id. The zero id and the id 1 are reserved by Kafka.
type ID = [16]byte

// NewID is a random UUID (v4); never a reserved one, whose version bits differ.
func NewID() (id ID) {
	_, _ = rand.Read(id[:]) // never fails
	id[6], id[8] = id[6]&0x0f|0x40, id[8]&0x3f|0x80
	return id
}
