package checkpoint_test

import (
	"fmt"
	"slices"
	"testing"

	"github.com/twmb/franz-go/pkg/kmsg"

	"kmirror/checkpoint"
)

// A look says what Run would, about as many groups as one likes, with few
// requests, and changes nothing.
func TestLook(t *testing.T) {
	const groups = 2500
	east, west := newSide(), newSide()
	for i := range groups {
		name := fmt.Sprintf("g%04d", i)
		east.commit(name, "orders", 0, 25) // the map's: 23 in west
		switch i % 5 {
		case 0:
			west.commit(name, "east.orders", 0, 23)
		case 1:
			west.commit(name, "east.orders", 0, 7) // nobody remembers that it was ours
		case 2:
			west.commit(name, "east.orders", 0, 7)
			west.members(name, true)
		case 3:
			east.commit(name, "orders", 1, 5000)
		}
	}
	flow := flowEastWest(t)
	syncer := checkpoint.NewSyncer(checkpoint.Routes{Forward: checkpoint.Route{Flow: flow, Maps: newMapped(100)}}, east, west, quiet())
	var names []string
	states := map[string]int{}
	lots := 0
	err := syncer.Look(t.Context(), false, func(group string) bool { return group != "g0000" }, func(lot []checkpoint.GroupStatus) error {
		lots++
		for _, g := range lot {
			names = append(names, g.Group)
			states[g.State]++
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if len(names) != groups-1 || !slices.IsSorted(names) || lots != 3 {
		t.Errorf("%d groups in %d lots, sorted %v", len(names), lots, slices.IsSorted(names))
	}
	for state, want := range map[string]int{"in-step": groups/5 - 1, "diverged": groups / 5, "active-at-target": groups / 5, "behind": 2 * groups / 5} {
		if states[state] != want {
			t.Errorf("%d groups are %s, want %d: %v", states[state], state, want, states)
		}
	}
	for name, s := range map[string]*side{"east": east, "west": west} {
		if n := s.requests[int16(kmsg.OffsetCommit)]; n > 0 {
			t.Errorf("%d commits in %s", n, name)
		}
		if len(s.topics) > 0 {
			t.Errorf("something was written in %s", name)
		}
		if n := s.requests[int16(kmsg.OffsetFetch)]; n > 10 {
			t.Errorf("%d requests for offsets in %s", n, name)
		}
	}
	if n := len(syncer.Census()); n != 0 {
		t.Errorf("it keeps groups in %d states", n)
	}
}
