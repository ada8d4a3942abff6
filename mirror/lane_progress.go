package mirror

import (
	"time"
)

// laneStats counts since the tenure began. Guarded by lane.mu.
type laneStats struct {
	records, bytes uint64
	modes          map[modeReason]uint64 // batches
	dropped        map[string]uint64     // offsets, by reason
	strangers      uint64                // records of others found between ours
}

func newLaneStats() laneStats {
	return laneStats{modes: map[modeReason]uint64{}, dropped: map[string]uint64{}}
}

type modeReason struct {
	mode   mode
	reason string
}

// markBehind keeps the moment since which the lane is behind. Called with mu held.
func (l *lane) markBehind() {
	switch {
	case l.sourceEnd <= l.acked:
		l.behindSince = time.Time{}
	case l.behindSince.IsZero():
		l.behindSince = time.Now()
	}
}

// progress is what a lane shows.
type progress struct {
	position, sourceEnd, targetEnd, lag int64
	lagSeconds                          float64
	blocked                             string
	newest                              int64 // greatest timestamp of a record brought into the target; 0: none
	stats                               laneStats
}

func (l *lane) progress(now time.Time) progress {
	sum := newLaneStats()
	p := l.show(now, &sum)
	p.stats = sum
	return p
}

// show is progress without counters of its own: they are added to sum, so that
// whoever looks at very many lanes allocates nothing for each.
func (l *lane) show(now time.Time, sum *laneStats) progress {
	l.mu.Lock()
	defer l.mu.Unlock()
	p := progress{position: l.acked, sourceEnd: l.sourceEnd, targetEnd: l.targetEnd, blocked: l.blocked, newest: l.lastStamp}
	if p.blocked == "" && l.refusals >= toldRefusals {
		p.blocked = l.refusal
	}
	if p.blocked == "" && l.sourceFault != "" && now.Sub(l.faultSince) > toldFault {
		p.blocked = l.sourceFault
	}
	sum.add(l.stats)
	if l.sourceEnd > l.acked {
		p.lag = l.sourceEnd - l.acked
		p.lagSeconds = now.Sub(l.behindSince).Seconds()
		if l.queue.len() > 0 { // the oldest record not yet there tells how far behind the content is
			if stamp := l.queue.at(0).batch.BaseTimestamp(); stamp > 0 {
				p.lagSeconds = max(p.lagSeconds, now.Sub(time.UnixMilli(stamp)).Seconds())
			}
		}
	}
	return p
}

// starts takes note of where the target's log begins; -1 is not known.
func (l *lane) starts(at int64) {
	if at < 0 {
		return
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.targetStart, l.startAt = at, time.Now()
}

// begins is where the target's log begins, and since when that is known.
func (l *lane) begins() (offset int64, at time.Time) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.targetStart, l.startAt
}
