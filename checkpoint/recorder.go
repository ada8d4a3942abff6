package checkpoint

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"sync"
	"time"

	"kmirror/internal/wire"
)

const (
	flushEvery     = 200 * time.Millisecond
	flushAtMost    = time.Second            // the pause between flushes, however much there is
	flushPerRecord = 100 * time.Microsecond // it grows by this for every record of the last flush
	maxBacklog     = 1 << 20                // runs that wait to be written, over all partitions: 32 MiB
)

// ErrBacklog is the answer of Acked when too much waits to be written.
var ErrBacklog = errors.New("the offset map cannot be written and its backlog is full")

// Recorder writes the offset map behind: what has been acknowledged is kept
// here until it has been written, every 200 ms, in one batch per partition of
// MapTopic; with very many active partitions up to every second. A write that
// fails is tried again; nothing is lost while the process lives, and what is
// lost with it Complete finds again. Safe for concurrent use.
type Recorder struct {
	target Appender
	log    *slog.Logger
	lines  [MapPartitions]recorderLine
}

// recorderLine is what goes to one partition of MapTopic.
type recorderLine struct {
	writing chan struct{} // capacity 1: held by the one flush under way

	mu    sync.Mutex // guards the fields below
	parts map[Key]*recorded
	held  int // runs in memory; exact after each flush
	stats RecorderStats
}

// RecorderStats is what a Recorder has done and holds, over all partitions.
type RecorderStats struct {
	Runs    int   // in memory: what is not written yet, and the open blocks
	Waiting int   // partitions of which something is not written yet
	Written int64 // records
	Filed   int64 // of these, full blocks: what the topic grows by
	Deleted int64 // records that were deleted or written anew, to keep the topic small
}

// recorded is one mirrored partition. Its runs hold no more than what has not
// been written and the open block.
type recorded struct {
	runs      *Runs
	chores    []wire.Record // see Tidy
	failed    error         // set: nothing is taken any more
	forgotten bool          // to be dropped when written
	holder    Key           // see TidyFormer; else empty
}

// NewRecorder makes a recorder; Run starts it.
func NewRecorder(target Appender, log *slog.Logger) *Recorder {
	r := &Recorder{target: target, log: log}
	for i := range r.lines {
		r.lines[i] = recorderLine{writing: make(chan struct{}, 1), parts: make(map[Key]*recorded)}
	}
	return r
}

func (r *Recorder) line(k Key) *recorderLine { return &r.lines[k.MapPartition()] }

// Resume begins to record a partition with runs as they were loaded and
// completed; what differs from what was loaded is written too. runs stay the
// caller's.
func (r *Recorder) Resume(k Key, runs *Runs) {
	own := runs.Clone()
	own.trim()
	l := r.line(k)
	l.mu.Lock()
	defer l.mu.Unlock()
	if before := l.parts[k]; before != nil {
		l.held -= before.runs.Len()
	}
	l.parts[k] = &recorded{runs: own}
	l.held += own.Len()
}

// Forget ends the recording of a partition. What is not written yet is still
// written.
func (r *Recorder) Forget(k Key) {
	r.forget(k)
	r.dropFormer(k)
}

func (r *Recorder) forget(k Key) {
	l := r.line(k)
	l.mu.Lock()
	defer l.mu.Unlock()
	if p := l.parts[k]; p != nil {
		p.chores = nil
		if p.forgotten = true; !p.runs.unsaved() {
			l.held -= p.runs.Len()
			delete(l.parts, k)
		}
	}
}

// dropFormer drops what TidyFormer took for a partition and is not being written.
func (r *Recorder) dropFormer(k Key) {
	for i := range r.lines {
		l := &r.lines[i]
		l.mu.Lock()
		maps.DeleteFunc(l.parts, func(_ Key, p *recorded) bool { return p.holder == k })
		l.mu.Unlock()
	}
}

// Tidy has records written that Housekeep found, with the next flush. Should that
// fail they are dropped: the next pass finds them again. It says whether it took
// them: not of a partition that is not recorded, or whose last ones still wait.
func (r *Recorder) Tidy(k Key, records []wire.Record) bool {
	l := r.line(k)
	l.mu.Lock()
	defer l.mu.Unlock()
	p := l.parts[k]
	if p == nil || p.forgotten || len(p.chores) > 0 {
		return false
	}
	p.chores = records
	return true
}

