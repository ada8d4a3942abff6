package mirror

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"

	"kmirror/checkpoint"
	"kmirror/internal/kafka"
	"kmirror/internal/wire"
	"kmirror/topology"
)

// Partition states, as the status shows them.
const (
	stateStarting  = "starting"
	stateMirroring = "mirroring"
	stateWaiting   = "waiting"
	stateStopped   = "stopped"
)

// tenure is one partition in this instance's hands, from the assignment that
// gave it to the one that takes it away. It runs in attempts; each waits until
// both sides are there and have leaders, takes the partition over (see takeover),
// and mirrors until a fault or the end.
//
// A change of the target's leader is the end of an attempt too: what the old one
// had acknowledged must still be there, and only the new one's log tells.
type tenure struct {
	id   partitionID
	flow *flow
	log  *slog.Logger

	mu       sync.Mutex // guards the fields below
	state    string
	why      string
	lane     *lane // nil between attempts
	maxBatch int   // what the target topic takes in one batch, once it refused one; 0 before
	told     int   // what it said that it takes when maxBatch was set
	first    *firstAck
	treated  treatment
	plain    bool // the target refused a codec

	seen  witness // used by Run's goroutine alone
	moved bool    // the last attempt mirrored something
	at    writing // the same
}

// writing is where an attempt wrote.
type writing struct {
	key    checkpoint.Key
	target kafka.TopicPartition
}

// firstAck is where the first acknowledgement of an attempt should have been.
type firstAck struct{ expected, base int64 }

// laneNow is the lane of the attempt under way, nil between two.
func (t *tenure) laneNow() *lane {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.lane
}

func newTenure(f *flow, id partitionID) *tenure {
	return &tenure{
		id: id, flow: f, state: stateStarting,
		log: f.log.With(slog.String("topic", id.Topic), slog.Int("partition", int(id.Partition))),
	}
}

// Run holds the partition until ctx ends, and then until nothing of it is in
// flight or the lease is over.
func (t *tenure) Run(ctx context.Context) {
	defer t.letGo() //nolint:contextcheck // ctx has ended by then
	retry := backoff{base: 200 * time.Millisecond, limit: 30 * time.Second}
	for ctx.Err() == nil {
		began := time.Now()
		err := t.attempt(ctx)
		if ctx.Err() != nil {
			return
		}
		if again := (*leaderError)(nil); errors.As(err, &again) {
			t.log.Info("the attempt begins anew", slog.Any("reason", err))
			t.set(stateStarting, err.Error())
			continue
		}
		if raised := (*raisedError)(nil); t.moved || errors.As(err, &raised) || time.Since(began) > time.Minute {
			retry.reset()
		}
		t.flow.chronicle(t.id, err)
		state := stateWaiting
		if stops(err) {
			// It may have been mended by hand, so look again, but seldom.
			state, retry.failures = stateStopped, max(retry.failures, 6)
		}
		if t.set(state, err.Error()) {
			t.log.Error("partition does not flow", slog.String("state", state), slog.Any("error", err))
		}
		t.flow.discovery.refresh()
		retry.sleepUnless(ctx, t.flow.woken(t.id))
	}
}

// letGo takes back that this life owns the partition. What is still under way to
// it, because the target did not answer, is ended first; if that cannot be done
// either, the partition stays ours in the books, and whoever comes next ends it.
func (t *tenure) letGo() {
	f := t.flow
	if t.at.target.Topic == "" || f.banned() {
		return
	}
	ctx, cancel := context.WithTimeout(f.work, letGoLimit)
	defer cancel()
	if err := f.fence.finish(ctx, f.put, t.id, t.at.key, t.at.target); err != nil {
		t.log.Warn("let go of the partition", slog.Any("error", err))
	}
}

// letGoLimit bounds what an orderly end waits for a target that does not answer.
const letGoLimit = 10 * time.Second

// stops says that waiting will not mend this: somebody has to decide.
func stops(err error) bool {
	var halt *haltError
	var large *recordTooLargeError
	var buried *letterError
	return errors.As(err, &halt) || errors.As(err, &large) || errors.As(err, &buried) && tooLargeForTarget(err)
}

// leaderError ends an attempt whose leader changed: the next one begins at once.
type leaderError struct{ what string }

func (e *leaderError) Error() string { return e.what }

// set changes what the status shows and says whether that is news.
func (t *tenure) set(state, why string) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	news := t.state != state || t.why != why
	t.state, t.why = state, why
	return news
}

// starting says what a partition that has not begun yet does.
func (t *tenure) starting(what string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.state == stateStarting {
		t.why = what
	}
}

