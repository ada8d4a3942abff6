package coordinator_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"

	"kmirror/broker/coordinator"
	"kmirror/internal/wire"
)

// memTxnLog is __transaction_state and all partitions in memory. Partitions can
// be made to refuse markers.
type memTxnLog struct {
	mu      sync.Mutex
	records map[int32][]wire.Record
	fresh   int64
	down    map[string]bool // topics that take no markers
	gone    map[string]bool // topics that are no more
	marked  []string
	err     error
}

func (l *memTxnLog) Append(ctx context.Context, partition int32, records []wire.Record) []error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.err != nil {
		return slices.Repeat([]error{l.err}, len(records))
	}
	if l.records == nil {
		l.records = make(map[int32][]wire.Record)
	}
	l.records[partition] = append(l.records[partition], records...)
	if ctx.Err() != nil {
		return slices.Repeat([]error{ctx.Err()}, len(records))
	}
	return nil
}

func (l *memTxnLog) Read(_ context.Context, partition int32, fn func(wire.Record) error) error {
	l.mu.Lock()
	records := slices.Clone(l.records[partition])
	l.mu.Unlock()
	for _, r := range records {
		if err := fn(r); err != nil {
			return err
		}
	}
	return nil
}

func (l *memTxnLog) Rewrite(_ context.Context, partition int32, records []wire.Record) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.records[partition] = slices.Clone(records)
	return nil
}

func (l *memTxnLog) NewProducerID(context.Context) (int64, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.fresh++
	return l.fresh, nil
}

func (l *memTxnLog) Mark(_ context.Context, _ int32, m coordinator.Marker, partitions []coordinator.TopicPartition) (left []coordinator.TopicPartition, err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, tp := range partitions {
		switch {
		case l.gone[tp.Topic]:
		case l.down[tp.Topic]:
			left, err = append(left, tp), errors.New("the partition has no leader")
		default:
			l.marked = append(l.marked, fmt.Sprintf("%s %d/%d %v", tp.Topic, m.ProducerID, m.Epoch, m.Commit))
		}
	}
	return left, err
}

func (l *memTxnLog) markers() []string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return slices.Clone(l.marked)
}

func (l *memTxnLog) change(fn func(*memTxnLog)) {
	l.mu.Lock()
	defer l.mu.Unlock()
	fn(l)
}

// runTransactions runs a coordinator on log until stop or the end of the test.
func runTransactions(t *testing.T, log *memTxnLog, change func(*coordinator.TransactionSettings)) (c *coordinator.Transactions, stop func()) {
	t.Helper()
	settings := coordinator.DefaultTransactionSettings()
	if change != nil {
		change(&settings)
	}
	c = coordinator.NewTransactions(coordinator.TransactionsConfig{Partitions: 3, Settings: settings, Log: log})
	if err := c.Load(t.Context()); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ran := make(chan struct{})
	go func() {
		defer close(ran)
		if err := c.Run(ctx); err != nil {
			t.Error(err)
		}
	}()
	stop = sync.OnceFunc(func() {
		cancel()
		<-ran
	})
	t.Cleanup(stop)
	return c, stop
}

func initID(t *testing.T, c *coordinator.Transactions, id string) coordinator.TxnResult {
	t.Helper()
	r := c.InitProducerID(t.Context(), id, coordinator.TxnInit{TimeoutMillis: 60_000, ProducerID: -1, Epoch: -1})
	if r.Code != 0 {
		t.Fatalf("init %s: %v", id, kerr.ErrorForCode(r.Code))
	}
	return r
}

func topics(names ...string) (tps []coordinator.TopicPartition) {
	for _, n := range names {
		tps = append(tps, coordinator.TopicPartition{Topic: n})
	}
	return tps
}

func mustBe(t *testing.T, what string, got int16, want *kerr.Error) {
	t.Helper()
	if want == nil && got != 0 || want != nil && got != want.Code {
		t.Errorf("%s: %v, want %v", what, kerr.ErrorForCode(got), want)
	}
}

