package mirror

import (
	"context"
	"errors"
	"log/slog"
	"math"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"kmirror/checkpoint"
	"kmirror/internal/wire"
)

// household is a housekeeper of one partition whose books a test holds.
type household struct {
	*housekeeper
	key    checkpoint.Key
	lane   *lane
	ledger func() *checkpoint.Ledger
	runs   func() *checkpoint.Runs
	grown  atomic.Int64 // in the map partition of the key
	loads  atomic.Int64 // of it
	away   atomic.Bool  // the target is
	starts int          // asked for
	asked  int          // groups
	tidied []wire.Record
}

func newHousehold() *household {
	h := &household{key: checkpoint.Key{Flow: "east->west", Topic: "orders", TopicID: [16]byte{1}}}
	h.lane = newLane(h.key, "east.orders", [16]byte{2}, 7, 0, origin{targetEnd: -1}, func() ladderLimits { return ladderLimits{} })
	h.ledger = func() *checkpoint.Ledger { return &checkpoint.Ledger{} }
	h.runs = func() *checkpoint.Runs { return &checkpoint.Runs{} }
	h.housekeeper = &housekeeper{
		limits: checkpoint.DefaultLimits(), log: slog.New(slog.DiscardHandler),
		load: func(_ context.Context, _ int32, keys []checkpoint.Key) (map[checkpoint.Key]checkpoint.Loaded, error) {
			h.loads.Add(1)
			all := map[checkpoint.Key]checkpoint.Loaded{}
			for _, k := range keys {
				runs, filed := h.runs(), &checkpoint.Filed{}
				filed.Add(runs.Blocks(k)...)
				all[k] = checkpoint.Loaded{Ledger: h.ledger(), Runs: runs, Filed: filed}
			}
			if h.away.Load() {
				return nil, errors.New("the target is away")
			}
			return all, nil
		},
		start:  func(context.Context, string, int32) (int64, error) { h.starts++; return 500, nil },
		lowest: func(context.Context) (lowestOffsets, error) { h.asked++; return lowestOffsets{}, errors.New("no") },
		tidy: func(_ checkpoint.Key, records []wire.Record) bool {
			h.tidied = append(h.tidied, records...)
			return true
		},
		added: func(p int32) int64 {
			if p == h.key.MapPartition() {
				return h.grown.Load()
			}
			return 0
		},
		held: func(p int32) []*lane {
			if p == h.key.MapPartition() {
				return []*lane{h.lane}
			}
			return nil
		},
	}
	return h
}

// anchors is a ledger of n records, a step each.
func anchors(n int) func() *checkpoint.Ledger {
	return func() *checkpoint.Ledger {
		l := &checkpoint.Ledger{}
		for i := range n {
			l.Add(checkpoint.Anchor{ProducerID: 7, Steps: []checkpoint.Step{{Sequence: int32(i), Source: 2 * int64(i)}}})
		}
		return l
	}
}

// A pass costs a reading of a map partition: it comes when as much has been added as
// was found, and seldom otherwise.
func TestHousekeepingIsSeldom(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHousehold()
		h.ledger = anchors(3000)
		h.runs = func() *checkpoint.Runs {
			r := &checkpoint.Runs{}
			_ = r.Add(checkpoint.Run{Source: 0, Target: 0, Count: 6000})
			return r
		}
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan struct{})
		go func() { defer close(done); h.Run(ctx) }()
		expect := func(loads int64, when string) {
			t.Helper()
			synctest.Wait()
			if n := h.loads.Load(); n != loads {
				t.Fatalf("%s: read %d times, want %d", when, n, loads)
			}
		}
		time.Sleep(4 * time.Minute)
		expect(0, "at first, with nothing added")
		time.Sleep(3 * time.Minute)
		expect(1, "once after the beginning")
		h.grown.Store(2999)
		time.Sleep(time.Minute)
		expect(1, "less was added than was found")
		h.grown.Store(3000)
		time.Sleep(time.Minute)
		expect(2, "as much was added")
		time.Sleep(5 * time.Hour)
		expect(2, "nothing was added")
		time.Sleep(2 * time.Hour)
		expect(3, "retention may have taken something")
		if s := h.stats(); s.Passes < 3 || s.Anchors != 3000 || s.Runs != 1 || s.Removed != int64(len(h.tidied)) || s.Removed == 0 {
			t.Errorf("%+v, and %d records were written", s, len(h.tidied))
		}

		h.away.Store(true)
		h.grown.Store(10_000)
		time.Sleep(15 * time.Second)
		expect(4, "a failure")
		time.Sleep(time.Minute)
		expect(4, "and it is not tried again at once")
		cancel()
		<-done
	})
}