// attempt takes the partition over and mirrors. It returns the fault, or ctx's error.
func (t *tenure) attempt(ctx context.Context) error {
	f := t.flow
	t.moved = false
	pair, err := f.discovery.pair(ctx, t.id.Topic, t.id.Partition, func(why string) { t.set(stateStarting, why) })
	if err != nil {
		return err
	}
	if err := f.ready(ctx); err != nil {
		return err
	}
	if err := f.origins.ready(ctx); err != nil {
		return err
	}
	if circle := f.circles.stop(ctx, t.id); circle != nil {
		f.halts.halt(t.id, circle)
	}
	if err := f.halted(t.id); err != nil {
		return err
	}
	if err := t.remeasure(ctx, pair.targetName); err != nil {
		return err
	}
	key := checkpoint.Key{Flow: t.id.Flow, Topic: t.id.Topic, TopicID: pair.source.ID, Partition: t.id.Partition}
	t.at = writing{key, kafka.TopicPartition{Topic: pair.targetName, Partition: t.id.Partition}}
	t.starting("ends former owners, and reads where the source stands in the target")
	b, err := f.takeover.run(ctx, t.id, key, pair, &t.seen)
	if err != nil {
		return err
	}
	f.recorder.Resume(key, b.runs)
	if b.runs.Unsettled() {
		if err := f.recorder.Flush(ctx); err != nil {
			f.recorder.Forget(key)
			return fmt.Errorf("write down what was cut off the map: %w", err)
		}
	}

	l := newLane(key, pair.targetName, pair.target.ID, b.producer.ID, b.producer.Epoch, b.origin, t.limits)
	l.former = b.former
	t.mu.Lock()
	t.lane, t.first = l, nil
	t.mu.Unlock()
	t.set(stateMirroring, "")
	t.log.Debug("mirroring", slog.Int64("from", b.origin.source), slog.Int64("producer_id", b.producer.ID), slog.Int("epoch", int(b.producer.Epoch)))
	err = t.mirror(ctx, pair, l)
	if l.clean() {
		f.fence.settled(t.id)
	}
	done := l.progress(time.Now())
	t.moved = done.stats.records > 0
	t.seen.targetEnd = max(t.seen.targetEnd, done.targetEnd)
	l.abandon()
	f.recorder.Forget(key)
	f.counting.Lock() // whoever adds up sees the lane's share here or there
	t.mu.Lock()
	t.lane = nil
	t.mu.Unlock()
	f.retire(t.id.Topic, l)
	f.counting.Unlock()
	if fenced := (*fencedError)(nil); errors.As(err, &fenced) {
		if f.fence.modeNow() == fenceDetect { // nobody fences; the partition takes the next epoch
			return &doubtError{fenced.cause.Error()}
		}
		return f.fence.fail(&fencedError{f.fence.id, fenced.cause})
	}
	return err
}

// startOf resolves where a partition begins that was never mirrored. One that came
// while the flow ran begins at its first record, also with start: latest: there
// is nothing old in it, and what was written before it was seen is not skipped.
func (f *flow) startOf(ctx context.Context, pair *topicPair, partition int32) (int64, error) {
	at, topic := int64(atEarliest), pair.source.Name
	switch start := f.cfg().StartFor(topic); start.Kind {
	case topology.Earliest, topology.MirrorMaker2:
	case topology.Latest:
		if !f.discovery.grown(pair, partition) {
			at = atLatest
		}
	case topology.Timestamp:
		at = start.Millis
	}
	offset, err := f.source.ListOffset(ctx, topic, partition, at)
	if err == nil && offset < 0 { // no record is as young as the timestamp
		offset, err = f.source.ListOffset(ctx, topic, partition, atLatest)
	}
	if err != nil {
		return 0, fmt.Errorf("find the start of %s/%d: %w", topic, partition, err)
	}
	return offset, nil
}

