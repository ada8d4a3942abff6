package broker_test

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kversion"
)

// TestFranzGoExactlyOnce copies a topic in transactions: two members of a group
// read, write and commit together, some transactions are aborted, a member
// leaves. Each record is in the copy once, in every dialect.
func TestFranzGoExactlyOnce(t *testing.T) {
	for _, dialect := range []struct {
		name string
		opts []kgo.Opt
	}{
		{"transaction version 2", nil},
		{"transaction version 0", []kgo.Opt{kgo.MaxVersions(kversion.V3_5_0())}},
	} {
		t.Run(dialect.name, func(t *testing.T) { copyExactlyOnce(t, dialect.opts) })
	}
}

func copyExactlyOnce(t *testing.T, dialect []kgo.Opt) {
	const total = 600
	ctx, cancel := context.WithTimeout(t.Context(), 60*time.Second)
	defer cancel()
	node := start(t)
	admin := kadm.NewClient(newKgo(t, node))
	for _, topic := range []string{"in", "out"} {
		if _, err := admin.CreateTopic(ctx, 3, 1, nil, topic); err != nil {
			t.Fatal(err)
		}
	}
	feeder := newKgo(t, node)
	for i := range total {
		feeder.Produce(ctx, &kgo.Record{Topic: "in", Key: fmt.Append(nil, i), Value: fmt.Append(nil, i)}, nil)
	}
	if err := feeder.Flush(ctx); err != nil {
		t.Fatal(err)
	}
	copied := make(chan struct{})
	work := func(id string, turns int) {
		session, err := kgo.NewGroupTransactSession(append([]kgo.Opt{
			kgo.SeedBrokers(node.Addr()), kgo.TransactionalID(id), kgo.ConsumerGroup("copier"), kgo.ConsumeTopics("in"),
			kgo.FetchIsolationLevel(kgo.ReadCommitted()), kgo.SessionTimeout(10 * time.Second), kgo.HeartbeatInterval(100 * time.Millisecond), kgo.FetchMaxWait(200 * time.Millisecond),
		}, dialect...)...)
		if err != nil {
			t.Error(err)
			return
		}
		defer session.Close()
		for turn := 0; turn != turns && ctx.Err() == nil; turn++ {
			poll, done := context.WithTimeout(ctx, 200*time.Millisecond)
			fetches := session.PollRecords(poll, 20)
			done()
			select {
			case <-copied:
				return
			default:
			}
			if fetches.NumRecords() == 0 {
				continue
			}
			if err := session.Begin(); err != nil {
				t.Errorf("%s: begin: %v", id, err)
				return
			}
			fetches.EachRecord(func(r *kgo.Record) {
				session.Produce(ctx, &kgo.Record{Topic: "out", Key: r.Key, Value: r.Value}, func(_ *kgo.Record, err error) {
					if err != nil && turn%5 != 4 {
						t.Errorf("%s: produce: %v", id, err)
					}
				})
			})
			try := kgo.TryCommit
			if turn%5 == 4 {
				try = kgo.TryAbort
			}
			if _, err := session.End(ctx, try); err != nil {
				t.Errorf("%s: end: %v", id, err)
				return
			}
		}
	}
	var workers sync.WaitGroup
	workers.Go(func() { work("one", 15) })
	workers.Go(func() { work("two", -1) })

	reader := newKgo(t, node, kgo.ConsumeTopics("out"), kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()), kgo.FetchIsolationLevel(kgo.ReadCommitted()))
	seen := make(map[string]int)
	for len(seen) < total && ctx.Err() == nil {
		reader.PollFetches(ctx).EachRecord(func(r *kgo.Record) { seen[string(r.Value)]++ })
	}
	close(copied)
	workers.Wait()
	quiet, done := context.WithTimeout(ctx, 300*time.Millisecond)
	defer done()
	reader.PollFetches(quiet).EachRecord(func(r *kgo.Record) { seen[string(r.Value)]++ })
	for value, n := range seen {
		if n != 1 {
			t.Errorf("record %s is in the copy %d times", value, n)
		}
	}
	if len(seen) != total {
		t.Errorf("%d of %d records are in the copy", len(seen), total)
	}
}

