package mirror

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"

	"kmirror/checkpoint"
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
// gave it to the one that takes it away. It runs in attempts; each reads the
// position off the target, begins a new epoch, and mirrors until a fault:
//
//  1. wait until both sides are there and have leaders
//  2. read ledger and map, then the target's tail: the position
//  3. compare the seam
//  4. write the anchor of the new epoch, and wait for it
//  5. lane: fetch and append, until a fault or the end
//
// A crash after any of these steps leaves nothing that the next attempt could
// misread: 1 to 3 write nothing, an anchor without batches says only where its
// epoch would have begun, and from 5 on every batch is preceded by its steps in
// the ledger.
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
}

// firstAck is where the first acknowledgement of an attempt should have been.
type firstAck struct{ expected, base int64 }

func newTenure(f *flow, id partitionID) *tenure {
	return &tenure{
		id: id, flow: f, state: stateStarting,
		log: f.log.With(slog.String("topic", id.Topic), slog.Int("partition", int(id.Partition))),
	}
}

// Run holds the partition until ctx ends, and then until nothing of it is in
// flight or the lease is over.
func (t *tenure) Run(ctx context.Context) {
	retry := backoff{base: 200 * time.Millisecond, limit: 30 * time.Second}
	for ctx.Err() == nil {
		began := time.Now()
		err := t.attempt(ctx)
		if ctx.Err() != nil {
			return
		}
		if time.Since(began) > time.Minute {
			retry.reset()
		}
		state := stateWaiting
		if stops(err) {
			// It may have been mended by hand, so look again, but seldom.
			state, retry.failures = stateStopped, max(retry.failures, 6)
		}
		if t.set(state, err.Error()) {
			t.log.Error("partition does not flow", slog.String("state", state), slog.Any("error", err))
		}
		t.flow.discovery.refresh()
		retry.sleep(ctx)
	}
}

// stops says that waiting will not mend this: somebody has to decide.
func stops(err error) bool {
	var seam *seamError
	var gone *goneError
	var large *recordTooLargeError
	return errors.As(err, &seam) || errors.As(err, &gone) || errors.As(err, &large)
}

// goneError is a source that no longer has what comes next.
type goneError struct{ what string }

func (e *goneError) Error() string { return e.what }

// set changes what the status shows and says whether that is news.
func (t *tenure) set(state, why string) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	news := t.state != state || t.why != why
	t.state, t.why = state, why
	return news
}

// attempt is steps 1 to 5. It returns the fault, or ctx's error.
func (t *tenure) attempt(ctx context.Context) error {
	f := t.flow
	pair, err := f.discovery.pair(ctx, t.id.Topic, t.id.Partition, func(why string) { t.set(stateStarting, why) })
	if err != nil {
		return err
	}
	if err := f.ready(ctx); err != nil {
		return err
	}
	if err := t.remeasure(ctx, pair.targetName); err != nil {
		return err
	}
	key := checkpoint.Key{Flow: f.cfg().Name, Topic: t.id.Topic, TopicID: pair.source.ID, Partition: t.id.Partition}
	loaded, err := f.loader.get(ctx, key)
	if err == nil {
		loaded.Pairs, err = f.pairs(ctx, key)
	}
	if err != nil {
		return fmt.Errorf("read ledger and map: %w", err)
	}
	known, err := incarnation(pair, loaded)
	if err != nil {
		return err
	}
	from, err := t.position(ctx, pair, loaded, known)
	if err != nil {
		return err
	}
	producer, epoch, err := f.producers.next(ctx, t.id)
	if err != nil {
		return fmt.Errorf("take a producer id: %w", err)
	}
	err = f.writeAnchors(ctx, []checkpoint.Anchor{{
		Key: key, ProducerID: producer, Epoch: epoch, Steps: []checkpoint.Step{{Source: from.source}},
		TimeMillis: time.Now().UnixMilli(),
	}})
	if err != nil {
		return fmt.Errorf("write the epoch's anchor: %w", err)
	}
	if known != sameTopics { // after the anchor: see incarnation
		if err := f.writePair(ctx, key, pair); err != nil {
			return fmt.Errorf("write down which topics belong together: %w", err)
		}
	}
	loaded.Runs.Begin(from.source, from.targetEnd) // groups on a partition without records get an offset
	f.recorder.Resume(key, loaded.Runs)

	l := newLane(key, pair.targetName, pair.target.ID, producer, epoch, from, t.limits)
	t.mu.Lock()
	t.lane, t.first = l, nil
	t.mu.Unlock()
	t.set(stateMirroring, "")
	t.log.Debug("mirroring", slog.Int64("from", from.source), slog.Int64("producer_id", producer), slog.Int("epoch", int(epoch)))
	err = t.mirror(ctx, pair, l, loaded.Ledger)
	l.abandon()
	f.recorder.Forget(key)
	f.counting.Lock() // whoever adds up sees the lane's share here or there
	t.mu.Lock()
	t.lane = nil
	t.mu.Unlock()
	f.retire(t.id.Topic, l)
	f.counting.Unlock()
	return err
}

