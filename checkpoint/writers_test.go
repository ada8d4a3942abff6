package checkpoint_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/twmb/franz-go/pkg/kerr"

	"kmirror/checkpoint"
	"kmirror/internal/wire"
)

func partitionKey(partition int32) checkpoint.Key {
	k := key()
	k.Partition = partition
	return k
}

func anchorAt(k checkpoint.Key, sequence int32) checkpoint.Anchor {
	return checkpoint.Anchor{Key: k, ProducerID: 1, Steps: []checkpoint.Step{{Sequence: sequence, Source: int64(sequence) * 2}}}
}

// start runs something until the test ends, and checks that it then returns.
func start(t *testing.T, run func(context.Context) error) (stop func()) {
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- run(ctx) }()
	stopped := false
	stop = func() {
		if stopped {
			return
		}
		stopped = true
		cancel()
		if err := <-done; err != nil {
			t.Errorf("stopped with %v", err)
		}
	}
	t.Cleanup(stop)
	return stop
}

func TestLedgerWriterCommitsInGroups(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		logs := newMemoryLogs()
		writer := checkpoint.NewLedgerWriter(logs, quiet())
		stop := start(t, writer.Run)

		hang := make(chan struct{})
		logs.set(func() { logs.hang = hang })
		var done atomic.Int64
		for i := range int32(1000) {
			writer.Write([]checkpoint.Anchor{anchorAt(key(), i)}, func(err error) {
				if err != nil {
					t.Errorf("write %d: %v", i, err)
				}
				done.Add(1)
			})
		}
		synctest.Wait()
		if n := done.Load(); n != 0 {
			t.Errorf("%d writes are done before any is acknowledged", n)
		}
		logs.set(func() { logs.hang = nil })
		close(hang)
		synctest.Wait()
		if n := done.Load(); n != 1000 {
			t.Errorf("%d writes are done, want 1000", n)
		}
		if n := logs.appended(); n > 3 {
			t.Errorf("1000 anchors took %d batches", n)
		}
		loaded, err := checkpoint.LoadPartition(t.Context(), logs, key())
		if err != nil || loaded.Ledger.Len() != 1000 {
			t.Errorf("loaded %d anchors, %v", loaded.Ledger.Len(), err)
		}
		stop()
	})
}

func TestLedgerWriterAnswersEveryWriteOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		logs := newMemoryLogs()
		writer := checkpoint.NewLedgerWriter(logs, quiet())
		answers := map[string]error{}
		write := func(name string, anchors ...checkpoint.Anchor) {
			writer.Write(anchors, func(err error) {
				if _, twice := answers[name]; twice {
					t.Errorf("%s is answered twice", name)
				}
				answers[name] = err
			})
		}
		expect := func(name string, want error) {
			t.Helper()
			synctest.Wait()
			if err, ok := answers[name]; !ok || !errors.Is(err, want) {
				t.Errorf("%s: got %v (answered: %v), want %v", name, err, ok, want)
			}
		}
		write("nothing")
		expect("nothing", nil)
		write("before Run", anchorAt(key(), 1))
		stop := start(t, writer.Run)
		expect("before Run", nil)

		write("several partitions", anchorAt(partitionKey(0), 1), anchorAt(partitionKey(1), 1), anchorAt(partitionKey(2), 1))
		expect("several partitions", nil)

		logs.set(func() { logs.refuse = errBroken })
		write("through trouble", anchorAt(key(), 2))
		time.Sleep(3 * time.Second)
		if _, early := answers["through trouble"]; early {
			t.Error("answered while the broker refuses")
		}
		logs.set(func() { logs.refuse = nil })
		time.Sleep(5 * time.Second)
		expect("through trouble", nil)

		logs.set(func() { logs.refuse = errBroken })
		write("at the end", anchorAt(key(), 3), anchorAt(partitionKey(0), 3))
		synctest.Wait()
		stop()
		expect("at the end", context.Canceled)
		write("after the end", anchorAt(key(), 4), anchorAt(partitionKey(0), 4))
		expect("after the end", checkpoint.ErrStopped)
	})
}

