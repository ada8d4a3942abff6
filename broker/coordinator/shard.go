package coordinator

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"

	"kmirror/internal/wire"
)

// shard is one partition of __consumer_offsets with its groups.
type shard struct {
	partition int32 // constant

	mu      sync.Mutex // guards the fields below; not held over Log
	loaded  bool
	stopped bool
	groups  map[string]*entry
	waiting map[Ticket]chan kmsg.Response // capacity 1; closed without a value when the runner stops
	queue   []queued                      // appends not yet begun, in order
	open    map[int64]map[*entry]bool     // groups with commits of a transaction that is not over, by producer id
	busy    bool                          // an appender has this shard, or it lies in Coordinator.work
}

// entry is a group and when the timer queue will look at it (zero: not).
type entry struct {
	group     *Group
	scheduled time.Time
}

// queued is an Append of a group, or a marker.
type queued struct {
	entry    *entry
	id       uint64
	records  []wire.Record
	producer *TxnProducer

	marker *Marker
	marked chan error // capacity 1
}

// batchBytes bounds what one Log.Append carries when several requests share it.
const batchBytes = 256 << 10

// shardOf is the shard of a group.
func (c *Coordinator) shardOf(group string) *shard { return c.shards[c.Partition(group)] }

// ready is 0, or why the shard cannot be asked. Needs s.mu.
func (s *shard) ready() int16 {
	switch {
	case s.stopped:
		return kerr.NotCoordinator.Code
	case !s.loaded:
		return kerr.CoordinatorLoadInProgress.Code
	}
	return 0
}

// entryFor is the group's entry. With create, a missing group is made; nil if
// there are too many. Needs s.mu.
func (c *Coordinator) entryFor(s *shard, group string, create bool) *entry {
	e := s.groups[group]
	if e == nil && create {
		if c.groups.Load() >= int64(c.settings.MaxGroups) {
			c.logger.Warn("group refused: too many groups", slog.Int("groups", c.settings.MaxGroups))
			return nil
		}
		e = &entry{group: NewGroup(group, &c.settings, time.Now())}
		s.groups[group] = e
		c.groups.Add(1)
	}
	return e
}

// apply carries out effects and keeps the books on the group. Needs s.mu.
func (c *Coordinator) apply(s *shard, e *entry, effects []Effect) {
	for _, effect := range effects {
		switch effect := effect.(type) {
		case Answer:
			if ch, ok := s.waiting[effect.Ticket]; ok {
				delete(s.waiting, effect.Ticket)
				ch <- effect.Response
			}
		case Append:
			c.enqueue(s, queued{entry: e, id: effect.ID, records: effect.Records, producer: effect.Producer})
		}
	}
	if g := e.group; (g.Gone() || g.Vacant()) && s.groups[g.ID()] == e {
		delete(s.groups, g.ID())
		c.groups.Add(-1)
		return
	}
	c.schedule(s, e)
}

// enqueue hands an append to Run. Needs s.mu.
func (c *Coordinator) enqueue(s *shard, q queued) {
	s.queue = append(s.queue, q)
	if !s.busy {
		s.busy = true
		c.work <- s // never blocks: one place for each shard
	}
}

// schedule sees to it that the group's next deadline is not missed. Needs s.mu.
func (c *Coordinator) schedule(s *shard, e *entry) {
	at, ok := e.group.Next()
	if ok && (e.scheduled.IsZero() || at.Before(e.scheduled)) {
		e.scheduled = at
		c.timers.add(alarm[*shard]{at: at, shard: s, id: e.group.ID()})
	}
}

// drain appends what the shard has queued until nothing is left. Everything
// that waits goes together, so commits share the cost of a flush.
func (c *Coordinator) drain(ctx context.Context, s *shard) {
	for {
		taken, batches := s.nextBatches()
		if len(batches) == 0 {
			return
		}
		errs := c.log.Append(ctx, s.partition, batches)
		now := time.Now()
		s.mu.Lock()
		for i, t := range taken {
			var err error
			if errs != nil {
				err = errs[i]
			}
			c.appended(ctx, s, t, err, now)
		}
		s.mu.Unlock()
	}
}