// position reads the target, compares the seam, and says where to go on.
func (t *tenure) position(ctx context.Context, pair *topicPair, loaded checkpoint.Loaded, known acquaintance) (origin, error) {
	f, topic, p := t.flow, t.id.Topic, t.id.Partition
	st, err := stand(ctx, f.target, pair.targetName, p, loaded.Ledger, loaded.Runs)
	if err != nil {
		return origin{}, err
	}
	if st.lost > 0 {
		t.log.Error("the target lost its tail; it is mirrored again", slog.Int64("offsets", st.lost), slog.Int64("target_end", st.end))
	}
	for _, run := range st.doubled {
		t.log.Error("records stand twice in the target", slog.Int64("source_offset", run.Source), slog.Int64("target_offset", run.Target), slog.Int64("records", run.Count))
		f.counters.doubled.Add(uint64(run.Count))
	}
	// The tail tells; before the first record ever, what an earlier tenure began
	// with does, so that start: latest does not move on at every restart.
	next, mirrored := nextSource(loaded.Runs)
	if mirrored { // what followed and was dropped may have expired at the source since
		next = max(next, loaded.Runs.Through())
	}
	ok := mirrored
	if !ok && st.lost > 0 { // all of the copy is gone, also what earlier epochs wrote
		next, _, ok = loaded.Runs.End()
	}
	if !ok && known == sameTopics {
		next, ok = loaded.Ledger.EpochStart()
	}
	if !ok {
		if next, err = t.start(ctx, pair); err != nil {
			return origin{}, err
		}
	}
	end, err := f.source.ListOffset(ctx, topic, p, atLatest)
	if err != nil {
		return origin{}, fmt.Errorf("read the end of %s/%d: %w", topic, p, err)
	}
	start, err := f.source.ListOffset(ctx, topic, p, atEarliest)
	if err != nil {
		return origin{}, fmt.Errorf("read the start of %s/%d: %w", topic, p, err)
	}
	switch {
	case next > end:
		return origin{}, &goneError{fmt.Sprintf("source %s/%d ends at %d and %d is already mirrored: the source lost records or is another topic of the same name; to mirror it from its start, delete the target topic %s", topic, p, end, next, pair.targetName)}
	case next < start && mirrored:
		return origin{}, &goneError{fmt.Sprintf("source %s/%d begins at %d and mirroring stands at %d: %d offsets are gone before they were mirrored (retention or DeleteRecords); to accept the loss and begin anew, delete the target topic %s", topic, p, start, next, start-next, pair.targetName)}
	case next < start: // nothing was ever mirrored, so nothing was promised
		next = start
	}
	if len(st.last) > 0 {
		compared, err := checkSeam(ctx, f.source, topic, pair.targetName, p, st.last, st.carries)
		if err != nil {
			return origin{}, err
		}
		if !compared {
			t.log.Info("the seam cannot be compared: the source no longer has the last mirrored record", slog.Int64("position", next))
		}
	}
	return origin{source: next, targetEnd: st.end}, nil
}

// start resolves where a partition begins that was never mirrored. One that came
// while the flow ran begins at its first record, also with start: latest: there
// is nothing old in it, and what was written before it was seen is not skipped.
func (t *tenure) start(ctx context.Context, pair *topicPair) (int64, error) {
	at := int64(atEarliest)
	switch start := t.flow.cfg().StartFor(t.id.Topic); start.Kind {
	case topology.Earliest:
	case topology.Latest:
		if !t.flow.discovery.grown(pair, t.id.Partition) {
			at = atLatest
		}
	case topology.Timestamp:
		at = start.Millis
	}
	offset, err := t.flow.source.ListOffset(ctx, t.id.Topic, t.id.Partition, at)
	if err == nil && offset < 0 { // no record is as young as the timestamp
		offset, err = t.flow.source.ListOffset(ctx, t.id.Topic, t.id.Partition, atLatest)
	}
	if err != nil {
		return 0, fmt.Errorf("find the start of %s/%d: %w", t.id.Topic, t.id.Partition, err)
	}
	return offset, nil
}

func (t *tenure) limits() ladderLimits {
	t.mu.Lock()
	defer t.mu.Unlock()
	return ladderLimits{inflate: inflateLimit, maxBatch: t.maxBatch}
}