// mirror moves what comes: the lane stands at the fetcher of the source leader and at
// the appender of the target leader, and follows them when leaders move.
func (t *tenure) mirror(ctx context.Context, pair *topicPair, l *lane) error {
	f := t.flow
	changed, stop := f.discovery.watch()
	defer stop()
	source, target, err := pair.partition(t.id.Partition)
	if err != nil {
		return err
	}
	out := &appending{
		lane:    l,
		acked:   func(runs []checkpoint.Run, foreign, base int64) { t.acked(l, runs, foreign, base) },
		settled: func() { t.settled(l) },
	}
	in := func(epoch int32) *fetching {
		return &fetching{lane: l, topic: t.id.Topic, id: pair.source.ID, partition: t.id.Partition, leaderEpoch: epoch, settled: func() { t.settled(l) }}
	}
	fetcher, appender := f.fetcher(source.Leader), f.appender(target.Leader)
	appender.add(out)
	fetcher.add(in(source.LeaderEpoch))
	leave := func() {
		fetcher.remove(l)
		l.close()
		t.drain(l)
		appender.remove(l)
	}
	ledgerEpoch := f.discovery.current.Load().ledgerEpoch(l.key.MapPartition())
	var disk refusing
	for {
		select {
		case <-ctx.Done():
			leave()
			return ctx.Err()
		case err := <-l.faults:
			leave()
			return t.explain(ctx, pair, err)
		case <-l.events:
			t.examine(ctx, pair, l)
			disk.observe(f, t.id, l)
			if l.spent() {
				leave()
				return &waitError{"the epoch has used up its sequences: a new one begins"}
			}
		case <-changed:
			if shut := l.shut(time.Now()); shut > ledgerPatience { // a new attempt waits for it and holds no memory meanwhile
				leave()
				return &waitError{fmt.Sprintf("the ledger (%s on the target) has not answered for %v", checkpoint.MapTopic, shut.Round(time.Second))}
			}
			w := f.discovery.current.Load()
			now := w.byName[t.id.Topic]
			if now == nil || now.source.ID != pair.source.ID || now.target == nil || now.target.ID != pair.target.ID {
				leave()
				return &waitError{"the topic was deleted or created anew"}
			}
			s, d, err := now.partition(t.id.Partition)
			if err != nil {
				continue // no leader at present; the next look may tell
			}
			if epoch := w.ledgerEpoch(l.key.MapPartition()); epoch >= 0 && epoch != ledgerEpoch {
				if ledgerEpoch >= 0 { // a ledger that lost its end holds what is needed again
					f.writeAhead([]ledgerStep{{lane: l, steps: l.landmarks()}}) //nolint:contextcheck // it is the flow's to write
				}
				ledgerEpoch = epoch
			}
			if s.Leader != source.Leader || s.LeaderEpoch != source.LeaderEpoch {
				fetcher.remove(l)
				if s.LeaderEpoch != source.LeaderEpoch && t.sourceCut(ctx, source.LeaderEpoch, l) {
					leave()
					return &leaderError{"the source partition's new leader does not have, or does not say whether it has, all that was read from the one before"}
				}
				fetcher, source = f.fetcher(s.Leader), s
				fetcher.add(in(s.LeaderEpoch))
			}
			if d.Leader != target.Leader || d.LeaderEpoch != target.LeaderEpoch {
				leave()
				return &leaderError{fmt.Sprintf("the target partition's leader changed (broker %d epoch %d, before broker %d epoch %d)", d.Leader, d.LeaderEpoch, target.Leader, target.LeaderEpoch)}
			}
		}
	}
}

// sourceCut says whether the source's new leader may lack what was read from the one
// before, which led in epoch, and keeps where its log ended: an unclean election.
// What it wrote in the place of that would be passed over.
func (t *tenure) sourceCut(ctx context.Context, epoch int32, l *lane) bool {
	ctx, cancel := context.WithTimeout(ctx, epochPatience)
	defer cancel()
	end, ok, err := t.flow.source.EpochEnd(ctx, t.id.Topic, t.id.Partition, epoch)
	if err != nil && ctx.Err() == nil {
		t.log.Debug("ask the source for the end of its leader epoch", slog.Any("error", err))
	}
	if err != nil {
		return true // nobody knows: the seam tells, at the next beginning
	}
	if !ok {
		return false
	}
	at, _ := l.wants()
	if end >= at {
		return false
	}
	t.seen.sourceCut, t.seen.cut = end, true
	return true
}

// epochPatience is how long a new source leader may take to say where the epoch
// before it ended.
const epochPatience = 5 * time.Second

const (
	// drainLimit is how long a lane that leaves waits for what is in flight. A
	// broker that is alive answers within produceTimeout.
	drainLimit = produceTimeout + 5*time.Second
	// ledgerPatience is how long a lane waits for its steps to be written.
	ledgerPatience = 10 * time.Second
)

// drain waits until nothing of the lane is in flight, its lease ends, or the
// connection is given up. It says whether the lane is idle.
func (t *tenure) drain(l *lane) bool {
	limit := time.NewTimer(drainLimit)
	defer limit.Stop()
	for !l.idle() {
		select {
		case <-l.events:
		case <-t.flow.over:
			return l.idle()
		case <-limit.C:
			return l.idle()
		}
	}
	return true
}