// TestFranzGoFencing: a second producer of the same id ends the first one's transaction.
func TestFranzGoFencing(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), 60*time.Second)
	defer cancel()
	node := start(t)
	if _, err := kadm.NewClient(newKgo(t, node)).CreateTopic(ctx, 1, 1, nil, "t"); err != nil {
		t.Fatal(err)
	}
	first := newKgo(t, node, kgo.TransactionalID("id"), kgo.DefaultProduceTopic("t"))
	if err := first.BeginTransaction(); err != nil {
		t.Fatal(err)
	}
	if err := first.ProduceSync(ctx, kgo.StringRecord("of the first")).FirstErr(); err != nil {
		t.Fatal(err)
	}
	second := newKgo(t, node, kgo.TransactionalID("id"), kgo.DefaultProduceTopic("t"))
	if err := second.BeginTransaction(); err != nil {
		t.Fatal(err)
	}
	if err := second.ProduceSync(ctx, kgo.StringRecord("of the second")).FirstErr(); err != nil {
		t.Fatal(err)
	}
	if err := second.EndTransaction(ctx, kgo.TryCommit); err != nil {
		t.Fatal(err)
	}
	if err := first.EndTransaction(ctx, kgo.TryCommit); err == nil {
		t.Error("the first producer could commit")
	}
	reader := newKgo(t, node, kgo.ConsumeTopics("t"), kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()), kgo.FetchIsolationLevel(kgo.ReadCommitted()))
	fetches := reader.PollFetches(ctx)
	if err := fetches.Err(); err != nil && !errors.Is(err, context.DeadlineExceeded) {
		t.Fatal(err)
	}
	if got := fetches.Records(); len(got) != 1 || string(got[0].Value) != "of the second" {
		t.Errorf("read %d records", len(got))
	}
}

// TestInterleavedTransactions: transactions of several producers overlap in the
// same partitions. Readers see each committed record once, in its producer's
// order, and none that was aborted, whether they read along or afterwards.
func TestInterleavedTransactions(t *testing.T) {
	const producers, turns = 5, 25
	ctx, cancel := context.WithTimeout(t.Context(), 60*time.Second)
	defer cancel()
	node := start(t)
	if _, err := kadm.NewClient(newKgo(t, node)).CreateTopic(ctx, 2, 1, nil, "t"); err != nil {
		t.Fatal(err)
	}
	var mu sync.Mutex
	committed := map[string]bool{}
	var writers sync.WaitGroup
	for p := range producers {
		writers.Go(func() {
			opts := []kgo.Opt{kgo.TransactionalID(fmt.Sprint("id", p)), kgo.DefaultProduceTopic("t"), kgo.RecordPartitioner(kgo.ManualPartitioner())}
			if p%2 == 1 {
				opts = append(opts, kgo.MaxVersions(kversion.V3_5_0()))
			}
			c := newKgo(t, node, opts...)
			for turn := range turns {
				if err := c.BeginTransaction(); err != nil {
					t.Errorf("begin: %v", err)
					return
				}
				var values []string
				for i := range 4 {
					r := kgo.StringRecord(fmt.Sprintf("%d %03d %d", p, turn, i))
					r.Partition = int32(i % 2)
					values = append(values, string(r.Value))
					if err := c.ProduceSync(ctx, r).FirstErr(); err != nil {
						t.Errorf("produce: %v", err)
						return
					}
				}
				commit := (turn+p)%3 != 0
				if err := c.EndTransaction(ctx, kgo.TransactionEndTry(commit)); err != nil {
					t.Errorf("end: %v", err)
					return
				}
				if commit {
					mu.Lock()
					for _, v := range values {
						committed[v] = true
					}
					mu.Unlock()
				}
			}
		})
	}
	read := func(done func(n int) bool) []string {
		c := newKgo(t, node, kgo.ConsumeTopics("t"), kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()), kgo.FetchIsolationLevel(kgo.ReadCommitted()), kgo.FetchMaxWait(100*time.Millisecond))
		var out []string
		for !done(len(out)) && ctx.Err() == nil {
			poll, stop := context.WithTimeout(ctx, 200*time.Millisecond)
			c.PollFetches(poll).EachRecord(func(r *kgo.Record) { out = append(out, string(r.Value)) })
			stop()
		}
		return out
	}
	finished := make(chan struct{})
	all := func(n int) bool {
		select {
		case <-finished:
			return n >= len(committed)
		default:
			return false
		}
	}
	var along []string
	var reader sync.WaitGroup
	reader.Go(func() { along = read(all) })
	writers.Wait()
	close(finished)
	reader.Wait()
	for name, got := range map[string][]string{"along": along, "afterwards": read(all)} {
		last := map[string]string{}
		for _, v := range got {
			if !committed[v] {
				t.Errorf("%s: %q was read and not committed", name, v)
			}
			of := v[:1] + v[len(v)-1:] // one producer's records of one partition, nearly
			if last[of] >= v {
				t.Errorf("%s: %q came after %q", name, v, last[of])
			}
			last[of] = v
		}
		if len(got) != len(committed) {
			t.Errorf("%s: %d records, want %d", name, len(got), len(committed))
		}
	}
}
