package checkpoint

import (
	"encoding/binary"
	"slices"

	"kmirror/internal/wire"
)

// Run says that the source offsets Source..Source+Count-1 stand at the target
// offsets Target..Target+Count-1.
//
// Loose: what lies between the end of this run and the beginning of the next
// is mirrored, but not known one by one (it was thinned, or learned from
// MirrorMaker 2's syncs). Without it nothing of ours lies there.
//
// An empty run says where mapping begins: Source will stand at Target or
// later. A loose empty run says nothing at all; it only voids what blocks of
// lower generations say.
type Run struct {
	Source, Target, Count int64
	Loose                 bool
}

// void says whether the run maps nothing, not even a beginning.
func (run *Run) void() bool { return run.Count == 0 && run.Loose }

// MaxBlockRuns is the most runs that one block holds.
const MaxBlockRuns = 128

// Block is one record of the offset map: neighbouring runs of a partition, in
// order. Runs is not empty; only its first run may have a count of 0.
//
// The last block of a partition is open. It is written again and again as it
// grows, always under one key, until it is full: then it is written once more
// under a key of its own and never again, and the next one begins. So whatever
// writes arrive late, twice, or from an owner that has been replaced, they can
// take away no more than the newest runs, which Complete finds again.
//
// What blocks say does not depend on their order in the topic either: of two
// blocks of one generation with the same first source offset the longer one
// holds, and a block of a higher generation voids what lower ones said from
// its first run on (see Runs.CutTarget). A block with nothing but an empty run
// says only that, or where an empty partition begins.
//
// Thinning writes full blocks anew, and is the only thing that does: see
// Loaded.Thin.
type Block struct {
	Key
	Open       bool
	TargetID   [16]byte // the target topic's id; zero when not known
	Generation uint32
	// Through: every source offset below has been dealt with. It is at least the
	// end of the last run.
	Through int64
	// Stretch: behind a loose last run, so many target offsets lie before the
	// next run, which begins at Through in the source. 0 where there is none yet.
	Stretch int64
	Runs    []Run
}

// EncodeBlock returns the record that keeps b; its timestamp is left to the
// caller. Numbers are unsigned varints.
//
//	key    full:  | 2 | key | generation | source of the first run |
//	       open:  | 3 | key |
//
//	value  full:  | version |
//	       open:  | version | generation | source of the first run |
//	       both:  | target id, 16 bytes | through - end of the last run | runs |
//	              | target of the first run | its count |
//	              then for every further run
//	              | source - previous end | target - previous end | count |
//
// The version is 2 if a run is loose: then every count is shifted left by one
// bit, and the lowest bit says whether its run is; the stretch, another varint,
// follows the last run. Otherwise it is 1, so that
// those who know no other can read on.
func EncodeBlock(b Block) wire.Record {
	first, last := b.Runs[0], b.Runs[len(b.Runs)-1]
	version, shift := byte(1), 0
	if slices.ContainsFunc(b.Runs, func(r Run) bool { return r.Loose }) {
		version, shift = 2, 1
	}
	key, value := b.Key.append([]byte{kindBlock}), []byte{version}
	if b.Open {
		key[0] = kindOpen
		value = appendBlockStart(value, b.Generation, first.Source)
	} else {
		key = appendBlockStart(key, b.Generation, first.Source)
	}
	value = append(value, b.TargetID[:]...)
	value = binary.AppendUvarint(value, uint64(max(0, b.Through-last.Source-last.Count)))
	value = binary.AppendUvarint(value, uint64(len(b.Runs)))
	var end Run
	for i, r := range b.Runs {
		if i > 0 {
			value = binary.AppendUvarint(value, uint64(r.Source-end.Source))
		}
		value = binary.AppendUvarint(value, uint64(r.Target-end.Target))
		count := uint64(r.Count) << shift
		if r.Loose {
			count |= 1
		}
		value = binary.AppendUvarint(value, count)
		end = Run{Source: r.Source + r.Count, Target: r.Target + r.Count}
	}
	if version == 2 {
		value = binary.AppendUvarint(value, uint64(b.Stretch))
	}
	return wire.Record{Key: key, Value: value}
}

func appendBlockStart(dst []byte, generation uint32, source int64) []byte {
	return binary.AppendUvarint(binary.AppendUvarint(dst, uint64(generation)), uint64(source))
}

// decode reads a block; b.Open is set, and the memory of b.Runs is used.
func (b *Block) decode(key, value *reader) {
	var source int64
	b.Key = key.key()
	if !b.Open {
		b.Generation, source = key.uint32(), key.int64()
	}
	if value == nil {
		b.Runs = append(b.Runs, Run{Source: source})
		return
	}
	if b.Open {
		b.Generation, source = value.uint32(), value.int64()
	}
	b.decodeRuns(value, source)
}

func (b *Block) decodeRuns(value *reader, source int64) {
	b.TargetID = value.id()
	beyond := value.int64()
	n := value.count(2)
	if n == 0 || n > MaxBlockRuns {
		value.fail("a block has 1 to 128 runs")
		return
	}
	b.Runs = slices.Grow(b.Runs, n)
	var target int64
	for i := 0; i < n && value.bad == ""; i++ {
		if i > 0 {
			source = value.sum(source, value.int64())
		}
		target = value.sum(target, value.int64())
		r := Run{Source: source, Target: target}
		if value.version == 1 {
			r.Count = value.int64()
		} else {
			count := value.uvarint()
			r.Count, r.Loose = int64(count>>1), count&1 != 0
		}
		if r.Count == 0 && i > 0 {
			value.fail("empty run")
		}
		source, target = value.sum(source, r.Count), value.sum(target, r.Count)
		b.Runs = append(b.Runs, r)
	}
	b.Through = value.sum(source, beyond)
	if value.version > 1 {
		b.Stretch = value.int64()
		value.sum(target, b.Stretch)
	}
}
