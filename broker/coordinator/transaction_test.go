package coordinator_test

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"
	"pgregory.net/rapid"

	"kmirror/broker/coordinator"
	"kmirror/internal/wire"
)

// TestTransactionScripts plays the histories in testdata/transactions.
func TestTransactionScripts(t *testing.T) {
	playAll(t, "testdata/transactions/*.txt", func() player { return newTxnStory() })
}

// txnStory is one transactional id with a clock that only the script moves.
// Appends succeed at once, unless the script holds or fails them; markers are
// written when it says so.
type txnStory struct {
	settings coordinator.TransactionSettings
	txn      *coordinator.Transaction
	now      time.Time
	last     coordinator.Ticket
	tickets  map[coordinator.Ticket]string
	held     []coordinator.Append
	hold     bool
	failing  int16
	record   wire.Record // the last one in the log
	lines    []string
}

func newTxnStory() *txnStory {
	s := &txnStory{settings: coordinator.DefaultTransactionSettings(), now: time.UnixMilli(1_700_000_000_000), tickets: map[coordinator.Ticket]string{}}
	s.txn = coordinator.NewTransaction("x", 7, &s.settings, s.now)
	return s
}

func (s *txnStory) took() []string {
	l := append(s.lines, s.txn.Status().String())
	s.lines = nil
	return l
}

func (s *txnStory) say(format string, args ...any) {
	s.lines = append(s.lines, fmt.Sprintf(format, args...))
}

func (s *txnStory) do(effects []coordinator.Effect) {
	for _, e := range effects {
		switch e := e.(type) {
		case coordinator.Settled:
			if e.Result.ProducerID < 0 {
				s.say("%s: %s", s.tickets[e.Ticket], code(e.Result.Code))
			} else {
				s.say("%s: %s %d/%d", s.tickets[e.Ticket], code(e.Result.Code), e.Result.ProducerID, e.Result.Epoch)
			}
			delete(s.tickets, e.Ticket)
		case coordinator.Mark:
			s.say("mark %d/%d v%d commit=%v %v", e.Marker.ProducerID, e.Marker.Epoch, e.Marker.Version, e.Marker.Commit, e.Partitions)
		case coordinator.Append:
			for _, r := range e.Records {
				s.say("append %s", transactionText(r))
			}
			if s.hold {
				s.held = append(s.held, e)
			} else {
				s.appended(e, s.failing)
			}
		}
	}
}

func (s *txnStory) appended(e coordinator.Append, code int16) {
	if code == 0 {
		s.record = e.Records[0]
	}
	s.do(s.txn.Appended(e.ID, code, s.now))
}

func transactionText(r wire.Record) string {
	if r.Value == nil {
		return "tombstone"
	}
	v := kmsg.NewTxnMetadataValue()
	if err := v.ReadFrom(r.Value); err != nil {
		return err.Error()
	}
	out := fmt.Sprintf("v%d %s %d/%d", v.Version, coordinator.TxnStatus(v.State), v.ProducerID, v.ProducerEpoch)
	if v.PreviousProducerID != v.ProducerID {
		out += fmt.Sprint(" previous=", v.PreviousProducerID)
	}
	if v.NextProducerID >= 0 {
		out += fmt.Sprint(" next=", v.NextProducerID)
	}
	if v.ClientTransactionVersion > 0 {
		out += fmt.Sprint(" tv", v.ClientTransactionVersion)
	}
	for _, t := range v.Topics {
		out += fmt.Sprint(" ", t.Topic, t.Partitions)
	}
	return out
}

func (s *txnStory) ask(name string) coordinator.Ticket {
	s.last++
	s.tickets[s.last] = name
	return s.last
}

