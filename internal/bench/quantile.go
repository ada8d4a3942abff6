package bench

import (
	"math"
	"slices"
	"time"
)

// Latency is how long records took from when they were due at the source to
// when they could be read at the target.
type Latency struct {
	Records             int64
	P50, P99, P999, Max time.Duration
	// Late is how far the load itself fell behind its schedule at most. It is
	// part of the figures above.
	Late time.Duration
}

// quantiles takes the figures from all samples; none: zero.
func quantiles(samples []time.Duration) Latency {
	if len(samples) == 0 {
		return Latency{}
	}
	slices.Sort(samples)
	// at is the least sample that is not below the share of them all.
	at := func(share float64) time.Duration {
		return samples[max(0, min(len(samples)-1, int(math.Ceil(share*float64(len(samples))))-1))]
	}
	return Latency{Records: int64(len(samples)), P50: at(.5), P99: at(.99), P999: at(.999), Max: samples[len(samples)-1]}
}
