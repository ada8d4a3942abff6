package mirror

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"golang.org/x/sync/errgroup"

	"kmirror/internal/kafka"
	"kmirror/internal/wire"
	"kmirror/topology"
)

// LagSource is what a measurement asks of the source; *kafka.Cluster has it.
type LagSource interface {
	ListOffsets(ctx context.Context, partitions map[string][]int32, timestamp int64) (map[string]map[int32]int64, error)
	Fetch(ctx context.Context, topic string, partition int32, offset int64, maxBytes int32, readCommitted bool, maxWait time.Duration) (kafka.FetchResult, error)
}

// Reach is up to which source offset each partition is in the target, by topic;
// -1: nothing of it is.
type Reach map[string]map[int32]int64

// sampleBytes is how much is read of a partition that is behind: when less is
// missing, its size and age are exact.
const sampleBytes = 64 << 10

// MeasureLag asks the source how far each partition of a flow goes beyond what is
// mirrored: one request to each leader, and one more for each partition that is
// behind, which reads its first missing records. Partitions that did not answer
// are missing in the answer, and named in the error.
func MeasureLag(ctx context.Context, source LagSource, flow *topology.Flow, reach Reach, now time.Time) (map[string]map[int32]PartitionLag, error) {
	m := measurement{source: source, now: now}
	return m.measure(ctx, flow, reach)
}

// measurement is one look at a source.
type measurement struct {
	source LagSource
	now    time.Time
	most   int                                                            // samples; 0: no bound
	known  func(topic string, partition int32, from int64) (sample, bool) // from before; nil: none

	mu      sync.Mutex // guards the field below
	sampled map[kafka.TopicPartition]sample
}

func (m *measurement) measure(ctx context.Context, flow *topology.Flow, reach Reach) (map[string]map[int32]PartitionLag, error) {
	wanted := map[string][]int32{}
	unbegun := map[startTime]map[string][]int32{}
	for topic, partitions := range reach {
		for id, through := range partitions {
			wanted[topic] = append(wanted[topic], id)
			if through < 0 {
				at, ok := startAt(flow.StartFor(topic))
				if !ok {
					continue
				}
				if unbegun[at] == nil {
					unbegun[at] = map[string][]int32{}
				}
				unbegun[at][topic] = append(unbegun[at][topic], id)
			}
		}
	}
	if len(wanted) == 0 {
		return nil, nil
	}
	ends, err := m.source.ListOffsets(ctx, wanted, atLatest)
	faults := []error{err}
	starts := map[string]map[int32]int64{}
	for at, partitions := range unbegun {
		found, err := m.source.ListOffsets(ctx, partitions, int64(at))
		faults = append(faults, err)
		for topic, ids := range found {
			if starts[topic] == nil {
				starts[topic] = map[int32]int64{}
			}
			for id, offset := range ids {
				if offset < 0 { // no record is as young as the timestamp
					offset = ends[topic][id]
				}
				starts[topic][id] = offset
			}
		}
	}
	out := make(map[string]map[int32]PartitionLag, len(reach))
	var behind []gap
	for topic, partitions := range reach {
		out[topic] = make(map[int32]PartitionLag, len(partitions))
		for id, through := range partitions {
			end, ok := ends[topic][id]
			if !ok {
				continue
			}
			from := through
			if from < 0 {
				if from, ok = starts[topic][id]; !ok {
					continue
				}
			}
			out[topic][id] = PartitionLag{Partition: id, SourceEnd: end, Mirrored: through}
			if end > from {
				behind = append(behind, gap{kafka.TopicPartition{Topic: topic, Partition: id}, from, end})
			}
		}
	}
	m.sampleAll(ctx, behind)
	for _, g := range behind {
		p := out[g.at.Topic][g.at.Partition]
		p.SourceEnd, p.Lag = g.measured(m.sampled[g.at], m.now)
		out[g.at.Topic][g.at.Partition] = p
	}
	return out, errors.Join(faults...)
}

// startTime is a timestamp as ListOffsets takes it.
type startTime int64

// startAt is where a partition begins that was never mirrored, as far as the
// source alone tells.
func startAt(s topology.Start) (at startTime, ok bool) {
	switch s.Kind {
	case topology.Earliest:
		return atEarliest, true
	case topology.Latest:
		return atLatest, true
	case topology.Timestamp:
		return startTime(s.Millis), true
	case topology.MirrorMaker2:
		return 0, false
	}
	return 0, false
}

// gap is what is missing of a partition: from the first offset to the end.
type gap struct {
	at        kafka.TopicPartition
	from, end int64
}

// sample is what the first missing records of a partition say.
type sample struct {
	from   int64 // where it was asked for; 0 with next == 0: there is none
	first  int64 // where the source's log begins, if that is beyond from
	next   int64 // behind what was read
	stable int64 // the source's end of committed records; -1: not told
	bytes  int64 // of what was read
	oldest time.Time
	cut    bool // a batch began before from, so that bytes are a guess
}