// A topic with a small max.message.bytes gets smaller batches, and an anchor
// of very many steps is divided.
func TestLedgerWriterDividesWhatIsTooLarge(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		logs := &smallBatches{memoryLogs: newMemoryLogs(), limit: 100_000}
		writer := checkpoint.NewLedgerWriter(logs, quiet())
		stop := start(t, writer.Run)
		big := anchorAt(key(), 0)
		for i := int32(1); i < 100_000; i++ {
			big.Steps = append(big.Steps, checkpoint.Step{Sequence: i, Source: int64(i) * 2})
		}
		done := make(chan error, 1)
		writer.Write([]checkpoint.Anchor{big}, func(err error) { done <- err })
		if err := <-done; err != nil {
			t.Error(err)
		}
		loaded, err := checkpoint.LoadPartition(t.Context(), logs, key())
		if err != nil || loaded.Ledger.Len() != 100_000 {
			t.Errorf("loaded %d steps, %v", loaded.Ledger.Len(), err)
		}
		if got, ok := loaded.Ledger.Source(1, 0, 77_777); !ok || got != 155_554 {
			t.Errorf("sequence 77777 carries %d, %v", got, ok)
		}
		stop()
	})
}

type smallBatches struct {
	*memoryLogs
	limit int
}

func (s *smallBatches) Append(ctx context.Context, topic string, partition int32, records []wire.Record) (int64, error) {
	size := 0
	for _, rec := range records {
		size += len(rec.Key) + len(rec.Value)
	}
	if size > s.limit {
		return 0, kerr.MessageTooLarge
	}
	return s.memoryLogs.Append(ctx, topic, partition, records)
}

// Acks come in, flushes fail, seem to fail, or hang; in the end the topic holds
// the truth.
func TestRecorderLosesNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		random := rand.New(rand.NewPCG(1, 2))
		logs := newMemoryLogs()
		recorder := checkpoint.NewRecorder(logs, quiet())
		stop := start(t, recorder.Run)
		truth := map[checkpoint.Key]*checkpoint.Runs{}
		for i := range int32(5) {
			truth[partitionKey(i)] = &checkpoint.Runs{}
			recorder.Resume(partitionKey(i), &checkpoint.Runs{})
		}
		for round := range 200 {
			for k, runs := range truth {
				for range random.IntN(60) {
					_, target, _ := runs.End()
					run := checkpoint.Run{Source: runs.Through() + int64(random.IntN(2)), Target: target + int64(random.IntN(3)), Count: int64(1 + random.IntN(50))}
					mustAdd(t, runs, run)
					if err := recorder.Acked(k, run); err != nil {
						t.Fatal(err)
					}
				}
				if runs.Len() > 0 && random.IntN(3) == 0 {
					runs.Pass(runs.Through() + 1)
					if err := recorder.Passed(k, runs.Through()); err != nil {
						t.Fatal(err)
					}
				}
			}
			logs.set(func() {
				logs.refuse, logs.lost = nil, false
				if round%7 == 0 {
					logs.refuse, logs.lost = errBroken, round%2 == 0
				}
			})
			time.Sleep(100 * time.Millisecond)
		}
		logs.set(func() { logs.refuse = nil })
		stop()
		if err := recorder.Flush(t.Context()); err != nil {
			t.Fatal(err)
		}
		for k, want := range truth {
			loaded, err := checkpoint.LoadPartition(t.Context(), logs, k)
			if err != nil {
				t.Fatal(err)
			}
			_, wantThrough, wantRuns := want.Dump()
			_, through, runs := loaded.Runs.Dump()
			if diff := cmp.Diff(wantRuns, runs); diff != "" || through != wantThrough {
				t.Errorf("partition %d: through %d, want %d; -want +got:\n%s", k.Partition, through, wantThrough, diff)
			}
			for at := range recorder.Held() {
				if held := recorder.Held()[at]; held > checkpoint.MaxBlockRuns {
					t.Errorf("partition %d: %d runs are kept in memory", at.Partition, held)
				}
			}
		}
	})
}

func TestRecorderIsPromptAndWritesOnlyWhatChanged(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		logs := newMemoryLogs()
		recorder := checkpoint.NewRecorder(logs, quiet())
		stop := start(t, recorder.Run)
		for i := range int32(100) {
			recorder.Resume(partitionKey(i), &checkpoint.Runs{})
			if err := recorder.Acked(partitionKey(i), checkpoint.Run{Count: 1}); err != nil {
				t.Fatal(err)
			}
		}
		time.Sleep(250 * time.Millisecond)
		before := logs.appended()
		if before == 0 || before > checkpoint.MapPartitions {
			t.Errorf("100 partitions took %d batches", before)
		}
		time.Sleep(time.Minute)
		if n := logs.appended(); n != before {
			t.Errorf("%d batches were written though nothing changed", n-before)
		}
		stop()
	})
}

