package mirror

import (
	"context"
	"fmt"
	"log/slog"
	"math"
	"math/rand/v2"
	"sync"
	"time"

	"kmirror/checkpoint"
	"kmirror/internal/wire"
)

// housekeeper keeps the offset map's topic small for the partitions that this life
// holds: what may go, checkpoint.Housekeep says. It goes by map partition, each of
// which it reads as a whole, and so only when as much has been added as was found
// the last time: reading costs no more than what was written. What the target's
// retention takes while nothing is written is looked for every few hours.
type housekeeper struct {
	load   func(ctx context.Context, mapPartition int32, keys []checkpoint.Key) (map[checkpoint.Key]checkpoint.Loaded, error)
	start  func(ctx context.Context, topic string, partition int32) (int64, error) // of the target's log
	lowest func(ctx context.Context) (lowestOffsets, error)                        // that groups stand on
	tidy   func(k checkpoint.Key, records []wire.Record) bool
	// tidyFormer is tidy for a former incarnation of what is held as k.
	tidyFormer func(k, former checkpoint.Key, records []wire.Record) bool
	added      func(mapPartition int32) int64 // records that may once be deleted, in this life
	held       func(mapPartition int32) []*lane
	limits     checkpoint.Limits
	log        *slog.Logger

	buried map[checkpoint.Key]struct{} // former incarnations of which nothing is left; owned by Run

	mu    sync.Mutex // guards the fields below
	lines [checkpoint.MapPartitions]housekept
	done  HousekeepingStats // but for what there is
}

// lowestOffsets are where the groups of the source and of the target stand; -1 none.
type lowestOffsets struct {
	source, target func(topic string, partition int32) int64
}

// housekept is one partition of the map's topic.
type housekept struct {
	last  time.Time // when it was looked at last
	took  time.Duration
	added int64 // as it was then
	found contents
}

// contents is what there is of the partitions held here.
type contents struct{ anchors, blocks, runs int64 }

// HousekeepingStats is what keeps the offset map's topic small, of one flow in one
// life of this instance.
type HousekeepingStats struct {
	Passes  int64 `json:"passes"`  // over one partition of the topic each
	Anchors int64 `json:"anchors"` // records of the ledger in the topic, of the partitions held here, as of the last passes
	Blocks  int64 `json:"blocks"`  // full blocks, the same
	Runs    int64 `json:"runs"`    // of the offset map, the same
	Removed int64 `json:"removed"` // records deleted
	Thinned int64 `json:"thinned"` // records written anew, with fewer runs
}

const (
	housekeepEvery  = 10 * time.Second // at most, for each partition of the topic
	housekeepFirst  = 5 * time.Minute  // after a life has begun
	housekeepSeldom = 6 * time.Hour    // when nothing is added
	housekeepAdded  = 1000             // records that are worth a pass
	housekeepShare  = 50               // of the time, a pass may take one part
	startKnown      = time.Hour        // how long the start of a target's log is believed
)

// Run keeps house until ctx ends.
func (h *housekeeper) Run(ctx context.Context) {
	tick := time.NewTicker(housekeepEvery)
	defer tick.Stop()
	h.mu.Lock()
	for i := range h.lines { // as if it had been looked at long ago: not all at once
		h.lines[i].last = time.Now().Add(housekeepFirst - housekeepSeldom + rand.N(time.Minute))
	}
	h.mu.Unlock()
	failing, former := false, time.Now().Add(housekeepFirst+rand.N(time.Minute))
	for {
		select {
		case <-tick.C:
		case <-ctx.Done():
			return
		}
		for p := range int32(checkpoint.MapPartitions) {
			if !h.due(p, time.Now()) {
				continue
			}
			err := h.pass(ctx, p)
			if err != nil && !failing && ctx.Err() == nil {
				h.log.Warn("tidy up the offset map", slog.Any("error", err))
			}
			failing = err != nil
		}
		if time.Now().After(former) {
			former = time.Now().Add(housekeepSeldom)
			if err := h.former(ctx); err != nil && ctx.Err() == nil {
				h.log.Warn("remove what is left of former topics from the offset map", slog.Any("error", err))
			}
		}
	}
}

// due says whether a pass is worth its cost.
func (h *housekeeper) due(mapPartition int32, now time.Time) bool {
	added := h.added(mapPartition)
	h.mu.Lock()
	defer h.mu.Unlock()
	l := h.lines[mapPartition]
	since := now.Sub(l.last)
	return since > housekeepShare*l.took && (added-l.added >= max(housekeepAdded, l.found.anchors+l.found.blocks) || since > housekeepSeldom)
}