// appended tells everybody of one batch what became of it. Needs s.mu.
func (c *Coordinator) appended(ctx context.Context, s *shard, taken []queued, err error, now time.Time) {
	if err != nil && ctx.Err() == nil && taken[0].marker == nil && taken[0].producer == nil {
		c.logger.Error("group records not written", slog.Int("partition", int(s.partition)), slog.Int("appends", len(taken)), slog.Any("error", err))
	}
	for _, q := range taken {
		if q.marker != nil {
			if err == nil {
				s.decide(*q.marker)
			}
			q.marked <- err
			continue
		}
		code := appendCode(err)
		if q.producer != nil {
			code = txnAppendCode(err)
		}
		c.apply(s, q.entry, q.entry.group.Appended(q.id, code, now))
		if q.producer != nil && q.entry.group.Undecided(q.producer.ID) {
			s.opened(q.producer.ID, q.entry)
		}
	}
}

// opened remembers that a group has commits of a transaction. Needs s.mu.
func (s *shard) opened(producer int64, e *entry) {
	if s.open[producer] == nil {
		s.open[producer] = make(map[*entry]bool)
	}
	s.open[producer][e] = true
}

// decide ends a transaction in all groups. Needs s.mu.
func (s *shard) decide(m Marker) {
	for e := range s.open[m.ProducerID] {
		e.group.Decide(m.ProducerID, m.Commit)
	}
	delete(s.open, m.ProducerID)
}

// nextBatches takes what is queued, up to a size; none means that the appender
// is done. taken[i] are those that batches[i] is for: plain records of several
// groups go together.
func (s *shard) nextBatches() (taken [][]queued, batches []LogBatch) {
	s.mu.Lock()
	defer s.mu.Unlock()
	size := 0
	for len(s.queue) > 0 {
		q := s.queue[0]
		for _, r := range q.records {
			size += len(r.Key) + len(r.Value) + 32
		}
		if len(batches) > 0 && size > batchBytes {
			break
		}
		plain := q.producer == nil && q.marker == nil
		if n := len(batches); n > 0 && plain && batches[n-1].Producer == nil && batches[n-1].Marker == nil {
			taken[n-1], batches[n-1].Records = append(taken[n-1], q), append(batches[n-1].Records, q.records...)
		} else {
			taken, batches = append(taken, []queued{q}), append(batches, LogBatch{slices.Clip(q.records), q.producer, q.marker})
		}
		s.queue[0] = queued{}
		s.queue = s.queue[1:]
	}
	if len(batches) == 0 {
		s.queue, s.busy = nil, false
	}
	return taken, batches
}

// CompleteTransaction writes the marker of a transaction into a partition of
// __consumer_offsets and lets the offsets that were committed in it count, or
// not. It returns when the marker is durable; an error may be a *kerr.Error.
func (c *Coordinator) CompleteTransaction(ctx context.Context, partition int32, m Marker) error {
	if partition < 0 || int(partition) >= len(c.shards) {
		return kerr.UnknownTopicOrPartition
	}
	s, marked := c.shards[partition], make(chan error, 1)
	s.mu.Lock()
	if code := s.ready(); code != 0 {
		s.mu.Unlock()
		return kerr.ErrorForCode(code)
	}
	c.enqueue(s, queued{marker: &m, marked: marked})
	s.mu.Unlock()
	select {
	case err := <-marked:
		return err
	case <-ctx.Done():
		return ctx.Err()
	}
}

// txnAppendCode is what a failed append of transactional records is to a
// client: what its producer did wrong it is told as it is.
func txnAppendCode(err error) int16 {
	if coded, ok := errors.AsType[*kerr.Error](err); ok {
		switch coded.Code {
		case kerr.InvalidProducerEpoch.Code, kerr.InvalidTxnState.Code:
			return coded.Code
		}
	}
	return appendCode(err)
}

