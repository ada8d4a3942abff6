package checkpoint

import (
	"cmp"
	"fmt"
	"slices"

	"kmirror/internal/wire"
)

// Producer is one epoch of one producer id: what a sequence belongs to.
type Producer struct {
	ID    int64
	Epoch int16
}

// Ledger says which source offset a sequence of ours carries, for one
// partition. The zero value is empty and ready. It is not safe for concurrent
// use.
//
// Sequences wrap at 2^31. The ledger tells the laps apart because there is an
// anchor at least every 2^30 records: a sequence is taken to lie in the 2^31
// that end 2^30 beyond the last step added.
type Ledger struct {
	producers map[Producer]*lane
	start     int64 // see EpochStart
	first     int64 // see FirstStart
	started   bool
	epochs    int // producer epochs ever seen
}

// lane is the ledger of one producer epoch.
type lane struct {
	order  int   // among the epochs, by when the first anchor was added
	newest int64 // the position of the step added last
	// Invariant: positions grow strictly.
	steps []laneStep
	filed []filedAnchor // the records that hold them, by their first
}

// laneStep is a Step whose sequence has been unwrapped: position modulo 2^31
// is the sequence.
type laneStep struct{ position, source int64 }

// unwrap returns the position of a sequence near the newest step.
func (l *lane) unwrap(sequence int32) int64 {
	const lap, ahead = 1 << 31, 1 << 30
	behind := (l.newest + ahead - int64(sequence)) & (lap - 1)
	return l.newest + ahead - behind
}

// at returns the index of the last step at or before a position, -1 if none.
func (l *lane) at(position int64) int {
	i, found := slices.BinarySearchFunc(l.steps, position, func(s laneStep, p int64) int { return cmp.Compare(s.position, p) })
	if found {
		return i
	}
	return i - 1
}

// Add takes an anchor into the ledger. Anchors are added in the order in which
// they stand in the topic; of two for one sequence the later one holds.
func (l *Ledger) Add(a Anchor) {
	if len(a.Steps) == 0 {
		return
	}
	if l.producers == nil {
		l.producers = make(map[Producer]*lane)
	}
	p := Producer{ID: a.ProducerID, Epoch: a.Epoch}
	line := l.producers[p]
	if line == nil {
		l.epochs++
		line = &lane{order: l.epochs, newest: int64(a.Steps[0].Sequence)}
		l.producers[p] = line
	}
	var record filedAnchor
	for n, s := range a.Steps {
		step := laneStep{position: line.unwrap(s.Sequence), source: s.Source}
		line.newest = step.position
		if n == 0 {
			record.first = step.position
		}
		record.last = step.position
		if s.Sequence == 0 {
			if !l.started {
				l.first = s.Source
			}
			l.start, l.started = s.Source, true
		}
		i := line.at(step.position)
		if i >= 0 && line.steps[i].position == step.position {
			line.steps[i] = step
		} else {
			line.steps = slices.Insert(line.steps, i+1, step)
		}
	}
	line.file(record)
}

// Source returns the source offset that a sequence of ours carries. It is not
// ok when no anchor at or before the sequence is known.
func (l *Ledger) Source(producerID int64, epoch int16, sequence int32) (offset int64, ok bool) {
	line := l.producers[Producer{ID: producerID, Epoch: epoch}]
	if line == nil || sequence < 0 {
		return 0, false
	}
	position := line.unwrap(sequence)
	i := line.at(position)
	if i < 0 {
		return 0, false
	}
	return line.steps[i].source + position - line.steps[i].position, true
}

// Owns says whether a producer epoch is one of ours.
func (l *Ledger) Owns(producerID int64, epoch int16) bool {
	return l.producers[Producer{ID: producerID, Epoch: epoch}] != nil
}

// EpochStart returns the source offset that the newest epoch began with: that
// of the step with sequence 0 that was added last. It is not ok when there is
// none. (Not the largest: when the target topic was created anew, mirroring
// began again below where older epochs had begun.)
func (l *Ledger) EpochStart() (offset int64, ok bool) { return l.start, l.started }

// FirstStart returns the source offset that the oldest epoch began with, of those
// that the ledger still holds.
func (l *Ledger) FirstStart() (offset int64, ok bool) { return l.first, l.started }

// Lowest returns the lowest source offset that anything in the ledger stands for:
// what the map holds below it was written by somebody else, before mirroring began.
func (l *Ledger) Lowest() (offset int64, ok bool) {
	for _, line := range l.producers {
		for _, s := range line.steps {
			if !ok || s.source < offset {
				offset, ok = s.source, true
			}
		}
	}
	return offset, ok
}

// Producers returns every producer epoch in the ledger, by id and epoch.
func (l *Ledger) Producers() []Producer {
	all := make([]Producer, 0, len(l.producers))
	for p := range l.producers {
		all = append(all, p)
	}
	slices.SortFunc(all, func(a, b Producer) int { return cmp.Or(cmp.Compare(a.ID, b.ID), cmp.Compare(a.Epoch, b.Epoch)) })
	return all
}

// Len returns the number of steps held.
func (l *Ledger) Len() int {
	n := 0
	for _, line := range l.producers {
		n += len(line.steps)
	}
	return n
}

// UnanchoredError says that a batch bears a producer epoch of ours, but that
// no anchor says what its sequence carries: the ledger has lost something.
type UnanchoredError struct {
	Producer
	Sequence int32
	Target   int64 // base offset of the batch
}

func (e *UnanchoredError) Error() string {
	return fmt.Sprintf("batch at target offset %d: no anchor for sequence %d of producer %d epoch %d", e.Target, e.Sequence, e.ID, e.Epoch)
}

// Runs returns what a batch of the target log carries: one run, or several
// when it spans steps. It returns none for a control batch and for a batch
// that is not ours, and *UnanchoredError for one of ours that no anchor
// covers. Records are counted by the last offset delta: compaction on the
// target takes records away but not their places.
func (l *Ledger) Runs(b wire.Batch) ([]Run, error) { return l.RunsFrom(b, b.BaseOffset()) }

// RunsFrom is Runs for the part of a batch that stands at or behind a target
// offset: of what lies before it the anchors may have been deleted.
func (l *Ledger) RunsFrom(b wire.Batch, from int64) ([]Run, error) {
	p := Producer{ID: b.ProducerID(), Epoch: b.ProducerEpoch()}
	line := l.producers[p]
	if line == nil || b.IsControl() || b.BaseSequence() < 0 || b.LastOffset() < from {
		return nil, nil
	}
	behind := max(0, from-b.BaseOffset())
	position := line.unwrap(advanceSequence(b.BaseSequence(), behind))
	i := line.at(position)
	if i < 0 {
		return nil, &UnanchoredError{Producer: p, Sequence: b.BaseSequence(), Target: b.BaseOffset()}
	}
	var runs []Run
	target, left := b.BaseOffset()+behind, int64(b.LastOffsetDelta())+1-behind
	for ; left > 0; i++ {
		step := line.steps[i]
		n := left
		if i+1 < len(line.steps) {
			n = min(n, line.steps[i+1].position-position)
		}
		run := Run{Source: step.source + position - step.position, Target: target, Count: n}
		if k := len(runs) - 1; k >= 0 && runs[k].Source+runs[k].Count == run.Source {
			runs[k].Count += n // a step that changes nothing
		} else {
			runs = append(runs, run)
		}
		position, target, left = position+n, target+n, left-n
	}
	return runs, nil
}
