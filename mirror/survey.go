package mirror

import (
	"context"
	"log/slog"
	"sync"
	"time"

	"kmirror/checkpoint"
	"kmirror/internal/kafka"
)

const (
	surveyEvery   = 5 * time.Second
	surveySamples = 256 // read in one round; the next round reads others
)

// survey keeps in view how far partitions are behind that no lane keeps up with:
// paused, stopped, waiting and blocked ones. It asks the source for their ends
// every surveyEvery, with one request to each leader, and reads once the first
// missing records of those that have no lane. A partition in step costs nothing.
type survey struct {
	flow      *flow
	elsewhere func(partitionID) bool // another instance has the partition
	failed    bool                   // the last round did; used by Run alone

	mu    sync.Mutex            // guards the fields below
	left  map[partitionID]int64 // up to where it is in the target; -1: nothing is
	found map[partitionID]sight
}

// sight is what a partition looked like.
type sight struct {
	from   int64 // what is mirrored, as reckoned then; -1: nothing
	end    int64
	lag    Lag
	sample sample
}

func newSurvey(f *flow, elsewhere func(partitionID) bool) *survey {
	return &survey{flow: f, elsewhere: elsewhere, left: map[partitionID]int64{}, found: map[partitionID]sight{}}
}

// Run looks until ctx ends.
func (s *survey) Run(ctx context.Context) {
	wait := time.NewTimer(time.Second)
	defer wait.Stop()
	for {
		select {
		case <-wait.C:
		case <-ctx.Done():
			return
		}
		looking, cancel := context.WithTimeout(ctx, 6*surveyEvery)
		err := s.round(looking)
		cancel()
		if ctx.Err() != nil {
			return
		}
		if err != nil && !s.failed {
			s.flow.log.Warn("look how far behind the partitions are that do not flow", slog.Any("error", err))
		}
		s.failed = err != nil
		wait.Reset(surveyEvery)
	}
}

// ended notes where a lane stood when its attempt was over.
func (s *survey) ended(id partitionID, position int64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.left[id] = position
}

// round looks once.
func (s *survey) round(ctx context.Context) error {
	f := s.flow
	w := f.discovery.current.Load()
	if w == nil {
		return nil
	}
	reach, laned, err := s.reach(ctx, w)
	if err != nil {
		return err
	}
	m := measurement{source: f.source, now: time.Now(), most: surveySamples}
	m.known = func(topic string, partition int32, from int64) (sample, bool) {
		if laned[kafka.TopicPartition{Topic: topic, Partition: partition}] {
			return sample{}, true
		}
		return s.sampled(topic, partition, from)
	}
	found, err := m.measure(ctx, f.cfg(), reach)
	s.mu.Lock()
	defer s.mu.Unlock()
	for id := range s.found { // what flows again is in nobody's way here
		if _, still := reach[id.Topic][id.Partition]; !still {
			delete(s.found, id)
		}
	}
	for topic, partitions := range found {
		for n, p := range partitions {
			id := partitionID{f.cfg().Name, topic, n}
			s.found[id] = sight{from: p.Mirrored, end: p.SourceEnd, lag: p.Lag, sample: m.sampled[kafka.TopicPartition{Topic: topic, Partition: n}]}
		}
	}
	return err
}

// sampled is what was read of a partition before, if it still stands there.
func (s *survey) sampled(topic string, partition int32, from int64) (sample, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	seen := s.found[partitionID{s.flow.cfg().Name, topic, partition}].sample
	seen.stable = -1 // as it was then
	return seen, seen.next > seen.from && seen.from == from
}

