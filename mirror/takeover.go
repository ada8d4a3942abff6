package mirror

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"sync"
	"time"

	"kmirror/checkpoint"
	"kmirror/internal/kafka"
	"kmirror/internal/wire"
	"kmirror/topology"
)

// takeover begins an attempt on a partition: it makes sure that nobody else can
// write, reads off the target where the source stands in it, and takes an epoch.
//
//  1. end the former owners (see fence)
//  2. read ledger and map, then the target's tail: the position
//  3. compare the seam: all that the map did not hold yet
//  4. write down that the partition is ours, then where the epoch begins
//
// A crash after any of these steps leaves nothing that the next attempt could
// misread: 1 leaves markers, which carry nothing; 2 and 3 write nothing; an
// owner that never wrote is ended in vain; an anchor without batches says only
// where its epoch would have begun. From then on every batch is preceded by its
// steps in the ledger.
type takeover struct {
	cfg      func() *topology.Flow
	fence    *fence
	source   partitionReader
	target   takeoverTarget
	load     func(ctx context.Context, key checkpoint.Key) (checkpoint.Loaded, error)
	put      putter
	settle   func(ctx context.Context, key checkpoint.Key) error                      // writes what an earlier attempt of this life left of the map
	proof    func(ctx context.Context, key checkpoint.Key) (checkpoint.Loaded, error) // see provenLedgers
	accepted func(id partitionID, kind string) bool
	start    func(ctx context.Context, pair *topicPair, partition int32) (int64, error)
	inherit  heir // what MirrorMaker 2 left; nil: nothing
	doubled  func(records int64)
	journal  Journal
	log      *slog.Logger

	mu      sync.Mutex // guards granted
	granted map[acceptance]time.Time
}

// acceptance is a stop that the operator accepted, as long as the partition has not begun:
// it may stop for another reason, and is not to ask for the first one again.
type acceptance struct {
	id   partitionID
	kind string
}

// takeoverTarget is what is asked of the target beyond its log.
type takeoverTarget interface {
	partitionReader
	LastSequences(ctx context.Context, topic string, partition int32) (map[kafka.Producer]int32, error)
	// LeaderEpoch is that of the present leader, by its own word; -1: it does not tell.
	LeaderEpoch(ctx context.Context, topic string, partition int32) (int32, error)
}

// witness is what this instance knows of a partition from earlier attempts in
// the same tenure; nothing at first.
type witness struct {
	admitted  bool  // the dead were ended since the partition was assigned
	targetEnd int64 // after the last record that the target acknowledged; 0 unknown
	former    []ended
	sourceCut int64 // where the source's log was cut off, if cut
	cut       bool
	inherited bool // the map holds what MirrorMaker 2 left, and that is not written yet
}

// beginning is what an attempt goes on with.
type beginning struct {
	origin
	producer kafka.Producer
	runs     *checkpoint.Runs
	former   []formerTopic // incarnations of the topic that are gone
}

