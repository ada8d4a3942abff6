package mirror

import (
	"slices"
	"time"

	"kmirror/checkpoint"
	"kmirror/internal/wire"
)

// appendReviving is append; with rule 2 off, who is fenced takes a new epoch and
// goes on.
func (w *simWorld) appendReviving(log *simLog, b wire.Batch, _ string) (int64, error) {
	base, err := log.append(b)
	if err != nil && w.rules.unconditional {
		if p := log.producers[b.ProducerID()]; p != nil && b.ProducerEpoch() < p.epoch {
			next := slices.Clone(b)
			sequence := int32(0)
			if n := len(p.last); n > 0 {
				sequence = p.last[n-1].last + 1
			}
			next.Rewrite(wire.HeaderEdit{ProducerID: b.ProducerID(), ProducerEpoch: p.epoch, BaseSequence: sequence})
			return log.append(next)
		}
	}
	return base, err
}

func (t *simTenure) fetch(l *lane) {
	w := t.life.world
	s := w.sources[t.partition]
	offset, a := l.wants()
	if a != hungry || offset >= s.end {
		return
	}
	res := s.fetch(offset, 60+w.r.IntN(1500))
	if res.Err != nil {
		l.fault(&waitError{"the source says that the position is out of range"})
		return
	}
	c, err := climb(slices.Clone(res.Records), offset, s.abortedFrom(offset), l.limits())
	if err != nil {
		w.failf("climb at %d: %v", offset, err)
		return
	}
	slab := t.life.budget.slab()
	slab.alloc(len(res.Records))
	steps, gate := l.take(offset, c, slab, s.end)
	slab.drop()
	if gate > 0 {
		w.tracef("%s steps %v", t.life.name, steps)
		anchor := checkpoint.Anchor{Key: l.key, ProducerID: l.producer, Epoch: l.epoch, Steps: steps}
		t.life.ledger.Write([]checkpoint.Anchor{anchor}, func(err error) {
			if err == nil {
				l.open(gate)
			}
		})
	}
	t.settled(l)
}

func (t *simTenure) send(l *lane, at *appending, held bool) {
	w := t.life.world
	if t.life.allowed() != nil {
		return
	}
	c := t.life.conns[t.partition]
	if c != nil && len(c.queue) >= inFlight || t.life.ended.Load() {
		return
	}
	if w.rules.neverProbe {
		l.mu.Lock()
		l.probing = false
		l.mu.Unlock()
	}
	e, ok, _ := l.sendable(time.Now().Add(time.Hour))
	if !ok {
		return
	}
	if c == nil {
		c = &simConn{life: t.life}
		t.life.conns[t.partition] = c
	}
	c.queue = append(c.queue, &simFlying{at: at, batch: slices.Clone(e.batch), log: w.target(t.partition), held: held})
}

// answer brings the oldest answer home.
func (c *simConn) answer(w *simWorld) {
	f := c.queue[0]
	c.queue = c.queue[1:]
	a := &appender{}
	l := f.at.lane
	if f.err == nil {
		if w.rules.trustingAcks {
			l.mu.Lock()
			l.targetEnd = -1
			l.mu.Unlock()
		}
		if !l.orphan() {
			a.acknowledged(f.at, f.base)
		}
	} else {
		a.refused(f.at, f.err, "")
		w.renumber(l)
	}
	poke(l.events)
}

// renumber is rule 9 off: what was sent before gets other sequences.
func (w *simWorld) renumber(l *lane) {
	if !w.rules.renumber {
		return
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.flying > 0 || l.queue.len() == 0 || !l.queue.at(0).sent {
		return
	}
	by := l.queue.at(0).count
	for i := range l.queue.len() {
		e := l.queue.at(i)
		e.sent = false
		e.sequence += by
	}
	l.nextSequence += by
}

// cut breaks the connection of a lane: what it carried may still arrive.
func (w *simWorld) cut(l *simLife, p int32) {
	c := l.conns[p]
	if c == nil {
		return
	}
	delete(l.conns, p)
	c.broken = true
	c.queue = slices.DeleteFunc(c.queue, func(f *simFlying) bool { return f.held || f.replied })
	w.loose = append(w.loose, c)
	l.mu.Lock()
	t := l.tenures[p]
	l.mu.Unlock()
	lost := map[*lane]bool{}
	if t != nil {
		if lane, _ := t.current(); lane != nil {
			lost[lane] = true
			lane.detach(nil, "gone")
			w.renumber(lane)
			poke(lane.events)
			lane.attach(nil)
		}
	}
	for _, f := range c.queue {
		if l := f.at.lane; !lost[l] {
			lost[l] = true
			l.detach(nil, "gone")
			poke(l.events)
		}
	}
}
