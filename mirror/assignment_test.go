package mirror

import (
	"maps"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"
)

func TestAssignmentRoundTrip(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		a := newAssignment(rapid.Uint64().Draw(t, "version"), drawPartitions(t)...)
		got, err := decodeAssignment(a.encode())
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(a, got); diff != "" {
			t.Fatal(diff)
		}
	})
}

func FuzzDecodeAssignment(f *testing.F) {
	f.Add([]byte(`{"version":3,"flows":{"a->b":{"t":"0-3,7"}}}`))
	f.Add([]byte(`{"version":3,"flows":{"a->b":{"t":"5-1"}}}`))
	f.Add([]byte(`{"version":3,"flows":{"a->b":{"t":"0-2147483647"}}}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		a, err := decodeAssignment(b)
		if err != nil {
			return
		}
		again, err := decodeAssignment(a.encode())
		if err != nil || !maps.Equal(a.Partitions, again.Partitions) {
			t.Fatalf("%v became %v (%v)", a, again, err)
		}
	})
}

// TestHandoverNeverOverlaps plays leaders and members against each other in
// random order: members read assignments late, answer late, die and come, and
// leaders change and know only what is published. At no time may two living
// members write one partition.
func TestHandoverNeverOverlaps(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		partitions := drawPartitions(t)
		type member struct {
			seen    assignment // the assignment it last read
			writing map[partitionID]struct{}
			pending []assignment // published and not yet read, oldest first
		}
		alive := map[string]*member{}
		published, holdings := map[string]assignment{}, map[string]assignment{}
		lives := 0
		for range rapid.IntRange(10, 120).Draw(t, "steps") {
			names := slices.Sorted(maps.Keys(alive))
			switch rapid.SampledFrom([]string{"join", "die", "lead", "lead", "read", "read", "read", "start", "start", "stop"}).Draw(t, "step") {
			case "join":
				if len(alive) < 4 {
					lives++
					alive[string(rune('a'+lives%26))+string(rune('a'+lives/26))] = &member{writing: map[partitionID]struct{}{}}
				}
			case "die":
				if len(names) > 0 {
					m := rapid.SampledFrom(names).Draw(t, "who")
					delete(alive, m)
					delete(published, m)
					delete(holdings, m)
				}
			case "lead":
				current := map[partitionID]string{}
				for m, a := range published {
					for p := range a.Partitions {
						current[p] = m
					}
				}
				wanted := place(names, partitions, current)
				for m, a := range grant(names, wanted, published, holdings) {
					published[m] = a
					alive[m].pending = append(alive[m].pending, a)
				}
			case "read": // watches may jump over versions, never back
				if len(names) > 0 {
					m := alive[rapid.SampledFrom(names).Draw(t, "who")]
					if n := len(m.pending); n > 0 {
						i := rapid.IntRange(0, n-1).Draw(t, "newest")
						m.seen, m.pending = m.pending[i], m.pending[i+1:]
					}
				}
			case "start": // rule 1: publish the holding, then write
				if len(names) > 0 {
					name := rapid.SampledFrom(names).Draw(t, "who")
					m := alive[name]
					hold := newAssignment(m.seen.Version)
					maps.Copy(hold.Partitions, m.writing)
					maps.Copy(hold.Partitions, m.seen.Partitions)
					holdings[name] = hold
					maps.Copy(m.writing, m.seen.Partitions)
				}
			case "stop":
				if len(names) > 0 {
					name := rapid.SampledFrom(names).Draw(t, "who")
					m := alive[name]
					for p := range m.writing {
						if !m.seen.has(p) {
							delete(m.writing, p)
						}
					}
					hold := newAssignment(m.seen.Version)
					maps.Copy(hold.Partitions, m.writing)
					holdings[name] = hold
				}
			}
			writer := map[partitionID]string{}
			for name, m := range alive {
				for p := range m.writing {
					if other, busy := writer[p]; busy {
						t.Fatalf("%v is written by %s and %s", p, other, name)
					}
					writer[p] = name
				}
			}
		}
	})
}
