package mirror

import (
	"context"
	"slices"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"kmirror/checkpoint"
	"kmirror/internal/kafka"
	"kmirror/internal/wire"
)

func TestFormerTopics(t *testing.T) {
	now := time.UnixMilli(1_000_000)
	key := checkpoint.Key{Flow: "east->west", Topic: "orders", TopicID: [16]byte{9}}
	p := func(source, target byte, name string, millis int64) checkpoint.TopicPair {
		return checkpoint.TopicPair{Flow: key.Flow, SourceTopic: key.Topic, SourceID: [16]byte{source}, TargetTopic: name, TargetID: [16]byte{target}, TimeMillis: millis}
	}
	const name = "east.orders"
	for what, tt := range map[string]struct {
		target byte
		pairs  []checkpoint.TopicPair
		want   []formerTopic
	}{
		"none":                                   {7, nil, nil},
		"the present one":                        {7, []checkpoint.TopicPair{p(9, 7, name, 1)}, nil},
		"both were made anew":                    {7, []checkpoint.TopicPair{p(1, 2, name, 10), p(9, 7, name, 20)}, []formerTopic{{[16]byte{1}, time.UnixMilli(20)}}},
		"twice":                                  {7, []checkpoint.TopicPair{p(1, 2, name, 10), p(3, 4, name, 15), p(9, 7, name, 20)}, []formerTopic{{[16]byte{1}, time.UnixMilli(15)}, {[16]byte{3}, time.UnixMilli(20)}}},
		"the copy goes on":                       {7, []checkpoint.TopicPair{p(1, 7, name, 10), p(9, 7, name, 20)}, nil},
		"the copy went on for a while":           {7, []checkpoint.TopicPair{p(1, 2, name, 10), p(9, 2, name, 20), p(9, 7, name, 30)}, []formerTopic{{[16]byte{1}, time.UnixMilli(20)}}},
		"a copy of another name":                 {7, []checkpoint.TopicPair{p(1, 2, "sales", 10), p(9, 7, name, 20)}, nil},
		"one of its copies has another name":     {7, []checkpoint.TopicPair{p(1, 2, "sales", 5), p(1, 3, name, 10), p(9, 7, name, 20)}, nil},
		"the source came back":                   {7, []checkpoint.TopicPair{p(9, 2, name, 10), p(1, 3, name, 20), p(9, 7, name, 30)}, []formerTopic{{[16]byte{1}, time.UnixMilli(30)}}},
		"it takes its place only now":            {7, []checkpoint.TopicPair{p(1, 2, name, 10)}, []formerTopic{{[16]byte{1}, now}}},
		"nobody knows when":                      {7, []checkpoint.TopicPair{p(1, 2, name, 10), p(9, 7, name, 0)}, []formerTopic{{[16]byte{1}, now}}},
		"a target without ids":                   {0, []checkpoint.TopicPair{p(1, 2, name, 10), p(9, 0, name, 20)}, nil},
		"a former target of which the id is not": {7, []checkpoint.TopicPair{p(1, 0, name, 10), p(9, 7, name, 20)}, nil},
	} {
		pair := &topicPair{source: &kafka.Topic{Name: key.Topic, ID: key.TopicID}, targetName: name, target: &kafka.Topic{Name: name, ID: [16]byte{tt.target}}}
		if got := formerTopics(key, pair, tt.pairs, now); !slices.Equal(got, tt.want) {
			t.Errorf("%s: %v, want %v", what, got, tt.want)
		}
	}
}

// A week after a topic was made anew on both sides, what its former incarnation left is
// removed, once; by the one who holds the partition.
func TestFormerTopicsAreRemoved(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHousehold()
		old := h.key
		old.TopicID = [16]byte{8}
		h.lane.former = []formerTopic{{old.TopicID, time.Now()}}
		var removed, takes atomic.Bool
		var loads, gone atomic.Int64
		h.load = func(_ context.Context, mapPartition int32, keys []checkpoint.Key) (map[checkpoint.Key]checkpoint.Loaded, error) {
			all := map[checkpoint.Key]checkpoint.Loaded{}
			for _, k := range keys {
				if k.MapPartition() != mapPartition {
					t.Errorf("%+v is not in partition %d", k, mapPartition)
				}
				all[k] = checkpoint.Loaded{Ledger: &checkpoint.Ledger{}, Runs: &checkpoint.Runs{}, Filed: &checkpoint.Filed{}, Declared: map[int64]struct{}{5: {}}}
				if k == old {
					loads.Add(1)
					left := &checkpoint.Ledger{}
					if !removed.Load() {
						left.Add(checkpoint.Anchor{ProducerID: 5, Steps: []checkpoint.Step{{}}})
					}
					all[k] = checkpoint.Loaded{Ledger: left, Runs: &checkpoint.Runs{}, Filed: &checkpoint.Filed{}, Open: !removed.Load()}
				}
			}
			return all, nil
		}
		h.tidyFormer = func(k, former checkpoint.Key, records []wire.Record) bool {
			if k != h.key || former != old {
				t.Errorf("%+v for %+v", former, k)
			}
			if !takes.Load() {
				return false
			}
			gone.Add(int64(len(records)))
			return true
		}
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan struct{})
		go func() { defer close(done); h.Run(ctx) }()
		after := func(d time.Duration) {
			time.Sleep(d)
			synctest.Wait()
		}
		after(formerKept - time.Hour)
		if loads.Load() != 0 || gone.Load() != 0 {
			t.Errorf("read %d times and removed %d records within the week", loads.Load(), gone.Load())
		}
		after(housekeepSeldom + 2*time.Hour)
		if n := h.stats().Removed; loads.Load() == 0 || n != 0 {
			t.Errorf("read %d times; it counts %d records that nobody took", loads.Load(), n)
		}
		takes.Store(true)
		after(housekeepSeldom + time.Hour)
		if gone.Load() != 2 || h.stats().Removed != 2 {
			t.Errorf("%d records were removed, want an anchor and a block: %+v", gone.Load(), h.stats())
		}
		removed.Store(true)
		before := loads.Load()
		after(10 * housekeepSeldom)
		if gone.Load() != 2 || loads.Load() != before+1 {
			t.Errorf("%d records were removed, and it looked %d times more", gone.Load(), loads.Load()-before)
		}
		cancel()
		<-done
	})
}
