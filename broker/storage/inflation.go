package storage

import (
	"errors"
	"runtime"

	"kmirror/internal/wire"
)

// commonInflate is what batches of honest clients unpack to at most, nearly always.
const commonInflate = 16 << 20

// inflation bounds what batches unpack to at the same time, over all logs of a
// store, so that many connections with deeply compressed batches cannot take
// more memory together than one may alone: some batches at a time are unpacked
// to commonInflate, and of those that need more, one.
type inflation struct {
	slots chan struct{} // for common batches
	large chan struct{} // for one that needs more
}

func newInflation() *inflation {
	return &inflation{slots: make(chan struct{}, 2*runtime.GOMAXPROCS(0)), large: make(chan struct{}, 1)}
}

// unpack runs fn, which unpacks a batch to at most the limit it is given and
// holds nothing of it when it returns. It may run twice: a fn that was given too
// little says so by a *wire.InflateError before it has done anything else.
func (i *inflation) unpack(limit int, fn func(limit int) error) error {
	err := placed(i.slots, min(limit, commonInflate), fn)
	if _, more := errors.AsType[*wire.InflateError](err); !more || limit <= commonInflate {
		return err
	}
	return placed(i.large, limit, fn)
}

// placed runs fn while it has one of the places.
func placed(places chan struct{}, limit int, fn func(limit int) error) error {
	places <- struct{}{}
	defer func() { <-places }()
	return fn(limit)
}
