package checkpoint_test

import (
	"context"
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"slices"

	"kmirror/checkpoint"
	"kmirror/internal/wire"
)

// dice is where chance comes from: rapid, which shrinks what fails, or a seed,
// which is quick.
type dice func(n int) int

func seeded(seed uint64) dice {
	random := rand.New(rand.NewPCG(seed, 5))
	return func(n int) int { return random.IntN(n) }
}

func (d dice) one(n int) bool { return d(n) == 0 }

// faults are rules switched off, to see that somebody notices.
type faults struct {
	holes       bool // behind a hole, one record is skipped
	generations bool // blocks of all generations are one
	shorter     bool // a loose block does not say how far it reaches
	looseness   bool // loose runs are read as if they were not
	deleteOrder bool // blocks are deleted without regard to those that they void
	thinOrder   bool // thinned blocks are written from the beginning on
	slack       bool // the bound is one too small
}

// cell is one offset of the target's log.
type cell struct {
	source int64 // of a record of ours; -1: somebody else's, or a marker
	stands bool  // it is where this source offset stands now
}

// world is one mirrored partition: what the source holds, what the target's log
// holds, what MapTopic holds, and what the present owner knows. It is the truth
// that maps are held against.
type world struct {
	roll   dice
	faults faults

	key      checkpoint.Key
	records  []bool // by source offset: a record, or nothing that is mirrored
	targetID [16]byte
	cells    []cell // by target offset
	start    int64  // of the target's log
	batches  []wire.Batch
	anchors  []checkpoint.Anchor
	epoch    int16
	dealt    int64 // every source offset below has been dealt with, as far as any owner knew

	topic    []wire.Record    // MapTopic
	late     []wire.Record    // writes of blocks that may arrive once more
	follower *checkpoint.Runs // has read topic as it grew
	full     int              // runs of a block
	exact    int64            // source offsets below may have been thinned

	owner    *checkpoint.Runs // nil: nobody
	begun    *checkpoint.Runs // what the last owner began with
	ledger   *checkpoint.Ledger
	position int64
	sequence int32
	expected int64 // the source offset that sequence carries without another step

	goesOn int64 // where the target's log ended when either side had lost records

	err error
}

func newWorld(roll dice, f faults) *world {
	w := &world{roll: roll, faults: f, key: key(), full: 2 + roll(4)}
	w.targetID[0] = 1
	w.key.TopicID = [16]byte{1}
	w.follower = w.empty()
	for range roll(10) {
		w.stranger()
	}
	return w
}

func (w *world) empty() *checkpoint.Runs {
	r := &checkpoint.Runs{}
	r.FillBlocksAt(w.full)
	return r
}

func (w *world) fail(format string, args ...any) {
	if w.err == nil {
		w.err = fmt.Errorf(format, args...)
	}
}

// header is a batch without its records: nobody here reads those.
func header(base, producer int64, epoch int16, sequence int32, n int, control bool) wire.Batch {
	b := make(wire.Batch, wire.BatchHeaderSize)
	binary.BigEndian.PutUint64(b, uint64(base))
	binary.BigEndian.PutUint32(b[8:], wire.BatchHeaderSize-12)
	b[16] = 2
	if control {
		b[22] = 0x30
	}
	binary.BigEndian.PutUint32(b[23:], uint32(n-1))
	binary.BigEndian.PutUint64(b[43:], uint64(producer))
	binary.BigEndian.PutUint16(b[51:], uint16(epoch))
	binary.BigEndian.PutUint32(b[53:], uint32(sequence))
	binary.BigEndian.PutUint32(b[57:], uint32(n))
	return b
}

const ours, others = 5, 99 // producer ids

// produce lets the source grow: records, and what looks like holes to a mirror:
// markers, aborted batches, what compaction took.
func (w *world) produce() {
	for range 1 + w.roll(6) {
		n, record := 1+w.roll(5), !w.roll.one(3)
		for range n {
			w.records = append(w.records, record)
		}
	}
}

// stranger writes to the target: an application, or the marker of a fence.
func (w *world) stranger() {
	n, control := 1+w.roll(3), w.roll.one(3)
	if control {
		w.batches = append(w.batches, header(int64(len(w.cells)), ours, w.epoch, -1, 1, true))
		n = 1
	} else {
		w.batches = append(w.batches, header(int64(len(w.cells)), others, 0, 0, n, false))
	}
	for range n {
		w.cells = append(w.cells, cell{source: -1})
	}
}

