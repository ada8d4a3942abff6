package mirror

import (
	"slices"
	"testing/synctest"
	"time"

	"kmirror/internal/kafka"
)

// play runs the world to its end: chaos, then calm until everything has arrived.
func (w *simWorld) play() {
	chaos := simChaos/2 + w.r.IntN(simChaos)
	for w.steps = 0; w.fault == ""; w.steps++ {
		synctest.Wait()
		w.net.collect()
		if w.steps == chaos {
			w.calm()
		}
		if w.steps > chaos && w.steps%16 == 0 && w.arrived() {
			break
		}
		if w.steps > chaos+simLimit && w.hangs() {
			return
		}
		if w.steps > chaos+simLimit {
			w.failf("it does not come to an end: %s", w.state())
			return
		}
		w.step(w.steps < chaos)
	}
	if w.fault == "" {
		w.judge()
	}
}

// step does one thing.
func (w *simWorld) step(chaos bool) {
	n := w.r.IntN(1000)
	if w.house != nil && w.house.r.IntN(12) == 0 {
		w.housekeep()
	}
	switch {
	case n < 450:
		at := w.ready()
		if len(at) == 0 {
			w.move(chaos)
			return
		}
		w.deliver(at[w.r.IntN(len(at))], !chaos)
	case n < 780:
		w.move(chaos)
	case n < 850:
		w.all[w.r.IntN(len(w.all))].replicate()
		w.target(int32(w.r.IntN(len(w.sources)))).replicate()
	case n < 900:
		if due := len(w.coordinator.due); due > 0 {
			i := w.r.IntN(due)
			w.tracef("marker %v %v", w.coordinator.due[i].at, w.coordinator.due[i].producer)
			w.coordinator.write(i, w.logs[w.coordinator.due[i].at], chaos && w.r.IntN(8) == 0)
		}
	case n < 920:
		w.flush()
	case n < 950:
		switch {
		case len(w.ready()) == 0, !chaos && w.idle > 3*len(w.net.pending):
			w.pass(2 * time.Second)
		case chaos || w.r.IntN(10) == 0:
			w.pass(w.pace)
		}
	case n < 968:
		w.assign()
	default:
		if chaos {
			w.harm()
		} else {
			w.tidy()
		}
	}
}

// pass lets time go by.
func (w *simWorld) pass(d time.Duration) { time.Sleep(d) }

// tenures are all of lives that are not dead.
func (w *simWorld) tenures() (all []*simTenure) {
	for _, l := range w.lives {
		if l.dead.Load() || l.ended.Load() || l.paused {
			continue
		}
		l.mu.Lock()
		for p := range int32(len(w.sources)) {
			if t := l.tenures[p]; t != nil {
				all = append(all, t)
			}
		}
		l.mu.Unlock()
	}
	return all
}

// conns are all with something in them that the target may still take.
func (w *simWorld) conns() (all []*simConn) {
	for _, l := range w.lives {
		for p := range int32(len(w.sources)) {
			if c := l.conns[p]; c != nil && len(c.queue) > 0 {
				all = append(all, c)
			}
		}
	}
	w.loose = slices.DeleteFunc(w.loose, func(c *simConn) bool { return len(c.queue) == 0 })
	return append(all, w.loose...)
}

// move moves data: a fetch, a send, a request that arrives, an answer.
func (w *simWorld) move(chaos bool) {
	if conns := w.conns(); len(conns) > 0 && w.r.IntN(2) == 0 {
		c := conns[w.r.IntN(len(conns))]
		switch {
		case c.broken && chaos && w.r.IntN(10) > 0: // it lies in the broker's queue for long
		case c.broken && w.r.IntN(12) == 0: // the broker throws away what came over a broken connection
			c.queue = nil
		case c.queue[0].replied && !c.broken && !c.life.paused:
			c.answer(w)
		default:
			c.take(w, !chaos)
		}
		return
	}
	tenures := w.tenures()
	if len(tenures) == 0 {
		return
	}
	t := tenures[w.r.IntN(len(tenures))]
	lane, at := t.current()
	if lane == nil {
		return
	}
	if w.r.IntN(3) == 0 {
		t.fetch(lane)
	} else {
		t.send(lane, at, false)
	}
}

// flush writes the map of a life behind.
func (w *simWorld) flush() {
	l := w.lives[w.r.IntN(len(w.lives))]
	if l.dead.Load() || l.ended.Load() || l.paused {
		return
	}
	go func() { _ = l.recorder.Flush(l.work) }()
}

// assign gives a partition that nobody holds to somebody, or takes it from one
// to give it to another.
func (w *simWorld) assign() {
	p := int32(w.r.IntN(len(w.sources)))
	if o := w.owner[p]; o != nil && o.life.joined.Load() && !o.ended() {
		return
	}
	var able []*simLife
	for _, l := range w.current {
		if l != nil && l.joined.Load() && !l.ended.Load() && !l.dead.Load() {
			able = append(able, l)
		}
	}
	if len(able) == 0 {
		return
	}
	l := able[w.r.IntN(len(able))]
	l.mu.Lock()
	busy := l.tenures[p] != nil && !l.tenures[p].ended()
	l.mu.Unlock()
	if !busy {
		w.tracef("assign %d to %s", p, l.name)
		w.owner[p] = l.begin(p)
	}
}

// tidy lets somebody learn what has become of him.
func (w *simWorld) tidy() {
	for _, l := range w.lives {
		switch {
		case l.dead.Load() && l.joined.Load():
			w.lose(l)
			return
		case l.ended.Load() && l.joined.Load():
			w.lose(l)
			return
		case !l.joined.Load() && !l.noticed.Load() && !l.paused && w.r.IntN(2) == 0 && !w.rules.endlessLease:
			w.tracef("notice %s", l.name)
			l.notice()
			return
		}
	}
	w.rejoin()
}

// rejoin begins a new life where one has ended.
func (w *simWorld) rejoin() {
	for i, l := range w.current {
		if l == nil || l.dead.Load() || l.ended.Load() || !l.joined.Load() && w.rules.endlessLease {
			w.current[i] = w.newLife(i)
			w.tracef("new %s", w.current[i].name)
			return
		}
	}
}

// calm ends all that goes wrong.
func (w *simWorld) calm() {
	w.tracef("calm")
	for _, l := range w.lives {
		if l.paused {
			w.wake(l)
		}
		if l.dead.Load() || l.ended.Load() {
			w.lose(l)
		}
	}
	for _, log := range w.all {
		if !log.leader && log.at != (kafka.TopicPartition{Topic: "t", Partition: w.stuck}) {
			w.elect(log, log.end)
		}
	}
	if w.stuck >= 0 {
		w.target(w.stuck).leader = false
	}
	for _, s := range w.sources {
		s.grow(1 << 20)
	}
	for _, t := range w.coordinator.txns {
		if t.status == simOngoing && w.r.IntN(2) == 0 {
			w.coordinator.abort(t)
		}
	}
}