// appendCode is what a failed append is to a client: what may pass, it retries.
func appendCode(err error) int16 {
	var coded *kerr.Error
	switch {
	case err == nil:
		return 0
	case !errors.As(err, &coded):
		return kerr.CoordinatorNotAvailable.Code
	}
	switch coded.Code {
	case kerr.NotLeaderForPartition.Code, kerr.KafkaStorageError.Code:
		return kerr.NotCoordinator.Code
	case kerr.MessageTooLarge.Code, kerr.RecordListTooLarge.Code:
		return coded.Code
	case kerr.InvalidRecord.Code:
		return kerr.UnknownServerError.Code
	}
	return kerr.CoordinatorNotAvailable.Code
}

// LoadPartition reads one partition of __consumer_offsets. From then on its
// groups are served.
func (c *Coordinator) LoadPartition(ctx context.Context, partition int32) error {
	s := c.shards[partition]
	groups, now := make(map[string]*entry), time.Now()
	loading := shard{open: make(map[int64]map[*entry]bool)}
	err := c.log.Read(ctx, partition, func(r LogRecord) error {
		if r.Marker != nil {
			loading.decide(*r.Marker)
			return nil
		}
		e, known, err := decodeRecord(r.Record)
		e.producer = r.Producer
		switch {
		case err != nil:
			c.logger.Warn("group record skipped", slog.Int("partition", int(partition)), slog.Int64("offset", r.Offset), slog.Any("error", err))
		case known:
			if groups[e.group] == nil {
				groups[e.group] = &entry{group: NewGroup(e.group, &c.settings, now)}
			}
			groups[e.group].group.replay(e)
			if e.producer != noProducerID {
				loading.opened(e.producer, groups[e.group])
			}
		}
		return nil
	})
	if err != nil {
		return fmt.Errorf("load groups of partition %d: %w", partition, err)
	}
	now = time.Now()
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.loaded || s.stopped {
		return nil
	}
	s.loaded, s.open = true, loading.open
	for id, e := range groups {
		s.groups[id] = e
		c.groups.Add(1)
		c.apply(s, e, e.group.Loaded(now))
	}
	return nil
}

// shut answers everything that waits: Run has ended.
func (c *Coordinator) shut() {
	for _, s := range c.shards {
		s.mu.Lock()
		s.stopped = true
		for t, ch := range s.waiting {
			delete(s.waiting, t)
			close(ch)
		}
		s.mu.Unlock()
	}
}

// ask puts a request to a group and waits for its answer. fn runs under the
// shard's lock; refuse makes the answer for a group that cannot be asked.
// missing is the code for a group that does not exist and is not created.
func ask[R kmsg.Response](ctx context.Context, c *Coordinator, group string, create bool, missing int16,
	refuse func(code int16) R, fn func(g *Group, t Ticket, now time.Time) []Effect,
) R {
	s := c.shardOf(group)
	s.mu.Lock()
	if code := s.ready(); code != 0 {
		s.mu.Unlock()
		return refuse(code)
	}
	e := c.entryFor(s, group, create)
	if e == nil {
		s.mu.Unlock()
		return refuse(missing)
	}
	t, ch := Ticket(c.tickets.Add(1)), make(chan kmsg.Response, 1)
	s.waiting[t] = ch
	c.apply(s, e, fn(e.group, t, time.Now()))
	s.mu.Unlock()

	select {
	case r, ok := <-ch:
		if !ok {
			return refuse(kerr.NotCoordinator.Code)
		}
		return r.(R)
	case <-ctx.Done():
		s.mu.Lock()
		defer s.mu.Unlock()
		if _, still := s.waiting[t]; still {
			delete(s.waiting, t)
			c.apply(s, e, e.group.Abandon(t, time.Now()))
		}
		return refuse(kerr.CoordinatorNotAvailable.Code)
	}
}
