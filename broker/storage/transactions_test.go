package storage_test

import (
	"encoding/hex"
	"fmt"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/twmb/franz-go/pkg/kerr"

	"kmirror/broker/storage"
	"kmirror/internal/wire"
)

const outOfOrder, invalidEpoch, invalidState, fenced = "OUT_OF_ORDER_SEQUENCE_NUMBER", "INVALID_PRODUCER_EPOCH", "INVALID_TXN_STATE", "TRANSACTION_COORDINATOR_FENCED"

// TestTransactionsOfVersion2: the epoch rises with every marker.
func TestTransactionsOfVersion2(t *testing.T) {
	s := newStory(t)
	s.plain(9, 0, 0, 1, "0")
	s.data(1, 0, 0, 2, "1")
	s.unverified(1, 0, 2, 1, "3") // it is ongoing
	s.data(1, 0, 2, 1, "*3")
	s.plain(9, 0, 1, 1, "4")
	s.stable(1)
	s.plain(1, 0, 3, 1, invalidState)
	s.marker(storage.Marker{ProducerID: 1, Epoch: 0, Commit: true, TransactionVersion: 2}, invalidEpoch)
	s.marker(storage.Marker{ProducerID: 1, Epoch: 1, Commit: true, TransactionVersion: 2}, "5")
	s.stable(6)
	s.committed("p9-e0-0", "t1-e0-0", "t1-e0-1", "t1-e0-2", "p9-e0-1")
	s.marker(storage.Marker{ProducerID: 1, Epoch: 1, Commit: true, TransactionVersion: 2}, "6") // its coordinator never saw the answer
	s.unverified(1, 0, 3, 1, invalidState)
	s.data(1, 0, 3, 1, invalidEpoch)
	s.data(1, 0, 2, 1, invalidEpoch) // no duplicate any more
	s.data(1, 1, 3, 1, outOfOrder)
	s.data(1, 1, 0, 1, "7")
	s.marker(storage.Marker{ProducerID: 1, Epoch: 2, TransactionVersion: 2}, "8")
	s.committed("p9-e0-0", "t1-e0-0", "t1-e0-1", "t1-e0-2", "p9-e0-1")
	s.data(2, 0, 4, 1, outOfOrder) // of version 2, nothing is known: it began elsewhere
	s.marker(storage.Marker{ProducerID: 1, Epoch: 1, TransactionVersion: 2}, invalidEpoch)
}

// TestTransactionsBeforeVersion2: one epoch, sequences go on.
func TestTransactionsBeforeVersion2(t *testing.T) {
	s := newStory(t)
	s.data(1, 5, 0, 2, "0")
	s.marker(storage.Marker{ProducerID: 1, Epoch: 5, CoordinatorEpoch: 3}, "2")
	s.data(1, 5, 2, 1, "3")
	s.unverified(1, 5, 4, 1, outOfOrder)
	s.marker(storage.Marker{ProducerID: 1, Epoch: 5, CoordinatorEpoch: 2, Commit: true}, fenced)
	s.marker(storage.Marker{ProducerID: 1, Epoch: 4, CoordinatorEpoch: 3, Commit: true}, invalidEpoch)
	s.stable(3)
	s.marker(storage.Marker{ProducerID: 1, Epoch: 5, CoordinatorEpoch: 4, Commit: true}, "4")
	s.committed("t1-e5-2")
	s.unverified(1, 5, 2, 1, "*3") // still known
	s.plain(1, 5, 3, 1, "5")
}

