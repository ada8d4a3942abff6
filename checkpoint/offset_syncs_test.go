package checkpoint_test

import (
	"testing"
	"testing/synctest"
	"time"

	"pgregory.net/rapid"

	"kmirror/checkpoint"
	"kmirror/internal/wire"
	"kmirror/topology"
)

// oneMap is a source of one partition's map.
type oneMap struct {
	key  checkpoint.Key
	runs *checkpoint.Runs
}

func (m *oneMap) Ready() <-chan struct{} {
	ready := make(chan struct{})
	close(ready)
	return ready
}

func (m *oneMap) Mapped(string) []checkpoint.Mapped {
	_, end, ok := m.runs.End()
	if !ok {
		return nil
	}
	return []checkpoint.Mapped{{Key: m.key, TargetEnd: end, Generation: m.runs.Generation()}}
}

func (m *oneMap) Runs(string, string, int32) *checkpoint.Runs { return m.runs.Clone() }

func flowWithSyncs(t testing.TB) *topology.Flow {
	t.Helper()
	flow, err := topology.NewFlow("east", "west", func(f *topology.Flow) { f.OffsetSyncs = topology.OffsetSyncsSource })
	if err != nil {
		t.Fatal(err)
	}
	return flow
}

const syncsTopic = "mm2-offset-syncs.west.internal"

// Whatever happens to a partition, to the writer and to the topic, a MirrorMaker
// 2 that reads the syncs never goes past a record, whether it followed all the
// time or starts now.
func TestOffsetSyncsNeverSkip(t *testing.T) {
	flow := flowWithSyncs(t)
	rapid.Check(t, func(t *rapid.T) {
		var (
			logs   = newMemoryLogs()
			source = &oneMap{key: key(), runs: &checkpoint.Runs{TargetID: [16]byte{1}}}
			writer = checkpoint.NewOffsetSyncer(flow, source, logs, quiet())
			now    = time.Unix(1e9, 0)
			live   = &syncStore{}
			read   int
		)
		if rapid.Bool().Draw(t, "MirrorMaker 2 was here") {
			rec := checkpoint.EncodeOffsetSync(checkpoint.OffsetSync{
				Topic: source.key.Topic, Partition: source.key.Partition,
				Upstream: rapid.Int64Range(0, 500).Draw(t, "its upstream"), Downstream: rapid.Int64Range(0, 500).Draw(t, "its downstream"),
			})
			if _, err := logs.Append(t.Context(), syncsTopic, 0, []wire.Record{rec}); err != nil {
				t.Fatal(err)
			}
		}
		for range rapid.IntRange(1, 60).Draw(t, "steps") {
			switch rapid.IntRange(0, 11).Draw(t, "step") {
			default:
				for range rapid.IntRange(1, 8).Draw(t, "batches") {
					end, target, _ := source.runs.End()
					run := checkpoint.Run{
						Source: max(end, source.runs.Through()) + rapid.SampledFrom([]int64{0, 0, 0, 1, 30}).Draw(t, "hole"),
						Target: target + rapid.SampledFrom([]int64{0, 0, 0, 1, 40}).Draw(t, "strangers"),
						Count:  rapid.SampledFrom([]int64{1, 2, 9, 150, 3000}).Draw(t, "records"),
						Loose:  rapid.IntRange(0, 9).Draw(t, "loose") == 0,
					}
					if err := source.runs.Add(run); err != nil {
						t.Fatal(err)
					}
				}
			case 0:
				_, target, _ := source.runs.End()
				source.runs.CutTarget(rapid.Int64Range(0, max(1, target)).Draw(t, "target lost all from"))
			case 1:
				end, _, _ := source.runs.End()
				source.runs.CutSource(rapid.Int64Range(0, max(1, end)).Draw(t, "source went back to"))
			case 2:
				source.runs.Reset([16]byte{rapid.Byte().Draw(t, "new target")})
			case 3: // the source topic was created anew
				source.key.TopicID[0]++
				source.runs = &checkpoint.Runs{TargetID: source.runs.TargetID}
				source.runs.Begin(rapid.Int64Range(0, 900).Draw(t, "new source begins"), rapid.Int64Range(0, 900).Draw(t, "in the target at"))
			case 4:
				writer = checkpoint.NewOffsetSyncer(flow, source, logs, quiet())
			case 5: // compaction up to somewhere
				logs.set(func() {
					log := logs.logs[at(syncsTopic, 0)]
					clean := rapid.IntRange(0, len(log)).Draw(t, "compacted up to")
					if clean > 1 {
						log = log[clean-1:]
						for i := range log {
							log[i].Offset = int64(i)
						}
						logs.logs[at(syncsTopic, 0)] = log
						read = max(0, read-(clean-1))
					}
				})
				writer = checkpoint.NewOffsetSyncer(flow, source, logs, quiet()) // the memory's offsets have changed
			}
			now = now.Add(rapid.SampledFrom([]time.Duration{time.Second, 6 * time.Second}).Draw(t, "later"))
			if rapid.IntRange(0, 3).Draw(t, "not looked") == 0 {
				continue
			}
			if err := writer.Round(t.Context(), now); err != nil {
				t.Fatal(err)
			}
			log := logs.records(syncsTopic, 0)
			live.follow(t, log[read:])
			read = len(log)
			stores := []*syncStore{live, {}, {forgetful: true}}
			stores[1].load(t, log)
			stores[2].load(t, log)
			holdSyncs(t, source.runs, stores)
		}
	})
}

