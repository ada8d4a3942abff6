package coordinator

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
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
	busy    bool                          // an appender has this shard, or it lies in Coordinator.work
}

// entry is a group and when the timer queue will look at it (zero: not).
type entry struct {
	group     *Group
	scheduled time.Time
}

type queued struct {
	entry   *entry
	id      uint64
	records []wire.Record
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
			s.queue = append(s.queue, queued{e, effect.ID, effect.Records})
			if !s.busy {
				s.busy = true
				c.work <- s // never blocks: one place for each shard
			}
		}
	}
	if g := e.group; (g.Gone() || g.Vacant()) && s.groups[g.ID()] == e {
		delete(s.groups, g.ID())
		c.groups.Add(-1)
		return
	}
	c.schedule(s, e)
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
		batch, records := s.nextBatch()
		if len(batch) == 0 {
			return
		}
		err := c.log.Append(ctx, s.partition, records)
		code := appendCode(err)
		if err != nil && ctx.Err() == nil {
			c.logger.Error("group records not written", slog.Int("partition", int(s.partition)), slog.Int("records", len(records)), slog.Any("error", err))
		}
		now := time.Now()
		s.mu.Lock()
		for _, q := range batch {
			c.apply(s, q.entry, q.entry.group.Appended(q.id, code, now))
		}
		s.mu.Unlock()
	}
}

// nextBatch takes the next appends off the queue; none means that the
// appender is done.
func (s *shard) nextBatch() (batch []queued, records []wire.Record) {
	s.mu.Lock()
	defer s.mu.Unlock()
	size := 0
	for len(s.queue) > 0 {
		q := s.queue[0]
		for _, r := range q.records {
			size += len(r.Key) + len(r.Value) + 32
		}
		if len(batch) > 0 && size > batchBytes {
			break
		}
		batch, records = append(batch, q), append(records, q.records...)
		s.queue[0] = queued{}
		s.queue = s.queue[1:]
	}
	if len(batch) == 0 {
		s.queue, s.busy = nil, false
	}
	return batch, records
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
	err := c.log.Read(ctx, partition, func(r wire.Record) error {
		e, known, err := decodeRecord(r)
		switch {
		case err != nil:
			c.logger.Warn("group record skipped", slog.Int("partition", int(partition)), slog.Int64("offset", r.Offset), slog.Any("error", err))
		case known:
			if groups[e.group] == nil {
				groups[e.group] = &entry{group: NewGroup(e.group, &c.settings, now)}
			}
			groups[e.group].group.replay(e)
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
	s.loaded = true
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
