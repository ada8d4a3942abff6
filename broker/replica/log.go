package replica

import "context"

// Log is where the controller keeps its records: a log of one partition here,
// a consensus group when several nodes share it. All calls come from one
// goroutine at a time.
type Log interface {
	// Append writes records as one whole, so that after a crash all of them or
	// none are there, and returns when they are durable. first is the offset of
	// the first; the others follow. After an error either nothing was written or
	// every later Append fails too. records are not kept.
	Append(ctx context.Context, records [][]byte) (first int64, err error)
	// Read calls fn for every record from the start of the log to its end. fn
	// does not keep record.
	Read(ctx context.Context, fn func(offset int64, record []byte) error) error
	// Trim tells that nothing before the offset is needed any more.
	Trim(before int64) error
	// Name says where the log is, for messages.
	Name() string
}
