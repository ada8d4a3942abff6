package storage_test

import (
	"fmt"
	"maps"
	"math"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/twmb/franz-go/pkg/kerr"
	"pgregory.net/rapid"

	"kmirror/broker/storage"
	"kmirror/internal/wire"
)

// refGuard is Kafka's VerificationStateEntry.
type refGuard struct {
	guard  storage.Guard
	epoch  int16
	lowest int32
	bumps  bool
}

// txnMachine plays transactions against a log and the reference.
type txnMachine struct {
	root    string
	n       int
	fs      storage.FS
	faults  *faultFS // is fs, where disks are filled
	store   *storage.Store
	log     *storage.Log
	clock   int64
	fsync   storage.Fsync
	config  storage.LogConfig
	entries []txnEntry // in order; retention takes from the log, not from here
	guards  map[int64]refGuard
	old     []storage.Guard // all that were ever given out
	start   int64
	acked   int64
	serial  int
	spoilt  bool // a transaction index is, until somebody reads it
	whole   bool // the log knows where every transaction began
}

func (m *txnMachine) options(dir string) storage.Options {
	return storage.Options{
		Dir: dir, NodeID: 1, Fsync: m.fsync, FS: m.fs, OpenFiles: 2, IndexBytes: 600,
		Now: func() time.Time { return time.UnixMilli(m.clock) },
	}
}

func (m *txnMachine) open(t fatal, dir string) {
	var err error
	if m.store, err = storage.Open(m.options(dir)); err != nil {
		t.Fatalf("open: %v", err)
	}
	if m.log, err = m.store.Create("orders", topicID, 0, m.config); err != nil {
		t.Fatalf("create: %v", err)
	}
	m.guards = map[int64]refGuard{}
}

func (m *txnMachine) end() int64 {
	if n := len(m.entries); n > 0 {
		return max(m.entries[n-1].last()+1, m.start)
	}
	return m.start
}

// want is what Kafka says to a data batch (UnifiedLog.analyzeAndValidateProducerState
// and ProducerAppendInfo): an error, or the entry that it repeats, or neither.
func (m *txnMachine) want(e txnEntry, client bool, guard storage.Guard) (*kerr.Error, *txnEntry) {
	p := refer(m.entries).producers[e.producer]
	if client && p != nil && p.epoch == e.epoch {
		for i := range p.batches {
			if p.batches[i].sequence == e.sequence && len(p.batches[i].values) == len(e.values) {
				return nil, &p.batches[i]
			}
		}
	}
	g, verifying := m.guards[e.producer]
	if e.transactional && (p == nil || p.first < 0 || p.epoch != e.epoch) && (!verifying || g.guard != guard) {
		return kerr.InvalidTxnState, nil
	}
	if p != nil && e.epoch < p.epoch {
		return kerr.InvalidProducerEpoch, nil
	}
	if client {
		switch {
		case verifying && g.bumps && e.sequence != 0 && (p == nil || len(p.batches) == 0):
			return kerr.OutOfOrderSequenceNumber, nil
		case verifying && e.sequence > g.lowest:
			return kerr.OutOfOrderSequenceNumber, nil
		case p != nil && e.epoch != p.epoch && e.sequence != 0:
			return kerr.OutOfOrderSequenceNumber, nil
		case p != nil && e.epoch == p.epoch && e.sequence != p.lastSequence()+1:
			return kerr.OutOfOrderSequenceNumber, nil
		}
	}
	if p != nil && p.first >= 0 && !e.transactional {
		return kerr.InvalidTxnState, nil
	}
	return nil, nil
}

// append sends a batch that a producer might send, right or wrong.
func (m *txnMachine) append(t *rapid.T) {
	m.clock += rapid.Int64Range(0, 1000).Draw(t, "tick")
	e := txnEntry{producer: rapid.Int64Range(-1, 2).Draw(t, "producer"), time: m.clock, epoch: -1, sequence: -1}
	for range rapid.IntRange(1, 3).Draw(t, "records") {
		m.serial++
		e.values = append(e.values, fmt.Sprintf("v%d", m.serial))
	}
	client := true
	var guard storage.Guard
	if e.producer >= 0 {
		p := refer(m.entries).producers[e.producer]
		e.epoch, e.sequence = 0, 0
		if p != nil {
			e.epoch, e.sequence = p.epoch, p.lastSequence()+1
		}
		switch rapid.IntRange(0, 11).Draw(t, "fault") {
		case 0:
			e.epoch = max(e.epoch-1, 0)
		case 1:
			e.epoch++
		case 2:
			e.epoch, e.sequence = e.epoch+1, 0
		case 3:
			e.sequence++
		case 4:
			if p != nil && len(p.batches) > 0 {
				again := p.batches[rapid.IntRange(0, len(p.batches)-1).Draw(t, "again")]
				e.sequence, e.values = again.sequence, slices.Clone(again.values)
			}
		}
		e.transactional = rapid.IntRange(0, 3).Draw(t, "transactional") > 0
		client = rapid.IntRange(0, 5).Draw(t, "origin") > 0
		if e.transactional {
			guard = m.verification(t, e)
		}
	}
	m.send(t, e, client, guard)
}