// TidyFormer is Tidy for what Forget found of a former incarnation of a partition that
// is recorded. It stands in another partition of MapTopic, perhaps.
func (r *Recorder) TidyFormer(k, former Key, records []wire.Record) bool {
	l := r.line(former)
	l.mu.Lock()
	if l.parts[former] != nil {
		l.mu.Unlock()
		return false
	}
	l.parts[former] = &recorded{runs: &Runs{}, chores: records, forgotten: true, holder: k}
	l.mu.Unlock()
	if !r.recording(k) { // it was forgotten, perhaps before that could be
		r.dropFormer(k)
		return false
	}
	return true
}

func (r *Recorder) recording(k Key) bool {
	l := r.line(k)
	l.mu.Lock()
	defer l.mu.Unlock()
	p := l.parts[k]
	return p != nil && !p.forgotten
}

// Stats adds up.
func (r *Recorder) Stats() (all RecorderStats) {
	for i := range r.lines {
		one := r.lines[i].statsNow()
		all.Runs += one.Runs
		all.Waiting += one.Waiting
		all.Written += one.Written
		all.Filed += one.Filed
		all.Deleted += one.Deleted
	}
	return all
}

// Filed counts the full blocks written to one partition of MapTopic.
func (r *Recorder) Filed(mapPartition int32) int64 { return r.lines[mapPartition].statsNow().Filed }

func (l *recorderLine) statsNow() RecorderStats {
	l.mu.Lock()
	defer l.mu.Unlock()
	now := l.stats
	for _, p := range l.parts {
		now.Runs += p.runs.Len()
		if p.runs.unsaved() {
			now.Waiting++
		}
	}
	return now
}

// Acked takes in a run that the target has acknowledged. It never blocks. An
// error (*OrderError, ErrBacklog, or that the partition was not resumed) means
// that the run was not taken, and nothing of the partition is until it is
// resumed: so a map that is short may come about, but never one with a hole.
func (r *Recorder) Acked(k Key, run Run) error {
	l := r.line(k)
	return r.update(k, func(p *recorded) error {
		if l.held > maxBacklog/MapPartitions+MaxBlockRuns*len(l.parts) {
			return ErrBacklog
		}
		before := p.runs.Len()
		err := p.runs.Add(run)
		l.held += p.runs.Len() - before
		return err
	})
}

// Passed takes in that every source offset below source has been dealt with:
// nothing between the last run and it will ever be mirrored (see Runs.Pass).
// It never blocks.
func (r *Recorder) Passed(k Key, source int64) error {
	return r.update(k, func(p *recorded) error {
		p.runs.Pass(source)
		return nil
	})
}

func (r *Recorder) update(k Key, change func(*recorded) error) error {
	l := r.line(k)
	l.mu.Lock()
	defer l.mu.Unlock()
	p := l.parts[k]
	if p == nil || p.forgotten {
		return fmt.Errorf("record offsets of %s %s/%d: not resumed", k.Flow, k.Topic, k.Partition)
	}
	if p.failed == nil {
		p.failed = change(p)
	}
	return p.failed
}

// Run flushes until ctx ends, and returns nil. A last Flush, with a ctx that
// still lives, is the caller's.
func (r *Recorder) Run(ctx context.Context) error {
	var all sync.WaitGroup
	for i := range r.lines {
		all.Go(func() { r.run(ctx, int32(i)) })
	}
	all.Wait()
	return nil
}

func (r *Recorder) run(ctx context.Context, partition int32) {
	again := retry{log: r.log.With(slog.Int("map_partition", int(partition))), what: "write the offset map"}
	timer := time.NewTimer(flushEvery)
	defer timer.Stop()
	for {
		select {
		case <-timer.C:
		case <-ctx.Done():
			return
		}
		written, err := r.flush(ctx, partition)
		switch {
		case err == nil:
			again.success()
		case ctx.Err() == nil:
			again.failure(ctx, err)
		}
		timer.Reset(min(flushAtMost, max(flushEvery, time.Duration(written)*flushPerRecord)))
	}
}