// Where the log begins is known from the last answer; the target is asked only where
// nothing is written, and only if there is something to delete.
func TestTheStartOfTheLogComesForFree(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHousehold()
		pass := func() {
			t.Helper()
			if err := h.pass(t.Context(), h.key.MapPartition()); err != nil {
				t.Fatal(err)
			}
		}
		h.ledger = anchors(1)
		pass()
		if h.starts != 0 {
			t.Error("there is nothing to delete")
		}
		h.ledger = anchors(9)
		pass()
		pass()
		if h.starts != 1 {
			t.Errorf("asked %d times in a row", h.starts)
		}
		time.Sleep(2 * time.Hour)
		h.lane.starts(-1) // an old broker does not say
		h.lane.starts(700)
		pass()
		if at, _ := h.lane.begins(); h.starts != 1 || at != 700 {
			t.Errorf("asked %d times, begins at %d", h.starts, at)
		}
		time.Sleep(2 * time.Hour)
		pass()
		if h.starts != 2 {
			t.Errorf("asked %d times", h.starts)
		}
	})
}

// A map is thinned only by what all groups on both sides allow; when nobody knows,
// it stays as it is.
func TestThinningAsksTheGroups(t *testing.T) {
	h := newHousehold()
	h.limits.Runs = 200
	h.runs = func() *checkpoint.Runs {
		r := &checkpoint.Runs{}
		for i := range int64(1000) {
			_ = r.Add(checkpoint.Run{Source: 3 * i, Target: 2 * i, Count: 2})
		}
		return r
	}
	h.lane.starts(0)
	pass := func() {
		t.Helper()
		h.tidied = nil
		if err := h.pass(t.Context(), h.key.MapPartition()); err != nil {
			t.Fatal(err)
		}
	}
	pass()
	if h.asked != 1 || len(h.tidied) != 0 {
		t.Errorf("asked %d times, %d records", h.asked, len(h.tidied))
	}
	none := func(string, int32) int64 { return -1 }
	at := func(topic string, offset int64) func(string, int32) int64 {
		return func(of string, partition int32) int64 {
			if of == topic && partition == 0 {
				return offset
			}
			return -1
		}
	}
	for _, tt := range []struct {
		what  string
		of    lowestOffsets
		below int64
	}{
		{"no group", lowestOffsets{none, none}, math.MaxInt64},
		{"a group of the source", lowestOffsets{at("orders", 1500), none}, 1500},
		{"a group of the target", lowestOffsets{none, at("east.orders", 400)}, 600},
		{"both", lowestOffsets{at("orders", 300), at("east.orders", 400)}, 300},
		{"of other topics", lowestOffsets{at("east.orders", 1), at("orders", 1)}, math.MaxInt64},
	} {
		if got := tt.of.below(h.lane, h.runs()); got != tt.below {
			t.Errorf("%s: below %d, want %d", tt.what, got, tt.below)
		}
		h.lowest = func(context.Context) (lowestOffsets, error) { return tt.of, nil }
		pass()
		if thinned := len(h.tidied) > 0; thinned != (tt.below > 3*128*2) {
			t.Errorf("%s: %d records", tt.what, len(h.tidied))
		}
	}
	if s := h.stats(); s.Thinned == 0 || s.Removed == 0 {
		t.Errorf("%+v", s)
	}
}