// verification asks for a guard as a broker does before it asks the coordinator.
func (m *txnMachine) verification(t *rapid.T, e txnEntry) storage.Guard {
	switch rapid.IntRange(0, 7).Draw(t, "guard") {
	case 0:
		return storage.Guard{}
	case 1:
		if len(m.old) > 0 {
			return m.old[rapid.IntRange(0, len(m.old)-1).Draw(t, "old")]
		}
	}
	bumps := rapid.Bool().Draw(t, "bumps")
	guard, needed, err := m.log.BeginVerification(e.producer, e.epoch, e.sequence, bumps)
	p := refer(m.entries).producers[e.producer]
	switch {
	case p != nil && e.epoch < p.epoch:
		if codeOf(err) != kerr.InvalidProducerEpoch.Code {
			t.Fatalf("verification of epoch %d, which is below %d: %v", e.epoch, p.epoch, err)
		}
		return storage.Guard{}
	case err != nil:
		t.Fatalf("verification: %v", err)
	}
	if want := p == nil || p.first < 0 || p.epoch != e.epoch; needed != want {
		t.Fatalf("verification needed: %v, want %v", needed, want)
	}
	if !needed {
		return storage.Guard{}
	}
	g, under := m.guards[e.producer]
	switch {
	case under && g.guard != guard:
		t.Fatalf("a second guard while one is under way")
	case !under && slices.Contains(m.old, guard):
		t.Fatalf("an old guard again")
	case !under:
		g = refGuard{guard, e.epoch, e.sequence, bumps}
		m.old = append(m.old, guard)
	case e.epoch > g.epoch:
		g.epoch, g.lowest = e.epoch, e.sequence
	case e.epoch == g.epoch:
		g.lowest = min(g.lowest, e.sequence)
	}
	m.guards[e.producer] = g
	if rapid.IntRange(0, 9).Draw(t, "coordinator fails") == 0 {
		return storage.Guard{}
	}
	return guard
}

func (m *txnMachine) send(t *rapid.T, e txnEntry, client bool, guard storage.Guard) {
	o := wire.Plain(wire.CodecNone)
	o.ProducerID, o.ProducerEpoch, o.BaseSequence, o.Transactional = e.producer, e.epoch, e.sequence, e.transactional
	refusal, again := (*kerr.Error)(nil), (*txnEntry)(nil)
	if e.producer >= 0 {
		refusal, again = m.want(e, client, guard)
	}
	if again != nil && again.base < m.firstBase(t) {
		t.Skip() // whether that is still known depends on restarts
	}
	r, err := m.log.Append(batchOf(t, o, values(e.time, e.values...)...), 0, storage.AppendOptions{FromClient: client, Verified: guard})
	switch {
	case refusal != nil:
		if codeOf(err) != refusal.Code {
			t.Fatalf("batch %+v: %v, want %s", e, err, refusal.Message)
		}
		return
	case err != nil:
		t.Fatalf("batch %+v: %v", e, err)
	case again != nil:
		if !r.Duplicate || r.BaseOffset != again.base {
			t.Fatalf("batch %+v again: %+v, want offset %d", e, r, again.base)
		}
		return
	}
	e.base = m.end()
	if r.Duplicate || r.BaseOffset != e.base || r.LastOffset != e.last() {
		t.Fatalf("batch appended at %+v, want %d", r, e.base)
	}
	if e.transactional {
		delete(m.guards, e.producer)
	}
	m.entries = append(m.entries, e)
}

