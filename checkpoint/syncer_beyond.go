package checkpoint

import (
	"context"
	"errors"
	"math"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"golang.org/x/sync/errgroup"

	"kmirror/internal/kafka"
	"kmirror/internal/wire"
)

// The offset map is written behind, so who reads a copy at its end stands beyond
// what the map holds. If what lies between is the flow's, the map is about to grow,
// and the group's place on the source with it; if it is somebody else's, the group
// stands at the same place on both sides as it is. The map cannot tell, but the
// headers of the batches there can. So they are read: nearly always one fetch, as
// the map is behind by less than a second, and none of groups with members.

const (
	beyondBytes      = 256 << 10 // of one fetch
	beyondMost       = 64 << 20  // of one batch
	beyondFetches    = 4         // of a partition, one after another
	beyondDepth      = 64        // fetches of a partition, as long as its map does not grow
	beyondPartitions = 32        // at once
	beyondKept       = 1 << 16   // partitions of which something is known
	beyondTimeout    = 500 * time.Millisecond
	beyondPause      = 5 * time.Second // after a fault, or where it is too far
	beyondEmpty      = 10              // fetches without anything below the high watermark, before that is believed
)

// ahead says whether a group has read something on the target of which it depends
// where it stands on the source, and that the maps do not hold yet.
type ahead int8

const (
	aheadUnknown ahead = iota // it has not been looked at; taken for something
	aheadNothing
	aheadSomething
)

// reach is how far the maps of a pair reach on the target's side.
type reach struct {
	mapped int64 // what the flow wrote before it is in its map
	passed int64 // what others wrote before it the opposite flow has dealt with; math.MaxInt64 where it mirrors none
}

// reach returns how far the maps reach. It is not ok when nothing is known about
// the partition.
func (r Routes) reach(topic string, partition int32) (to reach, ok bool) {
	end, ok := r.forward(topic, partition).to(math.MaxInt64)
	to = reach{mapped: end.Offset, passed: math.MaxInt64}
	if ok && r.Shared(topic) {
		to.passed, ok = r.opposite(topic, partition).through()
	}
	return to, ok
}

func (r reach) lowest() int64 { return min(r.mapped, r.passed) }

// holds reports whether the maps hold all of a batch that ends at last.
func (r reach) holds(last int64, ours bool) bool {
	if ours {
		return last < r.mapped
	}
	return last < r.passed
}

// beyond is what is known of a copy's partition behind the reach of the maps: of
// the offsets before next, the first batch that they do not hold.
type beyond struct {
	reach       reach
	next        int64
	first, last int64 // of that batch; -1: there is none
	ours        bool  // the flow wrote it
	end         bool  // the log ends at next

	size    int32 // of a fetch
	fetched int   // in all
	empty   int   // in a row
	after   time.Time
}

// begin begins anew if the maps hold by now what was found, or less than then.
func (b *beyond) begin(r reach) {
	known := b.size > 0 && r.mapped >= b.reach.mapped && r.passed >= b.reach.passed
	if known && (b.first < 0 && r.lowest() <= b.next || b.first >= 0 && !r.holds(b.last, b.ours)) {
		b.fetched = min(b.fetched, beyondDepth)
		if r != b.reach {
			b.fetched = 0
		}
		b.reach = r
		return
	}
	*b = beyond{reach: r, next: r.lowest(), first: -1, last: -1, size: beyondBytes, after: b.after}
}

// before says what stands before an offset.
func (b *beyond) before(offset int64) ahead {
	switch {
	case b.first >= 0 && b.first < offset:
		return aheadSomething
	case b.first >= 0, b.next >= offset, b.end:
		return aheadNothing
	default:
		return aheadUnknown
	}
}

// take takes in what was fetched at next.
func (b *beyond) take(got kafka.FetchResult, wrote func(producerID int64) bool) error {
	at := b.next
	for rest := got.Records; len(rest) > 0 && b.first < 0; {
		batch, after, err := wire.NextBatch(rest)
		switch {
		case errors.Is(err, wire.ErrPartialBatch):
			after = nil
		case errors.Is(err, wire.ErrLegacyMagic):
			old, _, behind, err := wire.DecodeLegacy(rest, beyondMost)
			if err != nil {
				return err
			}
			if after = behind; len(old) > 0 {
				b.found(old[0].Offset, old[len(old)-1].Offset, false)
			}
		case err != nil:
			return err
		case batch.IsControl():
			b.next = max(b.next, batch.LastOffset()+1)
		default:
			b.found(batch.BaseOffset(), batch.LastOffset(), wrote(batch.ProducerID()))
		}
		rest = after
	}
	switch {
	case b.first >= 0 || b.next > at:
		b.empty = 0
	case b.next >= got.HighWatermark:
		b.end = true
	case len(got.Records) >= int(b.size) && b.size < beyondMost: // one batch larger than asked for, from a broker that cuts it
		b.size *= 2
	default: // a quota, or compaction took what stood there
		b.empty++
		b.end = b.empty >= beyondEmpty
	}
	return nil
}

// found takes in a batch.
func (b *beyond) found(first, last int64, ours bool) {
	if last < b.next {
		return
	}
	b.next = last + 1
	if !b.reach.holds(last, ours) {
		b.first, b.last, b.ours = max(first, b.reach.lowest()), last, ours
	}
}