// pass looks at one partition of the map's topic, and has written what there is to do.
func (h *housekeeper) pass(ctx context.Context, mapPartition int32) error {
	began, added := time.Now(), h.added(mapPartition)
	found, done, err := h.clean(ctx, mapPartition)
	now := time.Now()
	h.mu.Lock()
	defer h.mu.Unlock()
	l := &h.lines[mapPartition]
	l.last, l.took, l.added = now, now.Sub(began), added
	if err == nil {
		l.found = found
		h.done.Passes++
	}
	h.done.Removed += done.Removed
	h.done.Thinned += done.Thinned
	return err
}

// clean does what pass says.
func (h *housekeeper) clean(ctx context.Context, mapPartition int32) (found contents, done HousekeepingStats, err error) {
	lanes := h.held(mapPartition)
	if len(lanes) == 0 {
		return found, done, nil
	}
	keys := make([]checkpoint.Key, 0, len(lanes))
	for _, l := range lanes {
		keys = append(keys, l.key)
	}
	all, err := h.load(ctx, mapPartition, keys)
	if err != nil {
		return found, done, err
	}
	var groups *lowestOffsets
	for _, l := range lanes {
		loaded, ok := all[l.key]
		if !ok {
			continue
		}
		delete(all, l.key) // and with it its memory
		found.anchors += int64(loaded.Ledger.Anchors())
		found.blocks += int64(loaded.Filed.Len())
		found.runs += int64(loaded.Runs.Len())
		if loaded.Ledger.Anchors() <= 1 && loaded.Filed.Len() == 0 {
			continue
		}
		needs := checkpoint.Needs{Lowest: -1}
		if needs.LogStart, err = h.logStart(ctx, l); err != nil {
			return found, done, err
		}
		if loaded.Runs.Len() > h.limits.Runs {
			if groups == nil {
				of, err := h.lowest(ctx)
				if err != nil { // what has to go by retention does all the same
					h.log.Warn("find how far back groups stand, to thin the offset map", slog.Any("error", err))
					of = lowestOffsets{}
				}
				groups = &of
			}
			needs.Lowest = groups.below(l, loaded.Runs)
		}
		chores := checkpoint.Housekeep(l.key, loaded, needs, h.limits)
		if len(chores.Records) > 0 && h.tidy(l.key, chores.Records) {
			done.Removed += int64(chores.Blocks + chores.Anchors)
			done.Thinned += int64(chores.Thinned)
		}
	}
	return found, done, nil
}

// logStart is where the target's log begins: what the last answer said, or the target
// is asked, where nothing is written.
func (h *housekeeper) logStart(ctx context.Context, l *lane) (int64, error) {
	if at, known := l.begins(); at >= 0 && time.Since(known) < startKnown {
		return at, nil
	}
	at, err := h.start(ctx, l.target, l.partition)
	if err != nil {
		return -1, fmt.Errorf("read the start of %s/%d: %w", l.target, l.partition, err)
	}
	l.starts(at)
	return at, nil
}

// below is the lowest source offset that a group on either side may ask for exactly;
// -1 when that is not known.
func (o *lowestOffsets) below(l *lane, runs *checkpoint.Runs) int64 {
	if o.source == nil || o.target == nil {
		return -1
	}
	lowest := int64(math.MaxInt64)
	if at := o.source(l.key.Topic, l.key.Partition); at >= 0 {
		lowest = at
	}
	if at := o.target(l.target, l.partition); at >= 0 {
		lowest = min(lowest, runs.Backward(at).Offset)
	}
	return lowest
}

// stats adds up.
func (h *housekeeper) stats() HousekeepingStats {
	h.mu.Lock()
	defer h.mu.Unlock()
	all := h.done
	for _, l := range h.lines {
		all.Anchors += l.found.anchors
		all.Blocks += l.found.blocks
		all.Runs += l.found.runs
	}
	return all
}

// newHousekeeper is the one of a flow in a life.
func newHousekeeper(f *flow) *housekeeper {
	return &housekeeper{
		load: f.loader.load, limits: checkpoint.DefaultLimits(), log: f.log, tidy: f.recorder.Tidy, tidyFormer: f.recorder.TidyFormer,
		start: func(ctx context.Context, topic string, partition int32) (int64, error) {
			return f.target.ListOffset(ctx, topic, partition, atEarliest)
		},
		added: func(mapPartition int32) int64 { return f.ledger.Anchors(mapPartition) + f.recorder.Filed(mapPartition) },
		lowest: func(ctx context.Context) (o lowestOffsets, err error) {
			if o.source, err = checkpoint.LowestOffsets(ctx, f.source, f.cfg().SelectsGroup); err != nil {
				return o, fmt.Errorf("source: %w", err)
			}
			if o.target, err = checkpoint.LowestOffsets(ctx, f.target, f.cfg().SelectsGroup); err != nil {
				return o, fmt.Errorf("target: %w", err)
			}
			return o, nil
		},
		held: func(mapPartition int32) (lanes []*lane) {
			for _, t := range f.held() {
				if l := t.laneNow(); l != nil && l.key.MapPartition() == mapPartition {
					lanes = append(lanes, l)
				}
			}
			return lanes
		},
	}
}