// begin opens a transaction, or goes on with it, as a producer should.
func (m *txnMachine) begin(t *rapid.T) {
	m.clock += rapid.Int64Range(0, 1000).Draw(t, "tick")
	id := rapid.Int64Range(0, 3).Draw(t, "producer")
	e := txnEntry{producer: id, transactional: true, time: m.clock}
	if p := refer(m.entries).producers[id]; p != nil {
		e.epoch, e.sequence = p.epoch, p.lastSequence()+1
	}
	for range rapid.IntRange(1, 3).Draw(t, "records") {
		m.serial++
		e.values = append(e.values, fmt.Sprintf("v%d", m.serial))
	}
	delete(m.guards, id)
	guard, needed, err := m.log.BeginVerification(id, e.epoch, e.sequence, false)
	if err != nil {
		t.Fatalf("verification: %v", err)
	}
	if needed { // one under way stays as it is
		m.guards[id] = refGuard{guard: guard, epoch: e.epoch, lowest: math.MaxInt32}
		m.old = append(m.old, guard)
	}
	o := wire.Plain(wire.CodecNone)
	o.ProducerID, o.ProducerEpoch, o.BaseSequence, o.Transactional = id, e.epoch, e.sequence, true
	r, err := m.log.Append(batchOf(t, o, values(e.time, e.values...)...), 0, storage.AppendOptions{Verified: guard})
	if err != nil {
		t.Fatalf("batch %+v: %v", e, err)
	}
	if e.base = m.end(); r.BaseOffset != e.base {
		t.Fatalf("batch appended at %+v, want %d", r, e.base)
	}
	delete(m.guards, id)
	m.entries = append(m.entries, e)
}

// finish ends a transaction, or fences, right or wrong.
func (m *txnMachine) finish(t *rapid.T) {
	id := rapid.Int64Range(0, 3).Draw(t, "producer")
	p := refer(m.entries).producers[id]
	k := storage.Marker{ProducerID: id, Commit: rapid.Bool().Draw(t, "commit"), TransactionVersion: int16(rapid.IntRange(0, 2).Draw(t, "version"))}
	if p != nil {
		k.Epoch = p.epoch
		k.CoordinatorEpoch = max(p.coordinatorEpoch, 0)
	}
	switch rapid.IntRange(0, 7).Draw(t, "kind") {
	case 0:
		k.Epoch = max(k.Epoch-1, 0)
	case 1:
		k.CoordinatorEpoch = max(k.CoordinatorEpoch-1, 0)
	case 2:
		k.CoordinatorEpoch++
	case 3, 4, 5:
		k.Epoch++
	}
	var want *kerr.Error
	if p != nil {
		again := k.TransactionVersion >= 2 && k.Epoch == p.epoch && p.first < 0
		switch {
		case k.TransactionVersion >= 2 && k.Epoch <= p.epoch && !again, k.Epoch < p.epoch:
			want = kerr.InvalidProducerEpoch
		case k.CoordinatorEpoch < p.coordinatorEpoch:
			want = kerr.TransactionCoordinatorFenced
		}
	}
	offset, err := m.log.AppendMarker(k, 0)
	if want != nil {
		if codeOf(err) != want.Code {
			t.Fatalf("marker %+v: %v, want %s", k, err, want.Message)
		}
		return
	}
	if err != nil || offset != m.end() {
		t.Fatalf("marker %+v: %d, %v; want %d", k, offset, err, m.end())
	}
	delete(m.guards, id)
	m.entries = append(m.entries, txnEntry{
		base: offset, time: m.clock, producer: id, epoch: k.Epoch, transactional: true,
		marker: true, commit: k.Commit, coordinatorEpoch: k.CoordinatorEpoch,
	})
}

func (m *txnMachine) sync(t *rapid.T) {
	if m.end() == m.start {
		t.Skip()
	}
	if err := m.log.WaitDurable(t.Context(), m.end()-1); err != nil {
		t.Fatalf("wait: %v", err)
	}
	if m.fsync == storage.FsyncBatch {
		m.acked = m.end()
	}
}

func (m *txnMachine) fullDisk(t *rapid.T) {
	m.faults.room.Store(rapid.Int64Range(0, 70).Draw(t, "room"))
	_, err := m.log.AppendMarker(storage.Marker{ProducerID: 99}, 0)
	m.faults.room.Store(-1)
	if codeOf(err) != kerr.KafkaStorageError.Code {
		t.Fatalf("marker on a full disk: %v", err)
	}
}

func (m *txnMachine) deleteBefore(t *rapid.T) {
	high := m.log.HighWatermark()
	if high <= m.start {
		t.Skip()
	}
	offset := rapid.Int64Range(m.start, high).Draw(t, "offset")
	if err := m.log.DeleteBefore(offset); err != nil {
		t.Fatalf("delete before %d: %v", offset, err)
	}
	m.start = m.log.Start()
	m.acked = max(m.acked, m.start)
}

func (m *txnMachine) retention(t *rapid.T) {
	m.clock += rapid.Int64Range(0, 20_000).Draw(t, "tick")
	m.store.Expire()
	m.start = m.log.Start()
	m.acked = max(m.acked, m.start)
}

// truncate cuts what was never below the high watermark.
func (m *txnMachine) truncate(t *rapid.T) {
	high, end := m.log.HighWatermark(), m.log.End()
	if high >= end {
		t.Skip()
	}
	if err := m.log.Truncate(rapid.Int64Range(high, end-1).Draw(t, "offset")); err != nil {
		t.Fatalf("truncate: %v", err)
	}
	m.guards = map[int64]refGuard{}
	m.lose(t)
}