// A partition that takes no marker holds up its own transaction, and nobody else's.
func TestMarkerThatCannotBeWritten(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		log := &memTxnLog{down: map[string]bool{"down": true}, gone: map[string]bool{"gone": true}}
		c, _ := runTransactions(t, log, nil)
		stuck, free := initID(t, c, "stuck"), initID(t, c, "free")
		mustBe(t, "add", c.AddPartitions(t.Context(), "stuck", stuck.ProducerID, 0, topics("up", "down", "gone"), 2), nil)
		mustBe(t, "end", c.EndTxn(t.Context(), "stuck", stuck.ProducerID, 0, true, 2).Code, nil)
		time.Sleep(time.Minute)
		synctest.Wait()
		if got := log.markers(); !slices.Equal(got, []string{"up 1/1 true"}) {
			t.Errorf("markers %v", got)
		}
		mustBe(t, "init meanwhile", c.InitProducerID(t.Context(), "stuck", coordinator.TxnInit{TimeoutMillis: 1, ProducerID: -1, Epoch: -1}).Code, kerr.ConcurrentTransactions)
		mustBe(t, "add, another's", c.AddPartitions(t.Context(), "free", free.ProducerID, 0, topics("up"), 2), nil)
		mustBe(t, "end, another's", c.EndTxn(t.Context(), "free", free.ProducerID, 0, false, 2).Code, nil)
		synctest.Wait()
		if got := c.Describe("free").State; got != "CompleteAbort" {
			t.Errorf("the other transaction is %s", got)
		}
		log.change(func(l *memTxnLog) { l.down = nil })
		time.Sleep(3 * time.Second)
		synctest.Wait()
		if got := c.Describe("stuck").State; got != "CompleteCommit" {
			t.Errorf("the transaction is %s once its partition is back", got)
		}
		if got := log.markers(); !slices.Contains(got, "down 1/1 true") || len(got) != 3 {
			t.Errorf("markers %v", got)
		}
	})
}

// What was decided is marked again by the next life, from the log alone.
func TestDecidedTransactionSurvives(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		log := &memTxnLog{down: map[string]bool{"down": true}}
		c, stop := runTransactions(t, log, nil)
		p := initID(t, c, "id")
		open := initID(t, c, "open")
		mustBe(t, "add", c.AddPartitions(t.Context(), "id", p.ProducerID, 0, topics("up", "down"), 0), nil)
		mustBe(t, "add", c.AddPartitions(t.Context(), "open", open.ProducerID, 0, topics("up"), 2), nil)
		mustBe(t, "end", c.EndTxn(t.Context(), "id", p.ProducerID, 0, false, 0).Code, nil)
		synctest.Wait()
		stop()
		mustBe(t, "after the end", c.AddPartitions(t.Context(), "id", p.ProducerID, 0, topics("up"), 0), kerr.NotCoordinator)

		log.change(func(l *memTxnLog) { l.down, l.marked = nil, nil })
		c, _ = runTransactions(t, log, nil)
		synctest.Wait()
		if got := log.markers(); !slices.Equal(got, []string{"down 1/0 false", "up 1/0 false"}) {
			t.Errorf("markers %v", got)
		}
		if got := c.Describe("id").State; got != "CompleteAbort" {
			t.Errorf("the transaction is %s", got)
		}
		if got := c.Describe("open"); got.State != "Ongoing" || len(got.Topics) != 1 {
			t.Errorf("the open transaction is %+v", got)
		}
		time.Sleep(61 * time.Second) // its time runs on from where it began
		synctest.Wait()
		if got := c.Describe("open").State; got != "CompleteAbort" {
			t.Errorf("the open transaction is %s when its time is over", got)
		}
	})
}

func TestTransactionLimits(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		log := &memTxnLog{}
		c, _ := runTransactions(t, log, func(s *coordinator.TransactionSettings) { s.MaxIDs, s.MaxPartitions, s.TotalPartitions = 2, 3, 4 })
		a, b := initID(t, c, "a"), initID(t, c, "b")
		mustBe(t, "a third id", c.InitProducerID(t.Context(), "c", coordinator.TxnInit{TimeoutMillis: 1, ProducerID: -1, Epoch: -1}).Code, kerr.PolicyViolation)
		mustBe(t, "too many partitions", c.AddPartitions(t.Context(), "a", a.ProducerID, 0, topics("1", "2", "3", "4"), 2), kerr.PolicyViolation)
		mustBe(t, "partitions", c.AddPartitions(t.Context(), "a", a.ProducerID, 0, topics("1", "2", "3"), 2), nil)
		mustBe(t, "too many of all", c.AddPartitions(t.Context(), "b", b.ProducerID, 0, topics("1", "2"), 2), kerr.PolicyViolation)
		mustBe(t, "the last", c.AddPartitions(t.Context(), "b", b.ProducerID, 0, topics("1"), 2), nil)
		mustBe(t, "end", c.EndTxn(t.Context(), "a", a.ProducerID, 0, true, 2).Code, nil)
		synctest.Wait()
		mustBe(t, "room again", c.AddPartitions(t.Context(), "b", b.ProducerID, 0, topics("2", "3"), 2), nil)
		mustBe(t, "no timeout", c.InitProducerID(t.Context(), "a", coordinator.TxnInit{ProducerID: -1, Epoch: -1}).Code, kerr.InvalidTransactionTimeout)
		mustBe(t, "too long", c.InitProducerID(t.Context(), "a", coordinator.TxnInit{TimeoutMillis: 900_001, ProducerID: -1, Epoch: -1}).Code, kerr.InvalidTransactionTimeout)
	})
}

