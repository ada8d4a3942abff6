package mirror

import (
	"context"
	"time"
)

// Live is all that the engine asks of whoever knows the live world: who is a
// member, who leads, who is to mirror what. Consul's adapter and its
// in-process twin satisfy it. All methods may be called concurrently.
type Live interface {
	// Join makes this instance a member with info and runs life. Its context
	// ends when the membership can no longer be proved; deadline tells until
	// when it is certain, by this process's monotonic clock. The id is unique
	// for each life. A life that ends because its context ended is followed by
	// a new one, and so is one that returns an error with a method Lost() bool
	// that returns true; when ctx ends, Join leaves at once and returns nil; any
	// other error of life's own ends Join.
	Join(ctx context.Context, info []byte, life func(ctx context.Context, id string, deadline func() time.Time) error) error
	// Lead runs term whenever this life holds the leader's term, until ctx
	// ends. The fence grows from term to term, over all instances.
	Lead(ctx context.Context, id string, term func(ctx context.Context, fence uint64) error) error
	// Members calls fn with the members (id to info) and what each holds, now
	// and after every change, until ctx ends.
	Members(ctx context.Context, fn func(members, held map[string][]byte) error) error
	// Living returns the lives that are members at a moment between the call and
	// its return, whatever Members has told so far.
	Living(ctx context.Context) (map[string]struct{}, error)
	// Publish gives a member its assignment; it is refused unless the term
	// with that fence still leads.
	Publish(ctx context.Context, fence uint64, id string, assignment []byte) error
	// Assignments returns all that is published.
	Assignments(ctx context.Context) (map[string][]byte, error)
	// Assignment calls fn with the assignment of id, now and after every
	// change, until ctx ends. Without one fn is not called.
	Assignment(ctx context.Context, id string, fn func(value []byte) error) error
	// Hold publishes what the life holds. It goes when the life's session goes.
	Hold(ctx context.Context, id string, held []byte) error
}
