package consul

import (
	"context"
	"errors"
	"fmt"
	"time"
)

// backend is what is asked of Consul. The remote one asks an agent by HTTP, the
// hub does the same in memory. All methods may be called concurrently and end
// when ctx does.
//
// A query with an index blocks until the answer is newer than it, or wait has
// passed; it returns the index of the answer. Index 0 does not block.
type backend interface {
	register(ctx context.Context, s service) error
	deregister(ctx context.Context, serviceID string) error
	// pass marks a check as passing; errUnknownCheck if the agent has none of that id.
	pass(ctx context.Context, checkID string) error

	// createSession makes a session that dies with its check (unless that is
	// empty; errUnknownCheck if Consul does not know it yet) and releases its locks.
	createSession(ctx context.Context, name, checkID string, ttl time.Duration) (id string, err error)
	renewSession(ctx context.Context, id string) (found bool, err error)
	destroySession(ctx context.Context, id string) error
	session(ctx context.Context, id string, index uint64, wait time.Duration) (found bool, next uint64, err error)

	list(ctx context.Context, prefix string, index uint64, wait time.Duration) (pairs []pair, next uint64, err error)
	keys(ctx context.Context, prefix string) ([]string, error)
	// apply does all of the operations or none. It returns the ModifyIndex of
	// every key that was written; *refusedError if a condition did not hold.
	apply(ctx context.Context, ops []op) (map[string]uint64, error)
}

var errUnknownCheck = errors.New("the agent does not know the check")

// service is an instance as others find it.
type service struct {
	id, name, instance string
	http               string // host:port or empty
	checkID            string
	ttl                time.Duration
}

// pair is one key and its value.
type pair struct {
	key         string
	value       []byte
	session     string // that holds it; empty: none
	modifyIndex uint64
}

type verb string

const (
	verbSet        verb = "set"
	verbLock       verb = "lock" // sets the value too; refused if another session holds the key
	verbUnlock     verb = "unlock"
	verbDelete     verb = "delete"
	verbCheckIndex verb = "check-index" // refused unless the key's ModifyIndex is the index
)

// op is one operation of a transaction; Consul takes 64 in one.
type op struct {
	verb    verb
	key     string
	value   []byte
	session string
	index   uint64
}

// maxOps bounds the operations of one transaction.
const maxOps = 64

// refusedError says that a condition of a transaction did not hold.
type refusedError struct {
	op          int // which one
	lostSession bool
	reason      string
}

func (e *refusedError) Error() string { return fmt.Sprintf("operation %d refused: %s", e.op, e.reason) }