// TestFenceOfPlainProducer: an empty aborted transaction ends a producer that
// wrote without transactions.
func TestFenceOfPlainProducer(t *testing.T) {
	s := newStory(t)
	s.plain(1, 0, 0, 1, "0")
	s.plain(1, 0, 1, 1, "1")
	s.plain(1, 0, 2, 1, "2") // its successor has taken epoch 1, which nobody here knows
	s.marker(storage.Marker{ProducerID: 1, Epoch: 1}, "3")
	s.plain(1, 0, 3, 1, invalidEpoch)
	s.plain(1, 0, 2, 1, invalidEpoch)
	s.plain(1, 1, 3, 1, outOfOrder)
	s.plain(1, 1, 0, 1, "4")
	s.marker(storage.Marker{ProducerID: 2, Epoch: 7}, "5") // of one that never wrote here
	s.plain(2, 6, 0, 1, invalidEpoch)
	s.plain(2, 7, 1, 1, outOfOrder)
	s.plain(2, 7, 0, 1, "6")
	s.stable(7)
	s.committed("p1-e0-0", "p1-e0-1", "p1-e0-2", "p1-e1-0", "p2-e7-0")
	if aborted, err := s.l.AbortedTransactions(0, 7); err != nil || len(aborted) > 0 {
		t.Errorf("aborted: %v, %v", aborted, err)
	}
}

// TestLateBatchOfEndedTransaction: the coordinator said yes, then the
// transaction ended before the batch came (KAFKA-14402).
func TestLateBatchOfEndedTransaction(t *testing.T) {
	s := newStory(t)
	guard, needed, err := s.l.BeginVerification(1, 0, 0, false)
	if !needed || err != nil {
		t.Fatalf("needed: %v, %v", needed, err)
	}
	s.marker(storage.Marker{ProducerID: 1, Epoch: 0}, "0")
	late := storage.AppendOptions{FromClient: true, Verified: guard}
	_, err = s.l.Append(transactional(t, 1, 0, 0, 1), 0, late)
	s.is("late batch", told(0, false, err), invalidState)
	if _, _, err := s.l.BeginVerification(1, 0, 0, false); err != nil { // of the next transaction
		t.Fatal(err)
	}
	_, err = s.l.Append(transactional(t, 1, 0, 0, 1), 0, late)
	s.is("late batch in the next transaction", told(0, false, err), invalidState)
	s.stable(1)

	s.data(1, 0, 0, 1, "1")
	if _, needed, err := s.l.BeginVerification(1, 0, 1, false); needed || err != nil {
		t.Errorf("verification of an ongoing transaction needed: %v, %v", needed, err)
	}
	if _, _, err := s.l.BeginVerification(1, -1, 1, false); codeOf(err) != kerr.InvalidProducerEpoch.Code {
		t.Errorf("verification of an old epoch: %v", err)
	}
}

// TestSecondBatchBeforeFirst: while the first batch waits for its verification,
// the second may not take its place.
func TestSecondBatchBeforeFirst(t *testing.T) {
	s := newStory(t)
	first, _, _ := s.l.BeginVerification(1, 0, 0, false)
	second, _, _ := s.l.BeginVerification(1, 0, 5, false)
	if first != second {
		t.Fatalf("two guards of one transaction: %v, %v", first, second)
	}
	_, err := s.l.Append(transactional(t, 1, 0, 5, 1), 0, storage.AppendOptions{FromClient: true, Verified: second})
	s.is("second batch", told(0, false, err), outOfOrder)
	_, err = s.l.Append(transactional(t, 1, 0, 0, 5), 0, storage.AppendOptions{FromClient: true, Verified: first})
	s.is("first batch", told(0, false, err), "0")
	s.unverified(1, 0, 5, 1, "5")
}