// reach is up to where the partitions are in the target that want a look, and
// which of them have a lane.
func (s *survey) reach(ctx context.Context, w *world) (reach Reach, laned map[kafka.TopicPartition]bool, err error) {
	f := s.flow
	tenures := f.held()
	reach, laned = Reach{}, map[kafka.TopicPartition]bool{}
	note := func(id partitionID, through int64) {
		if reach[id.Topic] == nil {
			reach[id.Topic] = map[int32]int64{}
		}
		reach[id.Topic][id.Partition] = through
	}
	var unread []checkpoint.Key
	for _, pair := range w.topics {
		for n := range pair.source.Partitions {
			id := partitionID{f.cfg().Name, pair.source.Name, int32(n)}
			t := tenures[id]
			var l *lane
			if t != nil {
				l = t.laneNow()
			}
			if l != nil {
				if position, blind := l.blind(); blind {
					note(id, position)
					laned[kafka.TopicPartition{Topic: id.Topic, Partition: id.Partition}] = true
				}
				continue
			}
			if t == nil && s.elsewhere(id) {
				s.mu.Lock()
				delete(s.left, id) // another instance moves it on
				s.mu.Unlock()
				continue
			}
			s.mu.Lock()
			through, known := s.left[id]
			s.mu.Unlock()
			if known {
				note(id, through)
				continue
			}
			unread = append(unread, checkpoint.Key{Flow: id.Flow, Topic: id.Topic, TopicID: pair.source.ID, Partition: id.Partition})
		}
	}
	if len(unread) == 0 || w.ledger == nil {
		for _, k := range unread {
			note(partitionID{k.Flow, k.Topic, k.Partition}, -1)
		}
		return reach, laned, nil
	}
	return reach, laned, s.read(ctx, unread, note)
}

// read finds in the offset map up to where partitions are in the target.
func (s *survey) read(ctx context.Context, keys []checkpoint.Key, note func(partitionID, int64)) error {
	by := map[int32][]checkpoint.Key{}
	for _, k := range keys {
		by[k.MapPartition()] = append(by[k.MapPartition()], k)
	}
	for at, keys := range by {
		loaded, err := checkpoint.LoadPartitions(ctx, s.flow.target, at, keys)
		if err != nil {
			return err
		}
		for k, l := range loaded {
			through := int64(-1)
			if _, _, mapped := l.Runs.End(); mapped {
				through = l.Runs.Through()
			}
			id := partitionID{k.Flow, k.Topic, k.Partition}
			s.ended(id, through)
			note(id, through)
		}
	}
	return nil
}

// complete fills in what no lane knows of a partition. perRecord is what a record
// of the topic takes, 0 if that is not known.
func (s *survey) complete(now time.Time, id partitionID, p *PartitionStatus, perRecord float64) {
	s.mu.Lock()
	seen, ok := s.found[id]
	left, known := s.left[id]
	s.mu.Unlock()
	if p.Position < 0 && known && left >= 0 {
		p.Position = left
	}
	if ok {
		p.SourceEnd = max(p.SourceEnd, seen.end)
	}
	switch {
	case p.Position >= 0 && p.SourceEnd >= 0:
		p.LagRecords = max(0, p.SourceEnd-p.Position)
	case ok:
		p.LagRecords = seen.lag.Records
	}
	switch {
	case p.LagRecords < 0:
		return
	case p.LagRecords == 0:
		p.LagBytes, p.LagSeconds = 0, 0
		return
	}
	p.LagBytesEstimated = true
	if perRecord > 0 {
		p.LagBytes = int64(perRecord * float64(p.LagRecords))
	}
	if ok && seen.lag.Records > 0 && (seen.from < 0 || seen.from == p.Position) {
		p.Oldest = seen.lag.Oldest
		if seen.lag.Bytes >= 0 {
			p.LagBytes, p.LagBytesEstimated = seen.lag.Bytes, seen.lag.BytesEstimated
		}
		if p.Oldest != nil {
			p.LagSeconds = max(p.LagSeconds, now.Sub(*p.Oldest).Seconds())
		}
	}
	if p.LagSeconds == 0 { // the lane has not seen that it is behind
		p.LagSeconds = -1
	}
}

// blind says whether the lane may not see how far the source has gone, and where
// it stands.
func (l *lane) blind() (position int64, blind bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.acked, l.closed || l.blocked != "" || l.troubled || l.sourceFault != ""
}

// newest is the greatest timestamp of a record that this lane has brought into
// the target, in milliseconds; 0 while there is none.
func (l *lane) newest() int64 {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.lastStamp
}
