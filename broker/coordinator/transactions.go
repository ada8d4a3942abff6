package coordinator

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"golang.org/x/sync/errgroup"

	"kmirror/internal/wire"
)

// TransactionLog is what Transactions asks of the broker. All methods are called
// concurrently; Append and Read never for one partition at the same time.
type TransactionLog interface {
	// Append writes records to a partition of __transaction_state, in order, each
	// for itself, and returns when those that could be written are durable. errs
	// is nil, or has an entry for each record. Records are not used after it
	// returns.
	Append(ctx context.Context, partition int32, records []wire.Record) (errs []error)
	// Read calls fn for every record of a partition of __transaction_state, in
	// order; no records when the topic does not exist yet. fn keeps nothing of
	// the record.
	Read(ctx context.Context, partition int32, fn func(wire.Record) error) error
	// Rewrite writes records behind everything else in a partition, waits until
	// they are durable and then lets go of what stands before them.
	Rewrite(ctx context.Context, partition int32, records []wire.Record) error
	// NewProducerID is an id that nobody was ever given.
	NewProducerID(ctx context.Context) (int64, error)
	// Mark writes a marker to partitions and returns when it is durable in all of
	// them. left are those that could not be written now and are to be tried
	// again; partitions that do not exist any more are not among them.
	// coordinator is the partition of __transaction_state that decided.
	Mark(ctx context.Context, coordinator int32, m Marker, partitions []TopicPartition) (left []TopicPartition, err error)
}

// TransactionsConfig is what Transactions is built from.
type TransactionsConfig struct {
	Partitions int32 // of __transaction_state; must not change in the life of the topic
	Settings   TransactionSettings
	Log        TransactionLog
	Logger     *slog.Logger // nil: silent
}

// Transactions runs the transactional ids of one broker, by partition of
// __transaction_state. Requests may come from any goroutine; until their
// partition is loaded they are answered with COORDINATOR_LOAD_IN_PROGRESS,
// after Run has ended with NOT_COORDINATOR.
type Transactions struct {
	settings TransactionSettings
	log      TransactionLog
	logger   *slog.Logger
	shards   []*txnShard // by partition of __transaction_state

	tickets    atomic.Uint64
	ids        atomic.Int64 // weight over all shards, held against TransactionSettings.MaxIDs
	partitions atomic.Int64 // over all transactions, held against TransactionSettings.TotalPartitions
	work       chan *txnShard
	timers     *timerQueue[*txnShard]

	writers chan struct{} // one place for each marker being written
}

const (
	tidyFrom       = 20_000                // records of a partition, from which on it is rewritten when it is loaded
	tidyRatio      = 10                    // if there are so many for each id
	markersAtOnce  = 128                   // transactions whose markers are written at a time
	markBackoff    = 20 * time.Millisecond // before a marker is tried again, doubling
	maxMarkBackoff = 2 * time.Second       // the longest wait before the next try
	firstComplaint = 4                     // tries after which the log tells of it
	nextComplaint  = 30                    // and again after so many
)

// txnShard is one partition of __transaction_state with its ids.
type txnShard struct {
	partition int32 // constant

	mu      sync.Mutex // guards the fields below; not held over TransactionLog
	loaded  bool
	stopped bool
	ids     map[string]*txnEntry
	waiting map[Ticket]chan TxnResult // capacity 1; closed without a value when the runner stops
	queue   []txnQueued               // appends not yet begun, in order
	marks   []marking                 // not yet begun
	busy    bool                      // an appender has this shard, or it lies in Transactions.work
}

// txnEntry is an id, when the timer queue will look at it (zero: not), and what
// it counts for in Transactions.partitions.
type txnEntry struct {
	txn       *Transaction
	scheduled time.Time
	counted   int
}

type txnQueued struct {
	entry  *txnEntry
	id     uint64
	record wire.Record
}

// marking is a Mark of one id.
type marking struct {
	shard *txnShard
	entry *txnEntry
	Mark
}

// NewTransactions builds the runner with nothing loaded. Call Load and Run.
func NewTransactions(cfg TransactionsConfig) *Transactions {
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	cfg.Partitions = max(cfg.Partitions, 1)
	c := &Transactions{
		settings: cfg.Settings, log: cfg.Log, logger: cfg.Logger,
		work:    make(chan *txnShard, cfg.Partitions),
		timers:  newTimerQueue[*txnShard](),
		writers: make(chan struct{}, markersAtOnce),
	}
	for p := range cfg.Partitions {
		c.shards = append(c.shards, &txnShard{
			partition: p, ids: make(map[string]*txnEntry), waiting: make(map[Ticket]chan TxnResult),
		})
	}
	return c
}

// Partition is the partition of __transaction_state that keeps id.
func (c *Transactions) Partition(id string) int32 { return PartitionFor(id, int32(len(c.shards))) }

// Load reads every partition, a few at a time. From then on its ids are served.
func (c *Transactions) Load(ctx context.Context) error {
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(4)
	for _, s := range c.shards {
		g.Go(func() error { return c.load(ctx, s) })
	}
	return g.Wait()
}

