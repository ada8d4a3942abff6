package verify

import (
	"context"
	"sort"
	"sync"

	"kmirror/checkpoint"
	"kmirror/topology"
)

// Partition is what is known of a mirrored partition before its records are
// read. It is read-only while it is compared.
type Partition struct {
	Topic       string // in the source
	TargetTopic string
	Number      int32

	Runs    []checkpoint.Run // the map: none empty, ascending on both sides
	Through int64            // every source offset below has been dealt with

	// Owns says whether a producer of the target's log is one of this flow's; nil: none is.
	Owns func(producerID int64, epoch int16) bool
	// Carries is the source offset that the ledger gives a sequence of ours; nil: not known.
	Carries func(producerID int64, epoch int16, sequence int32) (int64, bool)
	// Loops says whether the flow leaves out what a producer of the source's log
	// wrote, because another flow of its circle brought it there; nil: it leaves out
	// nothing. In doubt, what is not in the map counts as missing, and doubt is said.
	Loops func(producerID int64) (foreign bool, doubt error)
	// Letters says whether a source record was set aside in a dead-letter topic; nil: none.
	Letters func(ctx context.Context, offset int64) (bool, error)

	Filter                         *topology.Filter // nil: leaves out nothing
	SourceCompacts, TargetCompacts bool             // by cleanup.policy
}

// Range is a stretch of source offsets, and how far it has been compared.
//
// Invariant: Next and TargetNext stand at one place: everything before either
// was dealt with on both sides.
type Range struct {
	From       int64  `json:"from"`        // source offset
	To         int64  `json:"to"`          // source offset, exclusive
	TargetFrom int64  `json:"target_from"` // where it begins in the target
	TargetTo   int64  `json:"target_to"`   // exclusive
	Next       int64  `json:"next"`        // in the source
	TargetNext int64  `json:"target_next"`
	Done       bool   `json:"done"`
	Tally      Tally  `json:"tally"`
	Digest     Digest `json:"digest"`

	First *Difference `json:"first_difference,omitempty"`
}

// Tally counts what a range was found to hold.
type Tally struct {
	Records     int64 `json:"records"`     // compared, equal or not
	Bytes       int64 `json:"bytes"`       // of the batches compared, in the source's log
	Batches     int64 `json:"batches"`     // source batches compared without opening them
	Differences int64 `json:"differences"` // see Kind
	Gone        int64 `json:"gone"`        // no longer comparable: retention or compaction took one of the two
	LeftOut     int64 `json:"left_out"`    // by a filter of the flow, or because another flow of its circle brought them
	SetAside    int64 `json:"set_aside"`   // in a dead-letter topic
	Strangers   int64 `json:"by_others"`   // target records that others wrote
	Corrupt     int64 `json:"corrupt"`     // batches whose checksum is wrong
	Approximate int64 `json:"approximate"` // found where the map only says roughly where they stand
}

// Add adds u's figures.
func (t *Tally) Add(u Tally) {
	t.Records += u.Records
	t.Bytes += u.Bytes
	t.Batches += u.Batches
	t.Differences += u.Differences
	t.Gone += u.Gone
	t.LeftOut += u.LeftOut
	t.SetAside += u.SetAside
	t.Strangers += u.Strangers
	t.Corrupt += u.Corrupt
	t.Approximate += u.Approximate
}

// Job is a partition and its ranges. Run works on it while others may look.
type Job struct {
	Partition
	Before int64 // source offsets that lie before what the map knows
	Beyond int64 // source offsets that were not mirrored yet when it began

	mu   sync.Mutex // guards the fields below
	list []Range
	err  error
}

// NewJob makes a job of ranges, which may be under way.
func NewJob(p Partition, ranges []Range) *Job { return &Job{Partition: p, list: ranges} }

// Ranges is a copy of the ranges as they stand.
func (j *Job) Ranges() []Range {
	j.mu.Lock()
	defer j.mu.Unlock()
	return append([]Range(nil), j.list...)
}

// Err is why the job could not be finished; nil while it runs, and when it is done.
func (j *Job) Err() error {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.err
}

func (j *Job) ranges() int {
	j.mu.Lock()
	defer j.mu.Unlock()
	return len(j.list)
}

func (j *Job) rangeAt(i int) Range {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.list[i]
}

func (j *Job) set(i int, r Range) {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.list[i] = r
}

func (j *Job) fail(err error) {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.err = err
}

// bySource is the index of the first run that ends behind a source offset.
func (p *Partition) bySource(offset int64) int {
	return sort.Search(len(p.Runs), func(i int) bool { return p.Runs[i].Source+p.Runs[i].Count > offset })
}

// byTarget is the index of the first run that ends behind a target offset.
func (p *Partition) byTarget(offset int64) int {
	return sort.Search(len(p.Runs), func(i int) bool { return p.Runs[i].Target+p.Runs[i].Count > offset })
}

// place is where in the target a range begins that begins at a source offset:
// at that record, or at the next one that is mapped; at the end behind the last.
func (p *Partition) place(source int64) int64 {
	if len(p.Runs) == 0 {
		return 0
	}
	i := p.bySource(source)
	if i == len(p.Runs) {
		last := p.Runs[i-1]
		return last.Target + last.Count
	}
	return p.Runs[i].Target + max(0, source-p.Runs[i].Source)
}

// counterpart is the source offset that the map gives a target offset.
func (p *Partition) counterpart(target int64) (int64, bool) {
	i := p.byTarget(target)
	if i == len(p.Runs) || p.Runs[i].Target > target {
		return 0, false
	}
	return p.Runs[i].Source + target - p.Runs[i].Target, true
}

// maps says whether a source offset is in the map.
func (p *Partition) maps(source int64) bool {
	i := p.bySource(source)
	return i < len(p.Runs) && p.Runs[i].Source <= source
}

// mapped counts the source offsets of [from, to) that are in the map.
func (p *Partition) mapped(from, to int64) (n int64) {
	for i := p.bySource(from); i < len(p.Runs) && p.Runs[i].Source < to; i++ {
		n += min(to, p.Runs[i].Source+p.Runs[i].Count) - max(from, p.Runs[i].Source)
	}
	return n
}