// beyondAsk asks what stands on the target before a partition of a group.
type beyondAsk struct {
	part       *groupPartition
	pair       kafka.TopicPartition
	target     int64
	back       Translation
	backMapped bool
	known      *beyond // nil: it is not to be looked for
}

// lookBeyond finds out which of the groups without members that are carried back
// stand on the target beyond what the maps hold. It reports whether it is worth
// while to ask again at once. Who comes late to it stays unknown for this time.
func (s *Syncer) lookBeyond(ctx context.Context, chosen []*group, now time.Time) (more bool) {
	asks := s.beyondAsks(chosen)
	if len(asks) == 0 {
		return false
	}
	if len(s.beyond) > beyondKept {
		clear(s.beyond)
	}
	due := map[*beyond][]*beyondAsk{}
	for i := range asks {
		a := &asks[i]
		reach, ok := s.routes.reach(a.pair.Topic, a.pair.Partition)
		// Asked for after the reach: so it holds all that is before it.
		a.back, a.backMapped = s.routes.ToSource(a.pair.Topic, a.pair.Partition, a.target)
		if !ok || !a.backMapped || !a.back.open() || a.target <= reach.lowest() {
			continue
		}
		at := kafka.TopicPartition{Topic: a.part.targetTopic, Partition: a.pair.Partition}
		b := s.beyond[at]
		if b == nil {
			b = &beyond{}
			s.beyond[at] = b
		}
		if len(due[b]) == 0 {
			b.begin(reach)
		}
		a.known, b.end = b, false
		if b.before(a.target) == aheadUnknown && !now.Before(b.after) && (len(due[b]) > 0 || len(due) < beyondPartitions) {
			due[b] = append(due[b], a)
		}
	}
	limited, cancel := context.WithTimeout(ctx, beyondTimeout)
	defer cancel()
	var each errgroup.Group
	for b, asks := range due {
		each.Go(func() error {
			s.scanBeyond(limited, b, asks, now)
			return nil
		})
	}
	_ = each.Wait() // none returns one
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, a := range asks {
		p, found := a.part, aheadNothing
		if a.known != nil {
			found = a.known.before(a.target)
			more = more || found == aheadUnknown && !now.Before(a.known.after)
		}
		p.due = p.due || found != p.ahead || a.back != p.back || a.backMapped != p.backMapped
		p.ahead, p.back, p.backMapped = found, a.back, a.backMapped
	}
	return more && ctx.Err() == nil
}

// beyondAsks says what has to be known.
func (s *Syncer) beyondAsks(chosen []*group) (asks []beyondAsk) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, g := range chosen {
		if g.err != nil || !g.carry || g.active {
			continue
		}
		for at, p := range g.parts {
			switch {
			case p.target.Offset < 0 || !p.backMapped || !p.back.open():
				p.ahead = aheadNothing
			case p.due || p.ahead == aheadUnknown:
				asks = append(asks, beyondAsk{part: p, pair: at, target: p.target.Offset})
			}
		}
	}
	return asks
}

// scanBeyond reads on until all is known that is asked, or for some fetches.
func (s *Syncer) scanBeyond(ctx context.Context, b *beyond, asks []*beyondAsk, now time.Time) {
	a := asks[0]
	for _, other := range asks {
		if other.target > a.target {
			a = other
		}
	}
	for range beyondFetches {
		if b.before(a.target) != aheadUnknown {
			return
		}
		look := s.fetchBeyond
		if b.fetched++; b.fetched > beyondDepth {
			look = s.restBeyond
		}
		if err := look(ctx, b, a); err != nil {
			b.after = now.Add(beyondPause)
			return
		}
	}
}

func (s *Syncer) fetchBeyond(ctx context.Context, b *beyond, a *beyondAsk) error {
	got, err := s.target.Fetch(ctx, a.part.targetTopic, a.pair.Partition, b.next, b.size, false, 0)
	switch {
	case err != nil:
		return err
	case errors.Is(got.Err, kerr.OffsetOutOfRange) && got.LogStart > b.next: // retention took what stood there
		b.next = got.LogStart
		return nil
	case errors.Is(got.Err, kerr.OffsetOutOfRange): // the log was cut off
		b.end = true
		return nil
	case got.Err != nil:
		return got.Err
	}
	return b.take(got, func(producerID int64) bool { return s.routes.Forward.Maps.Wrote(s.flow.Name, producerID) })
}

var errFar = errors.New("too much stands there that others wrote")

// restBeyond looks no further: too much stands there that others wrote. Where the
// source has nothing that is not in the map, nothing of it is to come.
func (s *Syncer) restBeyond(ctx context.Context, b *beyond, a *beyondAsk) error {
	through, ok := s.routes.forward(a.pair.Topic, a.pair.Partition).through()
	now, known := s.routes.reach(a.pair.Topic, a.pair.Partition) // after through: so it holds all before that
	if !ok || !known || now != b.reach || b.reach.passed != math.MaxInt64 {
		return errFar
	}
	end, err := s.source.ListOffset(ctx, a.pair.Topic, a.pair.Partition, latest)
	if err != nil {
		return err
	}
	if end > through {
		return errFar
	}
	b.next = max(b.next, a.target)
	return nil
}