// run is steps 1 to 4.
func (t *takeover) run(ctx context.Context, id partitionID, key checkpoint.Key, pair *topicPair, seen *witness) (beginning, error) {
	var b beginning
	if err := t.fence.open(ctx); err != nil {
		return b, err
	}
	if !seen.admitted {
		if err := t.fence.admit(ctx); err != nil {
			return b, err
		}
		seen.admitted = true
	}
	at := kafka.TopicPartition{Topic: pair.targetName, Partition: id.Partition}
	remembered := t.remembered(ctx, at) // a marker makes the leader forget the sequence
	former, err := t.fence.take(ctx, id, key, at, func(lost *lapsedError) error {
		return t.decide(id, t.policies(id).Unfenced == topology.UnfencedContinue, about(id, KindFenceLost, lost.Error(), ""))
	})
	if err != nil {
		return b, err
	}
	if err := t.settle(ctx, key); err != nil { // or it would come behind what is read now, and be taken for newer
		return b, err
	}
	loaded, err := t.load(ctx, key)
	if err != nil {
		return b, fmt.Errorf("read ledger and map: %w", err)
	}
	named, err := t.load(ctx, pairKey(key))
	if err != nil {
		return b, fmt.Errorf("read which topics belong together: %w", err)
	}
	loaded.Pairs = named.Pairs
	loaded.Owners = named.Owners
	for _, o := range former {
		if err := o.check(loaded.Ledger); err != nil {
			return b, t.decide(id, false, about(id, KindFenceLost, err.Error(), ""))
		}
	}
	seen.former = append(seen.former, former...)
	known, err := t.incarnation(id, pair, loaded)
	if err != nil {
		return b, err
	}
	persisted, _ := nextSource(loaded.Runs)
	st, err := stand(ctx, t.target, pair.targetName, id.Partition, loaded.Ledger, loaded.Runs)
	if err != nil {
		return b, err
	}
	var idle []wire.Record // what former epochs that wrote nothing left in the ledger
	for _, a := range loaded.Ledger.Idle(persisted, func(p checkpoint.Producer) bool { return st.seen[p] }) {
		a.Key = key
		idle = append(idle, checkpoint.EncodeDeleted(a))
	}
	if b.origin, err = t.position(ctx, id, key, pair, loaded, known, st, seen, remembered); err != nil {
		return b, err
	}
	t.fence.settled(id) // whoever had something under way was ended
	if b.producer, err = t.fence.next(ctx, id); err != nil {
		return b, fmt.Errorf("take a producer epoch: %w", err)
	}
	gone := make([]checkpoint.Owner, 0, len(former))
	for _, o := range former {
		gone = append(gone, o.Owner)
	}
	if err := t.fence.own(ctx, t.put, id, key, gone); err != nil {
		return b, err
	}
	anchor := checkpoint.Anchor{
		Key: key, ProducerID: b.producer.ID, Epoch: b.producer.Epoch,
		Steps: []checkpoint.Step{{Source: b.origin.source}}, TimeMillis: time.Now().UnixMilli(),
	}
	records := append(seen.bequest(key, loaded.Runs), checkpoint.EncodeAnchor(anchor))
	if known == sameTopics && t.fence.modeNow() != fenceDetect {
		records = append(records, idle...)
	}
	if err := t.put(ctx, key.MapPartition(), records); err != nil {
		return b, fmt.Errorf("write the epoch's anchor: %w", err)
	}
	if known != sameTopics { // after the anchor: see incarnation
		record := checkpoint.EncodePair(checkpoint.TopicPair{
			Flow: key.Flow, SourceTopic: key.Topic, SourceID: pair.source.ID, TargetTopic: pair.targetName, TargetID: pair.target.ID,
			TimeMillis: time.Now().UnixMilli(),
		})
		if err := t.put(ctx, pairKey(key).MapPartition(), []wire.Record{record}); err != nil {
			return b, fmt.Errorf("write down which topics belong together: %w", err)
		}
	}
	t.begun(id)
	loaded.Runs.Begin(b.origin.source, b.targetEnd) // groups on a partition without records get an offset
	b.runs = loaded.Runs
	if t.fence.modeNow() != fenceDetect {
		b.former = formerTopics(key, pair, loaded.Pairs, time.Now())
	}
	return b, nil
}

func (t *takeover) policies(id partitionID) topology.Policies { return t.cfg().PoliciesFor(id.Topic) }

// decide records an incident and says whether the partition goes on: by policy,
// or because the operator accepted this kind for it.
func (t *takeover) decide(id partitionID, goOn bool, in Incident) error {
	accepted := !goOn && t.grants(id, in.Kind)
	switch {
	case goOn && in.Action == "":
		in.Action = "went on, by policy"
	case accepted:
		in.Action = "went on: accepted by the operator"
	case !goOn:
		in.Action = fmt.Sprintf("stopped; to go on all the same: kmirror resume '%s' %s --partition %d --accept %s", id.Flow, id.Topic, id.Partition, in.Kind)
	}
	t.journal.Record(in)
	if goOn || accepted {
		return nil
	}
	return &haltError{in.Kind, in.Detail + "; " + in.Action}
}

// grants says whether the operator accepted that the partition stops for this reason.
func (t *takeover) grants(id partitionID, kind string) bool {
	word, now := t.accepted(id, kind), time.Now()
	t.mu.Lock()
	defer t.mu.Unlock()
	if word {
		if t.granted == nil {
			t.granted = map[acceptance]time.Time{}
		}
		t.granted[acceptance{id, kind}] = now
	}
	since, ok := t.granted[acceptance{id, kind}]
	return ok && now.Sub(since) < acceptFor
}

