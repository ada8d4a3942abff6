package integration_test

import (
	"encoding/json"
	"fmt"
	"slices"
	"strconv"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"
)

// TestHousekeeping mirrors a source of many small transactions, each of which is a
// step in the ledger, to an Apache Kafka whose topic loses its oldest records. The
// offset map's topic must shrink with it, by tombstones and by compaction, and
// whatever is left must be translated exactly and stand there once, also after
// kill -9.
func TestHousekeeping(t *testing.T) {
	w := newWorld(t)
	w.kafka("west", "log.cleaner.backoff.ms=200", "log.cleaner.min.cleanable.ratio=0.01", "log.initial.task.delay.ms=500")
	w.run("brokers", `
clusters:
  east: {embedded: {nodes: [{{addr "east"}}]}}
flows: []
`)
	mirror := w.run("mirror", mirrorOnly)
	h := newHistory("payments", 1, 100)
	w.create("east", h.topic, 1)
	target := "east." + h.topic
	w.transactions("east", h, 5)
	admin := w.admin("west")
	eventually(t, 30*time.Second, "the first record in west", func() error {
		if ends := w.ends(admin, target); ends[0] > 0 {
			return nil
		}
		return fmt.Errorf("nothing in %s yet", target)
	})
	small := []kadm.AlterConfig{
		{Op: kadm.SetConfig, Name: "segment.ms", Value: new("1000")},
		{Op: kadm.SetConfig, Name: "delete.retention.ms", Value: new("0")},
	}
	if _, err := admin.AlterTopicConfigs(w.ctx(10*time.Second), small, "__kmirror_offset_map"); err != nil {
		t.Fatal(err)
	}

	// As the load goes on, all but the newest records are deleted in west.
	peak, valid := 0, 0
	for began := time.Now(); valid == 0 || valid > peak/2; {
		w.transactions("east", h, 100)
		if ends := w.ends(admin, target); ends[0] > 120 {
			w.expire("west", target, ends[0]-120)
		}
		valid = w.mapRecords()
		peak = max(peak, valid)
		if time.Since(began) > time.Minute {
			t.Fatalf("the topic holds %d valid records and held %d at most: nothing was deleted", valid, peak)
		}
	}
	t.Logf("%d records of the offset map were valid at most, then %d", peak, valid)
	w.onceAndExact(mirror, h, target)

	mirror.kill()
	w.transactions("east", h, 21)
	mirror.start()
	mirror.ready(readyWithin)
	w.transactions("east", h, 21)
	w.onceAndExact(mirror, h, target)
	eventually(t, 30*time.Second, "compaction", func() error {
		w.transactions("east", h, 3) // a segment is rolled when something is written
		if n := count(w.read("west", "__kmirror_offset_map")); n > peak/2 {
			return fmt.Errorf("%d records are in the topic, and %d keys were valid at most", n, peak)
		}
		return nil
	})
	mirror.kill()
	mirror.start()
	mirror.ready(readyWithin)
	w.transactions("east", h, 21)
	w.onceAndExact(mirror, h, target)
}

// mapRecords counts the keys in the offset map's topic that are not deleted.
func (w *world) mapRecords() int {
	valid := map[string]bool{}
	for _, records := range w.read("west", "__kmirror_offset_map") {
		for _, r := range records {
			if valid[string(r.Key)] = r.Value != nil; r.Value == nil {
				delete(valid, string(r.Key))
			}
		}
	}
	return len(valid)
}

// onceAndExact waits until the last record of the history is in west, and holds what
// west still has against the end of what east has: each record once, and translated
// to where it stands.
func (w *world) onceAndExact(mirror *daemon, h *history, target string) {
	w.t.Helper()
	source := w.read("east", h.topic)[0]
	_, last, err := identity(source[len(source)-1])
	if err != nil {
		w.t.Fatal(err)
	}
	var there []*kgo.Record
	eventually(w.t, 30*time.Second, "the last record in west", func() error {
		there = w.read("west", target)[0]
		if len(there) == 0 {
			return fmt.Errorf("%s is empty", target)
		}
		if _, n, err := identity(there[len(there)-1]); err != nil {
			return err
		} else if n != last {
			return fmt.Errorf("record %d is the last in west, want %d", n, last)
		}
		return nil
	})
	source = source[len(source)-len(there):]
	for i, r := range there {
		_, got, _ := identity(r)
		if _, want, _ := identity(source[i]); got != want {
			w.t.Fatalf("record %d stands at %d of %s where record %d should", got, r.Offset, target, want)
		}
	}
	offsets := make([]string, 0, len(source))
	for _, r := range source {
		offsets = append(offsets, strconv.FormatInt(r.Offset, 10))
	}
	eventually(w.t, 10*time.Second, "exact translations", func() error { // the map is written behind
		n := 0
		for part := range slices.Chunk(offsets, 100) {
			args := []string{"translate", "east", "west", "--topic", h.topic, "-o", "json"}
			for _, o := range part {
				args = append(args, "--offset", o)
			}
			var rows []struct {
				ToOffset int64 `json:"to_offset"`
				Exact    bool  `json:"exact"`
			}
			if err := json.Unmarshal([]byte(mirror.mustKmirror(args...)), &rows); err != nil {
				return err
			}
			for i, row := range rows {
				if want := there[n+i].Offset; row.ToOffset != want || !row.Exact {
					return fmt.Errorf("offset %s is translated to %d (exact: %v), and its record stands at %d", part[i], row.ToOffset, row.Exact, want)
				}
			}
			n += len(rows)
		}
		if n != len(there) {
			return fmt.Errorf("%d of %d offsets were translated", n, len(there))
		}
		return nil
	})
}
