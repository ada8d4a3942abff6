package mirror

import (
	"fmt"
	"maps"
	"testing"

	"pgregory.net/rapid"
)

func TestPlacementBalancesAndMovesLittle(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		partitions := drawPartitions(t)
		before := drawMembers(t, "before")
		after := drawMembers(t, "after")
		first := place(before, partitions, nil)
		second := place(after, partitions, first)

		if len(after) == 0 {
			if len(second) != 0 {
				t.Fatalf("placed %v on nobody", second)
			}
			return
		}
		if len(second) != len(partitions) {
			t.Fatalf("placed %d of %d partitions", len(second), len(partitions))
		}
		load := map[string]int{}
		for _, m := range after {
			load[m] = 0
		}
		for p, m := range second {
			if _, member := load[m]; !member {
				t.Fatalf("%v is placed on %q, who is no member", p, m)
			}
			load[m]++
		}
		least, most := len(partitions), 0
		for _, n := range load {
			least, most = min(least, n), max(most, n)
		}
		if most-least > 1 {
			t.Fatalf("loads differ by %d: %v", most-least, load)
		}
		// Who must move: those without a living owner, and what an owner has above its share.
		alive := map[string]int{}
		for _, m := range after {
			alive[m] = 0
		}
		unavoidable := 0
		for _, m := range first {
			if _, ok := alive[m]; ok {
				alive[m]++
			} else {
				unavoidable++
			}
		}
		if len(before) == 0 {
			unavoidable = len(partitions)
		}
		floor, extra := len(partitions)/len(load), len(partitions)%len(load)
		for _, n := range alive {
			switch over := n - floor; {
			case over <= 0:
			case extra > 0:
				extra--
				unavoidable += over - 1
			default:
				unavoidable += over
			}
		}
		moved := 0
		for p, m := range second {
			if first[p] != m {
				moved++
			}
		}
		if moved > unavoidable {
			t.Fatalf("%d partitions moved, %d had to", moved, unavoidable)
		}
		if !maps.Equal(second, place(after, partitions, first)) {
			t.Fatal("equal inputs gave different placements")
		}
	})
}

func TestPlacementSpreadsATopic(t *testing.T) {
	var partitions []partitionID
	for _, topic := range []string{"orders", "payments"} {
		for i := range int32(6) {
			partitions = append(partitions, partitionID{"east->west", topic, i})
		}
	}
	placed := place([]string{"a", "b", "c"}, partitions, nil)
	count := map[string]int{}
	for p, m := range placed {
		count[p.Topic+" on "+m]++
	}
	for on, n := range count {
		if n != 2 {
			t.Errorf("%s: %d partitions, want 2", on, n)
		}
	}
}

func drawPartitions(t *rapid.T) (partitions []partitionID) {
	for topic := range rapid.IntRange(0, 6).Draw(t, "topics") {
		for p := range rapid.Int32Range(1, 12).Draw(t, "partitions") {
			partitions = append(partitions, partitionID{"f", fmt.Sprintf("t%d", topic), p})
		}
	}
	return partitions
}

func drawMembers(t *rapid.T, label string) (members []string) {
	for _, m := range []string{"a", "b", "c", "d", "e"} {
		if rapid.Bool().Draw(t, label+m) {
			members = append(members, m)
		}
	}
	return members
}