func (s *txnStory) run(t *testing.T, line []string) {
	t.Helper()
	a := args{}
	for _, pair := range line[1:] {
		name, value, _ := strings.Cut(pair, "=")
		a[name] = value
	}
	id, epoch, version := int64(a.num("id", 7)), int16(a.num("epoch", 0)), int16(a.num("tv", 2))
	var partitions []coordinator.TopicPartition
	for topic := range strings.SplitSeq(a.str("topics", "a"), ",") {
		partitions = append(partitions, coordinator.TopicPartition{Topic: topic})
	}
	switch line[0] {
	case "init":
		req := coordinator.TxnInit{TimeoutMillis: int32(a.num("timeout", 60_000)), ProducerID: int64(a.num("id", -1)), Epoch: int16(a.num("epoch", -1))}
		for range a.num("times", 1) {
			s.do(s.txn.Init(s.ask("init"), req, int64(a.num("fresh", -1)), s.now))
			if a.num("times", 1) > 1 {
				s.lines = nil // there are many
			}
		}
	case "add":
		s.do(s.txn.Add(s.ask("add"), id, epoch, partitions, version, s.now))
	case "verify":
		c, missing := s.txn.Verify(id, epoch, partitions)
		s.say("verify: %s missing=%v", code(c), missing)
	case "commit", "abort":
		s.do(s.txn.End(s.ask(line[0]), id, epoch, line[0] == "commit", version, int64(a.num("fresh", -1)), s.now))
	case "marked":
		s.do(s.txn.Marked(s.now))
	case "wait":
		s.now = s.now.Add(time.Duration(a.num("ms", 0)) * time.Millisecond)
		if at, ok := s.txn.Next(); ok && !at.After(s.now) {
			s.do(s.txn.Tick(s.now))
		}
	case "expire":
		s.do(s.txn.Expire(s.now))
		s.say("gone=%v", s.txn.Gone())
	case "hold-appends":
		s.hold = true
	case "release":
		held := s.held
		s.hold, s.held = false, nil
		for _, e := range held {
			s.appended(e, int16(a.num("code", 0)))
		}
	case "fail-appends":
		s.failing = int16(a.num("code", 0))
	case "restart":
		s.txn = coordinator.NewTransaction("x", 7, &s.settings, s.now)
		if err := s.txn.Restore(s.record); err != nil {
			t.Fatal(err)
		}
		s.held, s.hold = nil, false
		s.do(s.txn.Loaded(s.now))
	default:
		t.Fatalf("no command %q", line[0])
	}
}

// txnHistory drives one transactional id at random.
type txnHistory struct {
	t        *rapid.T
	settings coordinator.TransactionSettings
	txn      *coordinator.Transaction
	now      time.Time
	last     coordinator.Ticket
	open     map[coordinator.Ticket]bool
	waiting  []coordinator.Append
	marks    []coordinator.Mark
	log      []wire.Record
	fresh    int64
	given    []coordinator.TxnResult // pairs that producers may hold
}

func (h *txnHistory) ask() coordinator.Ticket {
	h.last++
	h.open[h.last] = true
	return h.last
}

func (h *txnHistory) do(effects []coordinator.Effect) {
	for _, e := range effects {
		switch e := e.(type) {
		case coordinator.Append:
			h.waiting = append(h.waiting, e)
		case coordinator.Mark:
			h.marks = append(h.marks, e)
		case coordinator.Settled:
			if !h.open[e.Ticket] {
				h.t.Fatalf("ticket %d is answered twice, or was never asked", e.Ticket)
			}
			delete(h.open, e.Ticket)
			if e.Result.ProducerID >= 0 {
				h.given = append(h.given, e.Result)
			}
		}
	}
	if len(h.waiting) > 1 {
		h.t.Fatal("two changes of one transaction are on their way to the log")
	}
}

func (h *txnHistory) written(ok bool) {
	if len(h.waiting) == 0 {
		return
	}
	a := h.waiting[0]
	h.waiting = nil
	if !ok {
		h.do(h.txn.Appended(a.ID, kerr.CoordinatorNotAvailable.Code, h.now))
		return
	}
	h.log = append(h.log, a.Records...)
	h.do(h.txn.Appended(a.ID, 0, h.now))
}

func (h *txnHistory) step() {
	t := h.t
	who := rapid.SampledFrom(h.given).Draw(t, "producer")
	who.Epoch += int16(rapid.SampledFrom([]int{0, 0, 0, 0, -1, 1}).Draw(t, "epoch off by"))
	version := rapid.SampledFrom([]int16{0, 2}).Draw(t, "version")
	h.fresh++
	switch rapid.IntRange(0, 9).Draw(t, "command") {
	case 0:
		h.do(h.txn.Init(h.ask(), coordinator.TxnInit{TimeoutMillis: 1000, ProducerID: -1, Epoch: -1}, h.fresh, h.now))
	case 1:
		h.do(h.txn.Init(h.ask(), coordinator.TxnInit{TimeoutMillis: 1000, ProducerID: who.ProducerID, Epoch: who.Epoch}, h.fresh, h.now))
	case 2, 3:
		tp := coordinator.TopicPartition{Topic: rapid.SampledFrom([]string{"a", "b"}).Draw(t, "topic")}
		h.do(h.txn.Add(h.ask(), who.ProducerID, who.Epoch, []coordinator.TopicPartition{tp}, version, h.now))
	case 4, 5:
		h.do(h.txn.End(h.ask(), who.ProducerID, who.Epoch, rapid.Bool().Draw(t, "commit"), version, h.fresh, h.now))
	case 6:
		h.now = h.now.Add(time.Duration(rapid.IntRange(0, 1500).Draw(t, "ms")) * time.Millisecond)
		if at, ok := h.txn.Next(); ok && !at.After(h.now) {
			h.do(h.txn.Tick(h.now))
		}
	case 7:
		h.written(rapid.IntRange(0, 5).Draw(t, "failed") > 0)
	case 8:
		if len(h.marks) > 0 {
			h.marks = h.marks[1:]
			h.do(h.txn.Marked(h.now))
		}
	case 9: // a crash: what is on its way may have come to the log, or not
		if len(h.waiting) > 0 && rapid.Bool().Draw(t, "written") {
			h.log = append(h.log, h.waiting[0].Records...)
		}
		if len(h.log) == 0 {
			break
		}
		h.waiting, h.marks, h.open = nil, nil, map[coordinator.Ticket]bool{}
		h.txn = coordinator.NewTransaction("x", 7, &h.settings, h.now)
		if err := h.txn.Restore(h.log[len(h.log)-1]); err != nil {
			t.Fatal(err)
		}
		h.do(h.txn.Loaded(h.now))
	}
	if rapid.Bool().Draw(t, "at once") {
		h.written(true)
	}
}