// begun forgets what was granted: what happens from now on is another matter.
func (t *takeover) begun(id partitionID) {
	t.mu.Lock()
	defer t.mu.Unlock()
	maps.DeleteFunc(t.granted, func(a acceptance, _ time.Time) bool { return a.id == id })
}

// incarnation is the pure decision with the policies' word on it.
func (t *takeover) incarnation(id partitionID, pair *topicPair, loaded checkpoint.Loaded) (acquaintance, error) {
	known, detail := incarnation(pair, loaded)
	switch known {
	case sameTopics, newPair:
	case newSource:
		in := about(id, KindSourceRecreated, detail, "")
		if t.policies(id).SourceRecreated == topology.RecreatedBegin {
			in.Action = "began the new topic, behind what is there"
		}
		if err := t.decide(id, in.Action != "", in); err != nil {
			return known, err
		}
	case newTarget:
		in := about(id, KindTargetDeleted, detail, "")
		if t.policies(id).TargetDeleted == topology.TargetGoneRecreate {
			in.Action = "fills the new target topic from the start"
		}
		if err := t.decide(id, in.Action != "", in); err != nil {
			return known, err
		}
	}
	return known, nil
}

// position says where to go on, by how the target stands, and compares the seam.
func (t *takeover) position(ctx context.Context, id partitionID, key checkpoint.Key, pair *topicPair, loaded checkpoint.Loaded, known acquaintance, st standing, seen *witness, remembered map[kafka.Producer]int32) (from origin, err error) {
	if gap := seen.targetEnd - st.end; gap > st.lost {
		st.lost = gap
	}
	if known == newTarget {
		st.lost = 0
	}
	if st.lost > 0 || st.gap > 0 {
		if err := t.lostTail(ctx, id, pair, st, seen); err != nil {
			return from, err
		}
	}
	if st.doubt && known == sameTopics {
		in := about(id, KindPositionDoubt, fmt.Sprintf("target %s/%d lost more than the ledger (%s) reaches back, and has grown again: nobody knows what stands there", pair.targetName, id.Partition, checkpoint.MapTopic), "")
		in.TargetOffset = st.end
		if err := t.decide(id, false, in); err != nil {
			return from, err
		}
	}
	seen.targetEnd = st.end
	for _, run := range st.doubled {
		t.log.Error("records stand twice in the target", slog.Int64("source_offset", run.Source), slog.Int64("target_offset", run.Target), slog.Int64("records", run.Count))
		t.doubled(run.Count)
		in := about(id, KindDoubled, "the target holds records of the source twice", "counted; they stay")
		in.SourceOffset, in.TargetOffset, in.Count = run.Source, run.Target, run.Count
		t.journal.Record(in)
	}
	if err := t.forgotten(ctx, id, pair, loaded, known, st); err != nil {
		return from, err
	}
	var memory recollection
	if len(st.last) == 0 && st.lost == 0 && known == sameTopics {
		memory = recall(loaded, remembered, t.remembered(ctx, kafka.TopicPartition{Topic: pair.targetName, Partition: id.Partition}))
	}
	next, begun, err := t.next(id, pair, loaded, known, st, memory)
	if err != nil {
		return from, err
	}
	seen.inherited = false
	if !begun && t.inherit != nil && (known == sameTopics || len(loaded.Pairs) == 0) {
		if next, begun, err = t.inherit(ctx, id, pair, loaded.Runs, st); err != nil {
			return from, err
		}
		seen.inherited = begun
	}
	if !begun {
		if next, err = t.start(ctx, pair, id.Partition); err != nil {
			return from, err
		}
	}
	end, err := t.source.ListOffset(ctx, id.Topic, id.Partition, atLatest)
	if err != nil {
		return from, fmt.Errorf("read the end of %s/%d: %w", id.Topic, id.Partition, err)
	}
	start, err := t.source.ListOffset(ctx, id.Topic, id.Partition, atEarliest)
	if err != nil {
		return from, fmt.Errorf("read the start of %s/%d: %w", id.Topic, id.Partition, err)
	}
	if seen.cut && seen.sourceCut < next {
		end = min(end, seen.sourceCut)
	}
	switch {
	case next > end:
		in := about(id, KindSourceTruncated, fmt.Sprintf("source %s/%d was cut off at %d and %d is already mirrored: the source lost records in an unclean election, or is another topic of the same name", id.Topic, id.Partition, end, next), "")
		in.SourceOffset, in.TargetOffset, in.Count = end, st.end, next-end
		if err := t.decide(id, t.policies(id).SourceTruncated == topology.LossContinue, in); err != nil {
			return from, err
		}
		seen.cut = false
		loaded.Runs.CutSource(end)
		return origin{source: end, targetEnd: st.end}, nil
	case next < start && begun:
		in := about(id, KindRetentionLoss, fmt.Sprintf("source %s/%d begins at %d and mirroring stands at %d: what lies between is gone before it was mirrored (retention or DeleteRecords)", id.Topic, id.Partition, start, next), "")
		in.SourceOffset, in.TargetOffset, in.Count = next, st.end, start-next
		if err := t.decide(id, t.policies(id).RetentionLoss == topology.LossContinue, in); err != nil {
			return from, err
		}
	}
	if err := t.seam(ctx, id, key, pair, st, next, start, end); err != nil {
		return from, err
	}
	if memory.next > 0 && next != end {
		if err := t.remembers(ctx, id, key, pair, st, memory); err != nil {
			return from, err
		}
	}
	return origin{source: max(next, start), targetEnd: st.end}, nil // before start nothing was promised, or it is accepted that it is lost
}

