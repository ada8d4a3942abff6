package storage

import (
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"kmirror/internal/wire"
)

// However many batches come at once, one of them unpacks to more than is common.
func TestLargeBatchesUnpackOneAtATime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		i := newInflation()
		var small, large, mostSmall, mostLarge atomic.Int64
		count := func(n, most *atomic.Int64) {
			for now := n.Add(1); ; {
				if seen := most.Load(); now <= seen || most.CompareAndSwap(seen, now) {
					break
				}
			}
			time.Sleep(time.Second)
			n.Add(-1)
		}
		var wait sync.WaitGroup
		for range 200 {
			wait.Go(func() {
				err := i.unpack(defaultInflate, func(limit int) error {
					if limit > commonInflate {
						count(&large, &mostLarge)
						return nil
					}
					count(&small, &mostSmall)
					return &wire.InflateError{Codec: wire.CodecGzip, Limit: limit}
				})
				if err != nil {
					t.Error(err)
				}
			})
		}
		wait.Wait()
		if mostLarge.Load() != 1 || mostSmall.Load() > int64(cap(i.slots)) {
			t.Errorf("at once: %d large, %d small; want 1 and %d at most", mostLarge.Load(), mostSmall.Load(), cap(i.slots))
		}
	})
}