// holdSyncs asks for every offset near one where something begins or ends, and
// for some between.
func holdSyncs(t *rapid.T, runs *checkpoint.Runs, stores []*syncStore) {
	end, _, mapped := runs.End()
	if !mapped {
		return
	}
	ask := []int64{0, 1, end, end + 1, end + 1000}
	runs.All(func(r checkpoint.Run) bool {
		for _, at := range []int64{r.Source, r.Source + r.Count/2, r.Source + r.Count} {
			ask = append(ask, at-1, at, at+1)
		}
		return true
	})
	for i, s := range stores {
		if len(s.slots) == 0 {
			continue
		}
		for _, g := range ask {
			if got, exact := s.translate(g), runs.Forward(g).Offset; g >= 0 && got > exact {
				t.Fatalf("store %d: %d is translated to %d, past %d; syncs %v", i, g, got, exact, s.slots[0])
			}
		}
	}
}

// A group at the end is translated exactly, and one further back by at most as
// much as MirrorMaker 2's own syncs, one every 100 offsets, would have it.
func TestOffsetSyncsAreAsGoodAsMirrorMakers(t *testing.T) {
	logs, runs := newMemoryLogs(), &checkpoint.Runs{}
	source := &oneMap{key: key(), runs: runs}
	writer := checkpoint.NewOffsetSyncer(flowWithSyncs(t), source, logs, quiet())
	theirs, ours := &syncStore{}, &syncStore{}
	now := time.Unix(1e9, 0)
	for second := range int64(100) {
		for i := int64(0); i < 20_000; i += 100 {
			theirs.take(checkpoint.OffsetSync{Upstream: second*20_000 + i, Downstream: second*20_000 + i})
		}
		if err := runs.Add(checkpoint.Run{Source: second * 20_000, Target: second * 20_000, Count: 20_000}); err != nil {
			t.Fatal(err)
		}
		now = now.Add(time.Second)
		if err := writer.Round(t.Context(), now); err != nil {
			t.Fatal(err)
		}
	}
	log := logs.records(syncsTopic, 0)
	for _, rec := range log {
		o, err := checkpoint.DecodeOffsetSync(rec)
		if err != nil {
			t.Fatal(err)
		}
		ours.take(o)
	}
	if len(log) > 100*10 {
		t.Errorf("%d syncs were written in 100 seconds", len(log))
	}
	const end = 2_000_000
	if got := ours.translate(end); got != end {
		t.Errorf("a group at the end is translated to %d, want %d", got, end)
	}
	var worstOurs, worstTheirs int64
	for g := int64(0); g < end; g += 37 {
		back := func(s *syncStore) int64 { return (g - s.translate(g)) * 100 / max(100, end-g) } // percent of the distance
		worstOurs, worstTheirs = max(worstOurs, back(ours)), max(worstTheirs, back(theirs))
	}
	t.Logf("read again at worst, in percent of the distance from the end: by our syncs %d, by MirrorMaker 2's %d", worstOurs, worstTheirs)
	if worstOurs > 400 {
		t.Errorf("a group is translated %d%% of its distance too far back", worstOurs)
	}
}