// next is the source offset to go on with, by the later of tail and map. begun:
// mirroring has begun, though there may be nothing in the target yet.
//
// The tail tells; where it holds nothing of ours any more, the producers that its
// leader remembers do, and before the first record ever what an earlier tenure
// began with, so that start: latest does not move on at every restart.
func (t *takeover) next(id partitionID, pair *topicPair, loaded checkpoint.Loaded, known acquaintance, st standing, memory recollection) (next int64, begun bool, err error) {
	next, begun = nextSource(loaded.Runs)
	if begun { // what followed and was dropped may have expired at the source since
		next = max(next, loaded.Runs.Through())
	}
	if memory.next > next {
		next, begun = memory.next, true
	}
	if !begun && st.lost > 0 { // all of the copy is gone, also what earlier epochs wrote
		next, _, begun = loaded.Runs.End()
	}
	if !begun && known == sameTopics {
		if next, begun, err = t.beginning(id, pair, loaded, st); err != nil {
			return 0, false, err
		}
		next = max(next, loaded.Runs.Through())
	}
	return next, begun, nil
}

// beginning is where a partition goes on of which nothing is in the target: where
// the newest epoch began; and where the first one did, if the target's log begins
// at its first offset, so that what the epochs between wrote can only have been
// lost. (If they wrote nothing, because all of it was dropped, it is dropped again.)
func (t *takeover) beginning(id partitionID, pair *topicPair, loaded checkpoint.Loaded, st standing) (next int64, begun bool, err error) {
	next, begun = loaded.Ledger.EpochStart()
	first, ok := loaded.Ledger.FirstStart()
	if source, _, mapped := loaded.Runs.End(); mapped {
		first, ok = source, true
	}
	if !ok || !begun || st.start > 0 || first >= next {
		return next, begun, nil
	}
	if loaded.Runs.Through() >= next { // and the map, which holds no record, says so: all of it was dropped
		return next, begun, nil
	}
	in := about(id, KindTargetTruncated, fmt.Sprintf("target %s/%d holds nothing of this flow, and mirroring stood at source offset %d: the target lost it in an unclean election, or there was nothing to mirror", pair.targetName, id.Partition, next), "")
	in.SourceOffset, in.TargetOffset = first, st.end
	remirror := t.policies(id).TargetTruncated == topology.TargetLostRemirror
	if remirror {
		in.Action = fmt.Sprintf("mirrors it again from source offset %d", first)
	}
	return first, true, t.decide(id, remirror, in)
}

// recollection is what a target's leader remembers of a producer of ours, where the
// log holds nothing of ours any more.
type recollection struct {
	who      kafka.Producer
	sequence int32
	next     int64 // behind the source offset that it stands for, by the ledger; 0: there is none
}

