package mirror

import (
	"fmt"
	"hash/fnv"
	"log/slog"
	"math/rand/v2"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"kmirror/checkpoint"
	"kmirror/internal/kafka"
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
	trustLedger     bool // 14: what the source no longer has is as any ledger says
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
	house  *simTidy // housekeeping; nil: none

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
	untidy  bool // no housekeeping
}

type simResult struct {
	fault string
	lines []string
	hash  uint64
	steps int
	gone  int64 // records that housekeeping deleted
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
		result = simResult{fault: w.fault, lines: w.lines, hash: h.Sum64(), steps: w.steps}
		if w.house != nil {
			result.gone = w.house.gone.Load()
		}
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
	if !o.untidy {
		w.house = newSimTidy(o.seed)
	}
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

const (
	simChaos = 1200  // steps with faults
	simLimit = 60000 // steps in all
)
