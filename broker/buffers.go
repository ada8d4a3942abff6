package broker

import (
	"math/bits"
	"sync"
)

const (
	smallestClass = 12 // 4 KiB
	largestClass  = 24 // 16 MiB; anything larger is allocated and left to the collector
)

// buffers lends byte slices by size class, so that a steady stream of requests
// allocates nothing. A class is a power of two from 4 KiB to 16 MiB.
type buffers struct {
	classes [largestClass - smallestClass + 1]sync.Pool
}

// class is the index of the smallest class that holds n bytes, or -1 when none does.
func class(n int) int {
	if n <= 1<<smallestClass {
		return 0
	}
	c := bits.Len(uint(n-1)) - smallestClass
	if c > largestClass-smallestClass {
		return -1
	}
	return c
}

// get lends a slice of length n; its content is arbitrary.
func (b *buffers) get(n int) []byte {
	c := class(n)
	if c < 0 {
		return make([]byte, n)
	}
	if p, ok := b.classes[c].Get().(*[]byte); ok {
		return (*p)[:n]
	}
	return make([]byte, n, 1<<(c+smallestClass))
}

// put takes a slice back that get lent. The caller must hold no alias of it.
func (b *buffers) put(buf []byte) {
	c := class(cap(buf))
	if c < 0 || cap(buf) != 1<<(c+smallestClass) {
		return
	}
	buf = buf[:0]
	b.classes[c].Put(&buf)
}