// recall finds the furthest of what leaders remember, if the map does not reach it.
func recall(loaded checkpoint.Loaded, remembered ...map[kafka.Producer]int32) (furthest recollection) {
	mapped, begun := nextSource(loaded.Runs)
	if begun {
		mapped = max(mapped, loaded.Runs.Through())
	}
	for _, last := range remembered {
		for p, sequence := range last {
			if at, ok := loaded.Ledger.Source(p.ID, p.Epoch, sequence); ok && at+1 > max(mapped, furthest.next) {
				furthest = recollection{p, sequence, at + 1}
			}
		}
	}
	return furthest
}

// remembers says what it is worth that a leader remembers what is not in the log any
// more: there is nothing to compare, so that it is as good as the ledger.
func (t *takeover) remembers(ctx context.Context, id partitionID, key checkpoint.Key, pair *topicPair, st standing, memory recollection) error {
	proof, err := t.proof(ctx, key)
	if err != nil {
		return fmt.Errorf("read what of the ledger is certain: %w", err)
	}
	if at, ok := proof.Ledger.Source(memory.who.ID, memory.who.Epoch, memory.sequence); ok && at+1 == memory.next {
		return nil
	}
	in := about(id, KindSeamUnverified, fmt.Sprintf("target %s/%d holds nothing of this flow any more, the map does not reach what it held last, and since the ledger of that was written its topic (%s) has another leader, who may have lost some of it: that mirroring stands at %d rests on what is left of the ledger",
		pair.targetName, id.Partition, checkpoint.MapTopic, memory.next), "")
	in.SourceOffset, in.TargetOffset = memory.next, st.end
	return t.decide(id, t.policies(id).SeamUnverified == topology.LossContinue, in)
}

// remembered is the last sequence of every producer that the partition's leader
// knows; nothing where it does not tell.
func (t *takeover) remembered(ctx context.Context, at kafka.TopicPartition) map[kafka.Producer]int32 {
	last, err := t.target.LastSequences(ctx, at.Topic, at.Partition)
	if err != nil {
		t.log.Debug("ask the target for its producers", slog.Any("error", err))
	}
	return last
}

// forgotten finds batches of ours that the ledger does not know: it has lost its
// end, which takes an unclean election there, and the position with it. An epoch
// below one that it knows belongs to an earlier incarnation of the topic.
func (t *takeover) forgotten(ctx context.Context, id partitionID, pair *topicPair, loaded checkpoint.Loaded, known acquaintance, st standing) error {
	if known != sameTopics || len(st.others) == 0 {
		return nil
	}
	newest := map[int64]int16{}
	for _, p := range loaded.Ledger.Producers() {
		newest[p.ID] = max(newest[p.ID], p.Epoch)
	}
	if len(loaded.Pairs) <= 1 {
		for _, o := range loaded.Owners {
			if _, ok := newest[o.ProducerID]; !ok {
				newest[o.ProducerID] = -1
			}
		}
		flow, err := t.load(ctx, checkpoint.Key{Flow: id.Flow})
		if err != nil {
			return fmt.Errorf("read who writes for the flow: %w", err)
		}
		for _, w := range flow.Writers {
			if _, ok := newest[w.ProducerID]; !ok {
				newest[w.ProducerID] = -1
			}
		}
	}
	for p, at := range st.others {
		if epoch, ours := newest[p.ID]; !ours || p.Epoch <= epoch {
			continue
		}
		in := about(id, KindPositionDoubt, fmt.Sprintf("target %s/%d holds a batch of this flow at %d (producer %d epoch %d) of which the ledger (%s) knows nothing: it has lost its end, and with it where the source stands", pair.targetName, id.Partition, at, p.ID, p.Epoch, checkpoint.MapTopic), "")
		in.TargetOffset = at
		return t.decide(id, false, in)
	}
	return nil
}

