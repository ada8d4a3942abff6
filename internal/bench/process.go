package bench

import (
	"errors"
	"time"
)

// ErrNotTold says that this platform does not tell what a process used.
var ErrNotTold = errors.New("only Linux tells what another process used")

// Usage is what a process has used since it began.
type Usage struct {
	User, System time.Duration
	total        time.Duration // finer than the sum of both
}

// CPU is all processor time, of all threads, those that ended included.
func (u Usage) CPU() time.Duration { return u.total }

// Sub is what was used after v.
func (u Usage) Sub(v Usage) Usage {
	return Usage{User: u.User - v.User, System: u.System - v.System, total: u.total - v.total}
}

// Memory is what a process holds in memory, in bytes.
type Memory struct{ Resident, Peak int64 }