// TestRandomTransactions: every request is answered once, an outcome in the log
// stays until its completion, epochs of a producer id only grow, and nothing
// remains to be done once nobody asks any more.
func TestRandomTransactions(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		h := &txnHistory{
			t: t, settings: coordinator.DefaultTransactionSettings(), now: time.UnixMilli(1_700_000_000_000),
			open: map[coordinator.Ticket]bool{}, fresh: 1000, given: []coordinator.TxnResult{{ProducerID: 7}},
		}
		h.txn = coordinator.NewTransaction("x", 7, &h.settings, h.now)
		if rapid.Bool().Draw(t, "nearly used up") { // so that producer ids change, too
			h.do(h.txn.Init(h.ask(), coordinator.TxnInit{TimeoutMillis: 1000, ProducerID: -1, Epoch: -1}, -1, h.now))
			h.written(true)
			h.given = nil
			h.age()
		}
		for range rapid.IntRange(0, 60).Draw(t, "steps") {
			h.step()
		}
		for range 20 {
			h.written(true)
			if len(h.marks) > 0 {
				h.marks = h.marks[1:]
				h.do(h.txn.Marked(h.now))
			}
			h.now = h.now.Add(2 * time.Second)
			if at, ok := h.txn.Next(); ok && !at.After(h.now) {
				h.do(h.txn.Tick(h.now))
			}
		}
		if len(h.open) > 0 || h.txn.Status() == coordinator.TxnOngoing || h.txn.Status() == coordinator.TxnPrepareAbort || h.txn.Status() == coordinator.TxnPrepareCommit {
			t.Fatalf("at the end the id is %s, and %d requests wait", h.txn.Status(), len(h.open))
		}
		h.checkLog()
	})
}

// age rewrites the id's record so that few epochs are left.
func (h *txnHistory) age() {
	r := h.log[len(h.log)-1]
	v := kmsg.NewTxnMetadataValue()
	if err := v.ReadFrom(r.Value); err != nil {
		h.t.Fatal(err)
	}
	v.ProducerEpoch = 32764
	r.Value = v.AppendTo(nil)
	h.log = []wire.Record{r}
	if err := h.txn.Restore(r); err != nil {
		h.t.Fatal(err)
	}
	h.given = []coordinator.TxnResult{{ProducerID: v.ProducerID, Epoch: v.ProducerEpoch}}
}

func (h *txnHistory) checkLog() {
	var before *kmsg.TxnMetadataValue
	used := map[int64]bool{}
	for i, r := range h.log {
		v := kmsg.NewTxnMetadataValue()
		if err := v.ReadFrom(r.Value); err != nil {
			h.t.Fatal(err)
		}
		if before != nil {
			want := kmsg.TransactionState(-1)
			switch before.State {
			case kmsg.TransactionStatePrepareCommit:
				want = kmsg.TransactionStateCompleteCommit
			case kmsg.TransactionStatePrepareAbort:
				want = kmsg.TransactionStateCompleteAbort
			default: // anything may follow
			}
			switch {
			case want >= 0 && v.State != want:
				h.t.Fatalf("record %d: %s follows %s", i, transactionText(r), transactionText(h.log[i-1]))
			case v.ProducerID == before.ProducerID && v.ProducerEpoch < before.ProducerEpoch:
				h.t.Fatalf("record %d: the epoch falls: %s after %s", i, transactionText(r), transactionText(h.log[i-1]))
			case v.ProducerID != before.ProducerID && used[v.ProducerID]:
				h.t.Fatalf("record %d: a producer id comes again: %s after %s", i, transactionText(r), transactionText(h.log[i-1]))
			}
		}
		used[v.ProducerID] = true
		before = &v
	}
}
