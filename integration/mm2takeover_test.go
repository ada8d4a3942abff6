package integration_test

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
)

// TestMM2Takeover replaces a real MirrorMaker 2 that ran: one that is stopped in
// order under load, and one that is killed in the midst of copying. What they had
// copied is not copied again, and nothing is missing; groups go on.
func TestMM2Takeover(t *testing.T) {
	w := newWorld(t)
	built(t)
	w.kafka("east")
	w.kafka("west")
	w.addresses["south"] = w.addr("east") // the same brokers, by the alias of the one that is killed

	orders, payments, kills := newHistory("orders", 3, 300), newHistory("payments", 2, 100), newHistory("kills", 3, 300)
	for _, h := range []*history{orders, payments, kills} {
		w.create("east", h.topic, int32(len(h.fates)))
	}
	w.create("east", "later", 1)
	w.write("east", orders, 700)
	w.transactions("east", payments, 20)
	w.write("east", kills, 15_000)

	ordered := w.mirrorMaker2("east", "orders, payments", "sync.group.offsets.enabled = true")
	killed := w.mirrorMaker2("south", "kills", "west.offset.flush.interval.ms = 300", "south.consumer.max.poll.records = 200", "west.producer.batch.size = 4000")
	south, east := w.imported("southward", "south"), w.imported("main", "east")

	w.copying("south.kills", 3000)
	w.stored("south", "kills", 3) // killed before that, it would have left records and no position
	killed.kill()
	south.start()
	w.copying("east.orders", 2100)

	load := w.load("east", orders, 800)
	east.start()
	eventually(t, 30*time.Second, "kmirror refuses while MirrorMaker 2 runs", func() error {
		if !strings.Contains(east.log(), "stop MirrorMaker 2 first") {
			return errors.New("not yet")
		}
		return nil
	})
	ordered.stop(30 * time.Second)
	w.commit("east", "older", "orders", map[int32]int64{0: 77, 1: 350, 2: 699})
	load.finish()
	w.transactions("east", payments, 20)

	t.Run("killed", func(t *testing.T) {
		w := w.in(t)
		w.write("east", kills, 500)
		w.exact(kills, "east", "west", "south.kills")
		south.kill() // what was taken over is taken over: nobody compares again
		south.start()
		w.write("east", kills, 500)
		w.exact(kills, "east", "west", "south.kills")
		for line := range strings.Lines(south.log()) {
			if strings.Contains(line, "goes on where MirrorMaker 2 stopped") && strings.Contains(line, "topic=kills") {
				t.Log(strings.TrimSpace(line)) // copied_beyond: what a mirror that trusts the stored position would have doubled
			}
		}
	})
	t.Run("stopped in order", func(t *testing.T) {
		w := w.in(t)
		w.exact(orders, "east", "west", "east.orders")
	})
	t.Run("transactions", func(t *testing.T) {
		w := w.in(t)
		eventually(t, time.Minute, "every committed record once, in order", func() error {
			for partition, want := range w.read("east", "payments") {
				got := withoutAborted(w.read("west", "east.payments")[partition])
				if len(got) != len(want) {
					return fmt.Errorf("partition %d: %d records, want %d", partition, len(got), len(want))
				}
				for i := range want {
					if !bytes.Equal(got[i].Value, want[i].Value) {
						t.Fatalf("partition %d: record %d is another one", partition, i)
					}
				}
			}
			return nil
		})
	})
	t.Run("groups", func(t *testing.T) {
		w := w.in(t)
		admin := w.admin("west")
		here, there := mirrorPlace{"east", "orders"}, mirrorPlace{"west", "east.orders"}
		east.ready(readyWithin)
		source, target := w.read("east", "orders"), w.read("west", "east.orders")
		eventually(t, 30*time.Second, "an older group at or before its record", func() error {
			at := w.committed(admin, "older", "east.orders")
			for partition, offset := range map[int32]int64{0: 77, 1: 350, 2: 699} {
				stands, known := at[partition]
				if !known {
					return fmt.Errorf("partition %d: nothing committed in west", partition)
				}
				_, want, _ := identity(source[partition][offset])
				_, got, err := identity(target[partition][stands])
				if err != nil || got > want || want-got > 400 {
					t.Fatalf("partition %d: the group stands before record %d in east and %d in west (%v)", partition, want, got, err)
				}
				t.Logf("partition %d: stands before record %d, and before %d in west: %d to be read again", partition, want, got, want-got)
			}
			return nil
		})
		ends := w.ends(w.admin("east"), "orders")
		w.commit("east", "newer", "orders", map[int32]int64{0: ends[0] - 3, 1: ends[1], 2: ends[2] - 40})
		east.inStep(w, "newer", "orders", "east.orders")
		java := w.mirrorTools()
		w.follows("newer", here, there, func() map[int32]int64 {
			return java.offsets(t, there.topic, java.question("translateOffsets", "newer", "east", "west")...)
		})
	})
	t.Run("what it had not begun", func(t *testing.T) {
		w := w.in(t)
		later := newHistory("later", 1, 100)
		w.write("east", later, 10)
		file := filepath.Join(w.dir, "later.properties")
		w.properties(file, "east", "later, orders, payments")
		w.reimport(east, file)
		w.exact(later, "east", "west", "east.later")
	})
}