// Flush writes everything that was acknowledged before the call, until ctx
// ends. Its error says that something is left; it stays to be written.
func (r *Recorder) Flush(ctx context.Context) error {
	var (
		all  sync.WaitGroup
		errs [MapPartitions]error
	)
	for i := range r.lines {
		all.Go(func() { _, errs[i] = r.flush(ctx, int32(i)) })
	}
	all.Wait()
	for _, err := range errs {
		if err != nil {
			return err
		}
	}
	return nil
}

// Settle returns when nothing of a partition that was forgotten is still to be written,
// or being written: what is loaded then holds all of it.
func (r *Recorder) Settle(ctx context.Context, k Key) error {
	l := r.line(k)
	select {
	case l.writing <- struct{}{}:
		<-l.writing
	case <-ctx.Done():
		return fmt.Errorf("write the offset map: %w", context.Cause(ctx))
	}
	l.mu.Lock()
	p := l.parts[k]
	waits := p != nil && p.runs.unsaved()
	l.mu.Unlock()
	if !waits {
		return nil
	}
	_, err := r.flush(ctx, k.MapPartition())
	return err
}

// outgoing is what a flush takes from one partition.
type outgoing struct {
	key    Key
	part   *recorded
	from   int // for unsave
	blocks []Block
	chores []wire.Record // behind them
}

// flush writes what is not yet written to one partition of MapTopic.
func (r *Recorder) flush(ctx context.Context, partition int32) (written int, err error) {
	l := &r.lines[partition]
	select {
	case l.writing <- struct{}{}:
		defer func() { <-l.writing }()
	case <-ctx.Done():
		return 0, fmt.Errorf("write the offset map: %w", context.Cause(ctx))
	}
	out := l.take()
	if len(out) == 0 {
		return 0, nil
	}
	var records []wire.Record
	now := time.Now().UnixMilli()
	for _, o := range out {
		for _, b := range o.blocks {
			rec := EncodeBlock(b)
			rec.Timestamp = now
			records = append(records, rec)
		}
		for _, rec := range o.chores {
			rec.Timestamp = now
			records = append(records, rec)
		}
	}
	if err := appendAll(ctx, r.target, MapTopic, partition, records, func(n int) { written += n }); err != nil {
		l.giveBack(out, written)
		return written, fmt.Errorf("write the offset map: %w", err)
	}
	l.giveBack(out, written)
	return written, nil
}

// take copies what is not written and counts it as written.
func (l *recorderLine) take() []outgoing {
	l.mu.Lock()
	defer l.mu.Unlock()
	var out []outgoing
	for k, p := range l.parts {
		if p.runs.unsaved() || len(p.chores) > 0 {
			blocks := p.runs.Unsaved(k)
			out = append(out, outgoing{key: k, part: p, from: p.runs.saved(), blocks: blocks, chores: p.chores})
			p.chores = nil
		}
	}
	slices.SortFunc(out, func(a, b outgoing) int { return compareKeys(a.key, b.key) }) // an order that does not change
	return out
}

// giveBack ends a flush: of the outgoing partitions, the first written records
// are in the topic. What is in and final is dropped from memory.
func (l *recorderLine) giveBack(out []outgoing, written int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.stats.Written += int64(written)
	for _, o := range out {
		for _, b := range o.blocks[:min(written, len(o.blocks))] {
			if !b.Open {
				l.stats.Filed++
			}
		}
		if written < len(o.blocks) {
			o.part.runs.unsave(o.from)
			if l.parts[o.key] == nil { // forgotten while the flush was under way
				l.parts[o.key] = o.part
			}
		}
		written = max(0, written-len(o.blocks))
		l.stats.Deleted += int64(min(written, len(o.chores)))
		written = max(0, written-len(o.chores))
	}
	l.held = 0
	for k, p := range l.parts {
		p.runs.trim()
		l.held += p.runs.Len()
		if p.forgotten && !p.runs.unsaved() && len(p.chores) == 0 {
			delete(l.parts, k)
		}
	}
}
