package mirror

import (
	"fmt"

	"kmirror/checkpoint"
	"kmirror/internal/kafka"
)

// fencedError says that this life may not write any more: another has ended its
// identity. A new life may begin.
type fencedError struct {
	id    string // transactional
	cause error
}

func (e *fencedError) Error() string {
	return fmt.Sprintf("this life (%s) was fenced: another instance took over, or an operator fenced it: %v", e.id, e.cause)
}
func (e *fencedError) Unwrap() error { return e.cause }

// Lost says that the life ends and another may begin.
func (e *fencedError) Lost() bool { return true }

// spentError says that the epochs of an identity are used up.
type spentError struct{ id string }

func (e *spentError) Error() string {
	return fmt.Sprintf("the epochs of %s are used up: a new life begins", e.id)
}

// Lost says that the life ends and another may begin.
func (e *spentError) Lost() bool { return true }

// movedError says that the flow's source is not the cluster any more that this
// life's producer id is written down for.
type movedError struct{ was, is string }

func (e *movedError) Error() string {
	return fmt.Sprintf("the flow's source is another cluster now (id %q, before %q): a new life begins", e.is, e.was)
}

// Lost says that the life ends and another may begin.
func (e *movedError) Lost() bool { return true }

// lapsedError says that a dead owner can never be fenced: the target has
// forgotten its transactional id, so that the id now means somebody else.
type lapsedError struct {
	id        string
	was, is   int64 // producer ids
	partition kafka.TopicPartition
}

func (e *lapsedError) Error() string {
	return fmt.Sprintf("the former owner %s of %s cannot be fenced: the target gave its producer id up (it was %d, now %d; transactional.id.expiration.ms). "+
		"If that instance is certainly gone, accept it: kmirror resume FLOW TOPIC --accept fence-lost, or unfenced: continue", e.id, e.partition, e.was, e.is)
}

// unfencedError says that a former owner could not be fenced just now.
type unfencedError struct {
	owner     string
	partition kafka.TopicPartition
	err       error
}

func (e *unfencedError) Error() string {
	return fmt.Sprintf("the former owner %s of %s is not fenced yet: %v", e.owner, e.partition, e.err)
}
func (e *unfencedError) Unwrap() error { return e.err }

// ownerOf makes an owner of a writer, for the partitions of the offset map's topic.
func ownerOf(w checkpoint.Writer) checkpoint.Owner {
	return checkpoint.Owner{Key: checkpoint.Key{Flow: w.Flow}, TransactionalID: w.TransactionalID, ProducerID: w.ProducerID, TimeMillis: w.TimeMillis}
}
