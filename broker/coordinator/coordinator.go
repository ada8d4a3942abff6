// Package coordinator keeps classic consumer groups and transactions: who is a
// member, which generation holds, who leads, which offsets a group has committed;
// which producer a transactional id has, which partitions its transaction
// reaches, and how that ends.
//
// It has two layers. Group is one group and Transaction one transactional id, as
// pure state machines: their methods take a request and the time and return
// effects (answer this ticket, append these records, write these markers); they
// start no goroutine, read no clock and do no I/O. Coordinator and Transactions
// are the runners the broker uses: they own the machines by partition of
// __consumer_offsets and __transaction_state, park requests, keep the timers and
// carry out the effects.
//
// It keeps two promises. What a client was told is in the log: an answer that
// depends on a record leaves only after the append returned, and OffsetFetch
// shows durable commits only. And a transaction whose outcome is in the log gets
// that outcome in every partition that still exists, however often the broker
// dies meanwhile. The records are Kafka's own (GroupMetadataKey and Value,
// OffsetCommitKey and Value, TransactionLogKey and Value), so Kafka's tools read
// them.
//
// What a client can make it keep is bounded: members per group
// (group.max.size, counted with those that were only promised an id), groups
// (Settings.MaxGroups), transactional ids and their partitions
// (TransactionSettings) and, through the size of a request, the metadata of
// each member. The broker checks that topics exist before it commits offsets or
// adds partitions.
//
// It knows no network, no topics and no authorisation. Lock order: a shard's
// mutex, then the timer queue's. No lock is held over Log or a wait.
package coordinator

import (
	"context"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/twmb/franz-go/pkg/kmsg"
	"golang.org/x/sync/errgroup"

	"kmirror/internal/wire"
)

// Log is what the coordinator asks of __consumer_offsets. Both methods are
// called concurrently for different partitions, never for one partition at
// the same time.
type Log interface {
	// Append writes batches in order and returns when those that could be written
	// are durable. errs is nil, or has an entry for each batch. They are not used
	// after it returns. An error may be a *kerr.Error; anything else is answered
	// as COORDINATOR_NOT_AVAILABLE.
	Append(ctx context.Context, partition int32, batches []LogBatch) (errs []error)
	// Read calls fn for every record of the partition from its start to its
	// end, in order; no records when the topic does not exist yet. fn keeps
	// nothing of the record.
	Read(ctx context.Context, partition int32, fn func(LogRecord) error) error
}

// LogBatch is one thing to append: records, or a marker.
type LogBatch struct {
	Records  []wire.Record
	Producer *TxnProducer // whose transaction the records are part of; nil: none
	Marker   *Marker      // ends a transaction; there are no records then
}

// LogRecord is a record of the log, or a marker.
type LogRecord struct {
	wire.Record

	Producer int64   // whose transaction it is part of; -1: none
	Marker   *Marker // the record is a marker
}

// Config is what a Coordinator is built from.
type Config struct {
	Partitions int32 // of __consumer_offsets; must not change in the life of the topic
	Settings   Settings
	Log        Log
	Logger     *slog.Logger // nil: silent
}

// Coordinator runs the groups of one broker. Requests may come from any
// goroutine; until their partition is loaded they are answered with
// COORDINATOR_LOAD_IN_PROGRESS, after Run has ended with NOT_COORDINATOR.
type Coordinator struct {
	settings Settings
	log      Log
	logger   *slog.Logger
	shards   []*shard // by partition of __consumer_offsets

	tickets atomic.Uint64
	groups  atomic.Int64 // over all shards, held against Settings.MaxGroups
	work    chan *shard  // shards with records to append; each at most once
	timers  *timerQueue[*shard]
}

// New builds a coordinator with nothing loaded. Call Load (or LoadPartition
// for each partition) and Run.
func New(cfg Config) *Coordinator {
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	if cfg.Partitions < 1 {
		cfg.Partitions = 1
	}
	c := &Coordinator{
		settings: cfg.Settings,
		log:      cfg.Log,
		logger:   cfg.Logger,
		work:     make(chan *shard, cfg.Partitions),
		timers:   newTimerQueue[*shard](),
	}
	for p := range cfg.Partitions {
		c.shards = append(c.shards, &shard{
			partition: p,
			groups:    make(map[string]*entry),
			waiting:   make(map[Ticket]chan kmsg.Response),
			open:      make(map[int64]map[*entry]bool),
		})
	}
	return c
}

// Partition is the partition of __consumer_offsets that keeps group.
func (c *Coordinator) Partition(group string) int32 {
	return PartitionFor(group, int32(len(c.shards)))
}

// Load reads every partition, a few at a time.
func (c *Coordinator) Load(ctx context.Context) error {
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(4)
	for p := range int32(len(c.shards)) {
		g.Go(func() error { return c.LoadPartition(ctx, p) })
	}
	return g.Wait()
}

// Run keeps the timers, appends what the groups want recorded and expires
// offsets, until ctx ends. Then every parked request is answered with
// NOT_COORDINATOR. When it returns, nothing it started still runs.
func (c *Coordinator) Run(ctx context.Context) error {
	var appends sync.WaitGroup
	defer c.shut()
	defer appends.Wait()

	loop[*shard]{
		work: c.work, timers: c.timers, fire: c.fire, expire: c.ExpireOffsets,
		drain: func(s *shard) { appends.Go(func() { c.drain(ctx, s) }) },
	}.run(ctx, c.settings.retentionCheck())
	return nil
}

// fire ticks every group whose deadline has come.
func (c *Coordinator) fire(now time.Time) {
	for _, due := range c.timers.due(now) {
		s := due.shard
		s.mu.Lock()
		if e := s.groups[due.id]; e != nil {
			e.scheduled = time.Time{}
			c.apply(s, e, e.group.Tick(now))
		}
		s.mu.Unlock()
	}
}

// ExpireOffsets writes tombstones for the offsets that retention has passed,
// and for groups that are left with nothing. Run calls it every
// offsets.retention.check.interval.ms.
func (c *Coordinator) ExpireOffsets() {
	c.eachGroup(func(g *Group, now time.Time) []Effect { return g.Expire(now) })
}

// DropTopic forgets the offsets that any group has committed for a topic that
// was deleted. It does not wait for the tombstones.
func (c *Coordinator) DropTopic(topic string) {
	c.eachGroup(func(g *Group, now time.Time) []Effect { return g.DropTopic(topic, now) })
}

// KeepTopics forgets the offsets for every topic that does not exist. It is for
// the start: a crash may have come between a topic's deletion and the tombstones
// of its offsets, which would else hold for a later topic of that name.
func (c *Coordinator) KeepTopics(exists func(topic string) bool) {
	gone := func(topic string) bool { return !exists(topic) }
	c.eachGroup(func(g *Group, now time.Time) []Effect { return g.dropTopics(gone, now) })
}

func (c *Coordinator) eachGroup(fn func(*Group, time.Time) []Effect) {
	for _, s := range c.shards {
		s.mu.Lock()
		for _, e := range s.groups {
			c.apply(s, e, fn(e.group, time.Now()))
		}
		s.mu.Unlock()
	}
}
