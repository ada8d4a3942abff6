package mm2_test

import (
	"fmt"
	"testing"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"kmirror/internal/mm2"
)

func TestPositions(t *testing.T) {
	p := mm2.NewPositions("east", "MirrorSourceConnector", "east->west.MirrorSourceConnector")
	key := func(connector, cluster, topic string, partition int) []byte {
		return fmt.Appendf(nil, `[%q,{"cluster":%q,"partition":%d,"topic":%q}]`, connector, cluster, partition, topic)
	}
	for _, r := range []struct {
		key   []byte
		value string
	}{
		{key("MirrorSourceConnector", "east", "orders", 0), `{"offset":5}`},
		{key("MirrorSourceConnector", "east", "orders", 0), `{"offset":9}`},
		{key("MirrorSourceConnector", "east", "orders", 1), `{"offset":7}`},
		{key("MirrorSourceConnector", "east", "orders", 1), ``},
		{key("MirrorSourceConnector", "east", "orders", 2), `{"offset":3}`},
		{key("east->west.MirrorSourceConnector", "east", "orders", 0), `{"offset":99}`},
		{key("east->west.MirrorSourceConnector", "east", "orders", 3), `{"offset":4}`},
		{key("MirrorSourceConnector", "north", "orders", 2), `{"offset":1000}`},
		{key("MirrorCheckpointConnector", "east", "orders", 2), `{"offset":0}`},
		{key("MirrorSourceConnector", "east", "orders", 4), `{"offset":"x"}`},
		{key("MirrorSourceConnector", "east", "orders", 4), `{}`},
		{key("MirrorSourceConnector", "east", "orders", 5), `{"offset":9223372036854775807}`},
		{[]byte(`["MirrorSourceConnector",{"cluster":"east","topic":"orders"}]`), `{"offset":1}`},
		{[]byte(`["MirrorSourceConnector"]`), `{"offset":1}`},
		{[]byte(`junk`), `{"offset":1}`},
	} {
		p.Add(r.key, []byte(r.value))
	}
	got := map[int32]int64{}
	for n := range int32(6) {
		if offset, ok := p.Stored(mm2.Partition{Topic: "orders", Partition: n}); ok {
			got[n] = offset
		}
	}
	if diff := cmp.Diff(map[int32]int64{0: 9, 2: 3, 3: 4}, got); diff != "" {
		t.Error(diff)
	}
	if p.Len() != 3 || p.Faulty != 4 || p.Foreign != 4 {
		t.Errorf("%d positions, %d faulty, %d foreign; want 3, 4, 4", p.Len(), p.Faulty, p.Foreign)
	}
}

func FuzzPositions(f *testing.F) {
	f.Add([]byte(`["MirrorSourceConnector",{"cluster":"east","partition":0,"topic":"t"}]`), []byte(`{"offset":1}`))
	f.Fuzz(func(_ *testing.T, key, value []byte) {
		p := mm2.NewPositions("east", "MirrorSourceConnector")
		p.Add(key, value)
		_ = p.Len()
	})
}

func TestSyncs(t *testing.T) {
	var s mm2.Syncs
	for _, p := range []mm2.Pair{{0, 0}, {100, 100}, {250, 240}, {-1, 5}, {200, 260}, {300, 350}} { // begun again at 200
		s.Add(p.Source, p.Target)
	}
	if diff := cmp.Diff([]mm2.Pair{{0, 0}, {100, 100}, {200, 260}, {300, 350}}, s.Below(1<<40, 1<<40)); diff != "" {
		t.Error(diff)
	}
	if diff := cmp.Diff([]mm2.Pair{{0, 0}, {100, 100}}, s.Below(250, 260)); diff != "" {
		t.Error(diff)
	}
	s.Add(400, 0) // the target topic was created anew
	if diff := cmp.Diff([]mm2.Pair{{400, 0}}, s.Below(1<<40, 1<<40)); diff != "" {
		t.Error(diff)
	}
}

// TestSyncsNeverContradict: whatever comes, what is kept ascends on both sides, and the
// newest one is kept.
func TestSyncsNeverContradict(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var s mm2.Syncs
		var last mm2.Pair
		for range rapid.IntRange(1, 3000).Draw(t, "syncs") {
			last = mm2.Pair{Source: last.Source + rapid.Int64Range(1, 9).Draw(t, "source"), Target: last.Target + rapid.Int64Range(1, 9).Draw(t, "target")}
			if rapid.IntRange(0, 999).Draw(t, "back") == 0 {
				last.Source /= 2
			}
			s.Add(last.Source, last.Target)
		}
		all := s.Below(1<<60, 1<<60)
		if all[len(all)-1] != last || len(all) > 1024 {
			t.Fatalf("%d kept, the last is %v, want %v", len(all), all[len(all)-1], last)
		}
		for i := 1; i < len(all); i++ {
			if all[i].Source <= all[i-1].Source || all[i].Target <= all[i-1].Target {
				t.Fatalf("%v follows %v", all[i], all[i-1])
			}
		}
	})
}