func (c *Transactions) load(ctx context.Context, s *txnShard) error {
	states, read := make(map[string]*txnState), 0
	err := c.log.Read(ctx, s.partition, func(r wire.Record) error {
		read++
		id, state, known, err := decodeTransaction(r)
		switch {
		case err != nil:
			c.logger.Warn("transaction record skipped", slog.Int("partition", int(s.partition)), slog.Int64("offset", r.Offset), slog.Any("error", err))
		case !known:
		case state == nil:
			delete(states, id)
		default:
			states[id] = state
		}
		return nil
	})
	if err != nil {
		return fmt.Errorf("load transactions of partition %d: %w", s.partition, err)
	}
	c.tidy(ctx, s.partition, states, read)
	now := time.Now()
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.loaded || s.stopped {
		return nil
	}
	s.loaded = true
	for id, state := range states {
		e := &txnEntry{txn: NewTransaction(id, state.producerID, &c.settings, now)}
		e.txn.state = *state
		s.ids[id] = e
		c.ids.Add(idWeight(id))
		c.apply(s, e, e.txn.Loaded(now))
	}
	return nil
}

// tidy rewrites a partition of which little still holds: every transaction
// leaves three records, and nobody else removes them.
func (c *Transactions) tidy(ctx context.Context, partition int32, states map[string]*txnState, read int) {
	if read < tidyFrom || read < tidyRatio*len(states) {
		return
	}
	now, records := time.Now(), make([]wire.Record, 0, len(states))
	for _, id := range slices.Sorted(maps.Keys(states)) {
		records = append(records, NewTransaction(id, states[id].producerID, &c.settings, now).records(states[id], now)...)
	}
	if err := c.log.Rewrite(ctx, partition, records); err != nil && ctx.Err() == nil { // it is as good as before
		c.logger.Warn("transactions cannot be tidied up", slog.Int("partition", int(partition)), slog.Any("error", err))
	}
}

// Run keeps the timers, appends what the transactions want recorded, writes
// markers and expires ids, until ctx ends. Then everybody who waits is answered
// with NOT_COORDINATOR. When it returns, nothing it started still runs.
func (c *Transactions) Run(ctx context.Context) error {
	var started sync.WaitGroup
	defer c.shut()
	defer started.Wait()

	loop[*txnShard]{
		work: c.work, timers: c.timers, fire: c.fire, expire: c.ExpireIDs,
		drain: func(s *txnShard) { started.Go(func() { c.drain(ctx, s, &started) }) },
	}.run(ctx, c.settings.expirationCheck())
	return nil
}

// fire ticks every id whose deadline has come.
func (c *Transactions) fire(now time.Time) {
	for _, due := range c.timers.due(now) {
		s := due.shard
		s.mu.Lock()
		if e := s.ids[due.id]; e != nil {
			e.scheduled = time.Time{}
			c.apply(s, e, e.txn.Tick(now))
		}
		s.mu.Unlock()
	}
}

// ExpireIDs writes tombstones for the ids that nobody used for
// transactional.id.expiration.ms. Run calls it every
// transaction.remove.expired.transaction.cleanup.interval.ms.
func (c *Transactions) ExpireIDs() {
	now := time.Now()
	for _, s := range c.shards {
		s.mu.Lock()
		for _, e := range s.ids {
			c.apply(s, e, e.txn.Expire(now))
		}
		s.mu.Unlock()
	}
}

// apply carries out effects and keeps the books on the id. Needs s.mu.
func (c *Transactions) apply(s *txnShard, e *txnEntry, effects []Effect) {
	for _, effect := range effects {
		switch effect := effect.(type) {
		case Settled:
			if ch, ok := s.waiting[effect.Ticket]; ok {
				delete(s.waiting, effect.Ticket)
				ch <- effect.Result
			}
		case Append:
			s.queue = append(s.queue, txnQueued{e, effect.ID, effect.Records[0]})
			c.busy(s)
		case Mark:
			s.marks = append(s.marks, marking{s, e, effect})
			c.busy(s)
		}
	}
	t := e.txn
	if n := t.Partitions(); n != e.counted {
		c.partitions.Add(int64(n - e.counted))
		e.counted = n
	}
	if (t.Gone() || t.Vacant()) && s.ids[t.ID()] == e {
		delete(s.ids, t.ID())
		c.ids.Add(-idWeight(t.ID()))
		return
	}
	if at, ok := t.Next(); ok && (e.scheduled.IsZero() || at.Before(e.scheduled)) {
		e.scheduled = at
		c.timers.add(alarm[*txnShard]{at: at, shard: s, id: t.ID()})
	}
}

// idWeight is what an id counts for in Transactions.ids: a long one as much as
// several, so that the limit is one of memory.
func idWeight(id string) int64 { return 1 + int64(len(id))/512 }

// busy sees to it that Run looks at the shard. Needs s.mu.
func (c *Transactions) busy(s *txnShard) {
	if !s.busy {
		s.busy = true
		c.work <- s // never blocks: one place for each shard
	}
}