// After one run that could not be taken none is, or the map would have a hole.
func TestRecorderTakesNothingAfterAFault(t *testing.T) {
	recorder := checkpoint.NewRecorder(newMemoryLogs(), quiet())
	if err := recorder.Acked(key(), checkpoint.Run{Count: 1}); err == nil {
		t.Error("a partition that was not resumed was recorded")
	}
	recorder.Resume(key(), &checkpoint.Runs{})
	var order *checkpoint.OrderError
	for i, run := range []checkpoint.Run{{Source: 5, Target: 5, Count: 5}, {Source: 3, Target: 20, Count: 1}, {Source: 10, Target: 10, Count: 5}} {
		if err := recorder.Acked(key(), run); (i > 0) != errors.As(err, &order) {
			t.Errorf("run %d: got %v", i, err)
		}
	}
	recorder.Resume(key(), &checkpoint.Runs{})
	if err := recorder.Acked(key(), checkpoint.Run{Count: 1}); err != nil {
		t.Errorf("resumed: got %v", err)
	}
}

func TestRecorderIsBounded(t *testing.T) {
	recorder := checkpoint.NewRecorder(newMemoryLogs(), quiet())
	recorder.Resume(key(), &checkpoint.Runs{})
	for i := int64(0); ; i++ {
		if err := recorder.Acked(key(), checkpoint.Run{Source: 2 * i, Target: i, Count: 1}); errors.Is(err, checkpoint.ErrBacklog) {
			return
		} else if err != nil {
			t.Fatal(err)
		}
		if i > 1<<20 {
			t.Fatal("a million runs and no end")
		}
	}
}

func TestRecorderForgetsWhatIsWritten(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		logs := newMemoryLogs()
		recorder := checkpoint.NewRecorder(logs, quiet())
		recorder.Resume(key(), &checkpoint.Runs{})
		if err := recorder.Acked(key(), checkpoint.Run{Count: 7}); err != nil {
			t.Fatal(err)
		}
		recorder.Forget(key())
		logs.set(func() { logs.refuse = errBroken })
		if err := recorder.Flush(t.Context()); !errors.Is(err, errBroken) {
			t.Errorf("got %v, want the broker's error", err)
		}
		logs.set(func() { logs.refuse = nil })
		if err := recorder.Flush(t.Context()); err != nil {
			t.Error(err)
		}
		loaded, err := checkpoint.LoadPartition(t.Context(), logs, key())
		if end, _, _ := loaded.Runs.End(); err != nil || end != 7 {
			t.Errorf("the map ends at %d, %v; want 7", end, err)
		}
		if held := recorder.Held(); len(held) > 0 {
			t.Errorf("still held: %v", held)
		}
	})
}

// A partition that stops and looks again all night is no backlog.
func TestRecorderResumedOften(t *testing.T) {
	logs := newMemoryLogs()
	recorder := checkpoint.NewRecorder(logs, quiet())
	recorder.Resume(key(), &checkpoint.Runs{})
	for i := range int64(100) {
		if err := recorder.Acked(key(), checkpoint.Run{Source: 2 * i, Target: i, Count: 1}); err != nil {
			t.Fatal(err)
		}
	}
	if err := recorder.Flush(t.Context()); err != nil {
		t.Fatal(err)
	}
	for range 3000 {
		loaded, err := checkpoint.LoadPartition(t.Context(), logs, key())
		if err != nil {
			t.Fatal(err)
		}
		recorder.Forget(key())
		recorder.Resume(key(), loaded.Runs)
	}
	if err := recorder.Acked(key(), checkpoint.Run{Source: 200, Target: 100, Count: 1}); err != nil {
		t.Error(err)
	}
}

// Owner, restart, new incarnations, junk: what one read of the topic gives.
func TestLoadPartitionsTellsKeysApart(t *testing.T) {
	logs := newMemoryLogs()
	a, b := key(), key()
	for b.MapPartition() != a.MapPartition() || b.TopicID == a.TopicID {
		b.TopicID[5]++
	}
	pair := checkpoint.TopicPair{Flow: a.Flow, SourceTopic: a.Topic, SourceID: a.TopicID, TargetTopic: "east.orders", TimeMillis: 1}
	other := pair
	other.SourceTopic = "payments"
	deleted := checkpoint.EncodeDeleted(anchorAt(a, 9))
	for _, rec := range []wire.Record{
		checkpoint.EncodeAnchor(anchorAt(a, 0)), checkpoint.EncodeAnchor(anchorAt(a, 9)), checkpoint.EncodeAnchor(anchorAt(b, 3)), deleted,
		checkpoint.EncodePair(pair), checkpoint.EncodePair(other),
		{Key: []byte("junk"), Value: []byte("junk")},
		{Value: []byte{1}},
		checkpoint.EncodeBlock(checkpoint.Block{Key: b, Runs: []checkpoint.Run{{Source: 1, Target: 2, Count: 3}}}),
	} {
		if _, err := logs.Append(t.Context(), checkpoint.MapTopic, a.MapPartition(), []wire.Record{rec}); err != nil {
			t.Fatal(err)
		}
	}
	loaded, err := checkpoint.LoadPartitions(t.Context(), logs, a.MapPartition(), []checkpoint.Key{a, b})
	if err != nil {
		t.Fatal(err)
	}
	if got := loaded[a]; got.Ledger.Len() != 1 || got.Runs.Len() != 0 || !cmp.Equal(got.Pairs, []checkpoint.TopicPair{pair}) {
		t.Errorf("a: %d steps, %d runs, %v", got.Ledger.Len(), got.Runs.Len(), got.Pairs)
	}
	if got := loaded[b]; got.Ledger.Len() != 1 || got.Runs.Len() != 1 {
		t.Errorf("b: %d steps, %d runs", got.Ledger.Len(), got.Runs.Len())
	}
}