// measured is the lag of a gap, and the source's end, by what the sample said.
func (g gap) measured(s sample, now time.Time) (end int64, l Lag) {
	end = g.end
	if s.next == 0 {
		return end, Lag{Records: end - g.from, Bytes: -1, Seconds: -1}
	}
	if s.stable >= 0 && s.next <= s.stable && s.stable < end && s.from == g.from { // open transactions: nothing that could be lost yet
		end = s.stable
	}
	from := max(g.from, s.first)
	l = Lag{Records: max(0, end-from)}
	if l.Records == 0 {
		return end, l
	}
	switch read := s.next - max(s.from, s.first); {
	case read <= 0:
		l.Bytes = -1
	case s.next >= end && !s.cut:
		l.Bytes = s.bytes
	default:
		l.Bytes, l.BytesEstimated = int64(float64(s.bytes)/float64(read)*float64(l.Records)), true
	}
	l.Seconds = -1
	if !s.oldest.IsZero() {
		oldest := s.oldest
		l.Oldest, l.Seconds = &oldest, max(0, now.Sub(oldest).Seconds())
	}
	return end, l
}

// sampleAll reads the first missing records of partitions, the widest gaps first.
func (m *measurement) sampleAll(ctx context.Context, gaps []gap) {
	slices.SortFunc(gaps, func(a, b gap) int { return cmp.Compare(b.end-b.from, a.end-a.from) })
	m.sampled = make(map[kafka.TopicPartition]sample, len(gaps))
	var g errgroup.Group
	g.SetLimit(8)
	asked := 0
	for _, gap := range gaps {
		if m.known != nil {
			if s, ok := m.known(gap.at.Topic, gap.at.Partition, gap.from); ok {
				m.mu.Lock()
				m.sampled[gap.at] = s
				m.mu.Unlock()
				continue
			}
		}
		if m.most > 0 && asked >= m.most {
			continue
		}
		asked++
		g.Go(func() error {
			s, err := readSample(ctx, m.source, gap)
			if err != nil {
				return nil //nolint:nilerr // without a sample, size and age are unknown
			}
			m.mu.Lock()
			m.sampled[gap.at] = s
			m.mu.Unlock()
			return nil
		})
	}
	_ = g.Wait() // none returns one
}

func readSample(ctx context.Context, source LagSource, g gap) (sample, error) {
	s := sample{from: g.from, next: g.from}
	got, err := source.Fetch(ctx, g.at.Topic, g.at.Partition, g.from, sampleBytes, true, 0)
	if err == nil && errors.Is(got.Err, kerr.OffsetOutOfRange) { // retention was faster
		var starts map[string]map[int32]int64
		if starts, err = source.ListOffsets(ctx, map[string][]int32{g.at.Topic: {g.at.Partition}}, atEarliest); err == nil {
			s.first = starts[g.at.Topic][g.at.Partition]
			if s.first <= g.from {
				return s, fmt.Errorf("read %s/%d at %d: %w", g.at.Topic, g.at.Partition, g.from, got.Err)
			}
			s.next = s.first
			got, err = source.Fetch(ctx, g.at.Topic, g.at.Partition, s.first, sampleBytes, true, 0)
		}
	}
	if err == nil {
		err = got.Err
	}
	if err != nil {
		return s, err
	}
	s.stable = got.LastStable
	s.take(got.Records)
	return s, nil
}

// take reads batches from next on: whole ones only.
func (s *sample) take(raw []byte) {
	for len(raw) > 0 {
		b, rest, err := wire.NextBatch(raw)
		switch legacy := (*wire.LegacyMagicError)(nil); {
		case errors.As(err, &legacy):
			records, _, after, err := wire.DecodeLegacy(raw, inflateLimit)
			if err != nil || len(after) >= len(raw) {
				return
			}
			for i := range records {
				if records[i].Offset >= s.next {
					s.dated(records[i].Timestamp)
					s.next = records[i].Offset + 1
				}
			}
			s.bytes += int64(len(raw) - len(after))
			rest = after
		case err != nil:
			return
		case b.LastOffset() < s.next:
		default:
			if !b.IsControl() {
				s.cut = s.cut || b.BaseOffset() < s.next
				s.bytes += int64(b.Size()) * (b.LastOffset() + 1 - max(b.BaseOffset(), s.next)) / (int64(b.LastOffsetDelta()) + 1)
				s.dated(b.BaseTimestamp())
			}
			s.next = b.LastOffset() + 1
		}
		raw = rest
	}
}

// dated takes the time of the first record.
func (s *sample) dated(millis int64) {
	if s.oldest.IsZero() && millis > 0 {
		s.oldest = time.UnixMilli(millis).UTC()
	}
}