// TestCoordinatorsOwnBatches have no sequence, but an epoch and a transaction.
func TestCoordinatorsOwnBatches(t *testing.T) {
	s := newStory(t)
	offsets := func(epoch int16, verify bool, want string) {
		t.Helper()
		var guard storage.Guard
		if verify {
			var err error
			if guard, _, err = s.l.BeginVerification(1, epoch, 0, true); err != nil {
				s.is("verification", told(0, false, err), want)
				return
			}
		}
		r, err := s.l.Append(transactional(t, 1, epoch, 0, 1), 0, storage.AppendOptions{Verified: guard})
		s.is("offsets", told(r.BaseOffset, r.Duplicate, err), want)
	}
	offsets(0, false, invalidState)
	offsets(0, true, "0")
	offsets(0, false, "1") // ongoing, and no duplicate
	s.marker(storage.Marker{ProducerID: 1, Epoch: 1, Commit: true}, "2")
	offsets(0, false, invalidState)
	offsets(0, true, invalidEpoch)
	offsets(1, true, "3")
	o := wire.Plain(wire.CodecNone)
	o.ProducerID, o.Control, o.Transactional = 1, true, true
	_, err := s.l.Append(batchOf(t, o, values(now, "no marker")...), 0, storage.AppendOptions{})
	wantCode(t, err, kerr.InvalidRecord)
	o = wire.Plain(wire.CodecNone)
	o.Transactional = true
	_, err = s.l.Append(batchOf(t, o, values(now, "nobody's")...), 0, storage.AppendOptions{FromClient: true})
	wantCode(t, err, kerr.InvalidRecord)
	_, err = s.l.AppendMarker(storage.Marker{ProducerID: 1, Epoch: 2}, -1)
	wantCode(t, err, kerr.FencedLeaderEpoch)
	for _, nobody := range []storage.Marker{{ProducerID: -1}, {ProducerID: 2, Epoch: -1}} {
		_, err = s.l.AppendMarker(nobody, 0)
		wantCode(t, err, kerr.InvalidRecord)
	}
}

// TestMarkerBytes holds a marker against the bytes that Kafka 4.1.1 writes.
func TestMarkerBytes(t *testing.T) {
	for _, tc := range []struct {
		m    storage.Marker
		want string
	}{
		{storage.Marker{ProducerID: 258, Epoch: 3, CoordinatorEpoch: 5, Commit: true}, "00000001" + "000000000005"},
		{storage.Marker{ProducerID: 258, Epoch: 3, CoordinatorEpoch: 0x01020304}, "00000000" + "000001020304"},
	} {
		_, l := newLog(t, nil)
		mustMark(t, l, tc.m)
		slice, err := l.Read(0, 1<<10, true, storage.ToEnd)
		if err != nil {
			t.Fatal(err)
		}
		defer slice.Release()
		content, err := slice.Bytes(nil)
		if err != nil {
			t.Fatal(err)
		}
		b := wire.Batch(content)
		records, err := b.Records(1 << 10)
		if err != nil || len(records) != 1 || b.CheckCRC() != nil {
			t.Fatalf("%d records, %v, %v", len(records), err, b.CheckCRC())
		}
		if got := hex.EncodeToString(records[0].Key) + hex.EncodeToString(records[0].Value); got != tc.want {
			t.Errorf("%+v: key and value %s, want %s", tc.m, got, tc.want)
		}
		if b.Size() != 78 || b.Attributes() != 0x30 || b.BaseSequence() != -1 || b.ProducerID() != 258 || b.ProducerEpoch() != 3 || records[0].Timestamp != now {
			t.Errorf("%+v: %x", tc.m, content)
		}
	}
}

// TestStableOffsetWaitsForDisk: a marker counts when it is safe, and whoever
// watches is woken.
func TestStableOffsetWaitsForDisk(t *testing.T) {
	_, l := newLog(t, nil)
	mustAppend(t, l, plain(t, now, "a"))
	mustSync(t, l)
	mustAppendVerified(t, l, transactional(t, 1, 0, 0, 1))
	mustAppendVerified(t, l, transactional(t, 2, 0, 0, 1))
	if got := l.LastStableOffset(); got != 1 {
		t.Errorf("before the sync: %d", got)
	}
	mustSync(t, l)
	mustMark(t, l, storage.Marker{ProducerID: 2, Epoch: 1})
	mustMark(t, l, storage.Marker{ProducerID: 1, Epoch: 1})
	if got := l.LastStableOffset(); got != 1 {
		t.Errorf("markers are not safe: %d", got)
	}
	w := storage.NewWaiter()
	l.Watch(w)
	defer l.Unwatch(w)
	mustSync(t, l)
	<-w.C
	if got := l.LastStableOffset(); got != 5 {
		t.Errorf("after the sync: %d", got)
	}
	list, err := l.AbortedTransactions(0, 5)
	if want := []storage.AbortedTransaction{{ProducerID: 2, FirstOffset: 2}, {ProducerID: 1, FirstOffset: 1}}; err != nil || !cmp.Equal(list, want) {
		t.Errorf("aborted: %v, %v", list, err)
	}
}