// lostTail deals with a target that no longer has what it had acknowledged. The
// markers that ended former owners may be gone with it, so they are ended again.
func (t *takeover) lostTail(ctx context.Context, id partitionID, pair *topicPair, st standing, seen *witness) error {
	in := about(id, KindTargetTruncated, fmt.Sprintf("target %s/%d ends at %d and had acknowledged %d offsets more: an unclean election there", pair.targetName, id.Partition, st.end, st.lost), "mirrors what is gone again")
	in.TargetOffset, in.Count = st.end, st.lost
	if st.gap > 0 {
		in.Detail = fmt.Sprintf("target %s/%d lost records at offset %d that it had acknowledged, and took later ones all the same: an unclean election there", pair.targetName, id.Partition, st.gapAt)
		in.Action = fmt.Sprintf("mirrors what is gone again, and %d offsets that stand behind the gap a second time", st.gap)
		in.TargetOffset, in.Count = st.gapAt, -1
	}
	remirror := t.policies(id).TargetTruncated == topology.TargetLostRemirror
	if !remirror {
		in.Action = ""
	}
	if err := t.decide(id, remirror, in); err != nil {
		return err
	}
	for _, o := range seen.former {
		if o.as == kafka.NoProducer || o.TransactionalID == t.fence.id {
			continue
		}
		if _, err := t.fence.end(ctx, o.Owner, kafka.TopicPartition{Topic: pair.targetName, Partition: id.Partition}); err != nil {
			return err
		}
	}
	return nil
}

// seam compares with the source what stands in the target beyond the map as it was
// persisted, or, where that is nothing, the last batch of ours. The map grows by it,
// so a ledger that has lost steps must not say what stands there.
//
// Where the source no longer has the records, these are beyond doubt all the same: what
// ends where the source's log does, for a step that was lost would have gone further;
// and what the ledger says by steps that were written under the present leader of its
// topic (see provenLedgers). What the map holds was written after the target's
// acknowledgement, behind the ledger's steps and in the same partition, so that a
// ledger which had lost its end would have lost it too.
func (t *takeover) seam(ctx context.Context, id partitionID, key checkpoint.Key, pair *topicPair, st standing, next, start, end int64) error {
	if len(st.last) == 0 || st.void {
		return nil
	}
	s := &seam{source: newCursor(t.source, id.Topic, id.Partition, end), target: pair.targetName, partition: id.Partition, start: start}
	var ledger *checkpoint.Ledger
	first, doubtful := int64(-1), int64(0)
	compare := func(b wire.Batch, carries []checkpoint.Run) error {
		open, err := s.compare(ctx, b, carries)
		if err != nil || st.unmapped == 0 {
			return err
		}
		open = slices.DeleteFunc(open, func(r checkpoint.Run) bool { return next == end && r.Source+r.Count == end })
		if len(open) == 0 {
			return nil
		}
		if ledger == nil {
			proof, err := t.proof(ctx, key)
			if err != nil {
				return fmt.Errorf("read what of the ledger is certain: %w", err)
			}
			ledger = proof.Ledger
		}
		for _, r := range unproven(ledger, b, st.tail.floor, open) {
			if doubtful += r.Count; first < 0 {
				first = r.Target
			}
		}
		return nil
	}
	var err error
	if st.unmapped <= 1 {
		err = compare(st.last, st.carries)
	} else {
		err = st.tail.walk(ctx, t.target, pair.targetName, id.Partition, func(b wire.Batch, carries []checkpoint.Run, follows bool) error {
			if !follows || b.LastOffset() < st.mapped {
				return nil
			}
			return compare(b, carries)
		})
	}
	if mismatch := (*seamError)(nil); errors.As(err, &mismatch) {
		in := about(id, KindSeamMismatch, mismatch.Error(), "")
		in.SourceOffset, in.TargetOffset = mismatch.sourceOffset, mismatch.targetOffset
		return t.decide(id, false, in)
	}
	if err != nil || doubtful == 0 {
		return err
	}
	in := about(id, KindSeamUnverified, fmt.Sprintf("%d records in target %s/%d from %d on cannot be compared, for the source no longer has them (it begins at %d), the map does not reach them, and since their ledger was written its topic (%s) has another leader, who may have lost some of it: that mirroring stands at %d rests on what is left of the ledger",
		doubtful, pair.targetName, id.Partition, first, start, checkpoint.MapTopic, next), "")
	in.SourceOffset, in.TargetOffset, in.Count = next, first, doubtful
	return t.decide(id, t.policies(id).SeamUnverified == topology.LossContinue, in)
}