func TestIndexFollowsTheRecorder(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		logs := newMemoryLogs()
		recorder := checkpoint.NewRecorder(logs, quiet())
		index := checkpoint.NewIndex(logs, quiet())
		stopRecorder, stopIndex := start(t, recorder.Run), start(t, index.Run)
		<-index.Ready()
		if _, ok := index.Translate("east->west", "orders", 7, 0); ok {
			t.Error("nothing is known yet")
		}
		recorder.Resume(key(), &checkpoint.Runs{})
		for i := range int64(300) {
			if err := recorder.Acked(key(), checkpoint.Run{Source: 3 * i, Target: 2 * i, Count: 2}); err != nil {
				t.Fatal(err)
			}
			time.Sleep(7 * time.Millisecond)
		}
		time.Sleep(250 * time.Millisecond)
		for i := range int64(300) {
			if got, ok := index.Translate("east->west", "orders", 7, 3*i+1); !ok || got != (checkpoint.Translation{Offset: 2*i + 1, Exact: true}) {
				t.Fatalf("%d: got %+v, %v", 3*i+1, got, ok)
			}
			if got, ok := index.Invert("east->west", "orders", 7, 2*i+1); !ok || got.Offset != 3*i+1 {
				t.Fatalf("back from %d: got %+v, %v", 2*i+1, got, ok)
			}
		}
		if runs := index.Runs("east->west", "orders", 7); runs.Len() != 300 {
			t.Errorf("%d runs", runs.Len())
		}

		// The source topic is made anew: its offsets are others now.
		again := key()
		again.TopicID = [16]byte{0xdd}
		recorder.Resume(again, &checkpoint.Runs{})
		if err := recorder.Acked(again, checkpoint.Run{Source: 0, Target: 5000, Count: 10}); err != nil {
			t.Fatal(err)
		}
		pair := checkpoint.TopicPair{Flow: again.Flow, SourceTopic: again.Topic, SourceID: again.TopicID, TimeMillis: time.Now().UnixMilli()}
		if _, err := logs.Append(t.Context(), checkpoint.MapTopic, again.MapPartition(), []wire.Record{checkpoint.EncodePair(pair), {Key: []byte{99}}}); err != nil {
			t.Fatal(err)
		}
		time.Sleep(250 * time.Millisecond)
		if got, ok := index.Translate("east->west", "orders", 7, 4); !ok || got.Offset != 5004 {
			t.Errorf("after the topic was made anew: got %+v, %v", got, ok)
		}
		if n := index.Stats().Skipped; n != 1 {
			t.Errorf("%d records were skipped, want 1", n)
		}
		stopRecorder()
		stopIndex()
	})
}

func TestHeartbeats(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		logs := newMemoryLogs()
		stop := start(t, checkpoint.NewHeartbeater(flowEastWest(t), logs, quiet()).Run)
		time.Sleep(9500 * time.Millisecond)
		stop()
		beats := logs.records("heartbeats", 0)
		if len(beats) != 10 {
			t.Errorf("%d heartbeats in 9.5 seconds", len(beats))
		}
		for _, rec := range beats {
			got, err := checkpoint.DecodeHeartbeat(rec)
			if err != nil || got.Source != "east" || got.Target != "west" || got.Millis != rec.Timestamp {
				t.Errorf("got %+v, %v", got, err)
			}
		}
		if got := fmt.Sprint(logs.made["heartbeats"]); got != "map[cleanup.policy:compact]" {
			t.Errorf("made with %s", got)
		}
	})
}