// TestDecidedOnceDurable: who waited for a marker finds its transaction decided.
func TestDecidedOnceDurable(t *testing.T) {
	f := newFaultFS()
	f.lazy = true
	s, l := newLog(t, func(o *storage.Options, _ *storage.LogConfig) { o.FS = f })
	run(t, s)
	for n := range int16(500) {
		mustAppendVerified(t, l, transactional(t, 1, n, 0, 1))
		at := mustMark(t, l, storage.Marker{ProducerID: 1, Epoch: n + 1, Commit: n%2 == 0, TransactionVersion: 2})
		if err := l.WaitDurable(t.Context(), at); err != nil {
			t.Fatal(err)
		}
		if stable := l.LastStableOffset(); stable != at+1 {
			t.Fatalf("marker at %d is safe, last stable offset %d", at, stable)
		}
	}
}

// TestTruncatedMarker: a transaction whose marker is cut off is open again, and
// one whose marker is left, but not safe, stays undecided.
func TestTruncatedMarker(t *testing.T) {
	_, l := newLog(t, nil)
	mustAppend(t, l, plain(t, now, "a"))
	mustAppendVerified(t, l, transactional(t, 1, 0, 0, 1))
	mustSync(t, l)
	if at := mustMark(t, l, storage.Marker{ProducerID: 1, Epoch: 1}); at != l.HighWatermark() {
		t.Fatalf("marker at %d, high watermark %d", at, l.HighWatermark())
	}
	mustAppend(t, l, plain(t, now, "b"))
	if err := l.Truncate(3); err != nil {
		t.Fatal(err)
	}
	if stable, high := l.LastStableOffset(), l.HighWatermark(); stable != 1 || high != 2 {
		t.Errorf("with the marker at the high watermark %d: last stable offset %d", high, stable)
	}
	if err := l.Truncate(2); err != nil {
		t.Fatal(err)
	}
	if _, first, ok := l.Ongoing(1); !ok || first != 1 {
		t.Errorf("ongoing from %d: %v", first, ok)
	}
	mustMark(t, l, storage.Marker{ProducerID: 1, Epoch: 1, Commit: true})
	mustSync(t, l)
	story{t, l}.committed("a", "t1-e0-0")
}

// TestStableOffsetAfterDeleteRecords is not below the log start.
func TestStableOffsetAfterDeleteRecords(t *testing.T) {
	s := newStory(t)
	s.data(1, 0, 0, 4, "0")
	s.plain(2, 0, 0, 2, "4")
	s.stable(0)
	if err := s.l.DeleteBefore(2); err != nil {
		t.Fatal(err)
	}
	s.stable(2)
	if slice, list, err := s.l.ReadCommitted(2, 1<<10, true); err != nil || slice.Len > 0 || len(list) > 0 {
		t.Errorf("read at the last stable offset: %+v, %v, %v", slice, list, err)
	}
	s.marker(storage.Marker{ProducerID: 1, Epoch: 1}, "6")
	s.stable(7)
	s.committed("p2-e0-0", "p2-e0-1")
	_, err := s.l.AbortedTransactions(1, 7)
	wantCode(t, err, kerr.OffsetOutOfRange)
	_, _, err = s.l.ReadCommitted(1, 1<<10, true)
	wantCode(t, err, kerr.OffsetOutOfRange)
}

