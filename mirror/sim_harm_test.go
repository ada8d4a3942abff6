package mirror

import (
	"errors"
	"slices"
	"time"

	"kmirror/checkpoint"
	"kmirror/internal/kafka"
	"kmirror/internal/wire"
)

// lose takes a life off the living.
func (w *simWorld) lose(l *simLife) {
	if l.joined.Load() {
		w.tracef("lose %s", l.name)
		l.lostAt.Store(time.Now().UnixNano())
		l.joined.Store(false)
	}
}

func (w *simWorld) pause(l *simLife) {
	w.tracef("pause %s", l.name)
	l.mu.Lock()
	tenures := l.tenures
	l.mu.Unlock()
	if w.r.IntN(2) == 0 {
		for p := range int32(len(w.sources)) {
			if t := tenures[p]; t != nil {
				if lane, at := t.current(); lane != nil {
					t.send(lane, at, true)
				}
			}
		}
	}
	l.paused = true
}

func (w *simWorld) wake(l *simLife) {
	w.tracef("wake %s", l.name)
	l.paused = false
	for _, r := range w.net.pending {
		if r.life == l {
			r.held = false
		}
	}
	for _, c := range l.conns {
		for _, f := range c.queue {
			f.held = false
		}
	}
}

// elect gives a partition a new leader: a clean one may still lose what was not
// acknowledged, an unclean one more.
func (w *simWorld) elect(log *simLog, to int64) {
	w.tracef("elect %v, %d of %d (high watermark %d)", log.at, to, log.end, log.hw)
	log.truncate(to)
	log.hw = log.end
	log.leader = true
	log.epoch++
	for _, c := range w.conns() {
		for _, f := range c.queue {
			if f.log == log && !f.replied && !f.held {
				f.deposed = true
			}
		}
	}
	if log.at.Topic == "t" {
		for _, l := range w.lives {
			l.mu.Lock()
			t := l.tenures[log.at.Partition]
			l.mu.Unlock()
			if t != nil {
				poke(t.moved)
			}
		}
	}
}

// between is an offset above low, up to high, where a batch ends.
func (w *simWorld) between(low, high int64) int64 {
	if high <= low {
		return high
	}
	return low + w.r.Int64N(high-low+1)
}

// harm does something bad.
func (w *simWorld) harm() {
	l := w.current[w.r.IntN(len(w.current))]
	p := int32(w.r.IntN(len(w.sources)))
	data := w.target(p)
	n := w.r.IntN(100)
	if w.rough && l != nil && !l.dead.Load() && l.conns[p] != nil && slices.ContainsFunc(l.conns[p].queue, func(f *simFlying) bool { return !f.taken }) {
		n = []int{55, 55, 71, 71}[w.r.IntN(4)] // something is under way: that is the moment
	}
	switch {
	case n < 8:
		w.sources[p].grow(1 + w.r.IntN(3))
	case n < 16: // a stranger
		b, err := wire.EncodeBatch(nil, []wire.Record{{Value: []byte("stranger"), Timestamp: 5}}, wire.Plain(wire.CodecNone))
		if err != nil {
			panic(err)
		}
		if data.leader {
			data.store(b)
		}
	case n < 26: // a new leader
		log := data
		if w.r.IntN(3) == 0 {
			log = w.all[w.r.IntN(len(w.all))]
		}
		w.elect(log, w.between(log.hw, log.end))
	case n < 30: // no leader for a while
		log := data
		if w.r.IntN(3) == 0 {
			log = w.all[w.r.IntN(len(w.all))]
		}
		if log.leader {
			w.tracef("no leader %v", log.at)
			log.leader = false
		} else {
			w.elect(log, w.between(log.hw, log.end))
		}
	case n < 36:
		if w.faults.unclean && data.leader && w.r.IntN(3) == 0 {
			w.elect(data, w.between(max(data.start, data.hw-20), data.hw))
		}
	case n < 39:
		if w.faults.ledgerLoss {
			log := w.logs[kafka.TopicPartition{Topic: checkpoint.MapTopic, Partition: checkpoint.Key{Flow: w.flow.Name, Topic: "s", TopicID: [16]byte{1}, Partition: p}.MapPartition()}]
			w.elect(log, w.ledgerEnd(log))
		}
	case n < 45:
		if w.faults.retention {
			w.retain(p)
		}
	case n < 49:
		if w.faults.quiet {
			w.quiet()
		}
	case n < 53:
		if w.faults.expiry {
			w.expire()
		}
	case n < 55: // a transaction times out
		for _, life := range w.lives {
			if t := w.coordinator.txns[life.fence.id]; t != nil && t.status == simOngoing {
				w.coordinator.abort(t)
				break
			}
		}
	case n < 63:
		if l != nil && l.conns[p] != nil {
			w.tracef("cut %s %d", l.name, p)
			w.cut(l, p)
			l.mu.Lock()
			t := l.tenures[p]
			l.mu.Unlock()
			if lane, _ := t.current(); lane != nil && w.r.IntN(2) == 0 {
				lane.fault(&waitError{"something else is the matter"})
			}
		}
	case n < 71 && !w.rough || n == 63: // SIGSTOP, SIGCONT
		for _, l := range w.lives {
			if l.paused && w.r.IntN(2) == 0 {
				w.wake(l)
				return
			}
		}
		if l != nil && !l.dead.Load() {
			w.pause(l)
		}
	case n < 79: // kill -9
		if l != nil && !l.dead.Load() {
			w.tracef("kill %s", l.name)
			l.kill()
			if w.rough || w.r.IntN(2) == 0 {
				w.lose(l)
			}
		}
	case n < 84: // its session ends; it may not know
		if l != nil {
			w.lose(l)
		}
	case n < 88:
		w.tidy()
	case n < 93: // a cooperative handover
		if o := w.owner[p]; o != nil {
			w.tracef("release %d by %s", p, o.life.name)
			o.cancel()
		}
	case n < 95: // the process ends in order
		if l != nil && !l.paused {
			w.tracef("stop %s", l.name)
			l.stop()
		}
	default:
		w.rejoin()
	}
}