// acked records what an acknowledgement taught. It runs on the appender's goroutine.
func (t *tenure) acked(l *lane, runs []checkpoint.Run, foreign, base int64) {
	for _, run := range runs {
		if err := t.flow.recorder.Acked(l.key, run); err != nil {
			l.fault(&doubtError{"an acknowledgement does not fit the offset map: " + err.Error()})
			return
		}
	}
	if foreign == 0 {
		return
	}
	l.mu.Lock()
	first := l.stats.records == uint64(sum(runs))
	news := l.stats.strangers == 0
	l.stats.strangers += uint64(foreign)
	l.mu.Unlock()
	if first {
		t.mu.Lock()
		t.first = &firstAck{expected: base - foreign, base: base}
		t.mu.Unlock()
	}
	if news {
		t.flow.foreign(t.id, l.target, l, base-foreign, base)
	}
}

// settled tells the map that what follows the last record was dropped, so that
// a group that stands behind it is in step.
func (t *tenure) settled(l *lane) {
	for source, news := l.settled(); news; source, news = l.settled() {
		if err := t.flow.recorder.Passed(l.key, source); err != nil {
			l.fault(&doubtError{"the offset map: " + err.Error()})
		}
		l.recorded()
		poke(l.events)
	}
}

func sum(runs []checkpoint.Run) (n int64) {
	for _, r := range runs {
		n += r.Count
	}
	return n
}

// examine looks at what arrived between the tail as it was read and our first
// batch. If a dead owner's request is among it, its records stand twice now:
// without a fence that can only be told, and it is.
//
// That is seldom, so the ledger is read again for it instead of being held.
func (t *tenure) examine(ctx context.Context, pair *topicPair, l *lane) {
	t.mu.Lock()
	first := t.first
	t.first = nil
	t.mu.Unlock()
	if first == nil {
		return
	}
	loaded, err := t.flow.loader.get(ctx, l.key)
	if err != nil {
		t.log.Warn("examine the target's tail", slog.Any("error", err))
		return
	}
	err = scan(ctx, t.flow.target, pair.targetName, t.id.Partition, first.expected, first.base, func(b wire.Batch) error {
		runs, err := loaded.Ledger.RunsFrom(b, first.expected)
		for _, run := range runs {
			t.flow.counters.doubled.Add(uint64(run.Count))
			t.log.Error("a dead owner's request arrived after its successor had read the tail: records stand twice in the target",
				slog.Int64("source_offset", run.Source), slog.Int64("target_offset", run.Target), slog.Int64("records", run.Count))
		}
		return err
	})
	if err != nil && ctx.Err() == nil {
		t.log.Warn("examine the target's tail", slog.Any("error", err))
	}
}

// explain turns a fault of the data path into what the operator can act on.
func (t *tenure) explain(ctx context.Context, pair *topicPair, err error) error {
	if large := (*recordTooLargeError)(nil); errors.As(err, &large) {
		return t.tooLarge(ctx, pair.targetName, large)
	}
	if buried := (*letterError)(nil); errors.As(err, &buried) {
		return err
	}
	e := (*kerr.Error)(nil)
	if !errors.As(err, &e) {
		return err
	}
	switch e {
	case kerr.MessageTooLarge, kerr.RecordListTooLarge:
		limit, lookup := t.maxMessageBytes(ctx, pair.targetName)
		if lookup != nil {
			return errors.Join(err, lookup)
		}
		return &waitError{fmt.Sprintf("a batch is larger than target topic %s takes (max.message.bytes=%d): it is split into batches of at most %d bytes", pair.targetName, limit, t.measure(limit))}
	case kerr.UnsupportedCompressionType:
		t.mu.Lock()
		was := t.plain
		t.plain = true
		t.mu.Unlock()
		if was { // it refuses what is not compressed
			return err
		}
		return &raisedError{fmt.Sprintf("the target does not know the codec of a batch (%v): batches go to %s without compression", err, pair.targetName)}
	case kerr.OffsetOutOfRange:
		return &waitError{"the source says that the position is out of range: its start and end are read again"}
	case kerr.TopicAuthorizationFailed, kerr.ClusterAuthorizationFailed:
		return fmt.Errorf("%w: grant READ and DESCRIBE on the source topic %s, WRITE and DESCRIBE on the target topic %s, IDEMPOTENT_WRITE on the target cluster", err, t.id.Topic, pair.targetName)
	}
	return err
}