// TestOpenTransactionsDoNotHoldRetention, nor are they forgotten by it.
func TestOpenTransactionsDoNotHoldRetention(t *testing.T) {
	_, l := newLog(t, func(o *storage.Options, c *storage.LogConfig) {
		o.Fsync = storage.FsyncNever
		c.SegmentBytes, c.RetentionBytes = 200, 400
	})
	mustAppendVerified(t, l, transactional(t, 1, 0, 0, 1))
	for i := range 20 {
		mustAppend(t, l, plain(t, now, fmt.Sprint(i)))
	}
	if err := l.DeleteBefore(0); err != nil { // applies retention, too
		t.Fatal(err)
	}
	start := l.Start()
	if start == 0 {
		t.Fatal("nothing was deleted")
	}
	if got := l.LastStableOffset(); got != start {
		t.Errorf("last stable offset %d, log start %d", got, start)
	}
	if _, first, ok := l.Ongoing(1); !ok || first != 0 {
		t.Errorf("ongoing from %d: %v", first, ok)
	}
	mustMark(t, l, storage.Marker{ProducerID: 1, Epoch: 1})
	if got := l.LastStableOffset(); got != l.End() {
		t.Errorf("last stable offset %d, end %d", got, l.End())
	}
}

// TestTransactionsExpire: producers are forgotten after a day, those with an
// open transaction are not, and verifications that led nowhere are.
func TestTransactionsExpire(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, err := storage.Open(storage.Options{Dir: filepath.Join(t.TempDir(), "data"), NodeID: 1, Fsync: storage.FsyncNever})
		if err != nil {
			t.Fatal(err)
		}
		cfg := storage.DefaultLogConfig()
		cfg.TimestampAfterMax = 1 << 62 // the fake clock begins in 2000, the batches are of 2023
		cfg.RetentionMillis = -1
		l, err := s.Create("orders", topicID, 0, cfg)
		if err != nil {
			t.Fatal(err)
		}
		stop := run(t, s)
		mustAppendVerified(t, l, transactional(t, 1, 0, 0, 1))
		mustMark(t, l, storage.Marker{ProducerID: 2, Epoch: 4})
		idle, _, err := l.BeginVerification(3, 0, 0, false)
		if err != nil {
			t.Fatal(err)
		}
		time.Sleep(25 * time.Hour)
		synctest.Wait()
		if ps := l.Producers(); len(ps) != 1 || ps[0].ID != 1 || ps[0].TransactionFirst != 0 {
			t.Errorf("producers after 25 hours: %+v", ps)
		}
		_, err = l.Append(transactional(t, 3, 0, 0, 1), 0, storage.AppendOptions{FromClient: true, Verified: idle})
		wantCode(t, err, kerr.InvalidTxnState)
		mustMark(t, l, storage.Marker{ProducerID: 1, Epoch: 1})
		time.Sleep(25 * time.Hour)
		synctest.Wait()
		if ps := l.Producers(); len(ps) != 0 {
			t.Errorf("producers after 50 hours: %+v", ps)
		}
		stop()
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
	})
}

// TestFullDiskForTransactionIndex: without it no new segment begins; with room it
// goes on, and nothing is lost.
func TestFullDiskForTransactionIndex(t *testing.T) {
	f, s, l := faulty(t, func(_ *storage.Options, c *storage.LogConfig) { c.SegmentBytes = 300 })
	mustAppendVerified(t, l, transactional(t, 1, 0, 0, 1))
	mustMark(t, l, storage.Marker{ProducerID: 1, Epoch: 1})
	mustAppend(t, l, plain(t, now, "a"))
	set(&f.createErr, syscall.ENOSPC)
	_, err := l.Append(plain(t, now, "lost"), 0, storage.AppendOptions{FromClient: true})
	wantCode(t, err, kerr.KafkaStorageError)
	if !strings.Contains(err.Error(), "transaction index") {
		t.Errorf("error %v", err)
	}
	set(&f.createErr, nil)
	mustAppend(t, l, plain(t, now, "b"))
	mustSync(t, l)
	if l.Segments() != 2 {
		t.Fatalf("%d segments", l.Segments())
	}
	story{t, l}.committed("a", "b")

	copied := mustOpen(t, storage.Options{Dir: copyDir(t, s.Dir()), NodeID: 1, Now: clockAt(now)})
	story{t, copied.Log("orders", 0)}.committed("a", "b")
}