// retain drops old records: of the target what it likes, of the source what has
// been mirrored, and now and then a little more.
func (w *simWorld) retain(p int32) {
	data := w.target(p)
	if w.r.IntN(2) == 0 {
		data.retain(w.between(data.start, min(data.hw, w.mapped(p))))
		w.tracef("target %d starts at %d of %d", p, data.start, data.hw)
		return
	}
	if through := w.through(p); through > 0 {
		s := w.sources[p]
		if w.r.IntN(4) == 0 {
			through += w.r.Int64N(8)
		}
		s.retain(through)
		w.tracef("source %d starts at %d", p, s.start)
	}
}

// mapped is how far the map of a partition is written down. Retention stays behind
// it: a batch that goes before it is in the map, and before anybody has read it, is
// one of which nobody can know.
func (w *simWorld) mapped(p int32) int64 {
	loaded, err := w.loaded(p)
	if err != nil {
		w.failf("load: %v", err)
		return 0
	}
	_, mapped, _ := loaded.Runs.End()
	return mapped
}

// ledgerEnd is where the ledger may be cut so that it loses steps, but no epoch's
// beginning.
func (w *simWorld) ledgerEnd(log *simLog) int64 {
	to := log.hw
	for i := len(log.batches) - 1; i >= 0 && log.hw-to < 4; i-- {
		b := log.batches[i]
		if b.BaseOffset() >= log.hw {
			continue
		}
		recs, err := b.Records(inflateLimit)
		if err != nil || b.IsControl() {
			break
		}
		for _, rec := range recs {
			what, _ := checkpoint.Decode(rec)
			if a, ok := what.(checkpoint.Anchor); !ok || a.Steps[0].Sequence == 0 {
				return to
			}
		}
		to = b.BaseOffset()
	}
	return to
}

// quiet is days in which nothing happens: whatever was under way has arrived or
// not, brokers have closed the connections of those who were stopped, and
// partitions have forgotten their producers.
func (w *simWorld) quiet() {
	w.tracef("days pass")
	for _, c := range w.conns() {
		for i := 0; i < 2*len(c.queue)+2 && len(c.queue) > 0; i++ {
			c.take(w, true)
			if len(c.queue) > 0 {
				c.queue[0].log.replicate()
			}
		}
	}
	for _, l := range w.lives {
		if l.paused {
			w.unplug(l)
		}
	}
	for _, c := range w.conns() {
		if c.broken {
			c.queue = nil
		}
	}
	for i := range slices.Backward(w.net.pending) {
		if w.net.pending[i].orphan {
			w.net.pending = slices.Delete(w.net.pending, i, i+1)
		}
	}
	for len(w.coordinator.due) > 0 {
		before := len(w.coordinator.due)
		for i := before - 1; i >= 0; i-- {
			w.coordinator.write(i, w.logs[w.coordinator.due[i].at], false)
		}
		if len(w.coordinator.due) == before {
			break
		}
	}
	for _, l := range w.lives {
		if l.paused || l.dead.Load() {
			w.lose(l)
		}
	}
	w.pass(25 * time.Hour)
	for _, l := range w.all {
		l.forget()
	}
}

// unplug breaks the connections of a process that is stopped: brokers close those
// over which nothing comes, and what it has not sent yet finds them closed.
func (w *simWorld) unplug(l *simLife) {
	for p := range int32(len(w.sources)) {
		w.cut(l, p)
	}
	for _, r := range w.net.pending {
		if r.life == l && r.held {
			r.held, r.answered, r.err = false, true, &wire.ConnError{Addr: "broker", Err: errors.New("closed")}
		}
	}
}

// expire lets the transactional id of somebody expire who does not renew it.
func (w *simWorld) expire() {
	for _, l := range w.lives {
		if (l.dead.Load() || l.paused) && !l.joined.Load() && w.r.IntN(2) == 0 {
			w.tracef("the id of %s expires", l.name)
			w.pass(2 * time.Minute) // in truth it takes days: by then whoever was stopped knows that he was
			w.unplug(l)
			w.coordinator.expire(l.fence.id)
			return
		}
	}
}