// carry mirrors what comes next, up to some source offset, in one batch. The
// owner may die at every step of it.
func (w *world) carry() {
	if w.owner == nil {
		if w.takeOver(); w.owner == nil {
			return
		}
	}
	end := min(int64(len(w.records)), w.position+1+int64(w.roll(12)))
	var sources []int64
	anchor := checkpoint.Anchor{Key: w.key, ProducerID: ours, Epoch: w.epoch}
	sequence, expected := w.sequence, w.expected
	for s := w.position; s < end; s++ {
		if !w.records[s] {
			continue
		}
		if s != expected {
			anchor.Steps = append(anchor.Steps, checkpoint.Step{Sequence: sequence, Source: s})
		}
		sources = append(sources, s)
		sequence, expected = sequence+1, s+1
	}
	if len(anchor.Steps) > 0 {
		w.anchors = append(w.anchors, anchor)
		w.ledger.Add(anchor)
		if w.dies() {
			return
		}
	}
	base := int64(len(w.cells))
	if len(sources) > 0 {
		b := header(base, ours, w.epoch, w.sequence, len(sources), false)
		w.batches = append(w.batches, b)
		for _, s := range sources {
			w.again(s)
			w.cells = append(w.cells, cell{source: s, stands: true})
		}
		w.position, w.dealt = expected, max(w.dealt, expected)
		if w.dies() {
			return
		}
		runs, err := w.ledger.Runs(b)
		if err != nil {
			w.fail("read one's own batch: %w", err)
		}
		for _, run := range runs {
			if err := w.owner.Add(run); err != nil {
				w.fail("take an acknowledgement in: %w", err)
			}
		}
	}
	w.sequence, w.expected, w.position = sequence, expected, end
	if w.roll.one(2) {
		w.owner.Pass(end)
		w.dealt = max(w.dealt, end)
	}
}

// again notes that a source offset is mirrored: once more only if the copy that
// stood in the target is gone.
func (w *world) again(s int64) {
	for i, c := range w.cells {
		if c.source == s && c.stands {
			if w.cells[i].stands = false; int64(i) >= w.start {
				w.fail("source offset %d is mirrored again, and stands at %d", s, i)
			}
		}
	}
}

func (w *world) dies() bool {
	if w.roll.one(20) {
		w.owner = nil
	}
	return w.owner == nil
}

// write appends to MapTopic, and lets the follower read it. It may end early.
func (w *world) write(records []wire.Record) (all bool) {
	if w.roll.one(6) {
		records = records[:w.roll(len(records)+1)]
	} else {
		all = true
	}
	for _, rec := range records {
		rec.Offset = int64(len(w.topic))
		w.topic = append(w.topic, rec)
		if full := byte(2); rec.Key[0] == full && rec.Value != nil {
			w.late = append(w.late, rec)
		}
		w.take(w.follower, rec)
	}
	return all
}

// take lets a map read a record.
func (w *world) take(r *checkpoint.Runs, rec wire.Record) {
	what, err := checkpoint.Decode(rec)
	if err != nil {
		w.fail("read the map: %w", err)
		return
	}
	switch what := what.(type) {
	case checkpoint.Block:
		if what.Key == w.key {
			r.Merge(w.bend(what))
		}
	case checkpoint.Deleted:
		if b := what.Of.(checkpoint.Block); b.Key == w.key {
			if w.faults.generations {
				b.Generation = 0
			}
			r.Drop(b)
		}
	}
}

// bend reads a block as one would who does not know some rule.
func (w *world) bend(b checkpoint.Block) checkpoint.Block {
	if w.faults.generations {
		b.Generation = 0
	}
	last := &b.Runs[len(b.Runs)-1]
	if w.faults.shorter && last.Loose {
		b.Through = last.Source + last.Count
	}
	if w.faults.looseness {
		for i := range b.Runs {
			b.Runs[i].Loose = b.Runs[i].Count == 0 && b.Runs[i].Loose
		}
	}
	return b
}

// flush writes what the owner has not written.
func (w *world) flush() {
	if w.owner == nil {
		return
	}
	w.owner.Flush(w.key, func(blocks []checkpoint.Block) (failed bool) {
		return !w.write(encoded(blocks))
	})
	w.dies()
}

// ListOffset and Read make the world a Reader.
func (w *world) ListOffset(context.Context, string, int32, int64) (int64, error) { return 0, nil }

func (w *world) Read(_ context.Context, _ string, _ int32, _ int64, fn func(wire.Record) error) (int64, error) {
	for _, rec := range w.topic {
		if err := fn(rec); err != nil {
			return 0, err
		}
	}
	return int64(len(w.topic)), nil
}

// load reads MapTopic as a successor does, or its records in any order, twice.
func (w *world) load() *checkpoint.Runs {
	runs := w.empty()
	if w.roll.one(2) {
		for _, rec := range w.topic {
			w.take(runs, rec)
		}
		return runs
	}
	w.compact()
	records := slices.DeleteFunc(slices.Clone(w.topic), func(rec wire.Record) bool { return rec.Value == nil })
	for _, rec := range records {
		if w.roll.one(4) {
			records = append(records, rec)
		}
	}
	for i := len(records) - 1; i > 0; i-- {
		j := w.roll(i + 1)
		records[i], records[j] = records[j], records[i]
	}
	if w.roll.one(2) {
		for _, rec := range records {
			w.take(runs, rec)
		}
		return runs
	}
	var blocks []checkpoint.Block
	for _, rec := range records {
		if what, err := checkpoint.Decode(rec); err == nil {
			if b := what.(checkpoint.Block); b.Key == w.key {
				blocks = append(blocks, w.bend(b))
			}
		}
	}
	runs.Merge(blocks...)
	return runs
}

// compact keeps the last record of every key.
func (w *world) compact() {
	last := map[string]int{}
	for i, rec := range w.topic {
		last[string(rec.Key)] = i
	}
	var kept []wire.Record
	for i, rec := range w.topic {
		if last[string(rec.Key)] == i {
			kept = append(kept, rec)
		}
	}
	w.topic = kept
}