// An id expires by the clock; then its name begins anew, under another producer id.
func TestIDsExpire(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		log := &memTxnLog{}
		c, stop := runTransactions(t, log, nil)
		first := initID(t, c, "id")
		time.Sleep(6 * 24 * time.Hour)
		if again := initID(t, c, "id"); again.ProducerID != first.ProducerID || again.Epoch != 1 {
			t.Errorf("after six days the id has %+v, had %+v", again, first)
		}
		time.Sleep(6 * 24 * time.Hour) // since the last use, not the first
		if d := c.Describe("id"); d.ErrorCode != 0 {
			t.Errorf("after six more days: %v", kerr.ErrorForCode(d.ErrorCode))
		}
		time.Sleep(25 * time.Hour)
		synctest.Wait()
		mustBe(t, "describe an expired id", c.Describe("id").ErrorCode, kerr.TransactionalIDNotFound)
		stop()
		c, _ = runTransactions(t, log, nil)
		mustBe(t, "describe it after a restart", c.Describe("id").ErrorCode, kerr.TransactionalIDNotFound)
		if got := len(c.List(kmsg.NewPtrListTransactionsRequest(), func(string) bool { return true }).TransactionStates); got != 0 {
			t.Errorf("%d ids are listed", got)
		}
		if anew := initID(t, c, "id"); anew.ProducerID == first.ProducerID || anew.Epoch != 0 {
			t.Errorf("the expired id has %+v, had %+v", anew, first)
		}
	})
}

// What cannot be written did not happen, and a new id leaves nothing behind.
func TestTransactionLogThatFails(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		log := &memTxnLog{err: errors.New("disk full")}
		c, _ := runTransactions(t, log, nil)
		mustBe(t, "init", c.InitProducerID(t.Context(), "id", coordinator.TxnInit{TimeoutMillis: 1000, ProducerID: -1, Epoch: -1}).Code, kerr.CoordinatorNotAvailable)
		mustBe(t, "describe", c.Describe("id").ErrorCode, kerr.TransactionalIDNotFound)
		log.change(func(l *memTxnLog) { l.err = nil })
		p := initID(t, c, "id")
		mustBe(t, "add", c.AddPartitions(t.Context(), "id", p.ProducerID, 0, topics("t"), 2), nil)
		log.change(func(l *memTxnLog) { l.err = kerr.NotLeaderForPartition })
		mustBe(t, "end", c.EndTxn(t.Context(), "id", p.ProducerID, 0, true, 2).Code, kerr.NotCoordinator)
		log.change(func(l *memTxnLog) { l.err = nil })
		if r := c.EndTxn(t.Context(), "id", p.ProducerID, 0, true, 2); r.Code != 0 || r.Epoch != 1 {
			t.Errorf("end again: %+v", r)
		}
	})
}

func TestTransactionsThatAreNotLoaded(t *testing.T) {
	c := coordinator.NewTransactions(coordinator.TransactionsConfig{Partitions: 2, Settings: coordinator.DefaultTransactionSettings(), Log: &memTxnLog{}})
	mustBe(t, "init", c.InitProducerID(t.Context(), "id", coordinator.TxnInit{TimeoutMillis: 1000, ProducerID: -1, Epoch: -1}).Code, kerr.CoordinatorLoadInProgress)
	mustBe(t, "add", c.AddPartitions(t.Context(), "id", 1, 0, topics("t"), 2), kerr.CoordinatorLoadInProgress)
	mustBe(t, "describe", c.Describe("id").ErrorCode, kerr.CoordinatorLoadInProgress)
	mustBe(t, "list", c.List(kmsg.NewPtrListTransactionsRequest(), func(string) bool { return true }).ErrorCode, kerr.CoordinatorLoadInProgress)
	code, _ := c.VerifyPartitions("id", 1, 0, topics("t"))
	mustBe(t, "verify", code, kerr.CoordinatorLoadInProgress)
}

