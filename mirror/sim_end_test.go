package mirror

import (
	"fmt"
	"slices"
	"strings"
	"testing/synctest"
	"time"

	"kmirror/internal/kafka"
)

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
