package mirror

import (
	"context"
	"errors"
	"fmt"
	"hash/fnv"
	"log/slog"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"kmirror/checkpoint"
	"kmirror/internal/kafka"
	"kmirror/internal/wire"
	"kmirror/topology"
)

// simRules switches rules of the fence off, one at a time, to see that the
// simulation finds the hole that each closes. All false: the production code.
type simRules struct {
	anyFence        bool // 1: goes on where a dead owner cannot be fenced
	unconditional   bool // 2: InitProducerId names no epoch, and who is fenced takes a new one
	noOwners        bool // 3: who owned is not written down
	unmarkedEpochs  bool // 4: no marker before a new epoch of one's own
	fenceLeaderless bool // 5: fences partitions that have no leader
	sharedIdentity  bool // 6: one transactional id for all
	endlessLease    bool // 7: who was away goes on
	neverProbe      bool // 8: five requests in flight at once
	renumber        bool // 9: a retry has sequences of its own
	blindMarker     bool // 11: does not wait for the marker
	openLedger      bool // 12: the ledger is not fenced
	noMap           bool // 13: the position is what the tail says
	uncompared      bool // 14: a seam that cannot be compared passes
	trustingAcks    bool // 15: an acknowledgement below the end is a new run
	staleMap        bool // 16: the map is not cut back after a truncation
}

// simFaults is what may go wrong in a run beside crashes, pauses, lost, doubled
// and late requests, which always may.
type simFaults struct {
	unclean    bool // unclean elections at the target
	ledgerLoss bool // the ledger loses its end
	retention  bool // source and target drop their oldest records
	quiet      bool // days pass, and what partitions know of producers expires
	expiry     bool // transactional ids of the dead expire
}

// simWorld is a run of the simulation: three instances, a source, a target. One
// goroutine, the driver, decides what happens next, when all others wait: which
// request arrives, which answer, who dies. Time moves only when it says so.
type simWorld struct {
	t      testing.TB
	r      *rand.Rand
	rules  simRules
	faults simFaults
	flow   *topology.Flow
	log    *slog.Logger

	sources     []*simSource
	logs        map[kafka.TopicPartition]*simLog
	all         []*simLog // in order
	coordinator *simCoordinator
	net         simNetwork
	lives       []*simLife
	current     [3]*simLife
	owner       []*simTenure
	serial      int
	accepting   bool
	steps       int
	idle        int           // requests in a row that found nothing to do
	rough       bool          // what is under way is left there whenever it can be
	pace        time.Duration // of time
	loose       []*simConn    // of earlier connections, and of the dead
	stuck       int32         // a partition that never gets its leader back; -1 none

	mu        sync.Mutex
	incidents []Incident
	lines     []string // of the trace, if there is one
	tracing   bool
	fault     string
}

// Record is Journal's.
func (w *simWorld) Record(in Incident) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.incidents = append(w.incidents, in)
	if w.tracing {
		w.lines = append(w.lines, fmt.Sprintf("%5d INCIDENT %s/%d %s: %s; %s", w.steps, in.Topic, in.Partition, in.Kind, in.Detail, in.Action))
	}
}

func (w *simWorld) reported(partition int32, kinds ...string) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return slices.ContainsFunc(w.incidents, func(in Incident) bool { return in.Partition == partition && slices.Contains(kinds, in.Kind) })
}

func (w *simWorld) trace(what string, r *simRequest) {
	if w.tracing {
		suffix := ""
		if r.orphan {
			suffix = " (nobody waits)"
		}
		w.tracef("%s %s %s%s", what, r.life.name, r.name, suffix)
	}
}

func (w *simWorld) tracef(format string, args ...any) {
	if w.tracing {
		w.mu.Lock()
		defer w.mu.Unlock()
		w.lines = append(w.lines, fmt.Sprintf("%5d "+format, append([]any{w.steps}, args...)...))
	}
}

func (w *simWorld) failf(format string, args ...any) {
	if w.fault == "" {
		w.fault = fmt.Sprintf(format, args...)
	}
}

// simOptions is what a run is made of.
type simOptions struct {
	seed    uint64
	rules   simRules
	faults  *simFaults // nil: by the seed
	tracing bool
	rough   bool
}

type simResult struct {
	fault string
	lines []string
	hash  uint64
	steps int
}

// simulate plays one seed.
func simulate(t *testing.T, o simOptions) (result simResult) {
	synctest.Test(t, func(t *testing.T) {
		w := newSimWorld(t, o)
		w.play()
		w.bury()
		h := fnv.New64a()
		for _, l := range w.all {
			for _, b := range l.history {
				fmt.Fprintf(h, "%d %d %d %d;", b.BaseOffset(), b.ProducerID(), b.ProducerEpoch(), b.BaseSequence())
			}
		}
		if w.fault != "" {
			w.fault = fmt.Sprintf("%+v: %s", w.faults, w.fault)
		}
		result = simResult{w.fault, w.lines, h.Sum64(), w.steps}
	})
	return result
}