// mirror is step 5: the lane stands at the fetcher of the source leader and at
// the appender of the target leader, and follows them when leaders move.
func (t *tenure) mirror(ctx context.Context, pair *topicPair, l *lane, ledger *checkpoint.Ledger) error {
	f := t.flow
	changed, stop := f.discovery.watch()
	defer stop()
	source, target, err := pair.partition(t.id.Partition)
	if err != nil {
		return err
	}
	out := &appending{
		lane:  l,
		acked: func(runs []checkpoint.Run, foreign, base int64) { t.acked(l, runs, foreign, base) },
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
	for {
		select {
		case <-ctx.Done():
			leave()
			return ctx.Err()
		case err := <-l.faults:
			leave()
			return t.explain(ctx, pair, err)
		case <-l.events:
			t.examine(ctx, pair, ledger)
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
			if s.Leader != source.Leader || s.LeaderEpoch != source.LeaderEpoch {
				fetcher.remove(l)
				fetcher, source = f.fetcher(s.Leader), s
				fetcher.add(in(s.LeaderEpoch))
			}
			if d.Leader != target.Leader {
				appender.remove(l)
				l.suspend("the target leader moves")
				if !t.drain(l) {
					leave()
					return &waitError{"the old target leader does not answer"}
				}
				appender, target = f.appender(d.Leader), d
				appender.add(out)
			}
		}
	}
}

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
	t.settled(l)
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
	if news && t.flow.cfg().Naming == topology.Prefixed {
		t.log.Warn("something else writes to the target topic", slog.Int64("target_offset", base-foreign), slog.Int64("up_to", base))
	}
}

// settled tells the map that what follows the last record was dropped, so that
// a group that stands behind it is in step.
func (t *tenure) settled(l *lane) {
	source, news := l.settled()
	if !news {
		return
	}
	defer poke(l.events)
	defer l.recorded()
	if err := t.flow.recorder.Passed(l.key, source); err != nil {
		l.fault(&doubtError{"the offset map: " + err.Error()})
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
func (t *tenure) examine(ctx context.Context, pair *topicPair, ledger *checkpoint.Ledger) {
	t.mu.Lock()
	first := t.first
	t.first = nil
	t.mu.Unlock()
	if first == nil {
		return
	}
	err := scan(ctx, t.flow.target, pair.targetName, t.id.Partition, first.expected, first.base, nil, func(b wire.Batch) error {
		runs, err := ledger.Runs(b)
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
	case kerr.OffsetOutOfRange:
		return &waitError{"the source says that the position is out of range: its start and end are read again"}
	case kerr.TopicAuthorizationFailed, kerr.ClusterAuthorizationFailed:
		return fmt.Errorf("%w: grant READ and DESCRIBE on the source topic %s, WRITE and DESCRIBE on the target topic %s, IDEMPOTENT_WRITE on the target cluster", err, t.id.Topic, pair.targetName)
	}
	return err
}

// measure takes in that the target refused a batch as too large while it said
// that it takes limit bytes (0: it does not say), and returns what is sent at
// most from now on.
func (t *tenure) measure(limit int) int {
	t.mu.Lock()
	defer t.mu.Unlock()
	switch {
	case limit > 0 && (t.maxBatch == 0 || limit < t.maxBatch):
		t.maxBatch = limit
	case t.maxBatch == 0:
		t.maxBatch = 1 << 20
	default: // it refuses what it says it takes: come down by halves
		t.maxBatch = max(t.maxBatch/2, minBatch)
	}
	t.told = limit
	return t.maxBatch
}

// minBatch is what every target is believed to take.
const minBatch = 1 << 10

// remeasure looks whether the target topic takes another size than when it
// refused a batch: somebody may have raised it.
func (t *tenure) remeasure(ctx context.Context, topic string) error {
	t.mu.Lock()
	measured, told := t.maxBatch > 0, t.told
	t.mu.Unlock()
	if !measured {
		return nil
	}
	limit, err := t.maxMessageBytes(ctx, topic)
	if err != nil {
		return err
	}
	if limit != told {
		t.mu.Lock()
		t.maxBatch, t.told = limit, limit
		t.mu.Unlock()
	}
	return nil
}

// maxMessageBytes is the target topic's own limit; 0 if the target does not tell.
func (t *tenure) maxMessageBytes(ctx context.Context, topic string) (int, error) {
	configs, err := t.flow.target.TopicConfigs(ctx, []string{topic})
	if err != nil {
		return 0, fmt.Errorf("read max.message.bytes of %s: %w", topic, err)
	}
	var limit int
	if _, err := fmt.Sscan(strings.TrimSpace(configs[topic]["max.message.bytes"].Value), &limit); err != nil {
		return 0, nil //nolint:nilerr // an empty or absent value: not told
	}
	return limit, nil
}