// copying waits until MirrorMaker 2 has begun, and has copied so many records into a
// topic of west. It is slow to begin, and slower on a machine that is busy.
func (w *world) copying(topic string, atLeast int64) {
	w.t.Helper()
	admin := w.admin("west")
	eventually(w.t, 3*time.Minute, fmt.Sprintf("MirrorMaker 2 has copied %d records into %s", atLeast, topic), func() error {
		ends, err := admin.ListEndOffsets(w.ctx(10*time.Second), topic)
		if err != nil {
			return err
		}
		copied := int64(0)
		for _, end := range ends.Offsets()[topic] {
			copied += end.At
		}
		if copied < atLeast {
			return fmt.Errorf("%d copied", copied)
		}
		return nil
	})
}

// stored waits until MirrorMaker 2 has stored a position for so many partitions.
func (w *world) stored(from, topic string, partitions int) {
	w.t.Helper()
	eventually(w.t, time.Minute, "positions of "+topic, func() error {
		keys := map[string]bool{}
		for _, records := range w.read("west", "mm2-offsets."+from+".internal") {
			for _, r := range records {
				if strings.Contains(string(r.Key), fmt.Sprintf("%q", topic)) {
					keys[string(r.Key)] = true
				}
			}
		}
		if len(keys) < partitions {
			return fmt.Errorf("%d stored", len(keys))
		}
		return nil
	})
}

func withoutAborted(records []*kgo.Record) []*kgo.Record {
	var kept []*kgo.Record
	for _, r := range records {
		if string(r.Value) != "aborted" { // MirrorMaker 2 reads what is not committed too
			kept = append(kept, r)
		}
	}
	return kept
}

// onOneBroker are the settings by which MirrorMaker 2 makes do with one broker.
func onOneBroker() []string {
	return []string{
		"replication.factor = 1",
		"checkpoints.topic.replication.factor = 1",
		"heartbeats.topic.replication.factor = 1",
		"offset-syncs.topic.replication.factor = 1",
		"offset.storage.replication.factor = 1",
		"status.storage.replication.factor = 1",
		"config.storage.replication.factor = 1",
	}
}

// properties writes the property file of a MirrorMaker 2 from one alias to west.
func (w *world) properties(file, from, topics string, more ...string) {
	w.t.Helper()
	lines := append([]string{
		"clusters = " + from + ", west",
		from + ".bootstrap.servers = " + w.addr(from),
		"west.bootstrap.servers = " + w.addr("west"),
		from + "->west.enabled = true",
		from + "->west.topics = " + topics,
		"west->" + from + ".enabled = false",
		"refresh.topics.interval.seconds = 2",
		"emit.checkpoints.interval.seconds = 1",
		"sync.topic.acls.enabled = false",
	}, slices.Concat(onOneBroker(), more)...)
	if err := os.WriteFile(file, []byte(strings.Join(lines, "\n")+"\n"), 0o644); err != nil {
		w.t.Fatal(err)
	}
}

// mirrorMaker2 starts a real MirrorMaker 2 in dedicated mode.
func (w *world) mirrorMaker2(from, topics string, more ...string) *process {
	w.t.Helper()
	file := filepath.Join(w.dir, from+".properties")
	w.properties(file, from, topics, more...)
	java, jars := classpath(w.t)
	return start(w.t, w.dir, "mm2-"+from, nil, java, "-Xms128m", "-Xmx512m", "-XX:TieredStopAtLevel=1", "-cp", jars, "org.apache.kafka.connect.mirror.MirrorMaker", file)
}

// imported is a daemon whose mirror.yaml `kmirror import` has made of the property file
// of a MirrorMaker 2. It is not started.
func (w *world) imported(name, from string) *daemon {
	w.t.Helper()
	d := w.daemon(name, "")
	d.configure(w.translated(filepath.Join(w.dir, from+".properties")))
	if out, errs, code := d.kmirror("check"); code != 0 {
		w.t.Fatalf("what was imported does not pass: exit %d\n%s%s", code, out, errs)
	}
	return d
}

// reimport gives a running daemon what a property file has become.
func (w *world) reimport(d *daemon, file string) {
	w.t.Helper()
	d.configure(w.translated(file))
	d.mustKmirror("reload")
}

func (w *world) translated(file string) string {
	w.t.Helper()
	out, errs, code := kmirror(w.t, w.dir, "import", file, "--config", "-")
	if code != 0 {
		w.t.Fatalf("import: exit %d\n%s", code, errs)
	}
	return out
}