func (m *txnMachine) infos() map[int64]storage.ProducerInfo {
	infos := map[int64]storage.ProducerInfo{}
	for _, p := range m.log.Producers() {
		infos[p.ID] = p
	}
	return infos
}

// check compares what the log knows and shows with the reference.
func (m *txnMachine) check(t *rapid.T) {
	stable := m.compare(t, rapid.SampledFrom([]int{1, 300, 1000, 1 << 20}).Draw(t, "fetch size"))
	if !m.whole || m.start >= stable {
		return
	}
	from := rapid.Int64Range(m.start, stable-1).Draw(t, "from")
	to := rapid.Int64Range(from+1, stable).Draw(t, "to")
	var list []storage.AbortedTransaction
	for _, a := range refer(m.entries).aborted {
		if a.first < to && a.marker >= from {
			list = append(list, storage.AbortedTransaction{ProducerID: a.producer, FirstOffset: a.first})
		}
	}
	if got, err := m.log.AbortedTransactions(from, to); err != nil || !slices.Equal(got, list) {
		t.Fatalf("aborted from %d to %d: %v, %v; want %v", from, to, got, err, list)
	}
}

// compare is check without what is drawn.
func (m *txnMachine) compare(t fatal, size int) (stable int64) {
	t.Helper()
	r := refer(m.entries)
	if m.log.End() != m.end() || m.log.Start() != m.start {
		t.Fatalf("the log has %d to %d, the reference %d to %d", m.log.Start(), m.log.End(), m.start, m.end())
	}
	if diff := cmp.Diff(r.infos(), m.infos()); diff != "" {
		t.Fatalf("producers (-want +got):\n%s", diff)
	}
	for id, p := range r.producers {
		if epoch, first, ok := m.log.Ongoing(id); ok != (p.first >= 0) || ok && (epoch != p.epoch || first != p.first) {
			t.Fatalf("producer %d: ongoing in epoch %d from %d, %v; want %+v", id, epoch, first, ok, p)
		}
	}
	high := m.log.HighWatermark()
	stable = max(min(high, r.unstable(high)), m.start)
	if got := m.log.LastStableOffset(); got != stable {
		t.Fatalf("last stable offset %d, want %d (high watermark %d, end %d)", got, stable, high, m.log.End())
	}

	// What a consumer with read_committed sees.
	aborted := func(e txnEntry) bool {
		return e.transactional && slices.ContainsFunc(r.aborted, func(a refAborted) bool {
			return a.producer == e.producer && a.first <= e.base && e.base < a.marker
		})
	}
	want := map[int64]string{}
	for _, e := range m.entries {
		for i, v := range e.values {
			if offset := e.base + int64(i); offset >= m.start && offset < stable && !aborted(e) {
				want[offset] = v
			}
		}
	}
	if got := readCommitted(t, m.log, m.start, size); !maps.Equal(got, want) {
		t.Fatalf("committed records (-want +got):\n%s", cmp.Diff(want, got))
	}
	return stable
}

// TestTransactionsAgainstReference plays random histories of producers and
// coordinators, with crashes, truncations and retention.
func TestTransactionsAgainstReference(t *testing.T) {
	for name, fsync := range map[string]storage.Fsync{"batch": storage.FsyncBatch, "never": storage.FsyncNever} {
		t.Run(name, func(t *testing.T) {
			root := quickDir(t)
			runs := 0
			rapid.Check(t, func(rt *rapid.T) {
				runs++
				faults := newFaultFS()
				faults.lazy = true
				m := &txnMachine{root: filepath.Join(root, fmt.Sprint(runs)), fs: faults, faults: faults, clock: now, fsync: fsync, config: storage.DefaultLogConfig(), whole: true}
				m.config.SegmentBytes = rapid.IntRange(200, 1500).Draw(rt, "segment bytes")
				m.config.IndexIntervalBytes = rapid.IntRange(0, 300).Draw(rt, "index interval")
				m.config.RetentionMillis = 20_000
				m.open(rt, filepath.Join(m.root, "0"))
				defer func() {
					_ = m.store.Close()
					_ = os.RemoveAll(m.root)
				}()
				rt.Repeat(map[string]func(*rapid.T){
					"append": m.append, "append2": m.append, "append3": m.append, "begin": m.begin, "begin2": m.begin, "finish": m.finish, "finish2": m.finish,
					"sync": m.sync, "full disk": m.fullDisk, "delete before": m.deleteBefore, "retention": m.retention, "truncate": m.truncate,
					"reopen": m.reopen, "crash": m.crash, "": m.check,
				})
				m.checkIndexes(rt)
			})
		})
	}
}