// What stands in the topic is not written again by the next writer, and nothing
// is written while nothing moves.
func TestOffsetSyncsAreWrittenOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		logs, source := newMemoryLogs(), &oneMap{key: key(), runs: &checkpoint.Runs{}}
		if err := source.runs.Add(checkpoint.Run{Source: 5, Target: 7, Count: 1000}); err != nil {
			t.Fatal(err)
		}
		flow := flowWithSyncs(t)
		stop := start(t, checkpoint.NewOffsetSyncer(flow, source, logs, quiet()).Run)
		time.Sleep(time.Minute)
		stop()
		log := logs.records(syncsTopic, 0)
		if n := len(log); n != 6 { // the first, and 800, 400, 200, 100, 0 before the last
			t.Errorf("%d syncs for one partition", n)
		}
		if got := logs.made[syncsTopic]["cleanup.policy"]; got != "compact" {
			t.Errorf("the topic's cleanup policy is %q", got)
		}
		if _, err := logs.Append(t.Context(), syncsTopic, 0, []wire.Record{{Key: []byte("foreign")}, {Value: []byte{1}}}); err != nil {
			t.Fatal(err)
		}
		next := checkpoint.NewOffsetSyncer(flow, source, logs, quiet())
		stop = start(t, next.Run)
		time.Sleep(time.Minute)
		if n := len(logs.records(syncsTopic, 0)) - len(log) - 2; n != 0 {
			t.Errorf("%d syncs were written once more", n)
		}
		if n := next.Skipped(); n != 2 {
			t.Errorf("%d records were skipped, want 2", n)
		}
		for _, rec := range logs.records(syncsTopic, 0)[:len(log)] {
			if rec.Value == nil {
				t.Error("a tombstone was written: Java's readers die of it")
			}
		}
		stop()
	})
}

// MirrorMaker 2's OffsetSyncWriterTest, for what we have of it.
func TestOffsetSyncsAreDue(t *testing.T) {
	logs, source := newMemoryLogs(), &oneMap{key: key(), runs: &checkpoint.Runs{}}
	writer := checkpoint.NewOffsetSyncer(flowWithSyncs(t), source, logs, quiet())
	now := time.Unix(1e9, 0)
	next := int64(0)
	for _, step := range []struct {
		name    string
		records int64
		later   time.Duration
		want    int64 // the newest sync
	}{
		{"testMaybeQueueOffsetSyncs: the first at once", 1, time.Second, 0},
		{"a few later", 50, time.Second, 0},
		{"offset.lag.max at once", 50, time.Second, 100},
		{"a few once more", 3, time.Second, 100},
		{"testPromoteDelayedOffsetSyncs: those after a while", 0, 6 * time.Second, 103},
	} {
		if step.records > 0 {
			if err := source.runs.Add(checkpoint.Run{Source: next, Target: next, Count: step.records}); err != nil {
				t.Fatal(err)
			}
			next += step.records
		}
		now = now.Add(step.later)
		if err := writer.Round(t.Context(), now); err != nil {
			t.Fatal(err)
		}
		log := logs.records(syncsTopic, 0)
		if o, err := checkpoint.DecodeOffsetSync(log[len(log)-1]); err != nil || o.Upstream != step.want || o.Downstream != step.want {
			t.Errorf("%s: the newest sync is %+v, %v, want %d", step.name, o, err, step.want)
		}
	}
	t.Run("testFirePendingOffsetSyncs", func(t *testing.T) { // a send that fails is done again
		if err := source.runs.Add(checkpoint.Run{Source: next, Target: next, Count: 500}); err != nil {
			t.Fatal(err)
		}
		logs.set(func() { logs.refuse = errBroken })
		if err := writer.Round(t.Context(), now.Add(time.Second)); err == nil {
			t.Error("a refused write is no error")
		}
		logs.set(func() { logs.refuse = nil })
		writer.Forget() // as Run does after an error
		if err := writer.Round(t.Context(), now.Add(2*time.Second)); err != nil {
			t.Fatal(err)
		}
		log := logs.records(syncsTopic, 0)
		if o, err := checkpoint.DecodeOffsetSync(log[len(log)-1]); err != nil || o.Upstream != next+499 {
			t.Errorf("the newest sync is %+v, %v, want %d", o, err, next+499)
		}
	})
}

