package verify

import (
	"encoding/binary"
	"fmt"
	"math"
	"math/bits"

	"github.com/cespare/xxhash/v2"
)

// Extent is what a partition's two logs and its map hold when it begins.
type Extent struct {
	SourceStart int64 // the source's log begins here
	SourceEnd   int64 // high watermark
	TargetStart int64
	Since       int64 // source offset to begin at; -1: the beginning
}

// Sample says which part of the offsets is compared. Whether an offset belongs
// to it depends on the seed, the partition and the offset alone, so that the same
// seed takes the same records again, also when more have come meanwhile.
type Sample struct {
	Share float64 `json:"share"` // above 0, up to 1: everything
	Seed  uint64  `json:"seed"`
}

// All is the sample that leaves out nothing.
func All() Sample { return Sample{Share: 1} }

// sampleBlock is how many source offsets are taken or left together, unless there
// would be more than maxSampleBlocks of them: then they are larger, by powers of 2.
const (
	sampleBlock     = 1 << 12
	maxSampleBlocks = 1 << 16
)

// Plan says what of a partition is to be compared, and notes on the job what is
// not: what lies before the map and beyond it. gone counts the records of the
// map that one of the logs no longer has.
func (p *Partition) Plan(x Extent, s Sample) (ranges []Range, before, beyond, gone int64) {
	if len(p.Runs) == 0 {
		return nil, 0, max(0, x.SourceEnd-max(x.SourceStart, x.Since)), 0
	}
	first, last := p.Runs[0], p.Runs[len(p.Runs)-1]
	from, to := first.Source, max(p.Through, last.Source+last.Count)
	if last.Loose { // what stands behind it is known by nobody
		to = last.Source + last.Count
	}
	before = max(0, first.Source-max(x.SourceStart, x.Since))
	beyond = max(0, x.SourceEnd-to)
	if x.Since >= 0 {
		from = p.into(max(from, x.Since), -1)
	}
	left := max(from, x.SourceStart)
	if x.TargetStart > first.Target { // where the target's log begins, in the source
		i := p.byTarget(x.TargetStart)
		if i == len(p.Runs) {
			left = to
		} else {
			left = max(left, p.Runs[i].Source+max(0, x.TargetStart-p.Runs[i].Target))
		}
	}
	if left > from {
		left = p.into(min(left, to), 1)
		gone = p.mapped(from, left)
		from = left
	}
	if from >= to {
		return nil, before, beyond, gone
	}
	for _, r := range p.choose(from, to, s) {
		r.TargetFrom, r.TargetTo = p.place(r.From), p.place(r.To)
		r.Next, r.TargetNext = r.From, r.TargetFrom
		ranges = append(ranges, r)
	}
	return ranges, before, beyond, gone
}

// into moves an offset out of a stretch that the map knows only roughly, which
// cannot be divided: to the last record before it, or to the first behind it.
func (p *Partition) into(offset int64, direction int) int64 {
	i := p.bySource(offset)
	if !p.loosely(i) || p.Runs[i].Source <= offset {
		return offset
	}
	if direction < 0 {
		return p.Runs[i-1].Source + p.Runs[i-1].Count - 1
	}
	return p.Runs[i].Source
}

// choose takes the sample of a stretch of source offsets: at least one block of
// each partition.
func (p *Partition) choose(from, to int64, s Sample) []Range {
	if s.Share >= 1 {
		return []Range{{From: from, To: to}}
	}
	block := int64(sampleBlock)
	if blocks := (to - from) / block; blocks > maxSampleBlocks {
		block <<= bits.Len64(uint64(blocks-1) / maxSampleBlocks)
	}
	limit := uint64(s.Share * math.MaxUint64)
	var (
		ranges []Range
		lowest = uint64(math.MaxUint64)
		least  int64
		take   = func(start int64) {
			r := Range{From: p.into(max(from, start), 1), To: p.into(min(to, start+block), 1)}
			switch n := len(ranges); {
			case r.From >= r.To:
			case n > 0 && ranges[n-1].To >= r.From:
				ranges[n-1].To = max(ranges[n-1].To, r.To)
			default:
				ranges = append(ranges, r)
			}
		}
	)
	for start := from - from%block; start < to; start += block {
		key := binary.BigEndian.AppendUint64(nil, s.Seed)
		key = fmt.Appendf(key, "%s/%d/%d", p.Topic, p.Number, start/sampleBlock)
		sum := xxhash.Sum64(key)
		if sum <= limit {
			take(start)
		}
		if sum <= lowest {
			lowest, least = sum, start
		}
		if start > math.MaxInt64-block {
			break
		}
	}
	if len(ranges) == 0 {
		take(least)
	}
	return ranges
}
