package checkpoint_test

import (
	"math"
	"slices"
	"testing"

	"pgregory.net/rapid"

	"kmirror/checkpoint"
	"kmirror/internal/wire"
)

// syncStore is MirrorMaker 2's OffsetSyncStore for one partition, rule for rule
// (Apache Kafka 4.1.1; integration holds it against the Java class).
type syncStore struct {
	slots     []*checkpoint.OffsetSync // 64
	forgetful bool                     // the initial read keeps no history
	loading   bool
}

func (s *syncStore) take(o checkpoint.OffsetSync) {
	latest := &o
	if s.slots == nil || o.Upstream < s.slots[0].Upstream || s.loading && s.forgetful {
		s.slots = slices.Repeat([]*checkpoint.OffsetSync{latest}, 64)
		return
	}
	old, replacement, from := slices.Clone(s.slots), latest, 0
	s.slots[0] = latest
	for current := 1; current < 64; current++ {
		previous := current - 1
		for {
			candidate := old[from]
			apart := apart(s.slots[previous], candidate, previous)
			promote := near(s.slots[previous], candidate, previous, current) && apart && (current == 63 || notCloser(candidate, s.slots[current+1], current))
			skip := from < 63 && candidate == old[from+1] || !apart
			if promote {
				replacement = candidate
			}
			if promote || skip {
				from++
			}
			if from >= current || !skip {
				break
			}
		}
		if near(s.slots[previous], s.slots[current], previous, current) {
			return
		}
		s.slots[current] = replacement
	}
}

// near is its invariant B, apart and notCloser its invariant C.
func near(a, b *checkpoint.OffsetSync, i, j int) bool {
	bound := uint64(b.Upstream) + 1<<j - 1<<i
	return a == b || j >= 62 || bound > math.MaxInt64 || a.Upstream <= int64(bound)
}

func apart(a, b *checkpoint.OffsetSync, i int) bool {
	bound := uint64(b.Upstream) + 1<<max(i-2, 0)
	return a == b || bound <= math.MaxInt64 && a.Upstream >= int64(bound)
}

func notCloser(a, b *checkpoint.OffsetSync, i int) bool { return apart(a, b, i) }

// translate answers -1 where the store has nothing to say.
func (s *syncStore) translate(g int64) int64 {
	for _, o := range s.slots {
		switch {
		case o.Upstream == g:
			return o.Downstream
		case o.Upstream < g:
			return o.Downstream + 1
		}
	}
	return -1
}

// load reads a log from its beginning, as a MirrorMaker 2 does that starts.
func (s *syncStore) load(t *rapid.T, records []wire.Record) {
	s.loading = true
	s.follow(t, records)
	s.loading = false
}

func (s *syncStore) follow(t *rapid.T, records []wire.Record) {
	for _, rec := range records {
		o, err := checkpoint.DecodeOffsetSync(rec)
		if err != nil {
			t.Fatal(err)
		}
		s.take(o)
	}
}

// MirrorMaker 2's own vectors (MT/OffsetSyncStoreTest) hold for the store above,
// so that what it says about our syncs counts.
func TestTheStoreOfTheTestsIsMirrorMakers(t *testing.T) {
	t.Run("testOffsetTranslation", func(t *testing.T) {
		s := &syncStore{}
		for _, step := range []struct{ up, down, asked, want int64 }{
			{100, 200, 150, 201}, {150, 251, 150, 251}, {150, 251, 5, -1}, {200, 10, 200, 10}, {20, 20, 20, 20},
		} {
			s.take(checkpoint.OffsetSync{Upstream: step.up, Downstream: step.down})
			if got := s.translate(step.asked); got != step.want {
				t.Errorf("%d after %d->%d: got %d, want %d", step.asked, step.up, step.down, got, step.want)
			}
		}
	})
	spaced := func(forgetful bool) []int64 {
		s := &syncStore{forgetful: forgetful, loading: true}
		for up := int64(0); up <= 10000; up += 10 {
			s.loading = up <= 1000
			s.take(checkpoint.OffsetSync{Upstream: up, Downstream: up})
		}
		var kept []int64
		for _, o := range slices.Backward(s.slots) {
			if len(kept) == 0 || kept[len(kept)-1] != o.Upstream {
				kept = append(kept, o.Upstream)
			}
		}
		return kept
	}
	t.Run("testPastOffsetTranslation", func(t *testing.T) {
		if got, want := spaced(true), []int64{1000, 4840, 6760, 8680, 9160, 9640, 9880, 9940, 9970, 9990, 10000}; !slices.Equal(got, want) {
			t.Errorf("kept %v, want %v", got, want)
		}
	})
	t.Run("testPastOffsetTranslationWithoutInitializationReadToEnd", func(t *testing.T) {
		if got, want := spaced(false), []int64{0, 3840, 7680, 8640, 9120, 9600, 9840, 9900, 9960, 9990, 10000}; !slices.Equal(got, want) {
			t.Errorf("kept %v, want %v", got, want)
		}
	})
}
