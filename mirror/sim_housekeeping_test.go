package mirror

import (
	"context"
	"math/rand/v2"
	"sync/atomic"

	"kmirror/checkpoint"
)

// simTidy is housekeeping in a world: far more often than in truth, and with bounds
// that are soon reached.
type simTidy struct {
	r      *rand.Rand // its own, so that the rest of a seed's choices stay as they are
	limits checkpoint.Limits
	gone   atomic.Int64

	retention bool // the target drops its oldest records: all that stands in the map
}

func newSimTidy(seed uint64) *simTidy {
	r := rand.New(rand.NewPCG(seed, 5))
	t := &simTidy{r: r, limits: checkpoint.DefaultLimits()}
	if r.IntN(2) == 0 {
		t.limits.Steps = 2 + r.IntN(8)
	}
	t.retention = r.IntN(2) == 0
	return t
}

// keep makes a life's housekeeper.
func (l *simLife) keep() {
	port := simPort{l}
	l.keeper = &housekeeper{
		load: func(ctx context.Context, mapPartition int32, keys []checkpoint.Key) (map[checkpoint.Key]checkpoint.Loaded, error) {
			return checkpoint.LoadPartitions(ctx, port, mapPartition, keys)
		},
		start: func(ctx context.Context, topic string, partition int32) (int64, error) {
			return port.ListOffset(ctx, topic, partition, atEarliest)
		},
		tidy:  l.recorder.Tidy,
		added: func(int32) int64 { return 0 },
		held: func(mapPartition int32) (lanes []*lane) {
			l.mu.Lock()
			defer l.mu.Unlock()
			for p := range int32(len(l.world.sources)) {
				if t := l.tenures[p]; t != nil && t.key.MapPartition() == mapPartition {
					if lane, _ := t.current(); lane != nil {
						lanes = append(lanes, lane)
					}
				}
			}
			return lanes
		},
		limits: l.world.house.limits, log: l.log,
	}
}

// looked says whether what an unclean election took was seen: what has come in its
// place must not go before somebody has looked, or nobody could know.
func (w *simWorld) looked(p int32) bool {
	if !w.faults.unclean {
		return true
	}
	o := w.owner[p]
	if o == nil || len(o.moved) > 0 {
		return false
	}
	l, _ := o.current()
	return l != nil
}

// housekeep lets somebody tidy up, if there is housekeeping in this world.
func (w *simWorld) housekeep() {
	if w.house == nil {
		return
	}
	p := int32(w.house.r.IntN(len(w.sources)))
	if w.house.retention && w.looked(p) && w.house.r.IntN(4) == 0 {
		if data, mapped := w.target(p), w.mapped(p); mapped > data.start {
			offset := data.start + w.house.r.Int64N(min(data.hw, mapped)-data.start+1)
			data.retain(offset)
			if w.house.r.IntN(2) == 0 { // DeleteRecords goes into the midst of a batch
				data.start = max(data.start, offset)
			}
			w.tracef("target %d starts at %d of %d", p, data.start, data.hw)
		}
	}
	l := w.lives[w.house.r.IntN(len(w.lives))]
	if o := w.owner[p]; o != nil && w.house.r.IntN(4) > 0 {
		l = o.life
	}
	if l.dead.Load() || l.ended.Load() || l.paused || !l.tidying.CompareAndSwap(false, true) {
		return
	}
	key := checkpoint.Key{Flow: w.flow.Name, Topic: "s", TopicID: [16]byte{1}, Partition: p}
	w.tracef("%s tidies up", l.name)
	go func() {
		defer l.tidying.Store(false)
		before := l.keeper.stats().Removed
		if l.keeper.pass(l.work, key.MapPartition()) == nil {
			w.house.gone.Add(l.keeper.stats().Removed - before)
		}
	}()
}
