package integration_test

import (
	"fmt"
	"math/rand/v2"
	"os"
	"slices"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
)

// TestBenchMM2Rereads is the side-by-side of a failover: MirrorMaker 2, with every
// interval at one second, and kmirror mirror one history (transactions, a third of them
// aborted) from the same source into the same target, and groups stand anywhere in it.
// Then the source is given up, and what each group would read again, or would never
// read, is counted for both.
//
//	BENCH_MM2_REREADS=1  runs it; two brokers, MirrorMaker 2 and kmirror, two minutes
//	BENCH_GROUPS         how many groups (default 40)
func TestBenchMM2Rereads(t *testing.T) {
	if os.Getenv("BENCH_MM2_REREADS") == "" {
		t.Skip("a measurement of two minutes: BENCH_MM2_REREADS=1 runs it")
	}
	w := newWorld(t)
	w.kafka("east")
	w.kafka("west")
	w.addresses["north"] = w.addr("east") // kmirror's alias of the same source
	const partitions = 3
	h := newHistory("orders", partitions, 200)
	w.create("east", "orders", partitions)
	w.transactions("east", h, 60)
	w.run("main", `
clusters:
  north: {bootstrap: [{{addr "north"}}]}
  west: {bootstrap: [{{addr "west"}}]}
flows:
  - {from: north, to: west, topics: [orders], heartbeats: false}
`)
	w.mirrorMaker2("east", "orders", "sync.group.offsets.enabled = true", "sync.group.offsets.interval.seconds = 1", "refresh.groups.interval.seconds = 1",
		"east->west.offset.lag.max = 100", "west.offset.flush.interval.ms = 1000")
	w.copying("east.orders", 1)

	groups := int(number(t, "BENCH_GROUPS", 40))
	r := rand.New(rand.NewPCG(1, 2))
	places := map[string]map[int32]int64{}
	for round := range 4 { // history grows while groups commit
		w.transactions("east", h, 120)
		w.write("east", h, 400)
		ends := w.ends(w.admin("east"), "orders")
		for i := range groups {
			if i%4 < round { // those that went to sleep
				continue
			}
			group := fmt.Sprintf("group-%d", i)
			if places[group] == nil {
				places[group] = map[int32]int64{}
			}
			for p := range int32(partitions) { // groups only go forward
				places[group][p] += r.Int64N(ends[p] - places[group][p] + 1)
			}
			w.commit("east", group, "orders", places[group])
		}
	}
	for _, wait := range []time.Duration{2 * time.Second, 20 * time.Second} {
		time.Sleep(wait)
		for _, mirror := range []struct{ who, topic string }{{"MirrorMaker 2", "east.orders"}, {"kmirror", "north.orders"}} {
			t.Logf("%v after the last commit, %s", wait, w.rereads(mirror.topic, places).of(mirror.who))
		}
	}
}

// rereads is what groups would meet at the target.
type rereads struct {
	places, exact, absent int
	again, skipped        []int // records, of each place that has some
}

func (r rereads) of(who string) string {
	sum := func(all []int) (n int) {
		for _, one := range all {
			n += one
		}
		return n
	}
	slices.Sort(r.again)
	middle, most := 0, 0
	if n := len(r.again); n > 0 {
		middle, most = r.again[n/2], r.again[n-1]
	}
	return fmt.Sprintf("%s: %d of %d places exact, %d without an offset; read again: %d records at %d places (median %d, most %d); skipped: %d records at %d places",
		who, r.exact, r.places, r.absent, sum(r.again), len(r.again), middle, most, sum(r.skipped), len(r.skipped))
}

// rereads compares where groups stand in the mirror with where they stand in the source:
// by the number of the next record.
func (w *world) rereads(mirror string, places map[string]map[int32]int64) rereads {
	w.t.Helper()
	source, target := w.read("east", "orders"), w.read("west", mirror)
	next := func(records []*kgo.Record, offset int64) int {
		records = withoutAborted(records)
		for _, r := range records {
			if r.Offset >= offset {
				_, number, err := identity(r)
				if err != nil {
					w.t.Fatal(err)
				}
				return number
			}
		}
		return len(records)
	}
	var out rereads
	admin := w.admin("west")
	for group, offsets := range places {
		there := w.committed(admin, group, mirror)
		for p, offset := range offsets {
			out.places++
			at, known := there[p]
			want := next(source[p], offset)
			switch got := next(target[p], at); {
			case !known:
				out.absent++
				out.again = append(out.again, want) // earliest, if the client says so
			case got == want:
				out.exact++
			case got < want:
				out.again = append(out.again, want-got)
			default:
				out.skipped = append(out.skipped, got-want)
			}
		}
	}
	return out
}