// A partition with many records and few ids is rewritten when it is loaded, and
// says the same then.
func TestTransactionsAreTidied(t *testing.T) {
	settings := coordinator.DefaultTransactionSettings()
	log := &memTxnLog{records: map[int32][]wire.Record{}}
	c := coordinator.NewTransactions(coordinator.TransactionsConfig{Partitions: 3, Settings: settings, Log: log})
	at := c.Partition("busy")
	now := time.Now()
	for _, id := range []string{"busy", "open"} {
		txn := coordinator.NewTransaction(id, 7, &settings, now)
		take := func(effects []coordinator.Effect) {
			for _, e := range effects {
				if a, ok := e.(coordinator.Append); ok {
					log.records[at] = append(log.records[at], a.Records...)
					txn.Appended(a.ID, 0, now)
				}
			}
		}
		turns := 20_000
		if id == "open" {
			turns = 1
		}
		for range turns {
			take(txn.Init(1, coordinator.TxnInit{TimeoutMillis: 60_000, ProducerID: -1, Epoch: -1}, -1, now))
		}
		if id == "open" {
			take(txn.Add(1, 7, 0, topics("t"), 2, now))
		}
	}
	if err := c.Load(t.Context()); err != nil {
		t.Fatal(err)
	}
	if n := len(log.records[at]); n != 2 {
		t.Errorf("%d records are left, want one for each id", n)
	}
	tell := func(c *coordinator.Transactions) (out []string) {
		for _, x := range c.List(kmsg.NewPtrListTransactionsRequest(), func(string) bool { return true }).TransactionStates {
			out = append(out, fmt.Sprintf("%s %s %d", x.TransactionalID, x.TransactionState, x.ProducerID))
		}
		return out
	}
	again := coordinator.NewTransactions(coordinator.TransactionsConfig{Partitions: 3, Settings: settings, Log: log})
	if err := again.Load(t.Context()); err != nil {
		t.Fatal(err)
	}
	if before, after := tell(c), tell(again); len(before) != 2 || !slices.Equal(before, after) {
		t.Errorf("before %v, after %v", before, after)
	}
	if d := again.Describe("busy"); c.Partition("busy") == at && d.ProducerEpoch != 19_999 {
		t.Errorf("after it the epoch is %d", d.ProducerEpoch)
	}
}

// Loading survives whatever stands in the log.
func FuzzTransactionRecord(f *testing.F) {
	log := &memTxnLog{}
	settings := coordinator.DefaultTransactionSettings()
	txn := coordinator.NewTransaction("id", 5, &settings, time.UnixMilli(1))
	for _, e := range txn.Init(1, coordinator.TxnInit{TimeoutMillis: 1, ProducerID: -1, Epoch: -1}, -1, time.UnixMilli(2)) {
		if a, ok := e.(coordinator.Append); ok {
			f.Add(a.Records[0].Key, a.Records[0].Value, false)
			f.Add(a.Records[0].Key, []byte{}, true)
			txn.Appended(a.ID, 0, time.UnixMilli(2))
		}
	}
	for _, e := range txn.Add(1, 5, 0, topics("t", "u"), 2, time.UnixMilli(3)) {
		if a, ok := e.(coordinator.Append); ok {
			f.Add(a.Records[0].Key, a.Records[0].Value, false)
		}
	}
	f.Fuzz(func(t *testing.T, key, value []byte, null bool) {
		if null {
			value = nil
		}
		log.change(func(l *memTxnLog) { l.records = map[int32][]wire.Record{0: {{Key: key, Value: value}}} })
		c := coordinator.NewTransactions(coordinator.TransactionsConfig{Partitions: 1, Settings: settings, Log: log})
		if err := c.Load(t.Context()); err != nil {
			t.Fatal(err)
		}
		for _, s := range c.List(kmsg.NewPtrListTransactionsRequest(), func(string) bool { return true }).TransactionStates {
			c.Describe(s.TransactionalID)
		}
		c.ExpireIDs()
	})
}
