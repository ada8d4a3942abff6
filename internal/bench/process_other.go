//go:build !linux

package bench

import "time"

// UsageOf is not to be had here.
func UsageOf(int) (Usage, error) { return Usage{}, ErrNotTold }

// MemoryOf is not to be had here.
func MemoryOf(int) (Memory, error) { return Memory{}, ErrNotTold }

// MachineBusy is not to be had here.
func MachineBusy() (time.Duration, error) { return 0, ErrNotTold }

// sleepUntil returns at the time, or a little later.
func sleepUntil(at time.Time) { time.Sleep(time.Until(at)) }

// steady is for sleepUntil, which needs nothing here.
func steady() (release func()) { return func() {} }
