package storage

import "sync/atomic"

// handle is an open segment file that several may use. The last to release it
// closes it.
type handle struct {
	file File
	of   *segment
	refs atomic.Int32 // one of them belongs to the segment, until drop
	hot  atomic.Bool
}

// retain reports false when the file is closed already.
func (h *handle) retain() bool {
	for {
		n := h.refs.Load()
		if n <= 0 {
			return false
		}
		if h.refs.CompareAndSwap(n, n+1) {
			if !h.hot.Load() {
				h.hot.Store(true)
			}
			return true
		}
	}
}

func (h *handle) release() {
	if h.refs.Add(-1) == 0 {
		_ = h.file.Close() // what counts was synced before; a reader has nothing to lose
	}
}

func (h *handle) weight() int64 { return 1 }
func (h *handle) takeHot() bool { return h.hot.Swap(false) }
func (h *handle) dead() bool    { return h.of.handle.Load() != h }

// drop takes the file from its segment, which opens it again when needed.
func (h *handle) drop() {
	if h.of.handle.CompareAndSwap(h, nil) {
		h.release()
	}
}