// manyMaps are partitions that have all mirrored the same.
type manyMaps struct {
	oneMap
	partitions int32
}

func (m *manyMaps) Mapped(flow string) []checkpoint.Mapped {
	one := m.oneMap.Mapped(flow)[0]
	all := make([]checkpoint.Mapped, m.partitions)
	for i := range all {
		all[i] = one
		all[i].Partition = int32(i)
	}
	return all
}

// However many partitions move, a look writes so much and no more, and none is
// left out for long.
func TestOffsetSyncsOfManyPartitions(t *testing.T) {
	const partitions, atOnce, ofOne = 4000, 4096, 12
	logs, source := newMemoryLogs(), &manyMaps{oneMap{key(), &checkpoint.Runs{}}, partitions}
	writer := checkpoint.NewOffsetSyncer(flowWithSyncs(t), source, logs, quiet())
	now := time.Unix(1e9, 0)
	newest := map[int32]int64{}
	for second := range int64(14) {
		if second < 6 { // then all have to be caught up with
			if err := source.runs.Add(checkpoint.Run{Source: second * 150, Target: second * 150, Count: 150}); err != nil {
				t.Fatal(err)
			}
		}
		before := len(logs.records(syncsTopic, 0))
		now = now.Add(time.Second)
		if err := writer.Round(t.Context(), now); err != nil {
			t.Fatal(err)
		}
		log := logs.records(syncsTopic, 0)
		if n := len(log) - before; n > atOnce+ofOne {
			t.Errorf("%d syncs at one look", n)
		}
		for _, rec := range log[before:] {
			o, err := checkpoint.DecodeOffsetSync(rec)
			if err != nil {
				t.Fatal(err)
			}
			newest[o.Partition] = o.Upstream
		}
	}
	for partition := range int32(partitions) {
		if at, ok := newest[partition]; !ok || at != 899 {
			t.Fatalf("the newest sync of partition %d is at %d (%v)", partition, at, ok)
		}
	}
}

// Where a loose run ends the map knows the place but no record that stands
// there; a sync that named it would lead past the next one.
func TestOffsetSyncsNameRecords(t *testing.T) {
	logs, runs := newMemoryLogs(), &checkpoint.Runs{}
	writer := checkpoint.NewOffsetSyncer(flowWithSyncs(t), &oneMap{key: key(), runs: runs}, logs, quiet())
	for _, run := range []checkpoint.Run{
		{Source: 0, Target: 0, Count: 3003, Loose: true},
		{Source: 3033, Target: 3004, Count: 171}, // 200 before its last record is where the first one ends
	} {
		if err := runs.Add(run); err != nil {
			t.Fatal(err)
		}
	}
	if err := writer.Round(t.Context(), time.Unix(1e9, 0)); err != nil {
		t.Fatal(err)
	}
	log := logs.records(syncsTopic, 0)
	if len(log) == 0 {
		t.Fatal("nothing was written")
	}
	for _, rec := range log {
		o, err := checkpoint.DecodeOffsetSync(rec)
		if err != nil {
			t.Fatal(err)
		}
		if o.Upstream >= 3003 && o.Upstream < 3033 {
			t.Errorf("%+v names no record", o)
		}
	}
}