func newSimWorld(t testing.TB, o simOptions) *simWorld {
	r := rand.New(rand.NewPCG(o.seed, 4))
	w := &simWorld{
		t: t, r: r, rules: o.rules, logs: map[kafka.TopicPartition]*simLog{}, log: slog.New(slog.DiscardHandler), tracing: o.tracing, stuck: -1,
		coordinator: newSimCoordinator(r.IntN(2) == 0),
	}
	w.faults = simFaults{unclean: r.IntN(6) == 0, ledgerLoss: r.IntN(12) == 0, retention: r.IntN(3) == 0, quiet: r.IntN(3) == 0, expiry: r.IntN(6) == 0}
	if o.faults != nil {
		w.faults = *o.faults
	}
	flow, err := topology.NewFlow("east", "west", func(f *topology.Flow) {
		f.Policies.RetentionLoss = topology.LossContinue
		if o.rules.uncompared || !w.faults.ledgerLoss {
			f.Policies.SeamUnverified = topology.LossContinue
		}
		if o.rules.anyFence {
			f.Policies.Unfenced = topology.UnfencedContinue
		}
	})
	if err != nil {
		t.Fatal(err)
	}
	w.flow = flow
	w.pace = []time.Duration{50 * time.Millisecond, 300 * time.Millisecond, 2 * time.Second}[r.IntN(3)]
	partitions := 1
	if r.IntN(4) == 0 {
		partitions = 2
	}
	for p := range int32(partitions) {
		s := newSimSource(r, 10+r.IntN(40))
		s.grow(1 + r.IntN(len(s.batches)))
		w.sources = append(w.sources, s)
		w.addLog(kafka.TopicPartition{Topic: "t", Partition: p})
		if partitions == 2 && p == 1 && r.IntN(4) == 0 {
			w.stuck = p
		}
	}
	for p := range int32(checkpoint.MapPartitions) {
		w.addLog(kafka.TopicPartition{Topic: checkpoint.MapTopic, Partition: p})
	}
	w.owner = make([]*simTenure, partitions)
	for i := range w.current {
		w.current[i] = w.newLife(i)
	}
	w.rough = o.rough
	return w
}

func (w *simWorld) addLog(at kafka.TopicPartition) {
	l := newSimLog(at)
	w.logs[at] = l
	w.all = append(w.all, l)
}

func (w *simWorld) target(p int32) *simLog {
	return w.logs[kafka.TopicPartition{Topic: "t", Partition: p}]
}

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

const (
	simChaos = 1200  // steps with faults
	simLimit = 60000 // steps in all
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
	key := checkpoint.Key{Flow: w.flow.Name, Topic: "s", TopicID: [16]byte{1}, Partition: p}
	loaded, err := checkpoint.LoadPartition(context.Background(), simReader{w}, key)
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

// arrived says whether everything has come to rest.
func (w *simWorld) arrived() bool {
	for _, log := range w.all {
		log.replicate()
	}
	for _, l := range w.lives {
		if !l.joined.Load() && !l.ended.Load() && !w.rules.endlessLease {
			return false
		}
	}
	for _, c := range w.conns() {
		if !c.queue[0].log.leader {
			continue
		}
		return false
	}
	for p, o := range w.owner {
		if int32(p) == w.stuck {
			continue
		}
		if o == nil || o.ended() {
			return false
		}
		lane, _ := o.current()
		if err := o.failure(); lane == nil && err != nil && stops(err) {
			if !w.allowedHalt(int32(p), err) {
				w.failf("partition %d stops: %v", p, err)
			}
			if !w.relaxed() {
				w.accepting = true // what can be accepted is safe now: all others are dead for certain
				return false
			}
			continue
		}
		if lane == nil {
			return false
		}
		if at, _ := lane.wants(); at < w.sources[p].end || lane.pending() || !lane.idle() {
			return false
		}
	}
	return true
}

// hangs says whether a fence hangs because its partition lost its leader for good
// after the fence had looked.
func (w *simWorld) hangs() bool {
	return w.stuck >= 0 && !w.rules.fenceLeaderless && slices.ContainsFunc(w.coordinator.due, func(m *simMark) bool {
		return m.txn != nil && m.at == kafka.TopicPartition{Topic: "t", Partition: w.stuck}
	})
}

// relaxed: the target itself lost something, so that detection is all there is.
func (w *simWorld) relaxed() bool { return w.faults.unclean || w.faults.ledgerLoss }

// allowedHalt says whether a partition may stop: not without a reason.
func (w *simWorld) allowedHalt(_ int32, err error) bool {
	return w.relaxed() || w.faults.expiry && strings.Contains(err.Error(), "cannot be fenced")
}

func (w *simWorld) state() string {
	var b strings.Builder
	for p, o := range w.owner {
		if o == nil {
			fmt.Fprintf(&b, "%d: nobody; ", p)
			continue
		}
		lane, _ := o.current()
		fmt.Fprintf(&b, "%d: %s joined %v ended %v tenure ended %v failure %v lane %v", p, o.life.name, o.life.joined.Load(), o.life.ended.Load(), o.ended(), o.failure(), lane != nil)
		if lane != nil {
			at, a := lane.wants()
			fmt.Fprintf(&b, " at %d/%d of %d pending %v idle %v flying %d", at, a, w.sources[p].end, lane.pending(), lane.idle(), lane.flying)
		}
		b.WriteString("; ")
	}
	for _, l := range w.lives {
		if !l.ended.Load() {
			fmt.Fprintf(&b, "%s joined %v dead %v noticed %v; ", l.name, l.joined.Load(), l.dead.Load(), l.noticed.Load())
		}
	}
	for i, r := range w.net.pending {
		if i < 12 {
			fmt.Fprintf(&b, "[%s %s held %v answered %v orphan %v] ", r.life.name, r.name, r.held, r.answered, r.orphan)
		}
	}
	fmt.Fprintf(&b, "%d due", len(w.coordinator.due))
	return b.String()
}

// bury ends all processes, so that nothing of the run is left.
func (w *simWorld) bury() {
	for _, l := range w.lives {
		l.kill()
	}
	synctest.Wait()
	time.Sleep(time.Minute) // a transaction that is begun is ended, whoever has given up
	synctest.Wait()
}