// drain appends what the shard has queued until nothing is left. Everything
// that waits goes together, so changes share the cost of a flush. Markers are
// begun beside it, in started.
func (c *Transactions) drain(ctx context.Context, s *txnShard, started *sync.WaitGroup) {
	for {
		marks, batch, records := s.next()
		for _, m := range marks {
			started.Go(func() { c.mark(ctx, m) })
		}
		if len(batch) == 0 {
			return
		}
		errs := c.log.Append(ctx, s.partition, records)
		now := time.Now()
		s.mu.Lock()
		for i, q := range batch {
			var err error
			if errs != nil {
				err = errs[i]
			}
			if err != nil && ctx.Err() == nil {
				c.logger.Error("transaction not written", slog.Int("partition", int(s.partition)), slog.String("transactional_id", q.entry.txn.ID()), slog.Any("error", err))
			}
			c.apply(s, q.entry, q.entry.txn.Appended(q.id, stateCode(err), now))
		}
		s.mu.Unlock()
	}
}

// next takes the markers to begin and the next appends off the queue; no
// appends mean that the appender is done.
func (s *txnShard) next() (marks []marking, batch []txnQueued, records []wire.Record) {
	s.mu.Lock()
	defer s.mu.Unlock()
	marks, s.marks = s.marks, nil
	size := 0
	for len(s.queue) > 0 {
		q := s.queue[0]
		size += len(q.record.Key) + len(q.record.Value) + 32
		if len(batch) > 0 && size > batchBytes {
			break
		}
		batch, records = append(batch, q), append(records, q.record)
		s.queue[0] = txnQueued{}
		s.queue = s.queue[1:]
	}
	if len(batch) == 0 {
		s.queue, s.busy = nil, false
	}
	return marks, batch, records
}

// mark writes one transaction's markers, again and again until every partition
// has its own. A partition that cannot be written holds up its transaction, as
// in Kafka, and nobody else's.
func (c *Transactions) mark(ctx context.Context, m marking) {
	left, wait := m.Partitions, markBackoff
	for try := 1; len(left) > 0; try++ {
		select {
		case c.writers <- struct{}{}:
		case <-ctx.Done():
			return
		}
		var err error
		left, err = c.log.Mark(ctx, m.shard.partition, m.Marker, left)
		<-c.writers
		if len(left) == 0 {
			break
		}
		if (try == firstComplaint || try%nextComplaint == 0) && ctx.Err() == nil {
			c.logger.Warn("transaction markers not written yet", slog.String("transactional_id", m.entry.txn.ID()),
				slog.Int("partitions", len(left)), slog.Any("error", err))
		}
		select {
		case <-time.After(wait):
		case <-ctx.Done():
			return
		}
		wait = min(2*wait, maxMarkBackoff)
	}
	m.shard.mu.Lock()
	defer m.shard.mu.Unlock()
	c.apply(m.shard, m.entry, m.entry.txn.Marked(time.Now()))
}

// shut answers everything that waits: Run has ended.
func (c *Transactions) shut() {
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

// ready is 0, or why the shard cannot be asked. Needs s.mu.
func (s *txnShard) ready() int16 {
	switch {
	case s.stopped:
		return kerr.NotCoordinator.Code
	case !s.loaded:
		return kerr.CoordinatorLoadInProgress.Code
	}
	return 0
}

// await puts a request to an id and waits for its answer. fn runs under the
// shard's lock. missing is the code for an id that does not exist.
func (c *Transactions) await(ctx context.Context, id string, missing int16, fn func(t *Transaction, ticket Ticket, now time.Time) []Effect) TxnResult {
	s := c.shards[c.Partition(id)]
	s.mu.Lock()
	if code := s.ready(); code != 0 {
		s.mu.Unlock()
		return txnCode(code)
	}
	e := s.ids[id]
	if e == nil {
		s.mu.Unlock()
		return txnCode(missing)
	}
	return c.wait(ctx, s, e, fn)
}

// wait is the second half of await; it gives s.mu back.
func (c *Transactions) wait(ctx context.Context, s *txnShard, e *txnEntry, fn func(t *Transaction, ticket Ticket, now time.Time) []Effect) TxnResult {
	ticket, ch := Ticket(c.tickets.Add(1)), make(chan TxnResult, 1)
	s.waiting[ticket] = ch
	c.apply(s, e, fn(e.txn, ticket, time.Now()))
	s.mu.Unlock()

	select {
	case r, ok := <-ch:
		if !ok {
			return txnCode(kerr.NotCoordinator.Code)
		}
		return r
	case <-ctx.Done():
		s.mu.Lock()
		delete(s.waiting, ticket)
		s.mu.Unlock()
		return txnCode(kerr.CoordinatorNotAvailable.Code)
	}
}

// stateCode is what a state that could not be written is to a client.
func stateCode(err error) int16 {
	switch code := appendCode(err); code {
	case kerr.MessageTooLarge.Code, kerr.RecordListTooLarge.Code: // more partitions than a record has room for
		return kerr.UnknownServerError.Code
	default:
		return code
	}
}

// errCode is what an error is to a client.
func errCode(err error) int16 {
	if coded, ok := errors.AsType[*kerr.Error](err); ok {
		return coded.Code
	}
	return kerr.CoordinatorNotAvailable.Code
}
